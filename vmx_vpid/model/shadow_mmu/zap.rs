// SPDX-License-Identifier: GPL-2.0

//! This module zaps entries and pages.
//!
//! A zapped page is unlinked first, and freed only after all vCPUs have flushed.  A zapped page
//! that is a root of a vCPU stays invalid until that vCPU frees the root.

use super::{
    bug::Bug,
    guest,
    page::{
        self,
        Slot,
        State,
        ENTRIES, //
    },
    Gfn,
    PageId,
    Set,
    Shadows,
    Vm, //
};

/// A write to the guest's memory, in bytes from the beginning of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Written {
    /// The frame.
    pub(crate) frame: Gfn,
    /// The offset in the frame, 0 to 4095.
    pub(crate) offset: usize,
    /// The number of bytes, 1 to 8; the write does not reach beyond the frame.
    pub(crate) bytes: usize,
}

impl Written {
    /// Returns whether the write is not a write of one entry: `detect_write_misaligned()`.
    fn is_misaligned(self, size: usize) -> bool {
        // One byte is enough to change the flags of an entry.
        if self.offset.is_multiple_of(size) && self.bytes == 1 {
            return false;
        }
        let last = self.offset + self.bytes.saturating_sub(1);
        self.offset / size != last / size || self.bytes < 4
    }
}

impl Shadows {
    /// Clears an entry, and removes the entry from the parents of the page below:
    /// `mmu_page_zap_pte()`.
    pub(super) fn zap_slot(&mut self, vm: &impl Vm, id: PageId, index: usize) {
        let entry = self.page(id).slot(index).entry;
        if entry.present() && !self.page(id).is_lowest() && !vm.has(Bug::ParentsKept) {
            self.page_mut(page::below(entry)).remove_parent(id, index);
        }
        self.page_mut(id).clear(index);
    }

    /// Unlinks a page and the unsync pages below, and adds these pages to the set of pages to free:
    /// `kvm_mmu_prepare_zap_page()`.
    pub(super) fn prepare_zap(&mut self, vm: &impl Vm, id: PageId, zapped: &mut Set) {
        if !self.page(id).is_lowest() {
            // No walk would find these pages any more to synchronise them.
            for below in Self::each(self.unsync_below(id)) {
                self.prepare_zap(vm, below, zapped);
            }
        }
        for index in self.page(id).present() {
            self.zap_slot(vm, id, index);
        }
        while let Some((parent, index)) = self.page(id).parent(0) {
            self.page_mut(id).remove_parent(parent, index);
            if !vm.has(Bug::ParentsKept) {
                self.page_mut(parent).clear(index);
            }
        }
        let page = self.page_mut(id);
        page.unsync = false;
        page.state = State::Invalid;
        if page.roots == 0 {
            *zapped |= 1 << id.0;
        }
    }

    /// Flushes, and frees unlinked pages: `kvm_mmu_commit_zap_page()`.
    pub(super) fn commit_zap(&mut self, vm: &mut impl Vm, zapped: Set) {
        if zapped == 0 {
            return;
        }
        if !vm.has(Bug::ZapNotFlushed) {
            vm.flush_remote();
        }
        for id in Self::each(zapped) {
            let bucket = Self::bucket(self.page(id).gfn);
            self.buckets[bucket] &= !(1 << id.0);
            self.page_mut(id).reset();
        }
    }

    /// Frees pages after a flush; without pages to free, flushes if a flush is pending:
    /// `kvm_mmu_remote_flush_or_zap()`.
    pub(super) fn flush_or_zap(&mut self, vm: &mut impl Vm, zapped: Set, flush: bool) {
        if zapped == 0 && flush {
            vm.flush_remote();
        }
        self.commit_zap(vm, zapped);
    }

    /// Frees a root: `mmu_free_root_page()`.
    pub(super) fn put_root(&mut self, vm: &mut impl Vm, id: PageId) {
        let page = self.page_mut(id);
        page.roots = page.roots.saturating_sub(1);
        if page.roots == 0 && page.state == State::Invalid {
            let mut zapped = 0;
            self.prepare_zap(vm, id, &mut zapped);
            self.commit_zap(vm, zapped);
        }
    }

    /// Counts a page as a root of one more vCPU.
    pub(super) fn take_root(&mut self, id: PageId) {
        self.page_mut(id).roots += 1;
    }

    /// Drops the entries that were made from entries of the guest's that a write changed:
    /// `kvm_mmu_track_write()`.
    pub(crate) fn track_write(&mut self, vm: &mut impl Vm, written: Written) {
        if vm.has(Bug::WriteNotTracked) {
            return;
        }
        let (mut zapped, mut flush) = (0, false);
        for id in Self::each(self.of_table(written.frame)) {
            let role = self.page(id).role;
            let size = if role.has_4_byte_gpte { 4 } else { 8 };
            if written.is_misaligned(size) || self.page_mut(id).is_flooded() {
                self.prepare_zap(vm, id, &mut zapped);
                continue;
            }
            let Some((first, count)) = guest::written(role, written.offset) else {
                continue;
            };
            let count = if vm.has(Bug::HalfTracked) { 1 } else { count };
            for index in first..(first + count).min(ENTRIES) {
                flush |= self.page(id).slot(index).entry.present();
                self.zap_slot(vm, id, index);
            }
        }
        flush &= !vm.has(Bug::TrackedNotFlushed);
        self.flush_or_zap(vm, zapped, flush);
    }

    /// Drops all entries for a frame, before the frame moves: `kvm_unmap_gfn_range()`.
    pub(crate) fn unmap(&mut self, vm: &mut impl Vm, frame: Gfn) {
        if vm.has(Bug::UnmapForgotten) {
            return;
        }
        let mut dropped = false;
        self.each_leaf_of(frame, |page, index, Slot { .. }| {
            page.clear(index);
            dropped = true;
        });
        if dropped && !vm.has(Bug::UnmapNotFlushed) {
            vm.flush_remote();
        }
    }

    /// Zaps pages that are no roots, the oldest page first, until `wanted` pages are free:
    /// `kvm_mmu_zap_oldest_mmu_pages()`.
    pub(crate) fn reclaim(&mut self, vm: &mut impl Vm, wanted: usize) {
        while self.left() < wanted {
            let idle = |&id: &PageId| {
                let page = self.page(id);
                page.state == State::Valid && page.roots == 0
            };
            let oldest = Self::each(Self::all(self.pages.len()))
                .filter(idle)
                .min_by_key(|&id| self.page(id).born);
            let Some(id) = oldest else {
                return;
            };
            let mut zapped = 0;
            self.prepare_zap(vm, id, &mut zapped);
            self.commit_zap(vm, zapped);
        }
    }

    /// Zaps all pages: `kvm_mmu_zap_all_fast()`.
    ///
    /// A root is freed when all vCPUs have freed the root, which each vCPU does before it runs
    /// again; all other pages are freed at once.
    pub(crate) fn zap_all(&mut self, vm: &mut impl Vm) {
        self.generation += 1;
        let mut zapped = 0;
        for id in Self::each(Self::all(self.pages.len())) {
            if self.page(id).state == State::Valid {
                self.prepare_zap(vm, id, &mut zapped);
            }
        }
        self.commit_zap(vm, zapped);
    }

    /// Returns the set of the first `count` pages.
    fn all(count: usize) -> Set {
        if count >= Self::MOST {
            Set::MAX
        } else {
            (1 << count) - 1
        }
    }
}

#[cfg(CONFIG_VMX_VPID_KUNIT_TEST)]
#[kernel::macros::kunit_tests(vmx_vpid_shadow_zap)]
mod tests {
    use super::*;

    #[test]
    fn a_write_to_a_part_of_an_entry_is_misaligned() {
        let written = |offset, bytes| Written {
            frame: Gfn(0),
            offset,
            bytes,
        };
        for (offset, bytes, by_4, by_8) in [
            (0, 8, true, false),
            (0, 4, false, false),
            (4, 4, false, false),
            (8, 1, false, false),
            // The second half of an entry of eight bytes is an entry of four bytes.
            (12, 1, false, true),
            (9, 1, true, true),
            (0, 2, true, true),
            (4, 8, true, true),
            (4088, 8, true, false),
        ] {
            let write = written(offset, bytes);
            assert_eq!(write.is_misaligned(4), by_4);
            assert_eq!(write.is_misaligned(8), by_8);
        }
    }
}
