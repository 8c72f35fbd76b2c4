// SPDX-License-Identifier: GPL-2.0

//! This module defines the levels of page tables, and finds the entry of an address in a table.
//!
//! Source: the manual's chapter on paging, "Hierarchical Paging Structures: An Overview".

use crate::x86::addr::{
    Gpa,
    Gva, //
};

/// Bits 51:12 of an entry: the address of a table or of a page of 4 KiB.
pub(crate) const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// The size of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum EntryWidth {
    /// 4 bytes, in 32-bit paging.
    Bytes4 = 4,
    /// 8 bytes.
    Bytes8 = 8,
}

/// The level of a table.
///
/// A table of 4096 bytes has 512 entries, or 1024 in 32-bit paging, so 9 or 10 bits of an address
/// select an entry.  The index times the size of an entry has 12 bits in either case.  The number
/// of a level is the number of bits to shift an address right so that these 12 bits are the lowest:
/// 9 or 10 for a page table, and 9 or 10 more for each level above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct Level(u32);

impl Level {
    /// Page table of 32-bit paging: 4 KiB an entry.
    pub(crate) const PT32: Self = Self(10);
    /// Page directory of 32-bit paging: 4 MiB an entry.
    pub(crate) const PD32: Self = Self(20);
    /// Page table: 4 KiB an entry.
    pub(crate) const PT: Self = Self(9);
    /// Page directory: 2 MiB an entry.
    pub(crate) const PD: Self = Self(18);
    /// Page-directory-pointer table: 1 GiB an entry.
    ///
    /// With PAE paging no walk reads this table: the CPU loads the four PDPTEs with CR3.
    pub(crate) const PDPT: Self = Self(27);
    /// Page-map level 4: 512 GiB an entry.
    pub(crate) const PML4: Self = Self(36);
    /// Page-map level 5: 256 TiB an entry.
    pub(crate) const PML5: Self = Self(45);

    /// Returns whether this is a level of 32-bit paging.
    #[inline]
    const fn is_32_bit(self) -> bool {
        matches!(self, Self::PT32 | Self::PD32)
    }

    /// Returns the level of page tables in the same paging mode.
    #[inline]
    pub(crate) const fn lowest(self) -> Self {
        if self.is_32_bit() {
            Self::PT32
        } else {
            Self::PT
        }
    }

    /// Returns how many levels can be above this one.
    #[inline]
    pub(crate) const fn slot(self) -> usize {
        match self {
            Self::PML5 => 0,
            Self::PML4 => 1,
            Self::PDPT => 2,
            Self::PD | Self::PD32 => 3,
            _ => 4,
        }
    }

    /// Returns the size of an entry.
    #[inline]
    pub(crate) const fn width(self) -> EntryWidth {
        if self.is_32_bit() {
            EntryWidth::Bytes4
        } else {
            EntryWidth::Bytes8
        }
    }
}

/// A table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Table {
    /// The level.
    level: Level,
    /// The address of the table; a multiple of 4096.
    address: u64,
}

impl Table {
    /// Makes the table that an entry, or CR3, refers to.
    #[inline]
    pub(crate) const fn new(level: Level, entry: u64) -> Self {
        Self {
            level,
            address: entry & ADDRESS,
        }
    }

    /// Returns the level of the table.
    #[inline]
    pub(crate) const fn level(self) -> Level {
        self.level
    }

    /// Returns the address of the table.
    #[inline]
    pub(crate) const fn address(self) -> u64 {
        self.address
    }

    /// Returns the address of the entry that a linear address selects.
    #[inline]
    pub(crate) const fn locate(self, gva: Gva) -> Gpa {
        // CAST: The discriminant is 4 or 8.
        let whole_entries = 0x1000u64.wrapping_sub(self.level.width() as u64);
        let place = gva.into_raw().wrapping_shr(self.level.0) & whole_entries;
        Gpa::new(self.address | place)
    }

    /// Returns the table that an entry of this table refers to.
    #[inline]
    pub(crate) const fn below(self, entry: u64) -> Self {
        let level = Level(self.level.0.wrapping_sub(self.level.lowest().0));
        Self::new(level, entry)
    }
}

#[cfg(CONFIG_VMX_VPID_KUNIT_TEST)]
#[kernel::macros::kunit_tests(vmx_vpid_paging_level)]
mod tests {
    use super::*;
    use kernel::bits::genmask_checked_u64;

    #[test]
    fn each_level_locates_its_entry() {
        // The lowest and the highest bit of the index at each level.
        for (level, lowest, highest, last) in [
            (Level::PML5, 48, 56, 0xff8),
            (Level::PML4, 39, 47, 0xff8),
            (Level::PDPT, 30, 38, 0xff8),
            (Level::PD, 21, 29, 0xff8),
            (Level::PT, 12, 20, 0xff8),
            (Level::PD32, 22, 31, 0xffc),
            (Level::PT32, 12, 21, 0xffc),
        ] {
            let table = Table::new(level, 0x5678_9fff);
            let place = |gva| table.locate(Gva::new(gva)).into_raw();
            assert_eq!(place(0), 0x5678_9000);
            assert_eq!(place(1 << lowest), 0x5678_9000 + level.width() as u64);
            assert_eq!(place(1 << highest), 0x5678_9800);
            let index = genmask_checked_u64(lowest..=highest).unwrap_or(0);
            assert_eq!(place(index), 0x5678_9000 | last);
            assert_eq!(place(!index), 0x5678_9000);
        }
    }
}
