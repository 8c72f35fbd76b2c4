// SPDX-License-Identifier: GPL-2.0

//! This module merges a table of an EPT into one entry.
//!
//! A table whose entries refer to one page after the other, all alike, is equal to the entry of one
//! large page; a table without a present entry is equal to an empty entry.

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

/// What the entries of a table have been so far, from the first one on.
#[derive(Clone, Copy)]
enum Run {
    /// There were none.
    Unknown,
    /// None was present.
    Empty,
    /// One page after the other, all alike but for flags.
    Pages {
        /// The entry of the first.
        first: Entry,
        /// Where it is.
        page: Hpa,
        /// Where the next one would have to be.
        next: u64,
    },
    /// Anything else.
    Mixed,
}

impl Run {
    /// Adds one more entry, of a table of this level.
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

    /// Returns the entry that says the same as a whole table of them, if there is one.
    ///
    /// Its flags are set: CPUs may go on to set them in the table until the flush.
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
    /// Drafts that entries of a table are merged, from the lowest level up.
    ///
    /// Returns the entry that can take the place of the table, if there is one: then nothing is to
    /// become of the table's own.
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
