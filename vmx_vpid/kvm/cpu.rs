// SPDX-License-Identifier: GPL-2.0

//! The CPU: what it can invalidate, and how an invalidation is issued on it.

use crate::{
    addr::LinearWidth,
    bindings,
    caps::EptVpidCap,
    ept,
    insn::{
        self,
        InsnError, //
    },
    invvpid,
    issue::{
        Invalidate,
        Invalidation, //
    },
    kvm::percpu::count, //
};
use kernel::{
    error::to_result,
    fmt,
    pr_err_once,
    prelude::*, //
};

/// Asks the CPU what it can do; to be called once, before anything else of this file.
///
/// # Errors
///
/// [`ENODEV`] when it has no VMX, or the firmware has it off.
pub(crate) fn probe() -> Result {
    // SAFETY: The helper reads registers, with their absence caught, and writes what the functions
    // below read; the module is being loaded, so that none of them runs.
    to_result(unsafe { bindings::vmx_vpid_read_cpu() })
}

/// Returns what the CPU can invalidate.
#[inline]
pub(crate) fn caps() -> EptVpidCap {
    // SAFETY: Written by `probe()` alone, before there was a reader.
    EptVpidCap::from(unsafe { bindings::vmx_vpid_cpu.ept_vpid_cap })
}

/// Returns how wide a linear address the CPU can invalidate.
#[inline]
pub(super) fn linear_width() -> LinearWidth {
    // SAFETY: Written by `probe()` alone, before there was a reader.
    if unsafe { bindings::vmx_vpid_cpu.la57 } {
        LinearWidth::Bits57
    } else {
        LinearWidth::Bits48
    }
}

/// The CPU that runs this code.
pub(super) struct Cpu;

impl Invalidate for Cpu {
    #[inline]
    fn invvpid(&self, extent: invvpid::Extent) -> Result<(), InsnError> {
        match extent {
            invvpid::Extent::Address(..) => count!(InvvpidAddress),
            invvpid::Extent::Context(_) => count!(InvvpidContext),
            invvpid::Extent::All => count!(InvvpidAll),
        }
        invvpid::invvpid(extent)
    }

    #[inline]
    fn invept(&self, extent: ept::Extent) -> Result<(), InsnError> {
        match extent {
            ept::Extent::Context(_) => count!(InveptContext),
            ept::Extent::All => count!(InveptAll),
        }
        ept::invept(extent)
    }

    #[cold]
    fn failed(&self, what: Invalidation, error: InsnError, wider: Option<Invalidation>) {
        match error {
            InsnError::VmFail => count!(InsnVmFail),
            InsnError::Fault => count!(InsnFault),
        }
        if wider.is_none() {
            count!(FlushLost);
        }
        report(what, error, wider.is_some());
    }
}

/// Why an instruction failed, in words; to be shown right after it did.
struct Reason(InsnError);

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            InsnError::Fault => f.write_str("it faulted"),
            InsnError::VmFail => match insn::vm_instruction_error() {
                Some(number) => write!(f, "VM-instruction error {number}"),
                None => f.write_str("VM-fail without a current VMCS"),
            },
        }
    }
}

/// Reports a failed instruction, once for each kind.
#[cold]
fn report(what: Invalidation, error: InsnError, wider: bool) {
    let answer = if wider {
        "a wider one is issued instead"
    } else {
        "the flush is lost"
    };
    let reason = Reason(error);
    match what {
        Invalidation::Invvpid(invvpid::Extent::Address(vpid, gva)) => pr_err_once!(
            "INVVPID of address {:#x}, VPID {} failed ({}): {}\n",
            gva.into_raw(),
            vpid.into_raw(),
            reason,
            answer
        ),
        Invalidation::Invvpid(invvpid::Extent::Context(vpid)) => pr_err_once!(
            "INVVPID of VPID {} failed ({}): {}\n",
            vpid.into_raw(),
            reason,
            answer
        ),
        Invalidation::Invvpid(invvpid::Extent::All) => {
            pr_err_once!("INVVPID of all VPIDs failed ({}): {}\n", reason, answer)
        }
        Invalidation::Invept(ept::Extent::Context(eptp)) => pr_err_once!(
            "INVEPT of EPTP {:#x} failed ({}): {}\n",
            eptp.into_raw(),
            reason,
            answer
        ),
        Invalidation::Invept(ept::Extent::All) => {
            pr_err_once!("INVEPT of all contexts failed ({}): {}\n", reason, answer)
        }
    }
}
