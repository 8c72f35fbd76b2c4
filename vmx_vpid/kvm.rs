// SPDX-License-Identifier: GPL-2.0

//! The only code that knows KVM.
//!
//! Everything below works on types and traits of its own; here they are tied to `struct kvm_vcpu`,
//! to kvm_intel's private data, and to the functions that livepatch and KVM's static calls lead to.

pub(crate) mod files;
pub(crate) mod handover;
pub(crate) mod hooks;
pub(crate) mod percpu;

mod fastpath;
mod symbols;
mod vcpu;

use crate::{
    bindings,
    caps::EptVpidCap, //
};
use kernel::{
    error::to_result,
    prelude::*, //
};

/// Asks the CPU what it can invalidate.
///
/// # Errors
///
/// [`ENODEV`] when it has no VMX, or the firmware has it off.
pub(crate) fn cpu_caps() -> Result<EptVpidCap> {
    let mut caps = 0;
    // SAFETY: The helper reads registers, with their absence caught, and writes the result.
    to_result(unsafe { bindings::vmx_vpid_read_caps(&mut caps) })?;
    Ok(EptVpidCap::from(caps))
}

/// Returns whether the module has its livepatch relocations.
pub(crate) fn post_linked() -> bool {
    // SAFETY: The helper only reads a pointer of this module.
    unsafe { bindings::vmx_vpid_post_linked() }
}
