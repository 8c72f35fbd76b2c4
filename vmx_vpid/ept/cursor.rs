// SPDX-License-Identifier: GPL-2.0

//! The cursor reads all of an EPT piece by piece.
//!
//! The EPT of a running guest changes, and a reader holds locks that other tasks wait for.  Between
//! two pieces the reader drops the locks, and the cursor keeps only its place, which is an address.
//! Each piece starts from the root again, so that the cursor reads no table that was freed between
//! two pieces.  (`survey()` of the tests reads an EPT in one go.)

use super::{
    check::{
        check,
        Slot, //
    },
    entry::{
        Entry,
        Level,
        Misconfig,
        Rights,
        Rules, //
    },
    Levels, //
};
use crate::x86::addr::{
    Gpa,
    Hpa, //
};

/// The number of entries of live tables that are read before the locks are dropped.
pub(crate) const ENTRIES_AT_ONCE: usize = 4096;

/// The memory that holds the tables.
pub(crate) trait Entries {
    /// Reads an entry with one load.
    ///
    /// The address is a multiple of 8, in the root table or in a table for which [`Self::holds()`]
    /// returned true.
    fn read(&mut self, at: Hpa) -> u64;

    /// Returns whether there is a table of this level at an address.
    ///
    /// The cursor calls this for each table below the root before it reads any entry of the table.
    fn holds(&mut self, table: Hpa, level: Level) -> bool;
}

/// The reason why a sound EPT does not have an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EntryError {
    /// The entry is misconfigured, and is no marker of device registers.
    Misconfigured(Misconfig),
    /// The entry refers to a table, and there is no table at that address.
    NoTable,
}

/// A tree of tables, as the CPU uses it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tree {
    /// The rules that give the entries their meaning.
    pub(crate) rules: Rules,
    /// The address of the root table.
    pub(crate) root: Hpa,
    /// The number of levels of tables.
    pub(crate) levels: Levels,
}

/// An entry that the cursor has read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// The level of the entry's table.
    pub(crate) level: Level,
    /// The cursor's place, which is the first address that the entry covers.
    ///
    /// The place is a later address if the entry replaced a table after the cursor had read a part
    /// of the table.
    pub(crate) first: u64,
    /// The first address after those that the entry covers.
    pub(crate) end: u64,
    /// The entry, as it was read.
    pub(crate) entry: Entry,
    /// The rights that the entry and all entries that lead to it permit.
    pub(crate) rights: Rights,
    /// The purpose of the entry, or the reason why a sound EPT does not have it.
    pub(crate) slot: Result<Slot, EntryError>,
}

/// Whether the cursor is at the end of the EPT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// More entries are left.
    More,
    /// The cursor has read all entries.
    Done,
}

/// A place in an EPT that is read piece by piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cursor {
    /// The first address whose entry was not read yet.
    next: u64,
}

/// A table on the way down.
#[derive(Clone, Copy)]
struct Table {
    /// The address of the table.
    at: Hpa,
    /// The level of the table.
    level: Level,
    /// The rights that all entries that lead to the table permit.
    rights: Rights,
}

impl Cursor {
    /// Returns a cursor at the start of an EPT.
    pub(crate) const fn new() -> Self {
        Self { next: 0 }
    }

    /// Reads entries from this place on, until `budget` entries were read, `show` returns false, or
    /// no entry is left.
    ///
    /// Calls `show` for each entry that is not empty, in the order of addresses; for an entry that
    /// refers to a table before the entries of the table.  Calls `show` for a table once, even if
    /// several pieces read parts of the table, and ignores the result of that call.  A piece makes
    /// progress by at least one entry, however small the budget is.
    pub(crate) fn advance(
        &mut self,
        tree: Tree,
        entries: &mut impl Entries,
        budget: usize,
        mut show: impl FnMut(&Seen) -> bool,
    ) -> Progress {
        let top = Level::top(tree.levels);
        let mut left = budget;
        while top.covers(Gpa::new(self.next)) {
            let root = Table {
                at: tree.root,
                level: top,
                rights: Rights::ALL,
            };
            let table = self.descend(tree, root, entries, &mut show);
            left = left.saturating_sub(1);
            if !self.pass(tree, table, entries, &mut left, &mut show) || left == 0 {
                break;
            }
        }
        if top.covers(Gpa::new(self.next)) {
            Progress::More
        } else {
            Progress::Done
        }
    }

    /// Walks down to the lowest table that has an entry for this place.
    fn descend(
        self,
        tree: Tree,
        root: Table,
        entries: &mut impl Entries,
        show: &mut impl FnMut(&Seen) -> bool,
    ) -> Table {
        let mut table = root;
        while let Some(level) = table.level.below() {
            let seen = self.look(tree, table, entries);
            let Ok(Slot::Table(at)) = seen.slot else {
                break;
            };
            // If an earlier piece read the start of the table, it has shown this entry.
            if self.next & table.level.offset_mask() == 0 {
                show(&seen);
            }
            table = Table {
                at,
                level,
                rights: seen.rights,
            };
        }
        table
    }

    /// Reads entries of a table, up to its end or to an entry that refers to another table; returns
    /// whether to continue.
    fn pass(
        &mut self,
        tree: Tree,
        table: Table,
        entries: &mut impl Entries,
        left: &mut usize,
        show: &mut impl FnMut(&Seen) -> bool,
    ) -> bool {
        loop {
            let seen = self.look(tree, table, entries);
            *left = left.saturating_sub(1);
            match seen.slot {
                // The next call of `descend()` walks into this table.
                Ok(Slot::Table(_)) => return true,
                Ok(Slot::Empty) => self.next = seen.end,
                _ => {
                    self.next = seen.end;
                    if !show(&seen) {
                        return false;
                    }
                }
            }
            if *left == 0 || table.level.index(Gpa::new(self.next)) == 0 {
                return true;
            }
        }
    }

    /// Reads the entry that a table has for this place.
    fn look(self, tree: Tree, table: Table, entries: &mut impl Entries) -> Seen {
        let gpa = Gpa::new(self.next);
        let entry = Entry::from(entries.read(table.level.locate(table.at, gpa)));
        let slot = check(tree.rules, table.level, entry).map_err(EntryError::Misconfigured);
        let slot = match (slot, table.level.below()) {
            (Ok(Slot::Table(at)), Some(below)) if !entries.holds(at, below) => {
                Err(EntryError::NoTable)
            }
            _ => slot,
        };
        Seen {
            level: table.level,
            first: self.next,
            // The end of five levels is 1 << 57, so the addition does not saturate.
            end: (self.next | table.level.offset_mask()).saturating_add(1),
            entry,
            rights: table.rights.and(tree.rules.rights(entry)),
            slot,
        }
    }
}
