// SPDX-License-Identifier: GPL-2.0

//! These tests of [`super::build`] test one operation at a time; [`super::sequence_tests`] tests
//! operations in any order.

#[cfg(CONFIG_VMX_VPID_KUNIT_TEST)]
#[kernel::macros::kunit_tests(vmx_vpid_ept_build)]
mod tests {
    use crate::{
        ept::{
            check::*,
            entry::*,
            Levels, //
        },
        model::ept::{
            arena::*,
            build::*,
            fixture::*,
            flush_needed::*,
            survey::*,
            walk::*, //
        },
        paging::permission::AccessKind::*,
        vmx::caps::EptVpidCap,
        x86::addr::*, //
    };
    use kernel::prelude::*;

    #[test]
    fn a_range_is_mapped_by_the_largest_pages() -> Result {
        let full = EptVpidCap::from(u64::MAX);
        let no_1g = full.with_pages_1g(false);
        let bytes = GIB + 2 * MIB_2 + 3 * KIB_4;
        for (caps, start, hpa, bytes, pages) in [
            (full, GIB, 5 * GIB, bytes, [1, 2, 3]),
            (no_1g, GIB, 5 * GIB, bytes, [0, 514, 3]),
            // The target may be less aligned than the range, and the range less aligned than the
            // target.
            (full, GIB, 5 * GIB + MIB_2, GIB, [0, 512, 0]),
            (full, MIB_2, KIB_4, MIB_2, [0, 0, 512]),
            (full, KIB_4, MIB_2 + KIB_4, 2 * MIB_2, [0, 1, 512]),
            (full, KIB_4, MIB_2, 2 * MIB_2, [0, 0, 1024]),
        ] {
            let mut arena = Arena::new(16)?;
            let ept = Ept::new(rules(caps), Levels::Five, false, &mut arena)?;
            let change = ept.map(&mut arena, range(start, bytes)?, to(hpa, RW))?;
            assert_eq!(change.needs(), Needs::Nothing);
            change.complete_flush(&mut arena);
            assert_eq!(count(ept, &mut arena).0, pages);
            for offset in [0, KIB_4 + 1, bytes - 1] {
                let found = leads_to(ept, &mut arena, start + offset);
                assert_eq!(found, Some(hpa + offset));
            }
            assert_eq!(leads_to(ept, &mut arena, start - 1), None);
            assert_eq!(leads_to(ept, &mut arena, start + bytes), None);
        }
        Ok(())
    }

    #[test]
    fn a_partly_covered_page_is_split_no_further_than_needed() -> Result {
        let (ept, mut arena) = with_gib(RW)?;
        assert_eq!(count(ept, &mut arena), ([1, 0, 0], 2));
        ept.unmap(&mut arena, range(MIB_2 - KIB_4, 2 * KIB_4 + MIB_2)?)?
            .complete_flush(&mut arena);
        // The range touches three pages of 2 MiB, and covers the second page completely.
        assert_eq!(count(ept, &mut arena), ([0, 509, 511 + 511], 5));
        assert_eq!(
            leads_to(ept, &mut arena, MIB_2 - KIB_4 - 1),
            Some(3 * GIB + MIB_2 - KIB_4 - 1)
        );
        assert_eq!(leads_to(ept, &mut arena, MIB_2 - KIB_4), None);
        assert_eq!(leads_to(ept, &mut arena, 2 * MIB_2), None);
        assert_eq!(
            leads_to(ept, &mut arena, 2 * MIB_2 + KIB_4),
            Some(3 * GIB + 2 * MIB_2 + KIB_4)
        );
        Ok(())
    }

    #[test]
    fn splitting_needs_no_flush_and_merging_needs_one() -> Result {
        let (ept, mut arena) = with_gib(RW)?;
        for (to, pages) in [(Level::Pd, [0, 512, 0]), (Level::Pt, [0, 511, 512])] {
            let change = ept.split(&mut arena, range(MIB_2, KIB_4)?, to)?;
            // The new entries translate like the old one.
            assert_eq!(change.needs(), Needs::Nothing);
            change.complete_flush(&mut arena);
            assert_eq!(count(ept, &mut arena).0, pages);
        }
        // There is nothing left to split, and a partly covered page is not merged.
        ept.split(&mut arena, range(0, 2 * MIB_2)?, Level::Pd)?
            .complete_flush(&mut arena);
        ept.merge(&mut arena, range(MIB_2, MIB_2 - KIB_4)?)?
            .complete_flush(&mut arena);
        assert_eq!(count(ept, &mut arena).0, [0, 511, 512]);
        for (bytes, pages) in [(GIB - MIB_2, [0, 512, 0]), (GIB, [1, 0, 0])] {
            let change = ept.merge(&mut arena, range(0, bytes)?)?;
            assert_eq!(change.needs(), Needs::Context(ept.pointer().ep4ta()));
            change.complete_flush(&mut arena);
            assert_eq!(count(ept, &mut arena).0, pages);
        }
        // Small pages are merged to a large page in one step; tables without entries are freed.
        ept.split(&mut arena, range(0, KIB_4)?, Level::Pt)?
            .complete_flush(&mut arena);
        arena.log.clear();
        ept.merge(&mut arena, range(0, GIB)?)?
            .complete_flush(&mut arena);
        assert_eq!(arena.writes(), 1);
        assert_eq!(count(ept, &mut arena), ([1, 0, 0], 2));
        ept.unmap(&mut arena, range(0, GIB)?)?
            .complete_flush(&mut arena);
        ept.merge(&mut arena, range(0, 1 << 48)?)?
            .complete_flush(&mut arena);
        assert_eq!(count(ept, &mut arena), ([0, 0, 0], 1));
        Ok(())
    }

    #[test]
    fn only_alike_pages_are_merged() -> Result {
        let one = range(MIB_2 + 7 * KIB_4, KIB_4)?;
        let whole = range(MIB_2, MIB_2)?;
        let uncacheable = Target {
            memory_type: MemoryType::Uncacheable,
            ..to(5 * MIB_2 + 7 * KIB_4, RW)
        };
        for target in [
            // Other rights, another address, another memory type; at last the original entry.
            Some(to(5 * MIB_2 + 7 * KIB_4, Rights::READ)),
            Some(to(5 * MIB_2 + 8 * KIB_4, RW)),
            Some(uncacheable),
            None,
        ] {
            let (ept, mut arena) = empty()?;
            ept.map(&mut arena, whole, to(5 * MIB_2, RW))?
                .complete_flush(&mut arena);
            ept.split(&mut arena, whole, Level::Pt)?
                .complete_flush(&mut arena);
            if let Some(target) = target {
                ept.map(&mut arena, one, target)?.complete_flush(&mut arena);
            }
            ept.merge(&mut arena, whole)?.complete_flush(&mut arena);
            let expected = if target.is_some() {
                [0, 0, 512]
            } else {
                [0, 1, 0]
            };
            assert_eq!(count(ept, &mut arena).0, expected);
        }
        // Consecutive pages that do not begin where a large page can begin.
        let (ept, mut arena) = empty()?;
        ept.map(&mut arena, whole, to(KIB_4, RW))?
            .complete_flush(&mut arena);
        ept.merge(&mut arena, whole)?.complete_flush(&mut arena);
        assert_eq!(count(ept, &mut arena).0, [0, 0, 512]);
        Ok(())
    }

    #[test]
    fn invalid_arguments_are_refused() -> Result {
        assert_eq!(Range::new(Gpa::new(0), 0), Err(EINVAL));
        assert_eq!(Range::new(Gpa::new(1), KIB_4), Err(EINVAL));
        assert_eq!(Range::new(Gpa::new(0), KIB_4 + 1), Err(EINVAL));
        assert_eq!(Range::new(Gpa::new(!0xfff), 2 * KIB_4), Err(EINVAL));

        let mut arena = Arena::new(16)?;
        let caps = EptVpidCap::from(u64::MAX).with_execute_only(false);
        let ept = Ept::new(rules(caps), Levels::Four, true, &mut arena)?;
        let refused = |change: Result<Change>| change.err() == Some(EINVAL);
        let (first, last) = (range(0, KIB_4)?, range((1 << 48) - KIB_4, KIB_4)?);
        // The range is beyond four levels, in part or completely.
        for beyond in [range(1 << 48, KIB_4)?, range((1 << 48) - KIB_4, 2 * KIB_4)?] {
            let acts: [Act; 4] = [MAP, MARK, UNMAP, PROTECT_R];
            for act in acts {
                assert!(refused(act(ept, &mut arena, beyond)));
            }
            assert!(refused(ept.split(&mut arena, beyond, Level::Pt)));
            assert!(refused(ept.merge(&mut arena, beyond)));
        }
        // The address is beyond the CPU's, the target is unaligned, or no entry can have the
        // rights.
        for target in [
            to(1 << 46, RW),
            to(1 << 63, RW),
            to(!0xfff, RW),
            to(0x800, RW),
            to(0, Rights::NONE),
            to(0, Rights::WRITE),
            to(0, Rights::EXECUTE),
            to(0, Rights::EXECUTE_USER),
        ] {
            assert!(refused(ept.map(&mut arena, first, target)));
        }
        let two = range(0, 2 * KIB_4)?;
        assert!(refused(ept.map(&mut arena, two, to((1 << 46) - KIB_4, RW))));
        assert!(refused(ept.protect(&mut arena, first, Rights::NONE)));
        assert!(refused(ept.protect(&mut arena, first, Rights::WRITE)));
        assert_eq!(arena.used(), 1);
        ept.map(&mut arena, last, to((1 << 46) - KIB_4, RW))?
            .complete_flush(&mut arena);
        assert_eq!(count(ept, &mut arena).0, [0, 0, 1]);
        Ok(())
    }

    #[test]
    fn a_page_mapped_at_its_violation_needs_no_flush() -> Result {
        let (ept, mut arena) = empty()?;
        for (kind, rights, gpa) in [
            (Read, Rights::READ, GIB),
            (Write, RW, MIB_2 + 0x123),
            (Fetch, RX, 5 * GIB + KIB_4),
            // A second violation of the first page, which does not permit a write yet.
            (Write, RW, GIB + 0xfff),
        ] {
            let Outcome::Violation(found, _) = look(ept, &mut arena, gpa, kind) else {
                panic!();
            };
            // A violation's handler knows the error code, and maps the page.
            let error = found.error_code(false);
            assert_eq!(
                (error.write(), error.fetch()),
                (kind == Write, kind == Fetch)
            );
            assert_eq!(error.present(), gpa == GIB + 0xfff);
            assert!(error.guest_final());
            let page = range(gpa & !0xfff, KIB_4)?;
            let change = ept.map(&mut arena, page, to((gpa & !0xfff) + 7 * GIB, rights))?;
            assert_eq!(change.needs(), Needs::Nothing);
            change.complete_flush(&mut arena);
            let Outcome::Translated(found) = look(ept, &mut arena, gpa, kind) else {
                panic!();
            };
            assert_eq!(found.hpa, Hpa::new(gpa + 7 * GIB));
            assert_eq!(found.rights, rights);
        }
        Ok(())
    }

    #[test]
    fn device_registers_exit_by_misconfiguration() -> Result {
        let (ept, mut arena) = with_gib(RW)?;
        let registers = range(MIB_2 + KIB_4, KIB_4)?;
        ept.mark_mmio(&mut arena, registers)?
            .complete_flush(&mut arena);
        for kind in [Read, Write, Fetch] {
            let found = look(ept, &mut arena, MIB_2 + KIB_4 + 8, kind);
            let Outcome::Misconfiguration(misconfig, last) = found else {
                panic!();
            };
            assert_eq!(misconfig, Misconfig::WriteOnly);
            assert_eq!((last.level, last.entry.into_raw()), (Level::Pt, 0b110));
        }
        assert!(leads_to(ept, &mut arena, MIB_2).is_some());
        assert!(leads_to(ept, &mut arena, MIB_2 + 2 * KIB_4).is_some());
        // The marker stays when the surroundings change, and goes when the page is unmapped.
        ept.protect(&mut arena, range(0, GIB)?, Rights::READ)?
            .complete_flush(&mut arena);
        assert_eq!(last(ept, &mut arena, MIB_2 + KIB_4).1, 0b110);
        ept.unmap(&mut arena, registers)?.complete_flush(&mut arena);
        assert_eq!(last(ept, &mut arena, MIB_2 + KIB_4).1, 0);
        Ok(())
    }

    #[test]
    fn check_classifies_entries() {
        let none = EptVpidCap::from(0);
        // A marker stays a marker whatever its other bits are.
        let full = !Rights::ALL.into_raw();
        for (entry, found) in [
            (full, Ok(Slot::Empty)),
            (0b110, Ok(Slot::Mmio)),
            (0b110 | full, Ok(Slot::Mmio)),
            (0b110 | full | XU, Ok(Slot::Mmio)),
            (0b010, Err(Misconfig::WriteOnly)),
            (0b010 | XU, Err(Misconfig::WriteOnly)),
            (0b100, Err(Misconfig::ExecuteOnly)),
            (0b111 | 2 << 3, Err(Misconfig::MemoryType)),
            (0b111 | 5 << 12, Ok(Slot::Page(Hpa::new(5 << 12)))),
        ] {
            for mbec in [false, true] {
                let rules = Rules::new(none, MaxPhyAddr::new(52), mbec);
                assert_eq!(check(rules, Level::Pt, Entry::from(entry)), found);
            }
        }
    }

    #[test]
    fn a_page_that_cannot_be_split_is_not_used() -> Result {
        let full = EptVpidCap::from(u64::MAX);
        let mut arena = Arena::new(1)?;
        let ept = Ept::new(rules(full), Levels::Four, false, &mut arena)?;
        let used = |ept: Ept| Level::ALL.map(|level| ept.maps(level));
        assert_eq!(used(ept), [false, false, true, true, true]);
        let mut arena = Arena::new(1)?;
        let no_2m = rules(full.with_pages_2m(false));
        let ept = Ept::new(no_2m, Levels::Four, false, &mut arena)?;
        assert_eq!(used(ept), [false, false, false, false, true]);
        let map = Operation::Map(to(GIB, RW));
        let step = map.step(ept, range(0, GIB)?, Level::Pdpt, Gpa::new(0), Entry::NONE);
        assert_eq!(step, Step::Descend);
        Ok(())
    }

    #[test]
    fn each_present_entry_is_shown_once() -> Result {
        let (ept, mut arena) = with_gib(RW)?;
        ept.mark_mmio(&mut arena, range(MIB_2, KIB_4)?)?
            .complete_flush(&mut arena);
        ept.unmap(&mut arena, range(0, MIB_2)?)?
            .complete_flush(&mut arena);
        let mut shown = [0; 4];
        let mut last = Gpa::new(0);
        let tables = survey(
            ept.rules(),
            ept.pointer(),
            &mut arena,
            |level, gpa, _, slot| {
                assert!(last.into_raw() <= gpa.into_raw());
                last = gpa;
                shown[match (slot, level) {
                    (Slot::Table(_), _) => 0,
                    (Slot::Mmio, _) => 1,
                    (Slot::Page(_), Level::Pd) => 2,
                    (Slot::Page(_), Level::Pt) => 3,
                    _ => panic!(),
                }] += 1;
            },
        );
        assert_eq!((tables, shown), (Ok(4), [3, 1, 510, 511]));
        assert_eq!(last, Gpa::new(GIB - MIB_2));
        Ok(())
    }

    #[test]
    fn survey_finds_an_unsound_entry() -> Result {
        let (ept, mut arena) = with_gib(RW)?;
        ept.split(&mut arena, range(0, KIB_4)?, Level::Pt)?
            .complete_flush(&mut arena);
        let found = |arena: &mut Arena| survey(ept.rules(), ept.pointer(), arena, |_, _, _, _| {});
        assert_eq!(found(&mut arena), Ok(4));
        let at = locate(ept, &mut arena, Level::Pt, 0x5000);
        for (entry, misconfig) in [
            (0b010, Misconfig::WriteOnly),
            (7 << 3 | 1, Misconfig::MemoryType),
            (1 << 46 | 1, Misconfig::Reserved),
        ] {
            arena.write(at, entry);
            let unsound = Unsound {
                misconfig,
                level: Level::Pt,
                gpa: Gpa::new(0x5000),
                entry: Entry::from(entry),
            };
            assert_eq!(found(&mut arena), Err(unsound));
        }
        Ok(())
    }

    #[test]
    fn destroy_frees_all_tables_after_the_flush() -> Result {
        let (ept, mut arena) = with_gib(RW)?;
        ept.split(&mut arena, range(0, KIB_4)?, Level::Pt)?
            .complete_flush(&mut arena);
        let change = ept.destroy(&mut arena)?;
        assert_eq!(arena.used(), 4);
        change.complete_flush(&mut arena);
        assert_eq!(arena.used(), 0);
        Ok(())
    }
}
