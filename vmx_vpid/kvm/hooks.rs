// SPDX-License-Identifier: GPL-2.0

//! The functions that KVM is given, and the backend behind them.
//!
//! A pointer to each goes into livepatch's table and, for the flushes, into KVM's static calls.

use crate::{
    addr::Gva,
    backend::Backend,
    bindings,
    caps::EptVpidCap,
    ept,
    flush::{
        self,
        Request, //
    },
    insn::{
        self,
        InsnError, //
    },
    invvpid::{
        self,
        Vpid, //
    },
    issue::{
        self,
        Invalidate,
        Invalidation, //
    },
    kvm::{
        percpu::count,
        symbols::{
            self,
            Vpids, //
        },
        vcpu::Vcpu, //
    }, //
};
use core::marker::PhantomData;
use kernel::{
    fmt,
    pr_err_once,
    pr_warn_once,
    prelude::*,
    sync::atomic::{
        Atomic,
        Relaxed, //
    }, //
};

/// What the CPU can invalidate, as [`EptVpidCap`]; set once, before the backend is attached.
static CAPS: Atomic<u64> = Atomic::new(0);

/// Makes known what the CPU can invalidate.
pub(super) fn set_caps(caps: EptVpidCap) {
    CAPS.store(caps.into_raw(), Relaxed);
}

/// Returns what the CPU can invalidate.
#[inline]
pub(crate) fn caps() -> EptVpidCap {
    EptVpidCap::from(CAPS.load(Relaxed))
}

/// The CPU that runs this code.
struct Cpu;

impl Invalidate for Cpu {
    #[inline]
    fn invvpid(&self, extent: invvpid::Extent) -> Result<(), InsnError> {
        match extent {
            invvpid::Extent::Address(..) => count!(InvvpidAddress),
            invvpid::Extent::Context(_) => count!(InvvpidContext),
            invvpid::Extent::All => count!(InvvpidAll),
        }
        invvpid::invvpid(extent)
    }

    #[inline]
    fn invept(&self, extent: ept::Extent) -> Result<(), InsnError> {
        match extent {
            ept::Extent::Context(_) => count!(InveptContext),
            ept::Extent::All => count!(InveptAll),
        }
        ept::invept(extent)
    }

    #[cold]
    fn failed(&self, what: Invalidation, error: InsnError, wider: Option<Invalidation>) {
        match error {
            InsnError::VmFail => count!(InsnVmFail),
            InsnError::Fault => count!(InsnFault),
        }
        if wider.is_none() {
            count!(FlushLost);
        }
        report(what, error, wider.is_some());
    }
}

/// Why an instruction failed, in words; to be shown right after it did.
struct Reason(InsnError);

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            InsnError::Fault => f.write_str("it faulted"),
            InsnError::VmFail => match insn::vm_instruction_error() {
                Some(number) => write!(f, "VM-instruction error {number}"),
                None => f.write_str("VM-fail without a current VMCS"),
            },
        }
    }
}

/// Reports a failed instruction, once for each kind.
#[cold]
fn report(what: Invalidation, error: InsnError, wider: bool) {
    let answer = if wider {
        "a wider one is issued instead"
    } else {
        "the flush is lost"
    };
    let reason = Reason(error);
    match what {
        Invalidation::Invvpid(invvpid::Extent::Address(vpid, gva)) => pr_err_once!(
            "INVVPID of address {:#x}, VPID {} failed ({}): {}\n",
            gva.into_raw(),
            vpid.into_raw(),
            reason,
            answer
        ),
        Invalidation::Invvpid(invvpid::Extent::Context(vpid)) => pr_err_once!(
            "INVVPID of VPID {} failed ({}): {}\n",
            vpid.into_raw(),
            reason,
            answer
        ),
        Invalidation::Invvpid(invvpid::Extent::All) => {
            pr_err_once!("INVVPID of all VPIDs failed ({}): {}\n", reason, answer)
        }
        Invalidation::Invept(ept::Extent::Context(eptp)) => pr_err_once!(
            "INVEPT of EPTP {:#x} failed ({}): {}\n",
            eptp.into_raw(),
            reason,
            answer
        ),
        Invalidation::Invept(ept::Extent::All) => {
            pr_err_once!("INVEPT of all contexts failed ({}): {}\n", reason, answer)
        }
    }
}

/// Issues what answers a request, on this CPU.
#[inline]
fn flush(request: Request, vcpu: &Vcpu) {
    issue::carry_out(flush::plan(request, vcpu, caps()), &Cpu);
}

/// The backend of this module.
pub(crate) enum Native {}

#[vtable]
impl Backend for Native {
    type Vcpu = Vcpu;

    const LABEL: &'static str = "rust";

    #[inline]
    fn allocate_vpid() -> Option<Vpid> {
        count!(AllocateVpid);
        // SAFETY: KVM calls this, so kvm_intel is loaded, and its symbols are resolved since
        // `pre_patch`.
        if !unsafe { symbols::enable_vpid() } {
            return None;
        }
        // SAFETY: As above.
        let vpid = unsafe { Vpids::lock() }.acquire();
        if vpid.is_some() {
            count!(VpidAcquired);
        } else {
            count!(VpidExhausted);
            pr_warn_once!("all VPIDs are in use: a vCPU runs without one, and is flushed more\n");
        }
        vpid
    }

    #[inline]
    fn free_vpid(vpid: Vpid) {
        count!(FreeVpid);
        // SAFETY: As in `allocate_vpid()`.
        match unsafe { Vpids::lock() }.release(vpid) {
            Ok(()) => count!(VpidReleased),
            Err(_) => {
                count!(VpidNotHeld);
                pr_err_once!("VPID {} was freed, but not in use\n", vpid.into_raw());
            }
        }
    }

    #[inline]
    fn flush_tlb_all(vcpu: &Vcpu) {
        count!(FlushTlbAll);
        flush(Request::All, vcpu);
    }

    #[inline]
    fn flush_tlb_current(vcpu: &Vcpu) {
        count!(FlushTlbCurrent);
        flush(Request::Current, vcpu);
    }

    #[inline]
    fn flush_tlb_gva(vcpu: &Vcpu, gva: Gva) {
        count!(FlushTlbGva);
        flush(Request::Gva(gva), vcpu);
    }

    #[inline]
    fn flush_tlb_guest(vcpu: &Vcpu) {
        count!(FlushTlbGuest);
        flush(Request::Guest, vcpu);
    }
}

/// Keeps the caller from leaving by a jump.
///
/// Livepatch frees this module's code when no task has a return address inside one of the entries
/// below.  An entry that jumped to its last callee would leave no such address while the callee
/// runs.  An instruction after the call, even an empty one, makes the call a call.
#[inline(always)]
fn stay_on_stack() {
    // SAFETY: The template is empty.
    unsafe { kernel::asm!(""; options(nostack, preserves_flags)) };
}

/// The entries through which KVM calls a backend.
struct Entry<B>(PhantomData<B>);

impl<B: Backend<Vcpu = Vcpu>> Entry<B> {
    /// In the place of `allocate_vpid()`; 0 stands for "none".
    extern "C" fn allocate_vpid() -> c_int {
        let vpid = B::allocate_vpid().map_or(0, Vpid::into_raw);
        stay_on_stack();
        c_int::from(vpid)
    }

    /// In the place of `free_vpid()`, which takes 0 for "none".
    extern "C" fn free_vpid(vpid: c_int) {
        match u16::try_from(vpid) {
            Ok(vpid) => {
                if let Some(vpid) = Vpid::new(vpid) {
                    B::free_vpid(vpid);
                }
            }
            Err(_) => {
                count!(VpidNotHeld);
                pr_err_once!("{} was freed, which is no VPID\n", vpid);
            }
        }
        stay_on_stack();
    }

    /// In the place of `vmx_flush_tlb_all()`.
    ///
    /// # Safety
    ///
    /// `vcpu` is loaded by this task; to be called by KVM only.
    unsafe extern "C" fn flush_tlb_all(vcpu: *mut bindings::kvm_vcpu) {
        // SAFETY: The contract of this function.
        B::flush_tlb_all(unsafe { Vcpu::from_raw(vcpu) });
        stay_on_stack();
    }

    /// In the place of `vmx_flush_tlb_current()`.
    ///
    /// # Safety
    ///
    /// `vcpu` is loaded by this task; to be called by KVM only.
    unsafe extern "C" fn flush_tlb_current(vcpu: *mut bindings::kvm_vcpu) {
        // SAFETY: The contract of this function.
        B::flush_tlb_current(unsafe { Vcpu::from_raw(vcpu) });
        stay_on_stack();
    }

    /// In the place of `vmx_flush_tlb_gva()`.
    ///
    /// `_full` is where a backend tells that it flushed more than the address, to spare the caller
    /// the rest of a list; VMX leaves it alone.
    ///
    /// # Safety
    ///
    /// `vcpu` is loaded by this task; to be called by KVM only.
    unsafe extern "C" fn flush_tlb_gva(
        vcpu: *mut bindings::kvm_vcpu,
        addr: bindings::gva_t,
        _full: *mut bool,
    ) {
        // SAFETY: The contract of this function.
        // CAST: `unsigned long` has 64 bits.
        B::flush_tlb_gva(unsafe { Vcpu::from_raw(vcpu) }, Gva::new(addr as u64));
        stay_on_stack();
    }

    /// In the place of `vmx_flush_tlb_guest()`.
    ///
    /// # Safety
    ///
    /// `vcpu` is loaded by this task; to be called by KVM only.
    unsafe extern "C" fn flush_tlb_guest(vcpu: *mut bindings::kvm_vcpu) {
        // SAFETY: The contract of this function.
        B::flush_tlb_guest(unsafe { Vcpu::from_raw(vcpu) });
        stay_on_stack();
    }
}

/// Makes the table of operations of a backend; what it does not have stays empty.
pub(super) const fn table<B: Backend<Vcpu = Vcpu>>() -> bindings::vmx_vpid_ops {
    macro_rules! entry {
        ($has:ident, $name:ident) => {
            if B::$has {
                Some(Entry::<B>::$name)
            } else {
                None
            }
        };
    }
    bindings::vmx_vpid_ops {
        allocate_vpid: entry!(HAS_ALLOCATE_VPID, allocate_vpid),
        free_vpid: entry!(HAS_FREE_VPID, free_vpid),
        flush_tlb_all: entry!(HAS_FLUSH_TLB_ALL, flush_tlb_all),
        flush_tlb_current: entry!(HAS_FLUSH_TLB_CURRENT, flush_tlb_current),
        flush_tlb_gva: entry!(HAS_FLUSH_TLB_GVA, flush_tlb_gva),
        flush_tlb_guest: entry!(HAS_FLUSH_TLB_GUEST, flush_tlb_guest),
    }
}
