// SPDX-License-Identifier: GPL-2.0

//! This module changes KVM's trees: the host moves and protects memory, and KVM follows changes of
//! the guest's tables.
//!
//! Each function names its equivalent in KVM, and requests a flush exactly when the equivalent
//! does.

use super::tables::{
    frame_of,
    is_leaf,
    is_present,
    Place,
    Role,
    Tree,
    NO_TABLE, //
};
use crate::model::{
    bug::Bug,
    guest::{
        edit::{
            self,
            Kind,
            DIRTY,
            PRESENT,
            WRITABLE, //
        },
        memory::{
            Gfn,
            Meta,
            Tables, //
        }, //
    },
    machine::Machine, //
};

/// Visits the entries of a tree that map a frame.
fn each_leaf_of(
    tree: Tree,
    tables: &mut Tables,
    gfn: Gfn,
    mut visit: impl FnMut(&mut Tables, Place),
) {
    tree.each(tables, |tables, place, _| {
        let entry = tables.read(place.table, place.index);
        if !is_leaf(entry, place.level) {
            return;
        }
        let span = if tree.role.is_ept() {
            tree.span(place.level)
        } else {
            0
        };
        let first = tables.meta(place.table, place.index).gfn;
        if gfn.0.wrapping_sub(first.0) >> span == 0 {
            visit(tables, place);
        }
    });
}

impl Machine<'_> {
    /// Requests a flush of all vCPUs of a VM: `kvm_flush_remote_tlbs()`.
    pub(crate) fn flush_remote(&mut self, vm: usize) {
        if self.bugs.has(Bug::NoRemoteFlush) {
            return;
        }
        let first = if self.bugs.has(Bug::RemoteFlushOfOne) {
            1
        } else {
            0
        };
        for vcpu in &mut self.vcpus[2 * vm + first..2 * vm + 2] {
            vcpu.pending.all = true;
        }
        let noted = !self.bugs.has(Bug::ChangedEptTakenAsClean);
        for (number, tree) in self.trees.iter().enumerate() {
            if noted && tree.is_some_and(|tree| tree.vm == vm) {
                self.generations.note_change(number);
            }
        }
    }

    /// Calls a function for each tree of a VM.
    fn each_tree(&mut self, vm: usize, mut work: impl FnMut(&mut Self, Tree)) {
        for number in 0..self.trees.len() {
            if let Some(tree) = self.trees[number].filter(|tree| tree.vm == vm) {
                work(self, tree);
            }
        }
    }

    /// Moves a frame to its other place: `kvm_unmap_gfn_range()`, and the move itself.
    pub(crate) fn relocate(&mut self, vm: usize, gfn: u16) {
        let gfn = Gfn(gfn);
        let mut zapped = false;
        self.each_tree(vm, |this, tree| {
            each_leaf_of(tree, &mut this.tables, gfn, |tables, place| {
                zapped = true;
                tree.clear(tables, place);
            });
        });
        if zapped {
            self.flush_remote(vm);
        }
        self.memories[vm].relocate(gfn);
    }

    /// Write-protects a frame, so that the host notices the next write:
    /// `kvm_get_dirty_log_protect()`.
    pub(crate) fn protect(&mut self, vm: usize, gfn: u16) {
        let gfn = Gfn(gfn);
        self.memories[vm].protected |= gfn.bit();
        let mut changed = false;
        self.each_tree(vm, |this, tree| {
            each_leaf_of(tree, &mut this.tables, gfn, |tables, place| {
                let entry = tables.read(place.table, place.index);
                changed |= entry & WRITABLE != 0;
                tables.write(place.table, place.index, entry & !WRITABLE);
            });
        });
        if changed && !self.bugs.has(Bug::NoFlushOnProtect) {
            self.flush_remote(vm);
        }
    }

    /// Clears the dirty flags of a frame, if the CPU has dirty flags in EPTs:
    /// `kvm_clear_dirty_log_protect()` with a log that the CPU writes.
    pub(crate) fn clean(&mut self, vm: usize, gfn: u16) {
        let mut changed = false;
        self.each_tree(vm, |this, tree| {
            let dirty = tree.role.dirty_bit();
            if tree.role.is_ept() && this.config.accessed_dirty {
                each_leaf_of(tree, &mut this.tables, Gfn(gfn), |tables, place| {
                    let entry = tables.read(place.table, place.index);
                    changed |= entry & dirty != 0;
                    tables.write(place.table, place.index, entry & !dirty);
                });
            }
        });
        if changed && !self.bugs.has(Bug::NoFlushOnClean) {
            self.flush_remote(vm);
        }
    }

    /// Splits large pages into small pages: `kvm_mmu_try_split_huge_pages()`.
    ///
    /// No flush is needed: the small pages translate like the large page.
    pub(crate) fn split(&mut self, vm: usize) {
        self.memories[vm].largest = 1;
        self.each_tree(vm, |this, tree| {
            if let Role::Direct { .. } = tree.role {
                for number in [0, 512] {
                    let found = tree.find(&this.tables, number);
                    if is_present(found.entry) && this.tables.left() > 2 {
                        let no_table = |_| NO_TABLE;
                        let _ = tree.make_way(&mut this.tables, number, 1, no_table);
                    }
                }
            }
        });
    }

    /// Replaces small pages by a large page: `kvm_tdp_mmu_try_recover_huge_pages()`.
    pub(crate) fn merge(&mut self, vm: usize, level: u8) {
        self.memories[vm].largest = level;
        if self.memories[vm].level() < level || level < 2 {
            return;
        }
        let mut changed = false;
        self.each_tree(vm, |this, tree| {
            let found = tree.find(&this.tables, 0);
            let Role::Direct { .. } = tree.role else {
                return;
            };
            if let Some(table) = found.path[2].filter(|_| found.place.level < level) {
                let place = Place {
                    table,
                    index: 0,
                    level: 2,
                };
                tree.clear(&mut this.tables, place);
                let host = this.memories[vm].host(Gfn(0));
                let entry = tree.role.leaf(2, host, true);
                this.tables.write(table, 0, entry);
                let meta = Meta {
                    time: 0,
                    gfn: Gfn(0),
                };
                this.tables.set_meta(table, 0, meta);
                changed = true;
            }
        });
        if changed && !self.bugs.has(Bug::NoFlushOnMerge) {
            self.flush_remote(vm);
        }
    }

    /// Zaps all trees of a VM: `kvm_mmu_zap_all_fast()`.
    ///
    /// No flush is needed here: the vCPUs of the VM free these roots before they run again, and
    /// loading a new root flushes.
    pub(crate) fn zap_all(&mut self, vm: usize) {
        for tree in self.trees.iter_mut().flatten() {
            tree.obsolete |= tree.vm == vm;
        }
    }

    /// Writes an entry of a guest's own table, or of an EPT of L1's.
    ///
    /// KVM notices the write only if KVM shadows the table and the level is above 1:
    /// `mmu_try_to_unsync_pages()` lets page tables lag behind.  Then KVM drops the entries that
    /// were made from the written entry: `kvm_mmu_track_write()`.
    pub(crate) fn guest_writes(&mut self, vm: usize, table: Gfn, index: usize, entry: u64) {
        self.memories[vm].write(table, index, entry);
        let level = match edit::kind(table) {
            Kind::Data | Kind::Paging(1) | Kind::Ept(1) => return,
            Kind::Paging(level) | Kind::Ept(level) => level,
        };
        if self.bugs.has(Bug::GuestWriteUnnoticed) {
            return;
        }
        let mut dropped = false;
        self.each_tree(vm, |this, tree| {
            tree.each(&mut this.tables, |tables, place, shadowed| {
                let is_it = shadowed == table && place.level == level && place.index == index;
                if is_it {
                    tree.clear(tables, place);
                    dropped = true;
                }
            });
        });
        if dropped {
            self.flush_remote(vm);
        }
    }

    /// Synchronises the entries of a tree that were made from page tables of the guest:
    /// `kvm_mmu_sync_roots()`, or, for one page, `kvm_mmu_invalidate_addr()`.
    ///
    /// The function compares each entry with the entry of the guest's that it was made from.  Upper
    /// levels need no comparison: KVM follows each write to the upper tables.
    pub(crate) fn synchronise(&mut self, tree: Tree, only: Option<u16>) {
        if self.bugs.has(Bug::NothingSynchronised) {
            return;
        }
        let now = self.now;
        let memory = &self.memories[tree.vm];
        let only = only.map(|number| tree.find(&self.tables, number).place);
        let mut lost = false;
        tree.each(&mut self.tables, |tables, place, shadowed| {
            let meant = only.is_none_or(|only| only == place);
            if place.level != 1 || shadowed == NO_TABLE || !meant {
                return;
            }
            let theirs = memory.read(shadowed, place.index);
            let ours = tables.read(place.table, place.index);
            let meta = tables.meta(place.table, place.index);
            let gfn = Gfn::of_entry(theirs);
            let same =
                theirs & PRESENT != 0 && gfn == meta.gfn && memory.host(gfn) == frame_of(ours);
            if !same {
                tree.clear(tables, place);
                lost = true;
                return;
            }
            let dirty = tree.role.is_ept() || theirs & DIRTY != 0;
            if !(theirs & WRITABLE != 0 && dirty) && ours & WRITABLE != 0 {
                tables.write(place.table, place.index, ours & !WRITABLE);
                lost = true;
            }
            tables.set_meta(place.table, place.index, Meta { time: now, ..meta });
        });
        if lost && !self.bugs.has(Bug::NoFlushOnSync) {
            self.flush_remote(tree.vm);
        }
    }

    /// Frees the trees of a VM that no vCPU keeps: KVM's shrinker.
    pub(crate) fn shrink(&mut self, vm: usize) {
        for number in 0..self.trees.len() {
            if self.trees[number].is_some_and(|tree| tree.vm == vm) && !self.is_kept(number) {
                self.free_tree(number);
            }
        }
    }
}
