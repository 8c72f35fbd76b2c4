// SPDX-License-Identifier: GPL-2.0

//! These tests check [`super::entry`] for each bit, right and memory type, at each level.

#[cfg(CONFIG_VMX_VPID_KUNIT_TEST)]
#[kernel::macros::kunit_tests(vmx_vpid_ept_entry)]
mod tests {
    use crate::{
        ept::{
            entry::{
                Level::*,
                Meaning::*,
                Misconfig::*,
                *, //
            },
            Levels, //
        },
        vmx::caps::EptVpidCap,
        x86::addr::*, //
    };
    use kernel::bits::{
        genmask_checked_u64,
        genmask_u64, //
    };

    /// Bits of an entry: read, write and execute; memory type WB; large page; user execute.
    const RWX: u64 = 0b111;
    const WB: u64 = 6 << 3;
    const LARGE: u64 = 1 << 7;
    const XU: u64 = 1 << 10;

    /// Returns the capabilities of a CPU that has them all.
    fn full() -> EptVpidCap {
        EptVpidCap::from(u64::MAX)
    }

    fn rules(caps: EptVpidCap, width: u32, mbec: bool) -> Rules {
        Rules::new(caps, MaxPhyAddr::new(width), mbec)
    }

    /// Returns the bits that make a sound entry misconfigured when flipped alone.
    fn refused(rules: Rules, level: Level, entry: u64) -> u64 {
        (0..64)
            .map(|bit| 1 << bit)
            .filter(|bit| {
                let meaning = rules.meaning(level, Entry::from(entry ^ bit));
                matches!(meaning, Misconfigured(_))
            })
            .sum()
    }

    // Each row is an entry that permits everything.  If bit 0 is flipped, the entry permits writes
    // without reads, which is always a misconfiguration.
    #[test]
    fn every_misconfiguring_bit_is_found_at_every_level() {
        for width in [32, 36, 39, 46, 51, 52] {
            for mbec in [false, true] {
                let all = rules(full(), width, mbec);
                let no_2m = rules(full().with_pages_2m(false), width, mbec);
                let no_1g = rules(full().with_pages_1g(false), width, mbec);
                let each = genmask_checked_u64(width..=51).unwrap_or(0) | 1;
                let table = each | genmask_u64(3..=6);
                // In WB, 110b, flipping bit 3 makes 111b and bit 5 010b, which are no memory types;
                // flipping bit 4 makes WT.
                let page = each | 1 << 3 | 1 << 5;
                for (rules, level, entry, expected) in [
                    (all, Pml5, RWX, table | LARGE),
                    (all, Pml4, RWX, table | LARGE),
                    (no_1g, Pdpt, RWX, table | LARGE),
                    (no_2m, Pd, RWX, table | LARGE),
                    // Flipping bit 7 makes the entry that of a page, of memory type UC.
                    (all, Pdpt, RWX, table),
                    (all, Pd, RWX, table),
                    (no_2m, Pdpt, RWX, table),
                    (no_1g, Pd, RWX, table),
                    // Flipping bit 7 makes the entry that of a table: bits 5 and 4 are reserved.
                    (
                        all,
                        Pdpt,
                        RWX | WB | LARGE,
                        page | genmask_u64(12..=29) | LARGE,
                    ),
                    (
                        all,
                        Pd,
                        RWX | WB | LARGE,
                        page | genmask_u64(12..=20) | LARGE,
                    ),
                    (all, Pt, RWX | WB | LARGE, page),
                    (no_2m, Pt, RWX | WB, page),
                    (no_1g, Pt, RWX | WB | LARGE | XU, page),
                    // In UC, 000b, flipping bit 4 makes 010b, the other bits make WC and WT.
                    (all, Pdpt, RWX | LARGE, each | genmask_u64(12..=29) | 1 << 4),
                    (all, Pd, RWX | LARGE, each | genmask_u64(12..=20) | 1 << 4),
                    (all, Pt, RWX, each | 1 << 4),
                ] {
                    assert_eq!(refused(rules, level, entry), expected);
                }
            }
        }
    }

    #[test]
    fn every_combination_of_rights_is_decoded() {
        for level in Level::ALL {
            for (execute_only, mbec) in [(false, false), (false, true), (true, false), (true, true)]
            {
                let rules = rules(full().with_execute_only(execute_only), 52, mbec);
                // Bits 2:0 of `n` are bits 2:0 of the entry, and bit 3 is bit 10, which counts with
                // mode-based execute control only.
                for n in 0..16 {
                    let (read, write) = (n & 1 != 0, n & 2 != 0);
                    let fetch = n & 4 != 0 || n & 8 != 0 && mbec;
                    let expected = match (read, write, fetch) {
                        (false, false, false) => Some(NotPresent),
                        (false, true, _) => Some(Misconfigured(WriteOnly)),
                        (false, false, true) if !execute_only => Some(Misconfigured(ExecuteOnly)),
                        _ => None,
                    };
                    let entry = Entry::from(n & 7 | (n & 8) << 7);
                    let found = rules.meaning(level, entry);
                    match expected {
                        Some(expected) => assert_eq!(found, expected),
                        None if level == Pt => assert_eq!(found, Page(Hpa::new(0))),
                        None => assert_eq!(found, Table(Hpa::new(0))),
                    }
                    let rights = rules.rights(entry);
                    assert_eq!((rights.read(), rights.write()), (read, write));
                    assert_eq!(rights.execute(), n & 4 != 0);
                    assert_eq!(rights.execute_user(), n & 8 != 0 && mbec);
                }
            }
        }
    }

    #[test]
    fn every_memory_type_is_checked_at_every_level() {
        let rules = rules(full(), 52, false);
        for number in 0..8u64 {
            let exists = matches!(number, 0 | 1 | 4 | 5 | 6);
            for (level, large) in [(Pdpt, LARGE), (Pd, LARGE), (Pt, 0), (Pt, LARGE)] {
                let found = rules.meaning(level, Entry::from(RWX | large | number << 3));
                let expected = if exists {
                    Page(Hpa::new(0))
                } else {
                    Misconfigured(MemoryType)
                };
                assert_eq!(found, expected);
            }
            for level in [Pml5, Pml4, Pdpt, Pd] {
                let found = rules.meaning(level, Entry::from(RWX | number << 3));
                let refers_to_table = found == Table(Hpa::new(0));
                assert_eq!(refers_to_table, number == 0);
            }
        }
    }

    #[test]
    fn an_entry_that_is_not_present_is_never_misconfigured() {
        for level in Level::ALL {
            let plain = rules(EptVpidCap::from(0), 32, false);
            assert_eq!(plain.meaning(level, Entry::from(!RWX)), NotPresent);
            let mbec = rules(EptVpidCap::from(0), 32, true);
            assert_eq!(mbec.meaning(level, Entry::from(!RWX & !XU)), NotPresent);
            assert!(mbec.meaning(level, Entry::from(!RWX)) != NotPresent);
        }
    }

    #[test]
    fn ept_entries_refer_to_the_address_in_them() {
        // Set every bit that is ignored.
        let high = !genmask_u64(0..=51) | genmask_u64(8..=11);
        let rules = rules(full(), 46, true);
        let frame = genmask_u64(12..=45);
        for (level, entry, meaning) in [
            (Pml5, high | frame | RWX, Table(Hpa::new(frame))),
            (Pml4, high | frame | RWX, Table(Hpa::new(frame))),
            (Pdpt, high | frame | RWX, Table(Hpa::new(frame))),
            (Pd, high | frame | RWX, Table(Hpa::new(frame))),
            (
                Pdpt,
                high | genmask_u64(30..=45) | LARGE | WB | 0b1000000 | RWX,
                Page(Hpa::new(genmask_u64(30..=45))),
            ),
            (
                Pd,
                high | genmask_u64(21..=45) | LARGE | WB | 0b1000000 | RWX,
                Page(Hpa::new(genmask_u64(21..=45))),
            ),
            (
                Pt,
                high | frame | LARGE | WB | 0b1000000 | RWX,
                Page(Hpa::new(frame)),
            ),
        ] {
            assert_eq!(rules.meaning(level, Entry::from(entry)), meaning);
        }
    }

    #[test]
    fn ept_entries_are_built_as_the_manual_says() {
        let all = Hpa::new(u64::MAX);
        assert_eq!(
            Entry::table(all).into_raw(),
            genmask_u64(12..=51) | RWX | XU
        );
        let page =
            |level, memory_type, rights| Entry::page(level, all, memory_type, rights).into_raw();
        let write_back = crate::ept::entry::MemoryType::WriteBack;
        assert_eq!(
            page(Pt, write_back, Rights::ALL),
            genmask_u64(12..=51) | WB | RWX | XU
        );
        assert_eq!(
            page(Pd, write_back, Rights::READ),
            genmask_u64(21..=51) | LARGE | WB | 1
        );
        assert_eq!(
            page(Pdpt, write_back, Rights::EXECUTE_USER),
            genmask_u64(30..=51) | LARGE | WB | XU
        );
        // Built entries decode to the same meaning.
        for mbec in [false, true] {
            let rules = rules(full(), 52, mbec);
            for level in [Pml5, Pml4, Pdpt, Pd] {
                let table = rules.meaning(level, Entry::table(all));
                assert_eq!(table, Table(Hpa::new(genmask_u64(12..=51))));
            }
            for (level, low) in [(Pdpt, 30), (Pd, 21), (Pt, 12)] {
                let entry = Entry::page(level, all, write_back, Rights::ALL);
                let page = genmask_checked_u64(low..=51).unwrap_or(0);
                assert_eq!(rules.meaning(level, entry), Page(Hpa::new(page)));
            }
        }
    }

    #[test]
    fn an_address_selects_an_entry_at_each_level() {
        // The lowest and the highest bit of the index at each level.
        for (level, lowest, highest) in [
            (Pml5, 48, 56),
            (Pml4, 39, 47),
            (Pdpt, 30, 38),
            (Pd, 21, 29),
            (Pt, 12, 20),
        ] {
            let place = |gpa| {
                level
                    .locate(Hpa::new(0x5678_9fff), Gpa::new(gpa))
                    .into_raw()
            };
            assert_eq!(place(0), 0x5678_9000);
            assert_eq!(place(1 << lowest), 0x5678_9008);
            assert_eq!(place(1 << highest), 0x5678_9800);
            let index = genmask_checked_u64(lowest..=highest).unwrap_or(0);
            assert_eq!(place(index), 0x5678_9ff8);
            assert_eq!(place(!index), 0x5678_9000);
            assert_eq!(level.span(), 1 << lowest);
            assert!(level.covers(Gpa::new((2 << highest) - 1)));
            assert!(!level.covers(Gpa::new(2 << highest)));
            assert_eq!(level.offset_mask(), (1 << lowest) - 1);
        }
        for levels in [Levels::Four, Levels::Five] {
            let below = core::iter::successors(Some(Level::top(levels)), |level| level.below());
            let expected = if levels == Levels::Four { 4 } else { 5 };
            assert_eq!(below.count(), expected);
        }
    }

    #[test]
    fn rights_are_a_set() {
        let read_write = Rights::READ.or(Rights::WRITE);
        assert!(Rights::ALL.contains(read_write) && !read_write.contains(Rights::ALL));
        assert!(Rights::NONE.contains(Rights::NONE) && !Rights::NONE.contains(Rights::READ));
        assert_eq!(read_write.and(Rights::ALL), read_write);
        assert_eq!(read_write.and(Rights::EXECUTE), Rights::NONE);
        assert_eq!(Rights::ALL.into_raw(), RWX | XU);
    }
}
