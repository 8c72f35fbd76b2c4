// SPDX-License-Identifier: GPL-2.0

//! This module handles KVM's own page faults: KVM fills its trees from the VM's memory or from the
//! guest's tables.

use super::tables::{
    frame_of,
    is_present,
    Role,
    Tree,
    NO_TABLE, //
};
use crate::model::{
    bug::Bug,
    cpu::tlb_entry::Rights,
    guest::{
        edit::{
            DIRTY,
            WRITABLE, //
        },
        memory::{
            Gfn,
            Meta, //
        },
        walk::{
            self,
            Leaf, //
        }, //
    },
    machine::{
        Machine,
        Wrong, //
    }, //
};

/// The result of a page fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fixed {
    /// The tree now has the translation.
    Yes,
    /// The guest's own tables have no translation: the guest gets the fault.
    GuestFault,
}

impl Machine<'_> {
    /// Fills a tree for a page or a frame, for a read or a write: `kvm_mmu_page_fault()`.
    pub(crate) fn fill(&mut self, tree: Tree, number: u16, write: bool) -> Result<Fixed, Wrong> {
        match tree.role {
            Role::Direct { .. } => {
                let gfn = Gfn(number);
                self.note_write(tree.vm, gfn, write);
                let level = self.memories[tree.vm].level();
                let leaf = Leaf {
                    gfn,
                    level: 3,
                    rights: Rights::ALL,
                    global: false,
                    path: [NO_TABLE; 5],
                };
                self.install(tree, number, level, leaf, 0)?;
            }
            Role::Unpaged { .. } => {
                let Ok(leaf) = walk::unpaged(number) else {
                    return Ok(Fixed::GuestFault);
                };
                self.note_write(tree.vm, leaf.gfn, write);
                self.install(tree, number, 1, leaf, 0)?;
            }
            Role::Shadow { root, .. } => {
                let memory = &self.memories[tree.vm];
                let read = |gfn, index| Some(memory.read(gfn, index));
                let Ok(mut leaf) = walk::walk(root, number, read) else {
                    return Ok(Fixed::GuestFault);
                };
                if write && !leaf.rights.write {
                    return Ok(Fixed::GuestFault);
                }
                if write && !leaf.rights.dirty {
                    self.set_guest_dirty(tree.vm, &leaf, number);
                    leaf.rights.dirty = true;
                }
                self.note_write(tree.vm, leaf.gfn, write);
                self.install(tree, number, 1, leaf, self.now)?;
            }
            Role::Nested { root, .. } => {
                let memory = &self.memories[tree.vm];
                let Some(leaf) = walk::ept12(memory, root, Gfn(number)) else {
                    return Ok(Fixed::GuestFault);
                };
                if write && !leaf.rights.write {
                    return Ok(Fixed::GuestFault);
                }
                self.note_write(tree.vm, leaf.gfn, write);
                let level = leaf.level.min(self.memories[tree.vm].level());
                self.install(tree, number, level, leaf, self.now)?;
            }
        }
        Ok(Fixed::Yes)
    }

    /// Ends the write protection of a frame that is written to.
    fn note_write(&mut self, vm: usize, gfn: Gfn, write: bool) {
        if write {
            self.memories[vm].protected &= !gfn.bit();
        }
    }

    /// Sets the dirty flag in the guest's entry, like KVM's walk.
    fn set_guest_dirty(&mut self, vm: usize, leaf: &Leaf, page: u16) {
        let table = leaf.path[usize::from(leaf.level)];
        let index = walk::index(leaf.level, page);
        let memory = &mut self.memories[vm];
        let entry = memory.read(table, index);
        memory.write(table, index, entry | DIRTY);
    }

    /// Writes an entry into a tree, with the tables above the entry: `mmu_set_spte()`.
    fn install(
        &mut self,
        tree: Tree,
        number: u16,
        level: u8,
        leaf: Leaf,
        time: u32,
    ) -> Result<(), Wrong> {
        let shadowed = |level: u8| {
            if level >= leaf.level {
                leaf.path[usize::from(level)]
            } else {
                NO_TABLE
            }
        };
        let mut place = None;
        for _ in 0..4 {
            place = tree.make_way(&mut self.tables, number, level, shadowed);
            // If there is a table in place of a large page, keep the table: it maps the same
            // frames.
            if place.is_some() || !self.reclaim(tree) {
                break;
            }
        }
        let place = match place {
            Some(place) => place,
            None if level > 1 => return self.install(tree, number, level - 1, leaf, time),
            None => return Err(Wrong::Memory),
        };
        let memory = &self.memories[tree.vm];
        let first = number & !((1 << tree.span(level)) - 1);
        let gfn = Gfn(leaf.gfn.0 - (number - first));
        let hfn = memory.host(gfn);
        let write =
            leaf.rights.write && leaf.rights.dirty && memory.protected & leaf.gfn.bit() == 0;
        let old = self.tables.read(place.table, place.index);
        if is_present(old) && !super::tables::is_leaf(old, place.level) {
            return Ok(());
        }
        let entry = tree.role.leaf(level, hfn, write);
        let kept = if frame_of(old) == hfn && tree.role.is_ept() {
            old & tree.role.dirty_bit()
        } else {
            0
        };
        self.tables.write(place.table, place.index, entry | kept);
        let meta = Meta { time, gfn };
        self.tables.set_meta(place.table, place.index, meta);
        let less = old & WRITABLE != 0 && !write;
        if is_present(old) && (frame_of(old) != hfn || less) {
            self.flush_remote(tree.vm);
        }
        Ok(())
    }

    /// Frees a tree that no vCPU keeps, if another tree needs a table and none is free:
    /// `kvm_mmu_zap_oldest_mmu_pages()`.
    fn reclaim(&mut self, needy: Tree) -> bool {
        if self.tables.left() != 0 {
            return false;
        }
        let idle = (0..self.trees.len()).find(|&number| {
            let other = self.trees[number];
            other.is_some_and(|other| other != needy) && !self.is_kept(number)
        });
        idle.is_some_and(|number| {
            self.free_tree(number);
            true
        })
    }

    /// Returns whether a vCPU keeps a tree.
    pub(crate) fn is_kept(&self, number: usize) -> bool {
        let mut vcpus = self.vcpus.iter();
        vcpus.any(|vcpu| vcpu.trees().any(|tree| usize::from(tree.0) == number))
    }

    /// Frees a tree.
    ///
    /// KVM flushes before it frees shadow tables (`kvm_mmu_commit_zap_page()`).  A direct tree
    /// needs no flush: the next user of the root's page loads the page as a root first, and that
    /// load flushes everything tagged with the root's EP4TA.
    pub(crate) fn free_tree(&mut self, number: usize) {
        if let Some(tree) = self.trees[number].take() {
            if !tree.role.is_tdp() && !self.bugs.has(Bug::NoFlushOnFree) {
                self.flush_remote(tree.vm);
            }
            tree.free_table(&mut self.tables, tree.root, 4);
        }
    }

    /// Frees the trees that no vCPU keeps and that no vCPU will use again: direct trees and
    /// obsolete trees.
    pub(crate) fn sweep(&mut self) {
        for number in 0..self.trees.len() {
            let Some(tree) = self.trees[number] else {
                continue;
            };
            let useless = tree.obsolete || tree.role.is_tdp();
            if useless && !self.is_kept(number) {
                self.free_tree(number);
            }
        }
    }
}
