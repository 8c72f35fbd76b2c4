// SPDX-License-Identifier: GPL-2.0

//! This module has the VPIDs of the model: the pool, KVM's bitmap and FlushedCpus, as in the
//! kernel; one vCPU works at a time.

use crate::{
    phase::Transfer,
    vpid::{
        allocator::{
            Allocators, //
            VpidAllocator,
            VpidLock,
        },
        bitmap::Words,
        flushed_cpus::{
            FlushedCpus,
            Plane, //
        },
        Vpid, //
    }, //
};
use core::cell::Cell;
use kernel::prelude::*;

/// An upper bound of the VPIDs in use at once: two for each vCPU.
const FEW: u16 = 16;

/// The VPIDs of a machine, and the CPUs on which each VPID was flushed.
pub(crate) struct Vpids<'a> {
    /// `None` while the lock is held.
    inside: Cell<Option<Inside>>,
    pub(crate) flushed: FlushedCpus<'a, Cell<u64>>,
    planes: &'a [Plane<Cell<u64>>],
    /// The number of VPIDs that the pool may allocate.
    max: Cell<u16>,
    /// C has served requests, and kept no record of its flushes.
    mixed: Cell<bool>,
}

/// The data that the kernel's lock protects.
struct Inside {
    allocator: KVBox<VpidAllocator>,
    bitmap: KVBox<Words>,
}

impl<'a> Vpids<'a> {
    /// Makes a set of VPIDs; `words` has the words of FlushedCpus, of at least one plane.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`]; [`EINVAL`] if `words` is too short.
    pub(crate) fn new(words: &'a [Cell<u64>]) -> Result<Self> {
        let (first, rest) = words.as_chunks().0.split_first().ok_or(EINVAL)?;
        Ok(Self {
            inside: Cell::new(Some(Inside {
                allocator: KVBox::zeroed(GFP_KERNEL)?,
                bitmap: KVBox::zeroed(GFP_KERNEL)?,
            })),
            flushed: FlushedCpus::new(first, rest),
            planes: words.as_chunks().0,
            max: Cell::new(0),
            mixed: Cell::new(false),
        })
    }

    /// Runs a function with the lock held; returns `None` if the lock is already held.
    fn with<R>(&self, work: impl FnOnce(&mut Inside) -> R) -> Option<R> {
        let mut inside = self.inside.take()?;
        let result = work(&mut inside);
        self.inside.set(Some(inside));
        Some(result)
    }

    /// Returns the VPIDs that are ever in use, by the pool or by C.
    fn all(&self) -> impl Iterator<Item = Vpid> {
        (1..=self.max.get().max(FEW)).filter_map(Vpid::new)
    }

    /// Frees all VPIDs, limits the pool to `max`, and makes the pool the active allocator.
    pub(crate) fn reset(&self, max: u16) {
        self.max.set(max);
        self.with(|inside| {
            inside.bitmap.fill(0);
            inside.bitmap[0] = 1;
        });
        self.transfer(Transfer::Import);
        self.all().for_each(|vpid| self.flushed.clear(vpid));
        self.mixed.set(false);
    }

    /// Copies the state of another set.
    pub(crate) fn assign(&self, other: &Self) {
        self.with(|inside| {
            other.with(|from| {
                inside.allocator.assign(&from.allocator);
                inside.bitmap.copy_from_slice(&from.bitmap[..]);
            })
        });
        self.max.set(other.max.get());
        self.mixed.set(other.mixed.get());
        for vpid in self.all() {
            self.flushed.clear(vpid);
            for cpu in other.flushed.cpus(vpid) {
                self.flushed.insert(vpid, cpu);
            }
        }
    }

    /// Moves the VPIDs to the other allocator.
    fn transfer(&self, transfer: Transfer) {
        self.locked(|mut allocators| allocators.transfer(transfer, self.max.get(), &self.flushed));
    }

    /// Makes the pool or KVM's bitmap the active allocator, unless it already is.
    pub(crate) fn hand_over(&self, pool: bool) {
        match (self.locked(|allocators| allocators.pool_active()), pool) {
            (false, true) => self.transfer(Transfer::Import),
            (true, false) => self.transfer(Transfer::Export),
            _ => {}
        }
        self.mixed.set(self.mixed.get() || !pool);
    }

    /// Returns whether C may have flushed VPIDs that are in use, without a record in FlushedCpus.
    pub(crate) fn is_mixed(&self) -> bool {
        self.mixed.get()
    }

    /// Returns whether the pool is the active allocator, which means that Rust serves alone.
    pub(crate) fn is_rust(&self) -> bool {
        self.locked(|allocators| allocators.pool_active())
    }

    /// Returns the number of VPIDs in use.
    pub(crate) fn in_use(&self) -> u32 {
        self.locked(|allocators| allocators.usage().0)
    }
}

impl VpidLock for Vpids<'_> {
    type Word = Cell<u64>;

    fn locked<R>(&self, function: impl FnOnce(Allocators<'_>) -> R) -> R {
        let result = self.with(|inside| {
            function(Allocators {
                allocator: &mut inside.allocator,
                bitmap: &mut inside.bitmap,
            })
        });
        match result {
            Some(result) => result,
            // The holder of the lock does not take the lock again.
            None => panic!("the lock is taken twice"),
        }
    }

    fn flushed(&self) -> FlushedCpus<'_, Cell<u64>> {
        FlushedCpus::new(&self.planes[0], &self.planes[1..])
    }
}
