// SPDX-License-Identifier: GPL-2.0

//! This module checks that the VMCS of a vCPU has the VPID that the flushes use.
//!
//! KVM writes control and number when it sets up a VMCS, and the flushes use the numbers that KVM
//! keeps beside it.  If the two differed, a flush would invalidate another VPID. So on demand each
//! flush reads the VMCS, which is the CPU's current one then.

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
/// A value lives within an operation: whenever this task runs, that is the VMCS of the vCPU.
struct Current(());

impl Vmcs for Current {
    fn read(&self, field: Field) -> Option<u64> {
        insn::vmread(field)
    }
}

/// The result of one check.
#[derive(Clone, Copy)]
pub(crate) struct VmcsCheck {
    /// When, in nanoseconds of the kernel's monotonic clock.
    pub(crate) time: u64,
    /// The VPID in the VMCS.
    pub(crate) found: Result<VmcsVpid, VmcsVpidError>,
    /// The VPID that the VMCS has to have.
    pub(crate) wanted: VmcsVpid,
    /// Whether the active allocator has the VPID in use.
    pub(crate) in_use: bool,
}

impl VmcsCheck {
    /// Returns whether all is as it ought to be.
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
    /// The last one.
    pub(crate) last: Option<VmcsCheck>,
    /// The last one that found something wrong.
    pub(crate) last_wrong: Option<VmcsCheck>,
}

global_lock! {
    // SAFETY: `set_up()` initialises it, before an operation is called or there is a file.
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
/// No other code uses this file before the function returns, and it is called once.
pub(super) unsafe fn set_up() {
    // SAFETY: By the safety requirements this is called once, and no other code uses the lock yet.
    unsafe { CHECKS.init() };
}

/// Returns what was found so far.
pub(crate) fn checks() -> VmcsChecks {
    *CHECKS.lock()
}

/// Returns the VPID that the VMCS of a vCPU has to have.  Equivalent of
/// `vmx_secondary_exec_control()`, `init_vmcs()` and `prepare_vmcs02_early_rare()`.
///
/// In the VMCS of L2 the control is set if it is set in the VMCS of L1, or if L1 sets it for L2.
fn wanted(vcpu: &Vcpu) -> VmcsVpid {
    vcpu.current_vpid().map_or(VmcsVpid::None, VmcsVpid::By)
}

/// VmcsChecks at the VMCS of the vCPU that an operation was called for.
///
/// One that is being destroyed is left out: it has given its VPIDs back.
#[cold]
pub(super) fn look(vcpu: &Vcpu) {
    if vcpu.is_dying() {
        return;
    }
    let wanted = wanted(vcpu);
    let found = VmcsVpid::of(&Current(()));
    let is_in_use = |vpid: Vpid| {
        // SAFETY: An operation runs, so kvm_intel is loaded and its symbols are resolved.
        unsafe { Vpids::new() }.locked(|allocators| allocators.has(vpid))
    };
    let look = VmcsCheck {
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
    checks.last = Some(look);
    if !look.agrees() {
        checks.wrong = checks.wrong.saturating_add(1);
        checks.last_wrong = Some(look);
    }
}
