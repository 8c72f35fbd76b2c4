// SPDX-License-Identifier: GPL-2.0

//! This module keeps a CPU's slots, and chooses a slot for an address space.

use crate::asid::{
    Asid,
    ContextId,
    Features,
    Mm,
    Published,
    TlbGen,
    SLOTS, //
};

/// Whose translations a slot has, and up to which change of its tables: `struct tlb_context`.
///
/// What the CPU has cached under the slot's PCIDs is never older than that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    /// `None`: the cached translations are unknown, so the next address space in the slot has to
    /// flush.
    pub(crate) id: Option<ContextId>,
    /// The tlb_gen that the slot has caught up with; meaningless without an id.
    pub(crate) tlb_gen: TlbGen,
}

impl Slot {
    /// One of which nothing is known.
    pub(crate) const UNKNOWN: Self = Self {
        id: None,
        tlb_gen: TlbGen::ZERO,
    };
}

/// The slots whose user half is to be flushed when it is next used: `user_pcid_flush_mask`.
///
/// A bit for each, at the place of its kPCID: that is what the code on the way to user mode finds
/// in CR3.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct UserFlush(u16);

impl UserFlush {
    /// Makes the mask of C's value.
    #[inline]
    pub(crate) const fn from_raw(mask: u16) -> Self {
        Self(mask)
    }

    /// Returns the mask as C has it.
    #[inline]
    pub(crate) const fn into_raw(self) -> u16 {
        self.0
    }

    /// Returns an ASID's bit: none for one that is the same on every CPU, whose user half is never
    /// flushed late.
    #[inline]
    fn bit(asid: Asid) -> u16 {
        match asid.slot() {
            Some(_) => 1 << asid.kpcid().into_raw(),
            None => 0,
        }
    }

    /// Returns whether the user half of an ASID has to be flushed.
    #[inline]
    pub(crate) fn contains(self, asid: Asid) -> bool {
        self.0 & Self::bit(asid) != 0
    }

    /// Records that the user half of an ASID has to be flushed, if it has one.
    ///
    /// Equivalent of `invalidate_user_asid()`.
    #[inline]
    pub(crate) fn defer(&mut self, asid: Asid, features: Features) {
        // Without PCIDs the write of CR3 on the way to user mode drops all.
        if features.pcid && features.pti {
            self.0 |= Self::bit(asid);
        }
    }

    /// Forgets an ASID; returns whether it was noted.
    #[cfg(CONFIG_VMX_VPID_KUNIT_TEST)]
    pub(crate) fn take(&mut self, asid: Asid) -> bool {
        let noted = self.contains(asid);
        self.0 &= !Self::bit(asid);
        noted
    }
}

/// The choice for an address space: `struct new_asid`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Choice {
    /// The ASID.
    pub(crate) asid: Asid,
    /// Whether the translations under the ASID have to be flushed.
    pub(crate) flush: bool,
}

/// The slots of a CPU: `struct tlb_state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cpu {
    /// Whose tables it uses: `loaded_mm`.
    pub(crate) loaded: ContextId,
    /// Under which ASID: `loaded_mm_asid`.
    pub(crate) asid: Asid,
    /// It runs a kernel thread on them: `is_lazy`.
    pub(crate) lazy: bool,
    /// The slot to be taken next for a newcomer, 1 to 6: `next_asid`.
    pub(crate) next: u16,
    /// Whether translations under the other slots may be of old kernel tables.
    pub(crate) invalidate_other: bool,
    /// `user_pcid_flush_mask`.
    pub(crate) user_flush: UserFlush,
    /// `ctxs`.
    pub(crate) slots: [Slot; SLOTS],
}

impl Cpu {
    /// Returns what the others may see of it.
    #[inline]
    pub(crate) fn published(&self) -> Published {
        Published {
            loaded: Some(self.loaded),
            lazy: self.lazy,
        }
    }

    /// Returns a slot by its ASID; `None` for one that is the same on every CPU.
    #[inline]
    pub(super) fn slot_mut(&mut self, asid: Asid) -> Option<&mut Slot> {
        self.slots.get_mut(asid.slot()?)
    }

    /// Forgets what the slots have that are not in use: `clear_asid_other()`.
    fn forget_others(&mut self) {
        let loaded = self.asid.slot();
        for (number, slot) in self.slots.iter_mut().enumerate() {
            if loaded != Some(number) {
                slot.id = None;
            }
        }
        self.invalidate_other = false;
    }

    /// Chooses an ASID for an address space whose changes up to `tlb_gen` are known.
    ///
    /// Equivalent of `choose_new_asid()`.  The order is: no PCIDs; a global ASID; the kernel's
    /// tables changed, so the other slots are cleared; the slot that the address space has; the
    /// next slot in turn.
    pub(super) fn choose(&mut self, next: &impl Mm, tlb_gen: TlbGen, features: Features) -> Choice {
        let choice = |asid, flush| Choice { asid, flush };
        if !features.pcid {
            return choice(Asid::FIRST, true);
        }
        // Global ASIDs are kept up to date on every CPU.
        if let Some(asid) = next.global_asid() {
            return choice(asid, false);
        }
        if self.invalidate_other {
            self.forget_others();
        }
        let id = Some(next.id());
        for (asid, slot) in (0..).map_while(Asid::new).zip(&self.slots) {
            if slot.id == id {
                return choice(asid, slot.tlb_gen < tlb_gen);
            }
        }
        match Asid::new(self.next).filter(|asid| asid.slot().is_some()) {
            Some(asid) => {
                self.next = self.next.wrapping_add(1);
                choice(asid, true)
            }
            None => {
                self.next = 1;
                choice(Asid::FIRST, true)
            }
        }
    }
}

#[cfg(CONFIG_VMX_VPID_KUNIT_TEST)]
#[kernel::macros::kunit_tests(vmx_vpid_asid_cpu)]
mod tests {
    use super::*;
    use crate::asid::mock::{
        cpu,
        features,
        MockMm, //
    };

    /// A CPU that has the address spaces 10 to 15 in its slots, each at its 5th tlb_gen, and
    /// uses slot 2.
    fn full() -> Cpu {
        let mut cpu = cpu(12, 2);
        for (id, slot) in (10..).zip(&mut cpu.slots) {
            slot.id = ContextId::new(id);
            slot.tlb_gen = TlbGen::new(5);
        }
        cpu
    }

    /// The choice for an address space at a tlb_gen.
    fn choose(cpu: &mut Cpu, id: u64, tlb_gen: u64) -> (u16, bool) {
        let features = features(true, true);
        let choice = cpu.choose(&MockMm::new(id, tlb_gen), TlbGen::new(tlb_gen), features);
        (choice.asid.into_raw(), choice.flush)
    }

    #[test]
    fn an_address_space_keeps_its_slot() {
        let mut cpu = full();
        for id in 10..16 {
            let slot = (id - 10) as u16;
            assert_eq!(choose(&mut cpu, id, 5), (slot, false));
            // Its tables changed since, or less than the CPU knows.
            assert_eq!(choose(&mut cpu, id, 6), (slot, true));
            assert_eq!(choose(&mut cpu, id, 4), (slot, false));
        }
        assert_eq!(cpu, full());
    }

    #[test]
    fn new_address_spaces_take_slots_in_turn() {
        let mut cpu = full();
        cpu.next = 4;
        // The last slot, the first, and so on, whichever address space has them, the current slot
        // too.
        for slot in [4, 5, 0, 1, 2, 3, 4, 5, 0] {
            assert_eq!(choose(&mut cpu, 99, 0), (slot, true));
            assert!(cpu.next >= 1 && cpu.next <= 6);
        }
    }

    #[test]
    fn a_slot_without_an_id_matches_no_address_space() {
        let mut cpu = cpu(1, 0);
        cpu.slots = [Slot::UNKNOWN; SLOTS];
        cpu.next = 6;
        assert_eq!(choose(&mut cpu, 7, 0), (0, true));
        assert_eq!(cpu.next, 1);
    }

    #[test]
    fn invalidate_other_clears_all_slots_but_the_current_one() {
        let mut cpu = full();
        cpu.invalidate_other = true;
        assert_eq!(choose(&mut cpu, 12, 5), (2, false));
        assert!(!cpu.invalidate_other);
        for (number, slot) in cpu.slots.iter().enumerate() {
            assert_eq!(slot.id.is_some(), number == 2);
        }
        // An address space that had a slot has to take another one, and flush.
        cpu.next = 1;
        assert_eq!(choose(&mut cpu, 10, 5), (1, true));
    }

    #[test]
    fn without_pcids_there_is_one_slot_that_keeps_nothing() {
        let mut cpu = full();
        cpu.invalidate_other = true;
        let choice = cpu.choose(&MockMm::new(12, 5), TlbGen::new(5), features(false, true));
        assert_eq!((choice.asid, choice.flush), (Asid::FIRST, true));
        assert!(cpu.invalidate_other);
    }

    #[test]
    fn a_global_asid_comes_before_the_slots() {
        let mut cpu = full();
        cpu.invalidate_other = true;
        let mut mm = MockMm::new(12, 99);
        mm.global = Asid::new(100);
        let choice = cpu.choose(&mm, TlbGen::new(99), features(true, true));
        assert_eq!((choice.asid.into_raw(), choice.flush), (100, false));
        // The slots are cleared only when an address space needs one.
        assert!(cpu.invalidate_other && cpu.slots == full().slots);
    }

    #[test]
    fn user_halves_are_recorded_by_kpcid() {
        let slot = |number| Asid::new(number);
        for number in 0..SLOTS as u16 {
            let mut mask = UserFlush::default();
            let Some(asid) = slot(number) else { continue };
            mask.defer(asid, features(true, true));
            assert_eq!(mask.into_raw(), 2 << number);
            assert!(mask.contains(asid));
            assert!(mask.take(asid) && !mask.take(asid));
        }
        let mut mask = UserFlush::default();
        for (asid, features) in [
            (slot(6), features(true, true)),
            (slot(0), features(true, false)),
            (slot(0), features(false, true)),
        ] {
            mask.defer(asid.unwrap_or(Asid::FIRST), features);
            assert_eq!(mask, UserFlush::default());
        }
    }
}
