// SPDX-License-Identifier: GPL-2.0

//! This module manages VPIDs: which are allocated, who owns them, and on which CPUs each was flushed
//! since its allocation.
//!
//! The pool ([`pool`]) is the module's own allocator; KVM's bitmap ([`bitmap`]) is C's.  Exactly one of
//! the two is active at any time ([`allocator`]).

pub(crate) mod allocator;
pub(crate) mod bitmap;
pub(crate) mod holders;
pub(crate) mod owned;
pub(crate) mod pool;
pub(crate) mod vmcs;
