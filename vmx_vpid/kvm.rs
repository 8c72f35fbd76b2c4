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

use crate::bindings::{
    self,
    kvm_vcpu,
    vcpu_vmx,
    vmcs12, //
};
use core::mem::offset_of;
use kernel::{
    error::to_result,
    prelude::*, //
};

/// Checks that the module was built for the kernel that runs, and that bindings and C agree.
///
/// # Errors
///
/// [`ENOEXEC`], with both build-ids in the log, or the place where the layouts differ.
pub(crate) fn check_kernel() -> Result {
    check_layout()?;
    // SAFETY: The helper compares bytes of the kernel's notes, which livepatch resolved when this
    // module was loaded, with bytes of this module.
    to_result(unsafe { bindings::vmx_vpid_target_check_vmlinux() })
}

/// Compares the layout of KVM's structures in the bindings, which libclang reads, with that of the
/// C compiler, which may be gcc.
///
/// # Errors
///
/// [`ENOEXEC`], with the first difference in the log.
fn check_layout() -> Result {
    // SAFETY: C initialises the constant when it is compiled.
    let c = unsafe { &bindings::vmx_vpid_layout };
    let pairs = [
        ("size of kvm_vcpu", size_of::<kvm_vcpu>(), c.kvm_vcpu),
        ("size of vcpu_vmx", size_of::<vcpu_vmx>(), c.vcpu_vmx),
        ("size of vmcs12", size_of::<vmcs12>(), c.vmcs12),
        (
            "kvm_vcpu.arch.mmu",
            offset_of!(kvm_vcpu, arch.mmu),
            c.arch_mmu,
        ),
        (
            "kvm_vcpu.arch.regs",
            offset_of!(kvm_vcpu, arch.regs),
            c.arch_regs,
        ),
        (
            "kvm_vcpu.arch.cr3",
            offset_of!(kvm_vcpu, arch.cr3),
            c.arch_cr3,
        ),
        (
            "kvm_vcpu.arch.hflags",
            offset_of!(kvm_vcpu, arch.hflags),
            c.arch_hflags,
        ),
        ("vcpu_vmx.vpid", offset_of!(vcpu_vmx, vpid), c.vmx_vpid),
        (
            "vcpu_vmx.nested",
            offset_of!(vcpu_vmx, nested),
            c.vmx_nested,
        ),
        (
            "vcpu_vmx.loaded_vmcs",
            offset_of!(vcpu_vmx, loaded_vmcs),
            c.vmx_loaded_vmcs,
        ),
        (
            "vcpu_vmx.vt.exit_reason",
            offset_of!(vcpu_vmx, vt.exit_reason),
            c.vmx_exit_reason,
        ),
    ];
    for (name, rust, c) in pairs {
        // CAST: `u32` fits in `usize`.
        if rust != c as usize {
            pr_err!(
                "{} is {} in Rust and {} in C: use another bindgen\n",
                name,
                rust,
                c
            );
            return Err(ENOEXEC);
        }
    }
    Ok(())
}

/// Returns whether the module has its livepatch relocations.
pub(crate) fn post_linked() -> bool {
    // SAFETY: The helper only reads a pointer of this module.
    unsafe { bindings::vmx_vpid_post_linked() }
}
