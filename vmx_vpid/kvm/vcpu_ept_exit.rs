// SPDX-License-Identifier: GPL-2.0

//! This module implements the traits of [`crate::exits`] for a vCPU of KVM that exited for a
//! guest-physical address.

use crate::{
    bindings,
    ept::violation::{
        ErrorCode,
        Qualification, //
    },
    exits::{
        ExitResult, //
        GuestPhysical,
    },
    kvm::{
        percpu,
        symbols,
        vcpu::Vcpu,
        vcpu_regs::{
            field,
            get, //
        }, //
    },
    stats::Counter,
    vmx::insn::{
        vmwrite,
        Field, //
    },
    x86::addr::Gpa, //
};
use core::ptr;
use kernel::pr_err_once;

/// Bit 3 of the guest's interruptibility: NMIs are blocked.
const BLOCKED_BY_NMI: u64 = 1 << 3;

/// Returns whether a tracepoint of KVM is enabled.
///
/// # Safety
///
/// `tracepoint` is the import of a tracepoint, and filled in.
#[inline(always)]
unsafe fn is_on(tracepoint: *mut kernel::ffi::c_void) -> bool {
    let tracepoint: *const bindings::tracepoint = tracepoint.cast();
    // SAFETY: By the safety requirements the pointer leads to a tracepoint.  The tracepoint's key
    // is an aligned `int`, which other CPUs may write at any time; one load reads all of it.
    unsafe { ptr::read_volatile(&raw const (*tracepoint).key.key.enabled.counter) != 0 }
}

/// A vCPU that exited for a guest-physical address, while the exit is being handled.
///
/// # Invariants
///
/// The vCPU is loaded by this task, which handles an exit of the vCPU and holds `kvm->srcu`.
#[derive(Clone, Copy)]
pub(super) struct EptExit<'a>(&'a Vcpu);

impl<'a> EptExit<'a> {
    /// Makes the exit of a vCPU in a handler.
    ///
    /// # Safety
    ///
    /// Called in a handler of an exit that KVM called for `vcpu`.
    #[inline]
    pub(super) unsafe fn new(vcpu: &'a Vcpu) -> Self {
        // INVARIANT: By the safety requirements this task handles an exit of `vcpu`; KVM calls a
        // handler with the vCPU loaded and `kvm->srcu` held.
        Self(vcpu)
    }

    /// Returns the `struct vcpu_vmx` of the vCPU.
    #[inline]
    fn vmx(self) -> *mut bindings::vcpu_vmx {
        self.0.vmx().cast_mut()
    }

    /// Returns the `struct kvm_vcpu` of the vCPU.
    #[inline]
    fn raw(self) -> *mut bindings::kvm_vcpu {
        self.vmx().cast()
    }
}

impl GuestPhysical for EptExit<'_> {
    #[inline]
    fn qualification(self) -> Qualification {
        Qualification::from(field(Field::EXIT_QUALIFICATION))
    }

    #[inline]
    fn address(self) -> Gpa {
        Gpa::new(field(Field::GUEST_PHYSICAL_ADDRESS))
    }

    #[inline]
    fn is_delivering_event(self) -> bool {
        get!(self, idt_vectoring_info) & bindings::VMX_VPID_VECTORING_VALID != 0
    }

    #[inline]
    fn is_in_enclave(self) -> bool {
        get!(self, vt.exit_reason.full) & bindings::VMX_VPID_ENCLAVE_MODE != 0
    }

    #[inline]
    fn runs_l2(self) -> bool {
        get!(self, vcpu.arch.hflags) & bindings::HF_GUEST_MASK != 0
    }

    #[inline]
    fn tells_user_fetches(self) -> bool {
        // The test is that of KVM's `mmu_has_mbec()`, because the result is for KVM's fault
        // handler.
        let mmu = get!(self, vcpu.arch.mmu);
        // SAFETY: By the type invariant the vCPU is live.  `mmu` points to one of its own
        // `struct kvm_mmu`, which only this task writes; every member of the role's union is valid
        // for any bits.
        unsafe { (*mmu).root_role.__bindgen_anon_1.cr4_smep() != 0 }
    }

    #[inline]
    fn is_beyond_guest(self, address: Gpa) -> bool {
        address.into_raw() & get!(self, vcpu.arch.reserved_gpa_bits) != 0
    }

    fn allows_narrow_guests(self) -> bool {
        // SAFETY: By the type invariant a handler of an exit runs, so kvm_intel is initialised and
        // its symbols are resolved.
        unsafe { symbols::allow_smaller_maxphyaddr() }
    }

    #[inline]
    fn count(self, what: Counter) {
        percpu::increment_by_value(what);
    }

    fn block_nmis(self) {
        // SAFETY: By the type invariant a handler of an exit runs, so kvm_intel is initialised and
        // its symbols are resolved.
        if !unsafe { symbols::enable_vnmi() } {
            return;
        }
        let blocked = field(Field::GUEST_INTERRUPTIBILITY) | BLOCKED_BY_NMI;
        // SAFETY: NMIs were blocked before the guest executed the IRET, so the guest may be entered
        // with this value.  KVM's `handle_ept_violation()` writes the same value.
        if !unsafe { vmwrite(Field::GUEST_INTERRUPTIBILITY, blocked) } {
            pr_err_once!("VMWRITE of the guest's interruptibility failed\n");
        }
    }

    #[inline]
    fn trace_violation(self, address: Gpa, qualification: Qualification) {
        // SAFETY: By the type invariant a handler of an exit runs, so the import is filled in; it
        // is the import of a tracepoint.
        if unsafe { is_on(bindings::vmx_vpid_import___tracepoint_kvm_page_fault) } {
            let (address, qualification) = (address.into_raw(), qualification.into_raw());
            // SAFETY: By the type invariant the vCPU is loaded, and its exit is being handled.
            unsafe { bindings::vmx_vpid_emit_kvm_page_fault(self.raw(), address, qualification) };
        }
    }

    #[inline]
    fn trace_told(self, address: Gpa) {
        // SAFETY: By the type invariant a handler of an exit runs, so the import is filled in; it
        // is the import of a tracepoint.
        if unsafe { is_on(bindings::vmx_vpid_import___tracepoint_kvm_fast_mmio) } {
            // SAFETY: A tracepoint may be emitted in any context.
            unsafe { bindings::vmx_vpid_emit_kvm_fast_mmio(address.into_raw()) };
        }
    }

    #[inline]
    fn tell_device(self, address: Gpa) -> bool {
        // SAFETY: By the type invariant the vCPU is loaded, and its exit is being handled with
        // `kvm->srcu` held.  The length is 0, so `val` is not read.
        let ret = unsafe {
            bindings::vmx_vpid_call_kvm_io_bus_write(
                self.raw(),
                bindings::kvm_bus_KVM_FAST_MMIO_BUS,
                address.into_raw(),
                0,
                ptr::null(),
            )
        };
        ret == 0
    }

    #[inline]
    fn skip(self) -> ExitResult {
        // SAFETY: By the type invariant the vCPU is loaded, and its exit is being handled; the skip
        // is the last step of the handler.
        ExitResult::Raw(unsafe {
            bindings::vmx_vpid_call_kvm_skip_emulated_instruction(self.raw())
        })
    }

    #[inline]
    fn resolve(self, address: Gpa, code: ErrorCode) -> ExitResult {
        // SAFETY: By the type invariant the vCPU is loaded, and its exit is being handled.  No lock
        // is held.  Without bytes of the instruction, KVM reads the instruction itself.
        ExitResult::Raw(unsafe {
            bindings::vmx_vpid_call_kvm_mmu_page_fault(
                self.raw(),
                address.into_raw(),
                code.into_raw(),
                ptr::null_mut(),
                0,
            )
        })
    }

    fn emulate(self) -> ExitResult {
        // SAFETY: By the type invariant the vCPU is loaded, and its exit is being handled.  No lock
        // is held.
        ExitResult::Raw(unsafe { bindings::vmx_vpid_call_kvm_emulate_instruction(self.raw(), 0) })
    }

    fn refuse_emulation(self) {
        // The caller has found that KVM refuses, so the result is not used.  In an enclave the call
        // raises #UD.
        // SAFETY: By the type invariant the vCPU is loaded, and its exit is being handled.
        unsafe {
            bindings::vmx_vpid_call_vmx_check_emulate_instruction(
                self.raw(),
                bindings::VMX_VPID_EMULTYPE_PF,
                ptr::null_mut(),
                0,
            )
        };
    }
}
