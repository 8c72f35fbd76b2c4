// SPDX-License-Identifier: GPL-2.0

//! This module keeps the VPIDs in use in one of two allocators, KVM's bitmap or the pool, and moves
//! them between the two.
//!
//! Exactly one allocator is active at any time, for tasks that still run C as well as for tasks
//! that run Rust.  C takes a lock for its bitmap.  The same lock guards the bitmap, the pool and
//! the choice of the active allocator, so that all three change together.
//!
//! The functions of this module run under that lock; callers provide the lock by [`VpidLock`].  In
//! the kernel it is kvm_intel's lock.  In userspace it is a lock of a test that tries every order
//! in which threads take it, see Documentation/testing-userspace.rst.

use crate::{
    phase::Transfer,
    vpid::{
        bitmap::{
            self,
            NotAllocated,
            UnflushedVpid,
            Words, //
        },
        flushed_cpus::{
            FlushedCpus,
            Word, //
        },
        owned::VpidSource,
        pool::Pool,
        Vpid, //
    }, //
};
use kernel::prelude::*;

/// The pool, and whether the pool or KVM's bitmap is the active allocator.
///
/// At first KVM's bitmap is active.
#[derive(Zeroable)]
pub(crate) struct VpidAllocator {
    /// Whether the pool is the active allocator; otherwise KVM's bitmap is.
    pool_active: bool,
    pool: Pool,
}

impl VpidAllocator {
    /// Creates an inactive pool, which has no VPID to allocate before an import.
    pub(crate) const fn new() -> Self {
        Self {
            pool_active: false,
            pool: Pool::new(),
        }
    }

    /// Copies another allocator; for the model, which returns to an earlier state.
    #[cfg(CONFIG_VMX_VPID_KUNIT_TEST)]
    pub(crate) fn assign(&mut self, other: &Self) {
        self.pool_active = other.pool_active;
        self.pool.assign(&other.pool);
    }
}

/// The result of a change of the active allocator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Handover {
    /// How many VPIDs are in use.
    pub(crate) count: u32,
    /// How many VPIDs C freed while the pool was active; 0 unless C code bypasses
    /// `Entry::vcpu_free()`.
    pub(crate) freed_by_c: u32,
}

/// Both allocators, while their lock is held.
pub(crate) struct Allocators<'a> {
    /// The pool, and the choice of the active allocator.
    pub(crate) allocator: &'a mut VpidAllocator,
    /// KVM's bitmap.
    pub(crate) bitmap: &'a mut Words,
}

impl Allocators<'_> {
    /// Moves the VPIDs in use to the other allocator, as a step of attach or detach requires.
    ///
    /// After an import the pool allocates no VPID above `max`, and no VPID in use counts as flushed
    /// on any CPU: C keeps no record of flushes, so a VPID's holder has to flush it again first.
    pub(crate) fn transfer<W: Word>(
        &mut self,
        transfer: Transfer,
        max: u16,
        flushed: &FlushedCpus<'_, W>,
    ) -> Handover {
        match transfer {
            Transfer::None => Handover::default(),
            Transfer::Import => self.import(max, |vpid| flushed.clear(vpid)),
            Transfer::Export => self.export(),
        }
    }

    /// Makes the pool the active allocator, with the VPIDs of KVM's bitmap in use.
    ///
    /// KVM's bitmap is filled.  If C still allocates from the bitmap (see [`Pool::reconcile()`]), C
    /// gets no VPID, rather than a VPID that the pool allocates as well.
    fn import(&mut self, max: u16, clear: impl Fn(Vpid)) -> Handover {
        let VpidAllocator { pool, pool_active } = &mut *self.allocator;
        pool.import(self.bitmap, max, clear);
        *pool_active = true;
        self.bitmap.fill(u64::MAX);
        Handover {
            count: pool.in_use(),
            freed_by_c: 0,
        }
    }

    /// Makes KVM's bitmap the active allocator, with the pool's VPIDs in use.
    fn export(&mut self) -> Handover {
        let VpidAllocator { pool, pool_active } = &mut *self.allocator;
        *pool_active = false;
        let freed_by_c = pool.reconcile(self.bitmap);
        pool.export(self.bitmap);
        Handover {
            count: pool.in_use(),
            freed_by_c,
        }
    }

    /// Returns whether the pool is the active allocator.
    #[cfg(CONFIG_VMX_VPID_KUNIT_TEST)]
    pub(crate) fn pool_active(&self) -> bool {
        self.allocator.pool_active
    }

    /// Returns whether a VPID is in use.
    pub(crate) fn has(&self, vpid: Vpid) -> bool {
        let (index, bit) = bitmap::place(vpid);
        let in_use = if self.allocator.pool_active {
            self.allocator.pool.words()
        } else {
            &*self.bitmap
        };
        in_use.get(index).is_some_and(|word| word & bit != 0)
    }

    /// Sets the bits of the VPIDs in use in another bitmap.
    pub(crate) fn add_to(&self, others: &mut Words) {
        let in_use = if self.allocator.pool_active {
            self.allocator.pool.words()
        } else {
            &*self.bitmap
        };
        for (other, word) in others.iter_mut().zip(in_use) {
            *other |= word;
        }
    }

    /// Returns how many VPIDs are in use, and the most that were in use at once since the last
    /// import.
    pub(crate) fn usage(&self) -> (u32, u32) {
        let pool = &self.allocator.pool;
        let high_water = pool.high_water();
        if self.allocator.pool_active {
            return (pool.in_use(), high_water);
        }
        // Bit 0 is set for the host, not for a guest.
        let count: u32 = self.bitmap.iter().map(|word| word.count_ones()).sum();
        let count = count.saturating_sub(1);
        (count, high_water.max(count))
    }

    /// Allocates a VPID: the first of the pool's queue, or the first free one of KVM's bitmap.
    #[inline]
    fn acquire(&mut self) -> Option<UnflushedVpid> {
        if self.allocator.pool_active {
            self.allocator.pool.acquire()
        } else {
            bitmap::alloc_first(self.bitmap)
        }
    }

    /// Frees a VPID.
    ///
    /// # Errors
    ///
    /// [`NotAllocated`] when the VPID was not in use; nothing was changed then.
    #[inline]
    fn release(&mut self, vpid: Vpid) -> Result<(), NotAllocated> {
        if self.allocator.pool_active {
            self.allocator.pool.release(vpid)
        } else {
            bitmap::free(self.bitmap, vpid)
        }
    }
}

/// Both allocators behind their lock, and FlushedCpus.
pub(crate) trait VpidLock {
    /// A word of FlushedCpus.
    type Word: Word;

    /// Takes the lock, calls a function, and releases the lock.
    fn locked<R>(&self, function: impl FnOnce(Allocators<'_>) -> R) -> R;

    /// Returns the CPUs on which each VPID was flushed.
    fn flushed(&self) -> FlushedCpus<'_, Self::Word>;
}

impl<S: VpidLock> VpidSource for S {
    #[inline]
    fn alloc(&self) -> Option<Vpid> {
        // Reset FlushedCpus before the lock is released: until then no other task has the VPID.
        // `flushed()` is called after the allocation, so that no register holds its result before.
        self.locked(|mut allocators| {
            let taken = allocators.acquire()?;
            Some(self.flushed().reset(taken))
        })
    }

    #[inline]
    fn free(&self, vpid: Vpid) -> Result<(), NotAllocated> {
        self.locked(|mut allocators| allocators.release(vpid))
    }
}

#[cfg(CONFIG_VMX_VPID_KUNIT_TEST)]
#[kernel::macros::kunit_tests(vmx_vpid_allocator)]
mod tests {
    use super::*;
    use crate::vpid::flushed_cpus::Plane;
    use core::cell::{
        Cell,
        RefCell, //
    };

    /// The allocators of a test with one CPU, which needs no lock.
    struct Alone<'a> {
        allocator: RefCell<KVBox<VpidAllocator>>,
        bitmap: RefCell<KBox<Words>>,
        plane: &'a Plane<Cell<u64>>,
    }

    impl VpidLock for Alone<'_> {
        type Word = Cell<u64>;

        fn locked<R>(&self, function: impl FnOnce(Allocators<'_>) -> R) -> R {
            function(Allocators {
                allocator: &mut self.allocator.borrow_mut(),
                bitmap: &mut self.bitmap.borrow_mut(),
            })
        }

        fn flushed(&self) -> FlushedCpus<'_, Cell<u64>> {
            FlushedCpus::new(self.plane, &[])
        }
    }

    impl Alone<'_> {
        /// Calls a function with KVM's bitmap active; `in_use` is the bitmap's first word.
        fn with(in_use: u64, function: impl FnOnce(&Alone<'_>) -> Result) -> Result {
            let words = KVVec::from_elem(Cell::new(0), Vpid::COUNT, GFP_KERNEL)?;
            let mut bitmap = KBox::<Words>::zeroed(GFP_KERNEL)?;
            bitmap[0] = in_use;
            function(&Alone {
                allocator: RefCell::new(KVBox::zeroed(GFP_KERNEL)?),
                bitmap: RefCell::new(bitmap),
                plane: words.first_chunk().ok_or(EINVAL)?,
            })
        }

        /// Moves the VPIDs to the other allocator; the pool may allocate VPIDs 1 to 3.
        fn transfer(&self, transfer: Transfer) -> Handover {
            self.locked(|mut allocators| allocators.transfer(transfer, 3, &self.flushed()))
        }

        /// Allocates a VPID; returns 0 when there is none.
        fn take_raw(&self) -> u16 {
            self.alloc().map_or(0, Vpid::into_raw)
        }

        /// Returns the first word of the VPIDs in use, with the host's bit 0 as in KVM's bitmap.
        fn in_use(&self) -> Result<u64> {
            let mut words = KBox::<Words>::zeroed(GFP_KERNEL)?;
            self.locked(|allocators| allocators.add_to(&mut words));
            Ok(words[0] | 1)
        }
    }

    fn moved(count: u32, freed_by_c: u32) -> Handover {
        Handover { count, freed_by_c }
    }

    #[test]
    fn vpids_in_use_stay_in_use_when_the_active_allocator_changes() -> Result {
        Alone::with(0b101, |alone| {
            assert_eq!(alone.take_raw(), 1);
            assert_eq!(alone.in_use()?, 0b111);
            assert_eq!(alone.transfer(Transfer::Import), moved(2, 0));
            assert_eq!(alone.in_use()?, 0b111);
            assert_eq!((alone.take_raw(), alone.take_raw()), (3, 0));
            for id in [1, 3] {
                let vpid = Vpid::new(id).ok_or(EINVAL)?;
                assert_eq!(alone.free(vpid), Ok(()));
            }
            assert_eq!(alone.locked(|allocators| allocators.usage()), (1, 3));
            assert_eq!(alone.transfer(Transfer::Export), moved(1, 0));
            assert_eq!(alone.in_use()?, 0b101);
            assert_eq!(alone.locked(|allocators| allocators.usage()), (1, 3));
            assert_eq!(alone.transfer(Transfer::None), Handover::default());
            assert_eq!(alone.take_raw(), 1);
            Ok(())
        })
    }

    #[test]
    fn c_allocates_no_vpid_while_the_pool_is_active() -> Result {
        Alone::with(1, |alone| {
            alone.transfer(Transfer::Import);
            assert!(alone.locked(|allocators| bitmap::alloc_first(allocators.bitmap).is_none()));
            assert_eq!(alone.take_raw(), 1);
            // An export finds the VPIDs that C frees while the pool is active.
            let vpid = Vpid::new(1).ok_or(EINVAL)?;
            assert_eq!(
                alone.locked(|allocators| bitmap::free(allocators.bitmap, vpid)),
                Ok(())
            );
            assert_eq!(alone.transfer(Transfer::Export), moved(0, 1));
            assert!(!alone.locked(|allocators| allocators.pool_active()));
            assert_eq!(alone.in_use()?, 1);
            Ok(())
        })
    }

    #[test]
    fn allocated_and_imported_vpids_count_as_flushed_nowhere() -> Result {
        Alone::with(0b11, |alone| {
            let (held, free) = (Vpid::new(1), Vpid::new(2));
            let (held, free) = (held.ok_or(EINVAL)?, free.ok_or(EINVAL)?);
            let flushed = alone.flushed();
            for pool in [false, true] {
                flushed.insert(held, 5);
                flushed.insert(free, 5);
                if pool {
                    alone.transfer(Transfer::Import);
                }
                assert_eq!(flushed.contains(held, 5), !pool);
                assert!(flushed.contains(free, 5));
                assert_eq!(alone.alloc(), Some(free));
                assert!(!flushed.contains(free, 5));
                assert_eq!(alone.free(free), Ok(()));
                assert_eq!(alone.free(free), Err(NotAllocated));
            }
            Ok(())
        })
    }
}
