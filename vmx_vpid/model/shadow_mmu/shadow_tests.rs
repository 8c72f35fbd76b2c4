// SPDX-License-Identifier: GPL-2.0

//! These tests check single properties of shadow pages; [`crate::model::shadow_run`] checks shadow
//! pages by random steps.

use super::{
    bug::Bug,
    fetch::Fixed,
    guest::Paging,
    role::Role,
    roots::Cache,
    Gfn,
    PageId,
    Shadows,
    Vm, //
};
use crate::{
    paging::{
        entry::Entry,
        level::EntryWidth,
        permission::{
            Access,
            AccessKind,
            Control, //
        }, //
    },
    x86::{
        addr::Hpa,
        control_regs::{
            Cr0,
            Cr4,
            Efer, //
        }, //
    }, //
};
use kernel::prelude::*;

/// A guest with four levels of tables: the roots in the frames 0 to 4 all lead through frame 5 and
/// frame 6 to the page table in frame 7, which maps itself at page 0, and frame 9 at page 1.
struct Guest {
    words: KVVec<[u64; 512]>,
    flushes: u32,
}

/// The bits of an entry that permits everything, with its flags.
const ALL: u64 = 0x67;

impl Guest {
    const ROOTS: u64 = 5;

    fn new() -> Result<Self> {
        let mut words = KVVec::from_elem([0; 512], 10, GFP_KERNEL)?;
        for root in 0..Self::ROOTS {
            words[root as usize][0] = 5 << 12 | ALL;
        }
        words[5][0] = 6 << 12 | ALL;
        words[6][0] = 7 << 12 | ALL;
        words[7][0] = 7 << 12 | ALL;
        words[7][1] = 9 << 12 | ALL;
        Ok(Self { words, flushes: 0 })
    }
}

impl Vm for Guest {
    fn read(&self, table: Gfn, index: usize, _: EntryWidth) -> Option<Entry> {
        Some(Entry::from(self.words.get(table.0 as usize)?[index]))
    }

    fn write(&mut self, table: Gfn, index: usize, _: EntryWidth, entry: Entry) {
        self.words[table.0 as usize][index] = entry.into_raw();
    }

    fn host(&self, frame: Gfn) -> Option<Hpa> {
        Some(Hpa::new(frame.0 << 12))
    }

    fn flush_remote(&mut self) {
        self.flushes += 1;
    }

    fn now(&self) -> u32 {
        0
    }

    fn has(&self, _: Bug) -> bool {
        false
    }
}

fn paging(root: u64) -> Paging {
    Paging {
        control: Control {
            cr0: Cr0::from(0).with_paging(true).with_write_protect(true),
            cr4: Cr4::from(0).with_physical_address_extension(true),
            efer: Efer::from(0).with_long_mode_active(true),
        },
        levels: 4,
        cr3: root << 12,
    }
}

fn role() -> Role {
    Role::of_guest(&paging(0).control, 4, false, false).root()
}

/// Returns a guest, its pages, and a vCPU with a loaded root.
fn start() -> Result<(Guest, Shadows, Cache)> {
    let mut guest = Guest::new()?;
    let mut shadows = Shadows::new(24)?;
    let mut cache = Cache::new(role());
    assert_eq!(cache.load(&mut shadows, &mut guest, &paging(0)), Ok(true));
    Ok((guest, shadows, cache))
}

/// Handles a page fault of a page.
fn touch(
    (guest, shadows, cache): (&mut Guest, &mut Shadows, &Cache),
    root: u64,
    page: u64,
    kind: AccessKind,
) -> Fixed {
    let access = Access { kind, user: false };
    let fixed = shadows.fault(guest, cache, &paging(root), page << 12, access);
    fixed.unwrap_or(Fixed::GuestFault)
}

fn top(cache: &Cache) -> PageId {
    cache.top(0).map_or(PageId(0), |(page, _)| page)
}

#[kernel::macros::kunit_tests(vmx_vpid_shadow)]
mod tests {
    use super::{
        super::zap::Written,
        *, //
    };

    #[test]
    fn a_page_is_found_only_by_its_table_and_its_whole_role() -> Result {
        let (mut guest, mut shadows) = (Guest::new()?, Shadows::new(40)?);
        let mut get = |table, role| shadows.get(&mut guest, Gfn(table), role, role);
        let first = get(3, role());
        assert!(first.is_ok());
        assert_eq!(get(3, role()), first);
        // Another table in the same bucket.
        assert!(get(3 + 8, role()) != first);
        let bits = [
            0u32, 1, 4, 5, 6, 7, 8, 9, 10, 11, 13, 14, 15, 16, 17, 18, 20, 24,
        ];
        for bit in bits {
            let other = get(3, Role::from_raw(role().into_raw() ^ 1 << bit));
            assert!(other.is_ok() && other != first);
        }
        assert_eq!(get(3, role()), first);
        Ok(())
    }

    #[test]
    fn each_root_records_its_unsync_pages() -> Result {
        let (mut guest, mut shadows, mut cache) = start()?;
        let first = top(&cache);
        let fixed = touch((&mut guest, &mut shadows, &cache), 0, 1, AccessKind::Read);
        assert_eq!(fixed, Fixed::Yes);
        // A second root shares all pages below.
        assert!(!cache.turn_to(&mut shadows, &mut guest, paging(1).cr3));
        assert_eq!(cache.load(&mut shadows, &mut guest, &paging(1)), Ok(true));
        let second = top(&cache);
        touch((&mut guest, &mut shadows, &cache), 1, 1, AccessKind::Read);
        assert!(!shadows.is_unsync(first) && !shadows.is_unsync(second));
        assert!(shadows.is_protected(Gfn(7)));
        // From now on, the guest may write to its page table.
        let fixed = touch((&mut guest, &mut shadows, &cache), 1, 0, AccessKind::Write);
        assert_eq!(fixed, Fixed::Yes);
        assert!(shadows.is_unsync(first) && shadows.is_unsync(second));
        assert!(!shadows.is_protected(Gfn(7)));
        // KVM does not see the write until the root is synchronised.
        guest.words[7][1] = 0;
        let place = shadows.walk(second, 4, 1 << 12);
        assert!(shadows.entry(place).present());
        cache.sync(&mut shadows, &mut guest);
        assert!(!shadows.entry(place).present());
        assert!(!shadows.is_unsync(second) && shadows.is_protected(Gfn(7)));
        Ok(())
    }

    #[test]
    fn kvm_sees_a_write_to_a_write_protected_table() -> Result {
        let (mut guest, mut shadows, cache) = start()?;
        guest.words[7][2] = 6 << 12 | ALL;
        touch((&mut guest, &mut shadows, &cache), 0, 1, AccessKind::Read);
        let fixed = touch((&mut guest, &mut shadows, &cache), 0, 2, AccessKind::Write);
        assert_eq!(fixed, Fixed::Emulate(Gfn(6)));
        let written = |offset| Written {
            frame: Gfn(6),
            offset,
            bytes: 8,
        };
        let level = |shadows: &Shadows| shadows.walk(top(&cache), 4, 1 << 12).level;
        assert_eq!(level(&shadows), 1);
        shadows.track_write(&mut guest, written(8));
        assert_eq!(level(&shadows), 1);
        let before = guest.flushes;
        shadows.track_write(&mut guest, written(0));
        assert_eq!(level(&shadows), 2);
        assert!(guest.flushes > before);
        // After the third write in a row, KVM zaps the page: the frame may not be a table any more.
        shadows.track_write(&mut guest, written(0));
        assert_eq!(level(&shadows), 3);
        assert!(!shadows.is_protected(Gfn(6)));
        Ok(())
    }

    #[test]
    fn three_roots_are_kept_and_the_last_used_comes_first() -> Result {
        let (mut guest, mut shadows, mut cache) = start()?;
        let mut tops = [top(&cache); 5];
        for root in 1..Guest::ROOTS {
            assert!(!cache.turn_to(&mut shadows, &mut guest, paging(root).cr3));
            assert!(!cache.is_loaded());
            assert_eq!(
                cache.load(&mut shadows, &mut guest, &paging(root)),
                Ok(true)
            );
            tops[root as usize] = top(&cache);
        }
        // Root 0 was freed when the fourth other root was loaded.
        for (root, kept) in [
            (4, true),
            (1, true),
            (4, true),
            (2, true),
            (3, true),
            (1, true),
        ] {
            assert_eq!(
                cache.turn_to(&mut shadows, &mut guest, paging(root).cr3),
                kept
            );
            assert_eq!(top(&cache), tops[root as usize]);
        }
        assert!(!cache.turn_to(&mut shadows, &mut guest, paging(0).cr3));
        assert!(!cache.is_loaded());
        // The page of root 0 still exists, and is found.
        assert_eq!(cache.load(&mut shadows, &mut guest, &paging(0)), Ok(true));
        assert_eq!(top(&cache), tops[0]);
        // Root 4 was the least recently used root.
        assert!(!cache.turn_to(&mut shadows, &mut guest, paging(4).cr3));
        Ok(())
    }

    #[test]
    fn later_roots_move_up_when_a_cached_root_is_used() -> Result {
        let (mut guest, mut shadows, mut cache) = start()?;
        for root in 1..=3 {
            cache.turn_to(&mut shadows, &mut guest, paging(root).cr3);
            assert_eq!(
                cache.load(&mut shadows, &mut guest, &paging(root)),
                Ok(true)
            );
        }
        // Three writes to its table zap the current root.
        for _ in 0..3 {
            let written = Written {
                frame: Gfn(3),
                offset: 8,
                bytes: 8,
            };
            shadows.track_write(&mut guest, written);
        }
        cache.free_obsolete(&mut shadows, &mut guest);
        assert!(!cache.is_loaded());
        // Two other cached roots are left, and room for one more besides the current root.
        assert!(cache.turn_to(&mut shadows, &mut guest, paging(1).cr3));
        assert!(!cache.turn_to(&mut shadows, &mut guest, paging(4).cr3));
        assert_eq!(cache.load(&mut shadows, &mut guest, &paging(4)), Ok(true));
        for root in [0, 2, 1] {
            assert!(cache.turn_to(&mut shadows, &mut guest, paging(root).cr3));
        }
        Ok(())
    }

    #[test]
    fn an_obsolete_root_is_freed() -> Result {
        let (mut guest, mut shadows, mut cache) = start()?;
        let first = top(&cache);
        touch((&mut guest, &mut shadows, &cache), 0, 1, AccessKind::Read);
        assert_eq!(shadows.left(), 20);
        shadows.zap_all(&mut guest);
        // All other pages are free; the root is not, as long as a vCPU has it.
        assert_eq!(shadows.left(), 23);
        assert_eq!(shadows.table_of(first), Some(Gfn(0)));
        cache.free_obsolete(&mut shadows, &mut guest);
        assert!(!cache.is_loaded());
        assert_eq!(shadows.left(), 24);
        Ok(())
    }
}
