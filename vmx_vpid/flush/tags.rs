// SPDX-License-Identifier: GPL-2.0

//! How the translations of a vCPU are tagged: its VPIDs, and the roots that its EPT pointers name.

use crate::{
    ept::Levels,
    flush::execute::Plan,
    vpid::Vpid,
    x86::addr::Hpa, //
};

/// The root of the tables that a vCPU runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Root {
    /// None is loaded.
    Invalid,
    /// One of which KVM knows no more than the address.
    Unknown,
    /// One with all that its EPT pointer is made of.
    Known {
        /// Address of the root table.
        table: Hpa,
        /// Number of its levels.
        levels: Levels,
        /// Whether the CPU keeps accessed and dirty flags in it.
        accessed_dirty: bool,
    },
}

/// How a vCPU's translations are tagged; what [`decide()`](crate::flush::decide) asks of a vCPU, and no more.
///
/// Asked only where the answer matters, since some of them take several loads.
pub(crate) trait Tags {
    /// Whether guests run on EPT: their tags are EP4TA then, besides the VPID.
    fn ept(&self) -> bool;
    /// Whether guests run with VPIDs at all.
    fn vpid(&self) -> bool;
    /// The VPID that L1 runs with.
    fn vpid01(&self) -> Option<Vpid>;
    /// The VPID set aside for L2.
    fn vpid02(&self) -> Option<Vpid>;
    /// The VPID that this vCPU enters the guest with as it stands: that of L2 if L2 is active and
    /// L1 gave it a VPID of its own, else that of L1.
    fn current_vpid(&self) -> Option<Vpid>;
    /// The root in use.
    fn root(&self) -> Root;
    /// Every root that the vCPU can come to use without loading it anew: the current and the cached
    /// ones, those for L1 and those for L2.
    fn roots(&self) -> [Root; ROOTS];
}

/// How many roots a vCPU keeps: four for L1's tables, four for those of L2.
pub(crate) const ROOTS: usize = Plan::MAX;
