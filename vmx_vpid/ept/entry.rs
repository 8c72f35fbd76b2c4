// SPDX-License-Identifier: GPL-2.0

//! This module decodes entries of an EPT.
//!
//! Tables of four or five levels translate a guest-physical address; each table holds 512 entries,
//! which refer to a table of the level below or to a page.  The meaning of an entry depends on its
//! level and on a few facts about the CPU, the [`Rules`].  [`crate::paging::entry::Entry`] is an
//! entry of a guest's own page tables, which has a different format.
//! Source: the manual's chapter on the extended page-table mechanism, the formats of EPT entries,
//! and "EPT Misconfigurations".

pub(crate) use super::level::Level;
use super::level::FRAME_MASK;
use crate::{
    vmx::caps::EptVpidCap,
    x86::addr::{
        Hpa,
        MaxPhyAddr, //
    }, //
};
use kernel::{
    bitfield,
    num::Bounded, //
};

/// Bits 7:3, which are reserved in an entry that refers to a table.
///
/// In a PDPTE or PDE, bit 7 is not reserved if the CPU has large pages; but an entry with bit 7 set
/// then refers to a page, not to a table.
const TABLE_RESERVED: u64 = 0xf8;

/// A memory type in an EPT entry or an EPT pointer.
///
/// The numbers are those of the manual.  2, 3 and 7 are no memory types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum MemoryType {
    /// UC.
    Uncacheable = 0,
    /// WC.
    WriteCombining = 1,
    /// WT.
    WriteThrough = 4,
    /// WP.
    WriteProtected = 5,
    /// WB.
    WriteBack = 6,
}

/// The error for a number that is not a memory type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoMemoryType;

impl TryFrom<Bounded<u64, 3>> for MemoryType {
    type Error = NoMemoryType;

    #[inline]
    fn try_from(number: Bounded<u64, 3>) -> Result<Self, NoMemoryType> {
        match number.get() {
            0 => Ok(Self::Uncacheable),
            1 => Ok(Self::WriteCombining),
            4 => Ok(Self::WriteThrough),
            5 => Ok(Self::WriteProtected),
            6 => Ok(Self::WriteBack),
            _ => Err(NoMemoryType),
        }
    }
}

impl From<MemoryType> for Bounded<u64, 3> {
    #[inline]
    fn from(memory_type: MemoryType) -> Self {
        match memory_type {
            MemoryType::Uncacheable => Self::new::<0>(),
            MemoryType::WriteCombining => Self::new::<1>(),
            MemoryType::WriteThrough => Self::new::<4>(),
            MemoryType::WriteProtected => Self::new::<5>(),
            MemoryType::WriteBack => Self::new::<6>(),
        }
    }
}

bitfield! {
    /// The rights that an entry permits, or that an access needs.
    ///
    /// The bits are at the same places as in an [`Entry`].
    pub(crate) struct Rights(u64) {
        /// Reads.
        0:0     read => bool;
        /// Writes.
        1:1     write => bool;
        /// Fetches; with mode-based execute control, those by supervisor-mode linear addresses.
        2:2     execute => bool;
        /// Fetches by user-mode linear addresses, where there is mode-based execute control.
        10:10   execute_user => bool;
    }
}

impl Rights {
    /// No right.
    pub(crate) const NONE: Self = Self::from_raw(0);
    /// Reads.
    pub(crate) const READ: Self = Self::from_raw(Self::READ_MASK);
    /// Writes.
    pub(crate) const WRITE: Self = Self::from_raw(Self::WRITE_MASK);
    /// Fetches; with mode-based execute control, the supervisor's.
    pub(crate) const EXECUTE: Self = Self::from_raw(Self::EXECUTE_MASK);
    /// Fetches of user mode, where there is mode-based execute control.
    pub(crate) const EXECUTE_USER: Self = Self::from_raw(Self::EXECUTE_USER_MASK);
    /// Every right.
    pub(crate) const ALL: Self = Self::READ
        .or(Self::WRITE)
        .or(Self::EXECUTE)
        .or(Self::EXECUTE_USER);

    /// Returns the rights that both permit.
    #[inline]
    pub(crate) const fn and(self, other: Self) -> Self {
        Self::from_raw(self.into_raw() & other.into_raw())
    }

    /// Returns the rights that either permits.
    #[inline]
    pub(crate) const fn or(self, other: Self) -> Self {
        Self::from_raw(self.into_raw() | other.into_raw())
    }
}

bitfield! {
    /// An entry of a table.
    ///
    /// The other bits are ignored or reserved, depending on the level.
    pub(crate) struct Entry(u64) {
        /// Reads are permitted.
        0:0     read => bool;
        /// Writes are permitted.
        1:1     write => bool;
        /// Fetches are permitted; with mode-based execute control, the supervisor's.
        2:2     execute => bool;
        /// Memory type of the page; in the entry of a page only.
        5:3     memory_type ?=> MemoryType;
        /// The guest's PAT is ignored; in the entry of a page only.
        6:6     ignore_pat => bool;
        /// The entry refers to a page, in a PDPTE or PDE; ignored in a PTE.
        7:7     large => bool;
        /// The CPU has used the entry, where the EPT pointer enables that flag.
        8:8     accessed => bool;
        /// The CPU has written to the page; in the entry of a page only, where the EPT pointer
        /// enables that flag.
        9:9     dirty => bool;
        /// Fetches of user mode are permitted, where there is mode-based execute control.
        10:10   execute_user => bool;
        /// Bits 51:12 of the physical address of the table or page.
        51:12   frame;
        /// A supervisor may use the page as shadow stack; in the entry of a page only.
        60:60   supervisor_shadow_stack => bool;
        /// A violation by this entry causes a VM exit even where #VE is enabled.
        63:63   suppress_ve => bool;
    }
}

kernel::static_assert!(Entry::FRAME_MASK == FRAME_MASK);

/// The reason why an entry is misconfigured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Misconfig {
    /// The entry permits writes and no reads.
    WriteOnly,
    /// The entry permits fetches and no reads, and the CPU has no execute-only translations.
    ExecuteOnly,
    /// The entry has a reserved bit set.
    Reserved,
    /// The entry refers to a page, and has a number that is no memory type.
    MemoryType,
}

/// The meaning of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// The entry is not present.
    NotPresent,
    /// The entry is present and misconfigured.
    Misconfigured(Misconfig),
    /// The entry refers to the table at this address.
    Table(Hpa),
    /// The entry refers to the page that begins at this address.
    Page(Hpa),
}

/// The facts about the CPU on which the meaning of an entry depends, besides the entry's level.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    /// The bits that are reserved in every entry: those above the physical-address width.
    pub(crate) reserved: u64,
    /// The rights that an entry can permit: bit 10 counts with mode-based execute control only.
    pub(crate) rights: Rights,
    /// Whether an entry may permit fetches and no reads.
    execute_only: bool,
    /// Whether the CPU has pages of 2 MiB.
    pages_2m: bool,
    /// Whether the CPU has pages of 1 GiB.
    pages_1g: bool,
    /// Whether bits 11:9 of the qualification of a violation describe the guest's page.
    #[cfg(CONFIG_VMX_VPID_KUNIT_TEST)]
    pub(crate) advanced_exit_info: bool,
}

impl Rules {
    /// Returns the rules of a CPU with these capabilities and this physical-address width; `mbec`
    /// says whether mode-based execute control is on.
    #[inline]
    pub(crate) fn new(caps: EptVpidCap, width: MaxPhyAddr, mbec: bool) -> Self {
        Self {
            reserved: width.reserved(),
            rights: Rights::ALL.with_execute_user(mbec),
            execute_only: caps.execute_only(),
            pages_2m: caps.pages_2m(),
            pages_1g: caps.pages_1g(),
            #[cfg(CONFIG_VMX_VPID_KUNIT_TEST)]
            advanced_exit_info: caps.advanced_exit_info(),
        }
    }

    /// Returns the rights that an entry permits.
    #[inline]
    pub(crate) const fn rights(self, entry: Entry) -> Rights {
        Rights::from_raw(entry.into_raw()).and(self.rights)
    }

    /// Returns whether an entry of this level can refer to a page.
    #[inline]
    pub(crate) const fn has_pages(self, level: Level) -> bool {
        match level {
            Level::Pt => true,
            Level::Pd => self.pages_2m,
            Level::Pdpt => self.pages_1g,
            Level::Pml4 | Level::Pml5 => false,
        }
    }

    /// Checks the rights of a present entry.
    ///
    /// An entry that permits writes or fetches has to permit reads.  On some CPUs an entry may
    /// permit fetches only.
    #[inline]
    fn check_rights(self, rights: Rights) -> Result<(), Misconfig> {
        if rights.read() {
            Ok(())
        } else if rights.write() {
            Err(Misconfig::WriteOnly)
        } else if self.execute_only {
            Ok(())
        } else {
            Err(Misconfig::ExecuteOnly)
        }
    }

    /// Returns the meaning of a present entry, or the reason why the entry is misconfigured.
    #[inline]
    fn check(self, level: Level, entry: Entry) -> Result<Meaning, Misconfig> {
        self.check_rights(self.rights(entry))?;
        let refers_to_page = self.has_pages(level) && (level == Level::Pt || entry.large());
        let reserved = if refers_to_page {
            level.offset_mask() & Entry::FRAME_MASK
        } else {
            TABLE_RESERVED
        };
        if entry.into_raw() & (self.reserved | reserved) != 0 {
            return Err(Misconfig::Reserved);
        }
        let address = Hpa::new(entry.into_raw() & Entry::FRAME_MASK);
        if !refers_to_page {
            Ok(Meaning::Table(address))
        } else if entry.memory_type().is_ok() {
            Ok(Meaning::Page(address))
        } else {
            Err(Misconfig::MemoryType)
        }
    }

    /// Returns the meaning of an entry in a table of this level.
    ///
    /// This function does not check whether the entry permits an access.  A caller checks that only
    /// for an entry that is not misconfigured: a misconfiguration takes priority over a violation.
    #[inline]
    pub(crate) fn meaning(self, level: Level, entry: Entry) -> Meaning {
        if self.rights(entry) == Rights::NONE {
            return Meaning::NotPresent;
        }
        self.check(level, entry)
            .unwrap_or_else(Meaning::Misconfigured)
    }
}
