// SPDX-License-Identifier: GPL-2.0

//! This module mocks hardware and address spaces for tests: the mocks log each operation, in order.

use crate::{
    asid::{
        cpu::{
            Cpu,
            Slot,
            UserFlush, //
        },
        invpcid::Extent,
        Asid,
        ContextId,
        Features,
        Hardware,
        Mm,
        Published,
        Root,
        TlbGen,
        SLOTS, //
    },
    x86::{
        addr::Hva,
        control_regs::Cr3, //
    }, //
};
use core::cell::Cell;

/// A logged operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Did {
    /// A state was published.
    Show(Published),
    /// CR3 was written.
    Cr3(u64),
    /// INVLPG.
    Invlpg(u64),
    /// INVPCID.
    Invpcid(Extent),
    /// An address space was joined.
    Join(u64),
    /// An address space was left.
    Leave(u64),
    /// The tlb_gen of an address space was read.
    Read(u64),
    /// CR4.PGE was toggled twice.
    Pge,
}

/// The greatest number of logged operations.
const MOST: usize = 32;

/// Mock hardware, with the log.
pub(crate) struct Hands {
    features: Features,
    log: Cell<[Option<Did>; MOST]>,
    count: Cell<usize>,
}

impl Hands {
    /// Makes hardware with an empty log.
    pub(crate) fn new(features: Features) -> Self {
        Self {
            features,
            log: Cell::new([None; MOST]),
            count: Cell::new(0),
        }
    }

    /// Logs an operation.
    pub(crate) fn note(&self, did: Did) {
        let (mut log, count) = (self.log.get(), self.count.get());
        if let Some(place) = log.get_mut(count) {
            *place = Some(did);
        }
        self.log.set(log);
        self.count.set(count + 1);
    }

    /// Returns whether the log has exactly these operations.
    pub(crate) fn did(&self, wanted: &[Did]) -> bool {
        let log = self.log.get();
        let same = wanted.len() == self.count.get()
            && wanted.iter().zip(&log).all(|(a, b)| Some(*a) == *b);
        if !same {
            kernel::pr_err!("{:?} instead of {:?}\n", log, wanted);
        }
        same
    }

    /// Returns the number of writes of CR3 that kept cached translations.
    pub(crate) fn kept(&self) -> usize {
        let log = self.log.get();
        let kept = |did: &&Did| matches!(did, Did::Cr3(cr3) if cr3 >> 63 == 1);
        log.iter().flatten().filter(kept).count()
    }
}

impl Hardware for Hands {
    fn features(&self) -> Features {
        self.features
    }

    fn publish(&self, shown: Published) {
        self.note(Did::Show(shown));
    }

    fn leave(&self, space: ContextId) {
        self.note(Did::Leave(space.into_raw()));
    }

    fn write_cr3(&self, cr3: Cr3) {
        self.note(Did::Cr3(cr3.into_raw()));
    }

    fn invlpg(&self, address: Hva) {
        self.note(Did::Invlpg(address.into_raw()));
    }

    fn invpcid(&self, extent: Extent) {
        self.note(Did::Invpcid(extent));
    }
}

/// A mock address space; the number of the root's page is the context id.
pub(crate) struct MockMm<'a> {
    id: ContextId,
    tlb_gen: TlbGen,
    hands: Option<&'a Hands>,
    /// The global ASID, if the address space has one.
    pub(crate) global: Option<Asid>,
}

impl<'a> MockMm<'a> {
    /// Makes an address space at a tlb_gen.
    pub(crate) fn new(id: u64, tlb_gen: u64) -> Self {
        Self {
            id: ContextId::new(id).unwrap_or(ContextId::KERNEL),
            tlb_gen: TlbGen::new(tlb_gen),
            hands: None,
            global: None,
        }
    }

    /// Returns the address space with each method call logged in `hands`.
    pub(crate) fn with(self, hands: &'a Hands) -> Self {
        let hands = Some(hands);
        Self { hands, ..self }
    }

    /// Logs an operation.
    fn note(&self, did: Did) {
        if let Some(hands) = self.hands {
            hands.note(did);
        }
    }
}

impl Mm for MockMm<'_> {
    fn id(&self) -> ContextId {
        self.id
    }

    fn root(&self) -> Root {
        Root::new(self.id.into_raw() << 12)
    }

    fn tlb_gen(&self) -> TlbGen {
        self.note(Did::Read(self.id.into_raw()));
        self.tlb_gen
    }

    fn global_asid(&self) -> Option<Asid> {
        self.global
    }

    fn join(&self) {
        self.note(Did::Join(self.id.into_raw()));
    }
}

/// Returns the features of a CPU with INVPCID.
pub(crate) fn features(pcid: bool, pti: bool) -> Features {
    Features {
        pcid,
        pti,
        invpcid: true,
    }
}

/// Returns a CPU that uses an address space under an ASID, at tlb_gen 5; the other slots are
/// unknown.
pub(crate) fn cpu(loaded: u64, asid: u16) -> Cpu {
    let loaded = ContextId::new(loaded).unwrap_or(ContextId::KERNEL);
    let asid = Asid::new(asid).unwrap_or(Asid::FIRST);
    let mut slots = [Slot::UNKNOWN; SLOTS];
    if let Some(slot) = asid.slot().and_then(|slot| slots.get_mut(slot)) {
        *slot = Slot {
            id: Some(loaded),
            tlb_gen: TlbGen::new(5),
        };
    }
    Cpu {
        loaded,
        asid,
        lazy: false,
        next: 1,
        invalidate_other: false,
        user_flush: UserFlush::default(),
        slots,
    }
}
