// SPDX-License-Identifier: GPL-2.0

//! Addresses, one type for each space they live in.
//!
//! A guest-virtual, a guest-physical and a host-physical address are all 64-bit numbers, and most
//! faults of this layer's history come from taking one for another.  Here they do not convert into
//! each other.

/// A guest-virtual (linear) address, as a guest's instruction or page walk uses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct Gva(u64);

impl Gva {
    /// Takes a guest-virtual address; every 64-bit value is one, canonical or not.
    #[inline]
    pub(crate) const fn new(address: u64) -> Self {
        Self(address)
    }

    /// Returns the address as a number.
    #[inline]
    pub(crate) const fn into_raw(self) -> u64 {
        self.0
    }
}

/// A host-physical address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct Hpa(u64);

impl Hpa {
    /// Takes a host-physical address.
    #[inline]
    pub(crate) const fn new(address: u64) -> Self {
        Self(address)
    }

    /// Returns the address as a number.
    #[inline]
    pub(crate) const fn into_raw(self) -> u64 {
        self.0
    }
}
