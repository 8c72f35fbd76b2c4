// SPDX-License-Identifier: GPL-2.0

//! This module has the kernel's errors.

use crate::{
    alloc::AllocError,
    fmt, //
};
use core::num::TryFromIntError;

/// An error of the kernel: an error number, negated as in the kernel's return values.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Error(i32);

/// A result with an error of the kernel.
pub type Result<T = (), E = Error> = core::result::Result<T, E>;

/// The message of the default implementation of a mandatory function of a table.
pub const VTABLE_DEFAULT_ERROR: &str =
    "This function must not be called, see the #[vtable] documentation.";

/// Declares the error numbers, and their names.
macro_rules! codes {
    ($($name:ident = $number:literal, $meaning:literal;)*) => {
        /// The errors, by their names in the kernel's C code.
        pub mod code {
            $(
                #[doc = $meaning]
                pub const $name: super::Error = super::Error(-$number);
            )*
        }

        impl fmt::Debug for Error {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match -self.0 {
                    $($number => f.write_str(stringify!($name)),)*
                    number => f.debug_tuple("Error").field(&number).finish(),
                }
            }
        }
    };
}

codes! {
    EPERM = 1, "Operation not permitted.";
    ENOENT = 2, "No such file or directory.";
    EINTR = 4, "Interrupted system call.";
    EIO = 5, "I/O error.";
    ENXIO = 6, "No such device or address.";
    E2BIG = 7, "Argument list too long.";
    EAGAIN = 11, "Try again.";
    ENOMEM = 12, "Out of memory.";
    EACCES = 13, "Permission denied.";
    EFAULT = 14, "Bad address.";
    EBUSY = 16, "Device or resource busy.";
    EEXIST = 17, "File exists.";
    ENODEV = 19, "No such device.";
    EINVAL = 22, "Invalid argument.";
    ENOSPC = 28, "No space left on device.";
    ERANGE = 34, "Math result not representable.";
    ENOSYS = 38, "Invalid system call number.";
    EOVERFLOW = 75, "Value too large for defined data type.";
    EOPNOTSUPP = 95, "Operation not supported on transport endpoint.";
}

impl Error {
    /// Returns the negative error number.
    pub const fn to_errno(self) -> i32 {
        self.0
    }
}

impl From<AllocError> for Error {
    fn from(_: AllocError) -> Self {
        code::ENOMEM
    }
}

impl From<TryFromIntError> for Error {
    fn from(_: TryFromIntError) -> Self {
        code::EINVAL
    }
}

impl From<fmt::Error> for Error {
    fn from(_: fmt::Error) -> Self {
        code::EINVAL
    }
}

impl From<core::convert::Infallible> for Error {
    fn from(never: core::convert::Infallible) -> Self {
        match never {}
    }
}
