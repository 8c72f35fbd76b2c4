// SPDX-License-Identifier: GPL-2.0

//! This module mocks the hardware and the address spaces for tests: it records the actions in their
//! order.

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
        Hva,
        Mm,
        Published,
        Root,
        TlbGen,
        SLOTS, //
    },
    x86::control_regs::Cr3, //
};
use core::cell::Cell;

/// Something that was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Did {
    /// The others were shown something.
    Show(Published),
    /// CR3 was written.
    Cr3(u64),
    /// INVLPG.
    Invlpg(u64),
    /// INVPCID.
    Invpcid(Extent),
    /// An address space was joined.
    Join(u64),
    /// One was left.
    Leave(u64),
    /// Its tlb_gen was read.
    Read(u64),
    /// CR4.PGE was turned round twice.
    Pge,
}

/// The largest number of actions of a test.
const MOST: usize = 32;

/// The hardware.
pub(crate) struct Hands {
    features: Features,
    log: Cell<[Option<Did>; MOST]>,
    count: Cell<usize>,
}

impl Hands {
    /// Makes one to which nothing was done.
    pub(crate) fn new(features: Features) -> Self {
        Self {
            features,
            log: Cell::new([None; MOST]),
            count: Cell::new(0),
        }
    }

    /// Notes something.
    pub(crate) fn note(&self, did: Did) {
        let (mut log, count) = (self.log.get(), self.count.get());
        if let Some(place) = log.get_mut(count) {
            *place = Some(did);
        }
        self.log.set(log);
        self.count.set(count + 1);
    }

    /// Returns whether exactly these actions were done.
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

/// An address space, whose tables are at its number of pages.
pub(crate) struct MockMm<'a> {
    id: ContextId,
    tlb_gen: TlbGen,
    hands: Option<&'a Hands>,
    /// Its ASID, if that is the same on every CPU.
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

    /// Records the calls of its methods in `hands`.
    pub(crate) fn with(self, hands: &'a Hands) -> Self {
        let hands = Some(hands);
        Self { hands, ..self }
    }

    /// Notes something.
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

/// A CPU with INVPCID, and more or less.
pub(crate) fn features(pcid: bool, pti: bool) -> Features {
    Features {
        pcid,
        pti,
        invpcid: true,
    }
}

/// A CPU that uses an address space under an ASID, has caught up with its 5th tlb_gen, and
/// knows of no other.
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
