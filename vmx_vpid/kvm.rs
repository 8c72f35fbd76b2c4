// SPDX-License-Identifier: GPL-2.0

//! This module contains the code that uses structures of KVM and of the kernel.
//!
//! The code ties the types and traits of the units below to `struct kvm_vcpu`, to kvm_intel's
//! private data, to per-CPU data, and to the functions that livepatch and KVM's static calls lead
//! to.  Unsafe code is in this module, in the instruction wrappers, in the functions that C calls
//! for debugfs, and in the bindings.

pub(crate) mod asid_follow;
pub(crate) mod attach;
pub(crate) mod check_vmcs;
pub(crate) mod compat;
pub(crate) mod cpu;
pub(crate) mod exit_handlers;
pub(crate) mod flushed_cpus;
pub(crate) mod mmus;
pub(crate) mod ops;
pub(crate) mod percpu;
pub(crate) mod roots;
pub(crate) mod static_calls;
pub(crate) mod switches;
pub(crate) mod symbols;
pub(crate) mod tlbstate;
pub(crate) mod trace;
pub(crate) mod vcpu;
pub(crate) mod vcpu_ept_exit;
pub(crate) mod vcpu_exit;
pub(crate) mod vcpu_nested;
pub(crate) mod vcpu_regs;
pub(crate) mod vpid_holders;
pub(crate) mod vpid_lock;

use crate::bindings;
use kernel::{
    error::to_result,
    prelude::*, //
};

/// Checks that the module was built for the kernel that runs.
///
/// # Errors
///
/// [`ENOEXEC`], with both build-ids in the log.
pub(crate) fn check_kernel() -> Result {
    // SAFETY: The helper compares bytes of the kernel's notes, which livepatch resolved when this
    // module was loaded, with bytes of this module.
    to_result(unsafe { bindings::vmx_vpid_target_check_vmlinux() })
}

/// Returns whether the module has its livepatch relocations.
pub(crate) fn post_linked() -> bool {
    // SAFETY: The helper only reads a pointer of this module.
    unsafe { bindings::vmx_vpid_post_linked() }
}
