// SPDX-License-Identifier: GPL-2.0

//! This module serves a CPU's part of a TLB shootdown: another CPU changed tables and requests a
//! flush.
//!
//! Three values of tlb_gen take part: that of the address space, that of this CPU's slot, and that
//! of the request.  A request for a range covers one change, and no other change.

use crate::{
    asid::{
        cpu::Cpu,
        invpcid::Extent,
        ContextId,
        Hardware,
        Mm,
        TlbGen, //
    },
    x86::{
        addr::Hva,
        invpcid::Pcid, //
    }, //
};

/// The addresses whose translations have to be dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Range {
    Some {
        /// The first address.
        start: Hva,
        /// The first address behind the range.
        end: Hva,
        /// The binary logarithm of the step from one address to the next.
        shift: u32,
    },
    /// All addresses: `TLB_FLUSH_ALL`.
    All,
}

impl Range {
    /// Makes a range from C's values.
    #[inline]
    pub(crate) const fn new(start: Hva, end: Hva, shift: u32) -> Self {
        if end.into_raw() == u64::MAX {
            Self::All
        } else {
            Self::Some { start, end, shift }
        }
    }

    /// Returns the number of steps, rounded down.
    ///
    /// C traces this number, and compares it with the ceiling.  The flush itself rounds up.
    #[inline]
    pub(crate) fn steps(start: Hva, end: Hva, shift: u32) -> u64 {
        let bytes = end.into_raw().wrapping_sub(start.into_raw());
        bytes.checked_shr(shift).unwrap_or(0)
    }
}

/// The request to a CPU: `struct flush_tlb_info`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Flush {
    /// The address space whose tables were changed; `None` for the loaded address space of the CPU.
    pub(crate) space: Option<ContextId>,
    /// The range to drop, if this change is the only one that the CPU lacks.
    pub(crate) range: Range,
    /// The tlb_gen after this change; [`TlbGen::ZERO`] if the request names no change.
    pub(crate) tlb_gen: TlbGen,
}

/// The dropped translations, as `trace_tlb_flush()` reports them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dropped {
    /// Nothing: the slot was up to date.
    Nothing,
    /// A number of pages.
    Pages(u64),
    /// Everything under the ASID.
    All,
}

/// The result of a flush on a CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Served {
    /// The CPU does not use the address space, and has left its `mm_cpumask()`.
    Elsewhere,
    /// The CPU uses the kernel's own address space, which needs no such flush.
    Kernel,
    /// The ASID is global: the CPU that changes tables flushes the ASID on all CPUs.
    Broadcast,
    /// The CPU was lazy, and has switched to the kernel's own address space.
    Left,
    /// The slot already had the change.
    Known,
    /// The slot is up to date now, and these translations were dropped.
    CaughtUp(Dropped),
}

impl Cpu {
    /// Serves a flush request; called with interrupts off.
    ///
    /// `loaded` is the address space that this CPU uses, `kernel` is the kernel's own.  Equivalent
    /// of `flush_tlb_func()`.
    pub(crate) fn serve(
        &mut self,
        flush: &Flush,
        loaded: &impl Mm,
        kernel: &impl Mm,
        hardware: &impl Hardware,
    ) -> Served {
        if let Some(space) = flush.space.filter(|&space| space != self.loaded) {
            hardware.leave(space);
            return Served::Elsewhere;
        }
        if self.loaded == ContextId::KERNEL {
            return Served::Kernel;
        }
        if loaded.global_asid().is_some_and(|asid| asid != self.asid) {
            self.switch_to(loaded, hardware);
        }
        let Some(slot) = self.asid.slot().and_then(|slot| self.slots.get(slot)) else {
            return Served::Broadcast;
        };
        if self.lazy {
            // Tables may be freed, and the CPU could walk a freed table speculatively.  Switching
            // to init_mm costs little more than the flush.
            self.switch_to(kernel, hardware);
            return Served::Left;
        }
        let local = slot.tlb_gen;
        if flush.tlb_gen != TlbGen::ZERO && flush.tlb_gen <= local {
            return Served::Known;
        }
        let tlb_gen = loaded.tlb_gen();
        if local == tlb_gen {
            return Served::CaughtUp(Dropped::Nothing);
        }
        let dropped = match flush.range {
            // The CPU lacks only this change: the slot has the change before, and none follows.
            Range::Some { start, end, shift }
                if flush.tlb_gen == local.next() && flush.tlb_gen == tlb_gen =>
            {
                self.drop_range(start, end, shift, hardware);
                Dropped::Pages(Range::steps(start, end, shift))
            }
            _ => {
                self.drop_all_loaded(loaded, hardware);
                Dropped::All
            }
        };
        if let Some(slot) = self.slot_mut(self.asid) {
            slot.tlb_gen = tlb_gen;
        }
        Served::CaughtUp(dropped)
    }

    /// Drops a range of addresses of the current address space.
    fn drop_range(&mut self, start: Hva, end: Hva, shift: u32, hardware: &impl Hardware) {
        let mut address = start.into_raw();
        while address < end.into_raw() {
            self.drop_address(Hva::new(address), hardware);
            // A step beyond the last address ends the loop.
            match 1u64
                .checked_shl(shift)
                .and_then(|step| address.checked_add(step))
            {
                Some(next) => address = next,
                None => break,
            }
        }
    }

    /// Drops one address of the current address space, in both halves.
    ///
    /// Equivalent of `native_flush_tlb_one_user()`.  INVPCID of a PCID other than 0 raises an
    /// exception as long as CR4.PCIDE is clear; C reads this CPU's CR4, because C may flush before
    /// it sets that bit.
    pub(crate) fn drop_address(&mut self, address: Hva, hardware: &impl Hardware) {
        hardware.invlpg(address);
        let features = hardware.features();
        if !features.pti {
            return;
        }
        if features.invpcid && features.pcid {
            hardware.invpcid(Extent::Address(Pcid::from(self.asid.upcid()), address));
        } else {
            self.user_flush.defer(self.asid, features);
        }
    }

    /// Drops everything of the current address space but global pages: `native_flush_tlb_local()`.
    fn drop_all_loaded(&mut self, loaded: &impl Mm, hardware: &impl Hardware) {
        let features = hardware.features();
        self.user_flush.defer(self.asid, features);
        // C writes the value that it reads from CR3, which is the same.
        hardware.write_cr3(loaded.root().cr3(self.asid, features));
    }
}

#[cfg(CONFIG_VMX_VPID_KUNIT_TEST)]
#[kernel::macros::kunit_tests(vmx_vpid_asid_shootdown)]
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
        },
        Asid,
        Features,
        Published, //
    };

    /// Returns the request for a change of the address space 20 that led to a tlb_gen.
    fn change(tlb_gen: u64, range: Range) -> Flush {
        Flush {
            space: ContextId::new(20),
            range,
            tlb_gen: TlbGen::new(tlb_gen),
        }
    }

    /// Returns a range of pages of 4 KiB.
    fn pages(start: u64, count: u64) -> Range {
        Range::new(Hva::new(start), Hva::new(start + (count << 12)), 12)
    }

    /// Serves a flush on a CPU whose slot has the address space 20 at tlb_gen 5, while the tables
    /// are at `tlb_gen`.
    fn serve(flush: Flush, tlb_gen: u64, hands: &Hands) -> (Cpu, Served) {
        let mut cpu = cpu(20, 0);
        let (kernel, mm) = (MockMm::new(1, 0), MockMm::new(20, tlb_gen));
        let served = cpu.serve(&flush, &mm, &kernel, hands);
        (cpu, served)
    }

    /// The write of CR3 by a flush of the whole address space.
    const RELOAD: Did = Did::Cr3(20 << 12 | 1);

    #[test]
    fn one_missing_change_is_flushed_by_its_range() {
        let hands = Hands::new(features(true, true));
        let (cpu, served) = serve(change(6, pages(0x1000, 2)), 6, &hands);
        let pcid = Pcid::from(Asid::FIRST.upcid());
        let user = |address| Did::Invpcid(Extent::Address(pcid, Hva::new(address)));
        assert!(hands.did(&[
            Did::Invlpg(0x1000),
            user(0x1000),
            Did::Invlpg(0x2000),
            user(0x2000),
        ]));
        assert_eq!(served, Served::CaughtUp(Dropped::Pages(2)));
        assert_eq!(cpu.slots[0].tlb_gen, TlbGen::new(6));
        assert_eq!(cpu.user_flush, UserFlush::default());
    }

    #[test]
    fn several_missing_changes_flush_everything() {
        for (flush, come_to) in [
            // Two changes are missing, and the request for the second one comes first.
            (change(7, pages(0x1000, 1)), 7),
            // Another change follows the requested one.
            (change(6, pages(0x1000, 1)), 7),
            (change(6, Range::All), 6),
            // The request names no change.
            (change(0, pages(0x1000, 1)), 6),
        ] {
            let hands = Hands::new(features(true, true));
            let (cpu, served) = serve(flush, come_to, &hands);
            assert!(hands.did(&[RELOAD]));
            assert_eq!(served, Served::CaughtUp(Dropped::All));
            assert_eq!(cpu.slots[0].tlb_gen, TlbGen::new(come_to));
            assert_eq!(cpu.user_flush, UserFlush::from_raw(1 << 1));
        }
    }

    #[test]
    fn a_cpu_that_has_caught_up_flushes_nothing() {
        for (flush, come_to, wanted) in [
            (change(5, Range::All), 5, Served::Known),
            (change(4, Range::All), 9, Served::Known),
            (change(0, Range::All), 5, Served::CaughtUp(Dropped::Nothing)),
        ] {
            let hands = Hands::new(features(true, true));
            assert_eq!(serve(flush, come_to, &hands), (cpu(20, 0), wanted));
            assert!(hands.did(&[]));
        }
    }

    #[test]
    fn a_cpu_in_another_mm_leaves_the_cpu_mask() {
        let hands = Hands::new(features(true, true));
        let (kernel, mm) = (MockMm::new(1, 0), MockMm::new(10, 0));
        let mut cpu = cpu(10, 0);
        cpu.lazy = true;
        let served = cpu.serve(&change(6, Range::All), &mm, &kernel, &hands);
        assert_eq!(served, Served::Elsewhere);
        assert!(cpu.lazy && hands.did(&[Did::Leave(20)]));
    }

    #[test]
    fn init_mm_is_not_flushed() {
        let hands = Hands::new(features(true, true));
        let kernel = MockMm::new(1, 0);
        let flush = Flush {
            space: None,
            ..change(0, Range::All)
        };
        assert_eq!(
            cpu(1, 0).serve(&flush, &kernel, &kernel, &hands),
            Served::Kernel
        );
        assert!(hands.did(&[]));
    }

    #[test]
    fn a_lazy_cpu_switches_to_init_mm() {
        let hands = Hands::new(features(true, true));
        let mut cpu = cpu(20, 0);
        cpu.lazy = true;
        let (kernel, mm) = (MockMm::new(1, 0).with(&hands), MockMm::new(20, 6));
        let served = cpu.serve(&change(6, Range::All), &mm, &kernel, &hands);
        assert_eq!(served, Served::Left);
        assert_eq!((cpu.loaded, cpu.lazy), (ContextId::KERNEL, false));
        let show = |loaded: u64| {
            let loaded = ContextId::new(loaded);
            Did::Show(Published {
                loaded,
                lazy: false,
            })
        };
        let cr3 = Did::Cr3(1 << 12 | 2);
        assert!(hands.did(&[show(20), show(0), Did::Read(1), cr3, show(1)]));
    }

    #[test]
    fn a_global_asid_is_not_flushed_by_the_shootdown() {
        let hands = Hands::new(features(true, true));
        let (kernel, mut mm) = (MockMm::new(1, 0), MockMm::new(20, 6));
        mm.global = Asid::new(100);
        let mut cpu = cpu(20, 0);
        let served = cpu.serve(&change(6, Range::All), &mm, &kernel, &hands);
        assert_eq!((served, cpu.asid), (Served::Broadcast, Asid(100)));
        assert_eq!(hands.kept(), 1);
    }

    #[test]
    fn without_invpcid_the_user_half_is_flushed_later() {
        for (pcid, invpcid, wanted) in [(true, false, 1 << 1), (false, true, 0)] {
            let hands = Hands::new(Features {
                invpcid,
                ..features(pcid, true)
            });
            let (cpu, _) = serve(change(6, pages(0x1000, 1)), 6, &hands);
            assert!(hands.did(&[Did::Invlpg(0x1000)]));
            assert_eq!(cpu.user_flush, UserFlush::from_raw(wanted));
        }
        let hands = Hands::new(features(true, false));
        let (cpu, _) = serve(change(6, pages(0x1000, 1)), 6, &hands);
        assert!(hands.did(&[Did::Invlpg(0x1000)]));
        assert_eq!(cpu.user_flush, UserFlush::default());
    }

    #[test]
    fn a_range_is_dropped_to_its_end() {
        // For a range of one and a half pages of 2 MiB, C traces one page, and drops two.
        let range = Range::new(Hva::new(0), Hva::new(3 << 20), 21);
        let hands = Hands::new(features(true, false));
        let (_, served) = serve(change(6, range), 6, &hands);
        assert!(hands.did(&[Did::Invlpg(0), Did::Invlpg(2 << 20)]));
        assert_eq!(served, Served::CaughtUp(Dropped::Pages(1)));
        // The last page of the address space.
        let hands = Hands::new(features(true, false));
        let range = Range::new(Hva::new(!0xfff), Hva::new(u64::MAX - 1), 12);
        serve(change(6, range), 6, &hands);
        assert!(hands.did(&[Did::Invlpg(!0xfff)]));
    }
}
