// SPDX-License-Identifier: GPL-2.0

//! This module models a CPU that keeps every translation it found, and every step of a walk.
//!
//! Only one vCPU runs on a CPU, so every entry belongs to one VPID.  KVM sets no global flag in its
//! entries, so every entry belongs to one PCID.

use crate::{
    model::shadow_mmu::{
        Origin,
        PageId, //
    },
    paging::entry::Entry,
    x86::addr::Hpa, //
};
use kernel::prelude::*;

/// The greatest number of entries of each kind.
const ROOM: usize = 48;

/// A cached translation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Translation {
    /// The PCID.
    pub(super) pcid: u64,
    /// The address of the page.
    pub(super) address: u64,
    /// KVM's entry.
    pub(super) entry: Entry,
    /// The host address that the entry leads to.
    pub(super) at: Hpa,
    /// The origin of the entry.
    pub(super) origin: Origin,
}

/// A cached entry of a paging structure, which leads to a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Structure {
    /// The PCID.
    pub(super) pcid: u64,
    /// One of the addresses that the entry is for.
    pub(super) address: u64,
    /// The level of the table that the entry leads to.
    pub(super) level: u8,
    /// The table that the entry leads to.
    pub(super) table: PageId,
    /// The table at which the walk began, and the level of that table.
    pub(super) root: (PageId, u8),
}

impl Structure {
    /// Returns whether the entry is also for another address.
    pub(super) fn covers(&self, address: u64) -> bool {
        let shift = 12 + 9 * u32::from(self.level);
        address >> shift == self.address >> shift
    }
}

/// The entries that an event drops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Drop {
    /// By INVVPID of a context: everything.
    All,
    /// By INVVPID of an address: the page in every PCID, and the paging structures on the way.
    Address(u64),
    /// By a page fault: the page in a PCID, and the paging structures on the way.
    Fault(u64, u64),
}

impl Drop {
    /// Returns whether the event drops an entry of a PCID.
    fn takes(self, pcid: u64, covers: impl Fn(u64) -> bool) -> bool {
        match self {
            Self::All => true,
            Self::Address(address) => covers(address),
            Self::Fault(of, address) => pcid == of && covers(address),
        }
    }
}

/// A CPU with its cached entries.
pub(super) struct Cpu {
    translations: KVec<Translation>,
    structures: KVec<Structure>,
    /// The place of the next entry when there is no room.
    next: usize,
}

impl Cpu {
    /// Makes a CPU that has nothing cached.
    pub(super) fn new() -> Result<Self> {
        Ok(Self {
            translations: KVec::with_capacity(ROOM, GFP_KERNEL)?,
            structures: KVec::with_capacity(ROOM, GFP_KERNEL)?,
            next: 0,
        })
    }

    /// Adds an entry that is not cached yet.
    fn add<T: PartialEq>(place: usize, all: &mut KVec<T>, new: T) {
        if all.contains(&new) {
        } else if all.len() < ROOM {
            // The push cannot fail: the vector has room for `ROOM` entries.
            let _ = all.push(new, GFP_KERNEL);
        } else {
            all[place % ROOM] = new;
        }
    }

    /// Caches a translation.
    pub(super) fn keep(&mut self, new: Translation) {
        let same = |it: &&mut Translation| {
            (it.pcid, it.address, it.entry.into_raw())
                == (new.pcid, new.address, new.entry.into_raw())
                && (it.origin.gfn, it.origin.guest) == (new.origin.gfn, new.origin.guest)
        };
        // A guest cannot tell the two translations apart: keep one, with the later time.
        if let Some(old) = self.translations.iter_mut().find(same) {
            old.origin.time = old.origin.time.max(new.origin.time);
            return;
        }
        self.next += 1;
        Self::add(self.next, &mut self.translations, new);
    }

    /// Caches an entry of a paging structure.
    pub(super) fn keep_way(&mut self, new: Structure) {
        self.next += 1;
        Self::add(self.next, &mut self.structures, new);
    }

    /// Drops the entries that an event has to drop.
    pub(super) fn drop(&mut self, what: Drop) {
        self.translations
            .retain(|it| !what.takes(it.pcid, |address| it.address == address));
        self.structures
            .retain(|it| !what.takes(it.pcid, |address| it.covers(address)));
    }

    /// Drops each second entry, as selected by a number: a CPU may drop entries at any time.
    pub(super) fn forget(&mut self, random: u32) {
        let mut bits = random;
        let mut keep = || {
            bits = bits.rotate_left(1);
            bits & 1 == 0
        };
        self.translations.retain(|_| keep());
        self.structures.retain(|_| keep());
    }

    /// Returns the translations under a PCID.
    pub(super) fn translations(&self, pcid: u64) -> impl Iterator<Item = &Translation> {
        self.translations.iter().filter(move |it| it.pcid == pcid)
    }

    /// Returns the entries of paging structures under a PCID.
    pub(super) fn ways(&self, pcid: u64) -> impl Iterator<Item = &Structure> {
        self.structures.iter().filter(move |it| it.pcid == pcid)
    }
}
