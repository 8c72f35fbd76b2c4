// SPDX-License-Identifier: GPL-2.0

//! This module checks whether an entry belongs in a sound EPT.
//!
//! A hypervisor writes one kind of misconfigured entry on purpose: the marker of a page of device
//! registers, which makes each access to the page exit.  Any other misconfiguration is a bug in the
//! code that wrote the entry.

use super::entry::{
    Entry,
    Level,
    Meaning,
    Misconfig,
    Rights,
    Rules, //
};
use crate::x86::addr::Hpa;

/// The rights in the marker of a page of device registers: writes and fetches without reads, which
/// no CPU accepts; `VMX_EPT_MISCONFIG_WX_VALUE` in KVM.
const MMIO: Rights = Rights::WRITE.or(Rights::EXECUTE);

/// The purpose of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slot {
    /// The entry is not present.
    Empty,
    /// The entry is a marker, which makes accesses to device registers exit by a misconfiguration.
    Mmio,
    /// The entry refers to the table at this address.
    Table(Hpa),
    /// The entry refers to the page that begins at this address.
    Page(Hpa),
}

/// Returns the purpose of an entry in a table of this level.
///
/// # Errors
///
/// The misconfiguration of an entry that is not a marker.
pub(crate) fn check(rules: Rules, level: Level, entry: Entry) -> Result<Slot, Misconfig> {
    // Bits 2:0 identify a marker: the hypervisor is free to use the other bits.
    let is_marker = rules.rights(entry).with_execute_user(false) == MMIO;
    match rules.meaning(level, entry) {
        Meaning::NotPresent => Ok(Slot::Empty),
        Meaning::Table(table) => Ok(Slot::Table(table)),
        Meaning::Page(page) => Ok(Slot::Page(page)),
        Meaning::Misconfigured(_) if is_marker => Ok(Slot::Mmio),
        Meaning::Misconfigured(misconfig) => Err(misconfig),
    }
}
