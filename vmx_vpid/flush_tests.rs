// SPDX-License-Identifier: GPL-2.0

//! The tests of [`crate::flush`]: each request, for each way in which translations are tagged, and
//! for each thing that a CPU can lack or a user can switch.

#[cfg(CONFIG_VMX_VPID_KUNIT_TEST)]
#[kernel::macros::kunit_tests(vmx_vpid_flush)]
mod tests {
    use crate::{
        addr::{
            CanonicalGva,
            Gva,
            Hpa,
            LinearWidth, //
        },
        caps::EptVpidCap,
        ept::{
            self,
            Eptp,
            Levels, //
        },
        flush::*,
        insn::InsnError,
        invvpid::{
            self,
            Vpid, //
        },
        issue::{
            Invalidate,
            Invalidation::{
                self,
                *, //
            },
            Lost,
            Plan, //
        },
        policy::{
            Policy,
            Switches, //
        }, //
    };
    use core::cell::Cell;
    use kernel::prelude::*;

    /// A vCPU as a flush sees it.
    struct Vcpu {
        ept: bool,
        vpid01: Option<Vpid>,
        vpid02: Option<Vpid>,
        in_l2: bool,
        root: Root,
        others: [Root; ROOTS - 1],
    }

    impl Tags for Vcpu {
        fn ept(&self) -> bool {
            self.ept
        }
        fn vpid(&self) -> bool {
            self.vpid01.is_some()
        }
        fn vpid01(&self) -> Option<Vpid> {
            self.vpid01
        }
        fn vpid02(&self) -> Option<Vpid> {
            self.vpid02
        }
        fn current_vpid(&self) -> Option<Vpid> {
            match self.vpid02 {
                Some(vpid) if self.in_l2 => Some(vpid),
                _ => self.vpid01,
            }
        }
        fn root(&self) -> Root {
            self.root
        }
        fn roots(&self) -> [Root; ROOTS] {
            let [a, b, c, d, e, f, g] = self.others;
            [self.root, a, b, c, d, e, f, g]
        }
    }

    /// The root whose table is at this address.
    const fn root(address: u64) -> Root {
        Root::Known {
            table: Hpa::new(address),
            levels: Levels::Four,
            accessed_dirty: true,
        }
    }

    /// A vCPU with VPIDs 1 and 2 that runs L1.
    fn vcpu(ept: bool) -> Vcpu {
        Vcpu {
            ept,
            vpid01: Vpid::new(1),
            vpid02: Vpid::new(2),
            in_l2: false,
            root: root(0x7000),
            others: [Root::Invalid; ROOTS - 1],
        }
    }

    /// What may be issued by a CPU with every type, less those of some bits.
    fn less(caps_mask: u64) -> Policy {
        let switches = Switches {
            caps_mask,
            ..Switches::default()
        };
        switches.policy(EptVpidCap::from(u64::MAX))
    }

    const NO_INVEPT_CONTEXT: u64 = 1 << 25;
    const NO_ADDRESS: u64 = 1 << 40;
    const NO_CONTEXT: u64 = 1 << 41;
    const NO_ALL: u64 = 1 << 42;

    fn whole(vpid: u16) -> Option<Invalidation> {
        Some(Invvpid(invvpid::Extent::Context(Vpid::new(vpid)?)))
    }

    fn one(vpid: u16) -> Plan {
        whole(vpid).map_or(Plan::Nothing, Plan::One)
    }

    fn one_root(address: u64) -> Option<Invalidation> {
        let table = Hpa::new(address);
        let eptp = Eptp::for_root(table, Levels::Four, true);
        Some(Invept(ept::Extent::Context(eptp)))
    }

    const INVVPID_ALL: Invalidation = Invvpid(invvpid::Extent::All);
    const INVEPT_ALL: Invalidation = Invept(ept::Extent::All);

    #[test]
    fn all_takes_invept_whenever_ept_is_on() {
        let mut vcpu = vcpu(true);
        assert_eq!(plan(Request::All, &vcpu, less(0)), Plan::One(INVEPT_ALL));
        vcpu.vpid01 = None;
        assert_eq!(plan(Request::All, &vcpu, less(0)), Plan::One(INVEPT_ALL));
        vcpu.root = Root::Invalid;
        assert_eq!(plan(Request::All, &vcpu, less(0)), Plan::One(INVEPT_ALL));
    }

    #[test]
    fn all_without_ept_covers_both_vpids() {
        let mut vcpu = vcpu(false);
        assert_eq!(plan(Request::All, &vcpu, less(0)), Plan::One(INVVPID_ALL));
        let policy = less(NO_ALL);
        assert_eq!(
            plan(Request::All, &vcpu, policy),
            Plan::several([whole(1), whole(2)])
        );
        vcpu.vpid02 = None;
        assert_eq!(plan(Request::All, &vcpu, policy), Plan::several([whole(1)]));
        vcpu.vpid01 = None;
        assert_eq!(plan(Request::All, &vcpu, policy), Plan::Nothing);
    }

    #[test]
    fn current_with_ept_goes_by_the_root_in_use() {
        let mut vcpu = vcpu(true);
        let narrow = one_root(0x7000).map(Plan::One);
        assert_eq!(Some(plan(Request::Current, &vcpu, less(0))), narrow);
        let wide = Plan::Wider(INVEPT_ALL);
        assert_eq!(plan(Request::Current, &vcpu, less(NO_INVEPT_CONTEXT)), wide);
        vcpu.root = Root::Unknown;
        assert_eq!(plan(Request::Current, &vcpu, less(0)), wide);
        vcpu.root = Root::Invalid;
        assert_eq!(plan(Request::Current, &vcpu, less(0)), Plan::Nothing);
    }

    #[test]
    fn a_guest_flush_goes_by_the_vpid_in_use() {
        for request in [Request::Guest, Request::Current] {
            let mut vcpu = vcpu(false);
            assert_eq!(plan(request, &vcpu, less(0)), one(1));
            vcpu.in_l2 = true;
            assert_eq!(plan(request, &vcpu, less(0)), one(2));
            assert_eq!(
                plan(request, &vcpu, less(NO_CONTEXT)),
                Plan::Wider(INVVPID_ALL)
            );
            vcpu.vpid02 = None;
            assert_eq!(plan(request, &vcpu, less(0)), one(1));
            vcpu.vpid01 = None;
            assert_eq!(plan(request, &vcpu, less(0)), Plan::Nothing);
        }
    }

    fn gva() -> Result<CanonicalGva> {
        Gva::new(0x1000)
            .canonical(LinearWidth::Bits48)
            .ok_or(EINVAL)
    }

    #[test]
    fn an_address_climbs_the_ladder() -> Result {
        let mut vcpu = vcpu(true);
        let vpid = Vpid::new(1).ok_or(EINVAL)?;
        let request = Request::Gva(gva()?);
        let one_page = invvpid::Extent::Address(vpid, gva()?);
        // By what is missing: the answer to a request, and that to an INVVPID of L1.
        for (missing, extent) in [
            (0, one_page),
            (NO_ADDRESS, invvpid::Extent::Context(vpid)),
            (NO_ADDRESS | NO_CONTEXT, invvpid::Extent::All),
        ] {
            let answer = if missing == 0 {
                Plan::One(Invvpid(extent))
            } else {
                Plan::Wider(Invvpid(extent))
            };
            assert_eq!(plan(request, &vcpu, less(missing)), answer);
            assert_eq!(for_l1(vpid, Some(gva()?), less(missing)), extent);
        }
        assert_eq!(for_l1(vpid, None, less(0)), invvpid::Extent::Context(vpid));
        assert_eq!(for_l1(vpid, None, less(NO_CONTEXT)), invvpid::Extent::All);
        vcpu.vpid01 = None;
        assert_eq!(plan(request, &vcpu, less(0)), Plan::Nothing);
        Ok(())
    }

    #[test]
    fn by_context_names_what_the_vcpu_can_use() {
        let by_context = |mask| less(mask).with_by_context(true);
        let mut vcpu = vcpu(true);
        vcpu.others[2] = root(0x8000);
        vcpu.others[6] = root(0x9000);
        let mut roots = [None; ROOTS];
        (roots[0], roots[3], roots[7]) = (one_root(0x7000), one_root(0x8000), one_root(0x9000));
        assert_eq!(
            plan(Request::All, &vcpu, by_context(0)),
            Plan::Several(roots)
        );
        // One that cannot be named takes all contexts, like a CPU that cannot name any.
        assert_eq!(
            plan(Request::All, &vcpu, by_context(NO_INVEPT_CONTEXT)),
            Plan::Wider(INVEPT_ALL)
        );
        vcpu.others[6] = Root::Unknown;
        assert_eq!(
            plan(Request::All, &vcpu, by_context(0)),
            Plan::Wider(INVEPT_ALL)
        );
        // The root is there, and the other requests are answered as ever.
        assert_eq!(
            Some(plan(Request::Current, &vcpu, by_context(0))),
            one_root(0x7000).map(Plan::One)
        );

        vcpu.ept = false;
        assert_eq!(
            plan(Request::All, &vcpu, by_context(0)),
            Plan::several([whole(1), whole(2)])
        );
        assert_eq!(
            plan(Request::All, &vcpu, by_context(NO_CONTEXT)),
            Plan::Wider(INVVPID_ALL)
        );
        vcpu.vpid01 = None;
        assert_eq!(plan(Request::All, &vcpu, by_context(0)), Plan::Nothing);
    }

    #[test]
    fn force_drops_everything() -> Result {
        let force = |mask| less(mask).with_by_context(true).with_force(true);
        let mut vcpu = vcpu(true);
        // Even where there is nothing to be dropped.
        vcpu.root = Root::Invalid;
        for request in [
            Request::All,
            Request::Current,
            Request::Guest,
            Request::Gva(gva()?),
        ] {
            vcpu.ept = true;
            assert_eq!(
                plan(request, &vcpu, force(0)),
                Plan::several([Some(INVEPT_ALL), Some(INVVPID_ALL)])
            );
            assert_eq!(
                plan(request, &vcpu, force(NO_ALL)),
                Plan::several([Some(INVEPT_ALL), whole(1), whole(2)])
            );
            vcpu.ept = false;
            assert_eq!(
                plan(request, &vcpu, force(0)),
                Plan::several([None, Some(INVVPID_ALL)])
            );
        }
        let vpid = Vpid::new(2).ok_or(EINVAL)?;
        assert_eq!(for_l1(vpid, Some(gva()?), force(0)), invvpid::Extent::All);
        assert_eq!(
            for_l1(vpid, Some(gva()?), force(NO_ALL)),
            invvpid::Extent::Context(vpid)
        );
        Ok(())
    }

    #[test]
    fn a_vpid_is_clean_after_what_drops_all_of_it() -> Result {
        let mut vcpu = vcpu(true);
        let (one, two) = (Vpid::new(1), Vpid::new(2));
        assert_eq!(cleaned(Request::All, &vcpu, less(0)), [one, two]);
        assert_eq!(cleaned(Request::Guest, &vcpu, less(0)), [one, None]);
        assert_eq!(cleaned(Request::Gva(gva()?), &vcpu, less(0)), [None, None]);
        assert_eq!(cleaned(Request::Current, &vcpu, less(0)), [None, None]);
        vcpu.ept = false;
        assert_eq!(cleaned(Request::Current, &vcpu, less(0)), [one, None]);
        vcpu.in_l2 = true;
        assert_eq!(cleaned(Request::Current, &vcpu, less(0)), [two, None]);
        assert_eq!(cleaned(Request::Guest, &vcpu, less(0)), [two, None]);
        Ok(())
    }

    /// A CPU on which instructions work or not, in a machine that moves the task to the other CPU
    /// whenever it may.
    struct Moving {
        works: bool,
        cpu: Cell<usize>,
        pins: Cell<u32>,
        /// How many instructions each CPU was given, and which VPIDs were recorded for it.
        issued: [Cell<u32>; 2],
        recorded: [Cell<[Option<Vpid>; 2]>; 2],
    }

    impl Moving {
        fn new(works: bool) -> Self {
            Self {
                works,
                cpu: Cell::new(0),
                pins: Cell::new(0),
                issued: Default::default(),
                recorded: Default::default(),
            }
        }

        fn issue(&self) -> Result<(), InsnError> {
            let issued = &self.issued[self.cpu.get()];
            issued.set(issued.get() + 1);
            self.go_on();
            if self.works {
                Ok(())
            } else {
                Err(InsnError::Fault)
            }
        }

        fn go_on(&self) {
            if self.pins.get() == 0 {
                self.cpu.set(1 - self.cpu.get());
            }
        }
    }

    impl Invalidate for &Moving {
        fn invvpid(&self, _: invvpid::Extent) -> Result<(), InsnError> {
            self.issue()
        }
        fn invept(&self, _: ept::Extent) -> Result<(), InsnError> {
            self.issue()
        }
        fn skipped(&self) {}
        fn widened(&self) {}
        fn failed(&self, _: Invalidation, _: InsnError, _: Option<Invalidation>) {}
    }

    impl Recorder for &Moving {
        fn is_recorded(self, vpid: Option<Vpid>) -> bool {
            let recorded = vpid.is_none() || self.recorded[self.cpu.get()].get().contains(&vpid);
            self.go_on();
            recorded
        }
        fn issue_plainly(self, _: Invalidation) -> bool {
            self.issue().is_ok()
        }
        fn record(self, vpid: Vpid) {
            let recorded = &self.recorded[self.cpu.get()];
            let [one, _] = recorded.get();
            recorded.set([Some(vpid), one]);
        }
        fn pinned<R>(self, function: impl FnOnce() -> R) -> R {
            self.pins.set(self.pins.get() + 1);
            let result = function();
            self.pins.set(self.pins.get() - 1);
            result
        }
    }

    #[test]
    fn a_flush_is_recorded_where_it_was_issued() {
        for ept in [false, true] {
            let vcpu = vcpu(ept);
            for policy in [less(0), less(0).with_by_context(true)] {
                let cpu = Moving::new(true);
                assert_eq!(answer(Request::All, &vcpu, policy, &cpu), Ok(()));
                for (issued, recorded) in cpu.issued.iter().zip(&cpu.recorded) {
                    let both = [vcpu.vpid02, vcpu.vpid01];
                    let wanted = if issued.get() == 0 { [None; 2] } else { both };
                    assert_eq!(recorded.get(), wanted);
                }
                // As much is issued where nothing is left to be recorded.
                let count = |cpu: &Moving| cpu.issued.iter().map(Cell::get).sum::<u32>();
                let before = count(&cpu);
                cpu.recorded[0].set([vcpu.vpid01, vcpu.vpid02]);
                cpu.recorded[1].set([vcpu.vpid01, vcpu.vpid02]);
                assert_eq!(answer(Request::All, &vcpu, policy, &cpu), Ok(()));
                assert_eq!(count(&cpu), 2 * before);
            }
        }
    }

    #[test]
    fn the_plain_way_is_for_what_is_recorded() {
        let (all, guest) = (Request::All, Request::Guest);
        for (ept, request) in [(true, all), (false, all), (false, guest)] {
            let vcpu = vcpu(ept);
            for works in [true, false] {
                let cpu = Moving::new(works);
                assert!(!answer_plainly(request, &vcpu, &cpu));
                let both = [vcpu.vpid01, vcpu.vpid02];
                cpu.recorded.iter().for_each(|cpu| cpu.set(both));
                assert_eq!(answer_plainly(request, &vcpu, &cpu), works);
                assert_eq!(cpu.issued.iter().map(Cell::get).sum::<u32>(), 1);
            }
        }
    }

    #[test]
    fn a_lost_flush_is_not_recorded() {
        for request in [Request::All, Request::Guest] {
            let cpu = Moving::new(false);
            assert_eq!(answer(request, &vcpu(false), less(0), &cpu), Err(Lost));
            for recorded in &cpu.recorded {
                assert_eq!(recorded.get(), [None; 2]);
            }
        }
    }

    #[test]
    fn a_vcpu_without_contexts_needs_no_instruction() {
        let policy = less(NO_ALL).with_by_context(true);
        let mut vcpu = vcpu(true);
        vcpu.root = Root::Invalid;
        assert_eq!(plan(Request::All, &vcpu, policy), Plan::Nothing);
        (vcpu.ept, vcpu.vpid02) = (false, None);
        assert_eq!(plan(Request::All, &vcpu, policy), Plan::several([whole(1)]));
    }
}
