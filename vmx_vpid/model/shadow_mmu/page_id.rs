// SPDX-License-Identifier: GPL-2.0

//! This module defines the numbers of frames and of shadow pages.

use crate::x86::addr::Hpa;

/// The number of a frame of guest-physical memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gfn(pub(crate) u64);

/// The number of a shadow page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PageId(pub(crate) u8);

impl PageId {
    /// The address of the first page.
    const BASE: u64 = 1 << 40;

    /// Returns the page's address.
    pub(crate) fn address(self) -> Hpa {
        Hpa::new(Self::BASE | u64::from(self.0) << 12)
    }

    /// Returns the page at an address.
    pub(crate) fn at(address: Hpa) -> Self {
        // CAST: The masked value has 8 bits.
        Self((address.into_raw() >> 12 & 0xff) as u8)
    }
}
