// SPDX-License-Identifier: GPL-2.0

//! What a flush may be answered by: what the CPU can do, less what is to be pretended or forced.
//!
//! Three switches, for those who look for a missing flush or try another policy; by default they
//! are off, and a request is answered as narrowly as the CPU can.

use crate::vmx::caps::EptVpidCap;
use kernel::{
    bitfield,
    bits::bit_u64,
    fmt,
    prelude::*, //
};

bitfield! {
    /// What a flush may be answered by.
    ///
    /// A value made by [`Switches::policy()`] allows `invvpid_context` or `invvpid_all`, or both.
    pub(crate) struct Policy(u32) {
        /// INVVPID type 0 may be issued.
        0:0     invvpid_address => bool;
        /// INVVPID type 1 may be issued.
        1:1     invvpid_context => bool;
        /// INVVPID type 2 may be issued.
        2:2     invvpid_all => bool;
        /// INVEPT type 1 may be issued.
        3:3     invept_context => bool;
        /// A flush of all that a vCPU can use names each of its contexts.
        4:4     by_context => bool;
        /// Every request is answered by the widest flush there is.
        5:5     force => bool;
        /// Each flush looks whether the VMCS has the right VPID.
        6:6     check_vmcs => bool;
    }
}

impl Policy {
    /// What most CPUs have: every type of both instructions, and nothing is switched.
    pub(crate) const DEFAULT: Self = Self::from_raw(0b1111);
}

/// What a user may switch, at load and at run time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Switches {
    /// Answer every request with the widest flush, to find out whether a fault is a missing one.
    pub(crate) force_flush: bool,
    /// Answer `flush_tlb_all` by the contexts that the vCPU can use, so that those of other VMs
    /// on this CPU survive.
    pub(crate) flush_context: bool,
    /// Bits of `IA32_VMX_EPT_VPID_CAP` that are taken for missing.
    pub(crate) caps_mask: u64,
    /// Have each flush look whether the VMCS has the right VPID.
    pub(crate) check_vmcs: bool,
}

/// Why a mask of capabilities is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MaskError {
    /// It has bits that no flush depends on.
    Unknown,
    /// Without them no VPID could be flushed.
    NothingLeft,
}

impl fmt::Display for MaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "only bits 25, 40, 41 and 42 can be masked",
            Self::NothingLeft => "of bits 41 and 42 one has to be left that the CPU has",
        })
    }
}

impl Switches {
    /// The capabilities that can be pretended to be missing: those that have a wider one to take
    /// their place: INVEPT of one context; INVVPID of an address, of one context, of all.
    ///
    /// KVM turns EPT off where INVEPT of all contexts is missing, and VPIDs where INVVPID is.
    const MASKABLE: u64 = bit_u64(25) | bit_u64(40) | bit_u64(41) | bit_u64(42);

    /// Checks that a CPU is left with what flushes cannot do without.
    ///
    /// # Errors
    ///
    /// Those of [`MaskError`].
    pub(crate) fn check(self, caps: EptVpidCap) -> Result<(), MaskError> {
        if self.caps_mask & !Self::MASKABLE != 0 {
            return Err(MaskError::Unknown);
        }
        if !self.left(caps).can_flush_vpid() {
            return Err(MaskError::NothingLeft);
        }
        Ok(())
    }

    /// Returns what a CPU can do, less what is masked.
    fn left(self, caps: EptVpidCap) -> EptVpidCap {
        EptVpidCap::from(caps.into_raw() & !self.caps_mask)
    }

    /// Returns what a flush may be answered by on a CPU.
    pub(crate) fn policy(self, caps: EptVpidCap) -> Policy {
        let caps = self.left(caps);
        Policy::zeroed()
            .with_invvpid_address(caps.invvpid_address())
            .with_invvpid_context(caps.invvpid_context())
            .with_invvpid_all(caps.invvpid_all())
            .with_invept_context(caps.invept_context())
            .with_by_context(self.flush_context)
            .with_force(self.force_flush)
            .with_check_vmcs(self.check_vmcs)
    }
}

#[cfg(CONFIG_VMX_VPID_KUNIT_TEST)]
#[kernel::macros::kunit_tests(vmx_vpid_policy)]
mod tests {
    use super::*;

    fn masked(caps_mask: u64) -> Switches {
        Switches {
            caps_mask,
            ..Switches::default()
        }
    }

    #[test]
    fn what_is_masked_is_missing() {
        let full = EptVpidCap::from(u64::MAX);
        let policy = Switches::default().policy(full);
        assert_eq!(policy.into_raw(), 0b00_1111);
        assert!(policy == Policy::DEFAULT);
        for (bit, left) in [
            (25, 0b00_0111),
            (40, 0b00_1110),
            (41, 0b00_1101),
            (42, 0b00_1011),
        ] {
            let switches = masked(1 << bit);
            assert_eq!(switches.check(full), Ok(()));
            assert_eq!(switches.policy(full).into_raw(), left);
            assert!(switches.policy(full) != Policy::DEFAULT);
        }
        let switches = Switches {
            force_flush: true,
            flush_context: true,
            ..masked(1 << 40)
        };
        assert_eq!(switches.policy(full).into_raw(), 0b11_1110);
        let switches = Switches {
            check_vmcs: true,
            ..Switches::default()
        };
        assert_eq!(switches.policy(full).into_raw(), 0b100_1111);
        assert!(switches.policy(full) != Policy::DEFAULT);
    }

    #[test]
    fn a_mask_that_leaves_nothing_is_refused() {
        let full = EptVpidCap::from(u64::MAX);
        assert_eq!(masked(3 << 41).check(full), Err(MaskError::NothingLeft));
        for bit in [0, 6, 20, 26, 32, 43, 63] {
            assert_eq!(masked(1 << bit).check(full), Err(MaskError::Unknown));
        }
        // What is left depends on the CPU.
        let caps = full.with_invvpid_all(false);
        assert_eq!(masked(1 << 41).check(caps), Err(MaskError::NothingLeft));
        assert_eq!(masked(1 << 42).check(caps), Ok(()));
    }
}
