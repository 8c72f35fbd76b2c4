// SPDX-License-Identifier: GPL-2.0

//! This module has a mock of a guest for the tests of [`crate::paging::walk`].
//!
//! The mock has a few entries of page tables and two pages of data, and records accesses.

use crate::{
    paging::{
        level::EntryWidth,
        permission::{
            AccessKind::*,
            *, //
        },
        walk::{
            Exchange::*,
            *, //
        },
        *, //
    },
    x86::{
        addr::*,
        exception::*, //
    }, //
};

pub(crate) const P: u64 = 1;
pub(crate) const W: u64 = 1 << 1;
pub(crate) const U: u64 = 1 << 2;
pub(crate) const A: u64 = 1 << 5;
pub(crate) const D: u64 = 1 << 6;
pub(crate) const PS: u64 = 1 << 7;
pub(crate) const XD: u64 = 1 << 63;
/// The flags of an entry that permits everything and has its accessed flag set.
pub(crate) const ALL: u64 = P | W | U | A;

pub(crate) const WP: u64 = 1 << 16;
pub(crate) const PG: u64 = 1 << 31;
pub(crate) const PSE: u64 = 1 << 4;
pub(crate) const PAE: u64 = 1 << 5;
pub(crate) const LA57: u64 = 1 << 12;
pub(crate) const SMEP: u64 = 1 << 20;
pub(crate) const SMAP: u64 = 1 << 21;
pub(crate) const PKE: u64 = 1 << 22;

pub(crate) const READ: Access = Access {
    kind: Read,
    user: false,
};
pub(crate) const WRITE: Access = Access {
    kind: Write,
    ..READ
};

/// A guest: a few entries of tables, two pages of data, and a record of accesses.
#[derive(Clone, Copy)]
pub(crate) struct Guest {
    pub(crate) entries: [(u64, u64); 8],
    /// The frames that have memory; each byte is its frame number plus its offset, modulo 256.
    pub(crate) data: [u64; 2],
    pub(crate) width: EntryWidth,
    pub(crate) pdptes: [u64; 4],
    pub(crate) ac: bool,
    pub(crate) pkru: u32,
    /// The result of the first `outcomes` exchanges; later exchanges work as in memory.
    pub(crate) outcome: Exchange,
    pub(crate) outcomes: usize,
    /// The value that another CPU writes to the entry when an exchange returns `Changed`.
    pub(crate) other: u64,
    pub(crate) entry_reads: usize,
    pub(crate) data_reads: usize,
    pub(crate) exchanges: [u64; 8],
    pub(crate) exchanged: usize,
    pub(crate) asked: [usize; 2],
}

impl Memory for Guest {
    fn read_entry(&mut self, address: Gpa, width: EntryWidth) -> Option<u64> {
        self.entry_reads += 1;
        self.entries
            .iter()
            .find(|entry| entry.0 == address.into_raw() && width == self.width)
            .map(|entry| entry.1)
    }
    fn exchange_entry(&mut self, address: Gpa, width: EntryWidth, old: u64, new: u64) -> Exchange {
        let Some(slot) = self.exchanges.get_mut(self.exchanged) else {
            return Changed;
        };
        *slot = address.into_raw();
        self.exchanged += 1;
        let Some(entry) = self
            .entries
            .iter_mut()
            .find(|entry| entry.0 == address.into_raw() && width == self.width)
        else {
            return NoMemory;
        };
        if self.outcomes > 0 {
            self.outcomes -= 1;
            if self.outcome == Changed {
                entry.1 = self.other;
            }
            return self.outcome;
        }
        if entry.1 != old {
            return Changed;
        }
        entry.1 = new;
        Done
    }
    fn read(&mut self, address: Gpa, bytes: &mut [u8]) -> Answer {
        self.data_reads += 1;
        let address = address.into_raw();
        for (place, byte) in (address & 0xfff..).zip(bytes.iter_mut()) {
            *byte = ((address >> 12) + place) as u8;
        }
        if self.data.contains(&(address >> 12)) {
            Answer::Bytes
        } else {
            Answer::NoMemory
        }
    }
    fn pdpte(&mut self, index: usize) -> u64 {
        self.pdptes.get(index).copied().unwrap_or(0)
    }
    fn alignment_check(&mut self) -> bool {
        self.asked[0] += 1;
        self.ac
    }
    fn pkru(&mut self) -> u32 {
        self.asked[1] += 1;
        self.pkru
    }
}

impl Guest {
    pub(crate) fn new(entries: [(u64, u64); 8]) -> Self {
        Self {
            entries,
            data: [0x60, 0x61],
            width: EntryWidth::Bytes8,
            pdptes: [0; 4],
            ac: false,
            pkru: 0,
            outcome: Done,
            outcomes: 0,
            other: 0,
            entry_reads: 0,
            data_reads: 0,
            exchanges: [0; 8],
            exchanged: 0,
            asked: [0; 2],
        }
    }

    /// Returns a guest of five levels with frame 0x60 at `GVA`, and frame 0x61 at the next page.
    pub(crate) fn mapped() -> Self {
        Self::new([
            (0x1008, 0x2000 | ALL),
            (0x2010, 0x3000 | ALL),
            (0x3018, 0x4000 | ALL),
            (0x4020, 0x5000 | ALL),
            (0x5028, 0x60000 | ALL | D),
            (0x5030, 0x61000 | ALL | D),
            NONE,
            NONE,
        ])
    }

    /// Changes the entry of a level, 5 to 1.
    pub(crate) fn with(mut self, level: usize, change: impl Fn(u64) -> u64) -> Self {
        if let Some(entry) = self.entries.get_mut(5 - level) {
            entry.1 = change(entry.1);
        }
        self
    }
}

/// A slot without an entry: no entry is at address 1.
pub(crate) const NONE: (u64, u64) = (1, 0);

/// An address with the indexes 1, 2, 3, 4 and 5, and the offset 0x678.
pub(crate) const GVA: Gva = Gva::new(1 << 48 | 2 << 39 | 3 << 30 | 4 << 21 | 5 << 12 | 0x678);

/// Returns paging by raw registers, with the root table at 0x1000.
pub(crate) fn paging(cr0: u64, cr4: u64, efer: u64) -> Paging {
    let features = Features {
        max_phy_addr: MaxPhyAddr::new(46),
        gigabyte_pages: true,
        pse36: true,
    };
    Paging::new(
        (PG | cr0).into(),
        0x1fff.into(),
        cr4.into(),
        efer.into(),
        features,
    )
}

/// Returns paging of five levels with execute-disable, in which every kind of fault can occur.
pub(crate) fn five(cr0: u64, cr4: u64) -> Paging {
    paging(cr0, PAE | LA57 | cr4, 1 << 10 | 1 << 11)
}

pub(crate) fn fault<T>(address: Gva, code: u32) -> Result<T, Stop> {
    let code = PageFaultCode::from(code);
    Err(Stop::Exception(Exception::Page { address, code }))
}
