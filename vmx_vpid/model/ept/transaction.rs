// SPDX-License-Identifier: GPL-2.0

//! A transaction changes an EPT.
//!
//! The first phase allocates and fills new tables where no CPU sees them, and records the edits of
//! entries that CPUs may see.  This phase can fail, and then nothing has changed.  The second phase
//! replaces each of those entries in one step of 64 bits, and cannot fail.  A CPU finds either the
//! old or the new entry.
//!
//! There is one exception.  Some CPUs raise a machine check if code is translated by a large page
//! and by a small page at once (CVE-2018-12207).  So, before code gets pages of another size, the
//! transaction removes the right to fetch and flushes: a fetch in between raises an EPT violation,
//! and the guest retries the fetch after the change.

use super::{
    build::{
        Ept,
        Memory,
        Operation,
        Range,
        Step, //
    },
    flush_needed::Change, //
};
use crate::{
    ept::{
        check::Slot,
        entry::{
            Entry,
            Level,
            Rights, //
        },
        level::ENTRIES, //
    },
    x86::addr::{
        Gpa,
        Hpa, //
    }, //
};
use kernel::prelude::*;

/// The accessed and dirty flags, which the CPU may set in an entry at any time.
pub(crate) const FLAGS: u64 = Entry::ACCESSED_MASK | Entry::DIRTY_MASK;

impl Entry {
    /// Returns the entry with other rights.
    pub(crate) fn permitting(self, rights: Rights) -> Self {
        let others = self.into_raw() & !Rights::ALL.into_raw();
        Self::from_raw(others | rights.into_raw() & Rights::ALL.into_raw())
    }

    /// Returns the entry without the right to fetch.
    fn without_fetches(self) -> Self {
        self.with_execute(false).with_execute_user(false)
    }

    /// Returns an entry with the same attributes, for a page of another size or at another address.
    pub(crate) fn relocated(self, level: Level, page: Hpa) -> Self {
        let others = self.into_raw() & !Self::FRAME_MASK;
        Self::from_raw(others | page.into_raw() & Self::FRAME_MASK).with_large(level != Level::Pt)
    }

    /// Returns the flags that are set.
    fn flags(self) -> u64 {
        self.into_raw() & FLAGS
    }

    /// Returns the entry with more flags set.
    pub(crate) fn flagged(self, flags: u64) -> Self {
        Self::from_raw(self.into_raw() | flags & FLAGS)
    }
}

/// The edit of an entry that CPUs may see.
pub(crate) struct Edit {
    /// The address of the entry.
    at: Hpa,
    /// The level of its table.
    level: Level,
    /// The value when the edit was recorded; CPUs may have set flags since.
    old: Entry,
    /// The new value.
    new: Entry,
}

/// A change in progress.
pub(crate) struct Transaction<'a, M> {
    /// The EPT.
    pub(crate) ept: Ept,
    /// The memory of the tables.
    pub(crate) memory: &'a mut M,
    /// The range of the change.
    pub(crate) range: Range,
    /// The edits of entries that CPUs may see.
    pub(crate) edits: KVec<Edit>,
    /// Tables that no CPU has seen.
    fresh: KVec<Hpa>,
    /// Tables that the edits unlink.
    pub(crate) unlinked: KVec<Hpa>,
    /// CPUs may have cached mappings that the change makes stale.
    pub(crate) stale: bool,
}

impl<'a, M: Memory> Transaction<'a, M> {
    /// Starts a transaction without edits.
    pub(crate) fn new(ept: Ept, memory: &'a mut M, range: Range) -> Self {
        Self {
            ept,
            memory,
            range,
            edits: KVec::new(),
            fresh: KVec::new(),
            unlinked: KVec::new(),
            stale: false,
        }
    }

    /// Executes an operation.
    pub(crate) fn make(mut self, operation: Operation) -> Result<Change> {
        let (top, root) = (self.ept.top(), self.ept.pointer().table());
        let recorded = self.change_table(operation, root, top, Gpa::new(0), true);
        self.commit(recorded)
    }

    /// Merges all tables that can be merged.
    pub(crate) fn merge(mut self) -> Result<Change> {
        let (top, root) = (self.ept.top(), self.ept.pointer().table());
        // The root table stays, whatever its entries are.
        let recorded = self.merge_table(root, top, Gpa::new(0)).map(|_| ());
        self.commit(recorded)
    }

    /// Records the edits of a table's entries that the range touches.
    ///
    /// `seen` tells whether CPUs may see the table.
    fn change_table(
        &mut self,
        operation: Operation,
        table: Hpa,
        level: Level,
        first: Gpa,
        seen: bool,
    ) -> Result {
        let range = self.range;
        for gpa in range.entries(level, first) {
            let at = level.locate(table, gpa);
            let old = Entry::from(self.memory.read(at));
            match operation.step(self.ept, range, level, gpa, old) {
                Step::Keep => {}
                Step::Put(new) => self.put(at, level, old, new, seen)?,
                Step::Descend => {
                    let Some(below) = level.below() else { continue };
                    if let Slot::Table(table) = self.ept.slot(level, old) {
                        self.change_table(operation, table, below, gpa, seen)?;
                    } else {
                        let table = self.table_like(level, below, old)?;
                        self.change_table(operation, table, below, gpa, false)?;
                        self.put(at, level, old, Entry::table(table), seen)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Makes a table that translates like an entry that refers to no table.
    fn table_like(&mut self, level: Level, below: Level, old: Entry) -> Result<Hpa> {
        // Reserve first, so that a failing push cannot leak an allocated table.
        self.fresh.reserve(1, GFP_KERNEL)?;
        let table = self.memory.allocate()?;
        self.fresh.push(table, GFP_KERNEL)?;
        if let Slot::Page(page) = self.ept.slot(level, old) {
            for part in below.spans(Gpa::new(0), ENTRIES) {
                let page = Hpa::new(page.into_raw() | part.into_raw());
                let new = old.relocated(below, page);
                let at = below.locate(table, part);
                self.memory.exchange(at, 0, new.into_raw());
            }
        }
        Ok(table)
    }

    /// Records the edit of an entry; in a table that no CPU sees, replaces the entry at once.
    fn put(&mut self, at: Hpa, level: Level, old: Entry, new: Entry, seen: bool) -> Result {
        let new = if self.is_same_page(level, old, new) {
            new.flagged(old.flags())
        } else {
            new
        };
        if new == old {
            return Ok(());
        }
        if let (Slot::Table(table), Some(below)) = (self.ept.slot(level, old), level.below()) {
            collect(self.ept, self.memory, below, table, &mut self.unlinked)?;
        }
        self.stale |= self.loses(level, old, new);
        if seen {
            self.edit(at, level, old, new)?;
        } else {
            self.memory.exchange(at, old.into_raw(), new.into_raw());
        }
        Ok(())
    }

    /// Records the edit of an entry that CPUs may see.
    pub(crate) fn edit(&mut self, at: Hpa, level: Level, old: Entry, new: Entry) -> Result {
        let edit = Edit {
            at,
            level,
            old,
            new,
        };
        Ok(self.edits.push(edit, GFP_KERNEL)?)
    }

    /// Returns whether two entries refer to the same page.
    fn is_same_page(&self, level: Level, old: Entry, new: Entry) -> bool {
        let slots = (self.ept.slot(level, old), self.ept.slot(level, new));
        matches!(slots, (Slot::Page(old), Slot::Page(new)) if old == new)
    }

    /// Returns whether an edit makes a cached mapping of the entry stale.
    ///
    /// For a table that replaces a page, the edits of the table's entries decide.
    fn loses(&self, level: Level, old: Entry, new: Entry) -> bool {
        let rules = self.ept.rules();
        match (self.ept.slot(level, old), self.ept.slot(level, new)) {
            (Slot::Empty | Slot::Mmio, _) | (Slot::Page(_), Slot::Table(_)) => false,
            (Slot::Page(_), Slot::Page(_)) => {
                // The entries may differ in nothing but rights and flags.
                new.permitting(Rights::NONE).flagged(FLAGS)
                    != old.permitting(Rights::NONE).flagged(FLAGS)
                    || !rules.rights(new).contains(rules.rights(old))
            }
            (Slot::Page(_) | Slot::Table(_), _) => true,
        }
    }

    /// Returns whether an edit gives code pages of another size.
    fn resizes_code(&self, edit: &Edit) -> bool {
        let slots = (
            self.ept.slot(edit.level, edit.old),
            self.ept.slot(edit.level, edit.new),
        );
        let page = match slots {
            (Slot::Page(_), Slot::Table(_)) => edit.old,
            (Slot::Table(_), Slot::Page(_)) => edit.new,
            _ => return false,
        };
        let rights = self.ept.rules().rights(page);
        rights.execute() || rights.execute_user()
    }

    /// Executes the recorded edits; if recording failed, frees the new tables.
    fn commit(mut self, recorded: Result) -> Result<Change> {
        if let Err(error) = recorded {
            for &table in &*self.fresh {
                self.memory.free(table);
            }
            return Err(error);
        }
        let context = self.ept.pointer().ep4ta();
        let edits = core::mem::take(&mut self.edits);
        let mut waits = false;
        for edit in &*edits {
            if self.resizes_code(edit) {
                take_fetches(self.memory, edit.at);
                waits = true;
            }
        }
        if waits {
            self.memory.invalidate(context);
        }
        for edit in &*edits {
            self.execute(edit);
        }
        Ok(if self.stale {
            Change::pending(context, self.unlinked)
        } else {
            Change::free()
        })
    }

    /// Replaces an entry, and keeps each flag that a CPU has set since the edit was recorded.
    ///
    /// The loop ends: nothing but flags can change concurrently, and each flag is set at most once.
    fn execute(&mut self, edit: &Edit) {
        let table = match self.ept.slot(edit.level, edit.new) {
            Slot::Table(table) => edit.level.below().map(|below| (table, below)),
            _ => None,
        };
        loop {
            let now = self.memory.read(edit.at);
            let late = Entry::from(now).flags() & !edit.old.flags();
            let mut new = edit.new;
            if late != 0 {
                if self.is_same_page(edit.level, edit.old, new) {
                    new = new.flagged(late);
                } else if let Some((table, below)) = table {
                    self.flag_pages(table, below, late);
                }
            }
            if self.memory.exchange(edit.at, now, new.into_raw()) {
                break;
            }
        }
    }

    /// Sets flags for each page in a table that no CPU has seen.
    fn flag_pages(&mut self, table: Hpa, level: Level, flags: u64) {
        for part in level.spans(Gpa::new(0), ENTRIES) {
            let at = level.locate(table, part);
            let entry = Entry::from(self.memory.read(at));
            match (self.ept.slot(level, entry), level.below()) {
                (Slot::Page(_), _) => {
                    let new = entry.flagged(flags);
                    self.memory.exchange(at, entry.into_raw(), new.into_raw());
                }
                (Slot::Table(table), Some(below)) => self.flag_pages(table, below, flags),
                _ => {}
            }
        }
    }
}

/// Removes the right to fetch from an entry that CPUs may see.
fn take_fetches(memory: &mut impl Memory, at: Hpa) {
    loop {
        let now = memory.read(at);
        let new = Entry::from(now).without_fetches().into_raw();
        if memory.exchange(at, now, new) {
            break;
        }
    }
}

/// Adds a table, and all tables below, to a list.
pub(crate) fn collect(
    ept: Ept,
    memory: &mut impl Memory,
    level: Level,
    table: Hpa,
    tables: &mut KVec<Hpa>,
) -> Result {
    tables.push(table, GFP_KERNEL)?;
    let Some(below) = level.below() else {
        return Ok(());
    };
    for part in level.spans(Gpa::new(0), ENTRIES) {
        let entry = Entry::from(memory.read(level.locate(table, part)));
        if let Slot::Table(table) = ept.slot(level, entry) {
            collect(ept, memory, below, table, tables)?;
        }
    }
    Ok(())
}
