// SPDX-License-Identifier: GPL-2.0

//! The oracle decides whether a guest may be entered: no entry that the guest could use is stale.
//!
//! A translation has up to three parts, each with a rule of its own:
//!
//! - The host's part maps a guest-physical frame to a host frame.  This part must agree with KVM's
//!   tables whenever a guest runs.
//! - The guest's part maps a linear page to a guest-physical frame.  This part may lag behind the
//!   guest's tables until the guest invalidates the entry ([`super::guest::invalidated`]).  An
//!   entry that was read from another guest's tables is an error even if it agrees by chance.
//! - For an L2 on an EPT of L1's, the EPT's part follows the same rule as the guest's part, by the
//!   invalidations of L1.
//!
//! An old entry that agrees with a fresh walk does no harm, and is no error.

use super::{
    cpu::{
        access::offset,
        tlb_entry::{
            Kind,
            Rights, //
            TlbEntry,
        }, //
    },
    guest::{
        edit::WRITABLE,
        memory::{
            Gfn,
            Hfn,
            PAGES, //
        },
        walk::{
            self,
            Leaf,
            Path, //
        },
        walk_check, //
    },
    kvm::tables::{
        is_present,
        Found, //
    },
    machine::{
        Machine,
        Stale,
        Wrong, //
    }, //
};
use crate::model::cpu::context::Context;

impl Machine<'_> {
    /// Finds the first entry in the CPU's caches or in KVM's own tables that the guest could use
    /// although the entry is stale.
    pub(super) fn check(&self, context: &Context) -> Result<(), Wrong> {
        let mut number = 0u16;
        let stale = self.cpus[context.cpu].find(|entry| {
            let here = number;
            number += 1;
            Some((here, self.judge(context, entry)?))
        });
        if let Some((entry, how)) = stale {
            // CAST: There are two CPUs.
            let cpu = context.cpu as u8;
            return Err(Wrong::Stale { cpu, entry, how });
        }
        self.check_walk(context)?;
        self.check_tree(context)
    }

    /// Checks that the kernel's walk through the guest's tables agrees with the oracle's own walk.
    /// Each action of a guest selects another page.
    fn check_walk(&self, context: &Context) -> Result<(), Wrong> {
        let Some(root) = context.root else {
            return Ok(());
        };
        // CAST: The remainder is below `PAGES`, which is 8.
        let page = (self.now % u32::from(PAGES)) as u16;
        let fresh = self.fresh_guest(context, page).ok();
        let read = |gfn, index| self.guest_word(context, gfn, index);
        let may_read = fresh.map(|leaf| leaf.gfn);
        let may_write = fresh.filter(|leaf| leaf.rights.write).map(|leaf| leaf.gfn);
        let agree = walk_check::by_kernel(root, page, false, read) == may_read
            && walk_check::by_kernel(root, page, true, read) == may_write;
        agree.then_some(()).ok_or(Wrong::WalksDiffer)
    }

    /// Returns why a cached entry is stale; `None` if the entry is not stale or cannot be used.
    fn judge(&self, context: &Context, entry: &TlbEntry) -> Option<Stale> {
        let key = &entry.key;
        let (vpid, ep4ta) = (context.vpid, context.ep4ta());
        let usable = match key.kind {
            Kind::Physical => key.ep4ta == ep4ta && ep4ta.is_some(),
            // A change of the PCID exits, so the guest cannot reach entries of other PCIDs by
            // itself.
            Kind::Linear => key.vpid == vpid && ep4ta.is_none() && key.seen_with(context.pcid),
            Kind::Combined => key.vpid == vpid && key.ep4ta == ep4ta,
        };
        if !usable {
            return None;
        }
        if !self.host_agrees(context, entry) {
            return Some(Stale::Host);
        }
        if !self.nested_agrees(context, entry) {
            return Some(Stale::Nested);
        }
        if key.kind == Kind::Physical || !key.seen_with(context.pcid) {
            return None;
        }
        if entry.reader != context.reader {
            return Some(Stale::Foreign);
        }
        let old = entry.time < self.guest_since(context, entry);
        (old && !self.guest_agrees(context, entry)).then_some(Stale::Guest)
    }

    /// Returns the time since which the guest's part of an entry has to agree with the guest's
    /// tables.
    fn guest_since(&self, context: &Context, entry: &TlbEntry) -> u32 {
        let vcpu = &self.vcpus[context.id];
        let invalidated = vcpu.invalidated[context.reader_index].since(entry);
        // L1's INVEPT drops combined mappings too.
        context.ept12.map_or(invalidated, |ept12| {
            invalidated.max(vcpu.ept12_dropped[usize::from(ept12.number)])
        })
    }

    /// Looks a page or a frame up in KVM's tables; returns the host frame and the rights.
    fn fresh_host(&self, context: &Context, number: u16) -> Option<(Hfn, Rights, Found)> {
        let tree = context.tree;
        let (hfn, found) = tree.translate(&self.tables, number)?;
        let dirty = found.entry & tree.role.dirty_bit() != 0;
        let rights = Rights {
            write: found.entry & WRITABLE != 0,
            dirty: dirty || !self.config.accessed_dirty || !tree.role.is_ept(),
        };
        Some((hfn, rights, found))
    }

    /// Returns whether KVM's tables still agree with an entry.
    fn host_agrees(&self, context: &Context, entry: &TlbEntry) -> bool {
        let key = &entry.key;
        let fresh = |number| self.fresh_host(context, number);
        match (key.kind, key.is_structure()) {
            (Kind::Physical | Kind::Linear, true) => {
                // A guest may keep entries of another root with the same PCID.
                let mut trees = self.trees.iter().flatten();
                let table = trees.find(|tree| tree.root == entry.root).and_then(|tree| {
                    tree.find(&self.tables, key.first).path[usize::from(key.level)]
                });
                // If KVM has freed or replaced the table, no walk may continue from this entry.
                table.is_some_and(|table| Hfn::at(table.address()) == entry.hfn)
            }
            (Kind::Physical, false) => frames_of(entry).all(|(gfn, hfn)| {
                fresh(gfn.0).is_some_and(|(is, rights, _)| is == hfn && entry.host.within(rights))
            }),
            (Kind::Linear, false) => {
                let memory = &self.memories[context.tree.vm];
                let protected = memory.protected & entry.gfn.bit() != 0;
                memory.host(entry.gfn) == entry.hfn && !(entry.host.write && protected)
            }
            (Kind::Combined, true) => fresh(entry.gfn.0).is_some_and(|(is, ..)| is == entry.hfn),
            (Kind::Combined, false) => pages_of(entry).all(|page| {
                let offset = offset(key.span, page);
                fresh(entry.gfn.plus(offset).0).is_some_and(|(is, rights, _)| {
                    is == entry.hfn.plus(offset) && entry.host.within(rights)
                })
            }),
        }
    }

    /// Returns the host frame of a guest's frame, by KVM's tables or by the tables that KVM
    /// shadows.
    fn resolve(&self, context: &Context, gfn: Gfn) -> Option<Hfn> {
        let memory = &self.memories[context.tree.vm];
        let Some(ept12) = context.ept12 else {
            return Some(memory.host(gfn));
        };
        if let Some((hfn, _)) = context.tree.translate(&self.tables, gfn.0) {
            return Some(hfn);
        }
        let leaf = walk::ept12(memory, ept12.root(), gfn)?;
        Some(memory.host(leaf.gfn))
    }

    /// Walks through the guest's tables in their current state.
    pub(super) fn fresh_guest(&self, context: &Context, page: u16) -> Result<Leaf, Path> {
        let Some(root) = context.root else {
            return walk::unpaged(page);
        };
        walk::walk(root, page, |gfn, index| {
            self.guest_word(context, gfn, index)
        })
    }

    /// Reads a word of a guest's frame; `None` if the frame has no memory.
    fn guest_word(&self, context: &Context, gfn: Gfn, index: usize) -> Option<u64> {
        let hfn = self.resolve(context, gfn)?;
        Some(super::guest::memory::read_at(&self.memories, hfn, index))
    }

    /// Returns whether the guest's tables agree with an entry.
    fn guest_agrees(&self, context: &Context, entry: &TlbEntry) -> bool {
        let key = &entry.key;
        if key.is_structure() {
            if key.kind == Kind::Linear {
                // The entry is one of KVM's own tables, which follow the guest's upper tables at
                // once.
                return true;
            }
            let walk = self.fresh_guest(context, key.first);
            // With paging off the guest has no tables, and no path matches.
            let path = walk.map_or_else(|path| path, |leaf| leaf.path);
            return path[usize::from(key.level)] == entry.gfn;
        }
        pages_of(entry).all(|page| {
            let gfn = entry.gfn.plus(offset(key.span, page));
            let fresh = self.fresh_guest(context, page);
            fresh.is_ok_and(|leaf| leaf.gfn == gfn && entry.guest.within(leaf.rights))
        })
    }

    /// Returns whether L1's EPT agrees with an entry, if the entry has to agree.
    fn nested_agrees(&self, context: &Context, entry: &TlbEntry) -> bool {
        let Some(ept12) = context.ept12 else {
            return true;
        };
        let dropped = self.vcpus[context.id].ept12_dropped[usize::from(ept12.number)];
        let key = &entry.key;
        if entry.nested_time >= dropped || key.kind == Kind::Physical && key.is_structure() {
            return true;
        }
        let memory = &self.memories[context.tree.vm];
        let agrees = |gfn: Gfn, hfn: Hfn| {
            let leaf = walk::ept12(memory, ept12.root(), gfn);
            leaf.is_some_and(|leaf| {
                memory.host(leaf.gfn) == hfn && (leaf.rights.write || !entry.host.write)
            })
        };
        match (key.kind, key.is_structure()) {
            (Kind::Physical, _) => frames_of(entry).all(|(gfn, hfn)| agrees(gfn, hfn)),
            (_, true) => walk::ept12(memory, ept12.root(), entry.gfn)
                .is_some_and(|leaf| memory.host(leaf.gfn) == entry.hfn),
            (_, false) => pages_of(entry).all(|page| {
                let offset = offset(key.span, page);
                agrees(entry.gfn.plus(offset), entry.hfn.plus(offset))
            }),
        }
    }

    /// Checks KVM's own tables, which the CPU may read at any time.
    fn check_tree(&self, context: &Context) -> Result<(), Wrong> {
        let tree = context.tree;
        let memory = &self.memories[tree.vm];
        let pages = if tree.role.is_ept() {
            0
        } else {
            u16::from(PAGES)
        };
        let frames = Gfn::all().map(|gfn| gfn.0).filter(|_| tree.role.is_ept());
        for number in (0..pages).chain(frames) {
            let found = tree.find(&self.tables, number);
            let place = found.place;
            if !is_present(found.entry) {
                continue;
            }
            let Some((hfn, rights, _)) = self.fresh_host(context, number) else {
                continue;
            };
            let meta = self.tables.meta(place.table, place.index);
            let back = number & ((1 << tree.span(place.level)) - 1);
            let how = if memory.host(meta.gfn.plus(back)) != hfn {
                Stale::Host
            } else if let Some(ept12) = context.ept12 {
                let dropped = self.vcpus[context.id].ept12_dropped[usize::from(ept12.number)];
                let leaf = walk::ept12(memory, ept12.root(), Gfn(number));
                let agrees = leaf.is_some_and(|leaf| {
                    memory.host(leaf.gfn) == hfn && (leaf.rights.write || !rights.write)
                });
                if meta.time >= dropped || agrees {
                    continue;
                }
                Stale::Nested
            } else if tree.role.is_ept() {
                continue;
            } else {
                let invalidated = &self.vcpus[context.id].invalidated[context.reader_index];
                let entry = shadow(context, number, meta.time);
                let fresh = self.fresh_guest(context, number);
                let guest = Rights {
                    dirty: rights.write,
                    ..rights
                };
                let agrees =
                    fresh.is_ok_and(|leaf| leaf.gfn == meta.gfn && guest.within(leaf.rights));
                if meta.time >= invalidated.since(&entry) || agrees {
                    continue;
                }
                Stale::Guest
            };
            return Err(Wrong::StaleTable { number, how });
        }
        Ok(())
    }
}

/// Returns an entry of KVM's shadow tables as the CPU would cache the entry, as far as
/// [`super::guest::invalidated`] looks at it.
fn shadow(context: &Context, page: u16, time: u32) -> TlbEntry {
    TlbEntry {
        key: super::cpu::tlb_entry::Key {
            kind: Kind::Linear,
            level: 0,
            vpid: context.vpid,
            pcid: context.pcid,
            ep4ta: None,
            global: false,
            first: page,
            span: 0,
            guest_span: 0,
        },
        gfn: Gfn(0),
        hfn: Hfn(0),
        root: context.tree.root,
        guest: Rights::ALL,
        host: Rights::ALL,
        time,
        nested_time: 0,
        reader: context.reader,
    }
}

/// Returns the linear pages that an entry maps.
fn pages_of(entry: &TlbEntry) -> impl Iterator<Item = u16> {
    let first = entry.key.first;
    first..first + (1 << entry.key.span)
}

/// Returns the existing frames that a guest-physical mapping maps, each with its host frame.
fn frames_of(entry: &TlbEntry) -> impl Iterator<Item = (Gfn, Hfn)> + '_ {
    Gfn::all()
        .filter(|gfn| entry.key.covers(gfn.0))
        .map(|gfn| (gfn, entry.hfn.plus(gfn.0 - entry.gfn.0)))
}
