// SPDX-License-Identifier: GPL-2.0

//! This module switches a CPU from one address space to another.

use crate::asid::{
    cpu::{
        Choice,
        Cpu,
        Slot, //
    },
    keeping,
    Asid,
    ContextId,
    Hardware,
    Mm,
    Published,
    TlbGen,
    SLOTS, //
};

/// The result of a switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Switched {
    /// CR3 is unchanged.
    Stayed,
    /// CR3 was written, for this choice.
    Loaded(Choice),
}

impl Cpu {
    /// Switches to an address space, or back to it from a kernel thread.
    ///
    /// Equivalent of `switch_mm_irqs_off()`; called with interrupts off, as in C.
    ///
    /// The order matters for a change of tables that another CPU makes at the same time.  That CPU
    /// increments the tlb_gen, and then selects the CPUs to notify.  This CPU publishes its state
    /// and then reads the tlb_gen.  So this CPU reads the new tlb_gen, or is notified, or both.
    pub(crate) fn switch_to(&mut self, next: &impl Mm, hardware: &impl Hardware) -> Switched {
        let was_lazy = self.lazy;
        if was_lazy {
            self.lazy = false;
            hardware.publish(self.published());
        }
        let (choice, tlb_gen) = if self.loaded == next.id() {
            match self.stay(next, was_lazy, hardware) {
                Some(reload) => reload,
                None => return Switched::Stayed,
            }
        } else {
            hardware.publish(Published {
                loaded: None,
                lazy: false,
            });
            if next.id() != ContextId::KERNEL {
                next.join();
            }
            let tlb_gen = next.tlb_gen();
            let choice = self.choose(next, tlb_gen, hardware.features());
            (choice, tlb_gen)
        };
        if choice.flush {
            // Record the tlb_gen that was read before: the flush that follows covers the changes up
            // to that tlb_gen, and may not cover later changes.
            if let Some(slot) = self.slot_mut(choice.asid) {
                let id = Some(next.id());
                *slot = Slot { id, tlb_gen };
            }
        }
        self.load(next, choice, hardware);
        self.loaded = next.id();
        self.asid = choice.asid;
        hardware.publish(self.published());
        Switched::Loaded(choice)
    }

    /// Decides whether CR3 has to be written for the address space that is loaded already.
    fn stay(
        &mut self,
        next: &impl Mm,
        was_lazy: bool,
        hardware: &impl Hardware,
    ) -> Option<(Choice, TlbGen)> {
        // The address space has a new global ASID: `mm_needs_global_asid()`.
        if next.global_asid().is_some_and(|asid| asid != self.asid) {
            let tlb_gen = next.tlb_gen();
            let choice = self.choose(next, tlb_gen, hardware.features());
            return Some((choice, tlb_gen));
        }
        // Between threads of a process, no flush is needed: other CPUs notified this CPU of every
        // change.  A global ASID is up to date on every CPU, even without notifications.
        let slot = self.slots.get(self.asid.slot()?)?;
        if !was_lazy {
            return None;
        }
        // Other CPUs do not notify a lazy CPU, so compare the tlb_gen.
        let tlb_gen = next.tlb_gen();
        if slot.tlb_gen == tlb_gen {
            return None;
        }
        let asid = self.asid;
        Some((Choice { asid, flush: true }, tlb_gen))
    }

    /// Writes CR3: `load_new_mm_cr3()`.
    fn load(&mut self, next: &impl Mm, choice: Choice, hardware: &impl Hardware) {
        let features = hardware.features();
        let cr3 = next.root().cr3(choice.asid, features);
        if choice.flush {
            // This write flushes the kPCID; the flush of the uPCID is deferred until user mode.
            self.user_flush.defer(choice.asid, features);
            hardware.write_cr3(cr3);
        } else {
            hardware.write_cr3(keeping(cr3));
        }
    }

    /// Keeps the loaded tables for a kernel thread: `enter_lazy_tlb()`.
    #[cfg(CONFIG_VMX_VPID_KUNIT_TEST)]
    pub(crate) fn enter_lazy(&mut self, hardware: &impl Hardware) {
        if self.loaded != ContextId::KERNEL {
            self.lazy = true;
            hardware.publish(self.published());
        }
    }

    /// Restarts in slot 0 after the CPU was offline, on the tables that CR3 has already.
    ///
    /// `kernel` is the tlb_gen of the kernel's own address space, whichever address space is
    /// loaded.  Equivalent of `initialize_tlbstate_and_flush()`, which leaves the rest of the state
    /// unchanged.
    pub(crate) fn restart(&mut self, kernel: TlbGen) {
        self.asid = Asid::FIRST;
        self.next = 1;
        let mut all = [Slot::UNKNOWN; SLOTS];
        for (new, old) in all.iter_mut().zip(&self.slots) {
            new.tlb_gen = old.tlb_gen;
        }
        if let Some(first) = all.first_mut() {
            *first = Slot {
                id: Some(self.loaded),
                tlb_gen: kernel,
            };
        }
        self.slots = all;
    }
}

#[cfg(CONFIG_VMX_VPID_KUNIT_TEST)]
#[kernel::macros::kunit_tests(vmx_vpid_asid_switch)]
mod tests {
    use super::*;
    use crate::asid::{
        cpu::UserFlush,
        mock::{
            cpu,
            features,
            Did,
            Hands,
            MockMm, //
        }, //
    };

    /// Returns the write of CR3 for the address space 20, whose tables are at 20 << 12.
    fn cr3(asid: u64, keep: bool) -> Did {
        Did::Cr3(20 << 12 | (asid + 1) | if keep { 1 << 63 } else { 0 })
    }

    /// Returns the publication of a state.
    fn shown(loaded: u64, lazy: bool) -> Did {
        let loaded = ContextId::new(loaded);
        Did::Show(Published { loaded, lazy })
    }

    #[test]
    fn a_switch_publishes_joins_and_reads_the_tlb_gen_in_this_order() {
        let hands = Hands::new(features(true, true));
        let mut cpu = cpu(10, 0);
        let mm = MockMm::new(20, 3).with(&hands);
        let switched = cpu.switch_to(&mm, &hands);
        assert!(hands.did(&[
            shown(0, false),
            Did::Join(20),
            Did::Read(20),
            cr3(1, false),
            shown(20, false),
        ]));
        let asid = Asid::FIRST;
        assert!(matches!(switched, Switched::Loaded(choice) if choice.flush));
        assert_eq!((cpu.loaded, cpu.asid.into_raw(), cpu.next), (mm.id(), 1, 2));
        assert_eq!(cpu.slots[1].id, Some(mm.id()));
        assert_eq!(cpu.slots[1].tlb_gen, TlbGen::new(3));
        // The user half is flushed on the way to user mode.
        assert_eq!(cpu.user_flush, UserFlush::from_raw(1 << 2));
        assert!(!cpu.user_flush.contains(asid));
    }

    #[test]
    fn an_unchanged_slot_keeps_its_translations() {
        let hands = Hands::new(features(true, true));
        let mut cpu = cpu(10, 0);
        cpu.slots[4] = Slot {
            id: ContextId::new(20),
            tlb_gen: TlbGen::new(3),
        };
        let before = cpu;
        cpu.switch_to(&MockMm::new(20, 3), &hands);
        assert!(hands.did(&[shown(0, false), cr3(4, true), shown(20, false)]));
        assert_eq!(cpu.slots, before.slots);
        assert_eq!(cpu.user_flush, before.user_flush);
    }

    #[test]
    fn a_switch_between_threads_of_a_process_writes_nothing() {
        let hands = Hands::new(features(true, true));
        let mut cpu = cpu(20, 0);
        let mm = MockMm::new(20, 99).with(&hands);
        assert_eq!(cpu.switch_to(&mm, &hands), Switched::Stayed);
        assert!(hands.did(&[]));
    }

    #[test]
    fn a_return_from_a_kernel_thread_flushes_if_the_tlb_gen_changed() {
        for (tlb_gen, flush) in [(5, false), (6, true), (4, true)] {
            let hands = Hands::new(features(true, true));
            let mut cpu = cpu(20, 0);
            cpu.enter_lazy(&hands);
            let mm = MockMm::new(20, tlb_gen).with(&hands);
            let switched = cpu.switch_to(&mm, &hands);
            let come = [shown(20, true), shown(20, false), Did::Read(20)];
            if flush {
                let [a, b, c] = come;
                assert!(hands.did(&[a, b, c, cr3(0, false), shown(20, false)]));
                assert_eq!(cpu.slots[0].tlb_gen, TlbGen::new(tlb_gen));
                assert_eq!(cpu.user_flush, UserFlush::from_raw(1 << 1));
            } else {
                assert!(hands.did(&come));
                assert_eq!(switched, Switched::Stayed);
            }
        }
    }

    #[test]
    fn init_mm_has_no_cpu_mask() {
        let hands = Hands::new(features(true, true));
        let mut cpu = cpu(20, 0);
        let kernel = MockMm::new(1, 0).with(&hands);
        cpu.switch_to(&kernel, &hands);
        let came = [
            shown(0, false),
            Did::Read(1),
            Did::Cr3(1 << 12 | 2),
            shown(1, false),
        ];
        assert!(hands.did(&came));
    }

    #[test]
    fn init_mm_is_never_lazy() {
        let hands = Hands::new(features(true, true));
        let mut cpu = cpu(1, 0);
        cpu.enter_lazy(&hands);
        assert!(!cpu.lazy && hands.did(&[]));
    }

    #[test]
    fn a_new_global_asid_is_used() {
        let hands = Hands::new(features(true, false));
        let mut cpu = cpu(20, 0);
        let mut mm = MockMm::new(20, 5);
        mm.global = Asid::new(100);
        cpu.switch_to(&mm, &hands);
        assert!(hands.did(&[cr3(100, true), shown(20, false)]));
        // With a global ASID, no tlb_gen has to be compared.
        cpu.lazy = true;
        assert_eq!(cpu.switch_to(&mm, &hands), Switched::Stayed);
    }

    #[test]
    fn without_pcids_every_switch_flushes() {
        let hands = Hands::new(features(false, true));
        let mut cpu = cpu(10, 0);
        for _ in 0..2 {
            cpu.switch_to(&MockMm::new(20, 5), &hands);
            cpu.switch_to(&MockMm::new(10, 5), &hands);
        }
        assert_eq!(hands.kept(), 0);
        assert_eq!(cpu.user_flush, UserFlush::default());
        assert_eq!(cpu.asid, Asid::FIRST);
    }

    #[test]
    fn a_cpu_that_was_offline_knows_only_slot_0() {
        let mut cpu = cpu(20, 3);
        cpu.next = 5;
        cpu.restart(TlbGen::new(7));
        assert_eq!((cpu.asid, cpu.next), (Asid::FIRST, 1));
        let [first, rest @ ..] = cpu.slots;
        assert_eq!(
            (first.id, first.tlb_gen),
            (ContextId::new(20), TlbGen::new(7))
        );
        assert!(rest.iter().all(|slot| slot.id.is_none()));
    }
}
