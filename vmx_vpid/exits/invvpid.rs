// SPDX-License-Identifier: GPL-2.0

//! This module executes INVVPID of a guest hypervisor (L1).
//!
//! L1 invalidates what its own guests (L2) may have cached under a VPID of L1's numbering.  KVM
//! runs every L2 of a vCPU with one VPID, vpid02, whatever vpid12 L1 uses, and flushes vpid02 when
//! vpid12 changes.  So an INVVPID of any vpid12 flushes all of vpid02.
//! Source: the manual's chapter on VMX instructions, INVVPID.  Equivalent of `handle_invvpid()`.

use super::{
    end_vmx,
    execute_vmx,
    ExitResult, //
    Nested,
};
use crate::{
    flush::{
        self,
        execute::Invalidation,
        tags::Tags, //
    },
    invvpid::{
        Descriptor,
        Kind,
        Request, //
    },
    stats::Counter,
    vpid::Vpid, //
};

/// Handles an exit for INVVPID.
pub(crate) fn handle(vcpu: &mut impl Nested) -> ExitResult {
    vcpu.count(Counter::ExitInvvpid);
    let exists = vcpu.l1_has_vpid() && vcpu.l1_caps().invvpid();
    let result = execute_vmx(vcpu, exists, Kind::from_register, |vcpu, kind, operand| {
        Descriptor::from_guest(operand)
            .check(kind, vcpu.linear_width())
            .map(|request| execute(vcpu, request))
    });
    end_vmx(vcpu, result)
}

/// Executes the request of L1.
fn execute(vcpu: &mut impl Nested, request: Request) {
    vcpu.count(match request {
        Request::Address(..) => Counter::GuestInvvpidAddress,
        Request::Context(_) => Counter::GuestInvvpidContext,
        Request::All => Counter::GuestInvvpidAll,
        Request::ContextRetainingGlobals(_) => Counter::GuestInvvpidRetainGlobals,
    });
    vcpu.with_preemption_disabled(|vcpu| {
        if !vcpu.vmcs02_is_here() {
            // The mappings of L2 are cached on the CPU where L2 last ran.  A flush here would miss
            // them; the next VM entry of L2 flushes on its own CPU.
            vcpu.forget_vpid12();
        } else if let Some(vpid) = effective_vpid02(vcpu.tags()) {
            // A vCPU without any VPID needs no instruction: VM entry and VM exit flush VPID 0.
            let address = match request {
                Request::Address(_, address) => Some(address),
                _ => None,
            };
            let extent = flush::for_l1(vpid, address, vcpu.policy());
            vcpu.issue(Invalidation::Invvpid(extent));
        }
    });
    // With shadow paging L1 invalidates linear mappings of L2, which KVM keeps as shadow pages.
    // KVM does not know under which vpid12 each page was made, so it frees all of them.
    if !vcpu.tags().ept() {
        vcpu.free_l2_roots();
    }
}

/// Returns the VPID that L2 runs with: vpid01 if the vCPU has no vpid02.
///
/// Equivalent of `nested_get_vpid02()`.
fn effective_vpid02(tags: &impl Tags) -> Option<Vpid> {
    tags.vpid02().or_else(|| tags.vpid01())
}

#[cfg(CONFIG_VMX_VPID_KUNIT_TEST)]
#[kernel::macros::kunit_tests(vmx_vpid_exits_invvpid)]
mod tests {
    use super::*;
    use crate::{
        exits::mock::{
            canonical,
            done,
            Event::{
                self,
                *, //
            },
            MockVcpu,
            BROKEN_MEMORY,
            FLAGS,
            NO_MEMORY, //
        },
        invvpid::Extent,
        vmx::insn::VmInsnError,
        x86::{
            exception::Exception,
            mode::Mode, //
        }, //
    };
    use kernel::prelude::*;

    /// Returns an L1 that invalidates VPID 7 of its numbering.
    fn mock(kind: u64) -> MockVcpu {
        let mut vcpu = MockVcpu::new();
        vcpu.kind = kind;
        vcpu.operand = [7, 0x2000];
        vcpu
    }

    fn events(mut vcpu: MockVcpu) -> [Option<Event>; 4] {
        handle(&mut vcpu);
        vcpu.events
    }

    /// Returns the event of an INVVPID of a whole VPID.
    fn context(vpid: u16) -> Result<Event> {
        let vpid = Vpid::new(vpid).ok_or(EINVAL)?;
        Ok(Issued(Invalidation::Invvpid(Extent::Context(vpid))))
    }

    #[test]
    fn every_type_flushes_vpid02() -> Result {
        let vpid = Vpid::new(2).ok_or(EINVAL)?;
        let address = canonical(0x2000).ok_or(EINVAL)?;
        let one = Issued(Invalidation::Invvpid(Extent::Address(vpid, address)));
        assert_eq!(events(mock(0)), done([one, Skipped]));
        for kind in 1..4 {
            assert_eq!(events(mock(kind)), done([context(2)?, Skipped]));
        }
        Ok(())
    }

    #[test]
    fn without_vpid02_every_type_flushes_vpid01() -> Result {
        let mut vcpu = mock(1);
        vcpu.vpid02 = None;
        assert_eq!(events(vcpu), done([context(1)?, Skipped]));
        Ok(())
    }

    #[test]
    fn a_type_that_the_cpu_lacks_is_widened() -> Result {
        let mut vcpu = mock(0);
        vcpu.policy = vcpu.policy.with_invvpid_address(false);
        assert_eq!(events(vcpu), done([context(2)?, Skipped]));
        Ok(())
    }

    #[test]
    fn l2_on_another_cpu_is_flushed_by_its_next_entry() {
        for kind in 0..4 {
            let mut vcpu = mock(kind);
            vcpu.vmcs02_is_here = false;
            assert_eq!(events(vcpu), done([ForgotVpid12, Skipped]));
        }
    }

    #[test]
    fn on_shadow_paging_the_roots_of_l2_are_freed() -> Result {
        for kind in 1..4 {
            let mut vcpu = mock(kind);
            vcpu.ept = false;
            assert_eq!(events(vcpu), done([context(2)?, FreedL2, Skipped]));
        }
        let mut vcpu = mock(0);
        vcpu.ept = false;
        vcpu.vmcs02_is_here = false;
        assert_eq!(events(vcpu), done([ForgotVpid12, FreedL2, Skipped]));
        Ok(())
    }

    #[test]
    fn flags_distinguish_success_and_vm_fail() {
        let mut vcpu = mock(1);
        handle(&mut vcpu);
        assert_eq!(vcpu.rflags, 2);
        assert_eq!(vcpu.vm_instruction_error, None);

        let mut vcpu = mock(4);
        handle(&mut vcpu);
        assert_eq!(vcpu.events, done([Skipped]));
        assert_eq!(vcpu.rflags, 2 | 1 << 6);
        let error = vcpu.vm_instruction_error;
        assert_eq!(error, Some(VmInsnError::InvalidOperand));
        assert!(vcpu.has_counted(Counter::GuestVmFail));

        let mut vcpu = mock(4);
        vcpu.current_vmcs = false;
        handle(&mut vcpu);
        assert_eq!(vcpu.events, done([Skipped]));
        assert_eq!(vcpu.rflags, 2 | 1);
        assert_eq!(vcpu.vm_instruction_error, None);
    }

    #[test]
    fn an_exception_leaves_the_flags_unchanged() {
        let mut vcpu = mock(1);
        vcpu.address = 1 << 47;
        handle(&mut vcpu);
        assert_eq!(vcpu.events, done([Raised(Exception::GeneralProtection)]));
        assert_eq!(vcpu.rflags, FLAGS);
    }

    #[test]
    fn exceptions_come_in_the_order_of_the_cpus_checks() {
        let undefined = done([Raised(Exception::InvalidOpcode)]);
        for hidden in 0..4 {
            // At CPL 3, with a bad type at a bad address: #UD comes first nevertheless.
            let mut vcpu = mock(4);
            vcpu.cpl = 3;
            vcpu.address = 1 << 47;
            match hidden {
                0 => vcpu.l1_has_vpid = false,
                1 => vcpu.l1_caps = vcpu.l1_caps.with_invvpid(false),
                2 => vcpu.vmxon = false,
                _ => vcpu.mode = Mode::Compatibility,
            }
            assert_eq!(events(vcpu), undefined);
        }
        let mut vcpu = mock(4);
        vcpu.cpl = 3;
        vcpu.address = 1 << 47;
        assert_eq!(events(vcpu), done([Raised(Exception::GeneralProtection)]));
        // The type is checked before memory is read.
        let mut vcpu = mock(4);
        vcpu.address = 1 << 47;
        assert_eq!(events(vcpu), done([Skipped]));
    }

    #[test]
    fn memory_that_cannot_be_read_exits_to_user_space() {
        let mut vcpu = mock(2);
        vcpu.address = BROKEN_MEMORY;
        assert_eq!(handle(&mut vcpu), ExitResult::UserSpace);
        assert_eq!(vcpu.events, done([GaveUp]));
        assert_eq!(vcpu.rflags, FLAGS);
        assert!(vcpu.has_counted(Counter::ExitHostFailure));
    }

    #[test]
    fn memory_without_a_memslot_reads_as_ones() {
        let mut vcpu = mock(2);
        vcpu.address = NO_MEMORY;
        handle(&mut vcpu);
        assert!(vcpu.has_counted(Counter::GuestVmFail));
    }
}
