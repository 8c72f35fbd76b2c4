// SPDX-License-Identifier: GPL-2.0

//! The private data of kvm_intel, by livepatch relocations.
//!
//! Each import is a pointer that livepatch fills in before `pre_patch` and empties after
//! `post_unpatch` (`rust/vmx_vpid_imports.h` lists them).  Two kinds of code may follow one: an
//! operation, since KVM calls operations only while kvm_intel is loaded; and a holder of the
//! handover's mutex, in every phase but `Detached`.

use crate::bindings;
use core::ptr;

/// What is said of kvm_intel when there is nothing to be seen of it.
pub(crate) fn absence(live: bool) -> &'static str {
    if live {
        "kvm_intel: served by C"
    } else {
        "kvm_intel: not loaded"
    }
}

/// Reads a boolean of kvm_intel.
///
/// # Safety
///
/// `import` is the import of a `bool`, and filled in; kvm_intel is initialised.
#[inline]
unsafe fn read_bool(import: *mut kernel::ffi::c_void) -> bool {
    // SAFETY: By the contract, `import` points to a live `bool`, which kvm_intel writes only in its
    // initialisation.
    unsafe { *import.cast::<bool>() }
}

/// Whether guests run on EPT, to be asked while kvm_intel may be in its initialisation, which
/// changes it.
///
/// # Safety
///
/// kvm_intel's symbols are resolved.
pub(crate) unsafe fn enable_ept_by_now() -> bool {
    // SAFETY: By the contract, this is the import of a live `bool`, and filled in.  One load of all
    // of it.
    unsafe { ptr::read_volatile(bindings::vmx_vpid_import_enable_ept.cast()) }
}

macro_rules! flags {
    ($($(#[$doc:meta])* $name:ident = $import:ident;)*) => {$(
        $(#[$doc])*
        ///
        /// # Safety
        ///
        /// There is a vCPU, so that kvm_intel is initialised, and its symbols are resolved.
        #[inline]
        pub(crate) unsafe fn $name() -> bool {
            // SAFETY: The import is that of a `bool`.  By the contract it is filled in, and
            // kvm_intel is initialised.
            unsafe { read_bool(bindings::$import) }
        }
    )*};
}

flags! {
    /// Whether guests run on EPT: kvm_intel's `enable_ept`.
    enable_ept = vmx_vpid_import_enable_ept;
    /// Whether EPT tables have accessed and dirty flags: kvm_intel's `enable_ept_ad_bits`.
    enable_ept_ad_bits = vmx_vpid_import_enable_ept_ad_bits;
    /// Whether guests run with VPIDs: kvm_intel's `enable_vpid`.
    enable_vpid = vmx_vpid_import_enable_vpid;
    /// Whether the CPU knows when an NMI handler of the guest's is done: kvm_intel's `enable_vnmi`.
    enable_vnmi = vmx_vpid_import_enable_vnmi;
    /// Whether a guest may have fewer address bits than the CPU: kvm's `allow_smaller_maxphyaddr`.
    allow_smaller_maxphyaddr = vmx_vpid_import_allow_smaller_maxphyaddr;
}
