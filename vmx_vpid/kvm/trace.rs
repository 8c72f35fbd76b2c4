// SPDX-License-Identifier: GPL-2.0

//! This module emits the trace events under events/vmx_vpid/ in tracefs.
//!
//! The kernel crate's `declare_trace!` supports tracepoints of the kernel only.
//! `rust/vmx_vpid_trace.h` defines these; a tracepoint that is off is a NOP at the place where it
//! would be emitted.

use crate::{
    bindings,
    ept,
    flush::Request,
    invvpid,
    vpid::Vpid, //
};
use kernel::bindings::tracepoint;

/// Why an invalidation is issued; the numbers are those of `rust/vmx_vpid_trace.h`.
#[derive(Clone, Copy)]
#[repr(u8)]
pub(super) enum Reason {
    /// A request for everything.
    All = 0,
    /// A request for the root in use.
    Current = 1,
    /// A request for an address.
    Gva = 2,
    /// A request for what the guest may have cached.
    Guest = 3,
    /// An INVVPID of a hypervisor in a guest.
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

// Whether a tracepoint has members of size 0 depends on the configuration.
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
        // SAFETY: The key is that of a tracepoint that C defines.
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

/// A VPID was given out; `None` when all were in use.
#[inline(always)]
pub(super) fn acquire(vpid: Option<Vpid>) {
    emit!(
        __tracepoint_vmx_vpid_acquire,
        vmx_vpid_emit_acquire(vpid.map_or(0, Vpid::into_raw))
    );
}

/// A VPID came back; `held` tells whether it was in use.
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

/// An INVVPID is issued.
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

/// An INVEPT is issued.
#[inline(always)]
pub(super) fn invept(extent: ept::Extent, reason: Reason) {
    emit!(
        __tracepoint_vmx_vpid_invept,
        vmx_vpid_emit_invept(extent.numbers().0, extent.numbers().1, reason as u8)
    );
}

/// The backend serves from now on, with so many VPIDs taken over from C.
pub(super) fn attach(vpids: u32) {
    emit!(__tracepoint_vmx_vpid_attach, vmx_vpid_emit_attach(vpids));
}

/// C serves again, or is about to, with so many VPIDs given back to it.
pub(super) fn detach(vpids: u32) {
    emit!(__tracepoint_vmx_vpid_detach, vmx_vpid_emit_detach(vpids));
}
