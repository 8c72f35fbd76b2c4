// SPDX-License-Identifier: GPL-2.0

//! This module has the levels of tables of an EPT, and finds the entry of an address in a table.
//!
//! Source: the manual's chapter on the extended page-table mechanism, "EPT Translation Mechanism".

use super::Levels;
use crate::x86::addr::{
    Gpa,
    Hpa, //
};
use kernel::bits::genmask_u64;

/// Bits 51:12 of an entry, the address of a table or page.
pub(crate) const FRAME_MASK: u64 = genmask_u64(12..=51);

/// The number of entries in a table.
pub(crate) const ENTRIES: usize = 512;

/// A level of tables; the lowest level has entries for pages of 4 KiB.
///
/// The number of a level is the number of address bits that select a byte in what one entry covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
pub(crate) enum Level {
    /// EPT page table: 4 KiB an entry.
    Pt = 12,
    /// EPT page directory: 2 MiB an entry.
    Pd = 21,
    /// EPT page-directory-pointer table: 1 GiB an entry.
    Pdpt = 30,
    /// EPT page-map level 4: 512 GiB an entry.
    Pml4 = 39,
    /// EPT page-map level 5: 256 TiB an entry.
    Pml5 = 48,
}

impl Level {
    /// Returns the level of the root table.
    #[inline]
    pub(crate) const fn top(levels: Levels) -> Self {
        match levels {
            Levels::Four => Self::Pml4,
            Levels::Five => Self::Pml5,
        }
    }

    /// Returns the level below; `None` for the lowest level.
    #[inline]
    pub(crate) const fn below(self) -> Option<Self> {
        match self {
            Self::Pml5 => Some(Self::Pml4),
            Self::Pml4 => Some(Self::Pdpt),
            Self::Pdpt => Some(Self::Pd),
            Self::Pd => Some(Self::Pt),
            Self::Pt => None,
        }
    }

    /// Returns how many bits of an address select a byte in what one entry covers.
    #[inline]
    pub(crate) const fn page_bits(self) -> u32 {
        // CAST: `repr(u32)` makes the discriminant a u32.
        self as u32
    }

    /// Returns how many bytes one entry covers.
    #[inline]
    pub(crate) const fn span(self) -> u64 {
        1 << self.page_bits()
    }

    /// Returns the bits of an address that select a byte in what one entry covers.
    #[inline]
    pub(crate) const fn offset_mask(self) -> u64 {
        self.span() - 1
    }

    /// Returns whether a root table of this level has an entry for an address.
    #[inline]
    pub(crate) const fn covers(self, gpa: Gpa) -> bool {
        // CAST: `ENTRIES` is 512, and fits in u64.
        gpa.into_raw() >> self.page_bits() < ENTRIES as u64
    }

    /// Returns the index of the entry that an address selects in a table, 0 to 511.
    #[inline]
    pub(crate) const fn index(self, gpa: Gpa) -> usize {
        // CAST: The remainder is below 512, and usize has 64 bits.
        (gpa.into_raw() >> self.page_bits()) as usize % ENTRIES
    }

    /// Returns the address of the entry that an address selects in a table of this level.
    #[inline]
    pub(crate) const fn locate(self, table: Hpa, gpa: Gpa) -> Hpa {
        // CAST: The index is below 512, and fits in u64.
        let place = self.index(gpa) as u64 * 8;
        Hpa::new(table.into_raw() & FRAME_MASK | place)
    }
}
