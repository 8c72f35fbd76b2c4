// SPDX-License-Identifier: GPL-2.0

//! A CPU looks up guest-physical frames in an EPT, and caches mappings with paging off.

use super::{
    access::Access,
    tlb_entry::{
        Drop,
        Key,
        Kind,
        Rights, //
        TlbEntry,
    }, //
};
use crate::{
    model::{
        cpu::context::Context,
        guest::{
            edit::WRITABLE,
            memory::{
                Gfn,
                Hfn, //
            },
            walk, //
        },
        kvm::tables::{
            frame_of,
            is_present, //
        },
        machine::Machine, //
    },
    x86::invpcid::Pcid, //
};

/// The translation of a frame by an EPT.
pub(crate) struct Physical {
    /// The host frame.
    pub(crate) hfn: Hfn,
    /// The level of the entry.
    pub(crate) level: u8,
    /// The rights that the EPT gives.
    pub(crate) rights: Rights,
    /// When KVM read the entry of L1's EPT that the entry was made from.
    pub(crate) nested_time: u32,
}

impl Machine<'_> {
    /// Looks a frame up in an EPT; a write sets the dirty flag.
    pub(crate) fn physical(
        &mut self,
        context: &Context,
        gfn: Gfn,
        write: bool,
    ) -> Result<Physical, Access> {
        let tree = context.tree;
        let found = tree.find(&self.tables, gfn.0);
        let key = Key {
            kind: Kind::Physical,
            level: 0,
            vpid: None,
            pcid: Pcid::ZERO,
            ep4ta: context.ep4ta(),
            global: false,
            first: gfn.0,
            span: 0,
            guest_span: 0,
        };
        let nothing = TlbEntry {
            key,
            gfn,
            hfn: Hfn(0),
            root: tree.root,
            guest: Rights::ALL,
            host: Rights::ALL,
            time: self.now,
            nested_time: 0,
            reader: 0,
        };
        let references = self.ept_references(context, gfn, write, found.place.level);
        self.cost.references += references;
        let cpu = &self.cpus[context.cpu];
        let passed = if references == 0 {
            4
        } else {
            found.place.level
        };
        for level in passed..4 {
            if let Some(table) = found.path[usize::from(level)] {
                let span = tree.span(level + 1);
                let key = Key {
                    level,
                    first: gfn.0 >> span << span,
                    span,
                    ..key
                };
                let hfn = Hfn::at(table.address());
                cpu.keep(TlbEntry {
                    key,
                    hfn,
                    ..nothing
                });
            }
        }
        let place = found.place;
        if !is_present(found.entry) || write && found.entry & WRITABLE == 0 {
            let number = gfn.0;
            return Err(Access::Exit { number, write });
        }
        let mut entry = found.entry;
        if write && self.config.accessed_dirty {
            entry |= tree.role.dirty_bit();
            self.tables.write(place.table, place.index, entry);
        }
        let meta = self.tables.meta(place.table, place.index);
        let span = tree.span(place.level);
        let first = gfn.0 >> span << span;
        let rights = Rights {
            write: entry & WRITABLE != 0,
            dirty: !self.config.accessed_dirty || entry & tree.role.dirty_bit() != 0,
        };
        let key = Key { first, span, ..key };
        cpu.keep(TlbEntry {
            key,
            hfn: frame_of(entry),
            gfn: Gfn(first),
            host: rights,
            nested_time: meta.time,
            ..nothing
        });
        Ok(Physical {
            hfn: frame_of(entry).plus(gfn.0 - first),
            level: place.level,
            rights,
            nested_time: meta.time,
        })
    }

    /// Makes an access with EPT on and paging off: the address is guest-physical.
    ///
    /// The CPU caches the address as a combined mapping in PCID 0, and caches no paging structures.
    pub(crate) fn unpaged(&mut self, context: &Context, page: u16, write: bool) -> Access {
        let Ok(mut leaf) = walk::unpaged(page) else {
            return Access::Done;
        };
        match self.physical(context, leaf.gfn, write) {
            Ok(target) => {
                leaf.level = target.level;
                self.keep_combined(context, page, &leaf, &target);
                Access::Done
            }
            Err(stop) => {
                if let Some(ep4ta) = context.ep4ta() {
                    let cpu = &self.cpus[context.cpu];
                    let (vpid, pcid) = (context.vpid, context.pcid);
                    cpu.drop(Drop::ViolationFrame(ep4ta, leaf.gfn.0));
                    cpu.drop(Drop::ViolationPage(vpid, pcid, ep4ta, page));
                }
                stop
            }
        }
    }
}
