// SPDX-License-Identifier: GPL-2.0

//! This module handles exits of a guest: for INVLPG, INVPCID, INVVPID and INVEPT, and for
//! guest-physical addresses that the EPT does not translate.
//!
//! Each kind of exit has a file with one handler.  A handler works on the traits below, which state
//! what a handler asks of a vCPU and does to it.  KVM's vCPU implements them, and so does the mock
//! of the unit tests.
//!
//! Whatever the operands are, an instruction ends in one of four ways: it has its effect, it ends
//! in VM-fail, it raises an exception in the guest, or the guest executes it again.  In a fifth
//! case user space gets an error: the host took away the memory of the operand.

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

/// A set of the roots that KVM keeps for a vCPU: the current root, and cached roots to which the
/// vCPU may return.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Roots(u8);

impl Roots {
    /// No root.
    pub(crate) const NONE: Self = Self(0);
    /// Every root.
    pub(crate) const ALL: Self = Self((1 << Self::COUNT) - 1);
    /// The number of roots: the current one, and KVM's `KVM_MMU_NUM_PREV_ROOTS`.
    pub(crate) const COUNT: usize = 4;

    /// Returns the roots that match a predicate; number 0 is the current one.
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

    /// Returns whether the current root is in the set.
    #[inline]
    pub(crate) fn has_current(self) -> bool {
        self.0 & 1 != 0
    }

    /// Returns the set without the current root.
    #[inline]
    fn without_current(self) -> Self {
        Self(self.0 & !1)
    }

    /// Returns a bit for each root, the lowest for the current one: `KVM_MMU_ROOT_*`.
    #[inline]
    pub(crate) const fn into_raw(self) -> u8 {
        self.0
    }
}

/// A vCPU that exited for an instruction.
pub(crate) trait Vcpu: GuestRegs + Memory {
    /// Returns how the guest's addresses are translated.
    fn paging(&self) -> Paging;
    /// Returns the privilege level, 0 to 3; 3 in virtual-8086 mode.
    fn cpl(&self) -> u8;
    /// Returns the encoding of the operands.
    fn instruction_information(&self) -> InsnInfo;
    /// Returns the exit qualification: the address of INVLPG, the displacement of the others.
    fn exit_qualification(&self) -> u64;
    /// Returns the width of a linear address that the CPU can invalidate, whatever paging the guest
    /// uses.
    fn linear_width(&self) -> LinearWidth;
    /// Increments a counter.
    fn count(&mut self, what: Counter);
    /// Resumes the guest after the instruction.
    fn skip(&mut self) -> ExitResult;
    /// Raises an exception at the instruction.
    fn raise(&mut self, fault: Exception);
    /// Reports to user space that the instruction could not be executed.
    fn give_up(&mut self) -> ExitResult;
}

/// The tables that KVM runs a guest on in place of the guest's own (shadow paging), and the cached
/// translations made from them.
///
/// With EPT on there are no such tables, and the methods about roots do nothing.
pub(crate) trait Translations: Vcpu {
    /// Returns whether the guest's CPU has INVPCID.
    fn has_invpcid(&self) -> bool;
    /// Returns whether the guest runs on KVM's shadow pages.
    fn is_shadowed(&self) -> bool;
    /// Returns the PCID of each root; number 0 is the current root.
    fn pcids(&self) -> [Option<Pcid>; Roots::COUNT];
    /// Synchronises one address in some roots, and flushes it from this CPU.
    fn invalidate(&mut self, address: CanonicalGva, roots: Roots);
    /// Counts an address as flushed in KVM's own statistics.
    fn count_in_kvm(&mut self);
    /// Requests that the current root is synchronised and flushed before the guest runs.
    fn request_sync(&mut self);
    /// Frees cached roots; `kvm_mmu_load()` synchronises and flushes such a root when the guest
    /// returns to it.
    fn free_roots(&mut self, roots: Roots);
    /// Requests a flush of everything that the guest may have cached, and a synchronisation of its
    /// roots; KVM serves the request before the guest runs.
    fn request_flush(&mut self);
}

/// A vCPU that may run a hypervisor (L1) and its guests (L2).
pub(crate) trait Nested: Vcpu {
    /// Returns how the vCPU's translations are tagged.
    fn tags(&self) -> &impl Tags;
    /// Returns whether L1 is in VMX operation.
    fn is_in_vmx_operation(&self) -> bool;
    /// Returns whether L1's CPU has VPIDs.
    fn l1_has_vpid(&self) -> bool;
    /// Returns whether L1's CPU has EPT.
    fn l1_has_ept(&self) -> bool;
    /// Returns the invalidations that L1's CPU supports.
    fn l1_caps(&self) -> EptVpidCap;
    /// Returns the width of L1's physical addresses.
    fn max_phy_addr(&self) -> MaxPhyAddr;
    /// Returns RFLAGS.
    fn rflags(&self) -> Rflags;
    /// Writes RFLAGS.
    fn set_rflags(&mut self, rflags: Rflags);
    /// Writes the VM-instruction error into L1's current VMCS; returns false if there is none.
    fn set_vm_instruction_error(&mut self, error: VmInsnError) -> bool;
    /// Returns the policy of invalidations on this CPU.
    fn policy(&self) -> Policy;
    /// Issues an invalidation on this CPU.
    fn issue(&mut self, what: Invalidation);
    /// Calls a function with preemption disabled, so that the task stays on this CPU.
    fn with_preemption_disabled(&mut self, function: impl FnOnce(&mut Self));
    /// Returns whether L2 last ran on this CPU.
    fn vmcs02_is_here(&self) -> bool;
    /// Forgets the vpid12 that L2 ran with: KVM treats the vpid12 of the next VM entry as a new
    /// one, and flushes.
    fn forget_vpid12(&mut self);
    /// Frees the shadow roots of L2, whichever vpid12 they were made for.
    fn free_l2_roots(&mut self);
    /// Returns L1's EPT pointer of each root of L2; number 0 is the current root.
    fn ept12_roots(&self) -> [Option<Eptp>; Roots::COUNT];
    /// Frees roots of L2.
    fn free_ept12_roots(&mut self, roots: Roots);
}

/// A vCPU that exited for a guest-physical address, and the part of KVM that translates it.
///
/// Such exits are frequent and short, so the value is passed in a register.
pub(crate) trait GuestPhysical: Copy {
    /// Returns the exit qualification of an EPT violation.
    fn qualification(self) -> Qualification;
    /// Returns the guest-physical address.
    fn address(self) -> Gpa;
    /// Returns whether the CPU was delivering an event to the guest.
    fn is_delivering_event(self) -> bool;
    /// Returns whether the guest was in an enclave.
    fn is_in_enclave(self) -> bool;
    /// Returns whether L2 runs, so that the address is one of L2's.
    fn runs_l2(self) -> bool;
    /// Returns whether the current tables distinguish fetches of user mode from fetches of the
    /// supervisor.
    fn tells_user_fetches(self) -> bool;
    /// Returns whether the address needs more bits than the guest's CPU has.
    fn is_beyond_guest(self, address: Gpa) -> bool;
    /// Returns whether KVM lets a guest's CPU have fewer address bits than the host's.
    fn allows_narrow_guests(self) -> bool;
    /// Increments a counter.
    fn count(self, what: Counter);
    /// Blocks NMIs in the guest, if the CPU leaves that to the hypervisor.
    fn block_nmis(self);
    /// Traces a violation, as KVM does.
    fn trace_violation(self, address: Gpa, qualification: Qualification);
    /// Traces a write that a device was notified of, as KVM does.
    fn trace_told(self, address: Gpa);
    /// Notifies a device of a write, if a device at the address needs nothing but the notification;
    /// returns whether there is one.
    fn tell_device(self, address: Gpa) -> bool;
    /// Resumes the guest after the instruction.
    fn skip(self) -> ExitResult;
    /// Has KVM's MMU make the access possible, or carry it out.
    fn resolve(self, address: Gpa, code: ErrorCode) -> ExitResult;
    /// Has KVM emulate the instruction.
    fn emulate(self) -> ExitResult;
    /// Ends an instruction that must not be emulated, instead of emulating it.
    fn refuse_emulation(self);
}

/// Checks that the guest runs at CPL 0.
///
/// A CPU checks the privilege before the exit; the emulated CPU of the testbed does not for
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

/// Checks that a VMX instruction may be executed.  Equivalent of `nested_vmx_check_permission()`.
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
/// The CPU reads the operand even for a type that does not need it, so the read may raise an
/// exception.
#[inline]
fn read_operand(vcpu: &mut impl Vcpu, mode: Mode, info: InsnInfo) -> Result<[u64; 2], Stop> {
    const LEN: u32 = 16;
    let place = info.locate(mode, vcpu.exit_qualification(), LEN, vcpu)?;
    let paging = vcpu.paging();
    // `check_cpl()` has passed, so the access is a supervisor access.
    let access = Access {
        kind: AccessKind::Read,
        user: false,
    };
    let bytes: [u8; LEN as usize] =
        walk::read(&paging, vcpu, place.address, access, place.is_64_bit)?;
    let both = u128::from_le_bytes(bytes);
    // CAST: Each cast keeps one half of `both`.
    Ok([both as u64, (both >> u64::BITS) as u64])
}

/// The result of a VMX instruction that raises no exception.
type VmxResult = Result<(), VmInsnError>;

/// Executes INVEPT or INVVPID, in the order of the CPU's checks.
///
/// `exists` says whether L1's CPU has the instruction.  `kind` checks the type before the operand
/// in memory is read; `execute` checks the operand and invalidates.
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

/// Ends an instruction: skips the instruction, or calls [`interrupt()`].
#[inline]
fn end(vcpu: &mut impl Vcpu, result: Result<(), Stop>) -> ExitResult {
    match result {
        Ok(()) => vcpu.skip(),
        Err(stop) => interrupt(vcpu, stop),
    }
}

/// Ends an instruction that has no effect.
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

/// Ends a VMX instruction: the flags distinguish success from the two forms of VM-fail.
///
/// Source: the manual's chapter on VMX instructions, "Conventions".  Equivalent of
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
            // Without a current VMCS there is no field for the error number: VMfailInvalid.
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
