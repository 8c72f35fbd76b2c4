// SPDX-License-Identifier: GPL-2.0

//! The private data of kvm_intel, by livepatch relocations.
//!
//! Each import is a pointer that livepatch fills in before `pre_patch` and empties after
//! `post_unpatch` (`rust/vmx_vpid_imports.h` lists them).  Two kinds of code may follow one: an
//! operation, since KVM calls operations only while kvm_intel is loaded; and a holder of the
//! handover's mutex, in every phase but `Detached`.

use crate::{
    bindings,
    invvpid::Vpid,
    vpid::{
        NotHeld,
        Pool,
        Words, //
    }, //
};
use core::{
    cell::UnsafeCell,
    ptr, //
};
use kernel::sync::lock::{
    spinlock::SpinLockBackend,
    Guard,
    Lock, //
};

kernel::static_assert!(bindings::VMX_NR_VPIDS as usize == Vpid::COUNT);

/// Reads a boolean of kvm_intel.
///
/// # Safety
///
/// `import` is the import of a `bool`, and filled in.
#[inline]
unsafe fn read_bool(import: *mut kernel::ffi::c_void) -> bool {
    // SAFETY: By the contract, `import` points to a live `bool`.  kvm_intel writes it only in its
    // initialisation, before any vCPU exists.
    unsafe { ptr::read_volatile(import.cast::<bool>()) }
}

macro_rules! flags {
    ($($(#[$doc:meta])* $name:ident = $import:ident;)*) => {$(
        $(#[$doc])*
        ///
        /// # Safety
        ///
        /// kvm_intel is loaded and its symbols are resolved.
        #[inline]
        pub(super) unsafe fn $name() -> bool {
            // SAFETY: The import is that of a `bool`, and filled in by the contract.
            unsafe { read_bool(bindings::$import) }
        }
    )*};
}

flags! {
    /// Whether guests run on EPT: kvm_intel's `enable_ept`.
    enable_ept = vmx_vpid_import_enable_ept;
    /// Whether EPT tables have accessed and dirty flags: kvm_intel's `enable_ept_ad_bits`.
    enable_ept_ad_bits = vmx_vpid_import_enable_ept_ad_bits;
    /// Whether guests run with VPIDs: kvm_intel's `enable_vpid`.
    enable_vpid = vmx_vpid_import_enable_vpid;
}

/// Who owns which VPID.
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
pub(super) struct Vpids {
    _guard: Guard<'static, (), SpinLockBackend>,
}

impl Vpids {
    /// Takes the lock.
    ///
    /// # Safety
    ///
    /// kvm_intel is loaded and its symbols are resolved, until the value is dropped.
    #[inline]
    pub(super) unsafe fn lock() -> Self {
        // SAFETY: The import of `vmx_vpid_lock` points to an initialised spinlock, and stays valid
        // as long as the caller promises, which is as long as the guard lives.
        let lock = unsafe {
            Lock::<(), SpinLockBackend>::from_raw(bindings::vmx_vpid_import_vmx_vpid_lock.cast())
        };
        Self {
            _guard: lock.lock(),
        }
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

    /// Makes the pool the truth, with what KVM's bitmap holds.
    ///
    /// KVM's bitmap is left full: should C allocate from it all the same (see
    /// [`Pool::reconcile()`]), it gets no VPID rather than one that the pool gives out too.
    pub(super) fn import(&mut self) {
        let bitmap: *mut Words = self.bitmap();
        let owners = self.owners();
        // SAFETY: The bitmap is kvm_intel's and the pool this module's, so they do not overlap;
        // `self` holds the lock of both.
        owners.pool.import(unsafe { &*bitmap });
        owners.pool_is_truth = true;
        // SAFETY: As above.
        unsafe { (*bitmap).fill(u64::MAX) };
    }

    /// Makes KVM's bitmap the truth, with what the pool holds.
    ///
    /// Returns how many VPIDs C took back behind the pool's back; 0 unless it was inlined.
    pub(super) fn export(&mut self) -> u32 {
        let bitmap: *mut Words = self.bitmap();
        let owners = self.owners();
        owners.pool_is_truth = false;
        // SAFETY: As in `import()`: no overlap, and the lock is held.
        let strays = owners.pool.reconcile(unsafe { &*bitmap });
        // SAFETY: As above.
        unsafe { *bitmap = *owners.pool.words() };
        strays
    }

    /// Takes a free VPID: the pool's next, or KVM's first.
    #[inline]
    pub(super) fn acquire(&mut self) -> Option<Vpid> {
        let owners = self.owners();
        if owners.pool_is_truth {
            owners.pool.acquire()
        } else {
            self.acquire_in_bitmap()
        }
    }

    /// Gives a VPID back.
    ///
    /// # Errors
    ///
    /// [`NotHeld`] when it was not in use; nothing was changed then.
    #[inline]
    pub(super) fn release(&mut self, vpid: Vpid) -> Result<(), NotHeld> {
        let owners = self.owners();
        if owners.pool_is_truth {
            owners.pool.release(vpid)
        } else {
            self.release_in_bitmap(vpid)
        }
    }

    /// Takes the first VPID that is free in KVM's bitmap.
    #[cold]
    fn acquire_in_bitmap(&mut self) -> Option<Vpid> {
        let (index, word) = self
            .bitmap()
            .iter_mut()
            .enumerate()
            .find(|(_, word)| **word != u64::MAX)?;
        let bit = word.trailing_ones();
        // Bit 0 is set by kvm_intel in its initialisation, before there are vCPUs; `Vpid::new()`
        // refuses it all the same.
        let vpid = Vpid::new(u16::try_from(index * 64 + bit as usize).ok()?)?;
        *word |= 1 << bit;
        Some(vpid)
    }

    /// Gives a VPID back to KVM's bitmap.
    #[cold]
    fn release_in_bitmap(&mut self, vpid: Vpid) -> Result<(), NotHeld> {
        let index = usize::from(vpid.into_raw());
        let bit = 1u64 << (index % 64);
        let word = self.bitmap().get_mut(index / 64).ok_or(NotHeld)?;
        if *word & bit == 0 {
            return Err(NotHeld);
        }
        *word &= !bit;
        Ok(())
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
