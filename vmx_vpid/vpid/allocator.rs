// SPDX-License-Identifier: GPL-2.0

//! The VPIDs in use, in KVM's bitmap or in the pool, and how they change allocators.
//!
//! One of the two is the truth at any time, for tasks that still run C as for those that run Rust.
//! C takes a lock for its bitmap, and here the same lock is taken for all: the bitmap, the pool and
//! which of them is the truth change together.
//!
//! What runs under that lock is here; the lock itself is somebody else's, see [`VpidLock`].  In the
//! kernel it is kvm_intel's.  On the host it is one that tries every order of the threads that
//! take it, see Documentation/testing-userspace.rst.

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

/// Which VPIDs are in use, and who says so.
///
/// At first it is KVM's bitmap.
#[derive(Zeroable)]
pub(crate) struct VpidAllocator {
    /// The pool is the truth; otherwise KVM's bitmap is.
    pool_active: bool,
    pool: Pool,
}

impl VpidAllocator {
    /// Creates them, with a pool that has nothing to give out before it is the truth.
    pub(crate) const fn new() -> Self {
        Self {
            pool_active: false,
            pool: Pool::new(),
        }
    }

    /// Makes them what others are; for the model, which goes back to where it was.
    #[cfg(CONFIG_VMX_VPID_KUNIT_TEST)]
    pub(crate) fn assign(&mut self, other: &Self) {
        self.pool_active = other.pool_active;
        self.pool.assign(&other.pool);
    }
}

/// What changed allocators.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Handover {
    /// How many VPIDs are in use.
    pub(crate) count: u32,
    /// How many C took back behind the pool's back; 0 unless `free_vpid()` was inlined.
    pub(crate) freed_by_c: u32,
}

/// Both allocators, while their lock is held.
pub(crate) struct Allocators<'a> {
    /// The side of Rust, and which of the two is the truth.
    pub(crate) allocator: &'a mut VpidAllocator,
    /// The side of C.
    pub(crate) bitmap: &'a mut Words,
}

impl Allocators<'_> {
    /// Has the VPIDs change allocators, as a step of the handover asks for.
    ///
    /// From an import on, the pool gives out no VPID above `max`, and no CPU counts as one on which
    /// a VPID in use is clean: where C's are is C's to know, until their holders flush them again.
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

    /// Makes the pool the truth, with what KVM's bitmap holds.
    ///
    /// KVM's bitmap is left full: should C allocate from it all the same (see
    /// [`Pool::reconcile()`]), it gets no VPID rather than one that the pool gives out too.
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

    /// Makes KVM's bitmap the truth, with what the pool holds.
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

    /// Whether the pool is the truth.
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

    /// Adds the VPIDs in use to some others.
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

    /// Returns how many VPIDs are in use, and the most that were since the pool took over.
    pub(crate) fn usage(&self) -> (u32, u32) {
        let pool = &self.allocator.pool;
        let high_water = pool.high_water();
        if self.allocator.pool_active {
            return (pool.in_use(), high_water);
        }
        // Bit 0 is the host's, not a guest's.
        let count: u32 = self.bitmap.iter().map(|word| word.count_ones()).sum();
        let count = count.saturating_sub(1);
        (count, high_water.max(count))
    }

    /// Takes a free VPID: the pool's next, or KVM's first.
    #[inline]
    fn acquire(&mut self) -> Option<UnflushedVpid> {
        if self.allocator.pool_active {
            self.allocator.pool.acquire()
        } else {
            bitmap::alloc_first(self.bitmap)
        }
    }

    /// Gives a VPID back.
    ///
    /// # Errors
    ///
    /// [`NotAllocated`] when it was not in use; nothing was changed then.
    #[inline]
    fn release(&mut self, vpid: Vpid) -> Result<(), NotAllocated> {
        if self.allocator.pool_active {
            self.allocator.pool.release(vpid)
        } else {
            bitmap::free(self.bitmap, vpid)
        }
    }
}

/// Both sides with their lock, and the record.
pub(crate) trait VpidLock {
    /// A word of the record.
    type Word: Word;

    /// Takes the lock, calls a function, drops the lock.
    fn locked<R>(&self, function: impl FnOnce(Allocators<'_>) -> R) -> R;

    /// Returns the record of where VPIDs were flushed.
    fn flushed(&self) -> FlushedCpus<'_, Self::Word>;
}

impl<S: VpidLock> VpidSource for S {
    #[inline]
    fn alloc(&self) -> Option<Vpid> {
        // The record forgets before the lock is dropped: nobody else has the VPID then.  It is
        // looked for when there is one, so that no register keeps it until then.
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

    /// One CPU, which needs no lock.
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
        /// Calls a function with VPIDs of the first word in use, by C; bit 0 is the host's.
        fn with(in_use: u64, function: impl FnOnce(&Alone<'_>) -> Result) -> Result {
            let words = KVVec::from_elem(Cell::new(0), Vpid::COUNT, GFP_KERNEL)?;
            let mut bitmap = KBox::<Words>::zeroed(GFP_KERNEL)?;
            bitmap[0] = in_use;
            function(&Alone {
                allocator: RefCell::new(KVBox::zeroed(GFP_KERNEL)?),
                bitmap: RefCell::new(bitmap),
                plane: words.as_chunks().0.first().ok_or(EINVAL)?,
            })
        }

        /// Has the VPIDs change allocators, of which Rust may give out 3.
        fn transfer(&self, transfer: Transfer) -> Handover {
            self.locked(|mut allocators| allocators.transfer(transfer, 3, &self.flushed()))
        }

        /// Takes a VPID; 0 when there is none.
        fn take_raw(&self) -> u16 {
            self.alloc().map_or(0, Vpid::into_raw)
        }

        /// Returns the first word of the truth, as C has it.
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
    fn what_is_held_is_held_on_either_side() -> Result {
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
    fn c_finds_nothing_to_take_where_rust_serves() -> Result {
        Alone::with(1, |alone| {
            alone.transfer(Transfer::Import);
            assert!(alone.locked(|allocators| bitmap::alloc_first(allocators.bitmap).is_none()));
            assert_eq!(alone.take_raw(), 1);
            // What it gives back all the same is found when it serves again.
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
    fn what_is_taken_or_imported_is_clean_nowhere() -> Result {
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
