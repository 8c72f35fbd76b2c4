// SPDX-License-Identifier: GPL-2.0

//! This test changes an EPT in any order, and compares the EPT with a flat map of the expected
//! mappings.
//!
//! Ranges begin and end at a few addresses only.  All pages between two of these addresses have the
//! same mapping, so the flat map has one entry for each piece, and covers every page.

#[cfg(CONFIG_VMX_VPID_KUNIT_TEST)]
#[kernel::macros::kunit_tests(vmx_vpid_ept_sequence)]
mod tests {
    use crate::{
        ept::{
            check::*,
            entry::*,
            Levels, //
        },
        model::ept::{
            access::*,
            arena::*,
            build::*,
            fixture::*,
            flush_needed::*,
            survey::*,
            walk::*, //
        },
        model::random::{
            Choice,
            Random, //
        },
        paging::permission::AccessKind::*,
        vmx::caps::EptVpidCap,
        x86::addr::*, //
    };
    use kernel::prelude::*;

    /// The number of changes of one run.
    const STEPS: usize = 300;
    /// The number of tables: enough for most changes, but not for all.
    const TABLES: usize = 24;
    /// The greatest number of entries that a change writes, approximately.
    const MOST: u64 = 1024;

    /// The addresses where ranges begin and end.
    const BOUNDS: [u64; 18] = [
        0,
        KIB_4,
        MIB_2 - KIB_4,
        MIB_2,
        MIB_2 + 2 * KIB_4,
        2 * MIB_2,
        GIB - MIB_2,
        GIB - KIB_4,
        GIB,
        GIB + KIB_4,
        GIB + MIB_2,
        2 * GIB,
        2 * GIB + 2 * MIB_2,
        3 * GIB,
        511 * GIB,
        512 * GIB - KIB_4,
        512 * GIB,
        513 * GIB,
    ];
    const PIECES: usize = BOUNDS.len() - 1;

    /// The mapping of a piece.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Flat {
        Nothing,
        Mmio,
        Page {
            /// The distance from the guest-physical to the host-physical address.
            offset: u64,
            memory_type: MemoryType,
            rights: Rights,
        },
    }
    use Flat::*;

    impl Flat {
        /// Returns the mapping with other rights, if it has any.
        fn permitting(self, change: impl Fn(Rights) -> Rights) -> Self {
            match self {
                Page {
                    offset,
                    memory_type,
                    rights,
                } => match change(rights) {
                    Rights::NONE => Nothing,
                    rights => Page {
                        offset,
                        memory_type,
                        rights,
                    },
                },
                other => other,
            }
        }

        /// Returns the intermediate mapping while code gets pages of another size.
        fn without_fetches(self) -> Self {
            self.permitting(|rights| rights.and(RW))
        }

        /// Returns whether a user of this mapping does nothing that `other` forbids.
        fn is_within(self, other: Self) -> bool {
            match (self, other) {
                (Page { rights, .. }, Page { rights: more, .. }) => {
                    more.contains(rights) && self.permitting(|_| RW) == other.permitting(|_| RW)
                }
                (Page { .. }, _) => false,
                (Nothing | Mmio, _) => true,
            }
        }
    }

    /// Returns the mapping that a walk finds.
    fn seen(ept: Ept, arena: &mut Arena, gpa: u64) -> Flat {
        let user = Access {
            kind: Fetch,
            stage: Stage::Page(Linear::UNPAGED),
        };
        let supervisor = Access {
            kind: Fetch,
            stage: Stage::Physical,
        };
        for access in [access(Read), supervisor, user] {
            match walk(ept.rules(), ept.pointer(), arena, Gpa::new(gpa), access) {
                Outcome::Translated(found) => {
                    return Page {
                        offset: found.hpa.into_raw().wrapping_sub(gpa),
                        memory_type: found.memory_type,
                        rights: found.rights,
                    }
                }
                Outcome::Violation(..) => {}
                Outcome::Misconfiguration(Misconfig::WriteOnly, _) => return Mmio,
                outcome => panic!("{:?}", outcome),
            }
        }
        Nothing
    }

    /// The CPU of a run.
    #[derive(Clone, Copy)]
    struct Cpu {
        levels: Levels,
        caps: EptVpidCap,
        mbec: bool,
        accessed_dirty: bool,
    }

    /// The state of a run.
    struct RandomSteps {
        random: Random,
        ept: Ept,
        arena: Arena,
        flat: [Flat; PIECES],
    }

    impl RandomSteps {
        fn new(cpu: Cpu) -> Result<Self> {
            let mut arena = Arena::new(TABLES)?;
            let rules = Rules::new(cpu.caps, MaxPhyAddr::new(46), cpu.mbec);
            let ept = Ept::new(rules, cpu.levels, cpu.accessed_dirty, &mut arena)?;
            Ok(Self {
                random: Random::new(1),
                ept,
                arena,
                flat: [Nothing; PIECES],
            })
        }

        /// Chooses rights that an entry can have on this CPU.
        fn rights(&mut self) -> Rights {
            loop {
                let raw = self.random.index(8) | self.random.index(2) << 10;
                let rights = Rights::from(raw as u64);
                let page = Entry::page(Level::Pt, Hpa::new(0), MemoryType::WriteBack, rights);
                let entry = check(self.ept.rules(), Level::Pt, page);
                if matches!(entry, Ok(Slot::Page(_))) {
                    return rights;
                }
            }
        }

        /// Chooses a target for a range, aligned to 1 GiB, 2 MiB or 4 KiB.
        fn target(&mut self, start: u64) -> (Target, u64) {
            let size = self.random.one_of(&[KIB_4, MIB_2, GIB]);
            let offset = size * (1 + self.random.index(3) as u64);
            let target = Target {
                hpa: Hpa::new(start + offset),
                memory_type: self
                    .random
                    .one_of(&[MemoryType::Uncacheable, MemoryType::WriteBack]),
                rights: self.rights(),
            };
            let has = |level| self.ept.rules().has_pages(level);
            let page = match size {
                GIB if has(Level::Pdpt) && has(Level::Pd) => GIB,
                GIB | MIB_2 if has(Level::Pd) => MIB_2,
                _ => KIB_4,
            };
            (target, page)
        }

        /// Makes a random change; returns the expected mapping, unless the change failed.
        fn act(&mut self) -> Result<(Change, [Flat; PIECES])> {
            let first = self.random.index(PIECES);
            let behind = first + 1 + self.random.index(PIECES - first);
            let (start, bytes) = (BOUNDS[first], BOUNDS[behind] - BOUNDS[first]);
            let range = range(start, bytes)?;
            let (ept, mask) = (self.ept, self.ept.rules().rights(Entry::from(u64::MAX)));
            let mut flat = self.flat;
            let pieces = &mut flat[first..behind];
            let change = match self.random.index(12) {
                0..4 => {
                    let (target, page) = self.target(start);
                    if bytes / page > MOST {
                        return Err(EAGAIN);
                    }
                    pieces.fill(Page {
                        offset: target.hpa.into_raw() - start,
                        memory_type: target.memory_type,
                        rights: target.rights.and(mask),
                    });
                    ept.map(&mut self.arena, range, target)?
                }
                4 if bytes / KIB_4 <= MOST => {
                    pieces.fill(Mmio);
                    ept.mark_mmio(&mut self.arena, range)?
                }
                5 | 6 => {
                    pieces.fill(Nothing);
                    ept.unmap(&mut self.arena, range)?
                }
                7 | 8 => {
                    let rights = self.rights();
                    for piece in pieces {
                        *piece = piece.permitting(|_| rights.and(mask));
                    }
                    ept.protect(&mut self.arena, range, rights)?
                }
                9 if bytes / KIB_4 <= MOST => ept.split(&mut self.arena, range, Level::Pt)?,
                9 if bytes / MIB_2 <= MOST => ept.split(&mut self.arena, range, Level::Pd)?,
                10 | 11 => ept.merge(&mut self.arena, range)?,
                _ => return Err(EAGAIN),
            };
            Ok((change, flat))
        }

        /// Checks the first page, the last page and a middle page of each piece.
        fn check(&mut self) {
            for (piece, &expected) in self.flat.iter().enumerate() {
                let (start, end) = (BOUNDS[piece], BOUNDS[piece + 1]);
                for gpa in [start, start + (end - start) / 2, end - 1] {
                    assert_eq!(seen(self.ept, &mut self.arena, gpa), expected);
                }
            }
        }

        /// Checks each state in which CPUs could find the EPT: the mapping of a piece is the old or
        /// the new one, or either of these without the right to fetch.
        fn check_steps(&mut self, mut copy: Arena, after: &[Flat; PIECES]) {
            for &event in &*self.arena.log {
                if !copy.replay(event) {
                    continue;
                }
                for piece in 0..PIECES {
                    let found = seen(self.ept, &mut copy, BOUNDS[piece]);
                    let (old, new) = (self.flat[piece], after[piece]);
                    assert!(
                        [old, new, old.without_fetches(), new.without_fetches()].contains(&found)
                    );
                }
            }
        }

        /// Makes a change, and checks the result.
        fn step(&mut self, count: usize) -> Result {
            // Every eighth change may run out of memory.
            let left = self.arena.left;
            if count & 7 == 0 {
                self.arena.left = left.min(self.random.index(3));
            }
            let kept = left - self.arena.left;
            self.arena.log.clear();
            let before = if count & 7 < 2 {
                Some(self.arena.copy()?)
            } else {
                None
            };
            let acted = self.act();
            self.arena.left += kept;
            match acted {
                Ok((change, flat)) => {
                    let lost = (0..PIECES).any(|piece| !self.flat[piece].is_within(flat[piece]));
                    if let Some(before) = before {
                        self.check_steps(before, &flat);
                    }
                    self.flat = flat;
                    self.complete_flush(change, lost);
                }
                Err(error) => {
                    assert!(error == ENOMEM || error == EAGAIN);
                    if let Some(before) = before {
                        assert!(self.arena.words() == before.words());
                    }
                }
            }
            self.check();
            Ok(())
        }

        /// Checks which flush a change needs, and completes the flush; `lost` is set if a mapping
        /// lost something.
        fn complete_flush(&mut self, change: Change, lost: bool) {
            let show = |_, _, _, _| {};
            let tables = survey(self.ept.rules(), self.ept.pointer(), &mut self.arena, show);
            let linked = tables.unwrap_or(0);
            let needs = if lost || linked < self.arena.used() {
                Needs::Context(self.ept.pointer().ep4ta())
            } else {
                Needs::Nothing
            };
            assert_eq!(change.needs(), needs);
            change.complete_flush(&mut self.arena);
            assert_eq!(tables, Ok(self.arena.used()));
        }
    }

    fn run(cpu: Cpu) -> Result {
        let mut random_steps = RandomSteps::new(cpu)?;
        for count in 0..STEPS {
            random_steps.step(count)?;
        }
        random_steps
            .ept
            .destroy(&mut random_steps.arena)?
            .complete_flush(&mut random_steps.arena);
        assert_eq!(random_steps.arena.used(), 0);
        assert_eq!(random_steps.arena.left, TABLES);
        Ok(())
    }

    #[test]
    fn any_sequence_of_changes_matches_a_flat_map() -> Result {
        let full = EptVpidCap::from(u64::MAX);
        for (levels, caps, mbec, accessed_dirty) in [
            (Levels::Four, full, false, true),
            (Levels::Five, full, true, false),
            (Levels::Four, full.with_pages_1g(false), true, true),
            (
                Levels::Four,
                full.with_pages_2m(false).with_execute_only(false),
                false,
                true,
            ),
        ] {
            run(Cpu {
                levels,
                caps,
                mbec,
                accessed_dirty,
            })?;
        }
        Ok(())
    }
}
