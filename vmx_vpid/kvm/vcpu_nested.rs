// SPDX-License-Identifier: GPL-2.0

//! This module implements the traits of [`crate::exits`] for a vCPU of KVM that runs a hypervisor.

use crate::{
    bindings,
    ept::Eptp,
    exits::{
        Nested,
        Roots, //
    },
    flush::{
        execute::Invalidation,
        policy::Policy,
        tags::Tags, //
    },
    kvm::{
        cpu::{
            self,
            Cpu, //
        },
        switches,
        trace::Reason,
        vcpu_regs::{
            get,
            Exit, //
        }, //
    },
    vmx::{
        caps::EptVpidCap,
        insn::VmInsnError, //
    },
    x86::{
        addr::MaxPhyAddr,
        control_regs::Rflags, //
    }, //
};
use core::ptr;

impl Nested for Exit<'_> {
    fn tags(&self) -> &impl Tags {
        self.vcpu()
    }

    fn is_in_vmx_operation(&self) -> bool {
        get!(self, nested.vmxon)
    }

    fn l1_has_vpid(&self) -> bool {
        get!(self, nested.msrs.secondary_ctls_high) & bindings::VMX_VPID_ENABLE_VPID != 0
    }

    fn l1_has_ept(&self) -> bool {
        get!(self, nested.msrs.secondary_ctls_high) & bindings::VMX_VPID_ENABLE_EPT != 0
    }

    fn l1_caps(&self) -> EptVpidCap {
        let vpid = get!(self, nested.msrs.vpid_caps);
        let ept = get!(self, nested.msrs.ept_caps);
        EptVpidCap::from(u64::from(vpid) << 32 | u64::from(ept))
    }

    fn max_phy_addr(&self) -> MaxPhyAddr {
        self.physical_width()
    }

    fn rflags(&self) -> Rflags {
        self.guest_rflags()
    }

    fn set_rflags(&mut self, rflags: Rflags) {
        // CAST: `unsigned long` has 64 bits.
        let rflags = rflags.into_raw() as usize;
        // SAFETY: By the type invariant the vCPU is loaded, and its exit is being handled.
        unsafe { bindings::vmx_vpid_call_vmx_set_rflags(self.raw(), rflags) };
    }

    fn set_vm_instruction_error(&mut self, error: VmInsnError) -> bool {
        // SAFETY: By the type invariant the vCPU is loaded, and its exit is being handled.  The
        // handler has found that L1 is in VMX operation.
        unsafe { bindings::vmx_vpid_fail_valid(self.raw(), error.into_raw()) }
    }

    fn policy(&self) -> Policy {
        switches::policy()
    }

    fn issue(&mut self, what: Invalidation) {
        // A lost flush is reported and counted already; L1's instruction reports no error for it.
        // SAFETY: By the type invariant an operation handles an exit, and does not end before the
        // value is dropped.
        let _ = what.execute(unsafe { Cpu::new(Reason::L1) });
    }

    fn with_preemption_disabled(&mut self, function: impl FnOnce(&mut Self)) {
        cpu::with_preemption_disabled(|| function(self));
    }

    fn vmcs02_is_here(&self) -> bool {
        // SAFETY: By the type invariant the vCPU is live.  The field is an aligned `int`, which
        // another CPU that goes offline may set to -1 at any time; one load reads all of it.
        let cpu = unsafe { ptr::read_volatile(&raw const (*self.vmx()).nested.vmcs02.cpu) };
        u32::try_from(cpu) == Ok(cpu::current())
    }

    fn forget_vpid12(&mut self) {
        // SAFETY: By the type invariant the vCPU is live, and this task alone writes its fields.
        unsafe { (*self.vmx()).nested.last_vpid = 0 };
    }

    fn free_l2_roots(&mut self) {
        let vcpu = self.raw();
        // With EPT off, `root_mmu` has the roots of L1 and of L2.
        // SAFETY: By the type invariant the vCPU is loaded, and its exit is being handled.  The
        // vCPU runs L1, and no lock is held.
        unsafe {
            bindings::vmx_vpid_call_kvm_mmu_free_guest_mode_roots(
                (*vcpu).kvm,
                &raw mut (*vcpu).arch.root_mmu,
            )
        };
    }

    fn ept12_roots(&self) -> [Option<Eptp>; Roots::COUNT] {
        let [one, two, three] = get!(self, vcpu.arch.guest_mmu.prev_roots);
        [get!(self, vcpu.arch.guest_mmu.root), one, two, three].map(|root| {
            let valid = root.hpa != bindings::INVALID_PAGE;
            valid.then(|| Eptp::from(root.pgd))
        })
    }

    fn free_ept12_roots(&mut self, roots: Roots) {
        let vcpu = self.raw();
        // L2 runs on the roots of `guest_mmu` if L1 gave L2 an EPT.
        // SAFETY: By the type invariant the vCPU is loaded, and its exit is being handled.  No lock
        // is held.
        unsafe {
            bindings::vmx_vpid_call_kvm_mmu_free_roots(
                (*vcpu).kvm,
                &raw mut (*vcpu).arch.guest_mmu,
                roots.into_raw().into(),
            )
        };
    }
}
