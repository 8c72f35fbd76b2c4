// SPDX-License-Identifier: GPL-2.0

//! This module defines a shadow page: 512 entries, the source of each, and KVM's state of the page.
//!
//! Source: `struct kvm_mmu_page` in `mmu/mmu_internal.h`.

use super::{
    page_id::{
        Gfn,
        PageId, //
    },
    role::{
        Grant,
        Role, //
    }, //
};
use crate::{
    paging::{
        entry::Entry,
        level::ADDRESS, //
    },
    x86::addr::Hpa, //
};
use kernel::prelude::*;

/// The number of entries of a page.
pub(crate) const ENTRIES: usize = 512;

/// The number of consecutive writes to the guest's table after which the page is zapped, because
/// the frame is probably not a table any more: `detect_write_flooding()`.
const FLOOD: u32 = 3;

/// A bit for each entry.
#[derive(Clone, Copy)]
pub(super) struct Bits([u64; ENTRIES / 64]);

impl Bits {
    const NONE: Self = Self([0; ENTRIES / 64]);

    /// Returns whether the bit of an entry is set.
    pub(super) fn has(&self, index: usize) -> bool {
        self.0[index / 64] >> (index % 64) & 1 != 0
    }

    /// Sets or clears the bit of an entry.
    fn set(&mut self, index: usize, value: bool) {
        let bit = 1 << (index % 64);
        if value {
            self.0[index / 64] |= bit;
        } else {
            self.0[index / 64] &= !bit;
        }
    }

    /// Returns the entries whose bits are set in this copy.
    pub(super) fn each(self) -> impl Iterator<Item = usize> {
        self.0.into_iter().enumerate().flat_map(|(word, mut bits)| {
            core::iter::from_fn(move || {
                let bit = (bits != 0).then(|| bits.trailing_zeros())?;
                bits &= bits - 1;
                Some(word * 64 + bit as usize)
            })
        })
    }
}

/// An entry, and the guest's translation that the entry shadows.
#[derive(Clone, Copy)]
pub(super) struct Slot {
    /// The entry that the CPU reads.
    pub(super) entry: Entry,
    /// The guest's frame that the entry maps; above the lowest level, the guest's table below.
    pub(super) gfn: Gfn,
    /// The access that KVM permits.
    pub(super) access: Grant,
    /// The access that the guest's own entries permit.
    pub(super) guest: Grant,
    /// When KVM last read the guest's entries.
    pub(super) time: u32,
}

/// The state of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// The page is free.
    Free,
    /// The page is in use, and a look-up finds the page.
    Valid,
    /// The page was zapped; a vCPU that has it as a root has to free that root.
    Invalid,
}

/// A shadow page.
pub(super) struct Page {
    /// The role.
    pub(super) role: Role,
    /// The guest's table that the page shadows; for a direct page, the first frame that it maps.
    pub(super) gfn: Gfn,
    /// The state.
    pub(super) state: State,
    /// The generation in which the page was made.
    pub(super) generation: u32,
    /// The order in which pages were made.
    pub(super) born: u32,
    /// The guest may have changed the table since the page was synchronised.
    pub(super) unsync: bool,
    /// The entries that lead to unsync pages, directly or through other pages.
    pub(super) unsync_children: Bits,
    /// The number of those entries.
    pub(super) unsync_count: u32,
    /// The number of roots of vCPUs that have the page.
    pub(super) roots: u32,
    /// Writes to the guest's table since a look-up last found the page.
    flood: u32,
    slots: KVVec<Slot>,
    present: Bits,
    /// The entries of other pages that lead to the page.
    parents: KVec<(PageId, usize)>,
}

impl Page {
    /// Makes a free page.
    pub(super) fn new() -> Result<Self> {
        const EMPTY: Slot = Slot {
            entry: Entry::from_raw(0),
            gfn: Gfn(0),
            access: Grant::ALL,
            guest: Grant::ALL,
            time: 0,
        };
        Ok(Self {
            role: Role::from_raw(0),
            gfn: Gfn(0),
            state: State::Free,
            generation: 0,
            born: 0,
            unsync: false,
            unsync_children: Bits::NONE,
            unsync_count: 0,
            roots: 0,
            flood: 0,
            slots: KVVec::from_elem(EMPTY, ENTRIES, GFP_KERNEL)?,
            present: Bits::NONE,
            parents: KVec::new(),
        })
    }

    /// Allocates the page, with no entries.
    pub(super) fn start(&mut self, gfn: Gfn, role: Role, generation: u32, born: u32) {
        self.reset();
        (self.gfn, self.role) = (gfn, role);
        (self.generation, self.born) = (generation, born);
        self.state = State::Valid;
    }

    /// Frees the page.
    pub(super) fn reset(&mut self) {
        for index in self.present.each() {
            self.slots[index].entry = Entry::from_raw(0);
        }
        self.state = State::Free;
        self.present = Bits::NONE;
        (self.unsync, self.unsync_children, self.unsync_count) = (false, Bits::NONE, 0);
        (self.roots, self.flood) = (0, 0);
        self.parents.clear();
    }

    /// Returns an entry, with its origin.
    pub(super) fn slot(&self, index: usize) -> Slot {
        self.slots[index]
    }

    /// Writes an entry.
    pub(super) fn set(&mut self, index: usize, slot: Slot) {
        self.slots[index] = slot;
        self.present.set(index, slot.entry.present());
    }

    /// Clears an entry.
    pub(super) fn clear(&mut self, index: usize) {
        self.slots[index].entry = Entry::from_raw(0);
        self.present.set(index, false);
    }

    /// Marks the page unsync: its entries agree with the guest's table up to now, and may differ
    /// later.
    pub(super) fn lag(&mut self, now: u32) {
        for index in self.present.each() {
            self.slots[index].time = now;
        }
        self.unsync = true;
    }

    /// Returns the entries that are present now.
    pub(super) fn present(&self) -> impl Iterator<Item = usize> {
        self.present.each()
    }

    /// Returns whether the entries refer to memory, and not to tables.
    pub(super) fn is_lowest(&self) -> bool {
        self.role.level == 1
    }

    /// Records whether an entry leads to an unsync page; returns whether the first such entry was
    /// added or the last one was removed.
    pub(super) fn set_unsync_child(&mut self, index: usize, unsync: bool) -> bool {
        if self.unsync_children.has(index) == unsync {
            return false;
        }
        self.unsync_children.set(index, unsync);
        if unsync {
            self.unsync_count += 1;
            self.unsync_count == 1
        } else {
            self.unsync_count -= 1;
            self.unsync_count == 0
        }
    }

    /// Records that an entry of another page leads to this page.
    pub(super) fn add_parent(&mut self, parent: PageId, index: usize) -> Result {
        Ok(self.parents.push((parent, index), GFP_KERNEL)?)
    }

    /// Records that an entry of another page does not lead to this page any more.
    pub(super) fn remove_parent(&mut self, parent: PageId, index: usize) {
        self.parents.retain(|it| *it != (parent, index));
    }

    /// Returns one of the entries that lead to this page, by its number.
    pub(super) fn parent(&self, number: usize) -> Option<(PageId, usize)> {
        self.parents.get(number).copied()
    }

    /// Counts a write to the guest's table; returns whether the frame has had too many writes for a
    /// table.
    pub(super) fn is_flooded(&mut self) -> bool {
        // A page of the lowest level becomes unsync, and KVM does not see further writes.
        if self.is_lowest() {
            return false;
        }
        self.flood += 1;
        self.flood >= FLOOD
    }

    /// Resets the count of writes: `__clear_sp_write_flooding_count()`.
    pub(super) fn calm(&mut self) {
        self.flood = 0;
    }
}

/// Makes an entry that leads to a page of KVM's.
///
/// The entry permits everything: the role of the page has the access that the guest's entries on
/// the way permit.
pub(super) fn link(page: PageId) -> Entry {
    Entry::from_raw(page.address().into_raw())
        .with_present(true)
        .with_writable(true)
        .with_user(true)
        .with_accessed(true)
}

/// Returns the page of KVM's that an entry leads to.
pub(super) fn below(entry: Entry) -> PageId {
    PageId::at(address(entry))
}

/// Returns the address that an entry refers to.
pub(super) fn address(entry: Entry) -> Hpa {
    Hpa::new(entry.into_raw() & ADDRESS)
}

/// Makes an entry that maps memory, and permits no writes yet.
pub(super) fn leaf(at: Hpa, access: Grant) -> Entry {
    Entry::from_raw(at.into_raw())
        .with_present(true)
        .with_user(access.user)
        .with_accessed(true)
        .with_no_execute(!access.execute)
}

#[cfg(CONFIG_VMX_VPID_KUNIT_TEST)]
#[kernel::macros::kunit_tests(vmx_vpid_shadow_page)]
mod tests {
    use super::*;

    #[test]
    fn present_entries_are_found_again() -> Result {
        let mut page = Page::new()?;
        page.start(Gfn(4), Role::from_raw(1), 0, 0);
        for index in [0, 63, 64, 511] {
            let entry = link(PageId(7));
            let slot = page.slot(index);
            page.set(index, Slot { entry, ..slot });
        }
        assert!(page.present().eq([0, 63, 64, 511]));
        page.clear(64);
        assert!(page.present().eq([0, 63, 511]));
        assert_eq!(below(page.slot(511).entry), PageId(7));
        page.reset();
        assert_eq!(page.present().next(), None);
        assert!(!page.slot(511).entry.present());
        Ok(())
    }

    #[test]
    fn the_first_and_the_last_unsync_child_are_propagated() -> Result {
        let mut page = Page::new()?;
        assert!(page.set_unsync_child(3, true));
        assert!(!page.set_unsync_child(3, true));
        assert!(!page.set_unsync_child(510, true));
        assert_eq!(page.unsync_count, 2);
        assert!(!page.set_unsync_child(3, false));
        assert!(!page.set_unsync_child(3, false));
        assert!(page.set_unsync_child(510, false));
        assert_eq!(page.unsync_count, 0);
        Ok(())
    }

    #[test]
    fn only_a_table_of_tables_is_flooded_by_three_writes() -> Result {
        let mut page = Page::new()?;
        page.start(Gfn(0), Role::from_raw(2), 0, 0);
        assert!(!page.is_flooded() && !page.is_flooded() && page.is_flooded());
        page.calm();
        assert!(!page.is_flooded());
        page.start(Gfn(0), Role::from_raw(1), 0, 0);
        for _ in 0..9 {
            assert!(!page.is_flooded());
        }
        Ok(())
    }
}
