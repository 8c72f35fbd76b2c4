// SPDX-License-Identifier: GPL-2.0

//! These tests of [`super::transaction`] and [`super::flush_needed`] check the steps of a change,
//! and the flush that is pending then.

#[cfg(CONFIG_VMX_VPID_KUNIT_TEST)]
#[kernel::macros::kunit_tests(vmx_vpid_ept_transaction)]
mod tests {
    use crate::{
        ept::entry::*,
        model::ept::{
            arena::*,
            fixture::*,
            flush_needed::*,
            walk::*, //
        },
        paging::permission::AccessKind::*,
        vmx::caps::EptVpidCap,
        x86::addr::MaxPhyAddr, //
    };
    use kernel::prelude::*;

    #[test]
    fn only_a_loss_of_rights_or_of_the_page_needs_a_flush() -> Result {
        for (before, act, flush) in [
            // CPUs cache no entry that is not present, and no marker.
            (UNMAP, MAP, false),
            (UNMAP, MARK, false),
            (UNMAP, UNMAP, false),
            (UNMAP, PROTECT_R, false),
            (MARK, MAP, false),
            (MARK, UNMAP, false),
            (MARK, MARK, false),
            (MARK, PROTECT_RWX, false),
            // The mapping stays the same, or gets more rights.
            (MAP, MAP, false),
            (MAP_R, MAP, false),
            (MAP, PROTECT_RWX, false),
            (MAP_R, PROTECT_R, false),
            // The mapping gets fewer rights, or another target.
            (MAP, MAP_R, true),
            (MAP, PROTECT_R, true),
            (MAP, MAP_ELSEWHERE, true),
            (MAP, MAP_UNCACHEABLE, true),
            (MAP, UNMAP, true),
            (MAP, MARK, true),
        ] {
            // A page of its own, and a part of a large page.
            for first in [range(MIB_2, KIB_4)?, range(MIB_2, MIB_2)?] {
                let (ept, mut arena) = empty()?;
                before(ept, &mut arena, first)?.complete_flush(&mut arena);
                arena.log.clear();
                let change = act(ept, &mut arena, range(MIB_2, KIB_4)?)?;
                let context = ept.pointer().ep4ta();
                let needs = if flush {
                    Needs::Context(context)
                } else {
                    Needs::Nothing
                };
                assert_eq!(change.needs(), needs);
                // The flush waits until complete_flush().
                assert!(!arena.log.contains(&Event::Invalidate(context)));
                change.complete_flush(&mut arena);
                assert_eq!(arena.log.contains(&Event::Invalidate(context)), flush);
            }
        }
        Ok(())
    }

    #[test]
    fn an_unchanged_entry_is_not_written() -> Result {
        for (before, act) in [(UNMAP, UNMAP), (MARK, MARK), (MAP, MAP), (MAP_R, PROTECT_R)] {
            let (ept, mut arena) = empty()?;
            let page = range(MIB_2, KIB_4)?;
            before(ept, &mut arena, page)?.complete_flush(&mut arena);
            arena.log.clear();
            act(ept, &mut arena, page)?.complete_flush(&mut arena);
            assert_eq!(arena.writes(), 0);
        }
        Ok(())
    }

    #[test]
    fn a_table_is_not_reused_before_the_flush() -> Result {
        let (ept, mut arena) = with_gib(RW)?;
        ept.split(&mut arena, range(0, KIB_4)?, Level::Pt)?
            .complete_flush(&mut arena);
        assert_eq!(arena.used(), 4);
        let before = arena.copy()?;
        let change = ept.unmap(&mut arena, range(0, GIB)?)?;
        // Only the entry that unlinks the tables has changed; CPUs may still use the tables.
        let changed = arena.words().iter().zip(before.words());
        assert_eq!(changed.filter(|(now, before)| now != before).count(), 1);
        assert_eq!(arena.used(), 4);
        // The next operation gets other tables.
        ept.map(&mut arena, range(0, KIB_4)?, to(0, RW))?
            .complete_flush(&mut arena);
        assert_eq!(arena.used(), 6);
        arena.log.clear();
        change.complete_flush(&mut arena);
        // The flush comes before the two unlinked tables are freed.
        assert!(matches!(
            &*arena.log,
            [Event::Invalidate(_), Event::Free(_), Event::Free(_)]
        ));
        assert_eq!(count(ept, &mut arena), ([0, 0, 1], 4));
        Ok(())
    }

    #[test]
    fn code_changes_its_page_size_only_after_the_flush() -> Result {
        let full = EptVpidCap::from(u64::MAX);
        let rules = Rules::new(full, MaxPhyAddr::new(46), true);
        for (rights, two_steps) in [
            (RW, false),
            (RX, true),
            (Rights::EXECUTE, true),
            (RW.or(Rights::EXECUTE_USER), true),
            (Rights::ALL, true),
        ] {
            let (ept, mut arena) = with_gib_by(rules, rights)?;
            let at = locate(ept, &mut arena, Level::Pdpt, 0);
            let flush = Event::Invalidate(ept.pointer().ep4ta());
            // Split into smaller pages, then merge.
            for turn in 0..2 {
                arena.log.clear();
                let change = if turn == 0 {
                    ept.split(&mut arena, range(0, KIB_4)?, Level::Pd)?
                } else {
                    ept.merge(&mut arena, range(0, GIB)?)?
                };
                // The writes of the entry, and the flushes.
                let mut seen = arena.log.iter().copied().filter(|&event| {
                    event == flush || matches!(event, Event::Write(place, _) if place == at)
                });
                if two_steps {
                    let first = seen.next();
                    assert!(matches!(first, Some(Event::Write(_, entry)) if entry & (X | XU) == 0));
                    assert_eq!(seen.next(), Some(flush));
                }
                let last = seen.next();
                assert!(matches!(last, Some(Event::Write(_, entry))
                    if entry & rights.into_raw() == rights.into_raw()));
                assert_eq!(seen.next(), None);
                change.complete_flush(&mut arena);
            }
        }
        Ok(())
    }

    #[test]
    fn a_change_without_enough_memory_has_no_effect() -> Result {
        // One end of the range needs two tables, the other end one table.
        let part = range(MIB_2 - KIB_4, GIB - 2 * MIB_2)?;
        let acts: [Act; 3] = [UNMAP, PROTECT_R, |ept, arena, range| {
            ept.map(arena, range, to(5 * GIB + MIB_2 - KIB_4, RW))
        }];
        for act in acts {
            for left in 0..3 {
                let (ept, mut arena) = with_gib(RWX)?;
                arena.left = left;
                let (before, used) = (arena.copy()?, arena.used());
                let change = act(ept, &mut arena, part);
                assert_eq!(change.err(), Some(ENOMEM));
                assert_eq!((arena.used(), arena.left), (used, left));
                let context = ept.pointer().ep4ta();
                assert!(!arena.log.contains(&Event::Invalidate(context)));
                // Nothing has changed but tables that were never linked, which were freed.
                assert_eq!(arena.words(), before.words());
                assert_eq!(leads_to(ept, &mut arena, MIB_2), Some(3 * GIB + MIB_2));
            }
        }
        Ok(())
    }

    #[test]
    fn no_dirty_flag_is_lost() -> Result {
        // Either the flag is set before a part of the page is changed, or a CPU sets the flag just
        // before the entry is replaced.
        for late in [false, true] {
            let acts: [(Act, Level); 3] = [
                (PROTECT_R, Level::Pt),
                (UNMAP, Level::Pt),
                (
                    |ept, arena, range| ept.split(arena, range, Level::Pd),
                    Level::Pd,
                ),
            ];
            for (act, level) in acts {
                let (ept, mut arena) = with_gib(RWX)?;
                let at = locate(ept, &mut arena, Level::Pdpt, 0);
                if late {
                    arena.race = Some((at, D | A));
                } else {
                    let found = look(ept, &mut arena, 0, Write);
                    assert!(matches!(found, Outcome::Translated(_)));
                }
                act(ept, &mut arena, range(0, KIB_4)?)?.complete_flush(&mut arena);
                assert_eq!(arena.race, None);
                let (found, entry) = last(ept, &mut arena, KIB_4);
                assert_eq!((found, entry & (A | D)), (level, A | D));
                let (found, entry) = last(ept, &mut arena, MIB_2);
                assert_eq!((found, entry & (A | D)), (Level::Pd, A | D));
            }
            // The same page gets other rights, by a protection and by a new mapping.
            let acts: [Act; 2] = [PROTECT_R, |ept, arena, range| {
                ept.map(arena, range, to(3 * GIB, Rights::READ))
            }];
            for act in acts {
                let (ept, mut arena) = with_gib(RWX)?;
                let at = locate(ept, &mut arena, Level::Pdpt, 0);
                if late {
                    arena.race = Some((at, D));
                } else {
                    let entry = arena.read(at);
                    arena.write(at, entry | D);
                }
                act(ept, &mut arena, range(0, GIB)?)?.complete_flush(&mut arena);
                assert!(arena.race.is_none() && arena.read(at) & D != 0);
            }
        }
        // CPUs may set flags in an unlinked table until the flush.
        let (ept, mut arena) = with_gib(RW)?;
        ept.split(&mut arena, range(0, GIB)?, Level::Pd)?
            .complete_flush(&mut arena);
        ept.merge(&mut arena, range(0, GIB)?)?
            .complete_flush(&mut arena);
        let at = locate(ept, &mut arena, Level::Pdpt, 0);
        assert_eq!(arena.read(at) & (A | D), A | D);
        Ok(())
    }
}
