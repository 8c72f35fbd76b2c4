// SPDX-License-Identifier: GPL-2.0

//! This module issues VMX instructions, and catches both ways in which they fail.
//!
//! INVVPID and INVEPT have the same form: a 128-bit operand in memory, a type in a register.  Both
//! can fail in two ways, and `invalidate!` catches both: VM-fail by the flags (the manual's chapter
//! on VMX instructions, "Conventions"), and an exception by the exception table.

use core::mem::MaybeUninit;

/// The reason why a VMX instruction failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InsnError {
    /// VM-fail: the CPU refused the operand or the type (`CF` or `ZF` is set).
    VmFail,
    /// The instruction raised an exception: the CPU is not in VMX operation, or does not have it.
    Exception,
}

/// A VM-instruction error: the reason why a VMX instruction ended in VM-fail.
///
/// The numbers are those of the manual's chapter on VMX instructions, "VM Instruction Error
/// Numbers", and `VMXERR_*` in KVM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum VmInsnError {
    /// 28: the operand or the type of INVEPT or INVVPID is invalid.
    InvalidOperand = 28,
}

impl VmInsnError {
    /// Returns the number.
    #[inline]
    pub(crate) const fn into_raw(self) -> u32 {
        // CAST: `repr(u32)` makes the discriminant a u32.
        self as u32
    }
}

/// Issues an instruction of the form `insn memory-operand, type`.
///
/// Expands to an expression of type `Result<(), InsnError>`.  The `asm!` block tests the flags
/// itself, since nothing preserves them after the block.  The block has no `nomem`: the implied
/// memory clobber keeps the instruction after the page-table writes that the flush is for.
///
/// `$desc` is a reference to the operand, and `$kind` is the type.  `$template` is the file that
/// the build makes from the `.rs.S` file of the instruction.
macro_rules! invalidate {
    ($template:expr, $desc:expr, $kind:expr) => {{
        let desc: &Descriptor = $desc;
        'out: {
            // SAFETY: `desc` is a live operand of 16 bytes.  In VMX root operation at CPL 0 the
            // instruction only drops cached translations, which is always legal; elsewhere the
            // instruction raises an exception.  VM-fail and an exception leave through the labels
            // below.
            unsafe {
                kernel::asm!(
                    include!($template);
                    desc = in(reg) desc,
                    kind = in(reg) $kind,
                    fail = label { break 'out Err(InsnError::VmFail) },
                    fault = label { break 'out Err(InsnError::Exception) },
                );
            }
            Ok(())
        }
    }};
}
pub(crate) use invalidate;

/// A field of a VMCS, by its encoding.
///
/// Source: the manual's appendix on field encoding in VMCS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Field(u32);

impl Field {
    /// The VPID that tags the guest's translations, 16 bits.
    pub(crate) const VIRTUAL_PROCESSOR_ID: Self = Self(0x0000);
    /// The primary processor-based VM-execution controls.
    pub(crate) const PRIMARY_CONTROLS: Self = Self(0x4002);
    /// The secondary processor-based VM-execution controls.
    pub(crate) const SECONDARY_CONTROLS: Self = Self(0x401e);
    /// The number of the error of the last VM-fail.
    pub(crate) const VM_INSTRUCTION_ERROR: Self = Self(0x4400);
    /// The encoding of the operands of the instruction that exited.
    pub(crate) const INSTRUCTION_INFORMATION: Self = Self(0x440e);
    /// Further information about an exit; for an operand in memory, its displacement.
    pub(crate) const EXIT_QUALIFICATION: Self = Self(0x6400);
    /// The guest-physical address of an EPT violation or misconfiguration.
    pub(crate) const GUEST_PHYSICAL_ADDRESS: Self = Self(0x2400);
    /// The guest's interruptibility state; bit 3 is "blocking by NMI".
    pub(crate) const GUEST_INTERRUPTIBILITY: Self = Self(0x4824);

    /// The limit of the guest's segment number `index`, from ES, CS, SS, DS, FS, GS.
    #[inline]
    pub(crate) const fn guest_limit(index: u32) -> Self {
        Self(0x4800 + 2 * (index & 7))
    }

    /// The access rights of the guest's segment number `index`.
    #[inline]
    pub(crate) const fn guest_rights(index: u32) -> Self {
        Self(0x4814 + 2 * (index & 7))
    }

    /// The base of the guest's segment number `index`.
    #[inline]
    pub(crate) const fn guest_base(index: u32) -> Self {
        Self(0x6806 + 2 * (index & 7))
    }
}

/// Reads a field of the current VMCS.
///
/// Returns `None` if there is no current VMCS, or the CPU does not have the field.
#[inline]
pub(crate) fn vmread(field: Field) -> Option<u64> {
    let mut value = MaybeUninit::<u64>::uninit();
    'out: {
        // SAFETY: `value` is a live 8-byte destination, and VMREAD writes nothing else.  VM-fail
        // and an exception leave through the label below.
        unsafe {
            kernel::asm!(
                include!(concat!(env!("VMX_VPID_OBJ"), "/vmx_vpid/vmx/vmread_asm.rs"));
                field = in(reg) u64::from(field.0),
                value = in(reg) value.as_mut_ptr(),
                fail = label { break 'out None },
            );
        }
        // SAFETY: The instruction did not fail, so it wrote all of `value`.
        Some(unsafe { value.assume_init() })
    }
}

/// Writes a field of the current VMCS; returns whether the write succeeded.
///
/// The write fails if there is no current VMCS, or the CPU does not have the field.
///
/// # Safety
///
/// The owner of the VMCS has to expect the value in the field, and the guest has to be allowed to
/// run with the value.
pub(crate) unsafe fn vmwrite(field: Field, value: u64) -> bool {
    'out: {
        // SAFETY: By the safety requirements the owner of the VMCS expects the value, and the guest
        // may run with it.  VMWRITE changes nothing but the field.  VM-fail and an exception leave
        // through the label below.
        unsafe {
            kernel::asm!(
                include!(concat!(env!("VMX_VPID_OBJ"), "/vmx_vpid/vmx/vmwrite_asm.rs"));
                field = in(reg) u64::from(field.0),
                value = in(reg) value,
                fail = label { break 'out false },
            );
        }
        true
    }
}

/// Returns the number of the error that the last VM-fail on this CPU left in the current VMCS.
///
/// Returns `None` if there is no current VMCS: VM-fail leaves no number then.  The number is right
/// only directly after the failure, and is good for a message only: a preempted task may read
/// another VMCS.
#[cold]
pub(crate) fn vm_instruction_error() -> Option<u64> {
    vmread(Field::VM_INSTRUCTION_ERROR)
}
