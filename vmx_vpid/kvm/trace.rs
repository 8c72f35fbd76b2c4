// SPDX-License-Identifier: GPL-2.0

//! This module emits the trace events under events/vmx_vpid/ in tracefs.
//!
//! The kernel crate's `declare_trace!` supports tracepoints of the kernel only, so
//! `rust/vmx_vpid_trace.h` defines the tracepoints of this module.  A tracepoint that is off is a
//! NOP in the code that would emit the event.

use crate::{
    bindings,
    ept,
    flush::Request,
    invvpid,
    vpid::Vpid, //
};
use kernel::bindings::tracepoint;

/// The reason for an invalidation; the numbers are those in `rust/vmx_vpid_trace.h`.
#[derive(Clone, Copy)]
#[repr(u8)]
pub(super) enum Reason {
    /// A request to flush all translations.
    All = 0,
    /// A request to flush the current root.
    Current = 1,
    /// A request to flush one address.
    Gva = 2,
    /// A request to flush what the guest may have cached.
    Guest = 3,
    /// An INVVPID that L1 executed.
    L1 = 4,
}

impl From<Request> for Reason {
    #[inline]
    fn from(request: Request) -> Self {
        match request {
            Request::All => Self::All,
            Request::Current => Self::Current,
            Request::Gva(_) => Self::Gva,
            Request::Guest => Self::Guest,
        }
    }
}

// In some configurations `struct tracepoint` has members of size 0.
#[allow(improper_ctypes)]
extern "C" {
    static __tracepoint_vmx_vpid_acquire: tracepoint;
    static __tracepoint_vmx_vpid_release: tracepoint;
    static __tracepoint_vmx_vpid_invvpid: tracepoint;
    static __tracepoint_vmx_vpid_invept: tracepoint;
    static __tracepoint_vmx_vpid_attach: tracepoint;
    static __tracepoint_vmx_vpid_detach: tracepoint;
}

/// Returns whether a tracepoint is on.
macro_rules! is_on {
    ($tracepoint:ident) => {
        // SAFETY: C defines the tracepoint as a static variable, so its key is live.
        unsafe { kernel::jump_label::static_branch_unlikely!($tracepoint, tracepoint, key) }
    };
}

/// Emits a tracepoint if it is on.
macro_rules! emit {
    ($tracepoint:ident, $emit:ident($($argument:expr),*)) => {
        if is_on!($tracepoint) {
            // SAFETY: A tracepoint may be emitted in any context.
            unsafe { bindings::$emit($($argument),*) };
        }
    };
}

/// Emits `vmx_vpid_acquire`: a VPID was allocated, or `None`, since all VPIDs were in use.
#[inline(always)]
pub(super) fn acquire(vpid: Option<Vpid>) {
    emit!(
        __tracepoint_vmx_vpid_acquire,
        vmx_vpid_emit_acquire(vpid.map_or(0, Vpid::into_raw))
    );
}

/// Emits `vmx_vpid_release`: a VPID was freed; `held` is whether the VPID was in use.
#[inline(always)]
pub(super) fn release(vpid: Vpid, held: bool) {
    emit!(
        __tracepoint_vmx_vpid_release,
        vmx_vpid_emit_release(vpid.into_raw(), held)
    );
}

/// Returns whether the tracepoint of INVVPID is on.
#[inline(always)]
pub(super) fn invvpid_is_on() -> bool {
    is_on!(__tracepoint_vmx_vpid_invvpid)
}

/// Returns whether the tracepoint of INVEPT is on.
#[inline(always)]
pub(super) fn invept_is_on() -> bool {
    is_on!(__tracepoint_vmx_vpid_invept)
}

/// Emits `vmx_vpid_invvpid`: an INVVPID is about to be issued.
#[inline(always)]
pub(super) fn invvpid(extent: invvpid::Extent, reason: Reason) {
    emit!(
        __tracepoint_vmx_vpid_invvpid,
        vmx_vpid_emit_invvpid(
            extent.numbers().0,
            extent.numbers().1,
            extent.numbers().2,
            reason as u8
        )
    );
}

/// Emits `vmx_vpid_invept`: an INVEPT is about to be issued.
#[inline(always)]
pub(super) fn invept(extent: ept::Extent, reason: Reason) {
    emit!(
        __tracepoint_vmx_vpid_invept,
        vmx_vpid_emit_invept(extent.numbers().0, extent.numbers().1, reason as u8)
    );
}

/// Emits `vmx_vpid_attach`: every task runs the backend; `vpids` VPIDs are in use.
pub(super) fn attach(vpids: u32) {
    emit!(__tracepoint_vmx_vpid_attach, vmx_vpid_emit_attach(vpids));
}

/// Emits `vmx_vpid_detach`: C serves again, or is about to; `vpids` VPIDs are in use.
pub(super) fn detach(vpids: u32) {
    emit!(__tracepoint_vmx_vpid_detach, vmx_vpid_emit_detach(vpids));
}
