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

/// The result of a page fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fixed {
    /// The pages have the translation now.
    Yes,
    /// The guest's own tables have no translation: the guest gets the fault.
    GuestFault,
    /// The frame has tables to which KVM has to see each write: KVM emulates the write.
    Emulate(Gfn),
}

/// The number of free pages that a fault may need: `KVM_MIN_FREE_MMU_PAGES`.
pub(crate) const MIN_FREE: usize = 5;

impl Shadows {
    /// Handles a page fault: `kvm_mmu_page_fault()`.
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
            // With CR0.WP clear, a supervisor may write a read-only page.  The CPU always runs with
            // CR0.WP set, so KVM's entry becomes a writable supervisor entry.
            walk.access.write = true;
            walk.access.user &= vm.has(Bug::WpLeavesUser);
            let executes = !paging.control.cr4.smep() || vm.has(Bug::WpLeavesExecute);
            walk.access.execute &= executes;
        }
        self.reclaim(vm, MIN_FREE);
        let Some((top, level)) = roots.top(address) else {
            return Ok(Fixed::Yes);
        };
        // The reclaim may have zapped the root: the guest retries the access then.
        if self.is_obsolete(top) && !vm.has(Bug::InvalidRootKept) {
            return Ok(Fixed::Yes);
        }
        let place = self.fill(vm, top, level, &walk, address, roots.role())?;
        Ok(self.set(vm, place, &walk, guest, write))
    }

    /// Adds the missing pages down to the entry of an address: `fetch()`.
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
                // Below the guest's last entry there is no guest table.
                let span = (1 << (9 * u32::from(level))) - 1;
                self.validate(vm, id, index, walk.access);
                (Gfn(walk.frame.0 & !span), true, walk.access)
            };
            id = self.child(vm, id, index, (table, direct, access), context)?;
        }
    }

    /// Unlinks a direct page with another access than the guest's entries permit now:
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

    /// Returns the page below an entry: the linked page, or a page that is found or allocated, and
    /// then linked: `kvm_mmu_get_child_sp()` and `link_shadow_page()`.
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
        // The guest may make an entry present without an invalidation, so all pages below the new
        // link have to be synchronised.
        if self.page(child).unsync_count != 0 && !vm.has(Bug::ChildrenLinkedUnsync) {
            self.sync_children(vm, child, context);
        }
        self.link(vm, parent, index, child)?;
        Ok(child)
    }

    /// Writes the entry of an address; `guest` is the access that the guest's entries permit:
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
