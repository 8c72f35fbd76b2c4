// SPDX-License-Identifier: GPL-2.0

//! This module has assertions at build time; userspace checks some of these only at run time.

pub use crate::{
    build_assert_macro as build_assert,
    build_error,
    const_assert,
    static_assert, //
};

/// Ends the program.  In the kernel, a call that is left after optimisation fails the build.
#[track_caller]
pub const fn build_error_fn(why: &'static str) -> ! {
    panic!("{}", why)
}

/// Asserts a condition on constants.
#[macro_export]
macro_rules! static_assert {
    ($condition:expr $(,$why:literal)?) => {
        const _: () = ::core::assert!($condition $(,$why)?);
    };
}

/// Asserts a condition on the constants of a generic function.
#[macro_export]
macro_rules! const_assert {
    ($condition:expr $(,$why:literal)?) => {
        const { ::core::assert!($condition $(,$why)?) }
    };
}

/// Asserts that a place is never reached.
#[macro_export]
macro_rules! build_error {
    () => {
        $crate::build_error!("")
    };
    ($why:expr) => {
        $crate::build_assert::build_error_fn($why)
    };
}

/// Asserts a condition that the optimiser evaluates in a build of the kernel.
#[doc(hidden)]
#[macro_export]
macro_rules! build_assert_macro {
    ($condition:expr $(,)?) => {
        $crate::build_assert::build_assert!($condition, stringify!($condition))
    };
    ($condition:expr, $why:expr) => {
        if !$condition {
            $crate::build_assert::build_error_fn($why)
        }
    };
}
