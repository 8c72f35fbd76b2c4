// SPDX-License-Identifier: GPL-2.0

//! What a sound EPT is made of.
//!
//! A hypervisor makes one kind of entry that the CPU finds misconfigured, and on purpose: its
//! marker for a page of device registers, which makes each access there exit.  Any other
//! misconfiguration is a fault of who wrote the entry.

use super::entry::{
    Entry,
    Level,
    Meaning,
    Misconfig,
    Rights,
    Rules, //
};
use crate::x86::addr::Hpa;

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
