// SPDX-License-Identifier: GPL-2.0

//! This module models memory: the guests' memory, and the tables of KVM.
//!
//! Addresses are as small as the rules allow.  A linear address is one of eight pages: one bit each
//! selects the entry of a page-directory-pointer table, a page directory and a page table.  A guest
//! has [`FRAMES`] frames of memory, which hold its data, its page tables and, for a hypervisor, its
//! EPTs; the number of a frame says what it holds.  The host keeps a frame of a guest in one of two
//! places and moves it from one to the other; a VM that takes the place of another has its frames
//! elsewhere.

use crate::{
    ept::{
        Eptp,
        Levels, //
    },
    x86::addr::Hpa, //
};
use kernel::prelude::*;

/// Entries of a table that are ever used.
pub(crate) const WORDS: usize = 32;
/// Frames of a guest's memory that are ever moved, protected or written.
pub(crate) const FRAMES: usize = 18;
/// Tables that KVM can have at once.
pub(crate) const TABLES: usize = 96;
/// Pages of linear memory.
pub(crate) const PAGES: u8 = 8;
/// How far a frame number is shifted in the number of a host's frame for the bank it is in: each
/// bank is 1 GiB, so that it can be mapped by one entry.
const BANK: u32 = 18;
/// How many VMs, one after the other in the same place, have their frames in banks of their own.
///
/// After so many the first banks are taken again: what is cached of those was flushed long ago, or
/// found.
const LIVES: u32 = 8;

/// The number of a frame of guest-physical memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gfn(pub(crate) u16);

/// The number of a frame of the host's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hfn(pub(crate) u32);

/// What the frames of a guest are for.
pub(crate) mod frames {
    use super::Gfn;

    /// The first of two page-map level-4 tables, which are what CR3 can refer to.
    pub(in crate::model) const PML4: Gfn = Gfn(4);
    /// The first of two page-directory-pointer tables.
    pub(in crate::model) const PDPT: Gfn = Gfn(6);
    /// The first of two page directories.
    pub(in crate::model) const PD: Gfn = Gfn(8);
    /// The first of two page tables.
    pub(in crate::model) const PT: Gfn = Gfn(10);
    /// The first of two roots of L1's EPTs.
    pub(in crate::model) const EPT_ROOT: Gfn = Gfn(12);
    /// The one page-directory-pointer table of both EPTs.
    pub(in crate::model) const EPT_PDPT: Gfn = Gfn(14);
    /// Their page directory.
    pub(in crate::model) const EPT_PD: Gfn = Gfn(15);
    /// The first of two page tables of an EPT.
    pub(in crate::model) const EPT_PT: Gfn = Gfn(16);
}

impl Gfn {
    /// All frames that translations of this model lead to: those of the memory, and two that a
    /// large page reaches beyond it.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        // CAST: A small number.
        Iterator::chain(0..FRAMES as u16, [512, 513]).map(Self)
    }

    /// Returns the frame that an entry refers to.
    pub(crate) fn of_entry(entry: u64) -> Self {
        // CAST: The model has no larger ones.
        Self((entry >> 12 & 0xffff) as u16)
    }

    /// Returns the address part of an entry that refers to the frame.
    pub(crate) fn address(self) -> u64 {
        u64::from(self.0) << 12
    }

    /// Returns the next one.
    pub(crate) fn plus(self, offset: u16) -> Self {
        Self(self.0 + offset)
    }

    /// Returns its bit in a mask of frames; none for a frame beyond the memory.
    pub(crate) fn bit(self) -> u32 {
        if usize::from(self.0) < FRAMES {
            1 << self.0
        } else {
            0
        }
    }
}

impl Hfn {
    /// Returns the frame of a VM's that is kept here, if it is one, wherever it is kept now: the
    /// place of the VM, which life there it is of, and the frame.
    fn owner(self) -> Option<(usize, u32, Gfn)> {
        let bank = (self.0 >> BANK).checked_sub(1)?;
        // CAST: A guest's frame number was put there.
        let gfn = Gfn((self.0 & ((1 << BANK) - 1)) as u16);
        Some(((bank / (2 * LIVES)) as usize, bank / 2 % LIVES, gfn))
    }

    /// Returns its address.
    pub(crate) fn address(self) -> Hpa {
        Hpa::new(u64::from(self.0) << 12)
    }

    /// Returns the frame at an address.
    pub(crate) fn at(address: Hpa) -> Self {
        // CAST: The model has no larger ones.
        Self((address.into_raw() >> 12) as u32)
    }

    /// Returns one behind it.
    pub(crate) fn plus(self, offset: u16) -> Self {
        Self(self.0 + u32::from(offset))
    }
}

/// One table that KVM keeps, by its number; the host's frame of its own begins at 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Table(pub(crate) u8);

impl Table {
    /// Returns its address.
    pub(crate) fn address(self) -> Hpa {
        Hpa::new((u64::from(self.0) + 1) << 12)
    }

    /// Returns the table that an entry of another refers to.
    pub(crate) fn of_entry(entry: u64) -> Self {
        // CAST: As above.
        Self(((entry >> 12 & 0xff) - 1) as u8)
    }

    /// Returns the EPT pointer of a root.
    pub(crate) fn eptp(self, accessed_dirty: bool) -> Eptp {
        Eptp::for_root(self.address(), Levels::Four, accessed_dirty)
    }
}

/// What is known of an entry of KVM's tables besides what the CPU reads in it.
#[derive(Clone, Copy)]
pub(crate) struct Meta {
    /// When the guest's entry was read that it was made from; 0 for one made from no such entry.
    pub(crate) time: u32,
    /// The guest's frame that it leads to.
    pub(crate) gfn: Gfn,
}

/// A table: the entries, and what is known of each.
pub(crate) type Page = ([u64; WORDS], [Meta; WORDS]);

/// An empty table.
const EMPTY: Page = (
    [0; WORDS],
    [Meta {
        time: 0,
        gfn: Gfn(0),
    }; WORDS],
);

/// The tables that KVM keeps, and those that are free.
pub(crate) struct Tables {
    pages: KVVec<Page>,
    /// A bit for each.
    free: u128,
}

impl Tables {
    /// Makes all of them free.
    pub(crate) fn new() -> Result<Self> {
        Ok(Self {
            pages: KVVec::from_elem(EMPTY, TABLES, GFP_KERNEL)?,
            free: (1 << TABLES) - 1,
        })
    }

    /// Makes them what others are.
    pub(crate) fn assign(&mut self, other: &Self) {
        for (number, (page, from)) in self.pages.iter_mut().zip(&other.pages).enumerate() {
            if other.free >> number & 1 == 0 {
                *page = *from;
            }
        }
        self.free = other.free;
    }

    /// Takes an empty one, the one with the lowest number: one that was freed is taken again as
    /// soon as can be.
    pub(crate) fn take(&mut self) -> Option<Table> {
        if self.free == 0 {
            return None;
        }
        let number = self.free.trailing_zeros();
        self.free &= self.free - 1;
        self.pages[number as usize] = EMPTY;
        // CAST: There are few.
        Some(Table(number as u8))
    }

    /// Gives one back.
    pub(crate) fn free(&mut self, table: Table) {
        self.free |= 1 << table.0;
    }

    /// Makes all of them free again.
    pub(crate) fn give_back_all(&mut self) {
        self.free = (1 << TABLES) - 1;
    }

    /// Returns how many are free.
    pub(crate) fn left(&self) -> u32 {
        self.free.count_ones()
    }

    /// Returns an entry.
    pub(crate) fn read(&self, table: Table, index: usize) -> u64 {
        self.pages[usize::from(table.0)].0[index]
    }

    /// Writes an entry.
    pub(crate) fn write(&mut self, table: Table, index: usize, entry: u64) {
        self.pages[usize::from(table.0)].0[index] = entry;
    }

    /// Returns what is known of an entry.
    pub(crate) fn meta(&self, table: Table, index: usize) -> Meta {
        self.pages[usize::from(table.0)].1[index]
    }

    /// Sets what is known of an entry.
    pub(crate) fn set_meta(&mut self, table: Table, index: usize, meta: Meta) {
        self.pages[usize::from(table.0)].1[index] = meta;
    }
}

/// The memory of one VM, and where the host keeps it.
pub(crate) struct Memory {
    vm: usize,
    /// How many VMs were in this place before, modulo [`LIVES`].
    life: u32,
    words: KVVec<[u64; WORDS]>,
    /// Frames that are in the second of their two places, by bit.
    moved: u32,
    /// Frames of which the host wants to notice the next write, by bit.
    pub(crate) protected: u32,
    /// The highest level at which KVM may map it: by pages of 4 KiB (1), 2 MiB (2) or 1 GiB (3).
    pub(crate) largest: u8,
}

impl Memory {
    /// Makes the memory of a VM, with tables that translate all pages.
    pub(crate) fn new(vm: usize) -> Result<Self> {
        let mut memory = Self {
            vm,
            life: 0,
            words: KVVec::from_elem([0; WORDS], FRAMES, GFP_KERNEL)?,
            moved: 0,
            protected: 0,
            largest: 3,
        };
        memory.reset();
        Ok(memory)
    }

    /// Makes it what another is.
    pub(crate) fn assign(&mut self, other: &Self) {
        self.words.copy_from_slice(&other.words);
        (self.moved, self.protected) = (other.moved, other.protected);
        (self.vm, self.life, self.largest) = (other.vm, other.life, other.largest);
    }

    /// Makes it that of the first VM in its place.
    pub(crate) fn reset(&mut self) {
        self.life = 0;
        self.fill();
    }

    /// Makes it that of the next VM in its place, which has other frames of the host's.
    pub(crate) fn renew(&mut self) {
        self.life = (self.life + 1) % LIVES;
        self.fill();
    }

    /// Makes it hold what a new VM's holds.
    fn fill(&mut self) {
        use super::edit;
        (self.moved, self.protected, self.largest) = (0, 0, 3);
        for (table, index, choice) in edit::INITIAL {
            self.write(table, index, edit::entry(table, index, choice));
        }
    }

    /// Returns a word of a frame.
    pub(crate) fn read(&self, gfn: Gfn, index: usize) -> u64 {
        self.words
            .get(usize::from(gfn.0))
            .map_or(0, |words| words[index])
    }

    /// Writes a word of a frame.
    pub(crate) fn write(&mut self, gfn: Gfn, index: usize, value: u64) {
        if let Some(words) = self.words.get_mut(usize::from(gfn.0)) {
            words[index] = value;
        }
    }

    /// Returns where a frame is kept.
    pub(crate) fn host(&self, gfn: Gfn) -> Hfn {
        let moved = u32::from(self.moved & gfn.bit() != 0);
        // CAST: There are few VMs.
        let life = self.vm as u32 * LIVES + self.life;
        Hfn((2 * life + moved + 1) << BANK | u32::from(gfn.0))
    }

    /// Moves a frame from the one of its places to the other.
    pub(crate) fn relocate(&mut self, gfn: Gfn) {
        self.moved ^= gfn.bit();
    }

    /// Returns at which level KVM maps it: by large pages if it may, and all frames are where a
    /// large page has them.
    pub(crate) fn level(&self) -> u8 {
        if self.moved == 0 && self.protected == 0 {
            self.largest
        } else {
            1
        }
    }
}

/// Returns the word of guests' memory that is kept at a place of the host's.
///
/// One that was moved away is found at its old place still; those of a VM that is no more are not.
pub(crate) fn read_at(memories: &[Memory], hfn: Hfn, index: usize) -> u64 {
    hfn.owner()
        .and_then(|(vm, life, gfn)| {
            let memory = memories.get(vm).filter(|memory| memory.life == life)?;
            Some(memory.read(gfn, index))
        })
        .unwrap_or(0)
}

/// Writes a word of guests' memory by its place.
pub(crate) fn write_at(memories: &mut [Memory], hfn: Hfn, index: usize, value: u64) {
    if let Some((vm, life, gfn)) = hfn.owner() {
        let memory = memories.get_mut(vm);
        if let Some(memory) = memory.filter(|memory| memory.life == life) {
            memory.write(gfn, index, value);
        }
    }
}
