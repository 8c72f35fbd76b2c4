// SPDX-License-Identifier: GPL-2.0

//! This module models a CPU that keeps every translation it found, and every step of a walk.
//!
//! Every entry belongs to one VPID: that of the vCPU, which is alone here.  KVM sets no global flag
//! in its entries, so each belongs to one PCID.

use crate::{
    model::shadow_mmu::{
        Origin,
        PageId, //
    },
    paging::entry::Entry,
    x86::addr::Hpa, //
};
use kernel::prelude::*;

/// The most that a CPU keeps of each kind.
const ROOM: usize = 48;

/// A translation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Translation {
    /// The PCID.
    pub(super) pcid: u64,
    /// The page, by its address.
    pub(super) address: u64,
    /// KVM's entry.
    pub(super) entry: Entry,
    /// Where that leads to.
    pub(super) at: Hpa,
    /// What it was made from.
    pub(super) origin: Origin,
}

/// An entry of a table of tables: the way to a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Structure {
    /// The PCID.
    pub(super) pcid: u64,
    /// An address that it is for.
    pub(super) address: u64,
    /// The level of the table that it leads to.
    pub(super) level: u8,
    /// That table.
    pub(super) table: PageId,
    /// The table that the way began with, and its level.
    pub(super) root: (PageId, u8),
}

impl Structure {
    /// Whether it is for an address too.
    pub(super) fn covers(&self, address: u64) -> bool {
        let shift = 12 + 9 * u32::from(self.level);
        address >> shift == self.address >> shift
    }
}

/// What is to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Drop {
    /// By INVVPID of a context: everything.
    All,
    /// By INVVPID of an address: the page, in every PCID, and the ways to it.
    Address(u64),
    /// By a page fault: the page, in a PCID, and the ways to it.
    Fault(u64, u64),
}

impl Drop {
    /// Whether what is for an address in a PCID has to go.
    fn takes(self, pcid: u64, covers: impl Fn(u64) -> bool) -> bool {
        match self {
            Self::All => true,
            Self::Address(address) => covers(address),
            Self::Fault(of, address) => pcid == of && covers(address),
        }
    }
}

/// A CPU.
pub(super) struct Cpu {
    translations: KVec<Translation>,
    structures: KVec<Structure>,
    /// Where the next one goes when there is no room.
    next: usize,
}

impl Cpu {
    /// Makes one that has nothing.
    pub(super) fn new() -> Result<Self> {
        Ok(Self {
            translations: KVec::with_capacity(ROOM, GFP_KERNEL)?,
            structures: KVec::with_capacity(ROOM, GFP_KERNEL)?,
            next: 0,
        })
    }

    /// Keeps something that is not there yet.
    fn add<T: PartialEq>(place: usize, all: &mut KVec<T>, new: T) {
        if all.contains(&new) {
        } else if all.len() < ROOM {
            // There is room.
            let _ = all.push(new, GFP_KERNEL);
        } else {
            all[place % ROOM] = new;
        }
    }

    /// Keeps a translation.
    pub(super) fn keep(&mut self, new: Translation) {
        let same = |it: &&mut Translation| {
            (it.pcid, it.address, it.entry.into_raw())
                == (new.pcid, new.address, new.entry.into_raw())
                && (it.origin.gfn, it.origin.guest) == (new.origin.gfn, new.origin.guest)
        };
        // To a guest the two are one, read at the later time.
        if let Some(old) = self.translations.iter_mut().find(same) {
            old.origin.time = old.origin.time.max(new.origin.time);
            return;
        }
        self.next += 1;
        Self::add(self.next, &mut self.translations, new);
    }

    /// Keeps the way to a table.
    pub(super) fn keep_way(&mut self, new: Structure) {
        self.next += 1;
        Self::add(self.next, &mut self.structures, new);
    }

    /// Drops what has to go.
    pub(super) fn drop(&mut self, what: Drop) {
        self.translations
            .retain(|it| !what.takes(it.pcid, |address| it.address == address));
        self.structures
            .retain(|it| !what.takes(it.pcid, |address| it.covers(address)));
    }

    /// Forgets one thing in two.
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

    /// Returns the ways under a PCID.
    pub(super) fn ways(&self, pcid: u64) -> impl Iterator<Item = &Structure> {
        self.structures.iter().filter(move |it| it.pcid == pcid)
    }
}
