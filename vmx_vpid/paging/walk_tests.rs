// SPDX-License-Identifier: GPL-2.0

//! These are the tests of [`crate::paging::walk`], in a file of their own because of their size.

#[cfg(CONFIG_VMX_VPID_KUNIT_TEST)]
#[kernel::macros::kunit_tests(vmx_vpid_paging_walk)]
mod tests {
    use crate::paging::{
        level::EntryWidth,
        permission::{
            AccessKind::*,
            *, //
        },
        walk::{
            Exchange::*,
            *, //
        },
        walk_mock::*,
        *, //
    };

    /// Translates `GVA` on a guest that has a few entries; returns the result, and how many entries
    /// the walk read.
    fn translated(cr4: u64, efer: u64, entries: &[(u64, u64)]) -> (Result<Gpa, Stop>, usize) {
        let mut guest = Guest::new([NONE; 8]);
        for (slot, entry) in guest.entries.iter_mut().zip(entries) {
            *slot = *entry;
        }
        if cr4 & PAE == 0 {
            guest.width = EntryWidth::Bytes4;
        }
        guest.pdptes = [0, 0, 0, 0x7000 | P];
        let gpa = translate(&paging(0, cr4, efer), &mut guest, GVA, READ);
        (gpa, guest.entry_reads)
    }

    #[test]
    fn a_walk_translates_in_every_mode_and_page_size() {
        const LONG: u64 = 1 << 10;
        let large = |address| address | PS | ALL;
        let small = |address| address | ALL;
        let to = |gpa, reads| (Ok(Gpa::new(gpa)), reads);

        let (pml5, pml4) = ((0x1008, small(0x2000)), (0x2010, small(0x3000)));
        let (pdpt, pd) = ((0x3018, small(0x4000)), (0x4020, small(0x5000)));
        let all = [pml5, pml4, pdpt, pd, (0x5028, small(0x60000))];
        assert_eq!(translated(PAE | LA57, LONG, &all), to(0x60678, 5));
        let all = [pml5, pml4, pdpt, (0x4020, large(0x4060_0000))];
        assert_eq!(translated(PAE | LA57, LONG, &all), to(0x4060_5678, 4));
        let all = [pml5, pml4, (0x3018, large(0x40_c000_0000))];
        assert_eq!(translated(PAE | LA57, LONG, &all), to(0x40_c080_5678, 3));
        // With four levels, the root table is of the next level.
        let all = [(0x1010, small(0x3000)), pdpt, pd, (0x5028, small(0x60000))];
        assert_eq!(translated(PAE, LONG, &all), to(0x60678, 4));
        // With PAE paging the CPU holds the first entry, and the walk does not use CR3.
        let all = [(0x7020, small(0x5000)), (0x5028, small(0x60000))];
        assert_eq!(translated(PAE, 0, &all), to(0x60678, 2));
        let all = [(0x7020, large(0x4060_0000))];
        assert_eq!(translated(PAE, 0, &all), to(0x4060_5678, 1));
        // Entries have 4 bytes; bits 20:13 are bits 39:32 of a large page's address.
        let all = [(0x1c08, small(0x5000)), (0x5014, small(0x60000))];
        assert_eq!(translated(PSE, 0, &all), to(0x60678, 2));
        let all = [(0x1c08, large(0x5000)), (0x5014, small(0x60000))];
        assert_eq!(translated(0, 0, &all), to(0x60678, 2));
        let all = [(0x1c08, large(0x0040_0000))];
        assert_eq!(translated(PSE, 0, &all), to(0x0040_5678, 1));
        let all = [(0x1c08, large(0x0045_4000))];
        assert_eq!(translated(PSE, 0, &all), to(0x2a_0040_5678, 1));
    }

    #[test]
    fn without_paging_an_address_has_32_bits_and_nothing_is_read() {
        let mut guest = Guest::new([NONE; 8]);
        let off = Paging::new(
            0.into(),
            0x1000.into(),
            PAE.into(),
            0.into(),
            Features {
                max_phy_addr: MaxPhyAddr::new(36),
                gigabyte_pages: false,
                pse36: false,
            },
        );
        let gpa = translate(&off, &mut guest, Gva::new(0x12_3456_789a), WRITE);
        assert_eq!(gpa, Ok(Gpa::new(0x3456_789a)));
        assert_eq!((guest.entry_reads, guest.asked), (0, [0, 0]));
    }

    #[test]
    fn each_level_raises_page_faults() {
        let paging = five(WP, 0);
        for level in 1..=5 {
            let reads = 6 - level;
            for (change, code) in [
                // An entry that is not present takes priority over reserved bits, and reserved bits
                // over all levels below.
                (0, 0),
                (1 << 50 | W, 0),
                (1 << 50 | P, 1 | 1 << 3),
                (1 << 50 | ALL | D, 1 | 1 << 3),
            ] {
                let mut guest = Guest::mapped().with(level, |_| change);
                assert_eq!(translate(&paging, &mut guest, GVA, READ), fault(GVA, code));
                assert_eq!((guest.entry_reads, guest.exchanged), (reads, 0));
                let mut guest = Guest::mapped().with(level, |_| change);
                let write = fault(GVA, code | 1 << 1);
                assert_eq!(translate(&paging, &mut guest, GVA, WRITE), write);
            }
            // A table at an address without memory is like an entry that is not present.
            let mut guest = Guest::mapped();
            guest.entries[5 - level] = NONE;
            assert_eq!(translate(&paging, &mut guest, GVA, READ), fault(GVA, 0));
        }
    }

    #[test]
    fn a_pdpte_that_is_not_present_raises_a_page_fault() {
        let mut guest = Guest::mapped();
        guest.pdptes = [ALL, ALL, ALL, !P];
        let pae = paging(0, PAE, 0);
        assert_eq!(translate(&pae, &mut guest, GVA, READ), fault(GVA, 0));
        assert_eq!(guest.entry_reads, 0);
    }

    #[test]
    fn each_level_has_to_permit_an_access() {
        let paging = five(WP, SMEP);
        for level in 1..=5 {
            for (kind, user, change, code) in [
                (Read, true, U, 1 | 1 << 2),
                (Write, true, W, 1 | 1 << 1 | 1 << 2),
                (Write, false, W, 1 | 1 << 1),
                (Fetch, true, XD, 1 | 1 << 2 | 1 << 4),
                (Fetch, true, U, 1 | 1 << 2 | 1 << 4),
            ] {
                // A walk for an access that is not permitted sets no flag.
                let access = Access { kind, user };
                let mut guest = Guest::mapped().with(5, |entry| entry & !A);
                guest = guest.with(level, |entry| entry ^ change);
                assert_eq!(
                    translate(&paging, &mut guest, GVA, access),
                    fault(GVA, code)
                );
                assert_eq!(guest.exchanged, 0);
            }
            // With SMEP a supervisor may fetch, unless the U/S flag is set at every level.
            let fetch = Access {
                kind: Fetch,
                ..READ
            };
            let mut guest = Guest::mapped();
            let forbidden = fault(GVA, 1 | 1 << 4);
            assert_eq!(translate(&paging, &mut guest, GVA, fetch), forbidden);
            let mut guest = Guest::mapped().with(level, |entry| entry & !U);
            assert!(translate(&paging, &mut guest, GVA, fetch).is_ok());
        }
    }

    #[test]
    fn a_walk_reads_ac_and_pkru_only_where_they_matter() {
        let key = |entry| entry | 9 << 59;
        for (cr4, level, ac, pkru, asked, code) in [
            (0, 0, false, u32::MAX, [0, 0], None),
            (SMAP, 0, false, 0, [1, 0], Some(1)),
            (SMAP, 0, true, 0, [1, 0], None),
            // On a supervisor page neither register matters.
            (SMAP | PKE, 1, false, u32::MAX, [0, 0], None),
            (PKE, 0, false, !(3 << 18), [0, 1], None),
            (PKE, 0, false, 2 << 18, [0, 1], None),
            (PKE, 0, false, 1 << 18, [0, 1], Some(1 | 1 << 5)),
            (SMAP | PKE, 0, false, 1 << 18, [1, 1], Some(1 | 1 << 5)),
        ] {
            let mut guest = Guest::mapped().with(1, key).with(level, |entry| entry & !U);
            (guest.ac, guest.pkru) = (ac, pkru);
            let expected = match code {
                Some(code) => fault(GVA, code),
                None => Ok(Gpa::new(0x60678)),
            };
            assert_eq!(translate(&five(WP, cr4), &mut guest, GVA, READ), expected);
            assert_eq!(guest.asked, asked);
        }
    }

    #[test]
    fn a_walk_sets_the_flags_that_are_clear() {
        let paging = five(WP, 0);
        // Bits 4:0 of `missing` name entries without the accessed flag; bit 5 is set if the last
        // entry lacks the dirty flag.
        for missing in 0..64usize {
            for access in [READ, WRITE] {
                let mut guest = Guest::mapped();
                let mut expected = [0; 8];
                let mut count = 0;
                for (index, entry) in guest.entries.iter_mut().take(5).enumerate() {
                    let dirty = index == 4 && missing & 32 != 0;
                    if missing & 1 << index != 0 {
                        entry.1 &= !A;
                    }
                    if dirty {
                        entry.1 &= !D;
                    }
                    // The walk changes entries from the top down, and each entry once.
                    if missing & 1 << index != 0 || dirty && access == WRITE {
                        expected[count] = entry.0;
                        count += 1;
                    }
                }
                assert_eq!(
                    translate(&paging, &mut guest, GVA, access),
                    Ok(Gpa::new(0x60678))
                );
                assert_eq!((guest.exchanges, guest.exchanged), (expected, count));
                assert_eq!(guest.entry_reads, 5);
                let clean = missing & 32 != 0 && access == READ;
                let leaf = if clean {
                    0x60000 | ALL
                } else {
                    0x60000 | ALL | D
                };
                assert_eq!(guest.entries[..4], Guest::mapped().entries[..4]);
                assert_eq!(guest.entries[4].1, leaf);
            }
        }
    }

    #[test]
    fn a_changed_entry_restarts_the_walk() {
        for level in 1..=5 {
            // Another CPU clears the entry between the walk and its mark.
            let mut guest = Guest::mapped().with(level, |entry| entry & !A);
            (guest.outcome, guest.outcomes) = (Changed, 1);
            let paging = five(0, 0);
            assert_eq!(translate(&paging, &mut guest, GVA, READ), fault(GVA, 0));
            assert_eq!(guest.entry_reads, 5 + 6 - level);
        }
        // Another CPU maps another page.
        let mut guest = Guest::mapped().with(1, |entry| entry & !A);
        (guest.outcome, guest.outcomes, guest.other) = (Changed, 1, 0x77000 | P);
        assert_eq!(
            translate(&five(0, 0), &mut guest, GVA, READ),
            Ok(Gpa::new(0x77678))
        );
        assert_eq!(
            (guest.entry_reads, guest.entries[4].1),
            (10, 0x77000 | P | A)
        );
    }

    #[test]
    fn a_guest_that_keeps_changing_entries_has_to_retry() {
        let mut guest = Guest::mapped().with(3, |entry| entry & !A);
        (guest.outcome, guest.outcomes) = (Changed, usize::MAX);
        guest.other = 0x4000 | P;
        assert_eq!(
            translate(&five(0, 0), &mut guest, GVA, READ),
            Err(Stop::Retry)
        );
        assert_eq!(guest.entry_reads, 16 * 5);
    }

    #[test]
    fn tables_in_rom_translate_and_vanished_tables_fault() {
        for level in 1..=5 {
            let mut guest = Guest::mapped().with(level, |entry| entry & !A);
            (guest.outcome, guest.outcomes) = (ReadOnly, 1);
            assert_eq!(
                translate(&five(0, 0), &mut guest, GVA, READ),
                Ok(Gpa::new(0x60678))
            );
            assert_eq!((guest.exchanged, guest.entry_reads), (1, 5));
            // Entries that are not in ROM are marked nevertheless.
            let mut guest = (level..=5).fold(Guest::mapped(), |g, n| g.with(n, |e| e & !A));
            (guest.outcome, guest.outcomes) = (ReadOnly, 6 - level);
            guest = guest.with(1, |entry| entry & !D);
            assert!(translate(&five(0, 0), &mut guest, GVA, WRITE).is_ok());
            let marked = guest.entries[4].1 & D != 0;
            assert_eq!((marked, guest.exchanged), (level > 1, (7 - level).min(5)));
            let mut guest = Guest::mapped().with(level, |entry| entry & !A);
            (guest.outcome, guest.outcomes) = (NoMemory, 1);
            assert_eq!(translate(&five(0, 0), &mut guest, GVA, READ), fault(GVA, 0));
        }
    }

    /// Reads 16 bytes at an offset in the mapped page.
    fn operand(guest: &mut Guest, place: u64) -> Result<[u8; 16], Stop> {
        let gva = Gva::new(GVA.into_raw() & !0xfff | place);
        read(&five(0, 0), guest, gva, READ, true)
    }

    #[test]
    fn an_operand_may_cross_a_page_boundary() {
        for place in [0, 0x678, 0xff0, 0xff1, 0xff8, 0xfff] {
            let mut guest = Guest::mapped();
            let expected = core::array::from_fn(|i| match place + i as u64 {
                on_first @ ..0x1000 => (0x60 + on_first) as u8,
                on_second => (0x61 + on_second) as u8,
            });
            assert_eq!(operand(&mut guest, place), Ok(expected));
            let pages = if place > 0xff0 { 2 } else { 1 };
            assert_eq!((guest.entry_reads, guest.data_reads), (5 * pages, pages));
        }
    }

    #[test]
    fn a_page_fault_comes_before_any_byte_is_read() {
        let second = Gva::new((GVA.into_raw() | 0xfff) + 1);
        let mut guest = Guest::mapped();
        guest.entries[5] = NONE;
        assert_eq!(operand(&mut guest, 0xff8), fault(second, 0));
        assert_eq!(guest.data_reads, 0);
        assert!(operand(&mut guest, 0xff0).is_ok());
        let mut guest = Guest::mapped().with(1, |_| 0);
        let first = Gva::new(GVA.into_raw() & !0xfff | 0xff8);
        assert_eq!(operand(&mut guest, 0xff8), fault(first, 0));
        assert_eq!(guest.data_reads, 0);
    }

    #[test]
    fn missing_memory_reads_as_all_ones() {
        for (data, first, second) in [
            ([0x60, 0], false, true),
            ([0x61, 0], true, false),
            ([0, 0], true, true),
        ] {
            let mut guest = Guest::mapped();
            guest.data = data;
            let bytes = operand(&mut guest, 0xff8);
            let ones = |part: &[u8]| part.iter().all(|&byte| byte == 0xff);
            assert!(bytes.is_ok_and(|b| ones(&b[..8]) == first && ones(&b[8..]) == second));
            let bytes = operand(&mut guest, 0);
            assert!(bytes.is_ok_and(|b| ones(&b) == first));
        }
    }

    #[test]
    fn addresses_wrap_at_4_gib_outside_64_bit_mode() {
        let paging = paging(0, PAE, 1 << 10);
        let mut guest = Guest::new([
            (0x1000, 0x2000 | ALL),
            // The last page below 4 GiB, the page that follows it, and the page at 0.
            (0x2018, 0x3000 | ALL),
            (0x3ff8, 0x4000 | ALL),
            (0x4ff8, 0x60000 | ALL),
            (0x2020, 0x61000_u64 | P),
            (0x2000, 0x5000 | ALL),
            (0x5000, 0x6000 | ALL),
            (0x6000, 0x61000 | ALL),
        ]);
        let gva = Gva::new(0xffff_fff8);
        let bytes: Result<[u8; 16], Stop> = read(&paging, &mut guest, gva, READ, false);
        assert!(bytes.is_ok_and(|b| b[8..] == [0x61, 0x62, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68]));
        let high = Gva::new(0x5_ffff_fff8);
        let same: Result<[u8; 16], Stop> = read(&paging, &mut guest, high, READ, false);
        assert_eq!(same, bytes);
        let beyond: Result<[u8; 16], Stop> = read(&paging, &mut guest, gva, READ, true);
        assert_eq!(beyond, fault(Gva::new(1 << 32), 0));
    }
}
