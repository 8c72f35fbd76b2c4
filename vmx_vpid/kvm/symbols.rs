// SPDX-License-Identifier: GPL-2.0

//! This module reads the private data of kvm_intel, through livepatch relocations.
//!
//! Each import is a pointer that livepatch fills in before `pre_patch` and clears after
//! `post_unpatch` (`rust/vmx_vpid_imports.h` lists the imports).  Two kinds of code may use an
//! import: an operation, because KVM calls operations only while kvm_intel is loaded; and code that
//! holds the mutex of [`super::attach`], in every phase but `Detached`.

use crate::bindings;
use core::ptr;

/// Returns the line that debugfs shows while the backend is detached; `live` is whether kvm_intel
/// is loaded.
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
    // SAFETY: By the safety requirements `import` points to a live `bool`, which kvm_intel writes
    // only in its initialisation.
    unsafe { *import.cast::<bool>() }
}

/// Returns whether guests run on EPT.  kvm_intel may initialise itself at the same time, and change
/// the value.
///
/// # Safety
///
/// kvm_intel's symbols are resolved.
pub(crate) unsafe fn enable_ept_by_now() -> bool {
    // SAFETY: By the safety requirements the import is filled in, and it is that of a `bool`.  One
    // load reads all of the value, which kvm_intel may write at the same time.
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
            // SAFETY: The import is that of a `bool`.  By the safety requirements the import is
            // filled in, and kvm_intel is initialised.
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
    /// Whether the CPU blocks NMIs until the guest's NMI handler ends (virtual NMIs): kvm_intel's
    /// `enable_vnmi`.
    enable_vnmi = vmx_vpid_import_enable_vnmi;
    /// Whether a guest may have fewer physical-address bits than the CPU: kvm's
    /// `allow_smaller_maxphyaddr`.
    allow_smaller_maxphyaddr = vmx_vpid_import_allow_smaller_maxphyaddr;
}
