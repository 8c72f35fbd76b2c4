// SPDX-License-Identifier: GPL-2.0

//! KVM's lock of VPIDs, and what it guards.

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
/// The content is accessed under kvm_intel's `vmx_vpid_lock` only.
struct OwnersCell(UnsafeCell<VpidAllocator>);

// SAFETY: By the type invariant a lock serialises every access, and `VpidAllocator` is plain data.
unsafe impl Sync for OwnersCell {}

static ALLOCATOR: OwnersCell = OwnersCell(UnsafeCell::new(VpidAllocator::new()));

/// KVM's VPIDs, and the lock that C takes for its bitmap too.
///
/// # Invariants
///
/// kvm_intel is loaded and its symbols are resolved as long as a value lives.
pub(super) struct Vpids(());

impl Vpids {
    /// Takes KVM for what has VPIDs.
    ///
    /// # Safety
    ///
    /// kvm_intel is loaded and its symbols are resolved, until the value is dropped.  It lives
    /// within an operation, a callback of livepatch or a reading of debugfs.
    #[inline]
    pub(super) unsafe fn new() -> Self {
        // INVARIANT: By the contract.
        Self(())
    }
}

impl VpidLock for Vpids {
    type Word = flushed_cpus::SharedWord;

    // Not the kernel crate's guard, which asks lockdep once more for each lock taken.
    #[inline]
    fn locked<R>(&self, function: impl FnOnce(Allocators<'_>) -> R) -> R {
        // SAFETY: By the type invariant.
        unsafe { bindings::vmx_vpid_lock_vpids() };
        let result = function(Allocators {
            // SAFETY: The lock of the cell's invariant is held, and the reference does not outlive
            // the call.
            allocator: unsafe { &mut *ALLOCATOR.0.get() },
            // SAFETY: The import points to `DECLARE_BITMAP(, VMX_NR_VPIDS)`, an array of that many
            // bits in 64-bit words.  The lock that guards it is held, as above; what kvm_intel does
            // without is to set bit 0 in its initialisation, before there is a vCPU, and nothing
            // here depends on that bit.  It is kvm_intel's, hence no part of this module's allocator.
            bitmap: unsafe { &mut *bindings::vmx_vpid_import_vmx_vpid_bitmap.cast::<Words>() },
        });
        // SAFETY: By the type invariant; taken above.
        unsafe { bindings::vmx_vpid_unlock_vpids() };
        result
    }

    #[inline]
    fn flushed(&self) -> FlushedCpus<'_, flushed_cpus::SharedWord> {
        // SAFETY: By the contract of `new()` this is within one of those.
        unsafe { flushed_cpus::flushed() }
    }
}
