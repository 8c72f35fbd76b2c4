// SPDX-License-Identifier: GPL-2.0

//! The only code that knows KVM.
//!
//! Everything below works on types and traits of its own; here they are tied to `struct kvm_vcpu`,
//! to kvm_intel's private data, and to the functions that livepatch and KVM's static calls lead to.

pub(crate) mod asid;
pub(crate) mod asid_follow;
pub(crate) mod cpu;
pub(crate) mod files;
pub(crate) mod handover;
pub(crate) mod hooks;
pub(crate) mod mmus;
pub(crate) mod percpu;
pub(crate) mod switches;
pub(crate) mod tagging;

mod ept_exit;
mod exit;
mod exit_table;
mod fastpath;
mod machine;
mod nested;
mod owners;
mod reading;
mod record;
mod roots;
mod symbols;
mod trace;
mod vcpu;
mod vpids;

use crate::bindings;

/// Returns whether the module has its livepatch relocations.
pub(crate) fn post_linked() -> bool {
    // SAFETY: The helper only reads a pointer of this module.
    unsafe { bindings::vmx_vpid_post_linked() }
}
