// SPDX-License-Identifier: GPL-2.0

//! This module describes how a guest's paging is set up.
//!
//! [`Paging`] is a snapshot of the registers that paging depends on.  The snapshot determines the
//! root of a walk, the format of entries, and the rights that entries permit.
//! Source: the manual's chapter on paging, "Paging Modes and Control Bits".

pub(crate) mod entry;
pub(crate) mod level;
pub(crate) mod permission;
pub(crate) mod walk;

#[cfg(CONFIG_VMX_VPID_KUNIT_TEST)]
pub(crate) mod walk_mock;
#[cfg(CONFIG_VMX_VPID_KUNIT_TEST)]
mod walk_tests;

use crate::{
    paging::{
        entry::{
            Entry,
            Rules, //
        },
        level::{
            Level,
            Table, //
        },
        permission::Control, //
    },
    x86::{
        addr::{
            Gpa,
            Gva,
            MaxPhyAddr, //
        },
        control_regs::{
            Cr0,
            Cr3,
            Cr4,
            Efer, //
        }, //
    }, //
};

/// The paging features of the guest's CPUID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Features {
    /// The width of physical addresses.
    pub(crate) max_phy_addr: MaxPhyAddr,
    /// Pages of 1 GiB, in paging of four and five levels.
    pub(crate) gigabyte_pages: bool,
    /// Pages of 4 MiB beyond the first 4 GiB, in 32-bit paging.
    pub(crate) pse36: bool,
}

/// The modes of paging.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// No paging: linear addresses are physical addresses.
    Off,
    /// 32-bit paging: two levels, entries of 4 bytes.
    TwoLevel,
    /// PAE paging: two levels below four entries that the CPU holds.
    Pae,
    /// Four levels.
    FourLevel,
    /// Five levels.
    FiveLevel,
}

/// The root of a walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Root {
    /// No table: paging is off, and this is the physical address.
    Physical(Gpa),
    /// The PDPTE with this number, 0 to 3, which the CPU holds.
    Pdpte(usize),
    /// The top table.
    Table(Table),
}

/// The setup of a guest's paging at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Paging {
    /// The mode.
    mode: Mode,
    /// CR3.
    cr3: Cr3,
    /// The rules for the format of entries.
    rules: Rules,
    /// The registers that decide what entries permit.
    control: Control,
}

impl Paging {
    /// Takes a snapshot of registers.
    #[inline]
    pub(crate) fn new(cr0: Cr0, cr3: Cr3, cr4: Cr4, efer: Efer, features: Features) -> Self {
        let mode = if !cr0.paging() {
            Mode::Off
        } else if efer.long_mode_active() {
            if cr4.la57() {
                Mode::FiveLevel
            } else {
                Mode::FourLevel
            }
        } else if cr4.physical_address_extension() {
            Mode::Pae
        } else {
            Mode::TwoLevel
        };
        let max = features.max_phy_addr;
        Self {
            mode,
            cr3,
            rules: match mode {
                Mode::Off | Mode::TwoLevel => {
                    Rules::two_level(max, cr4.page_size_extensions(), features.pse36)
                }
                Mode::Pae => Rules::pae(max, efer.no_execute()),
                Mode::FourLevel | Mode::FiveLevel => {
                    Rules::long(max, efer.no_execute(), features.gigabyte_pages)
                }
            },
            control: Control { cr0, cr4, efer },
        }
    }

    /// Returns the root of the walk for an address.
    #[inline]
    pub(crate) const fn root(&self, gva: Gva) -> Root {
        let address = gva.into_raw();
        let level = match self.mode {
            Mode::Off => return Root::Physical(Gpa::new(address & 0xffff_ffff)),
            // CAST: The mask leaves two bits.
            Mode::Pae => return Root::Pdpte((address >> 30 & 3) as usize),
            // The upper half of CR3 may hold bits from long mode; 32-bit paging ignores it.
            Mode::TwoLevel => {
                return Root::Table(Table::new(Level::PD32, self.cr3.into_raw() & 0xffff_ffff))
            }
            Mode::FourLevel => Level::PML4,
            Mode::FiveLevel => Level::PML5,
        };
        Root::Table(Table::new(level, self.cr3.into_raw()))
    }

    /// Returns the table that a PDPTE in the CPU refers to; `None` if the PDPTE is not present.
    ///
    /// A PDPTE permits every access and has no accessed flag, and the CPU checked its reserved bits
    /// when the CPU loaded it.
    #[inline]
    pub(crate) fn directory(&self, pdpte: u64) -> Option<Table> {
        Entry::from_raw(pdpte)
            .present()
            .then(|| Table::new(Level::PD, pdpte))
    }

    /// Returns the rules that give entries their meaning.
    #[inline]
    pub(crate) const fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Returns the registers that decide what entries permit.
    #[inline]
    pub(crate) const fn control(&self) -> &Control {
        &self.control
    }
}

#[cfg(CONFIG_VMX_VPID_KUNIT_TEST)]
#[kernel::macros::kunit_tests(vmx_vpid_paging)]
mod tests {
    use super::*;
    use crate::paging::entry::Meaning;

    const PG: u64 = 1 << 31;
    const PSE: u64 = 1 << 4;
    const PAE: u64 = 1 << 5;
    const LA57: u64 = 1 << 12;
    const LMA: u64 = 1 << 10;
    const NXE: u64 = 1 << 11;
    const CR3: u64 = 0x6543_21ff_f000 | 0xabc;

    /// Returns a guest's paging, from raw registers.
    fn paging(cr0: u64, cr4: u64, efer: u64, gigabyte_pages: bool, pse36: bool) -> Paging {
        let features = Features {
            max_phy_addr: MaxPhyAddr::new(36),
            gigabyte_pages,
            pse36,
        };
        Paging::new(cr0.into(), CR3.into(), cr4.into(), efer.into(), features)
    }

    #[test]
    fn control_bits_determine_the_paging_mode() {
        // Each `n` is one combination of CR0.PG, CR4.PAE, CR4.LA57, CR4.PSE and EFER.LMA.
        for n in 0..32 {
            let bit = |number: u32, value| if n >> number & 1 != 0 { value } else { 0 };
            let cr4 = bit(1, PAE) | bit(2, LA57) | bit(3, PSE);
            let mode = match (n & 1 != 0, bit(4, LMA) != 0) {
                (false, _) => Mode::Off,
                (true, true) if cr4 & LA57 != 0 => Mode::FiveLevel,
                (true, true) => Mode::FourLevel,
                (true, false) if cr4 & PAE != 0 => Mode::Pae,
                (true, false) => Mode::TwoLevel,
            };
            let found = paging(bit(0, PG), cr4, bit(4, LMA), true, true).mode;
            assert_eq!(found, mode);
        }
    }

    #[test]
    fn each_mode_has_its_root() {
        let gva = Gva::new(0xffff_8765_c321_0fed);
        let table = CR3 & !0xfff;
        for (cr0, cr4, efer, root) in [
            (0, PAE, 0, Root::Physical(Gpa::new(0xc321_0fed))),
            (PG, PAE, 0, Root::Pdpte(3)),
            (
                PG,
                0,
                0,
                Root::Table(Table::new(Level::PD32, table & 0xffff_ffff)),
            ),
            (PG, PAE, LMA, Root::Table(Table::new(Level::PML4, table))),
            (
                PG,
                PAE | LA57,
                LMA,
                Root::Table(Table::new(Level::PML5, table)),
            ),
        ] {
            assert_eq!(paging(cr0, cr4, efer, true, true).root(gva), root);
        }
    }

    #[test]
    fn pae_reads_the_pdptes_that_the_cpu_holds() {
        let paging = paging(PG, PAE, 0, true, true);
        assert_eq!(paging.directory(!1), None);
        // Other bits have no effect: the CPU checked them when it loaded the PDPTE.
        let table = Table::new(Level::PD, 0xf_ffff_ffff_f000);
        assert_eq!(paging.directory(u64::MAX), Some(table));
        for (index, gva) in [(0, 0), (1, 1 << 30), (2, 1 << 31), (3, u64::MAX)] {
            assert_eq!(paging.root(Gva::new(gva)), Root::Pdpte(index));
        }
    }

    #[test]
    fn the_rules_of_entries_follow_from_registers_and_features() {
        let xd = 1 << 63 | 1;
        let above = 1 << 52 | 1;
        let too_high = 1 << 36 | 1;
        let large = 1 << 7 | 1;
        let large_high = 1 << 16 | large;
        let all = paging(PG, PAE, LMA | NXE, true, true);
        let none = paging(PG, PAE, LMA, false, true);
        let (pae, pae_nxe) = (
            paging(PG, PAE, 0, true, true),
            paging(PG, PAE, NXE, true, true),
        );
        let (two, pse) = (paging(PG, 0, 0, true, true), paging(PG, PSE, 0, true, true));
        let pse_only = paging(PG, PSE, 0, true, false);
        for (paging, level, entry, reserved) in [
            (all, Level::PML4, xd, false),
            (none, Level::PML4, xd, true),
            (all, Level::PML4, above, false),
            (all, Level::PML4, too_high, true),
            (all, Level::PDPT, large, false),
            (none, Level::PDPT, large, true),
            (pae, Level::PT, xd, true),
            (pae_nxe, Level::PT, xd, false),
            (pae_nxe, Level::PT, above, true),
            (pae_nxe, Level::PT, too_high, true),
            (two, Level::PD32, large | 1 << 21, false),
            (pse, Level::PD32, large | 1 << 21, true),
            (pse, Level::PD32, large_high, false),
            (pse_only, Level::PD32, large_high, true),
        ] {
            let table = Table::new(level, 0);
            let found = paging.rules().meaning(table, Entry::from(entry)) == Meaning::Reserved;
            assert_eq!(found, reserved);
        }
    }
}
