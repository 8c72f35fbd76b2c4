// SPDX-License-Identifier: GPL-2.0

//! KVM runs guests on the trees of tables in this module.
//!
//! Each tree belongs to a VM, and has a role: the addresses that the tree translates, and the
//! tables that the tree is made from.  Entries have the format that the CPU reads, that of EPT or
//! that of page tables.  Several vCPUs may keep the same tree.

use crate::{
    model::guest::{
        edit::{
            LARGE,
            PRESENT,
            WRITABLE, //
        },
        memory::{
            Gfn,
            Hfn,
            Meta,
            Table,
            Tables,
            FRAMES, //
        }, //
    },
    x86::addr::Hpa, //
};

/// The greatest number of trees at once.
pub(crate) const TREES: usize = 32;

/// The number of a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TreeId(pub(crate) u8);

/// The addresses that a tree translates: the relevant part of `union kvm_mmu_page_role`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// An EPT that translates guest-physical addresses.
    Direct {
        /// The tree is for system-management mode.
        smm: bool,
        /// The tree is for an L2 without an EPT of its own.
        l2: bool,
    },
    /// Shadow tables of a guest's page tables, with EPT off.
    Shadow {
        /// The guest's root table.
        root: Gfn,
        /// The guest's tables are read as with CR4.PAE set.
        pae: bool,
        /// The tables are L2's.
        l2: bool,
    },
    /// Page tables that map each address to itself, for a guest with paging off, with EPT off.
    Unpaged {
        /// The tree is for L2.
        l2: bool,
    },
    /// Shadow tables of an EPT of L1's, for L2.
    Nested {
        /// The root table of L1's EPT.
        root: Gfn,
        /// L1's EPT has accessed and dirty flags.
        accessed_dirty: bool,
    },
}

impl Role {
    /// Returns whether the entries have the format of EPT.
    pub(crate) fn is_ept(self) -> bool {
        !matches!(self, Self::Shadow { .. } | Self::Unpaged { .. })
    }

    /// Returns the guest's root table that the tree shadows; `None` if there is none.
    pub(crate) fn shadowed(self) -> Option<Gfn> {
        match self {
            Self::Direct { .. } | Self::Unpaged { .. } => None,
            Self::Shadow { root, .. } | Self::Nested { root, .. } => Some(root),
        }
    }

    /// Returns whether KVM's TDP MMU has the tree, which frees unused trees without a flush.
    pub(crate) fn is_tdp(self) -> bool {
        matches!(self, Self::Direct { .. })
    }

    /// Returns the dirty flag of an entry.
    pub(crate) fn dirty_bit(self) -> u64 {
        if self.is_ept() {
            1 << 9
        } else {
            1 << 6
        }
    }

    /// Returns the index of the entry for a page or a frame, in a table of a level.
    pub(crate) fn index(self, level: u8, number: u16) -> usize {
        let bits = if self.is_ept() { 9 } else { 1 };
        let shifted = u32::from(number) >> (bits * (u32::from(level) - 1)).min(31);
        (shifted & ((1 << bits) - 1)) as usize
    }

    /// Returns how many entries of a table are ever used.
    pub(crate) fn used(self, level: u8) -> usize {
        match (self.is_ept(), level) {
            (true, 1) => FRAMES,
            (_, 4) | (true, 3) => 1,
            _ => 2,
        }
    }

    /// Makes an entry that refers to a table.
    pub(crate) fn link(self, table: Table) -> u64 {
        let rights = if self.is_ept() { 7 } else { 0x23 };
        table.address().into_raw() | rights
    }

    /// Makes an entry that refers to a page at a level.
    pub(crate) fn leaf(self, level: u8, hfn: Hfn, write: bool) -> u64 {
        let rights = if self.is_ept() { 0x35 } else { 0x61 };
        let write = if write { WRITABLE } else { 0 };
        let large = if level > 1 { LARGE } else { 0 };
        hfn.address().into_raw() | rights | write | large
    }
}

/// A tree of tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tree {
    /// The VM.
    pub(crate) vm: usize,
    /// The role: the addresses that the tree translates.
    pub(crate) role: Role,
    /// The root table.
    pub(crate) root: Table,
    /// No vCPU may use the tree any more.
    pub(crate) obsolete: bool,
}

/// Takes the place of a guest's table if there is none: below a large page of the guest's.
pub(crate) const NO_TABLE: Gfn = Gfn(999);

/// Returns whether an entry is present.
pub(crate) fn is_present(entry: u64) -> bool {
    entry & PRESENT != 0
}

/// Returns whether an entry of a level refers to a page.
pub(crate) fn is_leaf(entry: u64, level: u8) -> bool {
    level == 1 || entry & LARGE != 0
}

/// Returns the host frame that an entry refers to.
pub(crate) fn frame_of(entry: u64) -> Hfn {
    Hfn::at(Hpa::new(entry & 0x000f_ffff_ffff_f000))
}

/// The place of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The table.
    pub(crate) table: Table,
    /// The index.
    pub(crate) index: usize,
    /// The level of the table, 1 for a page table.
    pub(crate) level: u8,
}

/// The end of a look-up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found {
    /// The place of the last entry.
    pub(crate) place: Place,
    /// The last entry: refers to a page, or is not present.
    pub(crate) entry: u64,
    /// The tables on the way by level, from `path[4]` down to `path[place.level]`.
    pub(crate) path: [Option<Table>; 5],
}

impl Tree {
    /// Looks an entry up.
    pub(crate) fn find(&self, tables: &Tables, number: u16) -> Found {
        let mut path = [None; 5];
        let (mut table, mut level) = (self.root, 4);
        loop {
            path[usize::from(level)] = Some(table);
            let index = self.role.index(level, number);
            let entry = tables.read(table, index);
            if !is_present(entry) || is_leaf(entry, level) {
                let place = Place {
                    table,
                    index,
                    level,
                };
                return Found { place, entry, path };
            }
            (table, level) = (Table::of_entry(entry), level - 1);
        }
    }

    /// Translates a page or a frame; returns the host frame and the look-up.
    pub(crate) fn translate(&self, tables: &Tables, number: u16) -> Option<(Hfn, Found)> {
        let found = self.find(tables, number);
        if !is_present(found.entry) {
            return None;
        }
        let span = self.span(found.place.level);
        let offset = number & ((1 << span) - 1);
        Some((frame_of(found.entry).plus(offset), found))
    }

    /// Returns how many pages or frames an entry of a level maps, as a power of 2; the result is
    /// capped at the number of pages that exist.
    pub(crate) fn span(&self, level: u8) -> u8 {
        let bits = if self.role.is_ept() { 9 } else { 1 };
        ((level - 1) * bits).min(15)
    }

    /// Calls a function for each present entry; tables come before the tables below.
    ///
    /// The arguments are the place and the frame of the guest's table that the entry's own table
    /// shadows.
    pub(crate) fn each(&self, tables: &mut Tables, mut visit: impl FnMut(&mut Tables, Place, Gfn)) {
        let root = self.role.shadowed().unwrap_or(NO_TABLE);
        self.each_below(tables, self.root, 4, root, &mut visit);
    }

    /// Does the same as [`Self::each`] for one table and the tables below.
    fn each_below(
        &self,
        tables: &mut Tables,
        table: Table,
        level: u8,
        shadowed: Gfn,
        visit: &mut impl FnMut(&mut Tables, Place, Gfn),
    ) {
        for index in 0..self.role.used(level) {
            if !is_present(tables.read(table, index)) {
                continue;
            }
            let place = Place {
                table,
                index,
                level,
            };
            visit(tables, place, shadowed);
            let entry = tables.read(table, index);
            if is_present(entry) && !is_leaf(entry, level) {
                let below = tables.meta(table, index).gfn;
                self.each_below(tables, Table::of_entry(entry), level - 1, below, visit);
            }
        }
    }

    /// Frees a table and all tables below.
    pub(crate) fn free_table(&self, tables: &mut Tables, table: Table, level: u8) {
        for index in 0..self.role.used(level) {
            let entry = tables.read(table, index);
            if is_present(entry) && !is_leaf(entry, level) {
                self.free_table(tables, Table::of_entry(entry), level - 1);
            }
        }
        tables.free(table);
    }

    /// Clears an entry, and frees the tables below.
    pub(crate) fn clear(&self, tables: &mut Tables, place: Place) {
        let entry = tables.read(place.table, place.index);
        tables.write(place.table, place.index, 0);
        if is_present(entry) && !is_leaf(entry, place.level) {
            self.free_table(tables, Table::of_entry(entry), place.level - 1);
        }
    }

    /// Adds the missing tables down to a level; splits a large page on the way.
    ///
    /// `shadowed` returns the guest's table that the table of a level shadows.  Returns the place
    /// of the entry, or `None` if no table is free.
    pub(crate) fn make_way(
        &self,
        tables: &mut Tables,
        number: u16,
        to: u8,
        shadowed: impl Fn(u8) -> Gfn,
    ) -> Option<Place> {
        loop {
            let Found { place, entry, .. } = self.find(tables, number);
            if place.level <= to {
                let table = place.table;
                let index = self.role.index(place.level, number);
                return (place.level == to).then_some(Place {
                    table,
                    index,
                    level: to,
                });
            }
            let table = tables.take()?;
            if is_present(entry) {
                self.fill_from_large(tables, table, place, entry);
            }
            tables.write(place.table, place.index, self.role.link(table));
            let meta = Meta {
                time: 0,
                gfn: shadowed(place.level - 1),
            };
            tables.set_meta(place.table, place.index, meta);
        }
    }

    /// Fills a table with the translations of an entry for a large page.
    fn fill_from_large(&self, tables: &mut Tables, table: Table, place: Place, entry: u64) {
        let level = place.level - 1;
        let span = self.span(level);
        let meta = tables.meta(place.table, place.index);
        for index in 0..self.role.used(level) {
            // CAST: A table has at most `WORDS` entries in use, which is 32.
            let offset = (index as u16) << span;
            let hfn = frame_of(entry).plus(offset);
            let flags = entry & self.role.dirty_bit();
            let leaf = self.role.leaf(level, hfn, entry & WRITABLE != 0);
            // `leaf()` has already set the dirty flag of a page-table entry.
            let leaf = if self.role.is_ept() {
                leaf | flags
            } else {
                leaf
            };
            tables.write(table, index, leaf);
            let gfn = meta.gfn.plus(offset);
            tables.set_meta(table, index, Meta { gfn, ..meta });
        }
    }
}
