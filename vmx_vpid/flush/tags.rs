// SPDX-License-Identifier: GPL-2.0

//! This module describes how the translations of a vCPU are tagged: by the vCPU's VPIDs, and by the
//! roots that its EPT pointers name.

use crate::{
    ept::Levels,
    flush::execute::Plan,
    vpid::Vpid,
    x86::addr::Hpa, //
};

/// The root of the tables that a vCPU runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Root {
    /// No root is loaded.
    Invalid,
    /// A root of which KVM knows the address only: its EPT pointer cannot be built.
    Unknown,
    /// A root of which KVM knows all parts of the EPT pointer.
    Known {
        /// The address of the root table.
        table: Hpa,
        /// The number of levels of tables.
        levels: Levels,
        /// Whether the CPU sets accessed and dirty flags in the tables.
        accessed_dirty: bool,
    },
}

/// How a vCPU's translations are tagged: the state that [`decide()`](crate::flush::decide) reads.
///
/// `decide()` calls a method only where the result matters, since some methods take several loads.
pub(crate) trait Tags {
    /// Returns whether guests run with EPT: an EP4TA tags mappings then, besides the VPID.
    fn ept(&self) -> bool;
    /// Returns whether guests run with VPIDs at all.
    fn vpid(&self) -> bool;
    /// Returns the VPID that L1 runs with.
    fn vpid01(&self) -> Option<Vpid>;
    /// Returns the VPID that is reserved for L2.
    fn vpid02(&self) -> Option<Vpid>;
    /// Returns the VPID that this vCPU would enter the guest with now: vpid02 if L2 is active and
    /// L1 gave L2 a VPID of its own, else vpid01.
    fn current_vpid(&self) -> Option<Vpid>;
    /// Returns the current root.
    fn root(&self) -> Root;
    /// Returns every root that the vCPU can switch to without loading it: the current root and the
    /// cached ones, for L1 and for L2.
    fn roots(&self) -> [Root; ROOTS];
}

/// The number of roots that a vCPU keeps: four for L1's tables, four for the tables of L2.
pub(crate) const ROOTS: usize = Plan::MAX;
