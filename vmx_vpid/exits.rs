// SPDX-License-Identifier: GPL-2.0

//! The exits of a guest: for INVLPG, INVPCID, INVVPID and INVEPT, and for guest-physical addresses
//! that the EPT does not translate.
//!
//! Each has a file, with one handler over the traits below: what a vCPU is asked, and what is done
//! to it.  KVM's vCPU implements them, and so does the one of the tests.
//!
//! Whatever a guest's operands are, an instruction ends in one of four ways: it has its effect, it
//! ends in VM-fail, it raises a fault in the guest, or the guest executes it once more.  Only the
//! host can make a fifth: user space is told when it took away the memory that an operand is in.

pub(crate) mod ept_misconfig;
pub(crate) mod ept_violation;
pub(crate) mod invept;
pub(crate) mod invlpg;
pub(crate) mod invpcid;
pub(crate) mod invvpid;

#[cfg(CONFIG_VMX_VPID_KUNIT_TEST)]
mod mock;
#[cfg(CONFIG_VMX_VPID_KUNIT_TEST)]
mod mock_ept;

use crate::{
    ept::{
        violation::{
            ErrorCode,
            Qualification, //
        },
        Eptp, //
    },
    flush::{
        execute::Invalidation,
        policy::Policy,
        tags::Tags, //
    },
    paging::{
        permission::{
            Access,
            AccessKind, //
        },
        walk::{
            self,
            Memory,
            Stop, //
        },
        Paging, //
    },
    stats::Counter,
    vmx::{
        caps::EptVpidCap,
        insn::VmInsnError,
        operand::InsnInfo, //
    },
    x86::{
        addr::{
            CanonicalGva,
            Gpa,
            LinearWidth,
            MaxPhyAddr, //
        },
        control_regs::Rflags,
        exception::Exception,
        invpcid::Pcid,
        mode::{
            GuestRegs,
            Mode, //
        }, //
    }, //
};

impl From<Exception> for Stop {
    fn from(fault: Exception) -> Self {
        Self::Exception(fault)
    }
}

/// The result of an exit handler, as KVM's handlers return it in an `int`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ExitResult {
    /// Resume the guest: 1.
    Resume,
    /// Exit to user space: 0.  User space debugs the guest, or the guest's memory cannot be read.
    UserSpace,
    /// The return value of a KVM function: above 0 resume the guest, 0 exit to user space, below 0
    /// an errno that KVM_RUN fails with.
    Raw(i32),
}

/// Some of the tables that KVM keeps for a vCPU: the one in use, and those cached for a return to
/// them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Roots(u8);

impl Roots {
    /// None.
    pub(crate) const NONE: Self = Self(0);
    /// All.
    pub(crate) const ALL: Self = Self((1 << Self::COUNT) - 1);
    /// How many there are: the current one, and KVM's `KVM_MMU_NUM_PREV_ROOTS`.
    pub(crate) const COUNT: usize = 4;

    /// Returns those of which a predicate holds; number 0 is the current one.
    #[inline]
    pub(crate) fn matching<T>(
        roots: [Option<T>; Self::COUNT],
        is_meant: impl Fn(T) -> bool,
    ) -> Self {
        roots
            .into_iter()
            .zip([1, 2, 4, 8])
            .filter_map(|(root, bit)| is_meant(root?).then_some(bit))
            .fold(Self::NONE, |roots, bit| Self(roots.0 | bit))
    }

    /// Returns whether the current one is among them.
    #[inline]
    pub(crate) fn has_current(self) -> bool {
        self.0 & 1 != 0
    }

    /// Returns these but the current one.
    #[inline]
    fn without_current(self) -> Self {
        Self(self.0 & !1)
    }

    /// Returns a bit for each, the lowest for the current one; `KVM_MMU_ROOT_*`.
    #[inline]
    pub(crate) const fn into_raw(self) -> u8 {
        self.0
    }
}

/// A vCPU that exited for an instruction.
pub(crate) trait Vcpu: GuestRegs + Memory {
    /// How the guest's addresses are translated.
    fn paging(&self) -> Paging;
    /// The privilege level, 0 to 3; 3 in virtual-8086 mode.
    fn cpl(&self) -> u8;
    /// How the operands are encoded.
    fn instruction_information(&self) -> InsnInfo;
    /// The exit qualification: the address of INVLPG, the displacement of the others.
    fn exit_qualification(&self) -> u64;
    /// How wide a linear address the CPU can invalidate, whatever paging the guest uses.
    fn linear_width(&self) -> LinearWidth;
    /// Counts something.
    fn count(&mut self, what: Counter);
    /// Lets the guest go on behind the instruction.
    fn skip(&mut self) -> ExitResult;
    /// Raises a fault, at the instruction.
    fn raise(&mut self, fault: Exception);
    /// Tells user space that the instruction could not be executed.
    fn give_up(&mut self) -> ExitResult;
}

/// The tables that KVM runs a guest on in place of the guest's own (shadow paging), and the cached
/// translations that were made from them.
///
/// With EPT on there are none; what is said of roots is about shadow paging then, and does nothing.
pub(crate) trait Translations: Vcpu {
    /// Whether the guest's CPU has INVPCID.
    fn has_invpcid(&self) -> bool;
    /// Whether the guest runs on tables of KVM's own.
    fn is_shadowed(&self) -> bool;
    /// The PCID that each root is for, number 0 being the current one.
    fn pcids(&self) -> [Option<Pcid>; Roots::COUNT];
    /// Brings one address up to date in some roots, and flushes it from this CPU.
    fn invalidate(&mut self, address: CanonicalGva, roots: Roots);
    /// Counts an address as flushed in KVM's own statistics.
    fn count_in_kvm(&mut self);
    /// Has the current root brought up to date and flushed before the guest runs.
    fn request_sync(&mut self);
    /// Drops cached roots; when the guest returns to one, `kvm_mmu_load()` synchronises and
    /// flushes it.
    fn free_roots(&mut self, roots: Roots);
    /// Has all that the guest itself may have cached dropped before it runs, tables included.
    fn request_flush(&mut self);
}

/// A vCPU that may run a hypervisor (L1) and its guests (L2).
pub(crate) trait Nested: Vcpu {
    /// How the vCPU's translations are tagged.
    fn tags(&self) -> &impl Tags;
    /// Whether L1 is in VMX operation.
    fn is_in_vmx_operation(&self) -> bool;
    /// Whether L1's CPU has VPIDs.
    fn l1_has_vpid(&self) -> bool;
    /// Whether L1's CPU has EPT.
    fn l1_has_ept(&self) -> bool;
    /// What L1's CPU can invalidate.
    fn l1_caps(&self) -> EptVpidCap;
    /// How wide L1's physical addresses are.
    fn max_phy_addr(&self) -> MaxPhyAddr;
    /// RFLAGS.
    fn rflags(&self) -> Rflags;
    /// Writes RFLAGS.
    fn set_rflags(&mut self, rflags: Rflags);
    /// Writes the VM-instruction error into L1's current VMCS; returns false if there is none.
    fn set_vm_instruction_error(&mut self, error: VmInsnError) -> bool;
    /// What an invalidation on this CPU may be answered by.
    fn policy(&self) -> Policy;
    /// Invalidates on this CPU.
    fn issue(&mut self, what: Invalidation);
    /// Runs a function during which the task stays on this CPU.
    fn with_preemption_disabled(&mut self, function: impl FnOnce(&mut Self));
    /// Whether L2 last ran on this CPU.
    fn vmcs02_is_here(&self) -> bool;
    /// Forgets which VPID of L1's numbering L2 ran with: the next entry of L2 finds that it
    /// changed, and flushes.
    fn forget_vpid12(&mut self);
    /// Drops the shadow tables of L2, in whatever VPID of L1's numbering they were made.
    fn free_l2_roots(&mut self);
    /// The EPT pointer of L1's that each root of L2 is for, number 0 being the current one.
    fn ept12_roots(&self) -> [Option<Eptp>; Roots::COUNT];
    /// Drops roots of L2.
    fn free_ept12_roots(&mut self, roots: Roots);
}

/// A vCPU that exited for a guest-physical address, and what KVM keeps to translate those.
///
/// There are many such exits, and little is done for each: it is passed on in a register.
pub(crate) trait GuestPhysical: Copy {
    /// The exit qualification; of a violation, that is.
    fn qualification(self) -> Qualification;
    /// The guest-physical address.
    fn address(self) -> Gpa;
    /// Whether an event was being delivered to the guest.
    fn is_delivering_event(self) -> bool;
    /// Whether the guest was in an enclave.
    fn is_in_enclave(self) -> bool;
    /// Whether L2 runs, so that the address is one of L2's.
    fn runs_l2(self) -> bool;
    /// Whether the tables in use tell fetches of user mode from those of the supervisor.
    fn tells_user_fetches(self) -> bool;
    /// Whether the guest's CPU has fewer address bits than this address needs.
    fn is_beyond_guest(self, address: Gpa) -> bool;
    /// Whether KVM lets a guest's CPU have fewer address bits than the CPU has.
    fn allows_narrow_guests(self) -> bool;
    /// Counts something.
    fn count(self, what: Counter);
    /// Has NMIs blocked in the guest, if the CPU leaves that to the hypervisor.
    fn block_nmis(self);
    /// Traces a violation, as KVM does.
    fn trace_violation(self, address: Gpa, qualification: Qualification);
    /// Traces a write that a device was told of, as KVM does.
    fn trace_told(self, address: Gpa);
    /// Tells a device that it was written to, if there is one that asks for no more.
    fn tell_device(self, address: Gpa) -> bool;
    /// Lets the guest go on behind the instruction.
    fn skip(self) -> ExitResult;
    /// Has KVM's MMU make the access possible, or carry it out.
    fn resolve(self, address: Gpa, code: ErrorCode) -> ExitResult;
    /// Has KVM emulate the instruction.
    fn emulate(self) -> ExitResult;
    /// Ends an instruction that may not be emulated where it is.
    fn refuse_emulation(self);
}

/// Checks that the guest runs at CPL 0.
///
/// A CPU raises the fault itself, before it exits; the emulated one of the testbed does not for
/// INVPCID.
///
/// # Errors
///
/// #GP(0).
#[inline]
fn check_cpl(vcpu: &impl Vcpu) -> Result<(), Exception> {
    if vcpu.cpl() == 0 {
        Ok(())
    } else {
        Err(Exception::GeneralProtection)
    }
}

/// Checks that a VMX instruction may be executed; answers to `nested_vmx_check_permission()`.
///
/// # Errors
///
/// #UD outside VMX operation, protected mode or 64-bit mode; then #GP(0) by privilege.
fn check_vmx_permission(vcpu: &impl Nested, mode: Mode) -> Result<(), Exception> {
    match mode {
        Mode::Protected | Mode::Bits64 if vcpu.is_in_vmx_operation() => check_cpl(vcpu),
        _ => Err(Exception::InvalidOpcode),
    }
}

/// Reads the operand in memory: two quadwords.
///
/// The CPU reads it even for a type that does not need it, so that it can fault.
#[inline]
fn read_operand(vcpu: &mut impl Vcpu, mode: Mode, info: InsnInfo) -> Result<[u64; 2], Stop> {
    const LEN: u32 = 16;
    let place = info.locate(mode, vcpu.exit_qualification(), LEN, vcpu)?;
    let paging = vcpu.paging();
    // The privilege was checked: this is an access of the supervisor.
    let access = Access {
        kind: AccessKind::Read,
        user: false,
    };
    let bytes: [u8; LEN as usize] =
        walk::read(&paging, vcpu, place.address, access, place.is_64_bit)?;
    let both = u128::from_le_bytes(bytes);
    // CAST: The two halves.
    Ok([both as u64, (both >> u64::BITS) as u64])
}

/// How a VMX instruction ended that raised no fault.
type VmxResult = Result<(), VmInsnError>;

/// Executes INVEPT or INVVPID, in the order of the CPU's checks.
///
/// `exists` tells whether L1's CPU has the instruction.  The type is checked, by `kind`, before the
/// operand in memory is read; `execute` checks the operand and does the rest.
fn execute_vmx<V: Nested, K>(
    vcpu: &mut V,
    exists: bool,
    kind: fn(u64, EptVpidCap) -> Result<K, VmInsnError>,
    execute: impl FnOnce(&mut V, K, [u64; 2]) -> VmxResult,
) -> Result<VmxResult, Stop> {
    if !exists {
        return Err(Exception::InvalidOpcode.into());
    }
    let mode = vcpu.mode();
    check_vmx_permission(vcpu, mode)?;
    let info = vcpu.instruction_information();
    let kind = match kind(info.register_operand(mode, vcpu), vcpu.l1_caps()) {
        Ok(kind) => kind,
        Err(error) => return Ok(Err(error)),
    };
    let operand = read_operand(vcpu, mode, info)?;
    Ok(execute(vcpu, kind, operand))
}

/// Ends an instruction.
#[inline]
fn end(vcpu: &mut impl Vcpu, result: Result<(), Stop>) -> ExitResult {
    match result {
        Ok(()) => vcpu.skip(),
        Err(stop) => interrupt(vcpu, stop),
    }
}

/// Ends an instruction that had no effect.
#[cold]
fn interrupt(vcpu: &mut impl Vcpu, stop: Stop) -> ExitResult {
    let fault = match stop {
        Stop::Exception(fault) => fault,
        Stop::Retry => {
            vcpu.count(Counter::ExitRetry);
            return ExitResult::Resume;
        }
        Stop::HostFailure => {
            vcpu.count(Counter::ExitHostFailure);
            return vcpu.give_up();
        }
    };
    vcpu.count(match fault {
        Exception::InvalidOpcode => Counter::FaultInvalidOpcode,
        Exception::GeneralProtection => Counter::FaultGeneralProtection,
        Exception::Stack => Counter::FaultStack,
        Exception::Page { .. } => Counter::FaultPage,
    });
    vcpu.raise(fault);
    ExitResult::Resume
}

/// Ends a VMX instruction: the flags tell success from the two forms of VM-fail.
///
/// Source: the manual's chapter on VMX instructions, "Conventions"; answers to
/// `nested_vmx_succeed()` and `nested_vmx_fail()`.
fn end_vmx(vcpu: &mut impl Nested, result: Result<VmxResult, Stop>) -> ExitResult {
    let vmx_result = match result {
        Ok(vmx_result) => vmx_result,
        Err(stop) => return interrupt(vcpu, stop),
    };
    let flags = vcpu.rflags().without_arithmetic();
    let flags = match vmx_result {
        Ok(()) => flags,
        Err(error) => {
            vcpu.count(Counter::GuestVmFail);
            // Without a current VMCS there is no place for the number: VMfailInvalid.
            if vcpu.set_vm_instruction_error(error) {
                flags.with_zero(true)
            } else {
                flags.with_carry(true)
            }
        }
    };
    vcpu.set_rflags(flags);
    vcpu.skip()
}
