// SPDX-License-Identifier: GPL-2.0

//! INVPCID of a guest on shadow paging.
//!
//! KVM runs the guest on tables of its own, of which it keeps the current root and a few earlier
//! ones, each for one CR3 of the guest's and so for one PCID.  To drop a PCID is to bring those
//! roots up to date with the guest's tables, or to drop them, and to flush the CPU: INVVPID covers
//! every PCID.  A root that is not cached needs nothing: `kvm_mmu_load()` brings it up to date and
//! flushes before it is used again.
//! Source: the manual's instruction reference, INVPCID; answers to `handle_invpcid()` and
//! `kvm_handle_invpcid()`.

use super::{
    check_cpl,
    end,
    read_operand,
    ExitResult,
    Roots,
    Translations, //
};
use crate::{
    paging::walk::Stop,
    stats::Counter,
    x86::{
        exception::Exception,
        invpcid::{
            self,
            Descriptor,
            Request, //
        }, //
    }, //
};

/// Handles an exit for INVPCID.
#[inline]
pub(crate) fn handle(vcpu: &mut impl Translations) -> ExitResult {
    vcpu.count(Counter::ExitInvpcid);
    let result = execute(vcpu);
    end(vcpu, result)
}

/// Executes the instruction, in the order of the CPU's checks.
#[inline]
fn execute(vcpu: &mut impl Translations) -> Result<(), Stop> {
    if !vcpu.has_invpcid() {
        return Err(Exception::InvalidOpcode.into());
    }
    check_cpl(vcpu)?;
    let info = vcpu.instruction_information();
    let mode = vcpu.mode();
    let operand = read_operand(vcpu, mode, info)?;
    let request = invpcid::check(
        info.register_operand(mode, vcpu),
        Descriptor::new(operand),
        vcpu.cr4(),
        vcpu.linear_width(),
    )
    .ok_or(Exception::GeneralProtection)?;
    vcpu.count(match request {
        Request::Address(..) => Counter::GuestInvpcidAddress,
        Request::Context(_) => Counter::GuestInvpcidContext,
        Request::AllAndGlobals => Counter::GuestInvpcidAllAndGlobals,
        Request::All => Counter::GuestInvpcidAll,
    });
    invalidate(vcpu, request);
    Ok(())
}

/// Carries out what the guest asked for.
#[inline]
fn invalidate(vcpu: &mut impl Translations, request: Request) {
    if !vcpu.is_shadowed() {
        // With EPT on the instruction does not exit.  Should it do so all the same, the widest
        // flush is right for every type.
        return vcpu.request_flush();
    }
    match request {
        Request::Address(pcid, address) => {
            let roots = Roots::matching(vcpu.pcids(), |other| other == pcid);
            if roots != Roots::NONE {
                vcpu.invalidate(address, roots);
            }
            vcpu.count_in_kvm();
        }
        // With CR4.PCIDE clear there is PCID 0 alone, that of the root in use.  Every MOV to CR3
        // flushes then, and so brings cached roots up to date: they may stay.
        Request::Context(_) if !vcpu.cr4().pcide() => vcpu.request_sync(),
        Request::Context(pcid) => {
            let roots = Roots::matching(vcpu.pcids(), |other| other == pcid);
            if roots.has_current() {
                vcpu.request_sync();
            }
            if roots.without_current() != Roots::NONE {
                vcpu.free_roots(roots.without_current());
            }
        }
        // KVM's tables do not tell globals from others, so that both types drop everything.
        Request::AllAndGlobals | Request::All => vcpu.request_flush(),
    }
}

#[cfg(CONFIG_VMX_VPID_KUNIT_TEST)]
#[kernel::macros::kunit_tests(vmx_vpid_exits_invpcid)]
mod tests {
    use super::*;
    use crate::{
        exits::mock::{
            done,
            Event::{
                self,
                *, //
            },
            Fake,
            NO_MEMORY, //
        },
        x86::{
            control_regs::Cr3,
            invpcid::Pcid, //
        }, //
    };

    /// A guest on shadow paging that runs with PCID 5 and has roots for PCIDs 6, 5 and 7.
    fn fake(kind: u64, pcid: u64) -> Fake {
        let mut vcpu = Fake::new();
        vcpu.ept = false;
        vcpu.cr4 = vcpu.cr4.with_pcide(true);
        vcpu.pcids = [5, 6, 5, 7].map(|pcid| Some(Pcid::of(Cr3::from(pcid), vcpu.cr4)));
        vcpu.kind = kind;
        vcpu.operand = [pcid, 0x2000];
        vcpu
    }

    /// What one INVPCID leads to.
    fn events(mut vcpu: Fake) -> [Option<Event>; 4] {
        handle(&mut vcpu);
        vcpu.events
    }

    fn roots(which: [bool; Roots::COUNT]) -> Roots {
        Roots::matching(which.map(Some), |meant| meant)
    }

    const GP: Event = Raised(Exception::GeneralProtection);

    #[test]
    fn an_address_goes_in_the_roots_of_its_pcid() {
        let both = roots([true, false, true, false]);
        let last = roots([false, false, false, true]);
        assert_eq!(
            events(fake(0, 5)),
            done([Invalidated(0x2000, both), Skipped])
        );
        assert_eq!(
            events(fake(0, 7)),
            done([Invalidated(0x2000, last), Skipped])
        );
        assert_eq!(events(fake(0, 8)), done([Skipped]));
    }

    #[test]
    fn a_context_is_synchronised_in_use_and_dropped_elsewhere() {
        let third = Freed(roots([false, false, true, false]));
        let second = Freed(roots([false, true, false, false]));
        assert_eq!(events(fake(1, 5)), done([SyncRequested, third, Skipped]));
        assert_eq!(events(fake(1, 6)), done([second, Skipped]));
        assert_eq!(events(fake(1, 8)), done([Skipped]));
        let mut vcpu = fake(1, 5);
        vcpu.pcids[2] = None;
        assert_eq!(events(vcpu), done([SyncRequested, Skipped]));
    }

    #[test]
    fn without_pcids_cached_roots_stay() {
        let mut vcpu = fake(1, 0);
        vcpu.cr4 = vcpu.cr4.with_pcide(false);
        vcpu.pcids = [Some(Pcid::ZERO); Roots::COUNT];
        assert_eq!(events(vcpu), done([SyncRequested, Skipped]));
        let mut vcpu = fake(0, 0);
        vcpu.cr4 = vcpu.cr4.with_pcide(false);
        vcpu.pcids = [Some(Pcid::ZERO); Roots::COUNT];
        assert_eq!(
            events(vcpu),
            done([Invalidated(0x2000, Roots::ALL), Skipped])
        );
    }

    #[test]
    fn everything_is_left_to_a_request() {
        for kind in [2, 3] {
            assert_eq!(events(fake(kind, 0)), done([FlushRequested, Skipped]));
        }
    }

    #[test]
    fn with_ept_every_type_is_a_request() {
        for kind in 0..4 {
            let mut vcpu = fake(kind, 5);
            vcpu.ept = true;
            assert_eq!(events(vcpu), done([FlushRequested, Skipped]));
        }
    }

    #[test]
    fn faults_come_in_the_order_of_the_cpu() {
        // Everything is wrong at first; then one thing after the other is put right.
        let mut wrong = fake(4, 1 << 12);
        wrong.has_invpcid = false;
        wrong.cpl = 3;
        wrong.address = 1 << 47;
        let mut vcpu = wrong;
        handle(&mut vcpu);
        assert_eq!(vcpu.events, done([Raised(Exception::InvalidOpcode)]));
        vcpu = fake(4, 1 << 12);
        vcpu.cpl = 3;
        vcpu.address = 1 << 47;
        assert_eq!(events(vcpu), done([GP]));
        vcpu = fake(4, 1 << 12);
        vcpu.address = 1 << 47;
        assert_eq!(events(vcpu), done([GP]));
        assert_eq!(events(fake(4, 1 << 12)), done([GP]));
        assert_eq!(events(fake(4, 1)), done([GP]));
        assert_eq!(events(fake(3, 1)), done([FlushRequested, Skipped]));
    }

    #[test]
    fn what_no_one_answers_reads_as_ones() {
        let mut vcpu = fake(3, 0);
        vcpu.address = NO_MEMORY;
        assert_eq!(events(vcpu), done([GP]));
    }

    #[test]
    fn types_and_faults_are_counted() {
        let counters = [
            Counter::GuestInvpcidAddress,
            Counter::GuestInvpcidContext,
            Counter::GuestInvpcidAllAndGlobals,
            Counter::GuestInvpcidAll,
            Counter::FaultGeneralProtection,
        ];
        for (kind, counted) in (0..).zip(counters) {
            let mut vcpu = fake(kind, 5);
            handle(&mut vcpu);
            assert!(vcpu.has_counted(Counter::ExitInvpcid));
            for counter in counters {
                assert_eq!(vcpu.has_counted(counter), counter == counted);
            }
        }
    }
}
