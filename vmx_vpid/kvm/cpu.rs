// SPDX-License-Identifier: GPL-2.0

//! This module reads which invalidations the CPU supports, and issues invalidations on the CPU.

use crate::{
    bindings,
    ept,
    flush::{
        execute::{
            Invalidate,
            Invalidation, //
        },
        Recorder, //
    },
    invvpid,
    kvm::{
        flushed_cpus,
        percpu::count,
        trace::{
            self,
            Reason, //
        }, //
    },
    vmx::{
        caps::EptVpidCap,
        insn::{
            self,
            InsnError, //
        }, //
    },
    vpid::Vpid,
    x86::addr::{
        LinearWidth,
        MaxPhyAddr, //
    }, //
};
use kernel::{
    error::to_result,
    fmt,
    pr_err_once,
    prelude::*, //
};

/// Reads the capabilities of the CPU.  Called once, before any other function of this file.
///
/// # Errors
///
/// [`ENODEV`] when the CPU has no VMX, or the firmware turned it off.
pub(crate) fn probe() -> Result {
    // SAFETY: The helper reads registers, handles their absence, and writes the variables that the
    // functions below read.  The module is being loaded, so none of these functions runs.
    to_result(unsafe { bindings::vmx_vpid_read_cpu() })
}

/// Returns the invalidations that the CPU supports.
#[inline]
pub(crate) fn caps() -> EptVpidCap {
    // SAFETY: Only `probe()` writes the variable, before any reader exists.
    EptVpidCap::from(unsafe { bindings::vmx_vpid_cpu.ept_vpid_cap })
}

/// Returns the width of the CPU's physical addresses.
pub(super) fn physical_width() -> MaxPhyAddr {
    // SAFETY: Only `probe()` writes the variable, before any reader exists.
    MaxPhyAddr::new(unsafe { bindings::vmx_vpid_cpu.maxphyaddr }.into())
}

/// Returns the width of linear addresses that the CPU can invalidate.
#[inline]
pub(super) fn linear_width() -> LinearWidth {
    // SAFETY: Only `probe()` writes the variable, before any reader exists.
    if unsafe { bindings::vmx_vpid_cpu.la57 } {
        LinearWidth::Bits57
    } else {
        LinearWidth::Bits48
    }
}

/// Returns the number of the CPU that runs this code.  The task may move to another CPU right
/// after.
#[inline]
pub(super) fn current() -> u32 {
    let cpu: u32;
    // SAFETY: The instruction reads a per-CPU word that the kernel wrote at boot.
    unsafe {
        kernel::asm!(
            "movl %gs:{number}(%rip), {cpu:e}";
            number = sym bindings::cpu_number,
            cpu = out(reg) cpu,
            options(nostack, preserves_flags, readonly),
        );
    }
    cpu
}

/// Calls a function with preemption disabled, so that the task stays on this CPU.
pub(super) fn with_preemption_disabled<R>(function: impl FnOnce() -> R) -> R {
    // SAFETY: The call of `vmx_vpid_preempt_enable()` below undoes this call.
    unsafe { bindings::vmx_vpid_preempt_disable() };
    let result = function();
    // SAFETY: The call of `vmx_vpid_preempt_disable()` above disabled preemption.
    unsafe { bindings::vmx_vpid_preempt_enable() };
    result
}

/// The CPU that runs this code, with the reason of an invalidation.
///
/// # Invariants
///
/// A value lives within an operation of the backend.
#[derive(Clone, Copy)]
pub(super) struct Cpu(Reason);

impl Cpu {
    /// Makes a value for the invalidations of an operation.
    ///
    /// # Safety
    ///
    /// Called within an operation of the backend; the caller drops the value before the operation
    /// ends.
    #[inline]
    pub(super) unsafe fn new(reason: Reason) -> Self {
        // INVARIANT: By the safety requirements an operation of the backend runs.
        Self(reason)
    }
}

/// Increments the counter of an instruction.
#[inline(always)]
fn count(what: Invalidation) {
    match what {
        Invalidation::Invvpid(invvpid::Extent::Address(..)) => count!(InvvpidAddress),
        Invalidation::Invvpid(invvpid::Extent::Context(_)) => count!(InvvpidContext),
        Invalidation::Invvpid(invvpid::Extent::All) => count!(InvvpidAll),
        Invalidation::Invept(ept::Extent::Context(_)) => count!(InveptContext),
        Invalidation::Invept(ept::Extent::All) => count!(InveptAll),
    }
}

impl Invalidate for Cpu {
    #[inline]
    fn invvpid(&self, extent: invvpid::Extent) -> Result<(), InsnError> {
        count(Invalidation::Invvpid(extent));
        trace::invvpid(extent, self.0);
        invvpid::invvpid(extent)
    }

    #[inline]
    fn invept(&self, extent: ept::Extent) -> Result<(), InsnError> {
        count(Invalidation::Invept(extent));
        trace::invept(extent, self.0);
        ept::invept(extent)
    }

    #[inline]
    fn skipped(&self) {
        count!(FlushSkipped);
    }

    #[cold]
    fn widened(&self) {
        count!(FlushWidened);
    }

    #[cold]
    fn failed(&self, what: Invalidation, error: InsnError, wider: Option<Invalidation>) {
        match error {
            InsnError::VmFail => count!(InsnVmFail),
            InsnError::Exception => count!(InsnFault),
        }
        match wider {
            Some(_) => count!(FlushWidened),
            None => count!(FlushLost),
        }
        report(what, error, wider.is_some());
    }
}

impl Recorder for Cpu {
    #[inline(always)]
    fn is_recorded(self, vpid: Option<Vpid>) -> bool {
        // SAFETY: By the type invariant an operation runs, so FlushedCpus exists.
        unsafe { flushed_cpus::on_this_cpu() }.contains(vpid)
    }

    fn record(self, vpid: Vpid) {
        // SAFETY: By the type invariant an operation runs, so FlushedCpus exists.
        unsafe { flushed_cpus::flushed() }.insert(vpid, current());
    }

    // If the trace event is on, the slow path issues the instruction: here the operands would have
    // to be kept in registers across the call that emits the event.
    #[inline(always)]
    fn issue_fast(self, what: Invalidation) -> bool {
        let worked = match what {
            Invalidation::Invvpid(extent) => {
                !trace::invvpid_is_on() && invvpid::invvpid(extent).is_ok()
            }
            Invalidation::Invept(extent) => !trace::invept_is_on() && ept::invept(extent).is_ok(),
        };
        if worked {
            count(what);
        }
        worked
    }

    fn with_preemption_disabled<R>(self, function: impl FnOnce() -> R) -> R {
        with_preemption_disabled(function)
    }
}

/// Displays why an instruction failed.  The number of the error is read from the current VMCS, so a
/// value is displayed right after the failure.
struct Cause(InsnError);

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            InsnError::Exception => f.write_str("an exception"),
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
    let cause = Cause(error);
    match what {
        Invalidation::Invvpid(invvpid::Extent::Address(vpid, gva)) => pr_err_once!(
            "INVVPID of address {:#x}, VPID {} failed ({}): {}\n",
            gva.into_raw(),
            vpid.into_raw(),
            cause,
            answer
        ),
        Invalidation::Invvpid(invvpid::Extent::Context(vpid)) => pr_err_once!(
            "INVVPID of VPID {} failed ({}): {}\n",
            vpid.into_raw(),
            cause,
            answer
        ),
        Invalidation::Invvpid(invvpid::Extent::All) => {
            pr_err_once!("INVVPID of all VPIDs failed ({}): {}\n", cause, answer)
        }
        Invalidation::Invept(ept::Extent::Context(eptp)) => pr_err_once!(
            "INVEPT of EPTP {:#x} failed ({}): {}\n",
            eptp.into_raw(),
            cause,
            answer
        ),
        Invalidation::Invept(ept::Extent::All) => {
            pr_err_once!("INVEPT of all contexts failed ({}): {}\n", cause, answer)
        }
    }
}
