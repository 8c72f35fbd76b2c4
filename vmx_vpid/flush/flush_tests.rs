// SPDX-License-Identifier: GPL-2.0

//! These tests of [`crate::flush`] cover each request, for each way in which translations are
//! tagged, for each type of instruction that a CPU can lack, and for each switch.

#[cfg(CONFIG_VMX_VPID_KUNIT_TEST)]
#[kernel::macros::kunit_tests(vmx_vpid_flush)]
mod tests {
    use crate::{
        ept::{
            self,
            Eptp,
            Levels, //
        },
        flush::{
            execute::{
                FlushFailed,
                Invalidation::{
                    self,
                    *, //
                },
                Plan, //
            },
            mock::Moving,
            policy::{
                Policy,
                Switches, //
            },
            *, //
        },
        invvpid,
        vmx::caps::EptVpidCap,
        vpid::Vpid,
        x86::addr::{
            CanonicalGva,
            Gva,
            Hpa,
            LinearWidth, //
        }, //
    };
    use kernel::prelude::*;

    /// A vCPU, reduced to its [`Tags`].
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

    /// Returns the root whose table is at an address.
    const fn root(address: u64) -> Root {
        Root::Known {
            table: Hpa::new(address),
            levels: Levels::Four,
            accessed_dirty: true,
        }
    }

    /// Returns a vCPU with VPIDs 1 and 2 that runs L1.
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

    /// Returns the policy of a CPU with every capability but those of a mask.
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
    fn flush_all_is_invept_whenever_ept_is_on() {
        let mut vcpu = vcpu(true);
        assert_eq!(plan(Request::All, &vcpu, less(0)), Plan::One(INVEPT_ALL));
        vcpu.vpid01 = None;
        assert_eq!(plan(Request::All, &vcpu, less(0)), Plan::One(INVEPT_ALL));
        vcpu.root = Root::Invalid;
        assert_eq!(plan(Request::All, &vcpu, less(0)), Plan::One(INVEPT_ALL));
    }

    #[test]
    fn flush_all_without_ept_covers_both_vpids() {
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
    fn flush_current_with_ept_covers_the_current_root() {
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
    fn a_guest_flush_covers_the_current_vpid() {
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
    fn an_address_flush_falls_back_to_wider_types() -> Result {
        let mut vcpu = vcpu(true);
        let vpid = Vpid::new(1).ok_or(EINVAL)?;
        let request = Request::Gva(gva()?);
        let one_page = invvpid::Extent::Address(vpid, gva()?);
        // The missing types, and the extent that a request and an INVVPID of L1 then get.
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
    fn a_flush_by_context_names_each_context_of_the_vcpu() {
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
        // INVEPT of all contexts replaces that of a root if the CPU lacks the type, or KVM does not
        // know the EPT pointer.
        assert_eq!(
            plan(Request::All, &vcpu, by_context(NO_INVEPT_CONTEXT)),
            Plan::Wider(INVEPT_ALL)
        );
        vcpu.others[6] = Root::Unknown;
        assert_eq!(
            plan(Request::All, &vcpu, by_context(0)),
            Plan::Wider(INVEPT_ALL)
        );
        // Other requests do not depend on the switch.
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
    fn a_forced_flush_drops_everything() -> Result {
        let force = |mask| less(mask).with_by_context(true).with_force(true);
        let mut vcpu = vcpu(true);
        // An invalid root is flushed too, although nothing is cached for it.
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
    fn a_vpid_counts_as_flushed_after_a_flush_of_all_its_mappings() -> Result {
        let mut vcpu = vcpu(true);
        let (one, two) = (Vpid::new(1), Vpid::new(2));
        assert_eq!(flushed(Request::All, &vcpu, less(0)), [one, two]);
        assert_eq!(flushed(Request::Guest, &vcpu, less(0)), [one, None]);
        assert_eq!(flushed(Request::Gva(gva()?), &vcpu, less(0)), [None, None]);
        assert_eq!(flushed(Request::Current, &vcpu, less(0)), [None, None]);
        vcpu.ept = false;
        assert_eq!(flushed(Request::Current, &vcpu, less(0)), [one, None]);
        vcpu.in_l2 = true;
        assert_eq!(flushed(Request::Current, &vcpu, less(0)), [two, None]);
        assert_eq!(flushed(Request::Guest, &vcpu, less(0)), [two, None]);
        Ok(())
    }

    #[test]
    fn a_flush_is_recorded_on_the_cpu_that_issued_it() {
        for ept in [false, true] {
            let vcpu = vcpu(ept);
            for policy in [less(0), less(0).with_by_context(true)] {
                let cpu = Moving::new(true);
                assert_eq!(flush_slow(Request::All, &vcpu, policy, &cpu), Ok(()));
                for (issued, recorded) in cpu.issued.iter().zip(&cpu.recorded) {
                    let both = [vcpu.vpid02, vcpu.vpid01];
                    let wanted = if issued.get() == 0 { [None; 2] } else { both };
                    assert_eq!(recorded.get(), wanted);
                }
            }
        }
    }

    #[test]
    fn the_fast_path_serves_vpids_that_are_recorded() -> Result {
        let (all, guest, current) = (Request::All, Request::Guest, Request::Current);
        // The recorded VPIDs, and whether the fast path is taken.
        let (none, one) = ([None; 2], [Vpid::new(1), None]);
        let both = [Vpid::new(1), Vpid::new(2)];
        for (ept, request, recorded, taken) in [
            (true, all, none, false),
            (true, all, one, false),
            (true, all, both, true),
            (false, all, one, false),
            (false, all, both, true),
            (false, guest, none, false),
            (false, guest, one, true),
            (false, current, one, true),
            // These requests do not flush a whole VPID, so there is nothing to record.
            (true, current, none, true),
            (false, Request::Gva(gva()?), none, true),
        ] {
            for works in [true, false] {
                let cpu = Moving::new(works);
                cpu.recorded.iter().for_each(|cpu| cpu.set(recorded));
                let done = flush_fast(request, &vcpu(ept), &cpu);
                assert_eq!(done, taken && works);
                assert_eq!(cpu.count(), taken.into());
            }
        }
        // A root that cannot be named needs a wider instruction, which the slow path counts.
        let unknown = Vcpu {
            root: Root::Unknown,
            ..vcpu(true)
        };
        let cpu = Moving::new(true);
        assert!(!flush_fast(current, &unknown, &cpu) && cpu.count() == 0);
        // A switch for one kind of request does not divert the other kinds.
        let apart = less(0).with_by_context(true);
        assert!(
            takes_fast_path(guest, apart)
                && !takes_fast_path(all, apart)
                && takes_fast_path(all, less(0))
        );
        assert!(
            !takes_fast_path(guest, less(NO_ADDRESS))
                && !takes_fast_path(current, less(0).with_force(true))
        );
        Ok(())
    }

    #[test]
    fn a_failed_flush_is_not_recorded() {
        for request in [Request::All, Request::Guest] {
            let cpu = Moving::new(false);
            assert_eq!(
                flush_slow(request, &vcpu(false), less(0), &cpu),
                Err(FlushFailed)
            );
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
