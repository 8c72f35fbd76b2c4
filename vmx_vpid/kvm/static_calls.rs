// SPDX-License-Identifier: GPL-2.0

//! This module points KVM's static calls straight at the backend.
//!
//! A call through livepatch costs about 80 instructions more than a plain call.  KVM calls the
//! entries of `kvm_x86_ops` by static calls, direct calls that the kernel rewrites.  The static
//! calls lead to the very functions that livepatch leads to, because livepatch looks for these
//! functions on every task's stack before it releases the module.

use crate::bindings;
use core::ptr;
use kernel::{
    ffi::c_void,
    prelude::*, //
};

/// A static call of KVM, and the two functions that it can lead to.
struct Site {
    name: &'static str,
    key: *mut bindings::static_call_key,
    trampoline: *mut c_void,
    original: *mut c_void,
    replacement: *mut c_void,
}

impl Site {
    /// Returns whether the call leads to a function.
    ///
    /// # Safety
    ///
    /// The site's pointers are those of one static call, and valid.
    unsafe fn leads_to(&self, function: *mut c_void) -> bool {
        // SAFETY: By the safety requirements `key` is valid.  Only two pieces of code write the
        // key: the initialisation of kvm_intel, which is over or has not begun, and this module,
        // whose calls are serialised.
        unsafe { ptr::read_volatile(&raw const (*self.key).func) == function }
    }

    /// Points the call at `to`, if the call leads to `from` now; returns whether it did.
    ///
    /// # Safety
    ///
    /// The site's pointers are those of one static call, and valid; `to` has the signature of the
    /// call.
    unsafe fn switch(&self, from: *mut c_void, to: *mut c_void) -> bool {
        // SAFETY: By the safety requirements the site's pointers are those of one static call, and
        // valid.
        if !unsafe { self.leads_to(from) } {
            return false;
        }
        // SAFETY: By the safety requirements key and trampoline are those of one static call, and
        // `to` has its signature.
        unsafe { bindings::__static_call_update(self.key, self.trampoline, to) };
        true
    }
}

/// Makes a [`Site`] from the name of an operation.
macro_rules! site {
    ($ops:expr, $name:ident, $key:ident, $trampoline:ident, $original:ident) => {
        Site {
            name: stringify!($name),
            // SAFETY: An import is a static pointer, which is filled in by the safety requirements
            // of `sites()`.
            key: unsafe { bindings::$key }.cast(),
            // SAFETY: An import is a static pointer, which is filled in by the safety requirements
            // of `sites()`.
            trampoline: unsafe { bindings::$trampoline },
            // SAFETY: An import is a static pointer, which is filled in by the safety requirements
            // of `sites()`.
            original: unsafe { bindings::$original },
            replacement: match $ops.$name {
                Some(function) => function as *mut c_void,
                None => ptr::null_mut(),
            },
        }
    };
}

/// The number of operations that are static calls.
pub(super) const SITES: usize = 4;

/// Returns the static calls that a table of operations replaces.
///
/// # Safety
///
/// The symbols of kvm_intel are resolved.
unsafe fn sites(ops: &bindings::vmx_vpid_ops) -> [Site; SITES] {
    [
        site!(
            ops,
            flush_tlb_all,
            vmx_vpid_import___SCK__kvm_x86_flush_tlb_all,
            vmx_vpid_import___SCT__kvm_x86_flush_tlb_all,
            vmx_vpid_import_vmx_flush_tlb_all
        ),
        site!(
            ops,
            flush_tlb_current,
            vmx_vpid_import___SCK__kvm_x86_flush_tlb_current,
            vmx_vpid_import___SCT__kvm_x86_flush_tlb_current,
            vmx_vpid_import_vmx_flush_tlb_current
        ),
        site!(
            ops,
            flush_tlb_gva,
            vmx_vpid_import___SCK__kvm_x86_flush_tlb_gva,
            vmx_vpid_import___SCT__kvm_x86_flush_tlb_gva,
            vmx_vpid_import_vmx_flush_tlb_gva
        ),
        site!(
            ops,
            flush_tlb_guest,
            vmx_vpid_import___SCK__kvm_x86_flush_tlb_guest,
            vmx_vpid_import___SCT__kvm_x86_flush_tlb_guest,
            vmx_vpid_import_vmx_flush_tlb_guest
        ),
    ]
}

/// Points KVM's static calls at the backend; returns the number of calls that lead there.
///
/// A call that leads to an unexpected function (`vt_*` with TDX built in) is left alone: livepatch
/// serves it.  A second call changes nothing.
///
/// # Safety
///
/// kvm_intel is live, its symbols are resolved, its functions are livepatched by those in `ops`,
/// and calls of this function and of [`disarm()`] are serialised.
pub(super) unsafe fn arm(ops: &bindings::vmx_vpid_ops) -> usize {
    let mut armed = 0;
    // SAFETY: By the safety requirements the symbols are resolved.
    for site in unsafe { sites(ops) } {
        // SAFETY: The pointers of a site of `sites()` are those of one static call, and valid; both
        // functions have the signature of the call.
        let switched = unsafe { site.switch(site.original, site.replacement) };
        // SAFETY: The pointers of a site of `sites()` are those of one static call, and valid; both
        // functions have the signature of the call.
        if switched || unsafe { site.leads_to(site.replacement) } {
            armed += 1;
        } else {
            pr_info!(
                "the static call of {} does not lead to kvm_intel: livepatch serves it\n",
                site.name
            );
        }
    }
    armed
}

/// Points KVM's static calls back at kvm_intel's functions, which are still livepatched.
///
/// # Safety
///
/// The symbols of kvm_intel are resolved, and calls of this function and of [`arm()`] are
/// serialised.
pub(super) unsafe fn disarm(ops: &bindings::vmx_vpid_ops) {
    // SAFETY: By the safety requirements the symbols are resolved.
    for site in unsafe { sites(ops) } {
        // SAFETY: The pointers of a site of `sites()` are those of one static call, and valid; both
        // functions have the signature of the call.
        unsafe { site.switch(site.replacement, site.original) };
    }
}
