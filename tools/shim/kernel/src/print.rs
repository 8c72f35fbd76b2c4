// SPDX-License-Identifier: GPL-2.0

//! This module prints the kernel's log to the standard error output, which a failed test shows.

use crate::fmt;

/// Prints a message, which ends in a newline of its own.
pub fn print(message: fmt::Arguments<'_>) {
    eprint!("{}", message);
}

/// Does something once for each place.
#[doc(hidden)]
#[macro_export]
macro_rules! once {
    ($($what:tt)*) => {{
        static ONCE: ::std::sync::Once = ::std::sync::Once::new();
        ONCE.call_once(|| $($what)*);
    }};
}

/// Prints an error.
#[macro_export]
macro_rules! pr_err {
    ($($message:tt)*) => {
        $crate::print::print(::core::format_args!($($message)*))
    };
}

/// Prints a warning.
#[macro_export]
macro_rules! pr_warn {
    ($($message:tt)*) => {
        $crate::print::print(::core::format_args!($($message)*))
    };
}

/// Prints what is normal but of importance.
#[macro_export]
macro_rules! pr_notice {
    ($($message:tt)*) => {
        $crate::print::print(::core::format_args!($($message)*))
    };
}

/// Prints what is good to know.
#[macro_export]
macro_rules! pr_info {
    ($($message:tt)*) => {
        $crate::print::print(::core::format_args!($($message)*))
    };
}

/// Prints what helps to find an error.
#[macro_export]
macro_rules! pr_debug {
    ($($message:tt)*) => {
        $crate::print::print(::core::format_args!($($message)*))
    };
}

/// Prints an error, once for each place.
#[macro_export]
macro_rules! pr_err_once {
    ($($message:tt)*) => {
        $crate::once!($crate::pr_err!($($message)*))
    };
}

/// Prints a warning, once for each place.
#[macro_export]
macro_rules! pr_warn_once {
    ($($message:tt)*) => {
        $crate::once!($crate::pr_warn!($($message)*))
    };
}
