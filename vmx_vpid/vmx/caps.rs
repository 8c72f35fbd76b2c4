// SPDX-License-Identifier: GPL-2.0

//! This module decodes the CPU's capabilities of EPT and VPIDs.
//!
//! The manual's appendix on VMX capability reporting describes the register.  KVM keeps a copy in
//! `vmx_capability`.  The module reads the CPU's own register once, at load: the register cannot
//! change while the machine runs.

use kernel::bitfield;

bitfield! {
    /// `IA32_VMX_EPT_VPID_CAP`.
    ///
    /// The value 0 means a CPU with neither EPT nor VPIDs.  The CPU has one value; KVM gives each
    /// L1 another value, with fewer bits.
    pub(crate) struct EptVpidCap(u64) {
        /// An EPT entry may permit fetches and no reads.
        0:0     execute_only => bool;
        /// EPT walks of four levels.
        6:6     walk_4 => bool;
        /// EPT walks of five levels.
        7:7     walk_5 => bool;
        /// EPT tables may be uncacheable memory.
        8:8     uncacheable => bool;
        /// EPT tables may be write-back memory.
        14:14   write_back => bool;
        /// Pages of 2 MiB.
        16:16   pages_2m => bool;
        /// Pages of 1 GiB.
        17:17   pages_1g => bool;
        /// `INVEPT` exists.
        20:20   invept => bool;
        /// Accessed and dirty flags in EPT entries.
        21:21   accessed_dirty => bool;
        /// EPT violations describe the guest's page, in bits 11:9 of the qualification.
        22:22   advanced_exit_info => bool;
        /// Control of supervisor shadow stacks by the EPT pointer.
        23:23   supervisor_shadow_stack => bool;
        /// `INVEPT` type 1, single context.
        25:25   invept_context => bool;
        /// `INVEPT` type 2, all contexts.
        26:26   invept_all => bool;
        /// `INVVPID` exists.
        32:32   invvpid => bool;
        /// `INVVPID` type 0, individual address.
        40:40   invvpid_address => bool;
        /// `INVVPID` type 1, single context.
        41:41   invvpid_context => bool;
        /// `INVVPID` type 2, all contexts.
        42:42   invvpid_all => bool;
        /// `INVVPID` type 3, single context retaining globals.
        43:43   invvpid_context_retain_globals => bool;
    }
}

impl EptVpidCap {
    /// Returns whether the CPU can invalidate by VPID at all.
    ///
    /// kvm_intel uses VPIDs by the same rule: the CPU has INVVPID, and at least one type that
    /// flushes a whole VPID.
    #[inline]
    pub(crate) fn can_flush_vpid(self) -> bool {
        self.invvpid() && (self.invvpid_context() || self.invvpid_all())
    }
}
