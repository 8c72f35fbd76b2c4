// SPDX-License-Identifier: GPL-2.0

//! This module counts the memory references of an access with nothing cached.
//!
//! The walk through the guest's tables makes one reference per level.  Before each of these, a
//! whole walk through the EPT finds the table's frame; one more walk finds the page's frame.

#[cfg(CONFIG_VMX_VPID_KUNIT_TEST)]
#[kernel::macros::kunit_tests(vmx_vpid_model_walk_refs)]
mod tests {
    use crate::{
        ept::{
            entry::Rules,
            Eptp,
            Levels, //
        },
        model::ept::{
            access::{
                Access as EptAccess,
                Linear,
                Stage, //
            },
            walk::{
                walk,
                Outcome,
                Tables, //
            }, //
        },
        paging::{
            level::EntryWidth,
            permission::{
                Access,
                AccessKind, //
            },
            walk::{
                translate,
                Answer,
                Exchange,
                Memory, //
            },
            Features,
            Paging, //
        },
        vmx::caps::EptVpidCap,
        x86::{
            addr::{
                Gpa,
                Gva,
                Hpa,
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
    use kernel::prelude::*;

    /// The frame of the page.  The frame of a table is the table's level, 5 to 1.
    const PAGE: u64 = 7;

    /// An EPT: the frame of a table is the table's level, and pages are from 1 MiB on.
    struct Epts;

    impl Tables for Epts {
        fn read(&mut self, at: Hpa) -> u64 {
            let (level, index) = (at.into_raw() >> 12, at.into_raw() >> 3 & 511);
            match level {
                1 => (0x100 + index) << 12 | 0x37,
                _ => (level - 1) << 12 | 7,
            }
        }
        fn exchange(&mut self, _: Hpa, _: u64, _: u64) -> bool {
            true
        }
    }

    /// A guest that counts memory references.
    struct Guest {
        levels: Levels,
        references: usize,
    }

    impl Guest {
        /// Translates a guest-physical address.
        fn through_ept(&mut self, gpa: Gpa) {
            let root = match self.levels {
                Levels::Four => Hpa::new(4 << 12),
                Levels::Five => Hpa::new(5 << 12),
            };
            let eptp = Eptp::for_root(root, self.levels, false);
            let rules = Rules::new(EptVpidCap::from(u64::MAX), MaxPhyAddr::new(46), false);
            let access = EptAccess {
                kind: AccessKind::Read,
                stage: Stage::Page(Linear::UNPAGED),
            };
            match walk(rules, eptp, &mut Epts, gpa, access) {
                Outcome::Translated(found) => self.references += found.last.references,
                _ => self.references = 0,
            }
        }
    }

    impl Memory for Guest {
        fn read_entry(&mut self, address: Gpa, _: EntryWidth) -> Option<u64> {
            self.through_ept(address);
            self.references += 1;
            let level = address.into_raw() >> 12;
            let frame = if level == 1 { PAGE } else { level - 1 };
            // Present, writable, accessed and dirty.
            Some(frame << 12 | 0x63)
        }
        fn exchange_entry(&mut self, _: Gpa, _: EntryWidth, _: u64, _: u64) -> Exchange {
            Exchange::Done
        }
        fn read(&mut self, _: Gpa, _: &mut [u8]) -> Answer {
            Answer::NoMemory
        }
        fn pdpte(&mut self, _: usize) -> u64 {
            0
        }
        fn alignment_check(&mut self) -> bool {
            false
        }
        fn pkru(&mut self) -> u32 {
            0
        }
    }

    /// Counts the references of an access, with `levels` levels in the guest's tables and in the
    /// EPT.
    fn references(levels: Levels) -> Result<usize> {
        let five = levels == Levels::Five;
        let root = if five { 5 } else { 4 };
        let features = Features {
            max_phy_addr: MaxPhyAddr::new(46),
            gigabyte_pages: true,
            pse36: true,
        };
        let paging = Paging::new(
            Cr0::from(1 << 31 | 1),
            Cr3::from(root << 12),
            Cr4::zeroed()
                .with_physical_address_extension(true)
                .with_la57(five),
            Efer::zeroed().with_long_mode_active(true),
            features,
        );
        let mut guest = Guest {
            levels,
            references: 0,
        };
        let access = Access {
            kind: AccessKind::Read,
            user: false,
        };
        let gpa = translate(&paging, &mut guest, Gva::new(0x123), access).map_err(|_| EINVAL)?;
        assert_eq!(gpa, Gpa::new(PAGE << 12 | 0x123));
        guest.through_ept(gpa);
        Ok(guest.references)
    }

    #[test]
    fn an_uncached_access_makes_24_or_35_references() -> Result {
        assert_eq!(references(Levels::Four)?, 4 * (4 + 1) + 4);
        assert_eq!(references(Levels::Four)?, 24);
        assert_eq!(references(Levels::Five)?, 5 * (5 + 1) + 5);
        assert_eq!(references(Levels::Five)?, 35);
        Ok(())
    }
}
