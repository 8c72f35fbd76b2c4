// SPDX-License-Identifier: GPL-2.0

//! This module records when a guest last invalidated which translations.
//!
//! A guest may change its tables and may continue to use the old translations until the guest
//! invalidates them.  An entry that was cached before the invalidation must then agree with the
//! tables.  So each virtual CPU has the times of its last invalidations; an entry that is older
//! than an invalidation that covers the entry must not be used if the entry disagrees with the
//! tables.

use super::memory::PAGES;
use crate::{
    model::cpu::tlb_entry::TlbEntry,
    x86::invpcid::Pcid, //
};

/// The number of PCIDs that guests use: 0 and 1.
pub(crate) const PCIDS: usize = 2;

/// The times at which a virtual CPU last invalidated its own translations; 0 for never.
#[derive(Clone, Copy, Default)]
pub(crate) struct Invalidated {
    /// All translations.
    all: u32,
    /// All translations except globals.
    nonglobal: u32,
    /// A PCID, globals excepted.
    pcid: [u32; PCIDS],
    /// A page in a PCID, globals excepted.
    page: [[u32; PAGES as usize]; PCIDS],
    /// A page, globals only.
    global_page: [u32; PAGES as usize],
    /// All paging structures of a PCID.
    structures: [u32; PCIDS],
    /// Globals that were cached under a PCID.
    globals: [u32; PCIDS],
}

/// The translations that a virtual CPU invalidated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dropped {
    /// All translations, globals too.
    All,
    /// All translations except globals.
    ButGlobals,
    /// A PCID, globals excepted.
    Pcid(usize),
    /// A PCID, with the globals that were cached in this PCID: CR4.PAE changed, or CR4.SMEP was
    /// set.
    PcidAndGlobals(usize),
    /// A page of a PCID, globals excepted: INVPCID type 0.
    PcidPage(usize, u16),
    /// A page, and all paging structures of a PCID: INVLPG.
    Page(usize, u16),
    /// A page, globals too, and the paging structures on the way: INVLPG that KVM's emulator
    /// executes.
    PageAlone(usize, u16),
    /// A page in every PCID, globals too: L1's INVVPID type 0.
    PageEverywhere(u16),
}

/// Returns the index of a PCID.
pub(crate) fn index(pcid: Pcid) -> usize {
    usize::from(pcid != Pcid::ZERO)
}

impl Invalidated {
    /// Returns the record of a virtual CPU that starts at a time, with nothing cached.
    pub(crate) fn from(now: u32) -> Self {
        Self {
            all: now,
            ..Self::default()
        }
    }

    /// Records an invalidation.
    pub(crate) fn note(&mut self, what: Dropped, now: u32) {
        match what {
            Dropped::All => self.all = now,
            Dropped::ButGlobals => self.nonglobal = now,
            Dropped::Pcid(pcid) => self.pcid[pcid] = now,
            Dropped::PcidAndGlobals(pcid) => {
                (self.pcid[pcid], self.globals[pcid]) = (now, now);
            }
            Dropped::PcidPage(pcid, page) => self.page[pcid][usize::from(page)] = now,
            Dropped::Page(pcid, page) => {
                self.note(Dropped::PageAlone(pcid, page), now);
                self.structures[pcid] = now;
            }
            Dropped::PageAlone(pcid, page) => {
                self.page[pcid][usize::from(page)] = now;
                self.global_page[usize::from(page)] = now;
            }
            Dropped::PageEverywhere(page) => {
                for of_pcid in &mut self.page {
                    of_pcid[usize::from(page)] = now;
                }
                self.global_page[usize::from(page)] = now;
            }
        }
    }

    /// Returns the time of the last invalidation that covers an entry.  An entry that was read
    /// before has to agree with the tables.
    pub(crate) fn since(&self, entry: &TlbEntry) -> u32 {
        let key = &entry.key;
        let pages = if key.global {
            &self.global_page
        } else {
            &self.page[index(key.pcid)]
        };
        // An invalidation of one page of a guest's large page covers the whole large page.
        let span = key.span.max(key.guest_span);
        let first = usize::from(key.first >> span << span);
        let of_pages = pages.iter().skip(first).take(1 << span);
        let of_pages = of_pages.fold(0, |latest, &time| latest.max(time));
        let mut since = self.all.max(of_pages);
        if key.global {
            since = since.max(self.globals[index(key.pcid)]);
        } else {
            let of_pcid = self.pcid[index(key.pcid)];
            since = since.max(self.nonglobal).max(of_pcid);
        }
        if key.is_structure() {
            since = since.max(self.structures[index(key.pcid)]);
        }
        since
    }
}
