// SPDX-License-Identifier: GPL-2.0

//! This module models shadow pages: the tables that KVM runs a guest on without EPT, made from the
//! guest's own tables.
//!
//! [`crate::model::shadow_run`] has the CPUs and guests that run on it.
//!
//! A shadow page stands for one guest table in one use ([`role`]).  It is filled entry by entry, as
//! accesses fault ([`fetch`]).  Tables of the higher levels are write-protected: KVM sees each
//! write, and drops what was made from the entry ([`zap`]).  The guest may write a page table of
//! the lowest level at will.  Its pages are *unsync* from then on: they may differ from the guest's
//! table, as a TLB may, until the guest invalidates.  To make synchronising cheap, each page above
//! knows which of its entries lead to unsync pages ([`unsync`]).  A vCPU runs on a root, and keeps
//! three more ([`roots`]).
//!
//! The model leaves out shadow pages that map 2 MiB and more, MMIO, prefetching, dirty logging, a
//! second address space in system-management mode, and L2.
//!
//! Source: `mmu/mmu.c`, `mmu/paging_tmpl.h` and `mmu/spte.c` of KVM.

pub(crate) mod bug;
pub(crate) mod fetch;
pub(crate) mod guest;
mod page;
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

/// The number of a frame of guest-physical memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gfn(pub(crate) u64);

/// The number of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PageId(pub(crate) u8);

impl PageId {
    /// Where the first page is.
    const BASE: u64 = 1 << 40;

    /// Returns where it is.
    pub(crate) fn address(self) -> Hpa {
        Hpa::new(Self::BASE | u64::from(self.0) << 12)
    }

    /// Returns the page at an address.
    pub(crate) fn at(address: Hpa) -> Self {
        // CAST: So it was put there.
        Self((address.into_raw() >> 12 & 0xff) as u8)
    }
}

/// Where an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The page.
    pub(crate) page: PageId,
    /// The index in it.
    pub(crate) index: usize,
    /// The level that the CPU comes by at.
    pub(crate) level: u8,
}

/// What an entry of the lowest level was made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    /// The guest's frame.
    pub(crate) gfn: Gfn,
    /// What the guest's entries on the way to it permit.
    pub(crate) guest: Grant,
    /// When that was last seen to be so.
    pub(crate) time: u32,
}

/// Some pages, by a bit each.
type Set = u128;

/// A VM, as far as its shadow pages depend on it and act on it.
pub(crate) trait Vm {
    /// Reads an entry of a table of the guest's; `None` where it has no memory.
    fn read(&self, table: Gfn, index: usize, width: EntryWidth) -> Option<Entry>;
    /// Writes an entry of a table of the guest's: accessed and dirty flags.
    fn write(&mut self, table: Gfn, index: usize, width: EntryWidth, entry: Entry);
    /// Returns where a frame is kept; `None` where there is no memory.
    fn host(&self, frame: Gfn) -> Option<Hpa>;
    /// Has all vCPUs flush before they run on: `kvm_flush_remote_tlbs()`.
    fn flush_remote(&mut self);
    /// Returns the time.
    fn now(&self) -> u32;
    /// Whether something is broken.
    fn has(&self, broken: Bug) -> bool;
}

/// No page is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full;

/// The shadow pages of a VM.
pub(crate) struct Shadows {
    pages: KVVec<Page>,
    /// Pages in use by the hash of their table.
    buckets: [Set; Self::BUCKETS],
    generation: u32,
    born: u32,
}

impl Shadows {
    /// The most pages there can be.
    pub(crate) const MOST: usize = 128;
    /// Places that tables are hashed to.
    const BUCKETS: usize = 8;

    /// Makes room for so many pages.
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

    /// Gives all pages back.
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

    /// Returns how many pages are free.
    pub(crate) fn left(&self) -> usize {
        let free = |page: &&Page| page.state == State::Free;
        self.pages.iter().filter(free).count()
    }

    /// Whether a page must not be used any more: `is_obsolete_sp()`.
    fn is_obsolete(&self, id: PageId) -> bool {
        let page = self.page(id);
        page.state != State::Valid || page.generation != self.generation
    }

    /// Returns the bucket of a table.
    fn bucket(table: Gfn) -> usize {
        // CAST: The remainder is small.
        (table.0 % Self::BUCKETS as u64) as usize
    }

    /// Returns the pages of a set.
    fn each(set: Set) -> impl Iterator<Item = PageId> {
        let mut rest = set;
        core::iter::from_fn(move || {
            let bit = (rest != 0).then(|| rest.trailing_zeros())?;
            rest &= rest - 1;
            // CAST: Below 128.
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

    /// Whether two roles are one, or count as one since something is broken.
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

    /// Finds the page for a table and a role, or makes it: `kvm_mmu_get_shadow_page()`.
    ///
    /// `context` is the role of the root that is in use.
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

    /// Finds it: `kvm_mmu_find_shadow_page()`.
    fn find(&mut self, vm: &mut impl Vm, table: Gfn, role: Role, context: Role) -> Option<PageId> {
        let mut zapped = 0;
        let mut found = None;
        for id in Self::each(self.buckets[Self::bucket(table)]) {
            if self.page(id).gfn != table || self.is_obsolete(id) {
                continue;
            }
            if !Self::same(vm, self.page(id).role, role) {
                // The guest has a new use for the table, most likely.  Its pages are not to be
                // unsync when it is kept from being written.
                if role.level > 1 && self.page(id).unsync {
                    self.prepare_zap(vm, id, &mut zapped);
                }
                continue;
            }
            if self.page(id).unsync && !vm.has(Bug::FoundUnsync) {
                // It stays unsync: the guest may write on.
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

    /// Makes a page: `kvm_mmu_alloc_shadow_page()`, `account_shadowed()`.
    fn allocate(&mut self, vm: &mut impl Vm, table: Gfn, role: Role) -> Result<PageId, Full> {
        let place = self.pages.iter().position(|page| page.state == State::Free);
        // CAST: There are 128 at most.
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

    /// Takes the right to write to a frame from all entries; whether one had it:
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

    /// Calls a function for each entry that leads to a frame.
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

    /// Lets a page be found below an entry: `link_shadow_page()`.
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

    /// Returns the page of the lowest level that a walk comes to from a page of some level, and the
    /// index of its entry there; or the place of the entry where it ends.
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

    /// Returns the page of a level that a walk from a page of another comes to, if it comes so far.
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

    /// Returns what an entry was made from.
    ///
    /// In a page that does not lag behind, an entry says what the guest's tables say now.
    pub(crate) fn origin(&self, vm: &impl Vm, place: Place) -> Origin {
        let page = self.page(place.page);
        let slot = page.slot(place.index);
        Origin {
            gfn: slot.gfn,
            guest: slot.guest,
            time: if page.unsync { slot.time } else { vm.now() },
        }
    }

    /// Whether a frame must not be written without KVM's seeing it: one of its pages counts as up
    /// to date.
    pub(crate) fn is_protected(&self, frame: Gfn) -> bool {
        Self::each(self.of_table(frame)).any(|id| !self.page(id).unsync)
    }

    /// Returns the table that a page is made from, while it is in use.
    pub(crate) fn table_of(&self, id: PageId) -> Option<Gfn> {
        let page = self.page(id);
        (page.state != State::Free).then_some(page.gfn)
    }
}

/// Returns the index of an address's entry in a page of a level.
pub(crate) fn index(level: u8, address: u64) -> usize {
    let shift = 12 + 9 * u32::from(level.saturating_sub(1));
    // CAST: Nine bits.
    (address >> shift & 511) as usize
}
