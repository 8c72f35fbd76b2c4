// SPDX-License-Identifier: GPL-2.0

//! This module manages unsync pages: it marks pages unsync, records that in the pages above, and
//! synchronises pages.
//!
//! A page of the lowest level is unsync from the moment that the guest may write its table.  Every
//! page above has a bit for each of its entries that leads to an unsync page, and a count of these
//! bits.  A bit may be stale: a walk that follows the bit and finds no unsync page clears the bit.
//! A missing bit is a bug.

use super::{
    bug::Bug,
    guest,
    page::{
        self,
        Slot, //
    },
    role::{
        Grant,
        Role, //
    },
    Gfn,
    PageId,
    Set,
    Shadows,
    Vm, //
};
use crate::paging::entry::Entry;

/// The greatest number of levels of tables.
const MOST_LEVELS: u8 = 5;

/// The reason why an entry is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// A page fault.
    Fault,
    /// The synchronisation of a page.
    Sync,
}

impl Shadows {
    /// Marks a page unsync: `kvm_unsync_page()`.
    fn unsync(&mut self, vm: &impl Vm, id: PageId) {
        self.page_mut(id).lag(vm.now());
        self.mark_parents(vm, id);
    }

    /// Records in all pages above that a page is unsync, or leads to an unsync page:
    /// `kvm_mmu_mark_parents_unsync()`.
    fn mark_parents(&mut self, vm: &impl Vm, id: PageId) {
        let mut number = 0;
        while let Some((parent, index)) = self.page(id).parent(number) {
            if vm.has(Bug::ParentsNotTold) || vm.has(Bug::OneParentTold) && number > 0 {
                return;
            }
            self.mark_unsync(vm, parent, index);
            number += 1;
        }
    }

    /// Records that an entry leads to an unsync page: `mark_unsync()`.
    ///
    /// No page is below itself, so the recursion ends at the roots.
    pub(super) fn mark_unsync(&mut self, vm: &impl Vm, id: PageId, index: usize) {
        if self.page_mut(id).set_unsync_child(index, true) {
            self.mark_parents(vm, id);
        }
    }

    /// Returns the unsync pages below a page, and clears the bits that lead to no unsync page:
    /// `mmu_unsync_walk()`.
    pub(super) fn unsync_below(&mut self, id: PageId) -> Set {
        self.unsync_within(id, MOST_LEVELS)
    }

    /// Does the same as [`Self::unsync_below`], for a number of levels.
    fn unsync_within(&mut self, id: PageId, levels: u8) -> Set {
        let Some(levels) = levels.checked_sub(1) else {
            return 0;
        };
        let mut found = 0;
        for index in self.page(id).unsync_children.each() {
            let entry = self.page(id).slot(index).entry;
            let mut here = 0;
            if entry.present() {
                let child = page::below(entry);
                if self.page(child).unsync_count != 0 {
                    here = self.unsync_within(child, levels);
                } else if self.page(child).unsync {
                    here = 1 << child.0;
                }
            }
            if here == 0 {
                self.page_mut(id).set_unsync_child(index, false);
            }
            found |= here;
        }
        found
    }

    /// Returns whether a page is unsync, or leads to an unsync page.
    pub(crate) fn is_unsync(&self, id: PageId) -> bool {
        let page = self.page(id);
        page.unsync || page.unsync_count != 0
    }

    /// Marks the pages made from a frame unsync, if the guest may write the frame; returns whether
    /// the guest may: `mmu_try_to_unsync_pages()`.
    fn try_to_unsync(&mut self, vm: &impl Vm, frame: Gfn, why: Why) -> bool {
        if self.is_tracked(frame) && !vm.has(Bug::TrackedMadeWritable) {
            return false;
        }
        for id in Self::each(self.of_table(frame)) {
            // While pages are synchronised, the frame stays write-protected.
            if why == Why::Sync {
                return false;
            }
            let page = self.page(id);
            if page.is_lowest() && !page.unsync && !vm.has(Bug::UnsyncForgotten) {
                self.unsync(vm, id);
            }
        }
        true
    }

    /// Returns whether a frame is shadowed as a table of a higher level: KVM has to see each write.
    pub(super) fn is_tracked(&self, frame: Gfn) -> bool {
        Self::each(self.of_table(frame)).any(|id| !self.page(id).is_lowest())
    }

    /// Makes an entry for a frame; returns whether the entry is read-only although the guest's
    /// entries permit writes, because KVM has to see each write: `make_spte()`.
    pub(super) fn make(
        &mut self,
        vm: &impl Vm,
        access: Grant,
        frame: Gfn,
        entry: Entry,
        old: Entry,
        why: Why,
    ) -> (Entry, bool) {
        if !access.write {
            return (entry, false);
        }
        let writable = old.present() && old.writable();
        if writable || self.try_to_unsync(vm, frame, why) {
            (entry.with_writable(true).with_dirty(true), false)
        } else {
            (entry, true)
        }
    }

    /// Synchronises an entry: `kvm_sync_spte()`.
    ///
    /// Returns whether a flush is pending; `None` if the guest's entry cannot be read.
    pub(super) fn sync_slot(&mut self, vm: &mut impl Vm, id: PageId, at: usize) -> Option<bool> {
        let page = self.page(id);
        let (role, slot) = (page.role, page.slot(at));
        if !slot.entry.present() {
            return Some(false);
        }
        let (index, width) = guest::place(role, at);
        let theirs = vm.read(page.gfn, index, width)?;
        let accessed = theirs.accessed() || vm.has(Bug::AccessedNotAsked);
        let frame = Gfn::of(theirs);
        let kept = frame == slot.gfn || vm.has(Bug::PresenceIsEnough);
        if !theirs.present() || !accessed || !kept {
            self.page_mut(id).clear(at);
            return Some(true);
        }
        let time = vm.now();
        let dirty = theirs.dirty() || vm.has(Bug::DirtyNotAsked);
        let access = role.access.and(Grant::of(theirs)).write_if(dirty);
        if access == slot.access || vm.has(Bug::AccessKept) {
            self.page_mut(id).set(at, Slot { time, ..slot });
            return Some(false);
        }
        let plain = page::leaf(page::address(slot.entry), access);
        let (entry, _) = self.make(vm, access, slot.gfn, plain, slot.entry, Why::Sync);
        let new = Slot {
            entry,
            access,
            guest: access,
            time,
            ..slot
        };
        self.page_mut(id).set(at, new);
        Some(slot.entry.writable() && !entry.writable())
    }

    /// Synchronises all entries of a page: `__kvm_sync_page()`.
    ///
    /// Returns whether a flush is pending; `None` if the page cannot be synchronised.
    pub(super) fn sync_page(
        &mut self,
        vm: &mut impl Vm,
        id: PageId,
        context: Role,
    ) -> Option<bool> {
        if !self.page(id).role.is_of_context(context) {
            return None;
        }
        let mut flush = false;
        for index in self.page(id).present() {
            flush |= self.sync_slot(vm, id, index)?;
        }
        Some(flush && !vm.has(Bug::SyncNotFlushed))
    }

    /// Synchronises all pages below a page: `mmu_sync_children()`.
    pub(super) fn sync_children(&mut self, vm: &mut impl Vm, id: PageId, context: Role) {
        let (mut flush, mut zapped) = (false, 0);
        loop {
            let pages = self.unsync_below(id);
            if pages == 0 {
                break;
            }
            let mut protected = false;
            for page in Self::each(pages) {
                let table = self.page(page).gfn;
                protected |= !vm.has(Bug::SyncedUnprotected) && self.protect(table);
            }
            if protected {
                // The flush ends writes by cached translations, before the tables are read.
                self.commit_zap(vm, zapped);
                vm.flush_remote();
                (flush, zapped) = (false, 0);
            }
            for page in Self::each(pages) {
                self.page_mut(page).unsync = false;
                match self.sync_page(vm, page, context) {
                    Some(pending) => flush |= pending,
                    None => {
                        self.prepare_zap(vm, page, &mut zapped);
                    }
                }
            }
        }
        self.flush_or_zap(vm, zapped, flush);
    }
}
