// SPDX-License-Identifier: GPL-2.0

//! This module points KVM's exit table straight at the backend.
//!
//! KVM calls the handler of an exit through `kvm_vmx_exit_handlers`, a table of pointers that
//! kvm_intel fills when it is loaded.  As with the static calls in [`super::static_calls`], the
//! pointers lead to the very functions that livepatch leads to.
//!
//! With retpolines built in, KVM calls some handlers directly and not through the table, among them
//! the handler of EPT misconfigurations: only livepatch leads these calls to the backend.  A
//! compiler may split that handler or inline it, so `rust/kvm_target.py` reads in kvm-intel.ko
//! which symbol is called, and `rust/klp.c` patches that symbol.

use crate::bindings;
use core::ptr;
use kernel::{
    ffi::c_void,
    prelude::*, //
};

/// The type of a handler in the table.
type Handler = unsafe extern "C" fn(*mut bindings::kvm_vcpu) -> c_int;

/// An exit and the two functions that can handle it.
struct Slot {
    name: &'static str,
    reason: u32,
    original: *mut c_void,
    replacement: Option<Handler>,
}

impl Slot {
    /// Points the exit at `to`, if the exit leads to `from`; returns whether it did.
    ///
    /// # Safety
    ///
    /// The symbols of kvm_intel are resolved; `from` and `to` are handlers of the exit, and no
    /// other code writes the table at the same time.
    unsafe fn switch(&self, from: *mut c_void, to: *mut c_void) -> bool {
        // SAFETY: By the safety requirements the symbols are resolved, and the table has an element
        // for the exit.
        let slot = unsafe { bindings::vmx_vpid_exit_handler(self.reason) };
        // SAFETY: `slot` is an aligned element of the table, which vCPUs read at any time.
        if unsafe { ptr::read_volatile(slot) } != from {
            return false;
        }
        // SAFETY: `slot` is an aligned element of the table; one store writes the whole pointer,
        // and by the safety requirements `to` is a handler of the exit.
        unsafe { ptr::write_volatile(slot, to) };
        true
    }

    /// Returns the function of the backend; null if the backend has none.
    fn replacement(&self) -> *mut c_void {
        self.replacement
            .map_or(ptr::null_mut(), |handler| handler as *mut c_void)
    }
}

/// The number of exits that the backend handles.
pub(super) const EXITS: usize = 6;

/// The number of these that KVM's table leads to.
const SLOTS: usize = if cfg!(CONFIG_MITIGATION_RETPOLINE) {
    EXITS - 1
} else {
    EXITS
};

/// The number of these that KVM calls by a name that livepatch patches, and not by its table: 0 if
/// the compiler left no such call, so that C handles the exit.
const CALLED_BY_NAME: usize =
    if cfg!(CONFIG_MITIGATION_RETPOLINE) && bindings::VMX_VPID_MISCONFIG_CALLED != 0 {
        1
    } else {
        0
    };

/// Returns the exits that a table of operations handles.
///
/// # Safety
///
/// The symbols of kvm_intel are resolved.
unsafe fn exits(ops: &bindings::vmx_vpid_ops) -> [Slot; SLOTS] {
    macro_rules! exit {
        ($name:ident, $reason:ident, $original:ident) => {
            Slot {
                name: stringify!($name),
                reason: bindings::$reason,
                // SAFETY: An import is a static pointer; by the safety requirements it is filled
                // in.
                original: unsafe { bindings::$original },
                replacement: ops.$name,
            }
        };
    }
    [
        exit!(
            handle_invlpg,
            VMX_VPID_EXIT_INVLPG,
            vmx_vpid_import_handle_invlpg
        ),
        exit!(
            handle_invpcid,
            VMX_VPID_EXIT_INVPCID,
            vmx_vpid_import_handle_invpcid
        ),
        exit!(
            handle_invvpid,
            VMX_VPID_EXIT_INVVPID,
            vmx_vpid_import_handle_invvpid
        ),
        exit!(
            handle_invept,
            VMX_VPID_EXIT_INVEPT,
            vmx_vpid_import_handle_invept
        ),
        exit!(
            handle_ept_violation,
            VMX_VPID_EXIT_EPT_VIOLATION,
            vmx_vpid_import_handle_ept_violation
        ),
        #[cfg(not(CONFIG_MITIGATION_RETPOLINE))]
        exit!(
            handle_ept_misconfig,
            VMX_VPID_EXIT_EPT_MISCONFIG,
            vmx_vpid_import_handle_ept_misconfig
        ),
    ]
}

/// Points KVM's exits at the backend; returns the number of exits that lead there, by the table or
/// by livepatch alone.
///
/// An exit that leads to an unexpected function is left alone: with `nested=0` the exits of VMX
/// instructions lead to a handler that raises #UD.  A second call changes nothing.
///
/// # Safety
///
/// kvm_intel is live, its symbols are resolved, its functions are livepatched by those in `ops`,
/// and calls of this function and of [`disarm()`] are serialised.
pub(super) unsafe fn arm(ops: &bindings::vmx_vpid_ops) -> usize {
    let mut armed = CALLED_BY_NAME;
    if SLOTS + CALLED_BY_NAME < EXITS {
        pr_info!("the compiler inlined KVM's handle_ept_misconfig: C handles its exit\n");
    }
    // SAFETY: By the safety requirements the symbols are resolved.
    for exit in unsafe { exits(ops) } {
        let to = exit.replacement();
        // SAFETY: By the safety requirements the symbols are resolved, and no other code writes the
        // table.  Both functions are handlers of this exit; the second call writes the value that
        // is there.
        if unsafe { exit.switch(exit.original, to) || exit.switch(to, to) } {
            armed += 1;
        } else {
            pr_info!("KVM's {} does not handle its exit\n", exit.name);
        }
    }
    armed
}

/// Points KVM's exits back at kvm_intel's functions, which are still livepatched, and waits until
/// no vCPU is about to call a pointer that it read from the table before.
///
/// # Safety
///
/// The symbols of kvm_intel are resolved, calls of this function and of [`arm()`] are serialised,
/// and this task may sleep.
pub(super) unsafe fn disarm(ops: &bindings::vmx_vpid_ops) {
    // SAFETY: By the safety requirements the symbols are resolved.
    for exit in unsafe { exits(ops) } {
        // SAFETY: By the safety requirements the symbols are resolved, and no other code writes the
        // table.  Both functions are handlers of this exit.
        unsafe { exit.switch(exit.replacement(), exit.original) };
    }
    // SAFETY: By the safety requirements this task may sleep.
    unsafe { bindings::vmx_vpid_wait_for_exits() };
}
