// SPDX-License-Identifier: GPL-2.0

//! This module defines an entry of a CPU's caches: one translation, or one step of a walk.
//!
//! The manual's chapter on caching translation information with VMX states the tags of an entry,
//! its chapter on paging the content of the paging-structure caches.  An entry also records what no
//! CPU does: when it was read, and for which guest.

use crate::{
    ept::Ep4ta,
    model::guest::memory::{
        Gfn,
        Hfn,
        Table, //
    },
    vpid::Vpid,
    x86::invpcid::Pcid, //
};

/// Which kind of mapping it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Of a linear address, with EPT off.
    Linear,
    /// Of a linear address, with EPT on.
    Combined,
    /// Of a guest-physical address.
    Physical,
}

/// The rights that the entries on the way to a page give, and their dirty flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rights {
    /// It may be written.
    pub(crate) write: bool,
    /// A write sets no dirty flag any more.
    pub(crate) dirty: bool,
}

impl Rights {
    /// All.
    pub(crate) const ALL: Self = Self {
        write: true,
        dirty: true,
    };

    /// Whether another has all of these.
    pub(crate) fn within(self, other: Self) -> bool {
        (!self.write || other.write) && (!self.dirty || other.dirty)
    }
}

/// What a cached entry is found by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    /// The kind of mapping.
    pub(crate) kind: Kind,
    /// 0 for a translation; else it is the entry of a paging structure, and the number is the level
    /// of the table that it refers to: 1 for a page table.
    pub(crate) level: u8,
    /// The VPID; `None` for VPID 0, and for a guest-physical mapping.
    pub(crate) vpid: Option<Vpid>,
    /// The PCID; 0 for a guest-physical mapping.
    pub(crate) pcid: Pcid,
    /// The EP4TA; `None` for a linear mapping.
    pub(crate) ep4ta: Option<Ep4ta>,
    /// It is for every PCID.
    pub(crate) global: bool,
    /// The number of the first page that it is for: of a linear page, or of a guest's frame.
    pub(crate) first: u16,
    /// It is for 2^span pages.
    pub(crate) span: u8,
    /// The guest's own page is of 2^span pages: all that it was split into go together.
    pub(crate) guest_span: u8,
}

/// For whom an entry is that some other hypervisor left.
pub(crate) const STRANGER: u32 = u32::MAX;

/// An entry that a CPU has cached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TlbEntry {
    /// What it is found by.
    pub(crate) key: Key,
    /// The guest-physical frame that it leads to; of a linear mapping, as KVM knows it.
    pub(crate) gfn: Gfn,
    /// The host's frame that it leads to; for the entry of one of KVM's structures, its table.
    pub(crate) hfn: Hfn,
    /// The root of the tree of KVM's that it was read from.
    pub(crate) root: Table,
    /// What the guest's tables permit.
    pub(crate) guest: Rights,
    /// What KVM's tables permit.
    pub(crate) host: Rights,
    /// When the guest's tables were read.
    pub(crate) time: u32,
    /// When the entry of L1's EPT was read that it depends on; 0 if it does not.
    pub(crate) nested_time: u32,
    /// For whom the guest's tables were read; see [`crate::model::kvm::vcpu::Context`].
    pub(crate) reader: u32,
}

impl TlbEntry {
    /// Makes it what another hypervisor left under the same tags: it leads to memory of nobody's.
    pub(crate) fn estrange(&mut self) {
        (self.hfn, self.reader) = (Hfn(0), STRANGER);
    }
}

impl Key {
    /// Whether it is for a page.
    pub(crate) fn covers(&self, page: u16) -> bool {
        page >> self.span == self.first >> self.span
    }

    /// Whether the guest's page that it is a part of has a certain page in it.
    fn guest_page_has(&self, page: u16) -> bool {
        let span = self.span.max(self.guest_span);
        page >> span == self.first >> span
    }

    /// Whether it is a linear or combined mapping of a VPID.
    fn is_of(&self, vpid: Option<Vpid>) -> bool {
        self.kind != Kind::Physical && self.vpid == vpid
    }

    /// Whether a guest sees it under a PCID.
    pub(crate) fn seen_with(&self, pcid: Pcid) -> bool {
        self.global || self.pcid == pcid
    }

    /// Whether it is the entry of a paging structure.
    pub(crate) fn is_structure(&self) -> bool {
        self.level != 0
    }
}

/// What is to go from a CPU's caches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Drop {
    /// By INVVPID of an address: in every PCID, globals too.
    Address(Vpid, u16),
    /// By INVVPID of a context.
    Vpid(Vpid),
    /// By INVVPID of all contexts.
    Vpids,
    /// By INVEPT of a context.
    Ep4ta(Ep4ta),
    /// By INVEPT of all contexts.
    Ep4tas,
    /// By VM entry and VM exit without a VPID.
    Crossing,
    /// By the guest's INVLPG: in the current PCID, globals in each, and all paging structures of
    /// the PCID.
    Invlpg(Option<Vpid>, Pcid, u16),
    /// By INVPCID type 0: the address in one PCID, globals excepted.
    PcidAddress(Option<Vpid>, Pcid, u16),
    /// By INVPCID type 1, and by MOV to CR3 with bit 63 clear: one PCID, globals excepted.
    Pcid(Option<Vpid>, Pcid),
    /// By INVPCID type 2, and by a change of CR4.PGE: every PCID, globals too.
    Pcids(Option<Vpid>),
    /// By INVPCID type 3: every PCID, globals excepted.
    PcidsButGlobals(Option<Vpid>),
    /// By a page fault: the page, in the current PCID, and what leads to it; no globals, to be on
    /// the safe side.
    PageFault(Option<Vpid>, Pcid, u16),
    /// By an EPT violation: the guest's frame.
    ViolationFrame(Ep4ta, u16),
    /// By an EPT violation: the linear page of which that frame is the translation, in the current
    /// PCID; a global that was cached under another one stays.
    ViolationPage(Option<Vpid>, Pcid, Ep4ta, u16),
}

impl Drop {
    /// Whether an entry has to go.
    pub(crate) fn takes(self, key: &Key) -> bool {
        match self {
            Self::Address(vpid, page) => key.is_of(Some(vpid)) && key.guest_page_has(page),
            Self::Vpid(vpid) => key.is_of(Some(vpid)),
            Self::Vpids => key.kind != Kind::Physical && key.vpid.is_some(),
            Self::Ep4ta(ep4ta) => key.ep4ta == Some(ep4ta),
            Self::Ep4tas => key.ep4ta.is_some(),
            Self::Crossing => key.is_of(None),
            Self::Invlpg(vpid, pcid, page) => {
                key.is_of(vpid)
                    && key.seen_with(pcid)
                    && (key.is_structure() || key.guest_page_has(page))
            }
            Self::PcidAddress(vpid, pcid, page) => {
                key.is_of(vpid) && !key.global && key.pcid == pcid && key.guest_page_has(page)
            }
            Self::Pcid(vpid, pcid) => key.is_of(vpid) && !key.global && key.pcid == pcid,
            Self::Pcids(vpid) => key.is_of(vpid),
            Self::PcidsButGlobals(vpid) => key.is_of(vpid) && !key.global,
            Self::PageFault(vpid, pcid, page) => {
                key.is_of(vpid) && !key.global && key.pcid == pcid && key.guest_page_has(page)
            }
            Self::ViolationFrame(ep4ta, frame) => {
                key.kind == Kind::Physical && key.ep4ta == Some(ep4ta) && key.covers(frame)
            }
            Self::ViolationPage(vpid, pcid, ep4ta, page) => {
                key.kind == Kind::Combined
                    && key.vpid == vpid
                    && key.ep4ta == Some(ep4ta)
                    && key.pcid == pcid
                    && key.covers(page)
            }
        }
    }
}
