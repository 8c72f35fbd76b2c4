// SPDX-License-Identifier: GPL-2.0

//! Entries of an EPT: what they say.
//!
//! A guest-physical address is translated by tables of four or five levels; each holds 512 entries
//! that refer to a table of the level below or to a page.  What an entry says depends on its level
//! and on a few facts about the CPU, its [`Rules`].  Entries of a guest's own page tables are
//! [`crate::paging::entry::Entry`]: next to nothing is the same there.
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
/// Bit 7 is none of them in a PDPTE or PDE where there are large pages; but such an entry with that
/// bit refers to no table.
const TABLE_RESERVED: u64 = 0xf8;

/// A memory type, as EPT entries and EPT pointers have it.
///
/// The numbers are those of the manual.  2, 3 and 7 are none.
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

/// The number is that of no memory type.
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
    /// What an entry permits, or an access needs.
    ///
    /// The bits are where an [`Entry`] has them.
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
    /// Nothing.
    pub(crate) const NONE: Self = Self::from_raw(0);
    /// Reads.
    pub(crate) const READ: Self = Self::from_raw(Self::READ_MASK);
    /// Writes.
    pub(crate) const WRITE: Self = Self::from_raw(Self::WRITE_MASK);
    /// Fetches; with mode-based execute control, the supervisor's.
    pub(crate) const EXECUTE: Self = Self::from_raw(Self::EXECUTE_MASK);
    /// Fetches of user mode, where there is mode-based execute control.
    pub(crate) const EXECUTE_USER: Self = Self::from_raw(Self::EXECUTE_USER_MASK);
    /// Everything.
    pub(crate) const ALL: Self = Self::READ
        .or(Self::WRITE)
        .or(Self::EXECUTE)
        .or(Self::EXECUTE_USER);

    /// Returns what both permit.
    #[inline]
    pub(crate) const fn and(self, other: Self) -> Self {
        Self::from_raw(self.into_raw() & other.into_raw())
    }

    /// Returns what either permits.
    #[inline]
    pub(crate) const fn or(self, other: Self) -> Self {
        Self::from_raw(self.into_raw() | other.into_raw())
    }
}

bitfield! {
    /// An entry of a table.
    ///
    /// Bits that are left out are ignored, or reserved as the level has it.
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
        /// The CPU has written to the page; in the entry of a page only, enabled likewise.
        9:9     dirty => bool;
        /// Fetches of user mode are permitted, where there is mode-based execute control.
        10:10   execute_user => bool;
        /// Bits 51:12 of the physical address of the table or page.
        51:12   frame;
        /// A supervisor may use the page as shadow stack; in the entry of a page only.
        60:60   supervisor_shadow_stack => bool;
        /// A violation here causes a VM exit, not a #VE, where the latter is enabled.
        63:63   suppress_ve => bool;
    }
}

kernel::static_assert!(Entry::FRAME_MASK == FRAME_MASK);

/// What is wrong with an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Misconfig {
    /// It permits writes and no reads.
    WriteOnly,
    /// It permits fetches and no reads, and the CPU has no such translations.
    ExecuteOnly,
    /// It has a reserved bit set.
    Reserved,
    /// It refers to a page, and its memory type is none.
    MemoryType,
}

/// What an entry says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// It is not present.
    NotPresent,
    /// It is present and makes no sense.
    Misconfigured(Misconfig),
    /// It refers to the table at this address.
    Table(Hpa),
    /// It refers to the page that begins at this address.
    Page(Hpa),
}

/// What the meaning of entries depends on, besides their level.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    /// Bits that are reserved in each entry: those of an address that the CPU does not have.
    pub(crate) reserved: u64,
    /// What an entry can permit: bit 10 counts with mode-based execute control only.
    pub(crate) rights: Rights,
    /// Whether an entry may permit fetches and no reads.
    execute_only: bool,
    /// Whether there are pages of 2 MiB.
    pages_2m: bool,
    /// Whether there are pages of 1 GiB.
    pages_1g: bool,
    /// Whether violations tell of the guest's page, in bits 11:9 of the qualification.
    #[cfg(CONFIG_VMX_VPID_KUNIT_TEST)]
    pub(crate) advanced_exit_info: bool,
}

impl Rules {
    /// The rules of a CPU with these capabilities and so many bits in a physical address, with
    /// mode-based execute control switched on or not.
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

    /// Returns what an entry permits.
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

    /// Returns what is wrong with the rights of a present entry.
    ///
    /// A right to write or to fetch comes with that to read; only the latter may come without, on
    /// some CPUs.
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

    /// Returns what a present entry refers to, or what is wrong with it.
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

    /// Returns what an entry of a table of this level says.
    ///
    /// Whether it permits what an access needs is another question, to be asked of an entry that
    /// makes sense only: a misconfiguration comes before a violation.
    #[inline]
    pub(crate) fn meaning(self, level: Level, entry: Entry) -> Meaning {
        if self.rights(entry) == Rights::NONE {
            return Meaning::NotPresent;
        }
        self.check(level, entry)
            .unwrap_or_else(Meaning::Misconfigured)
    }
}
