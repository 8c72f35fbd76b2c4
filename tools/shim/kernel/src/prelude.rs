// SPDX-License-Identifier: GPL-2.0

//! This module has the names of the kernel's prelude.

pub use crate::{
    alloc::{
        flags::*,
        Box,
        KBox,
        KVBox,
        KVVec,
        KVec,
        Vec, //
    },
    build_assert::{
        build_assert,
        build_error,
        const_assert,
        static_assert, //
    },
    error::{
        code::*,
        Error,
        Result, //
    },
    module,
    pr_debug,
    pr_err,
    pr_info,
    pr_notice,
    pr_warn,
    ThisModule, //
};
pub use core::{
    mem::{
        align_of,
        align_of_val,
        size_of,
        size_of_val, //
    },
    pin::Pin, //
};
pub use macros::{
    fmt,
    kunit_tests,
    vtable, //
};
pub use pin_init::Zeroable;
