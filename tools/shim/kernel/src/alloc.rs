// SPDX-License-Identifier: GPL-2.0

//! This module has boxes and vectors whose allocations can fail.

use crate::fmt;
use core::{
    borrow::{
        Borrow,
        BorrowMut, //
    },
    marker::PhantomData,
    ops::{
        Deref,
        DerefMut, //
    },
    slice, //
};
use pin_init::Zeroable;

/// The error that no memory is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AllocError;

/// The flags of an allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flags(());

/// The values of [`Flags`].
pub mod flags {
    use super::Flags;

    /// The allocation may sleep.
    pub const GFP_KERNEL: Flags = Flags(());
    /// The allocation may not sleep.
    pub const GFP_ATOMIC: Flags = Flags(());
}

/// The allocator of contiguous memory.
#[derive(Debug)]
pub enum Kmalloc {}

/// The allocator of memory that may consist of separate pages.
#[derive(Debug)]
pub enum KVmalloc {}

/// A box of the kernel, from the allocator `A`.
#[derive(Debug)]
pub struct Box<T: ?Sized, A>(std::boxed::Box<T>, PhantomData<A>);

/// A [`Box`] of [`Kmalloc`].
pub type KBox<T> = Box<T, Kmalloc>;
/// A [`Box`] of [`KVmalloc`].
pub type KVBox<T> = Box<T, KVmalloc>;

impl<T, A> Box<T, A> {
    /// Creates a box.
    pub fn new(value: T, _flags: Flags) -> Result<Self, AllocError> {
        Ok(Self(std::boxed::Box::new(value), PhantomData))
    }

    /// Creates a box of zeroes, in place: the value may be larger than the stack.
    pub fn zeroed(_flags: Flags) -> Result<Self, AllocError>
    where
        T: Zeroable,
    {
        let new = std::boxed::Box::<T>::new_zeroed();
        // SAFETY: `T` is `Zeroable`, so the zeroed bytes are a valid `T`.
        Ok(Self(unsafe { new.assume_init() }, PhantomData))
    }

    /// Returns the value in the box.
    pub fn into_inner(this: Self) -> T {
        *this.0
    }
}

impl<T: ?Sized, A> Deref for Box<T, A> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: ?Sized, A> DerefMut for Box<T, A> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

/// A vector of the kernel, from the allocator `A`.
pub struct Vec<T, A>(std::vec::Vec<T>, PhantomData<A>);

/// A [`Vec`] of [`Kmalloc`].
pub type KVec<T> = Vec<T, Kmalloc>;
/// A [`Vec`] of [`KVmalloc`].
pub type KVVec<T> = Vec<T, KVmalloc>;

impl<T, A> Vec<T, A> {
    /// Creates an empty vector.
    pub const fn new() -> Self {
        Self(std::vec::Vec::new(), PhantomData)
    }

    /// Creates a vector with room for `capacity` elements.
    pub fn with_capacity(capacity: usize, flags: Flags) -> Result<Self, AllocError> {
        let mut new = Self::new();
        new.reserve(capacity, flags)?;
        Ok(new)
    }

    /// Makes room for `additional` elements.
    pub fn reserve(&mut self, additional: usize, _flags: Flags) -> Result<(), AllocError> {
        self.0.try_reserve(additional).map_err(|_| AllocError)
    }

    /// Returns the number of elements that the vector has room for.
    pub fn capacity(&self) -> usize {
        self.0.capacity()
    }

    /// Appends an element.
    pub fn push(&mut self, value: T, flags: Flags) -> Result<(), AllocError> {
        self.reserve(1, flags)?;
        self.0.push(value);
        Ok(())
    }

    /// Removes and returns the last element.
    pub fn pop(&mut self) -> Option<T> {
        self.0.pop()
    }

    /// Drops every element.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Drops the elements from `len` on.
    pub fn truncate(&mut self, len: usize) {
        self.0.truncate(len);
    }

    /// Drops the elements for which `keep` returns false.
    pub fn retain(&mut self, keep: impl FnMut(&mut T) -> bool) {
        self.0.retain_mut(keep);
    }
}

impl<T: Clone, A> Vec<T, A> {
    /// Creates a vector of `n` copies of a value.
    pub fn from_elem(value: T, n: usize, flags: Flags) -> Result<Self, AllocError> {
        let mut new = Self::new();
        new.resize(n, value, flags)?;
        Ok(new)
    }

    /// Appends `n` copies of a value.
    pub fn extend_with(&mut self, n: usize, value: T, flags: Flags) -> Result<(), AllocError> {
        let len = self.len().checked_add(n).ok_or(AllocError)?;
        self.resize(len, value, flags)
    }

    /// Appends copies of the elements of a slice.
    pub fn extend_from_slice(&mut self, other: &[T], flags: Flags) -> Result<(), AllocError> {
        self.reserve(other.len(), flags)?;
        self.0.extend_from_slice(other);
        Ok(())
    }

    /// Drops elements, or appends copies of a value, until there are `len` elements.
    pub fn resize(&mut self, len: usize, value: T, flags: Flags) -> Result<(), AllocError> {
        self.reserve(len.saturating_sub(self.len()), flags)?;
        self.0.resize(len, value);
        Ok(())
    }
}

impl<T, A> Default for Vec<T, A> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: fmt::Debug, A> fmt::Debug for Vec<T, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<T, A> Deref for Vec<T, A> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T, A> DerefMut for Vec<T, A> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.0
    }
}

impl<T, A> Borrow<[T]> for Vec<T, A> {
    fn borrow(&self) -> &[T] {
        self
    }
}

impl<T, A> BorrowMut<[T]> for Vec<T, A> {
    fn borrow_mut(&mut self) -> &mut [T] {
        self
    }
}

impl<T: PartialEq<U>, U, A, B> PartialEq<Vec<U, B>> for Vec<T, A> {
    fn eq(&self, other: &Vec<U, B>) -> bool {
        self.0 == other.0
    }
}

impl<T: PartialEq<U>, U, A> PartialEq<[U]> for Vec<T, A> {
    fn eq(&self, other: &[U]) -> bool {
        self.0 == *other
    }
}

impl<T: PartialEq<U>, U, A, const N: usize> PartialEq<[U; N]> for Vec<T, A> {
    fn eq(&self, other: &[U; N]) -> bool {
        self.0 == *other
    }
}

impl<T, A> IntoIterator for Vec<T, A> {
    type Item = T;
    type IntoIter = std::vec::IntoIter<T>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a, T, A> IntoIterator for &'a Vec<T, A> {
    type Item = &'a T;
    type IntoIter = slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<'a, T, A> IntoIterator for &'a mut Vec<T, A> {
    type Item = &'a mut T;
    type IntoIter = slice::IterMut<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter_mut()
    }
}
