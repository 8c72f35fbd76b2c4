// SPDX-License-Identifier: GPL-2.0

//! A look at all of an EPT, piece by piece.
//!
//! `survey()` of the tests goes through an EPT in one go.  That of a running guest has locks
//! that others wait for, and changes: here the place is kept between one piece and the next, as an
//! address and nothing else.  Each piece begins at the root again, so that whatever happened to the
//! tables meanwhile, no table is read that is not there any more.

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

/// How many entries of live tables are read before others get the locks.
pub(crate) const ENTRIES_AT_ONCE: usize = 4096;

/// The memory that tables are in, to be read.
pub(crate) trait Entries {
    /// Reads an entry, as one step.
    ///
    /// The address is a multiple of 8, within a table that [`Self::holds()`].
    fn read(&mut self, at: Hpa) -> u64;

    /// Returns whether there is a table of this level at an address.
    ///
    /// It is asked for each table before anything of it is read.
    fn holds(&mut self, table: Hpa, level: Level) -> bool;
}

/// What is wrong with an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EntryError {
    /// The CPU finds it misconfigured, and it is no marker of device registers.
    Misconfigured(Misconfig),
    /// It refers to a table, and there is none.
    NoTable,
}

/// A tree of tables, as the CPU uses it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tree {
    /// What entries mean.
    pub(crate) rules: Rules,
    /// Where the root table is.
    pub(crate) root: Hpa,
    /// How many levels of tables there are.
    pub(crate) levels: Levels,
}

/// An entry that was looked at, and is not empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// The level of its table.
    pub(crate) level: Level,
    /// The first address that is looked at by it.
    ///
    /// That is the first it is for, but where it took the place of a table of which a part had been
    /// looked at.
    pub(crate) first: u64,
    /// The first address behind those that it is for.
    pub(crate) end: u64,
    /// The entry, as it was read.
    pub(crate) entry: Entry,
    /// What it permits together with the entries that lead to it.
    pub(crate) rights: Rights,
    /// What it is there for, or what is wrong with it.
    pub(crate) slot: Result<Slot, EntryError>,
}

/// How far a look has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// There is more to see.
    More,
    /// That was all.
    Done,
}

/// A place in an EPT that is looked at piece by piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cursor {
    /// The first address that was not looked at.
    next: u64,
}

/// A table on the way down.
#[derive(Clone, Copy)]
struct Table {
    /// Where it is.
    at: Hpa,
    /// Its level.
    level: Level,
    /// What the entries that lead to it permit.
    rights: Rights,
}

impl Cursor {
    /// A place from which nothing has been looked at.
    pub(crate) const fn new() -> Self {
        Self { next: 0 }
    }

    /// Looks at entries from this place on, until so many were read, `show` returns false, or there
    /// are no more.
    ///
    /// Each entry that is not empty is shown: that of a table before those in the table, and in the
    /// order of addresses.  A table's is shown once, however many pieces the table takes.  What
    /// `show` returns for a table's does not count.  A piece reads at least one entry of those that
    /// lead on, however small the budget is.
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

    /// Goes down to the lowest table that has an entry for this place.
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
            // Of a table that was looked at in part the entry has been shown.
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

    /// Goes on in a table, to its end or to an entry that refers to another; returns whether to go
    /// on.
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
                // The next descent leads there.
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

    /// Looks at the entry that a table has for this place.
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
            // Of five levels the end is bit 57: far from too much.
            end: (self.next | table.level.offset_mask()).saturating_add(1),
            entry,
            rights: table.rights.and(tree.rules.rights(entry)),
            slot,
        }
    }
}
