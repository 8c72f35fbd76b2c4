// SPDX-License-Identifier: GPL-2.0

//! This crate has the part of the kernel's crate that is about zeroed types.

use core::{
    cell::{
        Cell,
        UnsafeCell, //
    },
    mem::MaybeUninit,
    num, //
};

pub use macros::Zeroable;

/// A type for which zeroed bytes are a valid value.
///
/// # Safety
///
/// A value whose bytes are all zero must be a valid value of the type.
pub unsafe trait Zeroable {
    /// Returns the value whose bytes are all zero.
    fn zeroed() -> Self
    where
        Self: Sized,
    {
        zeroed()
    }
}

/// Returns the value whose bytes are all zero.
pub const fn zeroed<T: Zeroable>() -> T {
    // SAFETY: `T` is `Zeroable`, so zeroed bytes are a valid `T`.
    unsafe { core::mem::zeroed() }
}

/// Implements [`Zeroable`] for types.
macro_rules! zeroable {
    ($($type:ty),* $(,)?) => {
        // SAFETY: Zeroed bytes are 0, `false`, `'\0'`, `None` or `()`, which are valid values.
        $(unsafe impl Zeroable for $type {})*
    };
}

zeroable! {
    (), bool, char,
    u8, u16, u32, u64, u128, usize,
    i8, i16, i32, i64, i128, isize,
    Option<num::NonZeroU8>, Option<num::NonZeroU16>,
    Option<num::NonZeroU32>, Option<num::NonZeroU64>,
}

// SAFETY: Each element of the array is a `T`, for which zeroed bytes are valid.
unsafe impl<const N: usize, T: Zeroable> Zeroable for [T; N] {}
// SAFETY: A `Cell<T>` has the layout of `T`, for which zeroed bytes are valid.
unsafe impl<T: Zeroable> Zeroable for Cell<T> {}
// SAFETY: An `UnsafeCell<T>` has the layout of `T`, for which zeroed bytes are valid.
unsafe impl<T: Zeroable> Zeroable for UnsafeCell<T> {}
// SAFETY: Any bytes are a valid `MaybeUninit<T>`.
unsafe impl<T> Zeroable for MaybeUninit<T> {}
