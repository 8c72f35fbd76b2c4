// SPDX-License-Identifier: GPL-2.0

//! This module models shadow pages: the tables that KVM runs a guest on without EPT, made from the
//! guest's own tables.
//!
//! [`crate::model::shadow_run`] has the CPUs and guests that run on shadow pages.
//!
//! A shadow page stands for one guest table in one use ([`role`]).  KVM fills a page entry by
//! entry, as accesses fault ([`fetch`]).  Tables of the higher levels are write-protected: KVM sees
//! each write, and drops the entries that were made from the written entry ([`zap`]).  The guest
//! may write a page table of the lowest level at any time.  From then on, the pages made from that
//! table are *unsync*: they may differ from the guest's table, as a TLB may, until the guest
//! invalidates.  To make synchronising cheap, each page above records which of its entries lead to
//! unsync pages ([`unsync`]).  A vCPU runs on a root, and caches three more ([`roots`]).
//!
//! The model leaves out shadow pages that map 2 MiB and more, MMIO, prefetching, dirty logging, a
//! second address space in system-management mode, and L2.
//!
//! Source: `mmu/mmu.c`, `mmu/paging_tmpl.h` and `mmu/spte.c` of KVM.

pub(crate) mod bug;
pub(crate) mod fetch;
pub(crate) mod guest;
mod page;
mod page_id;
pub(crate) mod role;
pub(crate) mod roots;
#[cfg(CONFIG_VMX_VPID_KUNIT_TEST)]
mod shadow_tests;
mod unsync;
pub(crate) mod zap;

use crate::{
    paging::{
        entry::Entry,
        level::EntryWidth, //
    },
    x86::addr::Hpa, //
};
use bug::Bug;
use kernel::prelude::*;
use page::{
    Page,
    Slot,
    State, //
};
use role::{
    Grant,
    Role, //
};

pub(crate) use page_id::{
    Gfn,
    PageId, //
};

/// The place of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The page.
    pub(crate) page: PageId,
    /// The index in the page.
    pub(crate) index: usize,
    /// The level at which a walk reaches the entry.
    pub(crate) level: u8,
}

/// The origin of an entry of the lowest level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    /// The guest's frame.
    pub(crate) gfn: Gfn,
    /// The access that the guest's entries on the way to the frame permit.
    pub(crate) guest: Grant,
    /// When KVM last read the guest's entries.
    pub(crate) time: u32,
}

/// A set of pages, one bit for each page.
type Set = u128;

/// A VM, as far as shadow pages depend on the VM and act on the VM.
pub(crate) trait Vm {
    /// Reads an entry of a guest's table; `None` if the guest has no memory there.
    fn read(&self, table: Gfn, index: usize, width: EntryWidth) -> Option<Entry>;
    /// Writes an entry of a guest's table, to set accessed and dirty flags.
    fn write(&mut self, table: Gfn, index: usize, width: EntryWidth, entry: Entry);
    /// Returns the host address of a frame; `None` if there is no memory.
    fn host(&self, frame: Gfn) -> Option<Hpa>;
    /// Requests that all vCPUs flush before they run again: `kvm_flush_remote_tlbs()`.
    fn flush_remote(&mut self);
    /// Returns the time.
    fn now(&self) -> u32;
    /// Returns whether a bug is injected.
    fn has(&self, broken: Bug) -> bool;
}

/// The error that no page is free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full;

/// The shadow pages of a VM.
pub(crate) struct Shadows {
    pages: KVVec<Page>,
    /// The pages in use, by the hash of their table.
    buckets: [Set; Self::BUCKETS],
    generation: u32,
    born: u32,
}

impl Shadows {
    /// The greatest number of pages.
    pub(crate) const MOST: usize = 128;
    /// The number of hash buckets.
    const BUCKETS: usize = 8;

    /// Makes the memory for `count` pages.
    pub(crate) fn new(count: usize) -> Result<Self> {
        let mut pages = KVVec::with_capacity(count, GFP_KERNEL)?;
        for _ in 0..count.min(Self::MOST) {
            pages.push(Page::new()?, GFP_KERNEL)?;
        }
        Ok(Self {
            pages,
            buckets: [0; Self::BUCKETS],
            generation: 0,
            born: 0,
        })
    }

    /// Frees all pages.
    pub(crate) fn restart(&mut self) {
        self.pages.iter_mut().for_each(Page::reset);
        self.buckets = [0; Self::BUCKETS];
    }

    fn page(&self, id: PageId) -> &Page {
        &self.pages[usize::from(id.0)]
    }

    fn page_mut(&mut self, id: PageId) -> &mut Page {
        &mut self.pages[usize::from(id.0)]
    }

    /// Returns the number of free pages.
    pub(crate) fn left(&self) -> usize {
        let free = |page: &&Page| page.state == State::Free;
        self.pages.iter().filter(free).count()
    }

    /// Returns whether a page must not be used any more: `is_obsolete_sp()`.
    fn is_obsolete(&self, id: PageId) -> bool {
        let page = self.page(id);
        page.state != State::Valid || page.generation != self.generation
    }

    /// Returns the bucket of a table.
    fn bucket(table: Gfn) -> usize {
        // CAST: The remainder is below `BUCKETS`.
        (table.0 % Self::BUCKETS as u64) as usize
    }

    /// Returns the pages of a set.
    fn each(set: Set) -> impl Iterator<Item = PageId> {
        let mut rest = set;
        core::iter::from_fn(move || {
            let bit = (rest != 0).then(|| rest.trailing_zeros())?;
            rest &= rest - 1;
            // CAST: The number of a bit of a `u128` is below 128.
            Some(PageId(bit as u8))
        })
    }

    /// Returns the pages in use that are made from a table: `for_each_gfn_valid_sp_with_gptes()`.
    fn of_table(&self, table: Gfn) -> Set {
        let of_it = |id: &PageId| {
            let page = self.page(*id);
            page.gfn == table && page.role.has_gptes() && !self.is_obsolete(*id)
        };
        let set = self.buckets[Self::bucket(table)];
        Self::each(set)
            .filter(of_it)
            .fold(0, |set, id| set | 1 << id.0)
    }

    /// Returns whether two roles are equal; an injected bug leaves out a part of the comparison.
    fn same(vm: &impl Vm, one: Role, other: Role) -> bool {
        let mut one = one;
        for (broken, take) in [
            (
                Bug::WpNotCompared,
                (|to, from| to.cr0_wp = from.cr0_wp) as fn(&mut Role, Role),
            ),
            (Bug::SmepNotCompared, |to, from| to.cr4_smep = from.cr4_smep),
            (Bug::SmapNotCompared, |to, from| {
                to.smap_andnot_wp = from.smap_andnot_wp
            }),
            (Bug::AccessNotCompared, |to, from| to.access = from.access),
            (Bug::LevelNotCompared, |to, from| to.level = from.level),
            (Bug::QuadrantNotCompared, |to, from| {
                to.quadrant = from.quadrant
            }),
            (Bug::DirectNotCompared, |to, from| to.direct = from.direct),
            (Bug::WidthNotCompared, |to, from| {
                to.has_4_byte_gpte = from.has_4_byte_gpte
            }),
            (Bug::RoleNotCompared, |to, from| *to = from),
        ] {
            if vm.has(broken) {
                take(&mut one, other);
            }
        }
        one == other
    }

    /// Finds or allocates the page for a table and a role: `kvm_mmu_get_shadow_page()`.
    ///
    /// `context` is the role of the root in use.
    pub(crate) fn get(
        &mut self,
        vm: &mut impl Vm,
        table: Gfn,
        role: Role,
        context: Role,
    ) -> Result<PageId, Full> {
        match self.find(vm, table, role, context) {
            Some(page) => Ok(page),
            None => self.allocate(vm, table, role),
        }
    }

    /// Finds the page for a table and a role: `kvm_mmu_find_shadow_page()`.
    fn find(&mut self, vm: &mut impl Vm, table: Gfn, role: Role, context: Role) -> Option<PageId> {
        let mut zapped = 0;
        let mut found = None;
        for id in Self::each(self.buckets[Self::bucket(table)]) {
            if self.page(id).gfn != table || self.is_obsolete(id) {
                continue;
            }
            if !Self::same(vm, self.page(id).role, role) {
                // Most likely, the guest has a new use for the table.  The new page write-protects
                // the table, so no page of the table may stay unsync.
                if role.level > 1 && self.page(id).unsync {
                    self.prepare_zap(vm, id, &mut zapped);
                }
                continue;
            }
            if self.page(id).unsync && !vm.has(Bug::FoundUnsync) {
                // The page stays unsync: the guest may continue to write the table.
                match self.sync_page(vm, id, context) {
                    None => {
                        self.prepare_zap(vm, id, &mut zapped);
                        break;
                    }
                    Some(true) => vm.flush_remote(),
                    Some(false) => {}
                }
            }
            self.page_mut(id).calm();
            found = Some(id);
            break;
        }
        self.commit_zap(vm, zapped);
        found
    }

    /// Allocates a page: `kvm_mmu_alloc_shadow_page()`, `account_shadowed()`.
    fn allocate(&mut self, vm: &mut impl Vm, table: Gfn, role: Role) -> Result<PageId, Full> {
        let place = self.pages.iter().position(|page| page.state == State::Free);
        // CAST: There are at most 128 pages.
        let id = PageId(place.ok_or(Full)? as u8);
        self.born += 1;
        let (generation, born) = (self.generation, self.born);
        self.page_mut(id).start(table, role, generation, born);
        self.buckets[Self::bucket(table)] |= 1 << id.0;
        if role.has_gptes()
            && !vm.has(Bug::NotProtected)
            && self.protect(table)
            && !vm.has(Bug::NotProtectedAtOnce)
        {
            vm.flush_remote();
        }
        Ok(id)
    }

    /// Makes all entries for a frame read-only; returns whether one was writable:
    /// `kvm_mmu_slot_gfn_write_protect()`.
    fn protect(&mut self, frame: Gfn) -> bool {
        let mut changed = false;
        self.each_leaf_of(frame, |page, index, slot| {
            changed |= slot.entry.writable();
            let entry = slot.entry.with_writable(false).with_dirty(false);
            page.set(index, Slot { entry, ..slot });
        });
        changed
    }

    /// Calls a function for each entry that maps a frame.
    fn each_leaf_of(&mut self, frame: Gfn, mut work: impl FnMut(&mut Page, usize, Slot)) {
        let used = |page: &&mut Page| page.state != State::Free && page.is_lowest();
        for page in self.pages.iter_mut().filter(used) {
            for index in page.present() {
                let slot = page.slot(index);
                if slot.gfn == frame {
                    work(page, index, slot);
                }
            }
        }
    }

    /// Links a page below an entry: `link_shadow_page()`.
    fn link(
        &mut self,
        vm: &mut impl Vm,
        parent: PageId,
        index: usize,
        child: PageId,
    ) -> Result<(), Full> {
        if self.page(parent).slot(index).entry.present() {
            self.zap_slot(vm, parent, index);
            vm.flush_remote();
        }
        self.page_mut(child)
            .add_parent(parent, index)
            .map_err(|_| Full)?;
        let slot = Slot {
            entry: page::link(child),
            gfn: self.page(child).gfn,
            access: Grant::ALL,
            guest: Grant::ALL,
            time: vm.now(),
        };
        self.page_mut(parent).set(index, slot);
        let page = self.page(child);
        if (page.unsync || page.unsync_count != 0) && !vm.has(Bug::LinkedUnsync) {
            self.mark_unsync(vm, parent, index);
        }
        Ok(())
    }

    /// Walks down from a page of a level; returns the place of the entry where the walk ends: at
    /// the lowest level, or at an entry that is not present.
    pub(crate) fn walk(&self, from: PageId, level: u8, address: u64) -> Place {
        let (mut page, mut level) = (from, level);
        loop {
            let index = index(level, address);
            let entry = self.page(page).slot(index).entry;
            if level <= 1 || !entry.present() {
                return Place { page, index, level };
            }
            (page, level) = (page::below(entry), level - 1);
        }
    }

    /// Walks down from a page of a level; returns the page of the level `to`, if the walk reaches
    /// that level.
    pub(crate) fn table_at(&self, from: PageId, level: u8, to: u8, address: u64) -> Option<PageId> {
        let mut page = from;
        for level in (to + 1..=level).rev() {
            let entry = self.page(page).slot(index(level, address)).entry;
            page = entry.present().then(|| page::below(entry))?;
        }
        Some(page)
    }

    /// Returns an entry as the CPU reads it.
    pub(crate) fn entry(&self, place: Place) -> Entry {
        self.page(place.page).slot(place.index).entry
    }

    /// Returns the origin of an entry.
    ///
    /// An entry of a page that is not unsync agrees with the guest's tables now.
    pub(crate) fn origin(&self, vm: &impl Vm, place: Place) -> Origin {
        let page = self.page(place.page);
        let slot = page.slot(place.index);
        Origin {
            gfn: slot.gfn,
            guest: slot.guest,
            time: if page.unsync { slot.time } else { vm.now() },
        }
    }

    /// Returns whether KVM has to see each write to a frame, because a page made from the frame
    /// counts as synchronised.
    pub(crate) fn is_protected(&self, frame: Gfn) -> bool {
        Self::each(self.of_table(frame)).any(|id| !self.page(id).unsync)
    }

    /// Returns the table that a page is made from, while the page is in use.
    pub(crate) fn table_of(&self, id: PageId) -> Option<Gfn> {
        let page = self.page(id);
        (page.state != State::Free).then_some(page.gfn)
    }
}

/// Returns the index of an address's entry in a page of a level.
pub(crate) fn index(level: u8, address: u64) -> usize {
    let shift = 12 + 9 * u32::from(level.saturating_sub(1));
    // CAST: The masked value has nine bits.
    (address >> shift & 511) as usize
}
