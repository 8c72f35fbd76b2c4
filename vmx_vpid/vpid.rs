// SPDX-License-Identifier: GPL-2.0

//! This module manages VPIDs: it allocates and frees VPIDs, and records on which CPUs each VPID was
//! flushed since its allocation.
//!
//! A VPID tags the linear and the combined mappings of one virtual processor.  The pool ([`pool`])
//! is the module's own allocator; KVM's bitmap ([`bitmap`]) is C's.  Exactly one of the two is
//! active at any time ([`allocator`]).
//! Source: the manual's chapter on caching translation information with VMX.

pub(crate) mod allocator;
pub(crate) mod bitmap;
pub(crate) mod flushed_cpus;
pub(crate) mod holders;
pub(crate) mod owned;
pub(crate) mod pool;
pub(crate) mod vmcs;

use core::num::NonZeroU16;

/// A virtual-processor identifier that a guest may run with.
///
/// A VPID is never 0: VPID 0 is the host's, and VM entry with the VPID control set and VPID 0
/// fails.  `Option<Vpid>` has the same size; `None` means "no VPID".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct Vpid(NonZeroU16);

impl Vpid {
    /// The number of VPIDs, including the host's 0; KVM's `VMX_NR_VPIDS`.
    pub(crate) const COUNT: usize = 1 << u16::BITS;

    /// Returns the VPID with a number; `None` for 0, which no guest can have.
    #[inline]
    pub(crate) const fn new(vpid: u16) -> Option<Self> {
        match NonZeroU16::new(vpid) {
            Some(vpid) => Some(Self(vpid)),
            None => None,
        }
    }

    /// Returns the number, 1..=65535.
    #[inline]
    pub(crate) const fn into_raw(self) -> u16 {
        self.0.get()
    }
}
