// SPDX-License-Identifier: GPL-2.0

//! A TLB entry of the model is one cached translation, or one cached entry of a paging structure.
//!
//! The tags are those of the manual's chapter on caching translation information with VMX; the
//! paging-structure caches follow the manual's chapter on paging.  An entry also has what no CPU
//! keeps: the time at which the entry was read, and the reader.

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

/// The kind of a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Of a linear address, with EPT off.
    Linear,
    /// Of a linear address, with EPT on.
    Combined,
    /// Of a guest-physical address.
    Physical,
}

/// The rights that the entries on the way to a page give, and the dirty flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rights {
    /// The page may be written.
    pub(crate) write: bool,
    /// A write does not have to set a dirty flag.
    pub(crate) dirty: bool,
}

impl Rights {
    /// All.
    pub(crate) const ALL: Self = Self {
        write: true,
        dirty: true,
    };

    /// Returns whether `other` has all of these rights.
    pub(crate) fn within(self, other: Self) -> bool {
        (!self.write || other.write) && (!self.dirty || other.dirty)
    }
}

/// The tags of a cached entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    /// The kind of mapping.
    pub(crate) kind: Kind,
    /// 0 for a translation.  Otherwise the entry is an entry of a paging structure that refers to a
    /// table of this level: 1 for a page table.
    pub(crate) level: u8,
    /// The VPID; `None` for VPID 0, and for a guest-physical mapping.
    pub(crate) vpid: Option<Vpid>,
    /// The PCID; 0 for a guest-physical mapping.
    pub(crate) pcid: Pcid,
    /// The EP4TA; `None` for a linear mapping.
    pub(crate) ep4ta: Option<Ep4ta>,
    /// The entry is used in every PCID.
    pub(crate) global: bool,
    /// The number of the first page: a linear page, or a guest's frame.
    pub(crate) first: u16,
    /// The entry maps 2^span pages.
    pub(crate) span: u8,
    /// The guest's own page has 2^span pages: an invalidation drops all parts of that page
    /// together.
    pub(crate) guest_span: u8,
}

/// The reader of an entry that another hypervisor left.
pub(crate) const STRANGER: u32 = u32::MAX;

/// An entry in a CPU's caches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TlbEntry {
    /// The tags.
    pub(crate) key: Key,
    /// The guest-physical frame that the entry leads to; for a linear mapping, the frame that KVM
    /// knows.
    pub(crate) gfn: Gfn,
    /// The host frame that the entry leads to; for an entry of one of KVM's paging structures, the
    /// frame of the table.
    pub(crate) hfn: Hfn,
    /// The root of KVM's tree that the entry was read from.
    pub(crate) root: Table,
    /// The rights that the guest's tables give.
    pub(crate) guest: Rights,
    /// The rights that KVM's tables give.
    pub(crate) host: Rights,
    /// When the guest's tables were read.
    pub(crate) time: u32,
    /// When the entry of L1's EPT was read that this entry depends on; 0 if there is none.
    pub(crate) nested_time: u32,
    /// The vCPU that the guest's tables were read for; see [`crate::model::kvm::vcpu::Reader`].
    pub(crate) reader: u32,
}

impl TlbEntry {
    /// Turns the entry into one that another hypervisor left under the same tags: the host frame is
    /// no guest's.
    pub(crate) fn estrange(&mut self) {
        (self.hfn, self.reader) = (Hfn(0), STRANGER);
    }
}

impl Key {
    /// Returns whether the entry is for a page.
    pub(crate) fn covers(&self, page: u16) -> bool {
        page >> self.span == self.first >> self.span
    }

    /// Returns whether the guest's page that the entry is a part of contains a page.
    fn guest_page_has(&self, page: u16) -> bool {
        let span = self.span.max(self.guest_span);
        page >> span == self.first >> span
    }

    /// Returns whether the entry is a linear or combined mapping of a VPID.
    fn is_of(&self, vpid: Option<Vpid>) -> bool {
        self.kind != Kind::Physical && self.vpid == vpid
    }

    /// Returns whether a guest can use the entry in a PCID.
    pub(crate) fn seen_with(&self, pcid: Pcid) -> bool {
        self.global || self.pcid == pcid
    }

    /// Returns whether the entry is an entry of a paging structure.
    pub(crate) fn is_structure(&self) -> bool {
        self.level != 0
    }
}

/// The entries that an event drops.
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
    /// By a page fault: the page in the current PCID, and the paging structures on the way; globals
    /// stay, which is the safe assumption.
    PageFault(Option<Vpid>, Pcid, u16),
    /// By an EPT violation: the guest's frame.
    ViolationFrame(Ep4ta, u16),
    /// By an EPT violation: the linear page that the frame is the translation of, in the current
    /// PCID; a global that was cached in another PCID stays.
    ViolationPage(Option<Vpid>, Pcid, Ep4ta, u16),
}

impl Drop {
    /// Returns whether the event drops an entry.
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
