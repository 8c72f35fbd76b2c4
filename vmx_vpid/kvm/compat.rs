// SPDX-License-Identifier: GPL-2.0

//! This module hides the differences between the kernels that the module is built for, 7.2 and 7.3:
//! all other code is the same for both.
//!
//! `Kbuild` sets `vmx_vpid_linux_7_3` for 7.3 and later.  `rust/compat.h` is the C part, and
//! [`crate::x86::compat`] is about the compiler.

use crate::bindings;
use core::borrow::Borrow;
use kernel::prelude::*;

/// Returns `EOPNOTSUPP`, for which the kernel crate of 7.2 has no name.
pub(crate) fn not_supported() -> Error {
    // CAST: An errno is below 4096.
    Error::from_errno(-(kernel::bindings::EOPNOTSUPP as c_int))
}

/// A module parameter that is on or off.  The kernel crate of 7.2 has none of type `bool`.
pub(crate) trait Flag {
    /// Returns whether the parameter is on.
    fn is_on(&self) -> bool;
}

impl Flag for bool {
    fn is_on(&self) -> bool {
        *self
    }
}

impl Flag for u8 {
    fn is_on(&self) -> bool {
        *self != 0
    }
}

/// Returns the value of a module parameter, which 7.2 lends and 7.3 copies.
pub(crate) fn copied<T: Copy>(value: impl Borrow<T>) -> T {
    *value.borrow()
}

/// Returns the `kvm_pagewalk` by which KVM walks the page tables of the guest that runs.
///
/// # Safety
///
/// `vcpu` is live, and this task has loaded it.
#[cfg(vmx_vpid_linux_7_3)]
#[inline]
pub(super) unsafe fn gva_walk(vcpu: *mut bindings::kvm_vcpu) -> *mut bindings::kvm_pagewalk {
    // SAFETY: By the safety requirements `vcpu` is live; only an address is computed.
    unsafe { &raw mut (*vcpu).arch.gva_walk }
}

/// Returns the MMU by which KVM walks the page tables of the guest that runs.
///
/// # Safety
///
/// `vcpu` is live, and this task has loaded it.
#[cfg(not(vmx_vpid_linux_7_3))]
#[inline]
pub(super) unsafe fn gva_walk(vcpu: *mut bindings::kvm_vcpu) -> *mut bindings::kvm_mmu {
    // SAFETY: By the safety requirements `vcpu` is live, and this task alone writes the field.
    unsafe { (*vcpu).arch.walk_mmu }
}
