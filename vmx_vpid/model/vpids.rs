// SPDX-License-Identifier: GPL-2.0

//! The VPIDs of the model: the pool with its record, or KVM's bitmap, as in the kernel.

use crate::{
    bitmap::{
        give_back,
        take_first,
        NotHeld,
        Words, //
    },
    invvpid::Vpid,
    lease::{
        Flushed,
        Source, //
    },
    vpid::Pool, //
};
use core::cell::Cell;
use kernel::prelude::*;

/// Where VPIDs are taken from, and given back to.
pub(crate) struct Vpids<'a> {
    /// There whenever nobody works on it, as if it had a lock.
    inside: Cell<Option<Inside>>,
    pub(super) flushed: Flushed<'a, Cell<u64>>,
    /// How many VPIDs there are.
    max: Cell<u16>,
    /// C has served, and kept no record.
    mixed: Cell<bool>,
}

/// What the lock of the kernel protects.
struct Inside {
    pool: KVBox<Pool>,
    bitmap: KVBox<Words>,
    /// The pool is the truth, and not the bitmap.
    pooled: bool,
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
                pool: KVBox::zeroed(GFP_KERNEL)?,
                bitmap: KVBox::zeroed(GFP_KERNEL)?,
                pooled: true,
            })),
            flushed: Flushed::new(first, rest),
            max: Cell::new(0),
            mixed: Cell::new(false),
        })
    }

    /// Works on what the lock protects.
    fn with<R>(&self, work: impl FnOnce(&mut Inside) -> R) -> Option<R> {
        let mut inside = self.inside.take()?;
        let result = work(&mut inside);
        self.inside.set(Some(inside));
        Some(result)
    }

    /// Makes all of them free, so many there are.
    pub(super) fn reset(&self, max: u16) {
        self.with(|inside| {
            inside.bitmap.fill(0);
            inside.bitmap[0] = 1;
            inside.pool.import(&inside.bitmap, max, |_| {});
            inside.pooled = true;
        });
        for vpid in (1..=max).filter_map(Vpid::new) {
            self.flushed.clear(vpid);
        }
        self.max.set(max);
        self.mixed.set(false);
    }

    /// Makes them what others are.
    pub(super) fn assign(&self, other: &Self) {
        self.with(|inside| {
            other.with(|from| {
                inside.pool.assign(&from.pool);
                inside.bitmap.copy_from_slice(&from.bitmap[..]);
                inside.pooled = from.pooled;
            })
        });
        self.mixed.set(other.mixed.get());
        for vpid in (1..=self.max.get()).filter_map(Vpid::new) {
            self.flushed.clear(vpid);
            for cpu in other.flushed.cpus(vpid) {
                self.flushed.insert(vpid, cpu);
            }
        }
    }

    /// Makes the pool the truth, as `post_patch` does.
    pub(super) fn import(&self) {
        let clear = |vpid| self.flushed.clear(vpid);
        self.with(|inside| {
            if !inside.pooled {
                inside.pool.import(&inside.bitmap, self.max.get(), clear);
                inside.bitmap.fill(u64::MAX);
                inside.pooled = true;
            }
        });
    }

    /// Makes the bitmap the truth, as `pre_unpatch` does.
    pub(super) fn export(&self) {
        self.with(|inside| {
            if inside.pooled {
                inside.pool.export(&mut inside.bitmap);
                inside.pooled = false;
                self.mixed.set(true);
            }
        });
    }

    /// Returns whether C may have flushed some of those in use, which the record does not show.
    pub(super) fn is_mixed(&self) -> bool {
        self.mixed.get()
    }

    /// Returns how many are in use.
    pub(super) fn in_use(&self) -> u32 {
        self.with(|inside| {
            if inside.pooled {
                inside.pool.in_use()
            } else {
                let set: u32 = inside.bitmap.iter().map(|word| word.count_ones()).sum();
                // The host's is set too.
                set.saturating_sub(1)
            }
        })
        .unwrap_or(0)
    }
}

impl Source for Vpids<'_> {
    fn take(&self) -> Option<Vpid> {
        let taken = self.with(|inside| {
            if inside.pooled {
                return inside.pool.acquire();
            }
            // The bitmap is not limited, as in the kernel; here it is, by what the test can use.
            let used = inside.bitmap[0].trailing_ones();
            (used <= u32::from(self.max.get())).then(|| take_first(&mut inside.bitmap))?
        })??;
        Some(self.flushed.forget(taken))
    }

    fn give_back(&self, vpid: Vpid) -> Result<(), NotHeld> {
        self.with(|inside| {
            if inside.pooled {
                inside.pool.release(vpid)
            } else {
                give_back(&mut inside.bitmap, vpid)
            }
        })
        .unwrap_or(Err(NotHeld))
    }
}
