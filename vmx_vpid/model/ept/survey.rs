// SPDX-License-Identifier: GPL-2.0

//! This module visits all of an EPT at once, for the models and for tests.
//!
//! It ends at the first entry that is not well formed.  [`crate::ept::cursor`] visits the EPT of a
//! running guest.

use super::walk::Tables;
use crate::{
    ept::{
        check::{
            check,
            Slot, //
        },
        entry::{
            Entry,
            Level,
            Misconfig,
            Rules, //
        },
        level::ENTRIES,
        Eptp, //
    },
    x86::addr::{
        Gpa,
        Hpa, //
    }, //
};

/// An entry that no sound EPT has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unsound {
    /// What is wrong with it.
    pub(crate) misconfig: Misconfig,
    /// The level of its table.
    pub(crate) level: Level,
    /// The first address that it is used for.
    pub(crate) gpa: Gpa,
    /// The entry.
    pub(crate) entry: Entry,
}

/// Shows each present entry of an EPT, a table's before those in the table, in the order of
/// addresses; returns how many tables there are.
///
/// The tables may be in use: each entry is read once, and what it was at that time counts.
///
/// # Errors
///
/// The first entry that is not sound; it is the last one that was looked at.
pub(crate) fn survey(
    rules: Rules,
    eptp: Eptp,
    tables: &mut impl Tables,
    mut show: impl FnMut(Level, Gpa, Entry, Slot),
) -> Result<usize, Unsound> {
    let top = Level::top(eptp.levels());
    survey_table(rules, top, eptp.table(), Gpa::new(0), tables, &mut show)
}

/// Does it for one table and those below; calls itself once for each level.
fn survey_table(
    rules: Rules,
    level: Level,
    table: Hpa,
    first: Gpa,
    tables: &mut impl Tables,
    show: &mut impl FnMut(Level, Gpa, Entry, Slot),
) -> Result<usize, Unsound> {
    let mut count = 1usize;
    for gpa in level.spans(first, ENTRIES) {
        let entry = Entry::from(tables.read(level.locate(table, gpa)));
        let slot = check(rules, level, entry).map_err(|misconfig| Unsound {
            misconfig,
            level,
            gpa,
            entry,
        })?;
        if slot == Slot::Empty {
            continue;
        }
        show(level, gpa, entry, slot);
        if let (Slot::Table(below), Some(level)) = (slot, level.below()) {
            let more = survey_table(rules, level, below, gpa, tables, show)?;
            count = count.saturating_add(more);
        }
    }
    Ok(count)
}
