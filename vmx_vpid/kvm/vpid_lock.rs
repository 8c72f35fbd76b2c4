// SPDX-License-Identifier: GPL-2.0

//! This module takes kvm_intel's lock of VPIDs, and gives access to both allocators while it is
//! held.

use crate::{
    bindings,
    kvm::flushed_cpus,
    vpid::{
        allocator::{
            Allocators, //
            VpidAllocator,
            VpidLock,
        },
        bitmap::Words,
        flushed_cpus::FlushedCpus,
        Vpid, //
    }, //
};
use core::cell::UnsafeCell;

kernel::static_assert!(bindings::VMX_NR_VPIDS as usize == Vpid::COUNT);

/// A cell for [`VpidAllocator`].
///
/// # Invariants
///
/// Only the holder of kvm_intel's `vmx_vpid_lock` accesses the content.
struct AllocatorCell(UnsafeCell<VpidAllocator>);

// SAFETY: By the type invariant a lock serialises every access, and `VpidAllocator` is plain data.
unsafe impl Sync for AllocatorCell {}

static ALLOCATOR: AllocatorCell = AllocatorCell(UnsafeCell::new(VpidAllocator::new()));

/// KVM's VPIDs, with the lock that C takes for KVM's bitmap.
///
/// # Invariants
///
/// - kvm_intel is loaded and its symbols are resolved as long as a value lives.
/// - A value lives within an operation, a callback of livepatch or a read of debugfs.
pub(super) struct Vpids(());

impl Vpids {
    /// Returns access to KVM's VPID state.
    ///
    /// # Safety
    ///
    /// kvm_intel is loaded and its symbols are resolved until the value is dropped.  The value
    /// lives within an operation, a callback of livepatch or a read of debugfs.
    #[inline]
    pub(super) unsafe fn new() -> Self {
        // INVARIANT: By the safety requirements kvm_intel is loaded and its symbols are resolved,
        // and the value lives within an operation, a callback of livepatch or a read of debugfs.
        Self(())
    }
}

impl VpidLock for Vpids {
    type Word = flushed_cpus::SharedWord;

    // The kernel crate's guard is not used: with it, lockdep checks each lock a second time.
    #[inline]
    fn locked<R>(&self, function: impl FnOnce(Allocators<'_>) -> R) -> R {
        // SAFETY: By the type invariant the import of the lock is filled in.
        unsafe { bindings::vmx_vpid_lock_vpids() };
        let result = function(Allocators {
            // SAFETY: This function holds `vmx_vpid_lock`, as the invariant of `AllocatorCell`
            // requires, and the reference does not outlive the call of `function`.
            allocator: unsafe { &mut *ALLOCATOR.0.get() },
            // SAFETY: By the type invariant the import is filled in.  The import points to
            // `vmx_vpid_bitmap`, an array of `VMX_NR_VPIDS` bits in 64-bit words.  This function
            // holds the lock that guards the bitmap.  Without the lock kvm_intel only sets bit 0,
            // in its initialisation before there is a vCPU, and no code here depends on that bit.
            bitmap: unsafe { &mut *bindings::vmx_vpid_import_vmx_vpid_bitmap.cast::<Words>() },
        });
        // SAFETY: By the type invariant the import of the lock is filled in, and this function took
        // the lock.
        unsafe { bindings::vmx_vpid_unlock_vpids() };
        result
    }

    #[inline]
    fn flushed(&self) -> FlushedCpus<'_, flushed_cpus::SharedWord> {
        // SAFETY: By the type invariant an operation, a callback of livepatch or a read of debugfs
        // runs, so FlushedCpus exists.
        unsafe { flushed_cpus::flushed() }
    }
}
