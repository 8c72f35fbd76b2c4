// SPDX-License-Identifier: GPL-2.0

//! Whether the VMCS of a vCPU has what its guest caches tagged as it ought to be.
//!
//! KVM writes control and number when it sets a VMCS up, and this layer invalidates by the numbers
//! that it keeps beside it: were the two not the same, a flush would be of something else.  So on
//! demand each flush looks at the VMCS, which is the current one of the CPU then.

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

/// What was found by one look.
#[derive(Clone, Copy)]
pub(crate) struct VmcsCheck {
    /// When, in nanoseconds of the kernel's monotonic clock.
    pub(crate) time: u64,
    /// How the VMCS has it.
    pub(crate) found: Result<VmcsVpid, VmcsVpidError>,
    /// How it ought to be.
    pub(crate) wanted: VmcsVpid,
    /// Whether the VPID is in use, as KVM's bitmap or the pool has it.
    pub(crate) in_use: bool,
}

impl VmcsCheck {
    /// Returns whether all is as it ought to be.
    pub(crate) fn agrees(&self) -> bool {
        self.found == Ok(self.wanted) && self.in_use
    }
}

/// What was found so far.
#[derive(Clone, Copy)]
pub(crate) struct VmcsChecks {
    /// How many looks there were.
    pub(crate) count: u64,
    /// How many found something wrong.
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

/// Makes ready for looks; to be called once, before anything is attached.
///
/// # Safety
///
/// Nobody else calls anything of this file meanwhile, and no one calls this again.
pub(super) unsafe fn set_up() {
    // SAFETY: The contract of this function.
    unsafe { CHECKS.init() };
}

/// Returns what was found so far.
pub(crate) fn checks() -> VmcsChecks {
    *CHECKS.lock()
}

/// Returns how the VMCS of a vCPU ought to have it; answers to `vmx_secondary_exec_control()`,
/// `init_vmcs()` and `prepare_vmcs02_early_rare()`.
///
/// With the VMCS of L2 the control is on if it is with that of L1, or if L1 has it on for L2.
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
