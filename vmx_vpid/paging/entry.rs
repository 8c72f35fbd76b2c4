// SPDX-License-Identifier: GPL-2.0

//! This module interprets paging-structure entries.
//!
//! Tables of up to five levels translate a linear address; each holds entries that refer to a table
//! of the level below or to a page.  The meaning of an entry depends on its level and on a few
//! facts about the guest, its [`Rules`].
//! Source: the manual's chapter on paging, the figures and tables of paging-structure entries.

use crate::{
    paging::level::{
        Level,
        Table,
        ADDRESS, //
    },
    x86::addr::{
        Gpa,
        Gva,
        MaxPhyAddr, //
    }, //
};
use kernel::bitfield;

/// Bits 62:52 of an entry, which PAE paging reserves and other modes leave to software.
const ABOVE_ADDRESS: u64 = 0x7ff0_0000_0000_0000;

/// 2 MiB.
const TWO_MIB: u64 = 1 << 21;

/// 4 MiB.
const FOUR_MIB: u64 = 1 << 22;

/// 1 GiB.
const ONE_GIB: u64 = 1 << 30;

/// Bits 12:0 of an entry for a large page: flags, whatever the size of the page.
const LARGE_FLAGS: u64 = 0x1fff;

/// Bit 21 of an entry for a page of 4 MiB, which is always reserved.
const PSE36_ALWAYS_RESERVED: u64 = 1 << 21;

bitfield! {
    /// An entry of a table; an entry of 4 bytes has no bits above 31.
    pub(crate) struct Entry(u64) {
        /// `P`: the entry is present; otherwise the CPU ignores its other bits.
        0:0     present => bool;
        /// `R/W`: writes are permitted.
        1:1     writable => bool;
        /// `U/S`: accesses of user mode are permitted.
        2:2     user => bool;
        /// `A`: the CPU has used the entry.
        5:5     accessed => bool;
        /// `D`: the CPU has written to the page; in the entry of a page only.
        6:6     dirty => bool;
        /// `PS`: the entry refers to a page; in a page table, bit 7 is `PAT`.
        7:7     page_size => bool;
        /// Bits 39:32 of a physical address, in the entry of a page of 4 MiB.
        20:13   pse36_address;
        /// The protection key, in the entry of a page.
        62:59   protection_key;
        /// `XD`: fetches are forbidden.
        63:63   no_execute => bool;
    }
}

/// A page of any size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Page {
    /// The address of the page; a multiple of its size.
    address: u64,
    /// The size of the page, less one.
    offset: u64,
}

impl Page {
    /// Returns the physical address of a linear address in this page.
    #[inline]
    pub(crate) const fn physical(self, gva: Gva) -> Gpa {
        Gpa::new(self.address | gva.into_raw() & self.offset)
    }
}

/// The meaning of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// The entry is not present.
    NotPresent,
    /// The entry has a reserved bit set.
    Reserved,
    /// The entry refers to a table.
    Table(Table),
    /// The entry refers to a page.
    Page(Page),
}

/// The facts about the guest that the meaning of entries depends on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    /// Bits that are reserved in each entry.
    reserved: u64,
    /// Whether the guest's CPU supports pages of 1 GiB.
    gigabyte_pages: bool,
    /// Bits that are reserved in the entry of a page of 4 MiB, if there are such pages.
    four_mib_reserved: Option<u64>,
}

impl Rules {
    /// Returns the rules of 32-bit paging, with or without CR4.PSE, with or without PSE-36.
    #[inline]
    pub(crate) const fn two_level(max_phy_addr: MaxPhyAddr, pse: bool, pse36: bool) -> Self {
        // Bits 20:13 of the entry are address bits 39:32; bits that the guest's CPU does not have
        // are reserved.  Without PSE-36, bits 20:13 are all reserved.
        let address = if pse36 {
            max_phy_addr.reserved() >> 32 << Entry::PSE36_ADDRESS_SHIFT
        } else {
            u64::MAX
        };
        Self {
            reserved: 0,
            gigabyte_pages: false,
            four_mib_reserved: if pse {
                Some(address & Entry::PSE36_ADDRESS_MASK | PSE36_ALWAYS_RESERVED)
            } else {
                None
            },
        }
    }

    /// Returns the rules of PAE paging, with or without EFER.NXE.
    #[inline]
    pub(crate) const fn pae(max_phy_addr: MaxPhyAddr, no_execute: bool) -> Self {
        let mut rules = Self::long(max_phy_addr, no_execute, false);
        rules.reserved |= ABOVE_ADDRESS;
        rules
    }

    /// Returns the rules of paging of four and five levels, with or without EFER.NXE, with or
    /// without pages of 1 GiB.
    #[inline]
    pub(crate) const fn long(
        max_phy_addr: MaxPhyAddr,
        no_execute: bool,
        gigabyte_pages: bool,
    ) -> Self {
        let no_execute_reserved = if no_execute {
            0
        } else {
            Entry::NO_EXECUTE_MASK
        };
        Self {
            reserved: max_phy_addr.reserved() | no_execute_reserved,
            gigabyte_pages,
            four_mib_reserved: None,
        }
    }

    /// Returns the meaning of an entry in a table.
    #[inline]
    pub(crate) fn meaning(&self, table: Table, entry: Entry) -> Meaning {
        let raw = entry.into_raw();
        // The test for presence comes first: an entry that is not present has no reserved bits.
        if !entry.present() {
            Meaning::NotPresent
        } else if raw & self.reserved != 0 {
            Meaning::Reserved
        } else if table.level() == table.level().lowest() {
            Meaning::Page(Page {
                address: raw & ADDRESS,
                offset: 0xfff,
            })
        } else if entry.page_size() {
            self.large(table, entry)
        } else {
            Meaning::Table(table.below(entry.into_raw()))
        }
    }

    /// Returns the meaning of an entry with bit 7 set, in a table above page tables.
    #[inline]
    fn large(&self, table: Table, entry: Entry) -> Meaning {
        let (size, reserved) = match (table.level(), self.four_mib_reserved) {
            (Level::PD32, Some(reserved)) => (FOUR_MIB, reserved),
            (Level::PD32, None) => return Meaning::Table(table.below(entry.into_raw())),
            (Level::PD, _) => (TWO_MIB, (TWO_MIB - 1) & !LARGE_FLAGS),
            (Level::PDPT, _) if self.gigabyte_pages => (ONE_GIB, (ONE_GIB - 1) & !LARGE_FLAGS),
            _ => return Meaning::Reserved,
        };
        let raw = entry.into_raw();
        if raw & reserved != 0 {
            return Meaning::Reserved;
        }
        let high = if size == FOUR_MIB {
            entry.pse36_address().get() << 32
        } else {
            0
        };
        Meaning::Page(Page {
            address: raw & ADDRESS & !(size - 1) | high,
            offset: size - 1,
        })
    }
}

#[cfg(CONFIG_VMX_VPID_KUNIT_TEST)]
#[kernel::macros::kunit_tests(vmx_vpid_paging_entry)]
mod tests {
    use super::*;
    use kernel::bits::{
        genmask_checked_u64,
        genmask_u64, //
    };

    const P: u64 = 1;
    const PS: u64 = 1 << 7;

    fn max(bits: u32) -> MaxPhyAddr {
        MaxPhyAddr::new(bits)
    }

    /// Returns the bits that make a present entry reserved when set alone.
    fn reserved(rules: &Rules, level: Level, entry: u64) -> u64 {
        let table = Table::new(level, 0);
        (0..level.width() as u32 * 8)
            .map(|bit| 1 << bit)
            .filter(|bit| rules.meaning(table, Entry::from(entry | bit)) == Meaning::Reserved)
            .sum()
    }

    #[test]
    fn every_reserved_bit_of_8_byte_entries_is_found() {
        for width in [32, 36, 39, 46, 51, 52] {
            for no_execute in [false, true] {
                let xd = if no_execute { 0 } else { 1 << 63 };
                let each = genmask_checked_u64(width..=51).unwrap_or(0) | xd;
                let pae_each = each | genmask_u64(52..=62);
                let gib = Rules::long(max(width), no_execute, true);
                let no_gib = Rules::long(max(width), no_execute, false);
                let pae = Rules::pae(max(width), no_execute);
                for (rules, level, entry, expected) in [
                    (gib, Level::PML5, P, each | PS),
                    (gib, Level::PML4, P, each | PS),
                    (no_gib, Level::PDPT, P, each | PS),
                    (gib, Level::PDPT, P, each),
                    (gib, Level::PDPT, P | PS, each | genmask_u64(13..=29)),
                    (gib, Level::PD, P, each),
                    (gib, Level::PD, P | PS, each | genmask_u64(13..=20)),
                    (gib, Level::PT, P | PS, each),
                    (pae, Level::PD, P, pae_each),
                    (pae, Level::PD, P | PS, pae_each | genmask_u64(13..=20)),
                    (pae, Level::PT, P | PS, pae_each),
                ] {
                    assert_eq!(reserved(&rules, level, entry), expected);
                }
            }
        }
    }

    #[test]
    fn every_reserved_bit_of_4_byte_entries_is_found() {
        for (width, low) in [(32, 13), (33, 14), (36, 17), (39, 20), (40, 21), (52, 21)] {
            let rules = Rules::two_level(max(width), true, true);
            assert_eq!(reserved(&rules, Level::PD32, P), 0);
            let above = genmask_checked_u64(low..=21).unwrap_or(0);
            assert_eq!(reserved(&rules, Level::PD32, P | PS), above);
            assert_eq!(reserved(&rules, Level::PT32, P | PS), 0);
            let rules = Rules::two_level(max(width), true, false);
            assert_eq!(reserved(&rules, Level::PD32, P | PS), genmask_u64(13..=21));
            // Without CR4.PSE the CPU ignores bit 7, and no bit is reserved.
            let rules = Rules::two_level(max(width), false, true);
            assert_eq!(reserved(&rules, Level::PD32, P | PS), 0);
        }
    }

    #[test]
    fn an_entry_that_is_not_present_has_no_reserved_bits() {
        for rules in [
            Rules::long(max(36), false, false),
            Rules::pae(max(36), false),
        ] {
            for level in [Level::PML5, Level::PML4, Level::PDPT, Level::PD, Level::PT] {
                let meaning = rules.meaning(Table::new(level, 0), Entry::from(!P));
                assert_eq!(meaning, Meaning::NotPresent);
            }
        }
    }

    #[test]
    fn entries_refer_to_tables_and_pages() {
        let (long, pae) = (Rules::long(max(52), true, true), Rules::pae(max(52), true));
        let pse = Rules::two_level(max(40), true, true);
        let no_pse = Rules::two_level(max(40), false, true);
        let table = |level, address| Meaning::Table(Table::new(level, address));
        let page = |address, shift: u32| {
            let offset = (1 << shift) - 1;
            Meaning::Page(Page { address, offset })
        };
        // The rows of four and five levels set every bit that is not reserved.
        let (all, low) = (genmask_u64(12..=51), genmask_u64(12..=31));
        let (mib, gib) = (genmask_u64(21..=51), genmask_u64(30..=51));
        for (rules, level, entry, meaning) in [
            (long, Level::PML5, !PS, table(Level::PML4, all)),
            (long, Level::PML4, !PS, table(Level::PDPT, all)),
            (long, Level::PDPT, !PS, table(Level::PD, all)),
            (long, Level::PDPT, !genmask_u64(13..=29), page(gib, 30)),
            (long, Level::PD, !PS, table(Level::PT, all)),
            (long, Level::PD, !genmask_u64(13..=20), page(mib, 21)),
            (long, Level::PT, !0, page(all, 12)),
            (long, Level::PT, !PS, page(all, 12)),
            (pae, Level::PD, all | P, table(Level::PT, all)),
            (pae, Level::PD, mib | PS | P, page(mib, 21)),
            (pae, Level::PT, all | P, page(all, 12)),
            (pse, Level::PD32, low | P, table(Level::PT32, low)),
            (pse, Level::PD32, 3 << 22 | PS | P, page(3 << 22, 22)),
            (pse, Level::PD32, 1 << 13 | PS | P, page(1 << 32, 22)),
            (pse, Level::PD32, 1 << 20 | PS | P, page(1 << 39, 22)),
            (
                no_pse,
                Level::PD32,
                genmask_u64(0..=31),
                table(Level::PT32, low),
            ),
            (pse, Level::PT32, genmask_u64(0..=31), page(low, 12)),
        ] {
            let found = rules.meaning(Table::new(level, 0), Entry::from(entry));
            assert_eq!(found, meaning);
        }
    }
}
