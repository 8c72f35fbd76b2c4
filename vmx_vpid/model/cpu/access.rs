// SPDX-License-Identifier: GPL-2.0

//! A CPU that caches as much as the manual allows accesses memory for a guest.
//!
//! The CPU takes every way to a page that a real CPU could take: from the root, and from each
//! cached entry of a paging structure.  The CPU caches the result of each way.  The CPU always
//! looks up guest-physical mappings in the tables: cached mappings agree with the tables, because
//! otherwise [`crate::model::oracle`] would not have let the guest be entered.

use super::{
    context::Context,
    gpa::Physical,
    tlb_entry::{
        Drop,
        Key,
        Kind,
        Rights, //
        TlbEntry,
    }, //
};
use crate::model::{
    bug::Bug,
    guest::{
        edit::{
            DIRTY,
            GLOBAL,
            LARGE,
            PRESENT,
            WRITABLE, //
        },
        memory::{
            read_at,
            write_at,
            Gfn,
            Hfn,
            Table,
            PAGES, //
        },
        walk::{
            self,
            Leaf, //
        }, //
    },
    kvm::tables::{
        frame_of,
        is_leaf,
        is_present,
        NO_TABLE, //
    },
    machine::{
        Machine,
        Ways, //
    }, //
};

/// The result of an access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// The access was made.
    Done,
    /// The guest gets a page fault, because of its own tables.
    GuestFault,
    /// KVM's tree has no entry for a page or a frame, or the entry does not permit the write.
    Exit {
        /// The page or the frame.
        number: u16,
        /// The access is a write.
        write: bool,
    },
}

/// The table, of a level, at which a way to a page begins.
#[derive(Clone, Copy)]
struct Start {
    level: u8,
    gfn: Gfn,
    /// The host frame of the table; `None` if the frame has to be looked up.
    hfn: Option<Hfn>,
    /// The root of KVM's tree that the table belongs to.
    root: Table,
    nested_time: u32,
}

/// Returns the distance of a page's frame from the first frame of a large mapping.
pub(crate) fn offset(span: u8, page: u16) -> u16 {
    match span {
        0 => 0,
        1 => page & 1,
        _ => (page & 1) + ((page >> 1 & 1) << 9),
    }
}

impl Machine<'_> {
    /// Accesses a page by every way.
    pub(crate) fn access(&mut self, context: &Context, page: u16, write: bool) -> Access {
        let ep4ta = context.ep4ta();
        let Some(root) = context.root.or(ep4ta.is_none().then_some(NO_TABLE)) else {
            return self.unpaged(context, page, write);
        };
        if self.config.ways == Ways::Shortest && self.has_translation(context, page, write) {
            return Access::Done;
        }
        self.cost.misses += 1;
        let mut starts = [None; PAGES as usize];
        let mut free = starts.iter_mut();
        let kind = context.kind();
        self.cpus[context.cpu].find(|it| {
            let key = &it.key;
            let usable = key.kind == kind
                && key.is_structure()
                && (key.vpid, key.ep4ta, key.pcid) == (context.vpid, ep4ta, context.pcid)
                && key.covers(page);
            if usable {
                *free.next()? = Some(Start {
                    level: key.level,
                    gfn: it.gfn,
                    hfn: Some(it.hfn),
                    root: it.root,
                    nested_time: it.nested_time,
                });
            }
            None::<()>
        });
        let top = Start {
            level: 4,
            gfn: root,
            hfn: None,
            root: context.tree.root,
            nested_time: 0,
        };
        if self.config.ways == Ways::Shortest {
            let known = starts.into_iter().flatten();
            let nearest = known.min_by_key(|start| start.level);
            starts = [None; PAGES as usize];
            starts[0] = nearest;
        }
        let from_root = self.config.ways == Ways::All || starts[0].is_none();
        let mut outcome = Access::Done;
        for start in starts.into_iter().flatten().chain(from_root.then_some(top)) {
            let way = if ep4ta.is_some() {
                self.combined(context, start, page, write)
            } else {
                self.linear(context, start, page, write)
            };
            let cpu = &self.cpus[context.cpu];
            let (vpid, pcid) = (context.vpid, context.pcid);
            match (way, ep4ta) {
                (Access::Done, _) => {}
                (Access::Exit { number, .. }, Some(ep4ta)) => {
                    cpu.drop(Drop::ViolationFrame(ep4ta, number));
                    return way;
                }
                // With EPT off, the page fault exits.
                (Access::Exit { .. }, None) => {
                    cpu.drop(Drop::PageFault(vpid, pcid, page));
                    return way;
                }
                (Access::GuestFault, _) => {
                    cpu.drop(Drop::PageFault(vpid, pcid, page));
                    outcome = way;
                }
            }
        }
        outcome
    }

    /// Walks one way to a page, with EPT on.
    fn combined(&mut self, context: &Context, start: Start, page: u16, write: bool) -> Access {
        self.try_combined(context, start, page, write)
            .map_or_else(|stop| stop, |()| Access::Done)
    }

    /// Walks one way to a page, with EPT on; returns any end but success as an error.
    fn try_combined(
        &mut self,
        context: &Context,
        start: Start,
        page: u16,
        write: bool,
    ) -> Result<(), Access> {
        let key = Key {
            kind: Kind::Combined,
            level: 0,
            vpid: context.vpid,
            pcid: context.pcid,
            ep4ta: context.ep4ta(),
            global: false,
            first: page,
            span: 0,
            guest_span: 0,
        };
        let Start {
            mut level,
            mut gfn,
            hfn,
            mut nested_time,
            ..
        } = start;
        // An older entry of a paging structure may be used as long as the entry is cached; the
        // entries read from here on are new.
        let time = self.now;
        let mut known = hfn;
        loop {
            let hfn = match known.take() {
                Some(hfn) => hfn,
                None => {
                    // With accessed and dirty flags in the EPT, an access to a guest's table is a
                    // write.
                    let table = self.physical(context, gfn, self.config.accessed_dirty)?;
                    nested_time = table.nested_time;
                    table.hfn
                }
            };
            if level < 4 {
                // An entry of the level above refers to this table.
                let key = Key {
                    level,
                    first: page >> level << level,
                    span: level,
                    ..key
                };
                self.cpus[context.cpu].keep(TlbEntry {
                    key,
                    gfn,
                    hfn,
                    root: context.tree.root,
                    guest: Rights::ALL,
                    host: Rights::ALL,
                    time,
                    nested_time,
                    reader: context.reader,
                });
            }
            let index = walk::index(level, page);
            self.cost.references += 1;
            let mut entry = read_at(&self.memories, hfn, index);
            if entry & PRESENT == 0 {
                return Err(Access::GuestFault);
            }
            if level > 1 && entry & LARGE == 0 {
                (gfn, level) = (Gfn::of_entry(entry), level - 1);
                continue;
            }
            if write && entry & WRITABLE == 0 {
                return Err(Access::GuestFault);
            }
            if write && entry & DIRTY == 0 {
                self.physical(context, gfn, true)?;
                entry |= DIRTY;
                write_at(&mut self.memories, hfn, index, entry);
            }
            let frame = walk::frame(entry, level, page);
            let target = self.physical(context, frame, write).inspect_err(|_| {
                if let Some(ep4ta) = context.ep4ta() {
                    let what = Drop::ViolationPage(context.vpid, context.pcid, ep4ta, page);
                    self.cpus[context.cpu].drop(what);
                }
            });
            let leaf = Leaf {
                gfn: frame,
                level,
                rights: Rights {
                    write: entry & WRITABLE != 0,
                    dirty: entry & DIRTY != 0,
                },
                global: entry & GLOBAL != 0,
                path: [NO_TABLE; 5],
            };
            self.keep_combined(context, page, &leaf, &target?);
            return Ok(());
        }
    }

    /// Caches a combined mapping, of the guest's leaf and the EPT's translation of the leaf's
    /// frame.
    pub(crate) fn keep_combined(
        &self,
        context: &Context,
        page: u16,
        leaf: &Leaf,
        target: &Physical,
    ) {
        let guest_span = leaf.level - 1;
        let span = guest_span.min(target.level - 1);
        let back = offset(span, page);
        let key = Key {
            kind: Kind::Combined,
            level: 0,
            vpid: context.vpid,
            pcid: context.pcid,
            ep4ta: context.ep4ta(),
            global: leaf.global,
            first: page >> span << span,
            span,
            guest_span,
        };
        self.cpus[context.cpu].keep(TlbEntry {
            key,
            gfn: Gfn(leaf.gfn.0 - back),
            hfn: Hfn(target.hfn.0 - u32::from(back)),
            root: context.tree.root,
            guest: leaf.rights,
            host: target.rights,
            time: self.now,
            nested_time: target.nested_time,
            reader: context.reader,
        });
    }

    /// Walks one way to a page, with EPT off: through KVM's shadow tables.
    fn linear(&mut self, context: &Context, start: Start, page: u16, write: bool) -> Access {
        let tree = context.tree;
        let mut level = start.level;
        let mut shadowed = start.gfn;
        let mut table = match start.hfn {
            // CAST: `hfn` is the frame of a table of KVM's, and tables have small numbers.
            Some(hfn) => Table((hfn.0 - 1) as u8),
            None => tree.root,
        };
        let exit = Access::Exit {
            number: page,
            write,
        };
        let key = Key {
            kind: Kind::Linear,
            level: 0,
            vpid: context.vpid,
            pcid: context.pcid,
            ep4ta: None,
            global: false,
            first: page,
            span: 0,
            guest_span: 0,
        };
        loop {
            let index = tree.role.index(level, page);
            self.cost.references += 1;
            let entry = self.tables.read(table, index);
            let meta = self.tables.meta(table, index);
            if !is_present(entry) {
                return exit;
            }
            let reader = context.reader;
            let nothing = TlbEntry {
                key,
                gfn: meta.gfn,
                hfn: frame_of(entry),
                root: start.root,
                guest: Rights::ALL,
                host: Rights::ALL,
                // KVM follows a change of these guest tables at once, so the entry counts as read
                // now.
                time: if level == 1 && shadowed != NO_TABLE {
                    meta.time
                } else {
                    self.now
                },
                nested_time: 0,
                reader,
            };
            if !is_leaf(entry, level) {
                (table, shadowed) = (Table::of_entry(entry), meta.gfn);
                level -= 1;
                let key = Key {
                    level,
                    first: page >> level << level,
                    span: level,
                    ..key
                };
                self.cpus[context.cpu].keep(TlbEntry { key, ..nothing });
                continue;
            }
            let writable = entry & WRITABLE != 0;
            if write && !writable {
                return exit;
            }
            // KVM permits a write only if the guest's dirty flag is set.
            let guest = Rights {
                write: writable,
                dirty: writable,
            };
            let host = Rights {
                write: writable,
                dirty: true,
            };
            self.cpus[context.cpu].keep(TlbEntry {
                guest,
                host,
                ..nothing
            });
            return Access::Done;
        }
    }

    /// Drops entries for a guest's instruction that does not exit.
    pub(crate) fn guest_drops(&self, context: &Context, what: Drop) {
        if !self.bugs.has(Bug::CpuKeepsAll) {
            self.cpus[context.cpu].drop(what);
        }
    }
}
