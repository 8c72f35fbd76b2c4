// SPDX-License-Identifier: GPL-2.0

//! The VPIDs in use: in KVM's bitmap or in the pool, with the lock of both.

use crate::{
    bindings,
    bitmap::{
        self,
        NotHeld,
        Words, //
    },
    invvpid::Vpid,
    kvm::{
        record,
        switches, //
    },
    lease::Source,
    vpid::Pool, //
};
use core::cell::UnsafeCell;
use kernel::types::NotThreadSafe;

kernel::static_assert!(bindings::VMX_NR_VPIDS as usize == Vpid::COUNT);

/// Which VPIDs are in use, and who says so.
struct Owners {
    /// The pool is the truth; otherwise KVM's bitmap is.
    pool_is_truth: bool,
    pool: Pool,
}

/// A cell for [`Owners`].
///
/// # Invariants
///
/// The content is accessed under kvm_intel's `vmx_vpid_lock` only.
struct OwnersCell(UnsafeCell<Owners>);

// SAFETY: By the type invariant a lock serialises every access, and `Owners` is plain data.
unsafe impl Sync for OwnersCell {}

static OWNERS: OwnersCell = OwnersCell(UnsafeCell::new(Owners {
    pool_is_truth: false,
    pool: Pool::new(),
}));

/// Who owns which VPID, with kvm_intel's `vmx_vpid_lock` held.
///
/// C takes the same lock for its bitmap.  So the phase, the pool and the bitmap change together,
/// and tasks that still run C and tasks that already run Rust see one truth.
///
/// # Invariants
///
/// The lock is held, and kvm_intel's symbols are resolved, as long as the value lives.
// Not the kernel crate's guard, which asks lockdep once more for each lock taken.
pub(super) struct Vpids(NotThreadSafe);

impl Vpids {
    /// Takes the lock.
    ///
    /// # Safety
    ///
    /// kvm_intel is loaded and its symbols are resolved, until the value is dropped.
    #[inline]
    pub(super) unsafe fn lock() -> Self {
        // SAFETY: The contract of this function.
        unsafe { bindings::vmx_vpid_lock_vpids() };
        // INVARIANT: Taken here.
        Self(NotThreadSafe)
    }

    /// Returns the owners.
    #[inline]
    fn owners(&mut self) -> &mut Owners {
        // SAFETY: `self` holds the lock of the cell's invariant, and is borrowed mutably for as
        // long as the reference lives.
        unsafe { &mut *OWNERS.0.get() }
    }

    /// Returns KVM's own bitmap.
    #[inline]
    fn bitmap(&mut self) -> &mut Words {
        // SAFETY: The import points to `DECLARE_BITMAP(, VMX_NR_VPIDS)`, an array of that many bits
        // in 64-bit words.  `self` holds the lock that guards it.
        unsafe { &mut *bindings::vmx_vpid_import_vmx_vpid_bitmap.cast::<Words>() }
    }

    /// Makes the pool the truth, with what KVM's bitmap holds; returns how many VPIDs that is.
    ///
    /// KVM's bitmap is left full: should C allocate from it all the same (see
    /// [`Pool::reconcile()`]), it gets no VPID rather than one that the pool gives out too.
    ///
    /// Where C's VPIDs are clean is C's to know: here each counts as clean nowhere, until its
    /// holder flushes it again.
    pub(super) fn import(&mut self) -> u32 {
        let bitmap: *mut Words = self.bitmap();
        let owners = self.owners();
        // SAFETY: The bitmap is kvm_intel's and the pool this module's, so they do not overlap;
        // `self` holds the lock of both.
        let bits = unsafe { &*bitmap };
        // SAFETY: The pool and the lock are used, which is within an operation or a callback.
        let flushed = unsafe { record::flushed() };
        owners
            .pool
            .import(bits, switches::max_vpids(), |vpid| flushed.clear(vpid));
        owners.pool_is_truth = true;
        // SAFETY: As above.
        unsafe { (*bitmap).fill(u64::MAX) };
        owners.pool.in_use()
    }

    /// Makes KVM's bitmap the truth, with what the pool holds.
    ///
    /// Returns how many VPIDs that is, and how many C took back behind the pool's back; 0 unless it
    /// was inlined.
    pub(super) fn export(&mut self) -> (u32, u32) {
        let bitmap: *mut Words = self.bitmap();
        let owners = self.owners();
        owners.pool_is_truth = false;
        // SAFETY: As in `import()`: no overlap, and the lock is held.
        let strays = owners.pool.reconcile(unsafe { &*bitmap });
        // SAFETY: As above.
        owners.pool.export(unsafe { &mut *bitmap });
        (owners.pool.in_use(), strays)
    }

    /// Adds the VPIDs in use to some others.
    pub(super) fn add_to(&mut self, others: &mut Words) {
        let owners = self.owners();
        let in_use = if owners.pool_is_truth {
            owners.pool.words()
        } else {
            self.bitmap()
        };
        for (other, word) in others.iter_mut().zip(in_use) {
            *other |= word;
        }
    }

    /// Takes a free VPID: the pool's next, or KVM's first.
    ///
    /// Its holder to be has flushed it nowhere.
    #[inline]
    fn acquire(&mut self) -> Option<Vpid> {
        let owners = self.owners();
        let taken = if owners.pool_is_truth {
            owners.pool.acquire()
        } else {
            bitmap::take_first(self.bitmap())
        }?;
        // SAFETY: VPIDs are taken within operations only.
        Some(unsafe { record::flushed() }.forget(taken))
    }

    /// Gives a VPID back.
    ///
    /// # Errors
    ///
    /// [`NotHeld`] when it was not in use; nothing was changed then.
    #[inline]
    fn release(&mut self, vpid: Vpid) -> Result<(), NotHeld> {
        let owners = self.owners();
        if owners.pool_is_truth {
            owners.pool.release(vpid)
        } else {
            bitmap::give_back(self.bitmap(), vpid)
        }
    }

    /// Returns how many VPIDs are in use, and the most that were since the pool took over.
    pub(super) fn usage(&mut self) -> (u32, u32) {
        let owners = self.owners();
        let high_water = owners.pool.high_water();
        if owners.pool_is_truth {
            return (owners.pool.in_use(), high_water);
        }
        // Bit 0 is the host's, not a guest's.
        let count: u32 = self.bitmap().iter().map(|word| word.count_ones()).sum();
        (count.saturating_sub(1), high_water)
    }
}

impl Drop for Vpids {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: By the type invariant it is held, and the symbols are resolved.
        unsafe { bindings::vmx_vpid_unlock_vpids() };
    }
}

/// KVM, as what VPIDs are leased from.
///
/// # Invariants
///
/// kvm_intel is loaded and its symbols are resolved as long as a value lives.
pub(super) struct Leases(());

impl Leases {
    /// Takes KVM for what VPIDs are leased from.
    ///
    /// # Safety
    ///
    /// kvm_intel is loaded and its symbols are resolved, until the value is dropped.
    #[inline]
    pub(super) unsafe fn new() -> Self {
        // INVARIANT: By the contract.
        Self(())
    }
}

impl Source for Leases {
    #[inline]
    fn take(&self) -> Option<Vpid> {
        // SAFETY: By the type invariant.
        unsafe { Vpids::lock() }.acquire()
    }

    #[inline]
    fn give_back(&self, vpid: Vpid) -> Result<(), NotHeld> {
        // SAFETY: By the type invariant.
        unsafe { Vpids::lock() }.release(vpid)
    }
}
