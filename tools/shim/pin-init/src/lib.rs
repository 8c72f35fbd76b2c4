// SPDX-License-Identifier: GPL-2.0

//! This crate has the part of the kernel's crate about types that may be all zeroes.

use core::{
    cell::{
        Cell,
        UnsafeCell, //
    },
    mem::MaybeUninit,
    num, //
};

pub use macros::Zeroable;

/// A type of which all zeroes are a value.
///
/// # Safety
///
/// They have to be.
pub unsafe trait Zeroable {
    /// Returns that value.
    fn zeroed() -> Self
    where
        Self: Sized,
    {
        zeroed()
    }
}

/// Returns all zeroes.
pub const fn zeroed<T: Zeroable>() -> T {
    // SAFETY: They are a value of the type.
    unsafe { core::mem::zeroed() }
}

/// Implements [`Zeroable`] for types.
macro_rules! zeroable {
    ($($type:ty),* $(,)?) => {
        // SAFETY: Zeroes are a number of each, `false`, `None` or nothing at all.
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

// SAFETY: Each element is.
unsafe impl<const N: usize, T: Zeroable> Zeroable for [T; N] {}
// SAFETY: What is in it, is.
unsafe impl<T: Zeroable> Zeroable for Cell<T> {}
// SAFETY: What is in it, is.
unsafe impl<T: Zeroable> Zeroable for UnsafeCell<T> {}
// SAFETY: Anything is.
unsafe impl<T> Zeroable for MaybeUninit<T> {}
