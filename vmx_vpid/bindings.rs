// SPDX-License-Identifier: GPL-2.0

//! This module includes the bindings to KVM's private types and to the module's C part.
//!
//! bindgen generates the bindings from the headers of the tree that the module is built against.
//! Only [`crate::kvm`] and [`crate::debugfs`] may use the bindings; everything else works on types
//! of its own.

#![allow(
    clippy::all,
    clippy::cast_lossless,
    clippy::ptr_as_ptr,
    clippy::ref_as_ptr,
    clippy::undocumented_unsafe_blocks,
    dead_code,
    improper_ctypes,
    missing_docs,
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    // Not every compiler knows of `unnecessary_transmutes`.
    unknown_lints,
    unnecessary_transmutes,
    unreachable_pub,
    unsafe_op_in_unsafe_fn
)]

use kernel::ffi;
use pin_init::{
    MaybeZeroable,
    Zeroable, //
};

type __kernel_size_t = usize;
type __kernel_ssize_t = isize;
type __kernel_ptrdiff_t = isize;

// SAFETY: `__BindgenBitfieldUnit<Storage>` is a newtype around `Storage`, of which all zeroes are a
// valid value.
unsafe impl<Storage: Zeroable> Zeroable for __BindgenBitfieldUnit<Storage> {}

include!(concat!(env!("VMX_VPID_OBJ"), "/rust/bindings_generated.rs"));

/// The address of no page: KVM's `INVALID_PAGE`.
// CAST: The constant is signed for bindgen alone; the bits are those of KVM's.
pub(crate) const INVALID_PAGE: hpa_t = VMX_VPID_INVALID_PAGE as hpa_t;

/// The types that `asm/tlbflush.h` hides from modules.
pub(crate) mod tlb {
    use super::*;

    include!(concat!(
        env!("VMX_VPID_OBJ"),
        "/rust/bindings_tlb_generated.rs"
    ));
}
