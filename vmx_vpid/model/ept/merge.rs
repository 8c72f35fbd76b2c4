// SPDX-License-Identifier: GPL-2.0

//! This module merges tables of an EPT into single entries.
//!
//! A table of consecutive pages with the same attributes translates like the entry of one large
//! page, and a table without present entries translates like an entry that is not present.

use super::{
    build::{
        Ept,
        Memory, //
    },
    transaction::{
        Transaction,
        FLAGS, //
    }, //
};
use crate::{
    ept::{
        check::Slot,
        entry::{
            Entry,
            Level, //
        },
        level::ENTRIES, //
    },
    x86::addr::{
        Gpa,
        Hpa, //
    }, //
};
use kernel::prelude::*;

/// The entries of a table so far, from the first entry on.
#[derive(Clone, Copy)]
enum Run {
    /// No entry yet.
    Unknown,
    /// No entry is present.
    Empty,
    /// Consecutive pages, the same except for flags.
    Pages {
        /// The entry of the first page.
        first: Entry,
        /// The address of the first page.
        page: Hpa,
        /// The address that the next page has to have.
        next: u64,
    },
    /// Anything else.
    Mixed,
}

impl Run {
    /// Adds an entry, of a table of this level.
    fn with(self, ept: Ept, level: Level, entry: Entry) -> Self {
        match (self, ept.slot(level, entry)) {
            (Self::Unknown | Self::Empty, Slot::Empty) => Self::Empty,
            (Self::Unknown, Slot::Page(page)) => Self::Pages {
                first: entry,
                page,
                next: page.into_raw().wrapping_add(level.span()),
            },
            (Self::Pages { first, page, next }, Slot::Page(found))
                if found.into_raw() == next
                    && entry.relocated(level, page).flagged(FLAGS) == first.flagged(FLAGS) =>
            {
                let next = next.wrapping_add(level.span());
                Self::Pages { first, page, next }
            }
            _ => Self::Mixed,
        }
    }

    /// Returns the entry that translates like a whole table of these entries, if there is one.
    ///
    /// The new entry has its flags set: CPUs may set flags in the old table until the flush.
    fn merged(self, ept: Ept, above: Level) -> Option<Entry> {
        match self {
            Self::Empty => Some(Entry::NONE),
            Self::Pages { first, page, .. }
                if ept.maps(above) && page.into_raw() & above.offset_mask() == 0 =>
            {
                let flags = if ept.pointer().accessed_dirty() {
                    FLAGS
                } else {
                    0
                };
                Some(first.relocated(above, page).flagged(flags))
            }
            _ => None,
        }
    }
}

impl<M: Memory> Transaction<'_, M> {
    /// Records the edits that merge entries of a table, from the lowest level up.
    ///
    /// Returns the entry that can replace the table, if there is one; then the table's own entries
    /// are not edited.
    pub(crate) fn merge_table(
        &mut self,
        table: Hpa,
        level: Level,
        first: Gpa,
    ) -> Result<Option<Entry>> {
        let edits = self.edits.len();
        let mut run = Run::Unknown;
        for gpa in level.spans(first, ENTRIES) {
            let at = level.locate(table, gpa);
            let mut entry = Entry::from(self.memory.read(at));
            let below = level.below().filter(|_| self.range.touches(level, gpa));
            if let (Slot::Table(table), Some(below)) = (self.ept.slot(level, entry), below) {
                if let Some(new) = self.merge_table(table, below, gpa)? {
                    self.unlinked.push(table, GFP_KERNEL)?;
                    self.stale = true;
                    let old = core::mem::replace(&mut entry, new);
                    self.edit(at, level, old, new)?;
                }
            }
            run = run.with(self.ept, level, entry);
        }
        let above = level
            .above()
            .filter(|&above| self.range.covers(above, first));
        let merged = above.and_then(|above| run.merged(self.ept, above));
        if merged.is_some() && level != self.ept.top() {
            self.edits.truncate(edits);
        }
        Ok(merged)
    }
}
