// SPDX-License-Identifier: GPL-2.0

//! The private data of kvm_intel, by livepatch relocations.
//!
//! Each import is a pointer that livepatch fills in before `pre_patch` and empties after
//! `post_unpatch` (`rust/vmx_vpid_imports.h` lists them).  Two kinds of code may follow one: an
//! operation, since KVM calls operations only while kvm_intel is loaded; and a holder of the
//! handover's mutex, in every phase but `Detached`.

use crate::bindings;

/// Reads a boolean of kvm_intel.
///
/// # Safety
///
/// `import` is the import of a `bool`, and filled in.
#[inline]
unsafe fn read_bool(import: *mut kernel::ffi::c_void) -> bool {
    // SAFETY: By the contract, `import` points to a live `bool`.  kvm_intel writes it only in its
    // initialisation, before any vCPU exists.
    unsafe { *import.cast::<bool>() }
}

macro_rules! flags {
    ($($(#[$doc:meta])* $name:ident = $import:ident;)*) => {$(
        $(#[$doc])*
        ///
        /// # Safety
        ///
        /// kvm_intel is loaded and its symbols are resolved.
        #[inline]
        pub(super) unsafe fn $name() -> bool {
            // SAFETY: The import is that of a `bool`, and filled in by the contract.
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
