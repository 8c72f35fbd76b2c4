// SPDX-License-Identifier: GPL-2.0

//! Levels of tables of an EPT, and where in a table the entry of an address is.
//!
//! Source: the manual's chapter on the extended page-table mechanism, "EPT Translation Mechanism".

use super::Levels;
use crate::x86::addr::{
    Gpa,
    Hpa, //
};
use kernel::bits::genmask_u64;

/// Bits 51:12, the address of a table or page in an entry.
pub(crate) const FRAME_MASK: u64 = genmask_u64(12..=51);

/// How many entries a table has.
pub(crate) const ENTRIES: usize = 512;

/// A level of tables, from the one whose entries are pages of 4 KiB.
///
/// Each is represented by how many bits of an address lie below its entries.
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

    /// Returns the level below; none below the lowest.
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
        // CAST: The type is represented by that number.
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
        // CAST: A small number.
        gpa.into_raw() >> self.page_bits() < ENTRIES as u64
    }

    /// Returns which entry of a table an address selects, 0 to 511.
    #[inline]
    pub(crate) const fn index(self, gpa: Gpa) -> usize {
        // CAST: Nine bits are left.
        (gpa.into_raw() >> self.page_bits()) as usize % ENTRIES
    }

    /// Returns where the entry is that an address selects in a table of this level.
    #[inline]
    pub(crate) const fn locate(self, table: Hpa, gpa: Gpa) -> Hpa {
        // CAST: A small number.
        let place = self.index(gpa) as u64 * 8;
        Hpa::new(table.into_raw() & FRAME_MASK | place)
    }
}
