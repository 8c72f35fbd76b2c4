// SPDX-License-Identifier: GPL-2.0

//! This module decides whether a guest may be entered.
//!
//! A translation, cached by the CPU or in KVM's pages, must lead to the current place of the frame.
//! The translation may permit writes only if KVM need not see the write, and must permit nothing
//! that the guest's entries forbade when KVM read them, under the current control registers.  Until
//! the guest invalidates the page, the translation may differ from the guest's tables.  From then
//! on, the translation must permit nothing that a fresh walk forbids, and must lead to the same
//! frame.

use super::{
    machine::Machine,
    memory::{
        self,
        PAGES, //
    },
    vcpu::accesses,
    wrong::{
        Stale,
        Wrong, //
    }, //
};
use crate::{
    model::shadow_mmu::{
        Origin,
        Vm, //
    },
    paging::{
        entry::Entry,
        level::ADDRESS, //
    },
    x86::addr::Hpa, //
};

impl Machine {
    /// Finds the first stale entry that a vCPU could use.
    pub(super) fn check(&self, id: usize) -> Result<(), Wrong> {
        let pcid = self.vcpus[id].pcid;
        for page in 0..PAGES {
            let address = memory::address(page);
            for it in self.cpus[id].translations(pcid) {
                if it.address == address {
                    self.judge(id, page, it.entry, it.at, it.origin, false)
                        .map_err(Wrong::TlbEntry)?;
                }
            }
            let Some((top, level)) = self.vcpus[id].roots.top(address) else {
                continue;
            };
            let place = self.shadows.walk(top, level, address);
            let entry = self.shadows.entry(place);
            if entry.present() {
                let at = Hpa::new(entry.into_raw() & ADDRESS);
                let origin = self.shadows.origin(&self.memory, place);
                // An entry of a page that is not unsync has to agree with a fresh walk at any time.
                let synced = !self.shadows.is_unsync(place.page);
                self.judge(id, page, entry, at, origin, synced)
                    .map_err(Wrong::Entry)?;
            }
        }
        for way in self.cpus[id].ways(pcid) {
            let (root, level) = way.root;
            let to = self.shadows.table_at(root, level, way.level, way.address);
            if to != Some(way.table) || self.shadows.table_of(root).is_none() {
                return Err(Wrong::TlbEntry(Stale::Structure));
            }
        }
        Ok(())
    }

    /// Judges an entry for a page; a `synced` entry has to agree with a fresh walk, however new the
    /// entry is.
    fn judge(
        &self,
        id: usize,
        page: u32,
        entry: Entry,
        at: Hpa,
        origin: Origin,
        synced: bool,
    ) -> Result<(), Stale> {
        let vcpu = &self.vcpus[id];
        if self.memory.host(origin.gfn) != Some(at) {
            return Err(Stale::Host);
        }
        if entry.writable() && self.shadows.is_protected(origin.gfn) {
            return Err(Stale::Unseen);
        }
        let old = synced || origin.time < vcpu.invalidated.since(vcpu.pcid, page as usize);
        let (paging, address) = (vcpu.paging(), memory::address(page));
        for access in accesses().filter(|&access| vcpu.cpu_allows(entry, access)) {
            if !vcpu.guest_allows(origin.guest, access) {
                return Err(Stale::Rights);
            }
            if old && paging.allows(&self.memory, address, access) != Some(origin.gfn) {
                return Err(Stale::Guest);
            }
        }
        Ok(())
    }
}
