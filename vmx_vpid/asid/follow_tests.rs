// SPDX-License-Identifier: GPL-2.0

//! These tests of [`crate::asid::follow`] use the reports of a correct kernel and of incorrect
//! kernels.

#[kernel::macros::kunit_tests(vmx_vpid_asid_follow)]
mod tests {
    use crate::{
        asid::{
            cpu::{
                Cpu,
                Slot,
                UserFlush, //
            },
            difference::{
                Event,
                What, //
            },
            follow::*,
            mock::{
                cpu,
                features, //
            },
            shootdown::{
                Dropped,
                Flush,
                Range, //
            },
            ContextId,
            Published,
            Root,
            TlbGen, //
        },
        x86::{
            addr::Hva,
            control_regs::Cr3, //
        }, //
    };

    /// Returns an address space at a tlb_gen.
    fn mm(id: u64, tlb_gen: u64) -> MmSnapshot {
        MmSnapshot {
            id: ContextId::new(id).unwrap_or(ContextId::KERNEL),
            tlb_gen: TlbGen::new(tlb_gen),
            root: Root::new(id << 12),
        }
    }

    /// Returns a CPU that uses the address space 20 in slot 2 and has 30 in slot 4.
    fn start() -> Cpu {
        let mut cpu = cpu(20, 2);
        cpu.slots[4] = Slot {
            id: ContextId::new(30),
            tlb_gen: TlbGen::new(5),
        };
        cpu
    }

    /// Returns the report of a kernel that switched to an address space in a slot.
    fn done(cpu: Cpu, to: u64, slot: u64, dropped: Dropped) -> Observed {
        let shown = Published {
            loaded: None,
            lazy: false,
        };
        let cr3 = Cr3::from(to << 12 | (slot + 1));
        Observed {
            cpu,
            shown,
            cr3,
            dropped,
        }
    }

    /// Follows a switch from [`start()`] to the address space 30 at a tlb_gen, with the kernel's
    /// report.
    fn switch(tlb_gen: u64, bug: Bug, did: Observed) -> Follower {
        let mut follower = Follower::default();
        let features = features(true, true);
        follower.begin(start(), Next::Switch(mm(30, tlb_gen)), features, bug);
        follower.end(Event::Switch, did, features);
        follower
    }

    /// Returns the correct report if the address space 30 did not change.
    fn kept() -> Observed {
        done(start(), 30, 4, Dropped::Nothing)
    }

    /// Returns the correct report if the kernel read this tlb_gen.
    fn flushed(tlb_gen: u64) -> Observed {
        let mut cpu = start();
        cpu.slots[4].tlb_gen = TlbGen::new(tlb_gen);
        cpu.user_flush = UserFlush::from_raw(1 << 5);
        done(cpu, 30, 4, Dropped::All)
    }

    /// Returns the first mismatch.
    fn first(follower: &Follower) -> Option<(Event, What, u64, u64)> {
        assert_eq!(follower.counts.mismatches == 0, follower.first.is_none());
        let first = follower.first?;
        Some((first.when, first.what, first.wanted, first.found))
    }

    #[test]
    fn a_switch_as_predicted_is_counted() {
        let follower = switch(5, Bug::None, kept());
        assert_eq!(first(&follower), None);
        assert_eq!(follower.counts.switches_kept, 1);
        let follower = switch(6, Bug::None, flushed(6));
        assert_eq!(first(&follower), None);
        assert_eq!(
            (follower.counts.switches_flushed, follower.counts.raced),
            (1, 0)
        );
    }

    #[test]
    fn a_prediction_is_redone_for_a_newer_tlb_gen() {
        let follower = switch(5, Bug::None, flushed(6));
        assert_eq!(first(&follower), None);
        assert_eq!(follower.counts.raced, 1);
        // The kernel cannot have read an older tlb_gen than the tlb_gen at the begin.
        let follower = switch(7, Bug::None, flushed(6));
        let wanted = (Event::Switch, What::TlbGen, 7, 6);
        assert_eq!(first(&follower), Some(wanted));
    }

    #[test]
    fn each_difference_is_found() {
        let with = |change: fn(&mut Observed)| {
            let mut done = flushed(6);
            change(&mut done);
            let follower = switch(6, Bug::None, done);
            first(&follower).map(|(_, what, ..)| what)
        };
        assert_eq!(with(|_| {}), None);
        for (what, change) in [
            (
                What::Cr3,
                (|done| done.cr3 = Cr3::from(30 << 12 | 6)) as fn(&mut Observed),
            ),
            (What::Cr3, |done| done.cr3 = Cr3::from(31 << 12 | 5)),
            (What::Flush, |done| done.dropped = Dropped::Nothing),
            (What::Context, |done| done.cpu.slots[4].id = None),
            (What::Context, |done| {
                done.cpu.slots[2].id = ContextId::new(3)
            }),
            (What::TlbGen, |done| {
                done.cpu.slots[2].tlb_gen = TlbGen::new(9)
            }),
            (What::Next, |done| done.cpu.next = 2),
            (What::InvalidateOther, |done| {
                done.cpu.invalidate_other = true
            }),
            (What::UserFlush, |done| {
                done.cpu.user_flush = UserFlush::from_raw(0)
            }),
            (What::Lazy, |done| done.cpu.lazy = true),
            (What::Lazy, |done| done.shown.lazy = true),
            (What::Loaded, |done| done.shown.loaded = ContextId::new(20)),
        ] {
            assert_eq!(with(change), Some(what));
        }
    }

    #[test]
    fn each_injected_bug_is_found() {
        assert!(Bug::new(6).is_none() && Bug::new(u64::MAX).is_none());
        for number in 0..6 {
            let bug = Bug::new(number).unwrap_or_default();
            let follower = switch(6, bug, flushed(6));
            assert_eq!(follower.counts.mismatches, u64::from(number != 0));
            let follower = switch(5, bug, kept());
            assert_eq!(follower.counts.mismatches, u64::from(number != 0));
        }
    }

    #[test]
    fn a_switch_to_the_same_mm_reports_nothing() {
        let features = features(true, true);
        let same = Next::Switch(mm(20, 99));
        let mut follower = Follower::default();
        follower.begin(start(), same, features, Bug::None);
        follower.begin(start(), same, features, Bug::None);
        assert_eq!(first(&follower), None);
        assert_eq!(follower.counts.switches_stayed, 1);
        // An end that is not expected is a mismatch.
        follower.end(Event::Switch, done(start(), 20, 2, Dropped::All), features);
        assert_eq!(first(&follower), Some((Event::Switch, What::Told, 0, 1)));
        // A missing end is a mismatch.
        let mut follower = Follower::default();
        follower.begin(start(), Next::Switch(mm(30, 5)), features, Bug::None);
        follower.begin(start(), same, features, Bug::None);
        assert_eq!(first(&follower), Some((Event::Switch, What::Told, 1, 0)));
    }

    #[test]
    fn a_lazy_cpu_may_read_a_newer_tlb_gen() {
        let features = features(true, false);
        let mut lazy = start();
        lazy.lazy = true;
        let mut follower = Follower::default();
        follower.begin(lazy, Next::Switch(mm(20, 5)), features, Bug::None);
        let mut cpu = start();
        cpu.slots[2].tlb_gen = TlbGen::new(6);
        let shown = cpu.published();
        let did = Observed {
            shown,
            ..done(cpu, 20, 2, Dropped::All)
        };
        follower.end(Event::Switch, did, features);
        assert_eq!(first(&follower), None);
        assert_eq!(follower.counts.raced, 1);
    }

    /// Follows a CPU that is first reported as [`start()`], and then as `now`.
    fn seen_again(now: Cpu, pti: bool) -> Follower {
        let features = features(true, pti);
        let same = Next::Switch(mm(20, 5));
        let mut follower = Follower::default();
        follower.begin(start(), same, features, Bug::None);
        follower.begin(now, same, features, Bug::None);
        follower
    }

    #[test]
    fn only_some_state_may_change_between_events() {
        let with = |pti, change: fn(&mut Cpu)| {
            let mut cpu = start();
            change(&mut cpu);
            first(&seen_again(cpu, pti)).map(|(when, what, ..)| {
                assert_eq!(when, Event::Between);
                what
            })
        };
        for change in [
            (|cpu| cpu.lazy = true) as fn(&mut Cpu),
            |cpu| cpu.invalidate_other = true,
            |cpu| cpu.user_flush = UserFlush::from_raw(1 << 3),
        ] {
            assert_eq!(with(true, change), None);
        }
        for (what, change) in [
            (
                What::InvalidateOther,
                (|cpu| cpu.invalidate_other = true) as fn(&mut Cpu),
            ),
            (What::UserFlush, |cpu| {
                cpu.user_flush = UserFlush::from_raw(1 << 3)
            }),
            (What::Context, |cpu| cpu.slots[4].id = None),
            (What::TlbGen, |cpu| cpu.slots[2].tlb_gen = TlbGen::new(6)),
            (What::Next, |cpu| cpu.next = 3),
            (What::Asid, |cpu| cpu.asid = crate::asid::Asid::FIRST),
            (What::Loaded, |cpu| cpu.loaded = ContextId::KERNEL),
        ] {
            assert_eq!(with(false, change), Some(what));
        }
    }

    #[test]
    fn only_the_current_slots_user_flush_may_change_between_events() {
        let (own, other) = (1 << 3, 1 << 5);
        for (mask, right) in [
            (own | other, true),
            (other, true),
            (own, false),
            (0, false),
            (own | other | 1 << 1, false),
        ] {
            let [before, after] = [own | other, mask].map(|mask| Cpu {
                user_flush: UserFlush::from_raw(mask),
                ..start()
            });
            let same = Next::Switch(mm(20, 5));
            let mut follower = Follower::default();
            follower.begin(before, same, features(true, true), Bug::None);
            follower.begin(after, same, features(true, true), Bug::None);
            assert_eq!(follower.counts.mismatches, u64::from(!right));
        }
    }

    #[test]
    fn a_cpu_that_came_online_again_is_recognised() {
        let mut cpu = start();
        cpu.restart(TlbGen::new(3));
        let follower = seen_again(cpu, true);
        assert_eq!(first(&follower), None);
        assert_eq!(follower.counts.restarts, 1);
        cpu.next = 2;
        assert_eq!(seen_again(cpu, true).counts.mismatches, 1);
    }

    /// A change of the address space 20 that increments its tlb_gen to 6.
    const CHANGE: Flush = Flush {
        space: ContextId::new(20),
        range: Range::new(Hva::new(0x1000), Hva::new(0x3000), 12),
        tlb_gen: TlbGen::new(6),
    };

    /// Follows a flush on [`start()`] while the address space is at a tlb_gen, with the kernel's
    /// report: the tlb_gen that the kernel read, and the translations that the kernel dropped.
    fn flush(tlb_gen: u64, read: u64, dropped: Dropped) -> Follower {
        let features = features(true, false);
        let mut follower = Follower::default();
        let next = Next::Flush(CHANGE, mm(20, tlb_gen));
        follower.begin(start(), next, features, Bug::None);
        let mut cpu = start();
        cpu.slots[2].tlb_gen = TlbGen::new(read);
        let shown = cpu.published();
        let did = Observed {
            shown,
            ..done(cpu, 20, 2, dropped)
        };
        follower.end(Event::Flush, did, features);
        follower
    }

    #[test]
    fn a_flush_as_predicted_is_counted() {
        let follower = flush(6, 6, Dropped::Pages(2));
        assert_eq!((first(&follower), follower.counts.flushes_pages), (None, 1));
        let follower = flush(7, 7, Dropped::All);
        assert_eq!((first(&follower), follower.counts.flushes_all), (None, 1));
        // The tlb_gen became 7 while the flush was served.
        let follower = flush(6, 7, Dropped::All);
        assert_eq!((first(&follower), follower.counts.raced), (None, 1));
        for follower in [
            flush(6, 6, Dropped::Pages(1)),
            flush(6, 6, Dropped::All),
            flush(7, 7, Dropped::Pages(2)),
            flush(6, 6, Dropped::Nothing),
            flush(7, 6, Dropped::All),
        ] {
            assert_eq!(follower.counts.mismatches, 1);
        }
    }

    #[test]
    fn a_lazy_cpu_has_to_switch_to_init_mm_at_a_flush() {
        let features = features(true, false);
        let mut lazy = start();
        lazy.lazy = true;
        let served = || {
            let mut follower = Follower::default();
            follower.begin(lazy, Next::Flush(CHANGE, mm(20, 6)), features, Bug::None);
            follower
        };
        let mut follower = served();
        follower.begin(lazy, Next::Switch(mm(1, 0)), features, Bug::None);
        assert_eq!(first(&follower), None);
        let mut follower = served();
        follower.begin(lazy, Next::Switch(mm(20, 6)), features, Bug::None);
        assert_eq!(first(&follower), Some((Event::Flush, What::Told, 1, 0)));
    }

    #[test]
    fn an_end_without_a_begin_is_no_mismatch() {
        let features = features(true, true);
        let mut follower = Follower::default();
        follower.end(Event::Switch, kept(), features);
        assert_eq!(follower.counts.unseen, 0);
        // Such an end is counted after the first begin.
        follower.begin(start(), Next::Switch(mm(30, 5)), features, Bug::None);
        follower.end(Event::Switch, kept(), features);
        follower.end(Event::Switch, kept(), features);
        follower.end(Event::Flush, kept(), features);
        assert_eq!(first(&follower), None);
        assert_eq!(follower.counts.unseen, 1);
    }
}
