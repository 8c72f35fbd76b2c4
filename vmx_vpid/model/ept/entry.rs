// SPDX-License-Identifier: GPL-2.0

//! This module has the parts of entries, levels and rules that only the builder of EPTs needs:
//! constructors, and steps upwards.
//!
//! vmx_vpid.ko reads entries and makes none.

use crate::{
    ept::entry::{
        Entry,
        Level,
        MemoryType,
        Rights,
        Rules, //
    },
    x86::addr::{
        Gpa,
        Hpa, //
    }, //
};

impl Entry {
    /// The entry that refers to nothing.
    pub(crate) const NONE: Self = Self::from_raw(0);

    /// Builds the entry that refers to a table, with all rights.
    ///
    /// Bits of the address that are not part of a table's address are dropped.  Bit 10 is set too:
    /// the CPU ignores the bit without mode-based execute control.
    #[inline]
    pub(crate) const fn table(table: Hpa) -> Self {
        Self::from_raw(table.into_raw() & Self::FRAME_MASK | Rights::ALL.into_raw())
    }

    /// Builds the entry of this level that refers to a page.
    ///
    /// Bits of the address that are not part of the page's address are dropped.
    #[inline]
    pub(crate) fn page(level: Level, page: Hpa, memory_type: MemoryType, rights: Rights) -> Self {
        let frame = page.into_raw() & Self::FRAME_MASK & !level.offset_mask();
        Self::from_raw(frame | rights.into_raw() & Rights::ALL.into_raw())
            .with_memory_type(memory_type)
            .with_large(level != Level::Pt)
    }

    /// Returns the marker of a page of device registers.
    pub(crate) const fn mmio() -> Self {
        Self::from_raw(Rights::WRITE.or(Rights::EXECUTE).into_raw())
    }
}

/// The size of a table, and of the smallest page.
pub(crate) const TABLE_SIZE: u64 = 4096;

impl Rights {
    /// Returns whether these rights include all of `needed`.
    #[inline]
    pub(crate) const fn contains(self, needed: Self) -> bool {
        needed.into_raw() & !self.into_raw() == 0
    }
}

impl Level {
    /// All levels, from the top down.
    pub(crate) const ALL: [Self; 5] = [Self::Pml5, Self::Pml4, Self::Pdpt, Self::Pd, Self::Pt];

    /// Returns the level above; `None` for the highest level.
    #[inline]
    pub(crate) const fn above(self) -> Option<Self> {
        match self {
            Self::Pml5 => None,
            Self::Pml4 => Some(Self::Pml5),
            Self::Pdpt => Some(Self::Pml4),
            Self::Pd => Some(Self::Pdpt),
            Self::Pt => Some(Self::Pd),
        }
    }

    /// Returns the addresses of `count` consecutive entries; the first entry is for `first`.
    #[inline]
    pub(crate) fn spans(self, first: Gpa, count: usize) -> impl Iterator<Item = Gpa> {
        // CAST: `count` is at most the number of entries of a table.
        (0..count as u64)
            .map(move |place| first.into_raw().wrapping_add(place << self.page_bits()))
            .map(Gpa::new)
    }
}

impl Rules {
    /// Returns whether mode-based execute control is on.
    #[inline]
    pub(crate) fn mbec(self) -> bool {
        self.rights.execute_user()
    }

    /// Returns whether the qualification of a violation has the rights of the guest's page.
    #[inline]
    pub(crate) fn advanced_exit_info(self) -> bool {
        self.advanced_exit_info
    }

    /// Returns whether a physical address is within the CPU's width.
    #[inline]
    pub(crate) const fn has_address(self, hpa: Hpa) -> bool {
        let beyond = !(Entry::FRAME_MASK | Level::Pt.offset_mask());
        hpa.into_raw() & (self.reserved | beyond) == 0
    }
}
