// SPDX-License-Identifier: GPL-2.0

//! This module handles a guest's page fault on shadow pages: it decides whether the fault is the
//! guest's, and fills the pages.
//!
//! Source: `page_fault()` and `fetch()` in `mmu/paging_tmpl.h`, `mmu_set_spte()` in `mmu/mmu.c`.

use super::{
    bug::Bug,
    guest::{
        Paging,
        Walk, //
    },
    index,
    page::{
        self,
        Slot, //
    },
    role::{
        Grant,
        Role, //
    },
    roots::Cache,
    unsync::Why,
    Full,
    Gfn,
    PageId,
    Place,
    Shadows,
    Vm, //
};
use crate::paging::permission::{
    Access,
    AccessKind, //
};

/// What became of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fixed {
    /// The pages have the translation now.
    Yes,
    /// The guest's own tables do not: it gets the fault.
    GuestFault,
    /// The frame holds tables, and each write has to be seen: KVM carries it out itself.
    Emulate(Gfn),
}

/// Pages that are wanted free before a fault is handled: `KVM_MIN_FREE_MMU_PAGES`.
pub(crate) const MIN_FREE: usize = 5;

impl Shadows {
    /// Handles a fault: `kvm_mmu_page_fault()`.
    ///
    /// # Errors
    ///
    /// [`Full`], if all pages are roots.
    pub(crate) fn fault(
        &mut self,
        vm: &mut impl Vm,
        roots: &Cache,
        paging: &Paging,
        address: u64,
        access: Access,
    ) -> Result<Fixed, Full> {
        let Ok(mut walk) = paging.walk(vm, address, access) else {
            return Ok(Fixed::GuestFault);
        };
        let write = access.kind == AccessKind::Write;
        if write && self.is_tracked(walk.frame) && !vm.has(Bug::TrackedMadeWritable) {
            return Ok(Fixed::Emulate(walk.frame));
        }
        let guest = walk.access;
        let wp = paging.control.cr0.write_protect();
        if write && walk.level != 0 && !walk.access.write && !wp && !access.user {
            // The supervisor may write to what it may read.  That has to be a page of its own then,
            // since the CPU obeys CR0.WP in any case.
            walk.access.write = true;
            walk.access.user &= vm.has(Bug::WpLeavesUser);
            let executes = !paging.control.cr4.smep() || vm.has(Bug::WpLeavesExecute);
            walk.access.execute &= executes;
        }
        self.reclaim(vm, MIN_FREE);
        let Some((top, level)) = roots.top(address) else {
            return Ok(Fixed::Yes);
        };
        // To make room, roots may have been given up: the guest tries once more then.
        if self.is_obsolete(top) && !vm.has(Bug::InvalidRootKept) {
            return Ok(Fixed::Yes);
        }
        let place = self.fill(vm, top, level, &walk, address, roots.role())?;
        Ok(self.set(vm, place, &walk, guest, write))
    }

    /// Makes the way down to the entry of a page: `fetch()`.
    fn fill(
        &mut self,
        vm: &mut impl Vm,
        top: PageId,
        level: u8,
        walk: &Walk,
        address: u64,
        context: Role,
    ) -> Result<Place, Full> {
        let (mut id, mut level) = (top, level);
        loop {
            let index = index(level, address);
            if level == 1 {
                return Ok(Place {
                    page: id,
                    index,
                    level,
                });
            }
            level -= 1;
            let (table, direct, access) = if level >= walk.level.max(1) && walk.level != 0 {
                let at = usize::from(level);
                (walk.tables[at], false, walk.above[at])
            } else {
                // Below the guest's last entry there is no table.
                let span = (1 << (9 * u32::from(level))) - 1;
                self.validate(vm, id, index, walk.access);
                (Gfn(walk.frame.0 & !span), true, walk.access)
            };
            id = self.child(vm, id, index, (table, direct, access), context)?;
        }
    }

    /// Drops a direct page that permits something else than the guest does now:
    /// `validate_direct_spte()`.
    fn validate(&mut self, vm: &mut impl Vm, id: PageId, index: usize, access: Grant) {
        let entry = self.page(id).slot(index).entry;
        if !entry.present() || vm.has(Bug::DirectNotValidated) {
            return;
        }
        if self.page(page::below(entry)).role.access != access {
            self.zap_slot(vm, id, index);
            vm.flush_remote();
        }
    }

    /// Returns the page below an entry, which is there already, is found, or is made:
    /// `kvm_mmu_get_child_sp()` and `link_shadow_page()`.
    fn child(
        &mut self,
        vm: &mut impl Vm,
        parent: PageId,
        index: usize,
        (table, direct, access): (Gfn, bool, Grant),
        context: Role,
    ) -> Result<PageId, Full> {
        let role = self.page(parent).role.child(index, direct, access);
        let entry = self.page(parent).slot(index).entry;
        if entry.present() {
            let there = page::below(entry);
            let page = self.page(there);
            let kept = direct && vm.has(Bug::DirectNotValidated);
            if page.gfn == table && (Self::same(vm, page.role, role) || kept) {
                return Ok(there);
            }
        }
        let child = self.get(vm, table, role, context)?;
        // What the guest made present it need not invalidate: all below has to be up to date.
        if self.page(child).unsync_count != 0 && !vm.has(Bug::ChildrenLinkedUnsync) {
            self.sync_children(vm, child, context);
        }
        self.link(vm, parent, index, child)?;
        Ok(child)
    }

    /// Writes the entry of a page, for which the guest's entries permit what `guest` says:
    /// `mmu_set_spte()`.
    fn set(
        &mut self,
        vm: &mut impl Vm,
        place: Place,
        walk: &Walk,
        guest: Grant,
        write: bool,
    ) -> Fixed {
        let Some(host) = vm.host(walk.frame) else {
            return Fixed::GuestFault;
        };
        let Place {
            page: id, index, ..
        } = place;
        let mut old = self.page(id).slot(index);
        let mut flush = false;
        if old.entry.present() && page::address(old.entry) != host {
            self.page_mut(id).clear(index);
            old = self.page(id).slot(index);
            flush = true;
        }
        let plain = page::leaf(host, walk.access);
        let (entry, refused) = self.make(vm, walk.access, walk.frame, plain, old.entry, Why::Fault);
        flush |= old.entry.present() && old.entry.writable() && !entry.writable();
        let slot = Slot {
            entry,
            gfn: walk.frame,
            access: walk.access,
            guest,
            time: vm.now(),
        };
        self.page_mut(id).set(index, slot);
        if flush {
            vm.flush_remote();
        }
        if refused && write {
            Fixed::Emulate(walk.frame)
        } else {
            Fixed::Yes
        }
    }
}
