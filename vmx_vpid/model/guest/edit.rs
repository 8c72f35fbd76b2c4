// SPDX-License-Identifier: GPL-2.0

//! This module lists the values that a guest may write into its tables.
//!
//! Each table has a few values, so that tables stay tables: references to both tables of the level
//! below, pages of each size, with and without the right to write, global or not, and not-present.

use super::memory::{
    frames,
    Gfn,
    FRAMES, //
};

/// `P`, or the right to read of an EPT entry.
pub(crate) const PRESENT: u64 = 1 << 0;
/// `R/W`; the same bit in an EPT entry.
pub(crate) const WRITABLE: u64 = 1 << 1;
/// `A`.
const ACCESSED: u64 = 1 << 5;
/// `D`.
pub(crate) const DIRTY: u64 = 1 << 6;
/// `PS`: the entry refers to a page; the same bit in an EPT entry.
pub(crate) const LARGE: u64 = 1 << 7;
/// `G`.
pub(crate) const GLOBAL: u64 = 1 << 8;
/// The rights of an EPT entry that refers to a table or a page: all rights.
const ALL_RIGHTS: u64 = 7;
/// Memory type write-back, in the entry of a page.
const WRITE_BACK: u64 = 6 << 3;

/// The use of a guest's frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A page table of the guest; the level counts from 1.
    Paging(u8),
    /// A table of an EPT of L1's; the level counts from 1.
    Ept(u8),
    /// Data, not a table.
    Data,
}

/// Returns the use of a frame.
pub(crate) fn kind(gfn: Gfn) -> Kind {
    match gfn.0 {
        4 | 5 => Kind::Paging(4),
        6 | 7 => Kind::Paging(3),
        8 | 9 => Kind::Paging(2),
        10 | 11 => Kind::Paging(1),
        12 | 13 => Kind::Ept(4),
        14 => Kind::Ept(3),
        15 => Kind::Ept(2),
        16 | 17 => Kind::Ept(1),
        _ => Kind::Data,
    }
}

/// The number of entries of a new guest's tables, without the page tables of the EPTs.
const SINGLE: usize = 18;

/// The contents of a new guest's tables: table, index, choice.
///
/// All pages are mapped; both page-map level-4 tables map all pages, in different orders.  The
/// first page table of L1's EPTs maps each frame to itself, the second swaps pairs of data frames.
pub(crate) const INITIAL: [(Gfn, usize, u8); SINGLE + 2 * FRAMES] = {
    let mut all = [(Gfn(0), 0, 0); SINGLE + 2 * FRAMES];
    let few: [(Gfn, usize, u8); SINGLE] = [
        (frames::PML4, 0, 1),
        (Gfn(5), 0, 2),
        (frames::PDPT, 0, 1),
        (frames::PDPT, 1, 2),
        (Gfn(7), 0, 2),
        (Gfn(7), 1, 1),
        (frames::PD, 0, 1),
        (frames::PD, 1, 2),
        (Gfn(9), 0, 2),
        (Gfn(9), 1, 1),
        (frames::PT, 0, 1),
        (frames::PT, 1, 2),
        (Gfn(11), 0, 3),
        (Gfn(11), 1, 4),
        (frames::EPT_ROOT, 0, 1),
        (Gfn(13), 0, 1),
        (frames::EPT_PDPT, 0, 1),
        (frames::EPT_PD, 0, 1),
    ];
    let mut at = 0;
    while at < few.len() {
        all[at] = few[at];
        at += 1;
    }
    let mut index = 0;
    while index < FRAMES {
        all[at] = (frames::EPT_PT, index, 1);
        all[at + 1] = (Gfn(17), index, 4);
        at += 2;
        index += 1;
    }
    all
};

/// The number of choices for an entry.
pub(crate) const CHOICES: u8 = 8;

/// Returns the value of an entry for a choice, at an index of a table.
pub(crate) fn entry(table: Gfn, index: usize, choice: u8) -> u64 {
    let leaf = PRESENT | WRITABLE | ACCESSED;
    match kind(table) {
        Kind::Data => 0,
        Kind::Paging(level) => {
            let first = [frames::PT, frames::PD, frames::PDPT, frames::PML4];
            match (level, choice) {
                (_, 0) => 0,
                (1, 1..=4) => Gfn(u16::from(choice) - 1).address() | leaf,
                (1, 5) => Gfn(0).address() | leaf & !WRITABLE,
                (1, 6) => Gfn(1).address() | leaf | GLOBAL,
                (1, _) => Gfn(2).address() | leaf | GLOBAL | DIRTY,
                (2 | 3, 3) => leaf | LARGE,
                (2 | 3, 4) => leaf | LARGE | GLOBAL | DIRTY,
                (_, choice) => {
                    let below = first[usize::from(level) - 2];
                    below.plus(u16::from(choice & 1 ^ 1)).address() | leaf
                }
            }
        }
        Kind::Ept(level) => {
            // CAST: The index of an entry in use is below 32.
            let own = Gfn(index as u16);
            let swapped = if own.0 < frames::PML4.0 {
                Gfn(own.0 ^ 1)
            } else {
                own
            };
            match (level, choice) {
                (_, 0) => 0,
                (1, 1..=3) => own.address() | ALL_RIGHTS | WRITE_BACK,
                (1, 4..=6) => swapped.address() | ALL_RIGHTS | WRITE_BACK,
                (1, _) => own.address() | ALL_RIGHTS & !WRITABLE | WRITE_BACK,
                (2 | 3, 3) if index == 0 => ALL_RIGHTS | WRITE_BACK | LARGE,
                (2, choice) if index == 0 => {
                    frames::EPT_PT.plus(u16::from(choice & 1 ^ 1)).address() | ALL_RIGHTS
                }
                (3, _) if index == 0 => frames::EPT_PD.address() | ALL_RIGHTS,
                (4, _) if index == 0 => frames::EPT_PDPT.address() | ALL_RIGHTS,
                _ => 0,
            }
        }
    }
}

/// The number of entries that a guest edits.
pub(crate) const PLACES: u8 = 32;

/// Returns one of the entries that a guest edits: a table and an index.
pub(crate) fn place(number: u8) -> (Gfn, usize) {
    let (table, index) = match number {
        0 | 1 => (4 + number, 0),
        2..=5 => (6 + (number - 2) / 2, number % 2),
        6..=9 => (8 + (number - 6) / 2, number % 2),
        // Edit page tables most often.
        10..=17 => (10 + (number - 10) / 2 % 2, number % 2),
        18 | 19 => (12 + number - 18, 0),
        20 => (14, 0),
        21 | 22 => (15, 0),
        23..=26 => (16, number - 23),
        27..=29 => (17, number - 27),
        30 => (16, 10),
        _ => (16, 8),
    };
    (Gfn(table.into()), index.into())
}
