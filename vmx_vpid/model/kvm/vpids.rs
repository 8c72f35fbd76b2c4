// SPDX-License-Identifier: GPL-2.0

//! This module holds the VPIDs of the model: both allocators with the record of flushed CPUs, as in
//! the kernel, on one CPU at a time.

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

/// VPIDs that are ever in use at once, at most: two for each vCPU.
const FEW: u16 = 16;

/// Where VPIDs are taken from, and given back to.
pub(crate) struct Vpids<'a> {
    /// There whenever nobody works on it, as if it had a lock.
    inside: Cell<Option<Inside>>,
    pub(crate) flushed: FlushedCpus<'a, Cell<u64>>,
    planes: &'a [Plane<Cell<u64>>],
    /// How many VPIDs the pool may give out.
    max: Cell<u16>,
    /// C has served, and kept no record.
    mixed: Cell<bool>,
}

/// What the lock of the kernel protects.
struct Inside {
    allocator: KVBox<VpidAllocator>,
    bitmap: KVBox<Words>,
}

impl<'a> Vpids<'a> {
    /// Takes memory for the record, one plane of it.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`]; [`EINVAL`] if there is too little memory.
    pub(crate) fn new(record: &'a [Cell<u64>]) -> Result<Self> {
        let (first, rest) = record.as_chunks().0.split_first().ok_or(EINVAL)?;
        Ok(Self {
            inside: Cell::new(Some(Inside {
                allocator: KVBox::zeroed(GFP_KERNEL)?,
                bitmap: KVBox::zeroed(GFP_KERNEL)?,
            })),
            flushed: FlushedCpus::new(first, rest),
            planes: record.as_chunks().0,
            max: Cell::new(0),
            mixed: Cell::new(false),
        })
    }

    /// Works on what the lock protects, if nobody does.
    fn with<R>(&self, work: impl FnOnce(&mut Inside) -> R) -> Option<R> {
        let mut inside = self.inside.take()?;
        let result = work(&mut inside);
        self.inside.set(Some(inside));
        Some(result)
    }

    /// The VPIDs that are ever in use, as the pool gives them out or C does.
    fn all(&self) -> impl Iterator<Item = Vpid> {
        (1..=self.max.get().max(FEW)).filter_map(Vpid::new)
    }

    /// Frees all VPIDs, makes the pool active, and limits it to `max`.
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

    /// Makes them what others are.
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

    /// Has the VPIDs change allocators.
    fn transfer(&self, transfer: Transfer) {
        self.locked(|mut allocators| allocators.transfer(transfer, self.max.get(), &self.flushed));
    }

    /// Makes the pool or KVM's bitmap the active allocator, unless it is.
    pub(crate) fn hand_over(&self, pool: bool) {
        match (self.locked(|allocators| allocators.pool_active()), pool) {
            (false, true) => self.transfer(Transfer::Import),
            (true, false) => self.transfer(Transfer::Export),
            _ => {}
        }
        self.mixed.set(self.mixed.get() || !pool);
    }

    /// Returns whether C may have flushed some of those in use, which the record does not show.
    pub(crate) fn is_mixed(&self) -> bool {
        self.mixed.get()
    }

    /// Returns whether Rust alone serves.
    pub(crate) fn is_rust(&self) -> bool {
        self.locked(|allocators| allocators.pool_active())
    }

    /// Returns how many are in use.
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
            // One who has the lock does not take it again.
            None => panic!("the lock is taken twice"),
        }
    }

    fn flushed(&self) -> FlushedCpus<'_, Cell<u64>> {
        FlushedCpus::new(&self.planes[0], &self.planes[1..])
    }
}
