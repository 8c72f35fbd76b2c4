// SPDX-License-Identifier: GPL-2.0

//! This module implements the traits of [`crate::exits`] for a vCPU of KVM that exited for an
//! instruction.

use crate::{
    bindings,
    exits::{
        self,
        ExitResult,
        Roots,
        Translations, //
    },
    kvm::{
        compat,
        cpu,
        percpu,
        symbols,
        vcpu_regs::{
            field,
            get,
            Exit, //
        }, //
    },
    paging::{
        Features,
        Paging, //
    },
    stats::Counter,
    vmx::{
        insn::Field,
        operand::InsnInfo, //
    },
    x86::{
        addr::{
            CanonicalGva,
            LinearWidth, //
        },
        control_regs::Cr3,
        exception::Exception,
        invpcid::Pcid,
        mode::GuestRegs,
        segment::{
            Rights,
            SegmentRegister, //
        }, //
    }, //
};

kernel::static_assert!(Roots::COUNT == bindings::VMX_VPID_NUM_PREV_ROOTS as usize + 1);
kernel::static_assert!(Roots::ALL.into_raw() as u32 == bindings::VMX_VPID_ROOTS_ALL);

impl exits::Vcpu for Exit<'_> {
    #[inline]
    fn paging(&self) -> Paging {
        let features = Features {
            max_phy_addr: self.physical_width(),
            gigabyte_pages: self.has_feature::<{ bindings::VMX_VPID_FEATURE_GBPAGES }>(),
            // With EPT on, the CPU walks the guest's tables, and every CPU that has EPT has PSE-36.
            pse36: self.has_feature::<{ bindings::VMX_VPID_FEATURE_PSE36 }>()
                || !self.is_shadowed(),
        };
        Paging::new(self.cr0(), self.cr3(), self.cr4(), self.efer(), features)
    }

    #[inline]
    fn cpl(&self) -> u8 {
        if self.imitates_real_mode() {
            return 0;
        }
        // CAST: The field has 32 bits.
        let rights = field(Field::guest_rights(SegmentRegister::Ss.index())) as u32;
        // CAST: A privilege level has 2 bits.
        Rights::from(rights).dpl().get() as u8
    }

    #[inline]
    fn instruction_information(&self) -> InsnInfo {
        // CAST: The field has 32 bits.
        InsnInfo::from(field(Field::INSTRUCTION_INFORMATION) as u32)
    }

    #[inline]
    fn exit_qualification(&self) -> u64 {
        field(Field::EXIT_QUALIFICATION)
    }

    #[inline]
    fn linear_width(&self) -> LinearWidth {
        cpu::linear_width()
    }

    #[inline]
    fn count(&mut self, what: Counter) {
        percpu::increment_by_value(what);
    }

    #[inline]
    fn skip(&mut self) -> ExitResult {
        // SAFETY: By the type invariant the vCPU is loaded, and its exit is being handled; the skip
        // is the last step of the handler.
        ExitResult::Raw(unsafe {
            bindings::vmx_vpid_call_kvm_skip_emulated_instruction(self.raw())
        })
    }

    fn raise(&mut self, fault: Exception) {
        let vector = match fault {
            Exception::InvalidOpcode => bindings::VMX_VPID_UD_VECTOR,
            Exception::GeneralProtection => bindings::VMX_VPID_GP_VECTOR,
            Exception::Stack => bindings::VMX_VPID_SS_VECTOR,
            Exception::Page { address, code } => {
                // SAFETY: By the type invariant the vCPU is loaded, and its exit is being handled.
                return unsafe {
                    bindings::vmx_vpid_raise_page_fault(
                        self.raw(),
                        // CAST: `gva_t` has 64 bits.
                        address.into_raw() as bindings::gva_t,
                        code.into_raw(),
                    )
                };
            }
        };
        // SAFETY: By the type invariant the vCPU is loaded, and its exit is being handled.
        unsafe { bindings::vmx_vpid_raise(self.raw(), vector) };
    }

    #[cold]
    fn give_up(&mut self) -> ExitResult {
        // SAFETY: By the type invariant the vCPU is loaded, and its exit is being handled; the
        // handler exits to user space next.
        unsafe { bindings::vmx_vpid_call_kvm_prepare_emulation_failure_exit(self.raw()) };
        ExitResult::UserSpace
    }
}

impl Translations for Exit<'_> {
    #[inline]
    fn has_invpcid(&self) -> bool {
        self.has_feature::<{ bindings::VMX_VPID_FEATURE_INVPCID }>()
    }

    #[inline]
    fn is_shadowed(&self) -> bool {
        // SAFETY: By the type invariant a handler of an exit runs, so kvm_intel is initialised and
        // its symbols are resolved.
        !unsafe { symbols::enable_ept() }
    }

    #[inline]
    fn pcids(&self) -> [Option<Pcid>; Roots::COUNT] {
        let cr4 = self.cr4();
        let mmu = get!(self, vcpu.arch.mmu);
        // SAFETY: By the type invariant the vCPU is live.  `mmu` points to one of its own
        // `struct kvm_mmu`, which only this task writes.
        let [one, two, three] = unsafe { (*mmu).prev_roots };
        let pcid = |root: bindings::kvm_mmu_root_info| {
            let valid = root.hpa != bindings::INVALID_PAGE;
            valid.then(|| Pcid::of(Cr3::from(root.pgd), cr4))
        };
        [
            Some(Pcid::of(self.cr3(), cr4)),
            pcid(one),
            pcid(two),
            pcid(three),
        ]
    }

    #[inline]
    fn invalidate(&mut self, address: CanonicalGva, roots: Roots) {
        let vcpu = self.raw();
        // SAFETY: By the type invariant the vCPU is loaded, and its exit is being handled.  No lock
        // is held.
        unsafe {
            bindings::vmx_vpid_call_kvm_mmu_invalidate_addr(
                vcpu,
                compat::gva_walk(vcpu),
                address.into_raw(),
                roots.into_raw().into(),
            );
        }
    }

    #[inline]
    fn count_in_kvm(&mut self) {
        let vcpu = self.raw();
        // SAFETY: By the type invariant the vCPU is live, and this task alone writes the field.
        unsafe { (*vcpu).stat.invlpg = (*vcpu).stat.invlpg.wrapping_add(1) };
    }

    fn request_sync(&mut self) {
        // SAFETY: By the type invariant the vCPU is loaded.
        unsafe { bindings::vmx_vpid_request_sync(self.raw()) };
    }

    fn free_roots(&mut self, roots: Roots) {
        let vcpu = self.raw();
        let roots = roots.into_raw().into();
        // SAFETY: By the type invariant the vCPU is loaded, and its exit is being handled.  No lock
        // is held.
        unsafe { bindings::vmx_vpid_call_kvm_mmu_free_roots((*vcpu).kvm, (*vcpu).arch.mmu, roots) };
    }

    #[inline]
    fn request_flush(&mut self) {
        // SAFETY: By the type invariant the vCPU is loaded.
        unsafe { bindings::vmx_vpid_request_flush_guest(self.raw()) };
    }
}
