// SPDX-License-Identifier: GPL-2.0

//! This module keeps the roots of a vCPU: one for its CR3, and up to three of earlier CR3s.
//!
//! The guest's CR3 includes the PCID, if the guest uses PCIDs, and a root belongs to the whole
//! value.  A root that is not in use may become stale.  When the guest invalidates translations,
//! KVM synchronises or frees each cached root that has such translations.
//!
//! Source: `struct kvm_mmu`, `fast_pgd_switch()` and `kvm_mmu_load()` in `mmu/mmu.c`,
//! `kvm_invalidate_pcid()` in `x86.c`.

use super::{
    bug::Bug,
    guest::Paging,
    page::State,
    role::Role,
    Full,
    Gfn,
    PageId,
    Shadows,
    Vm, //
};

/// The number of roots that are cached besides the current root: `KVM_MMU_NUM_PREV_ROOTS`.
pub(crate) const PREVIOUS: usize = 3;

/// Bits 11:0 of CR3.
const PCID: u64 = 0xfff;

/// A root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Root {
    /// The CR3 that the root was made for.
    pub(crate) pgd: u64,
    /// The page; if the CPU walks three levels, four pages, one for each GiB of the first 4 GiB.
    pages: [Option<PageId>; 4],
}

/// The roots of a vCPU.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cache {
    role: Role,
    current: Option<Root>,
    previous: [Option<Root>; PREVIOUS],
}

impl Cache {
    /// Makes a cache without roots, for a role.
    pub(crate) fn new(role: Role) -> Self {
        Self {
            role,
            current: None,
            previous: [None; PREVIOUS],
        }
    }

    /// Returns the role that roots are made for.
    pub(crate) fn role(&self) -> Role {
        self.role
    }

    /// Returns whether there is a current root.
    pub(crate) fn is_loaded(&self) -> bool {
        self.current.is_some()
    }

    /// Returns the page at which the walk for an address begins, and the level.
    pub(crate) fn top(&self, address: u64) -> Option<(PageId, u8)> {
        let root = self.current?;
        if self.role.has_pae_root() {
            // CAST: The masked value has two bits.
            Some((root.pages[(address >> 30 & 3) as usize]?, 2))
        } else {
            Some((root.pages[0]?, self.role.level))
        }
    }

    /// Frees a root: `kvm_mmu_free_roots()`.
    fn free(root: &mut Option<Root>, shadows: &mut Shadows, vm: &mut impl Vm) {
        let pages = root.take().into_iter().flat_map(|root| root.pages);
        for page in pages.flatten() {
            shadows.put_root(vm, page);
        }
    }

    /// Frees all roots: `kvm_mmu_unload()`.
    pub(crate) fn unload(&mut self, shadows: &mut Shadows, vm: &mut impl Vm) {
        Self::free(&mut self.current, shadows, vm);
        for root in &mut self.previous {
            Self::free(root, shadows, vm);
        }
    }

    /// Sets the role, after a change of the guest's registers, and frees all roots:
    /// `kvm_mmu_reset_context()`.
    pub(crate) fn reset(&mut self, shadows: &mut Shadows, vm: &mut impl Vm, role: Role) {
        if !vm.has(Bug::ContextKept) || role.level != self.role.level {
            self.unload(shadows, vm);
        }
        self.role = role;
    }

    /// Returns whether a root can be used for a CR3 and the role: `is_root_usable()`.
    fn is_usable(&self, root: Option<Root>, shadows: &Shadows, vm: &impl Vm, pgd: u64) -> bool {
        let Some((root, page)) = root.and_then(|root| Some((root, root.pages[0]?))) else {
            return false;
        };
        let pgd = self.role.direct || root.pgd == pgd || vm.has(Bug::PgdNotCompared);
        let page = shadows.page(page);
        pgd && page.role == self.role && page.state == State::Valid
    }

    /// Switches to the root of another CR3, if one is cached; returns whether one is:
    /// `fast_pgd_switch()`.
    ///
    /// The current root becomes the first of the previous ones, and the last of these is freed.
    pub(crate) fn turn_to(&mut self, shadows: &mut Shadows, vm: &mut impl Vm, pgd: u64) -> bool {
        if self.role.has_pae_root() {
            // KVM caches no roots of this kind.
            Self::free(&mut self.current, shadows, vm);
        }
        if self.current.is_some() {
            for number in 0..PREVIOUS {
                if self.is_usable(self.current, shadows, vm, pgd) {
                    return true;
                }
                core::mem::swap(&mut self.current, &mut self.previous[number]);
            }
            if self.is_usable(self.current, shadows, vm, pgd) {
                return true;
            }
            Self::free(&mut self.current, shadows, vm);
            return false;
        }
        let kept = (0..PREVIOUS).find(|&number| {
            let root = self.previous[number];
            self.is_usable(root, shadows, vm, pgd)
        });
        if let Some(number) = kept {
            self.current = self.previous[number].take();
            self.previous[number..].rotate_left(1);
        }
        kept.is_some()
    }

    /// Makes a root if there is no current root, and synchronises the new root; returns whether a
    /// root was made: `kvm_mmu_load()`.
    ///
    /// # Errors
    ///
    /// [`Full`].
    pub(crate) fn load(
        &mut self,
        shadows: &mut Shadows,
        vm: &mut impl Vm,
        paging: &Paging,
    ) -> Result<bool, Full> {
        if self.is_loaded() {
            return Ok(false);
        }
        shadows.reclaim(vm, super::fetch::MIN_FREE);
        let mut pages = [None; 4];
        let count = if self.role.has_pae_root() { 4 } else { 1 };
        for (number, page) in (0u8..).zip(&mut pages).take(count) {
            let role = self.role.of_root_page(number);
            // Each direct page maps one GiB of memory.
            let table = if role.direct {
                Gfn(u64::from(number) << 18)
            } else {
                paging.root()
            };
            let id = shadows.get(vm, table, role, self.role)?;
            shadows.take_root(id);
            *page = Some(id);
        }
        self.current = Some(Root {
            pgd: paging.cr3,
            pages,
        });
        if !vm.has(Bug::NotSyncedAtLoad) {
            self.sync(shadows, vm);
        }
        Ok(true)
    }

    /// Synchronises the current root: `kvm_mmu_sync_roots()`.
    pub(crate) fn sync(&self, shadows: &mut Shadows, vm: &mut impl Vm) {
        let pages = self.current.into_iter().flat_map(|root| root.pages);
        for page in pages.flatten() {
            shadows.sync_children(vm, page, self.role);
        }
    }

    /// Frees previous roots that lead to unsync pages: `kvm_mmu_sync_prev_roots()`.
    pub(crate) fn sync_previous(&mut self, shadows: &mut Shadows, vm: &mut impl Vm) {
        if vm.has(Bug::PreviousNotSynced) {
            return;
        }
        for root in &mut self.previous {
            let page = root.and_then(|root| root.pages[0]);
            if page.is_some_and(|page| shadows.is_unsync(page)) {
                Self::free(root, shadows, vm);
            }
        }
    }

    /// Frees obsolete roots: `kvm_mmu_free_obsolete_roots()`.
    pub(crate) fn free_obsolete(&mut self, shadows: &mut Shadows, vm: &mut impl Vm) {
        let kept = vm.has(Bug::InvalidRootKept);
        let free = |root: &mut Option<Root>, shadows: &mut Shadows, vm: &mut _| {
            let pages = root.iter().flat_map(|root| root.pages);
            if !kept && pages.flatten().any(|page| shadows.is_obsolete(page)) {
                Self::free(root, shadows, vm);
            }
        };
        free(&mut self.current, shadows, vm);
        for root in &mut self.previous {
            free(root, shadows, vm);
        }
    }

    /// Returns the PCID of a root.
    fn pcid(root: Root) -> u64 {
        root.pgd & PCID
    }

    /// Frees previous roots of a PCID: `kvm_invalidate_pcid()`.
    pub(crate) fn free_pcid(&mut self, shadows: &mut Shadows, vm: &mut impl Vm, pcid: u64) {
        if vm.has(Bug::PcidKept) {
            return;
        }
        for root in &mut self.previous {
            if root.is_some_and(|root| Self::pcid(root) == pcid) {
                Self::free(root, shadows, vm);
            }
        }
    }

    /// Returns whether there is a previous root of a PCID.
    pub(crate) fn has_pcid(&self, pcid: u64) -> bool {
        let mut roots = self.previous.iter().flatten();
        roots.any(|&root| Self::pcid(root) == pcid)
    }

    /// Synchronises the entry of an address: below the current root if `current`, and below the
    /// previous roots of a PCID, or below all previous roots: `kvm_mmu_invalidate_addr()`.
    pub(crate) fn invalidate(
        &self,
        shadows: &mut Shadows,
        vm: &mut impl Vm,
        address: u64,
        current: bool,
        pcid: Option<u64>,
    ) {
        if vm.has(Bug::InvlpgNotSynced) {
            return;
        }
        if current {
            if let Some((page, level)) = self.top(address) {
                shadows.invalidate(vm, page, level, address);
            }
        }
        if vm.has(Bug::PreviousNotInvalidated) || self.role.has_pae_root() {
            return;
        }
        for root in self.previous.into_iter().flatten() {
            let meant = pcid.is_none_or(|pcid| Self::pcid(root) == pcid);
            if let Some(page) = root.pages[0].filter(|_| meant) {
                shadows.invalidate(vm, page, self.role.level, address);
            }
        }
    }
}

impl Shadows {
    /// Synchronises the entry of an address below a root: `__kvm_mmu_invalidate_addr()`.
    ///
    /// The walk ends at a page that leads to no unsync page.
    fn invalidate(&mut self, vm: &mut impl Vm, root: PageId, level: u8, address: u64) {
        let (mut id, mut level) = (root, level);
        loop {
            let index = super::index(level, address);
            let page = self.page(id);
            if page.unsync {
                let synced = self.sync_slot(vm, id, index);
                if synced.is_none() {
                    self.zap_slot(vm, id, index);
                }
                if synced.unwrap_or(true) && !vm.has(Bug::SyncNotFlushed) {
                    vm.flush_remote();
                }
                return;
            }
            let entry = page.slot(index).entry;
            if page.unsync_count == 0 || level == 1 || !entry.present() {
                return;
            }
            (id, level) = (super::page::below(entry), level - 1);
        }
    }
}
