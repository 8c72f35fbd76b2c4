// SPDX-License-Identifier: GPL-2.0

//! This module prints the kernel's log to standard error, which a failed test shows.

use crate::fmt;

/// Prints a message, which has to end with a newline.
pub fn print(message: fmt::Arguments<'_>) {
    eprint!("{}", message);
}

/// Executes an expression at most once for each use of the macro.
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

/// Prints a notice.
#[macro_export]
macro_rules! pr_notice {
    ($($message:tt)*) => {
        $crate::print::print(::core::format_args!($($message)*))
    };
}

/// Prints a piece of information.
#[macro_export]
macro_rules! pr_info {
    ($($message:tt)*) => {
        $crate::print::print(::core::format_args!($($message)*))
    };
}

/// Prints a message for debugging.
#[macro_export]
macro_rules! pr_debug {
    ($($message:tt)*) => {
        $crate::print::print(::core::format_args!($($message)*))
    };
}

/// Prints an error, at most once for each use of the macro.
#[macro_export]
macro_rules! pr_err_once {
    ($($message:tt)*) => {
        $crate::once!($crate::pr_err!($($message)*))
    };
}

/// Prints a warning, at most once for each use of the macro.
#[macro_export]
macro_rules! pr_warn_once {
    ($($message:tt)*) => {
        $crate::once!($crate::pr_warn!($($message)*))
    };
}
