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

/// A slot: the address space that has the slot, and a tlb_gen: `struct tlb_context`.
///
/// No translation that the CPU has cached under the slot's PCIDs is older than the tlb_gen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    /// The address space; `None` if the cached translations are unknown, so that the next address
    /// space in the slot has to flush.
    pub(crate) id: Option<ContextId>,
    /// The tlb_gen that the slot has caught up with; meaningless without an id.
    pub(crate) tlb_gen: TlbGen,
}

impl Slot {
    /// A slot whose cached translations are unknown.
    pub(crate) const UNKNOWN: Self = Self {
        id: None,
        tlb_gen: TlbGen::ZERO,
    };
}

/// The slots whose user half has to be flushed before its next use: `user_pcid_flush_mask`.
///
/// The number of a slot's bit is the kPCID, which the code on the way to user mode finds in CR3.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct UserFlush(u16);

impl UserFlush {
    /// Makes a mask from C's value.
    #[inline]
    pub(crate) const fn from_raw(mask: u16) -> Self {
        Self(mask)
    }

    /// Returns C's value of the mask.
    #[inline]
    pub(crate) const fn into_raw(self) -> u16 {
        self.0
    }

    /// Returns the bit of an ASID; 0 for a global ASID, whose user half never has a deferred flush.
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
        // Without PCIDs, the write of CR3 on the way to user mode drops everything.
        if features.pcid && features.pti {
            self.0 |= Self::bit(asid);
        }
    }

    /// Clears the bit of an ASID; returns whether the bit was set.
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
    /// The address space whose tables the CPU uses: `loaded_mm`.
    pub(crate) loaded: ContextId,
    /// The ASID of that address space: `loaded_mm_asid`.
    pub(crate) asid: Asid,
    /// The CPU runs a kernel thread on those tables: `is_lazy`.
    pub(crate) lazy: bool,
    /// The slot that the next new address space gets, 1 to 6, where 6 stands for slot 0:
    /// `next_asid`.
    pub(crate) next: u16,
    /// Translations under the other slots may come from old kernel tables.
    pub(crate) invalidate_other: bool,
    /// `user_pcid_flush_mask`.
    pub(crate) user_flush: UserFlush,
    /// `ctxs`.
    pub(crate) slots: [Slot; SLOTS],
}

impl Cpu {
    /// Returns the state that other CPUs see.
    #[inline]
    pub(crate) fn published(&self) -> Published {
        Published {
            loaded: Some(self.loaded),
            lazy: self.lazy,
        }
    }

    /// Returns the slot of an ASID; `None` for a global ASID.
    #[inline]
    pub(super) fn slot_mut(&mut self, asid: Asid) -> Option<&mut Slot> {
        self.slots.get_mut(asid.slot()?)
    }

    /// Clears the ids of all slots that are not in use: `clear_asid_other()`.
    fn forget_others(&mut self) {
        let loaded = self.asid.slot();
        for (number, slot) in self.slots.iter_mut().enumerate() {
            if loaded != Some(number) {
                slot.id = None;
            }
        }
        self.invalidate_other = false;
    }

    /// Chooses an ASID for an address space whose tables are at `tlb_gen`.
    ///
    /// Equivalent of `choose_new_asid()`.  The cases come in this order: there are no PCIDs; the
    /// address space has a global ASID; the kernel's tables changed, so the other slots are
    /// cleared; the address space has a slot; the address space gets the next slot in turn.
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

    /// Returns a CPU that has the address spaces 10 to 15 in its slots, each at tlb_gen 5, and uses
    /// slot 2.
    fn full() -> Cpu {
        let mut cpu = cpu(12, 2);
        for (id, slot) in (10..).zip(&mut cpu.slots) {
            slot.id = ContextId::new(id);
            slot.tlb_gen = TlbGen::new(5);
        }
        cpu
    }

    /// Returns the choice for an address space at a tlb_gen.
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
            // A newer tlb_gen than the slot's needs a flush; an older tlb_gen needs none.
            assert_eq!(choose(&mut cpu, id, 6), (slot, true));
            assert_eq!(choose(&mut cpu, id, 4), (slot, false));
        }
        assert_eq!(cpu, full());
    }

    #[test]
    fn new_address_spaces_take_slots_in_turn() {
        let mut cpu = full();
        cpu.next = 4;
        // The slots follow each other in a circle, the current slot included, whichever address
        // spaces have them.
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
        // An address space that lost its slot gets another slot, and has to flush.
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
        // The other slots are cleared only when an address space needs a slot.
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
