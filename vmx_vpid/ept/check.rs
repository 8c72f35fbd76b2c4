// SPDX-License-Identifier: GPL-2.0

//! What a sound EPT is made of, and a look at all of one.
//!
//! A hypervisor makes one kind of entry that the CPU finds misconfigured, and on purpose: its
//! marker for a page of device registers, which makes each access there exit.  Any other
//! misconfiguration is a fault of who wrote the entry.

use super::{
    entry::{
        Entry,
        Level,
        Meaning,
        Misconfig,
        Rights,
        Rules,
        ENTRIES, //
    },
    walk::Tables,
    Eptp, //
};
use crate::addr::{
    Gpa,
    Hpa, //
};

/// What the marker of a page of device registers permits: writes and fetches without reads, which
/// no CPU has; `VMX_EPT_MISCONFIG_WX_VALUE` in KVM.
const MMIO: Rights = Rights::WRITE.or(Rights::EXECUTE);

/// What an entry is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slot {
    /// Nothing: it is not present.
    Empty,
    /// It makes accesses to device registers exit by a misconfiguration.
    Mmio,
    /// It refers to the table at this address.
    Table(Hpa),
    /// It refers to the page that begins at this address.
    Page(Hpa),
}

impl Entry {
    /// Returns the marker of a page of device registers.
    pub(crate) const fn mmio() -> Self {
        Self::from_raw(MMIO.into_raw())
    }
}

/// Returns what an entry of a table of this level is there for.
///
/// # Errors
///
/// What is wrong with it, if it is misconfigured and no marker.
pub(crate) fn check(rules: Rules, level: Level, entry: Entry) -> Result<Slot, Misconfig> {
    // Bits 2:0 make it one: what else is in a marker is for who made it.
    let is_marker = rules.rights(entry).with_execute_user(false) == MMIO;
    match rules.meaning(level, entry) {
        Meaning::NotPresent => Ok(Slot::Empty),
        Meaning::Table(table) => Ok(Slot::Table(table)),
        Meaning::Page(page) => Ok(Slot::Page(page)),
        Meaning::Misconfigured(_) if is_marker => Ok(Slot::Mmio),
        Meaning::Misconfigured(misconfig) => Err(misconfig),
    }
}

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
