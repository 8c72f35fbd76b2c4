// SPDX-License-Identifier: GPL-2.0

//! The TLB of a model CPU keeps every translation for as long as the architecture allows.
//!
//! The manual's chapter on paging, "Caching Translation Information", says which tags an entry has
//! and which operations have to drop it.  No other operation drops an entry here.

use super::bug::Wrong;
use crate::{
    asid::{
        invpcid::Extent,
        Features,
        Upcid,
        NOFLUSH,
        SLOTS, //
    },
    x86::{
        addr::Hva,
        control_regs::Cr3, //
    }, //
};
use core::{
    array,
    cell::Cell, //
};

/// Pages of a process.
pub(super) const USER_PAGES: usize = 4;
/// Pages of the kernel.
pub(super) const KERNEL_PAGES: usize = 2;
/// Pages of a process and of the kernel.
pub(super) const PAGES: usize = USER_PAGES + KERNEL_PAGES;
/// Tables of a process.
pub(super) const TABLES: usize = 2;
/// Pages that one table translates.
pub(super) const PER_TABLE: usize = USER_PAGES / TABLES;
/// The number of PCIDs in use: PCID 0, and the kPCID and the uPCID of each slot.
const TAGS: usize = 1 + 2 * SLOTS;
/// The bit of CR3 that tells the user's tables from the kernel's.
const USER_TABLES: u64 = 1 << 12;

/// Returns the address of a page; the kernel's pages have the last numbers, and the upper half of
/// the address space.
pub(super) fn address(page: usize) -> Hva {
    let half = if page < USER_PAGES {
        0
    } else {
        0xffff_8000_0000_0000
    };
    Hva::new(half | (page as u64) << 12)
}

/// Returns the page at an address.
fn page(address: Hva) -> usize {
    (address.into_raw() >> 12 & 0xff) as usize
}

/// Returns the address of the root tables of an address space: one page for the kernel, and the
/// next page for the user.
pub(super) const fn root(space: usize) -> u64 {
    (space as u64 + 1) << 13
}

/// A cached frame or table, by its number.
type Entry = Cell<Option<u32>>;

/// Drops some entries.
fn drop_all<'a>(entries: impl IntoIterator<Item = &'a Entry>) {
    entries.into_iter().for_each(|entry| entry.set(None));
}

/// The entries of one PCID.
struct Tagged {
    pages: [Entry; PAGES],
    tables: [Entry; TABLES],
}

impl Tagged {
    /// Creates an empty set of entries.
    fn new() -> Self {
        Self {
            pages: array::from_fn(|_| Cell::new(None)),
            tables: array::from_fn(|_| Cell::new(None)),
        }
    }

    /// Drops everything.
    fn clear(&self) {
        drop_all(self.pages.iter().chain(&self.tables));
    }
}

/// A CPU: CR3, and the cached entries.
pub(super) struct Tlb {
    features: Features,
    cr3: Cell<u64>,
    tagged: [Tagged; TAGS],
    globals: [Entry; PAGES],
}

impl Tlb {
    /// Creates a CPU that uses the tables of an address space under PCID 0, and has nothing cached.
    pub(super) fn new(features: Features, space: usize) -> Self {
        Self {
            features,
            cr3: Cell::new(root(space)),
            tagged: array::from_fn(|_| Tagged::new()),
            globals: array::from_fn(|_| Cell::new(None)),
        }
    }

    /// Returns the entries of a PCID; fails for a PCID that the kernel does not use.
    fn tag(&self, pcid: u16) -> Result<&Tagged, Wrong> {
        let number = usize::from(pcid & !Upcid::BIT);
        let half = if pcid & Upcid::BIT == 0 { 0 } else { SLOTS };
        match number {
            0 if half == 0 => Ok(&self.tagged[0]),
            1..=SLOTS => Ok(&self.tagged[half + number]),
            _ => Err(Wrong::Exception),
        }
    }

    /// Returns the value of CR3.
    pub(super) fn cr3(&self) -> Cr3 {
        Cr3::from(self.cr3.get())
    }

    /// Returns the address space whose tables CR3 has.
    pub(super) fn space(&self) -> usize {
        (self.cr3.get() >> 13) as usize - 1
    }

    /// Returns whether CR3 has the user's tables.
    pub(super) fn user(&self) -> bool {
        self.features.pti && self.cr3.get() & USER_TABLES != 0
    }

    /// Returns the entries of the PCID in CR3.
    fn current(&self) -> Result<&Tagged, Wrong> {
        self.tag((self.cr3.get() & 0xfff) as u16)
    }

    /// Returns the cached frames of a page: under the PCID in CR3, and global.
    pub(super) fn frames(&self, page: usize) -> Result<[Option<u32>; 2], Wrong> {
        Ok([self.current()?.pages[page].get(), self.globals[page].get()])
    }

    /// Returns the cached table of a number, under the PCID in CR3.
    pub(super) fn table(&self, number: usize) -> Result<Option<u32>, Wrong> {
        Ok(self.current()?.tables[number].get())
    }

    /// Caches a translation.
    pub(super) fn fill(&self, page: usize, frame: u32, global: bool) -> Result<(), Wrong> {
        let entries = if global {
            &self.globals
        } else {
            &self.current()?.pages
        };
        entries[page].set(Some(frame));
        Ok(())
    }

    /// Caches the address of a table.
    pub(super) fn fill_table(&self, number: usize, table: u32) -> Result<(), Wrong> {
        self.current()?.tables[number].set(Some(table));
        Ok(())
    }

    /// Writes CR3.
    pub(super) fn write_cr3(&self, cr3: Cr3) -> Result<(), Wrong> {
        let keep = cr3.into_raw() & NOFLUSH != 0;
        let pcid = cr3.into_raw() & 0xfff;
        if !self.features.pcid && (keep || pcid != 0) {
            return Err(Wrong::Exception);
        }
        self.cr3.set(cr3.into_raw() & !NOFLUSH);
        if !keep {
            self.current()?.clear();
        }
        Ok(())
    }

    /// Executes INVLPG.
    pub(super) fn invlpg(&self, address: Hva) -> Result<(), Wrong> {
        let current = self.current()?;
        drop_all([&current.pages[page(address)], &self.globals[page(address)]]);
        drop_all(&current.tables);
        Ok(())
    }

    /// Executes INVPCID.
    pub(super) fn invpcid(&self, extent: Extent) -> Result<(), Wrong> {
        if !self.features.invpcid {
            return Err(Wrong::Exception);
        }
        match extent {
            Extent::Address(pcid, _) | Extent::Context(pcid)
                if !self.features.pcid && pcid.into_raw() != 0 =>
            {
                return Err(Wrong::Exception);
            }
            Extent::Address(pcid, address) => {
                let tag = self.tag(pcid.into_raw())?;
                drop_all([&tag.pages[page(address)]]);
                drop_all(tag.tables.get(page(address) / PER_TABLE));
            }
            Extent::Context(pcid) => self.tag(pcid.into_raw())?.clear(),
            Extent::All => self.tagged.iter().for_each(Tagged::clear),
            Extent::AllAndGlobals => self.drop_everything(),
        }
        Ok(())
    }

    /// Drops everything, as a change of CR4.PGE does.
    pub(super) fn drop_everything(&self) {
        self.tagged.iter().for_each(Tagged::clear);
        self.drop_globals();
    }

    /// Drops all global pages.
    pub(super) fn drop_globals(&self) {
        drop_all(&self.globals);
    }
}
