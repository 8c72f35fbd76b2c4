// SPDX-License-Identifier: GPL-2.0

//! This module defines the functions that KVM calls, and the backend behind them.
//!
//! Livepatch's table, KVM's static calls (for flushes) and KVM's exit table (for exits) point to
//! the functions of [`Entry`].

use crate::{
    backend::Backend,
    bindings,
    exits::{
        self,
        ExitResult, //
    },
    flush::{
        self,
        Request, //
    },
    kvm::{
        check_vmcs,
        cpu::{
            self,
            Cpu, //
        },
        percpu::count,
        switches,
        symbols,
        trace,
        vcpu::Vcpu,
        vcpu_ept_exit::EptExit,
        vcpu_regs::Exit,
        vpid_lock::Vpids, //
    },
    vpid::{
        owned::OwnedVpid,
        Vpid, //
    },
    x86::addr::{
        CanonicalGva,
        Gva, //
    }, //
};
use core::{
    marker::PhantomData,
    mem, //
};
use kernel::{
    pr_err_once,
    pr_warn_once,
    prelude::*, //
};

/// Serves a flush request on this CPU.
#[inline(always)]
fn flush(request: Request, vcpu: &Vcpu) {
    // SAFETY: KVM called an operation for `vcpu`, and the operation does not end before `cpu` is
    // dropped.
    let cpu = unsafe { Cpu::new(request.into()) };
    if switches::needs_slow_path(request) || !flush::flush_fast(request, vcpu, cpu) {
        flush_slow(vcpu, request);
    }
}

/// Serves a flush request by the slow path.
#[cold]
#[inline(never)]
fn flush_slow(vcpu: &Vcpu, request: Request) {
    // SAFETY: KVM called an operation for `vcpu`, and the operation does not end before `cpu` is
    // dropped.
    let cpu = unsafe { Cpu::new(request.into()) };
    let policy = switches::policy();
    // A lost flush is reported and counted already; KVM's functions return no error.
    let _ = flush::flush_slow(request, vcpu, policy, cpu);
    if policy.check_vmcs() {
        check_vmcs::check(vcpu);
    }
}

/// Remembers that this task got no VPID, for [`Entry::vcpu_create()`].
#[inline]
fn remember_refusal() {
    // SAFETY: The helper stores the address of this task in one word of this module.
    unsafe { bindings::vmx_vpid_remember_refusal() };
}

/// Counts and reports that a vCPU gets no VPID.
#[cold]
fn no_vpid_left() {
    count!(VpidExhausted);
    remember_refusal();
    trace::acquire(None);
    pr_warn_once!("all VPIDs are in use: a vCPU runs without one, and is flushed more\n");
}

/// Counts and reports that KVM freed a number that is not a VPID in use.
#[cold]
fn not_held(vpid: c_int) {
    count!(VpidNotHeld);
    pr_err_once!("VPID {} was freed, but not in use\n", vpid);
}

/// The backend of this module.
pub(crate) enum Native {}

#[vtable]
impl Backend for Native {
    type Vcpu = Vcpu;

    const LABEL: &'static str = "rust";

    #[inline]
    fn allocate_vpid() -> Option<Vpid> {
        // SAFETY: KVM calls this function for a vCPU, so kvm_intel is initialised, and its symbols
        // are resolved since `pre_patch`.
        if !unsafe { symbols::enable_vpid() } {
            count!(VpidOff);
            remember_refusal();
            return None;
        }
        // SAFETY: KVM calls this operation for a vCPU, so the symbols are resolved since
        // `pre_patch`, and kvm_intel is not unloaded before this function returns.
        let source = unsafe { Vpids::new() };
        let Some(owned) = OwnedVpid::alloc(&source) else {
            no_vpid_left();
            return None;
        };
        let vpid = owned.into_foreign();
        count!(VpidAcquired);
        trace::acquire(Some(vpid));
        Some(vpid)
    }

    #[inline]
    fn free_vpid(vpid: Vpid) {
        // SAFETY: KVM calls this operation for a vCPU, so the symbols are resolved since
        // `pre_patch`, and kvm_intel is not unloaded before this function returns.
        let source = unsafe { Vpids::new() };
        let held = OwnedVpid::from_foreign(&source, vpid).free().is_ok();
        trace::release(vpid, held);
        if held {
            count!(VpidReleased);
        } else {
            not_held(vpid.into_raw().into());
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
    fn flush_tlb_gva(vcpu: &Vcpu, gva: CanonicalGva) {
        count!(FlushTlbGva);
        flush(Request::Gva(gva), vcpu);
    }

    #[inline]
    fn flush_tlb_guest(vcpu: &Vcpu) {
        count!(FlushTlbGuest);
        flush(Request::Guest, vcpu);
    }

    #[inline]
    fn handle_invlpg(vcpu: &Vcpu) -> ExitResult {
        // SAFETY: KVM calls the operation in the handler of an exit of `vcpu`, and this operation
        // makes no other `Exit`.
        exits::invlpg::handle(&mut unsafe { Exit::new(vcpu) })
    }

    #[inline]
    fn handle_invpcid(vcpu: &Vcpu) -> ExitResult {
        // SAFETY: KVM calls the operation in the handler of an exit of `vcpu`, and this operation
        // makes no other `Exit`.
        exits::invpcid::handle(&mut unsafe { Exit::new(vcpu) })
    }

    #[inline]
    fn handle_invvpid(vcpu: &Vcpu) -> ExitResult {
        // SAFETY: KVM calls the operation in the handler of an exit of `vcpu`, and this operation
        // makes no other `Exit`.
        exits::invvpid::handle(&mut unsafe { Exit::new(vcpu) })
    }

    #[inline]
    fn handle_invept(vcpu: &Vcpu) -> ExitResult {
        // SAFETY: KVM calls the operation in the handler of an exit of `vcpu`, and this operation
        // makes no other `Exit`.
        exits::invept::handle(&mut unsafe { Exit::new(vcpu) })
    }

    #[inline]
    fn handle_ept_violation(vcpu: &Vcpu) -> ExitResult {
        // SAFETY: KVM calls the operation in the handler of an exit of `vcpu`.
        exits::ept_violation::handle(unsafe { EptExit::new(vcpu) })
    }

    #[inline]
    fn handle_ept_misconfig(vcpu: &Vcpu) -> ExitResult {
        // SAFETY: KVM calls the operation in the handler of an exit of `vcpu`.
        exits::ept_misconfig::handle(unsafe { EptExit::new(vcpu) })
    }
}

/// Keeps the caller from ending in a jump to its last callee.
///
/// Livepatch frees this module's code when no task has a return address inside one of the entries
/// below.  An entry that jumped to its last callee would leave no such address on the stack while
/// the callee runs.  An instruction after the call, even an empty one, keeps the compiler from
/// making it a jump.
#[inline(always)]
fn stay_on_stack() {
    // SAFETY: The template is empty.
    unsafe { kernel::asm!(""; options(nostack, preserves_flags)) };
}

/// The entries through which KVM calls a backend.
struct Entry<B>(PhantomData<B>);

impl<B: Backend<Vcpu = Vcpu>> Entry<B> {
    /// Replaces `allocate_vpid()`; returns 0 if there is no VPID.
    extern "C" fn allocate_vpid() -> c_int {
        let vpid = B::allocate_vpid().map_or(0, Vpid::into_raw);
        stay_on_stack();
        c_int::from(vpid)
    }

    /// Replaces `free_vpid()`; does nothing for 0, which is no VPID.
    extern "C" fn free_vpid(vpid: c_int) {
        match u16::try_from(vpid) {
            Ok(vpid) => {
                if let Some(vpid) = Vpid::new(vpid) {
                    B::free_vpid(vpid);
                }
            }
            Err(_) => not_held(vpid),
        }
        stay_on_stack();
    }

    /// Replaces `vmx_vcpu_create()`: calls C's body, and allocates a VPID if the body got none.
    ///
    /// A compiler may inline `allocate_vpid()` into the body, or split it, where livepatch does not
    /// reach it.  While the backend is attached, such a copy finds KVM's bitmap full.  No code
    /// reads the VPID before this function returns: kvm_vcpu_after_set_cpuid() and the reset of the
    /// vCPU come later in kvm_arch_vcpu_create().
    ///
    /// # Safety
    ///
    /// Only KVM calls this function, for a vCPU that KVM creates.
    unsafe extern "C" fn vcpu_create(vcpu: *mut bindings::kvm_vcpu) -> c_int {
        // SAFETY: The helper writes one word of this module.
        unsafe { bindings::vmx_vpid_forget_refusal() };
        // SAFETY: By the safety requirements KVM creates `vcpu`, and KVM keeps kvm_intel loaded
        // while it has a vCPU.  The jump leads to C's function since `pre_patch`.
        let ret = unsafe { bindings::vmx_vpid_body_vmx_vcpu_create(vcpu) };
        // SAFETY: `struct kvm_vcpu` is the first member of `struct vcpu_vmx`, and no other task can
        // reach a vCPU that is being created.
        let vpid = unsafe { &mut (*vcpu.cast::<bindings::vcpu_vmx>()).vpid };
        // If the body called `allocate_vpid()` in vain, the failure is counted already.
        // SAFETY: The helper reads one word of this module.
        if ret == 0 && *vpid == 0 && !unsafe { bindings::vmx_vpid_was_refused() } {
            // Call the entry, not `B::allocate_vpid()`: the compiler inlines that function into the
            // entry only while the entry is its one caller.
            *vpid = Self::allocate_vpid();
        }
        stay_on_stack();
        ret
    }

    /// Replaces `vmx_vcpu_free()`: frees the VPID and sets it to 0, then calls C's body.
    ///
    /// If the body found a VPID, a copy of `free_vpid()` that is inlined into the body would clear
    /// a bit of KVM's bitmap, which has to stay full while the backend is attached.
    ///
    /// # Safety
    ///
    /// Only KVM calls this function, for a vCPU that KVM destroys.
    unsafe extern "C" fn vcpu_free(vcpu: *mut bindings::kvm_vcpu) {
        // SAFETY: `struct kvm_vcpu` is the first member of `struct vcpu_vmx`, and no other task
        // uses a vCPU that is being destroyed.
        let vpid = mem::take(unsafe { &mut (*vcpu.cast::<bindings::vcpu_vmx>()).vpid });
        Self::free_vpid(vpid);
        // SAFETY: By the safety requirements KVM destroys `vcpu`, and KVM keeps kvm_intel loaded
        // while it has a vCPU.  The jump leads to C's function since `pre_patch`.
        unsafe { bindings::vmx_vpid_body_vmx_vcpu_free(vcpu) };
        stay_on_stack();
    }

    /// Replaces `vmx_flush_tlb_all()`.
    ///
    /// # Safety
    ///
    /// Only KVM calls this function, with `vcpu` loaded by this task.
    unsafe extern "C" fn flush_tlb_all(vcpu: *mut bindings::kvm_vcpu) {
        // SAFETY: By the safety requirements KVM called an operation for `vcpu`, which this task
        // has loaded and which lives until the operation ends.
        B::flush_tlb_all(unsafe { Vcpu::from_raw(vcpu) });
        stay_on_stack();
    }

    /// Replaces `vmx_flush_tlb_current()`.
    ///
    /// # Safety
    ///
    /// Only KVM calls this function, with `vcpu` loaded by this task.
    unsafe extern "C" fn flush_tlb_current(vcpu: *mut bindings::kvm_vcpu) {
        // SAFETY: By the safety requirements KVM called an operation for `vcpu`, which this task
        // has loaded and which lives until the operation ends.
        B::flush_tlb_current(unsafe { Vcpu::from_raw(vcpu) });
        stay_on_stack();
    }

    /// Replaces `vmx_flush_tlb_gva()`.
    ///
    /// A backend may report in `_full` that it flushed more than the address, so that the caller
    /// skips the rest of a list.  kvm_intel's function does not, and neither does this one.
    ///
    /// # Safety
    ///
    /// Only KVM calls this function, with `vcpu` loaded by this task.
    unsafe extern "C" fn flush_tlb_gva(
        vcpu: *mut bindings::kvm_vcpu,
        addr: bindings::gva_t,
        _full: *mut bool,
    ) {
        // SAFETY: By the safety requirements KVM called an operation for `vcpu`, which this task
        // has loaded and which lives until the operation ends.
        let vcpu = unsafe { Vcpu::from_raw(vcpu) };
        // KVM has checked the address.  A CPU caches no translation of an address that is not
        // canonical.
        // CAST: `unsigned long` has 64 bits.
        if let Some(gva) = Gva::new(addr as u64).canonical(cpu::linear_width()) {
            B::flush_tlb_gva(vcpu, gva);
        }
        stay_on_stack();
    }

    /// Replaces `vmx_flush_tlb_guest()`.
    ///
    /// # Safety
    ///
    /// Only KVM calls this function, with `vcpu` loaded by this task.
    unsafe extern "C" fn flush_tlb_guest(vcpu: *mut bindings::kvm_vcpu) {
        // SAFETY: By the safety requirements KVM called an operation for `vcpu`, which this task
        // has loaded and which lives until the operation ends.
        B::flush_tlb_guest(unsafe { Vcpu::from_raw(vcpu) });
        stay_on_stack();
    }
}

/// Defines the entries of exit handlers.
///
/// An entry returns what KVM's handlers return: 1 or more to resume the guest, 0 to exit to user
/// space, a negative errno to make KVM_RUN fail.
macro_rules! handlers {
    ($($(#[$doc:meta])* $name:ident)*) => {
        impl<B: Backend<Vcpu = Vcpu>> Entry<B> {$(
            $(#[$doc])*
            ///
            /// # Safety
            ///
            /// Only KVM calls this function, to handle an exit of `vcpu`, which this task has
            /// loaded.
            unsafe extern "C" fn $name(vcpu: *mut bindings::kvm_vcpu) -> c_int {
                // SAFETY: By the safety requirements KVM handles an exit of `vcpu`, which this task
                // has loaded and which lives until the handler returns.
                let ret = match B::$name(unsafe { Vcpu::from_raw(vcpu) }) {
                    ExitResult::Resume => 1,
                    ExitResult::UserSpace => 0,
                    ExitResult::Raw(ret) => ret,
                };
                stay_on_stack();
                ret
            }
        )*}
    };
}

handlers! {
    /// Replaces `handle_invlpg()`.
    handle_invlpg
    /// Replaces `handle_invpcid()`.
    handle_invpcid
    /// Replaces `handle_invvpid()`.
    handle_invvpid
    /// Replaces `handle_invept()`.
    handle_invept
    /// Replaces `handle_ept_violation()`.
    handle_ept_violation
    /// Replaces `handle_ept_misconfig()`.
    handle_ept_misconfig
}

/// Makes the table of operations of a backend; `None` stands for an operation that the backend
/// lacks.
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
        handle_invlpg: entry!(HAS_HANDLE_INVLPG, handle_invlpg),
        handle_invpcid: entry!(HAS_HANDLE_INVPCID, handle_invpcid),
        handle_invvpid: entry!(HAS_HANDLE_INVVPID, handle_invvpid),
        handle_invept: entry!(HAS_HANDLE_INVEPT, handle_invept),
        handle_ept_violation: entry!(HAS_HANDLE_EPT_VIOLATION, handle_ept_violation),
        handle_ept_misconfig: entry!(HAS_HANDLE_EPT_MISCONFIG, handle_ept_misconfig),
        vcpu_create: entry!(HAS_ALLOCATE_VPID, vcpu_create),
        vcpu_free: entry!(HAS_FREE_VPID, vcpu_free),
    }
}
