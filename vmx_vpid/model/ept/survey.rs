// SPDX-License-Identifier: GPL-2.0

//! A survey visits all entries of an EPT at once, for the models and for tests.
//!
//! A survey ends at the first unsound entry.  For the EPT of a running guest there is
//! [`crate::ept::cursor`].

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

/// An unsound entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unsound {
    /// The reason why the entry is unsound.
    pub(crate) misconfig: Misconfig,
    /// The level of its table.
    pub(crate) level: Level,
    /// The first address of the entry.
    pub(crate) gpa: Gpa,
    /// The entry.
    pub(crate) entry: Entry,
}

/// Visits each present entry of an EPT in the order of addresses, a table's entry before the
/// entries in the table; returns the number of tables.
///
/// The tables may be in use: each entry is read once, and the value read counts.
///
/// # Errors
///
/// The first unsound entry, which is the last entry read.
pub(crate) fn survey(
    rules: Rules,
    eptp: Eptp,
    tables: &mut impl Tables,
    mut show: impl FnMut(Level, Gpa, Entry, Slot),
) -> Result<usize, Unsound> {
    let top = Level::top(eptp.levels());
    survey_table(rules, top, eptp.table(), Gpa::new(0), tables, &mut show)
}

/// Visits one table and the tables below; recurses once per level.
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
