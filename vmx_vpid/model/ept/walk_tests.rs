// SPDX-License-Identifier: GPL-2.0

//! These tests test [`super::walk`]; they are in a file of their own because of their size.

#[cfg(CONFIG_VMX_VPID_KUNIT_TEST)]
#[kernel::macros::kunit_tests(vmx_vpid_ept_walk)]
mod tests {
    use crate::{
        ept::{
            entry::*,
            violation::Qualification,
            Eptp,
            Levels, //
        },
        model::ept::{
            access::*,
            walk::{
                Outcome::*,
                *, //
            }, //
        },
        paging::permission::AccessKind::{
            self,
            *, //
        },
        vmx::caps::EptVpidCap,
        x86::addr::*, //
    };

    const RWX: u64 = 0b111;
    const XU: u64 = 1 << 10;
    const WB: u64 = 6 << 3;
    const LARGE: u64 = 1 << 7;
    const A: u64 = 1 << 8;
    const D: u64 = 1 << 9;

    /// An address with a different index at each level, and an offset: 5, 4, 3, 2, 1 and 0x678.
    const GPA: Gpa = Gpa::new(5 << 48 | 4 << 39 | 3 << 30 | 2 << 21 | 1 << 12 | 0x678);
    /// The same address without the bits of the fifth level.
    const GPA_48: Gpa = Gpa::new(GPA.into_raw() & 0xffff_ffff_ffff);

    /// The addresses of the entries for [`GPA`].
    const PML5E: u64 = 0x5000 + 5 * 8;
    const PML4E: u64 = 0x4000 + 4 * 8;
    const PDPTE: u64 = 0x3000 + 3 * 8;
    const PDE: u64 = 0x2000 + 2 * 8;
    const PTE: u64 = 0x1000 + 8;
    const PLACES: [u64; 5] = [PML5E, PML4E, PDPTE, PDE, PTE];

    /// Memory with five entries; all other words are 0.
    #[derive(Clone, Copy)]
    struct Memory {
        /// The entries at [`PLACES`].
        entries: [u64; 5],
        /// The number of reads of entries.
        reads: usize,
        /// The number of exchanges that fail because another CPU comes first.
        races: usize,
    }

    impl Memory {
        /// Makes the entries that map a page of 4 KiB at 0x123_4567_8000.
        fn new() -> Self {
            Self {
                entries: [
                    0x4000 | RWX | XU,
                    0x3000 | RWX | XU,
                    0x2000 | RWX | XU,
                    0x1000 | RWX | XU,
                    0x123_4567_8000 | WB | RWX | XU,
                ],
                reads: 0,
                races: 0,
            }
        }

        /// Clears bits in each entry, from level 5 down.
        fn without(mut self, bits: [u64; 5]) -> Self {
            for (entry, bits) in self.entries.iter_mut().zip(bits) {
                *entry &= !bits;
            }
            self
        }

        fn at(&mut self, at: Hpa) -> Option<&mut u64> {
            let place = PLACES.iter().position(|&place| place == at.into_raw())?;
            Some(&mut self.entries[place])
        }
    }

    impl Tables for Memory {
        fn read(&mut self, at: Hpa) -> u64 {
            self.reads += 1;
            self.at(at).map_or(0, |entry| *entry)
        }

        fn exchange(&mut self, at: Hpa, old: u64, new: u64) -> bool {
            let raced = self.races > 0;
            self.races = self.races.saturating_sub(1);
            match self.at(at) {
                Some(entry) if *entry == old && !raced => {
                    *entry = new;
                    true
                }
                _ => false,
            }
        }
    }

    fn rules(mbec: bool) -> Rules {
        Rules::new(EptVpidCap::from(u64::MAX), MaxPhyAddr::new(46), mbec)
    }

    fn four(accessed_dirty: bool) -> Eptp {
        Eptp::for_root(Hpa::new(0x4000), Levels::Four, accessed_dirty)
    }

    fn five(accessed_dirty: bool) -> Eptp {
        Eptp::for_root(Hpa::new(0x5000), Levels::Five, accessed_dirty)
    }

    /// Returns an access to a page that the guest's tables only let a supervisor read.
    fn page(kind: AccessKind) -> Access {
        let linear = Linear {
            user: false,
            writable: false,
            no_execute: true,
        };
        let stage = Stage::Page(linear);
        Access { kind, stage }
    }

    fn table(kind: AccessKind) -> Access {
        let stage = Stage::Table;
        Access { kind, stage }
    }

    fn translated(memory: &mut Memory, eptp: Eptp, gpa: Gpa) -> Option<Translation> {
        match walk(rules(false), eptp, memory, gpa, page(Read)) {
            Translated(translation) => Some(translation),
            _ => None,
        }
    }

    #[test]
    fn a_walk_makes_a_reference_for_each_level() {
        for (eptp, gpa, levels) in [(four(false), GPA_48, 4), (five(false), GPA, 5)] {
            // Ends at a page of 4 KiB, 2 MiB or 1 GiB, or at an entry that is not present.
            for (place, entry, saved, hpa) in [
                (4, 0x123_4567_8000 | WB | RWX, 0, 0x123_4567_8678),
                (3, 0x123_4560_0000 | LARGE | WB | RWX, 1, 0x123_4560_1678),
                (2, 0x123_4000_0000 | LARGE | WB | RWX, 2, 0x123_4040_1678),
            ] {
                let mut memory = Memory::new();
                memory.entries[place] = entry;
                let found = translated(&mut memory, eptp, gpa);
                assert_eq!(found.map(|found| found.hpa), Some(Hpa::new(hpa)));
                let last = Last {
                    level: Level::ALL[place],
                    entry: Entry::from(entry),
                    references: levels - saved,
                };
                assert_eq!(found.map(|found| found.last), Some(last));
                assert_eq!(memory.reads, levels - saved);
            }
        }
    }

    #[test]
    fn a_walk_ends_where_an_entry_is_not_present() {
        for place in 0..5 {
            let mut memory = Memory::new();
            memory.entries[place] = !(RWX | XU);
            let outcome = walk(rules(true), five(true), &mut memory, GPA, page(Write));
            let last = Last {
                level: Level::ALL[place],
                entry: Entry::from(!(RWX | XU)),
                references: place + 1,
            };
            // Bits 6:3 are 0, and bits 11:7 have the rights of the guest's tables.
            let qualification = Qualification::from(1 << 1 | 0b10_0110 << 6);
            assert_eq!(outcome, Violation(qualification, last));
            assert_eq!(memory.reads, place + 1);
        }
    }

    #[test]
    fn four_levels_translate_48_bits() {
        let none = Last {
            level: Level::Pml4,
            entry: Entry::NONE,
            references: 0,
        };
        for bit in 48..64 {
            let gpa = Gpa::new(GPA_48.into_raw() | 1 << bit);
            let outcome = walk(
                rules(false),
                four(true),
                &mut Memory::new(),
                gpa,
                page(Read),
            );
            assert!(matches!(outcome, Violation(_, last) if last == none));
        }
        assert!(translated(&mut Memory::new(), five(false), GPA).is_some());
        let too_high = Gpa::new(GPA.into_raw() | 1 << 57);
        assert!(translated(&mut Memory::new(), five(false), too_high).is_none());
    }

    #[test]
    fn a_right_needs_the_permission_of_all_entries() {
        // One entry, then also another entry, lacks the right.
        for (right, refused) in [
            (1 << 1, page(Write)),
            (1 << 2, page(Fetch)),
            (1 << 1, table(Write)),
        ] {
            for first in 0..5 {
                for second in first..5 {
                    let mut taken = [0; 5];
                    taken[first] = right;
                    taken[second] = right;
                    let mut memory = Memory::new().without(taken);
                    let left = Rights::from(RWX & !right);
                    let found = translated(&mut memory, five(false), GPA);
                    assert_eq!(found.map(|found| found.rights), Some(left));
                    let outcome = walk(rules(false), five(false), &mut memory, GPA, refused);
                    let Violation(qualification, last) = outcome else {
                        panic!("{:?}", outcome);
                    };
                    // The walk reached the page's entry.
                    assert_eq!((last.level, last.references), (Level::Pt, 5));
                    let raw = qualification.into_raw();
                    assert_eq!(raw >> 3 & 0b1111, RWX & !right);
                }
            }
        }
    }

    #[test]
    fn the_rights_of_two_entries_may_have_nothing_in_common() {
        // One entry permits only reads, the next one only fetches.
        let mut memory = Memory::new().without([0, 0b110, 0b011, 0, 0]);
        for kind in [Read, Write, Fetch] {
            let outcome = walk(rules(false), five(false), &mut memory, GPA, page(kind));
            assert!(matches!(outcome, Violation(found, _) if !found.is_present(false)));
        }
    }

    #[test]
    fn user_mode_fetches_have_a_right_of_their_own() {
        let user = Access {
            kind: Fetch,
            stage: Stage::Page(Linear::UNPAGED),
        };
        for (taken, for_user, for_supervisor) in [(1 << 2, true, false), (XU, false, true)] {
            for place in 0..5 {
                let mut bits = [0; 5];
                bits[place] = taken;
                let mut memory = Memory::new().without(bits);
                for (access, permitted) in [(user, for_user), (page(Fetch), for_supervisor)] {
                    let outcome = walk(rules(true), five(false), &mut memory, GPA, access);
                    assert_eq!(matches!(outcome, Translated(_)), permitted);
                    // Without mode-based execute control, bit 2 counts for both modes.
                    let outcome = walk(rules(false), five(false), &mut memory, GPA, access);
                    assert_eq!(matches!(outcome, Translated(_)), taken == XU);
                }
            }
        }
    }

    #[test]
    fn a_misconfiguration_comes_before_a_violation() {
        for place in 0..5 {
            for above in 0..=place {
                // The entry permits writes but not reads: misconfigured.  This entry, or one above,
                // permits no fetches.
                let mut taken = [0; 5];
                taken[above] |= 1 << 2;
                taken[place] |= 1;
                let mut memory = Memory::new().without(taken);
                let entry = Entry::from(memory.entries[place]);
                let last = Last {
                    level: Level::ALL[place],
                    entry,
                    references: place + 1,
                };
                let outcome = walk(rules(false), five(true), &mut memory, GPA, page(Fetch));
                assert_eq!(outcome, Misconfiguration(Misconfig::WriteOnly, last));
            }
            for above in 0..place {
                let mut taken = [0; 5];
                taken[above] = RWX;
                taken[place] = 1;
                let mut memory = Memory::new().without(taken);
                let outcome = walk(rules(false), five(true), &mut memory, GPA, page(Fetch));
                assert!(matches!(outcome, Violation(..)));
            }
        }
    }

    /// Returns the flags that a walk sets in the five entries.
    fn flags(eptp: Eptp, access: Access) -> [u64; 5] {
        let mut memory = Memory::new();
        let outcome = walk(rules(false), eptp, &mut memory, GPA, access);
        assert!(matches!(outcome, Translated(_)));
        memory.entries.map(|entry| entry & (A | D))
    }

    #[test]
    fn a_walk_sets_accessed_and_dirty_flags() {
        for access in [page(Read), page(Write), page(Fetch), table(Read)] {
            assert_eq!(flags(five(false), access), [0; 5]);
        }
        for (access, of_page) in [
            (page(Read), A),
            (page(Fetch), A),
            (page(Write), A | D),
            // An access to the guest's page tables counts as a write, even if the CPU writes
            // nothing.
            (table(Read), A | D),
            (table(Write), A | D),
        ] {
            assert_eq!(flags(five(true), access), [A, A, A, A, of_page]);
        }
    }

    #[test]
    fn set_flags_are_not_written_again() {
        let mut memory = Memory::new();
        memory.entries[4] |= D;
        let outcome = walk(rules(false), five(true), &mut memory, GPA, page(Write));
        assert!(matches!(outcome, Translated(_)));
        let marked = memory.entries;
        // Every exchange would fail.
        memory.races = usize::MAX;
        for access in [page(Read), page(Write), table(Read)] {
            let outcome = walk(rules(false), five(true), &mut memory, GPA, access);
            assert!(matches!(outcome, Translated(_)));
        }
        assert_eq!(memory.entries, marked);
    }

    #[test]
    fn a_walk_that_faults_leaves_no_flags() {
        for taken in [[0, 0, 0, 0, RWX], [0, 0, 0, 0, 2], [0, 0, 0, 0, 1]] {
            let before = Memory::new().without(taken);
            let mut memory = before;
            let outcome = walk(rules(false), five(true), &mut memory, GPA, page(Write));
            assert!(!matches!(outcome, Translated(_)));
            assert_eq!(memory.entries, before.entries);
        }
    }

    #[test]
    fn a_walk_is_retried_when_an_entry_changes() {
        let mut memory = Memory::new();
        memory.races = 3;
        let outcome = walk(rules(false), five(true), &mut memory, GPA, page(Write));
        assert!(matches!(outcome, Translated(_)));
        // Three attempts fail, and the fourth succeeds.
        assert_eq!(memory.reads, 4 * 5);
        memory = Memory::new();
        memory.races = usize::MAX;
        let outcome = walk(rules(false), five(true), &mut memory, GPA, page(Write));
        assert_eq!(outcome, Retry);
    }

    #[test]
    fn with_flags_every_access_to_guest_tables_is_a_write() {
        // The frame of the guest's page table is read-only in the EPT.
        let mut memory = Memory::new().without([0, 0, 0, 0, 1 << 1]);
        let mut outcome = |eptp, kind| walk(rules(false), eptp, &mut memory, GPA, table(kind));
        assert!(matches!(outcome(five(false), Read), Translated(_)));
        for (eptp, kind) in [
            (five(false), Write),
            (five(true), Read),
            (five(true), Write),
        ] {
            // Bit 7 without bit 8: the access is to a table, on the way to a linear address.
            let qualification = Qualification::from(0b11 | 0b101 << 3 | 1 << 7);
            assert!(matches!(outcome(eptp, kind), Violation(found, _) if found == qualification));
        }
    }

    #[test]
    fn the_memory_type_comes_from_the_last_entry() {
        for (number, memory_type) in [
            (0, MemoryType::Uncacheable),
            (1, MemoryType::WriteCombining),
            (4, MemoryType::WriteThrough),
            (5, MemoryType::WriteProtected),
            (6, MemoryType::WriteBack),
        ] {
            let mut memory = Memory::new().without([0, 0, 0, 0, WB]);
            memory.entries[4] |= number << 3;
            let found = translated(&mut memory, five(false), GPA);
            assert_eq!(found.map(|found| found.memory_type), Some(memory_type));
        }
    }
}
