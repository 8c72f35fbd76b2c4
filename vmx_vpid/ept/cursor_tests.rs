// SPDX-License-Identifier: GPL-2.0

//! These tests of [`super::cursor`] check that a cursor reads all of an EPT, even while the EPT
//! changes.

#[cfg(CONFIG_VMX_VPID_KUNIT_TEST)]
#[kernel::macros::kunit_tests(vmx_vpid_ept_cursor)]
mod tests {
    use crate::{
        ept::{
            check::Slot,
            cursor::{
                Cursor,
                EntryError,
                Progress,
                Seen,
                Tree, //
            },
            entry::*,
            Levels, //
        },
        model::{
            ept::{
                arena::Arena,
                build::Ept,
                fixture::*,
                survey::survey,
                walk::Tables, //
            },
            random::{
                Choice,
                Random, //
            }, //
        },
        vmx::caps::EptVpidCap,
        x86::addr::*, //
    };
    use kernel::prelude::*;

    /// Reads a whole EPT in pieces; returns the shown entries, and the number of pieces.
    fn look_at(
        tree: Tree,
        arena: &mut Arena,
        budget: usize,
        at_once: usize,
    ) -> Result<(KVVec<Seen>, usize)> {
        let (mut cursor, mut all, mut pieces) = (Cursor::new(), KVVec::new(), 0);
        loop {
            pieces += 1;
            let mut shown = 0;
            let mut failed = false;
            let progress = cursor.advance(tree, arena, budget, |seen| {
                shown += 1;
                failed |= all.push(*seen, GFP_KERNEL).is_err();
                shown < at_once
            });
            assert!(!failed);
            if progress == Progress::Done {
                return Ok((all, pieces));
            }
        }
    }

    /// Returns an EPT with tables, pages and markers of all sizes.
    fn mixed() -> Result<(Ept, Arena)> {
        let (ept, mut arena) = with_gib(RW)?;
        for (act, start, bytes) in [
            (MARK, MIB_2, KIB_4),
            (UNMAP, 3 * MIB_2, 2 * MIB_2),
            (PROTECT_R, 9 * MIB_2 - KIB_4, 2 * KIB_4),
            (MAP_R, 511 * GIB, GIB),
            (MAP, 512 * GIB, 3 * KIB_4),
        ] {
            act(ept, &mut arena, range(start, bytes)?)?.complete_flush(&mut arena);
        }
        Ok((ept, arena))
    }

    #[test]
    fn pieces_of_any_size_show_the_same_entries() -> Result {
        let (ept, mut arena) = mixed()?;
        let mut whole = KVVec::new();
        let show = |level, gpa: Gpa, entry, slot| {
            let pushed = whole.push((level, gpa.into_raw(), entry, slot), GFP_KERNEL);
            assert!(pushed.is_ok());
        };
        let tables = survey(ept.rules(), ept.pointer(), &mut arena, show);
        for (budget, at_once) in [
            (usize::MAX, usize::MAX),
            (usize::MAX, 1),
            (usize::MAX, 100),
            (1, usize::MAX),
            (2, 1),
            (3, usize::MAX),
            (511, usize::MAX),
            (512, usize::MAX),
            (513, 7),
        ] {
            let (shown, pieces) = look_at(tree(ept), &mut arena, budget, at_once)?;
            assert!((pieces == 1) ^ (budget.min(at_once) < usize::MAX));
            assert_eq!(shown.len(), whole.len());
            for (seen, &(level, gpa, entry, slot)) in shown.iter().zip(&whole) {
                assert_eq!((seen.level, seen.first), (level, gpa));
                assert_eq!((seen.entry, seen.slot), (entry, Ok(slot)));
                assert_eq!(seen.end, gpa + level.span());
            }
            let below = |seen: &&Seen| matches!(seen.slot, Ok(Slot::Table(_)));
            assert_eq!(tables, Ok(shown.iter().filter(below).count() + 1));
        }
        Ok(())
    }

    #[test]
    fn an_ept_of_five_levels_ends_at_bit_57() -> Result {
        let mut arena = Arena::new(16)?;
        let rules = rules(EptVpidCap::from(u64::MAX));
        let ept = Ept::new(rules, Levels::Five, true, &mut arena)?;
        let last = (1 << 57) - KIB_4;
        for start in [0, last] {
            ept.map(&mut arena, range(start, KIB_4)?, to(GIB, RW))?
                .complete_flush(&mut arena);
        }
        let (shown, _) = look_at(tree(ept), &mut arena, 1000, usize::MAX)?;
        assert_eq!(shown.len(), 2 + 2 * 4);
        assert_eq!(shown[shown.len() - 1].first, last);
        assert_eq!(shown[shown.len() - 1].end, 1 << 57);
        Ok(())
    }

    #[test]
    fn shown_rights_are_common_to_all_entries_of_a_walk() -> Result {
        let (ept, mut arena) = mixed()?;
        let at = locate(ept, &mut arena, Level::Pdpt, 0);
        let entry = Tables::read(&mut arena, at);
        arena.write(at, entry & !2);
        let (shown, _) = look_at(tree(ept), &mut arena, usize::MAX, usize::MAX)?;
        for seen in shown.iter().filter(|seen| seen.end <= GIB) {
            let page = matches!(seen.slot, Ok(Slot::Page(_)));
            assert!(!page || seen.rights == Rights::READ);
        }
        Ok(())
    }

    #[test]
    fn an_unsound_entry_is_shown_and_not_followed() -> Result {
        let (ept, mut arena) = mixed()?;
        let (whole, _) = look_at(tree(ept), &mut arena, usize::MAX, usize::MAX)?;
        assert!(whole.iter().all(|seen| seen.slot.is_ok()));
        let at = locate(ept, &mut arena, Level::Pd, MIB_2);
        // A misconfigured entry, and two that refer to addresses without a table.
        for (entry, fault) in [
            (0b010, EntryError::Misconfigured(Misconfig::WriteOnly)),
            (0x12_3400_f007, EntryError::NoTable),
            (0x7007, EntryError::NoTable),
        ] {
            arena.write(at, entry);
            let (shown, _) = look_at(tree(ept), &mut arena, 100, usize::MAX)?;
            let mut bad = shown.iter().filter(|seen| seen.slot.is_err());
            let seen = bad.next().ok_or(EINVAL)?;
            assert_eq!((seen.slot, seen.level), (Err(fault), Level::Pd));
            assert_eq!((seen.first, seen.end), (MIB_2, 2 * MIB_2));
            assert!(bad.next().is_none());
            // The 512 entries of the table are missing, and no others.
            assert_eq!(shown.len(), whole.len() - 512);
        }
        Ok(())
    }

    #[test]
    fn a_page_that_replaces_a_table_is_shown_from_the_cursor_on() -> Result {
        let (ept, mut arena) = with_gib(RW)?;
        ept.split(&mut arena, range(0, KIB_4)?, Level::Pt)?
            .complete_flush(&mut arena);
        let mut cursor = Cursor::new();
        let mut pages = 0;
        cursor.advance(tree(ept), &mut arena, usize::MAX, |seen| {
            pages += usize::from(matches!(seen.slot, Ok(Slot::Page(_))));
            pages < 5
        });
        ept.merge(&mut arena, range(0, GIB)?)?
            .complete_flush(&mut arena);
        let mut first = None;
        cursor.advance(tree(ept), &mut arena, usize::MAX, |seen| {
            first.get_or_insert((seen.level, seen.first, seen.end));
            true
        });
        assert_eq!(first, Some((Level::Pdpt, 5 * KIB_4, GIB)));
        Ok(())
    }

    // Between the pieces, ranges of the EPT are changed at random, except for one range.  The
    // cursor shows that range unchanged, and shows no address twice and no entry of a freed table.
    #[test]
    fn changes_between_two_pieces_hide_no_entry() -> Result {
        let kept = range(5 * MIB_2 + KIB_4, 3 * MIB_2)?;
        let (start, end) = (5 * MIB_2 + KIB_4, 8 * MIB_2 + KIB_4);
        for seed in 1..40 {
            let mut random = Random::new(seed);
            let (ept, mut arena) = with_gib(RW)?;
            PROTECT_R(ept, &mut arena, kept)?.complete_flush(&mut arena);
            let (mut cursor, mut place, mut intact) = (Cursor::new(), 0, 0);
            loop {
                let most = 1 + random.index(60);
                let mut shown = 0;
                let progress = cursor.advance(tree(ept), &mut arena, 700, |seen| {
                    shown += 1;
                    assert!(seen.slot.is_ok());
                    if let Ok(Slot::Table(_)) = seen.slot {
                        return true;
                    }
                    assert!(place <= seen.first && seen.first < seen.end);
                    place = seen.end;
                    let part = seen.end.min(end).saturating_sub(seen.first.max(start));
                    if part != 0 && matches!(seen.slot, Ok(Slot::Page(_))) {
                        assert_eq!(seen.rights, Rights::READ);
                        intact += part;
                    }
                    shown < most
                });
                if progress == Progress::Done {
                    break;
                }
                let change = random.one_of(&[MAP, MAP_R, MARK, UNMAP, PROTECT_RWX]);
                let from = random.one_of(&[0, KIB_4, MIB_2, 9 * MIB_2, 16 * MIB_2, 20 * MIB_2]);
                let bytes = random.one_of(&[KIB_4, 3 * KIB_4, MIB_2, 4 * MIB_2]);
                // A change that runs out of tables changes nothing.
                if let Ok(change) = change(ept, &mut arena, range(from, bytes)?) {
                    change.complete_flush(&mut arena);
                }
                ept.merge(&mut arena, range(0, GIB)?)?
                    .complete_flush(&mut arena);
            }
            assert_eq!(intact, 3 * MIB_2);
        }
        Ok(())
    }
}
