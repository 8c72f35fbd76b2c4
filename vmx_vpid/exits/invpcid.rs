// SPDX-License-Identifier: GPL-2.0

//! This module executes INVPCID of a guest on shadow paging.
//!
//! KVM runs the guest on shadow pages, and keeps the current root and a few earlier ones.  Each
//! root belongs to one CR3 of the guest, and so to one PCID.  To invalidate a PCID, the handler
//! synchronises those roots with the guest's tables, or frees them, and flushes the CPU: INVVPID
//! covers every PCID.  A root that is not cached needs nothing: `kvm_mmu_load()` synchronises and
//! flushes it before the guest uses it again.
//! Source: the manual's instruction reference, INVPCID.  Equivalent of `handle_invpcid()` and
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

/// Executes the request of the guest.
#[inline]
fn invalidate(vcpu: &mut impl Translations, request: Request) {
    if !vcpu.is_shadowed() {
        // With EPT on INVPCID does not exit.  If INVPCID exits nevertheless, the widest flush is
        // right for every type.
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
        // With CR4.PCIDE clear, the only PCID is 0, and every MOV to CR3 flushes and synchronises
        // the root that it loads.  So cached roots may stay.
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
        // KVM's shadow pages do not distinguish global pages, so both types flush everything.
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
            MockVcpu,
            NO_MEMORY, //
        },
        x86::{
            control_regs::Cr3,
            invpcid::Pcid, //
        }, //
    };

    /// Returns a guest on shadow paging that runs with PCID 5 and has roots for PCIDs 6, 5 and 7.
    fn mock(kind: u64, pcid: u64) -> MockVcpu {
        let mut vcpu = MockVcpu::new();
        vcpu.ept = false;
        vcpu.cr4 = vcpu.cr4.with_pcide(true);
        vcpu.pcids = [5, 6, 5, 7].map(|pcid| Some(Pcid::of(Cr3::from(pcid), vcpu.cr4)));
        vcpu.kind = kind;
        vcpu.operand = [pcid, 0x2000];
        vcpu
    }

    /// Returns the events of one INVPCID.
    fn events(mut vcpu: MockVcpu) -> [Option<Event>; 4] {
        handle(&mut vcpu);
        vcpu.events
    }

    fn roots(which: [bool; Roots::COUNT]) -> Roots {
        Roots::matching(which.map(Some), |meant| meant)
    }

    const GP: Event = Raised(Exception::GeneralProtection);

    #[test]
    fn an_address_is_invalidated_in_the_roots_of_its_pcid() {
        let both = roots([true, false, true, false]);
        let last = roots([false, false, false, true]);
        assert_eq!(
            events(mock(0, 5)),
            done([Invalidated(0x2000, both), Skipped])
        );
        assert_eq!(
            events(mock(0, 7)),
            done([Invalidated(0x2000, last), Skipped])
        );
        assert_eq!(events(mock(0, 8)), done([Skipped]));
    }

    #[test]
    fn a_context_is_synchronised_if_current_and_freed_if_cached() {
        let third = Freed(roots([false, false, true, false]));
        let second = Freed(roots([false, true, false, false]));
        assert_eq!(events(mock(1, 5)), done([SyncRequested, third, Skipped]));
        assert_eq!(events(mock(1, 6)), done([second, Skipped]));
        assert_eq!(events(mock(1, 8)), done([Skipped]));
        let mut vcpu = mock(1, 5);
        vcpu.pcids[2] = None;
        assert_eq!(events(vcpu), done([SyncRequested, Skipped]));
    }

    #[test]
    fn without_pcids_cached_roots_stay() {
        let mut vcpu = mock(1, 0);
        vcpu.cr4 = vcpu.cr4.with_pcide(false);
        vcpu.pcids = [Some(Pcid::ZERO); Roots::COUNT];
        assert_eq!(events(vcpu), done([SyncRequested, Skipped]));
        let mut vcpu = mock(0, 0);
        vcpu.cr4 = vcpu.cr4.with_pcide(false);
        vcpu.pcids = [Some(Pcid::ZERO); Roots::COUNT];
        assert_eq!(
            events(vcpu),
            done([Invalidated(0x2000, Roots::ALL), Skipped])
        );
    }

    #[test]
    fn types_2_and_3_request_a_flush() {
        for kind in [2, 3] {
            assert_eq!(events(mock(kind, 0)), done([FlushRequested, Skipped]));
        }
    }

    #[test]
    fn with_ept_every_type_requests_a_flush() {
        for kind in 0..4 {
            let mut vcpu = mock(kind, 5);
            vcpu.ept = true;
            assert_eq!(events(vcpu), done([FlushRequested, Skipped]));
        }
    }

    #[test]
    fn exceptions_come_in_the_order_of_the_cpus_checks() {
        // Every check fails at first; then one cause after the other is removed.
        let mut wrong = mock(4, 1 << 12);
        wrong.has_invpcid = false;
        wrong.cpl = 3;
        wrong.address = 1 << 47;
        let mut vcpu = wrong;
        handle(&mut vcpu);
        assert_eq!(vcpu.events, done([Raised(Exception::InvalidOpcode)]));
        vcpu = mock(4, 1 << 12);
        vcpu.cpl = 3;
        vcpu.address = 1 << 47;
        assert_eq!(events(vcpu), done([GP]));
        vcpu = mock(4, 1 << 12);
        vcpu.address = 1 << 47;
        assert_eq!(events(vcpu), done([GP]));
        assert_eq!(events(mock(4, 1 << 12)), done([GP]));
        assert_eq!(events(mock(4, 1)), done([GP]));
        assert_eq!(events(mock(3, 1)), done([FlushRequested, Skipped]));
    }

    #[test]
    fn memory_without_a_memslot_reads_as_ones() {
        let mut vcpu = mock(3, 0);
        vcpu.address = NO_MEMORY;
        assert_eq!(events(vcpu), done([GP]));
    }

    #[test]
    fn types_and_exceptions_are_counted() {
        let counters = [
            Counter::GuestInvpcidAddress,
            Counter::GuestInvpcidContext,
            Counter::GuestInvpcidAllAndGlobals,
            Counter::GuestInvpcidAll,
            Counter::FaultGeneralProtection,
        ];
        for (kind, counted) in (0..).zip(counters) {
            let mut vcpu = mock(kind, 5);
            handle(&mut vcpu);
            assert!(vcpu.has_counted(Counter::ExitInvpcid));
            for counter in counters {
                assert_eq!(vcpu.has_counted(counter), counter == counted);
            }
        }
    }
}
