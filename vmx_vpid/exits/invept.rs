// SPDX-License-Identifier: GPL-2.0

//! This module executes INVEPT of a guest hypervisor (L1).
//!
//! L1 invalidates what its own guests (L2) may have cached under an EPT pointer of L1's.  KVM runs
//! L2 on tables that KVM builds from L1's tables, so the handler frees the roots that KVM built for
//! that pointer, the current root and cached ones.  KVM flushes a root that it builds again when it
//! loads the root.
//! Source: the manual's chapter on VMX instructions, INVEPT.  Equivalent of `handle_invept()`.

use super::{
    end_vmx,
    execute_vmx,
    ExitResult,
    Nested,
    Roots, //
};
use crate::{
    ept::{
        self,
        Kind,
        Request, //
    },
    stats::Counter, //
};

/// Handles an exit for INVEPT.
pub(crate) fn handle(vcpu: &mut impl Nested) -> ExitResult {
    vcpu.count(Counter::ExitInvept);
    let exists = vcpu.l1_has_ept() && vcpu.l1_caps().invept();
    let result = execute_vmx(vcpu, exists, Kind::from_register, |vcpu, kind, operand| {
        ept::check(kind, operand, vcpu.l1_caps(), vcpu.max_phy_addr())
            .map(|request| execute(vcpu, request))
    });
    end_vmx(vcpu, result)
}

/// Executes the request of L1.
fn execute(vcpu: &mut impl Nested, request: Request) {
    vcpu.count(match request {
        Request::Context(_) => Counter::GuestInveptContext,
        Request::All => Counter::GuestInveptAll,
    });
    let roots = match request {
        // Only the tag counts: pointers that differ in other bits have the same mappings.
        Request::Context(tag) => Roots::matching(vcpu.ept12_roots(), |eptp| eptp.ep4ta() == tag),
        Request::All => Roots::ALL,
    };
    if roots != Roots::NONE {
        vcpu.free_ept12_roots(roots);
    }
}

#[cfg(CONFIG_VMX_VPID_KUNIT_TEST)]
#[kernel::macros::kunit_tests(vmx_vpid_exits_invept)]
mod tests {
    use super::*;
    use crate::{
        ept::{
            Eptp,
            Levels, //
        },
        exits::mock::{
            done,
            Event::{
                self,
                *, //
            },
            MockVcpu, //
        },
        vmx::insn::VmInsnError,
        x86::{
            addr::Hpa,
            exception::Exception, //
        }, //
    };

    /// Returns L1's EPT pointer to a root.
    fn pointer(root: u64, levels: Levels, accessed_dirty: bool) -> Eptp {
        Eptp::for_root(Hpa::new(root), levels, accessed_dirty)
    }

    /// Returns an L1 whose L2 ran on 0x5000 with and without accessed flags, and on 0x6000.
    fn mock(kind: u64, eptp: u64) -> MockVcpu {
        let mut vcpu = MockVcpu::new();
        vcpu.kind = kind;
        vcpu.operand = [eptp, u64::MAX];
        vcpu.ept12_roots = [
            Some(pointer(0x5000, Levels::Four, true)),
            None,
            Some(pointer(0x6000, Levels::Four, true)),
            Some(pointer(0x5000, Levels::Five, false)),
        ];
        vcpu
    }

    fn events(mut vcpu: MockVcpu) -> [Option<Event>; 4] {
        handle(&mut vcpu);
        vcpu.events
    }

    fn freed(which: [bool; Roots::COUNT]) -> Event {
        FreedEpt12(Roots::matching(which.map(Some), |meant| meant))
    }

    #[test]
    fn every_root_with_the_ep4ta_is_freed() {
        let both = freed([true, false, false, true]);
        assert_eq!(events(mock(1, 0x501e)), done([both, Skipped]));
        assert_eq!(events(mock(1, 0x505e)), done([both, Skipped]));
        let one = freed([false, false, true, false]);
        assert_eq!(events(mock(1, 0x601e)), done([one, Skipped]));
        assert_eq!(events(mock(1, 0x701e)), done([Skipped]));
    }

    #[test]
    fn type_2_frees_all_roots_whatever_the_pointer() {
        let all = FreedEpt12(Roots::ALL);
        assert_eq!(events(mock(2, u64::MAX)), done([all, Skipped]));
    }

    #[test]
    fn a_pointer_that_vm_entry_refuses_is_vm_fail() {
        for eptp in [0x5001, 0x500e, 0x519e, 1 << 40 | 0x501e] {
            let mut vcpu = mock(1, eptp);
            handle(&mut vcpu);
            assert_eq!(vcpu.events, done([Skipped]));
            let error = vcpu.vm_instruction_error;
            assert_eq!(error, Some(VmInsnError::InvalidOperand));
        }
    }

    #[test]
    fn exceptions_come_in_the_order_of_the_cpus_checks() {
        for hidden in 0..3 {
            let mut vcpu = mock(0, 0);
            vcpu.cpl = 3;
            match hidden {
                0 => vcpu.l1_has_ept = false,
                1 => vcpu.l1_caps = vcpu.l1_caps.with_invept(false),
                _ => vcpu.vmxon = false,
            }
            assert_eq!(events(vcpu), done([Raised(Exception::InvalidOpcode)]));
        }
        let mut vcpu = mock(0, 0);
        vcpu.cpl = 3;
        assert_eq!(events(vcpu), done([Raised(Exception::GeneralProtection)]));
        // The type is checked before memory is read, and memory is read even if it is not needed.
        let mut vcpu = mock(0, 0);
        vcpu.address = 1 << 47;
        assert_eq!(events(vcpu), done([Skipped]));
        let mut vcpu = mock(2, 0);
        vcpu.address = 1 << 47;
        assert_eq!(events(vcpu), done([Raised(Exception::GeneralProtection)]));
    }
}
