// SPDX-License-Identifier: GPL-2.0

//! This module models memory: the memory of guests, and the tables of KVM.
//!
//! Addresses are as small as the rules allow.  A linear address is one of eight pages: one bit
//! selects the entry in each of the page-directory-pointer table, the page directory and the page
//! table.  A guest has [`FRAMES`] frames of memory, for its data, its page tables and, if the guest
//! is a hypervisor, its EPTs; the number of a frame determines the frame's use.  The host has two
//! places for each frame of a guest, and moves the frame between the two; a VM that replaces
//! another VM has other host frames.

use crate::{
    ept::{
        Eptp,
        Levels, //
    },
    x86::addr::Hpa, //
};
use kernel::prelude::*;

/// The number of entries of a table that are ever used.
pub(crate) const WORDS: usize = 32;
/// The number of frames of a guest's memory that are ever moved, protected or written.
pub(crate) const FRAMES: usize = 18;
/// The number of tables that KVM can have at once.
pub(crate) const TABLES: usize = 96;
/// The number of pages of linear memory.
pub(crate) const PAGES: u8 = 8;
/// The position of the bank number in the number of a host frame: each bank is 1 GiB, so that one
/// entry can map the bank.
const BANK: u32 = 18;
/// The number of successive VMs in the same place that have banks of their own.
///
/// The next VM reuses the first banks: by then, entries of the first VM were flushed or found.
const LIVES: u32 = 8;

/// The number of a guest-physical frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gfn(pub(crate) u16);

/// The number of a host frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hfn(pub(crate) u32);

/// The uses of a guest's frames.
pub(crate) mod frames {
    use super::Gfn;

    /// The first of two page-map level-4 tables, which CR3 can refer to.
    pub(in crate::model) const PML4: Gfn = Gfn(4);
    /// The first of two page-directory-pointer tables.
    pub(in crate::model) const PDPT: Gfn = Gfn(6);
    /// The first of two page directories.
    pub(in crate::model) const PD: Gfn = Gfn(8);
    /// The first of two page tables.
    pub(in crate::model) const PT: Gfn = Gfn(10);
    /// The first of two roots of L1's EPTs.
    pub(in crate::model) const EPT_ROOT: Gfn = Gfn(12);
    /// The only page-directory-pointer table, of both EPTs.
    pub(in crate::model) const EPT_PDPT: Gfn = Gfn(14);
    /// The only page directory, of both EPTs.
    pub(in crate::model) const EPT_PD: Gfn = Gfn(15);
    /// The first of two page tables of an EPT.
    pub(in crate::model) const EPT_PT: Gfn = Gfn(16);
}

impl Gfn {
    /// Returns all frames that translations of the model lead to: the frames of the memory, and two
    /// frames beyond the memory that a large page reaches.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        // CAST: `FRAMES` is below 2^16.
        Iterator::chain(0..FRAMES as u16, [512, 513]).map(Self)
    }

    /// Returns the frame that an entry refers to.
    pub(crate) fn of_entry(entry: u64) -> Self {
        // CAST: The value is masked to 16 bits.
        Self((entry >> 12 & 0xffff) as u16)
    }

    /// Returns the address part of an entry that refers to the frame.
    pub(crate) fn address(self) -> u64 {
        u64::from(self.0) << 12
    }

    /// Returns the frame at a distance.
    pub(crate) fn plus(self, offset: u16) -> Self {
        Self(self.0 + offset)
    }

    /// Returns the frame's bit in a mask of frames; no bit for a frame beyond the memory.
    pub(crate) fn bit(self) -> u32 {
        if usize::from(self.0) < FRAMES {
            1 << self.0
        } else {
            0
        }
    }
}

impl Hfn {
    /// Returns the guest's frame that has this host frame as one of its places: the place of the
    /// VM, the life in that place, and the frame; `None` if no guest has the host frame.
    fn owner(self) -> Option<(usize, u32, Gfn)> {
        let bank = (self.0 >> BANK).checked_sub(1)?;
        // CAST: [`Memory::host`] put a 16-bit frame number there.
        let gfn = Gfn((self.0 & ((1 << BANK) - 1)) as u16);
        Some(((bank / (2 * LIVES)) as usize, bank / 2 % LIVES, gfn))
    }

    /// Returns the frame's address.
    pub(crate) fn address(self) -> Hpa {
        Hpa::new(u64::from(self.0) << 12)
    }

    /// Returns the frame at an address.
    pub(crate) fn at(address: Hpa) -> Self {
        // CAST: The model has no host frames above 2^32.
        Self((address.into_raw() >> 12) as u32)
    }

    /// Returns the host frame at a distance.
    pub(crate) fn plus(self, offset: u16) -> Self {
        Self(self.0 + u32::from(offset))
    }
}

/// The number of a table of KVM's; the first table has host frame 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Table(pub(crate) u8);

impl Table {
    /// Returns the table's address.
    pub(crate) fn address(self) -> Hpa {
        Hpa::new((u64::from(self.0) + 1) << 12)
    }

    /// Returns the table that an entry of another table refers to.
    pub(crate) fn of_entry(entry: u64) -> Self {
        // CAST: `TABLES` is below 256, so the table's number fits.
        Self(((entry >> 12 & 0xff) - 1) as u8)
    }

    /// Returns the EPT pointer of a root.
    pub(crate) fn eptp(self, accessed_dirty: bool) -> Eptp {
        Eptp::for_root(self.address(), Levels::Four, accessed_dirty)
    }
}

/// The model's knowledge of an entry of KVM's tables, in addition to the entry that the CPU reads.
#[derive(Clone, Copy)]
pub(crate) struct Meta {
    /// When KVM read the guest's entry that this entry was made from; 0 if there is no such entry.
    pub(crate) time: u32,
    /// The guest's frame that the entry leads to.
    pub(crate) gfn: Gfn,
}

/// A table: the entries, and the [`Meta`] of each.
pub(crate) type Page = ([u64; WORDS], [Meta; WORDS]);

/// An empty table.
const EMPTY: Page = (
    [0; WORDS],
    [Meta {
        time: 0,
        gfn: Gfn(0),
    }; WORDS],
);

/// KVM's tables, in use and free.
pub(crate) struct Tables {
    pages: KVVec<Page>,
    /// The free tables, by bit.
    free: u128,
}

impl Tables {
    /// Makes a set of tables that are all free.
    pub(crate) fn new() -> Result<Self> {
        Ok(Self {
            pages: KVVec::from_elem(EMPTY, TABLES, GFP_KERNEL)?,
            free: (1 << TABLES) - 1,
        })
    }

    /// Copies the state of another set.
    pub(crate) fn assign(&mut self, other: &Self) {
        for (number, (page, from)) in self.pages.iter_mut().zip(&other.pages).enumerate() {
            if other.free >> number & 1 == 0 {
                *page = *from;
            }
        }
        self.free = other.free;
    }

    /// Allocates an empty table, the free one with the lowest number: a freed table is reused as
    /// soon as possible.
    pub(crate) fn take(&mut self) -> Option<Table> {
        if self.free == 0 {
            return None;
        }
        let number = self.free.trailing_zeros();
        self.free &= self.free - 1;
        self.pages[number as usize] = EMPTY;
        // CAST: `TABLES` is below 256.
        Some(Table(number as u8))
    }

    /// Frees a table.
    pub(crate) fn free(&mut self, table: Table) {
        self.free |= 1 << table.0;
    }

    /// Frees all tables.
    pub(crate) fn give_back_all(&mut self) {
        self.free = (1 << TABLES) - 1;
    }

    /// Returns the number of free tables.
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

    /// Returns the [`Meta`] of an entry.
    pub(crate) fn meta(&self, table: Table, index: usize) -> Meta {
        self.pages[usize::from(table.0)].1[index]
    }

    /// Sets the [`Meta`] of an entry.
    pub(crate) fn set_meta(&mut self, table: Table, index: usize, meta: Meta) {
        self.pages[usize::from(table.0)].1[index] = meta;
    }
}

/// The memory of a VM, and its place in the host's memory.
pub(crate) struct Memory {
    vm: usize,
    /// The number of earlier VMs in this place, modulo [`LIVES`].
    life: u32,
    words: KVVec<[u64; WORDS]>,
    /// The frames that are in their second place, by bit.
    moved: u32,
    /// The write-protected frames, by bit: the host wants to notice the next write.
    pub(crate) protected: u32,
    /// The highest level at which KVM may map the memory: by pages of 4 KiB (1), 2 MiB (2) or 1 GiB
    /// (3).
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

    /// Copies the state of another memory.
    pub(crate) fn assign(&mut self, other: &Self) {
        self.words.copy_from_slice(&other.words);
        (self.moved, self.protected) = (other.moved, other.protected);
        (self.vm, self.life, self.largest) = (other.vm, other.life, other.largest);
    }

    /// Resets the memory to that of the first VM in this place.
    pub(crate) fn reset(&mut self) {
        self.life = 0;
        self.fill();
    }

    /// Replaces the memory by that of the next VM in this place, which has other host frames.
    pub(crate) fn renew(&mut self) {
        self.life = (self.life + 1) % LIVES;
        self.fill();
    }

    /// Writes the contents of a new VM's memory.
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

    /// Returns the host frame of a frame.
    pub(crate) fn host(&self, gfn: Gfn) -> Hfn {
        let moved = u32::from(self.moved & gfn.bit() != 0);
        // CAST: The number of a VM is below 2^8.
        let life = self.vm as u32 * LIVES + self.life;
        Hfn((2 * life + moved + 1) << BANK | u32::from(gfn.0))
    }

    /// Moves a frame to its other place.
    pub(crate) fn relocate(&mut self, gfn: Gfn) {
        self.moved ^= gfn.bit();
    }

    /// Returns the level at which KVM maps the memory: by large pages if KVM may, and if no frame
    /// is moved or write-protected.
    pub(crate) fn level(&self) -> u8 {
        if self.moved == 0 && self.protected == 0 {
            self.largest
        } else {
            1
        }
    }
}

/// Returns the word of guests' memory in a host frame.
///
/// A moved frame is also found in its old place; a frame of a destroyed VM is not found.
pub(crate) fn read_at(memories: &[Memory], hfn: Hfn, index: usize) -> u64 {
    hfn.owner()
        .and_then(|(vm, life, gfn)| {
            let memory = memories.get(vm).filter(|memory| memory.life == life)?;
            Some(memory.read(gfn, index))
        })
        .unwrap_or(0)
}

/// Writes a word of guests' memory in a host frame.
pub(crate) fn write_at(memories: &mut [Memory], hfn: Hfn, index: usize, value: u64) {
    if let Some((vm, life, gfn)) = hfn.owner() {
        let memory = memories.get_mut(vm);
        if let Some(memory) = memory.filter(|memory| memory.life == life) {
            memory.write(gfn, index, value);
        }
    }
}
