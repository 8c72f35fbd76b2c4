// SPDX-License-Identifier: GPL-2.0

//! This module reads the registers and the memory of a vCPU that exited, for
//! [`crate::vmx::operand`] and [`crate::paging::walk`].

use crate::{
    bindings,
    exits::Translations,
    kvm::vcpu::Vcpu,
    paging::{
        level::EntryWidth,
        walk::{
            Answer,
            Exchange,
            Memory, //
        }, //
    },
    vmx::insn::{
        vmread,
        Field, //
    },
    x86::{
        addr::{
            Gpa,
            MaxPhyAddr, //
        },
        control_regs::{
            Cr0,
            Cr3,
            Cr4,
            Efer,
            Rflags, //
        },
        mode::{
            Gpr,
            GuestRegs,
            Mode, //
        },
        segment::{
            Rights,
            Segment,
            SegmentRegister, //
        }, //
    }, //
};
use kernel::{
    error::to_result,
    pr_err_once,
    prelude::*, //
};

/// The number of RSP among the general-purpose registers.
const RSP: u32 = 4;

/// Reads a field, which every CPU has, from the current VMCS; returns 0 if the read fails.
///
/// The vCPU's VMCS is the current one, since the vCPU is loaded: if the task is preempted, KVM
/// loads the vCPU again before the task continues.
#[inline]
pub(super) fn field(field: Field) -> u64 {
    vmread(field).unwrap_or_else(|| missing(field))
}

/// Reports that a field could not be read; returns 0, as KVM does.
#[cold]
fn missing(field: Field) -> u64 {
    pr_err_once!("VMREAD of {:?} failed: the field counts as 0\n", field);
    0
}

/// Reads a field of the vCPU of an exit, by its place in `struct vcpu_vmx`.
///
/// The macro reads that field alone: other tasks write other fields at any time.
macro_rules! get {
    ($exit:expr, $($place:tt)+) => {{
        let vmx = $exit.vmx();
        // SAFETY: By the type invariant of the exit the vCPU is live, and only this task writes the
        // fields that this macro is used for.
        unsafe { (*vmx).$($place)+ }
    }};
}
pub(super) use get;

/// A vCPU that exited for an instruction, while the exit is being handled.
///
/// # Invariants
///
/// - `vcpu` is loaded by this task, which handles an exit of `vcpu` and holds `kvm->srcu`.
/// - `window` has size 0, or is a memslot of the VM that was found since the exit.
pub(super) struct Exit<'a> {
    vcpu: &'a Vcpu,
    window: bindings::vmx_vpid_window,
}

impl<'a> Exit<'a> {
    /// Makes the exit of a vCPU in a handler.
    ///
    /// # Safety
    ///
    /// Called once in a handler of an exit that KVM called for `vcpu`.
    #[inline]
    pub(super) unsafe fn new(vcpu: &'a Vcpu) -> Self {
        // INVARIANT: By the safety requirements this task handles an exit of `vcpu`; KVM calls a
        // handler with the vCPU loaded and `kvm->srcu` held.  `window` has size 0.
        Self {
            vcpu,
            window: bindings::vmx_vpid_window::default(),
        }
    }

    /// Returns the vCPU.
    #[inline]
    pub(super) fn vcpu(&self) -> &Vcpu {
        self.vcpu
    }

    /// Returns the `struct vcpu_vmx` of the vCPU.
    #[inline]
    pub(super) fn vmx(&self) -> *mut bindings::vcpu_vmx {
        self.vcpu.vmx().cast_mut()
    }

    /// Returns the place where C caches the memslot of the last access.
    #[inline]
    pub(super) fn window(&mut self) -> &mut bindings::vmx_vpid_window {
        &mut self.window
    }

    /// Returns the `struct kvm_vcpu` of the vCPU.
    #[inline]
    pub(super) fn raw(&self) -> *mut bindings::kvm_vcpu {
        self.vmx().cast()
    }
}

/// Converts the errno of a read of guest memory.
#[cold]
fn no_answer(ret: c_int) -> Answer {
    match to_result(ret) {
        Err(ENOENT) => Answer::NoMemory,
        _ => Answer::HostFailure,
    }
}

impl Exit<'_> {
    /// Makes KVM read a register from the VMCS, if KVM has not read it since the exit.
    #[inline]
    fn cache(&self, register: bindings::kvm_reg) {
        let [available, ..] = get!(self, vcpu.arch.regs_avail);
        if available >> register & 1 == 0 {
            // SAFETY: By the type invariant the vCPU is loaded; callers pass registers that KVM
            // reads on demand.
            unsafe { bindings::vmx_vpid_call_vmx_cache_reg(self.raw(), register) };
        }
    }

    /// Returns whether the guest's CPU has a feature, by its number in the kernel.
    #[inline]
    pub(super) fn has_feature<const FEATURE: u32>(&self) -> bool {
        const { assert!(FEATURE / 32 < bindings::VMX_VPID_NR_CPU_CAPS) };
        // CAST: The assertion above bounds `FEATURE`.
        get!(self, vcpu.arch.cpu_caps[FEATURE as usize / 32]) >> (FEATURE % 32) & 1 != 0
    }

    /// Returns whether KVM emulates real mode by virtual-8086 mode, because the CPU cannot run a
    /// guest in real mode.
    #[inline]
    pub(super) fn imitates_real_mode(&self) -> bool {
        get!(self, rmode.vm86_active) != 0
    }

    /// Returns CR0.
    #[inline]
    pub(super) fn cr0(&self) -> Cr0 {
        // CAST: `unsigned long` has 64 bits.
        if get!(self, vcpu.arch.cr0_guest_owned_bits) as u64 & bindings::VMX_VPID_CR0_WP != 0 {
            self.cache(bindings::kvm_reg_VCPU_REG_CR0);
        }
        Cr0::from(get!(self, vcpu.arch.cr0) as u64)
    }

    /// Returns EFER.
    #[inline]
    pub(super) fn efer(&self) -> Efer {
        Efer::from(get!(self, vcpu.arch.efer))
    }

    /// Returns RFLAGS, as the guest would see them.
    #[inline]
    pub(super) fn guest_rflags(&self) -> Rflags {
        // SAFETY: By the type invariant the vCPU is loaded.
        let rflags = unsafe { bindings::vmx_vpid_call_vmx_get_rflags(self.raw()) };
        // CAST: `unsigned long` has 64 bits.
        Rflags::from(rflags as u64)
    }

    /// Returns a segment as the guest loaded it, while KVM emulates real mode; the VMCS has another
    /// value.
    ///
    /// No CPU is known to exit in that state: INVPCID raises #GP in virtual-8086 mode first.
    /// Without this function, a CPU that exits nevertheless would make the handler read the operand
    /// at the wrong address.
    #[cold]
    fn imitated_segment(&self, register: SegmentRegister) -> Segment {
        let mut segment = bindings::kvm_segment::default();
        // CAST: The index is 0 to 5.
        let index = register.index() as c_int;
        // SAFETY: By the type invariant the vCPU is loaded; KVM numbers segments as VMX does.
        unsafe { bindings::vmx_vpid_call_vmx_get_segment(self.raw(), &mut segment, index) };
        Segment {
            base: segment.base,
            limit: segment.limit,
            rights: Rights::from(u32::from(segment.type_)),
        }
    }

    /// Returns the width of the guest's physical addresses.
    #[inline]
    pub(super) fn physical_width(&self) -> MaxPhyAddr {
        MaxPhyAddr::new(u32::try_from(get!(self, vcpu.arch.maxphyaddr)).unwrap_or(0))
    }
}

impl GuestRegs for Exit<'_> {
    #[inline]
    fn mode(&self) -> Mode {
        let efer = self.efer();
        if efer.long_mode_active() {
            // CAST: The field has 32 bits.
            let rights =
                Rights::from(field(Field::guest_rights(SegmentRegister::Cs.index())) as u32);
            return Mode::new(Cr0::zeroed(), efer, false, rights.long());
        }
        Mode::new(self.cr0(), efer, self.guest_rflags().virtual_8086(), false)
    }

    #[inline]
    fn gpr(&self, register: Gpr) -> u64 {
        if register.get() == RSP {
            self.cache(RSP);
        }
        // CAST: The index is 0 to 15, as the mask shows the compiler; `unsigned long` has 64 bits.
        get!(self, vcpu.arch.regs[(register.get() & 15) as usize]) as u64
    }

    #[inline]
    fn segment(&self, register: SegmentRegister) -> Segment {
        if self.imitates_real_mode() {
            return self.imitated_segment(register);
        }
        let index = register.index();
        Segment {
            base: field(Field::guest_base(index)),
            // CAST: These fields have 32 bits.
            limit: field(Field::guest_limit(index)) as u32,
            rights: Rights::from(field(Field::guest_rights(index)) as u32),
        }
    }

    #[inline]
    fn segment_base(&self, register: SegmentRegister) -> u64 {
        field(Field::guest_base(register.index()))
    }

    #[inline]
    fn cr3(&self) -> Cr3 {
        // With shadow paging every load of CR3 exits, so KVM's copy is up to date.
        if !self.is_shadowed() {
            self.cache(bindings::kvm_reg_VCPU_REG_CR3);
        }
        // CAST: `unsigned long` has 64 bits.
        Cr3::from(get!(self, vcpu.arch.cr3) as u64)
    }

    #[inline]
    fn cr4(&self) -> Cr4 {
        // The guest cannot change a bit that the handlers use without an exit, so KVM's copy is up
        // to date.
        // CAST: `unsigned long` has 64 bits.
        Cr4::from(get!(self, vcpu.arch.cr4) as u64)
    }
}

impl Memory for Exit<'_> {
    #[inline]
    fn read_entry(&mut self, address: Gpa, width: EntryWidth) -> Option<u64> {
        // SAFETY: By the type invariant an exit of the vCPU is being handled, and the window is
        // empty or was found since the exit.
        let entry = unsafe {
            bindings::vmx_vpid_guest_read_entry(
                self.raw(),
                self.window(),
                address.into_raw(),
                width == EntryWidth::Bytes8,
            )
        };
        entry.present.then_some(entry.value)
    }

    fn exchange_entry(&mut self, address: Gpa, width: EntryWidth, old: u64, new: u64) -> Exchange {
        // SAFETY: By the type invariant an exit of the vCPU is being handled, and the window is
        // empty or was found since the exit.
        let ret = unsafe {
            bindings::vmx_vpid_guest_exchange_entry(
                self.raw(),
                self.window(),
                address.into_raw(),
                width == EntryWidth::Bytes8,
                old,
                new,
            )
        };
        match to_result(ret) {
            Ok(()) => Exchange::Done,
            Err(EAGAIN) => Exchange::Changed,
            Err(EROFS) => Exchange::ReadOnly,
            Err(_) => Exchange::NoMemory,
        }
    }

    #[inline]
    fn read(&mut self, address: Gpa, bytes: &mut [u8]) -> Answer {
        // SAFETY: By the type invariant an exit of the vCPU is being handled, and the window is
        // empty or was found since the exit; `bytes` has room for its own length.
        let ret = unsafe {
            bindings::vmx_vpid_guest_read(
                self.raw(),
                self.window(),
                address.into_raw(),
                bytes.as_mut_ptr().cast(),
                bytes.len(),
            )
        };
        if ret == 0 {
            Answer::Bytes
        } else {
            no_answer(ret)
        }
    }

    fn pdpte(&mut self, index: usize) -> u64 {
        self.cache(bindings::kvm_reg_VCPU_REG_PDPTR);
        get!(self, vcpu.arch.pdptrs[index & 3])
    }

    fn alignment_check(&mut self) -> bool {
        self.guest_rflags().alignment_check()
    }

    fn pkru(&mut self) -> u32 {
        get!(self, vcpu.arch.pkru)
    }
}
