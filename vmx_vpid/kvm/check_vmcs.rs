// SPDX-License-Identifier: GPL-2.0

//! This module checks that the VMCS of a vCPU has the VPID that the flushes use.
//!
//! KVM writes the control and the VPID when KVM sets up a VMCS; the flushes use the VPIDs that KVM
//! keeps in `struct vcpu_vmx`.  If the two differed, a flush would invalidate another VPID.  With
//! `check_vmcs=1` each flush compares the two, because the vCPU's VMCS is the CPU's current VMCS
//! then.

use crate::{
    bindings,
    flush::tags::Tags,
    kvm::{
        vcpu::Vcpu,
        vpid_lock::Vpids, //
    },
    vmx::insn::{
        self,
        Field, //
    },
    vpid::{
        allocator::VpidLock,
        vmcs::{
            Vmcs, //
            VmcsVpid,
            VmcsVpidError,
        },
        Vpid, //
    }, //
};
use kernel::{
    prelude::*,
    sync::global_lock, //
};

/// The current VMCS of this CPU.
///
/// # Invariants
///
/// A value lives within an operation, so that the vCPU's VMCS is current whenever this task runs.
struct Current(());

impl Vmcs for Current {
    fn read(&self, field: Field) -> Option<u64> {
        insn::vmread(field)
    }
}

/// The result of one check.
#[derive(Clone, Copy)]
pub(crate) struct VmcsCheck {
    /// The time of the check, in nanoseconds of the kernel's monotonic clock.
    pub(crate) time: u64,
    /// The VPID in the VMCS.
    pub(crate) found: Result<VmcsVpid, VmcsVpidError>,
    /// The VPID that the VMCS has to have.
    pub(crate) wanted: VmcsVpid,
    /// Whether the active allocator has the VPID in use.
    pub(crate) in_use: bool,
}

impl VmcsCheck {
    /// Returns whether the VMCS has the right VPID, and the active allocator has that VPID in use.
    pub(crate) fn agrees(&self) -> bool {
        self.found == Ok(self.wanted) && self.in_use
    }
}

/// The results so far.
#[derive(Clone, Copy)]
pub(crate) struct VmcsChecks {
    /// The number of checks.
    pub(crate) count: u64,
    /// The number of checks that found a difference.
    pub(crate) wrong: u64,
    /// The last check.
    pub(crate) last: Option<VmcsCheck>,
    /// The last check that found a difference.
    pub(crate) last_wrong: Option<VmcsCheck>,
}

global_lock! {
    // SAFETY: `set_up()` initialises the lock, before an operation is called and before a file in
    // debugfs exists.
    unsafe(uninit) static CHECKS: SpinLock<VmcsChecks> = VmcsChecks {
        count: 0,
        wrong: 0,
        last: None,
        last_wrong: None,
    };
}

/// Initialises the results.  Called once, before the backend is attached.
///
/// # Safety
///
/// The function is called once, and no other function of this file runs before it returns.
pub(super) unsafe fn set_up() {
    // SAFETY: By the safety requirements this function is called once, and no other code uses the
    // lock yet.
    unsafe { CHECKS.init() };
}

/// Returns the results so far.
pub(crate) fn checks() -> VmcsChecks {
    *CHECKS.lock()
}

/// Returns the VPID that the VMCS of a vCPU has to have.  Equivalent of
/// `vmx_secondary_exec_control()`, `init_vmcs()` and `prepare_vmcs02_early_rare()`.
///
/// In vmcs02 KVM sets the control if the control is set in vmcs01, or if L1 sets it for L2.
fn wanted(vcpu: &Vcpu) -> VmcsVpid {
    vcpu.current_vpid().map_or(VmcsVpid::None, VmcsVpid::By)
}

/// Checks the VMCS of the vCPU that an operation was called for.
///
/// A vCPU that is being destroyed is left out: its VPIDs are freed already.
#[cold]
pub(super) fn check(vcpu: &Vcpu) {
    if vcpu.is_dying() {
        return;
    }
    let wanted = wanted(vcpu);
    // INVARIANT: An operation runs, and the value does not outlive this statement.
    let found = VmcsVpid::of(&Current(()));
    let is_in_use = |vpid: Vpid| {
        // SAFETY: An operation runs, so kvm_intel is loaded and its symbols are resolved.
        unsafe { Vpids::new() }.locked(|allocators| allocators.has(vpid))
    };
    let check = VmcsCheck {
        // SAFETY: The helper only reads a clock.
        time: unsafe { bindings::vmx_vpid_now() },
        found,
        wanted,
        in_use: match wanted {
            VmcsVpid::None => true,
            VmcsVpid::By(vpid) => is_in_use(vpid),
        },
    };
    let mut checks = CHECKS.lock();
    checks.count = checks.count.saturating_add(1);
    checks.last = Some(check);
    if !check.agrees() {
        checks.wrong = checks.wrong.saturating_add(1);
        checks.last_wrong = Some(check);
    }
}
