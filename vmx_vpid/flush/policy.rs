// SPDX-License-Identifier: GPL-2.0

//! A policy says which instructions a flush may use, and which switches a user has set.
//!
//! A flush may use the types that the CPU has, except those that the user masks.  The [`Switches`]
//! help to find a missing flush, and to try another policy.  By default all switches are off, and
//! the instructions are as narrow as the CPU allows.

use crate::vmx::caps::EptVpidCap;
use kernel::{
    bitfield,
    bits::bit_u64,
    fmt,
    prelude::*, //
};

bitfield! {
    /// The instructions that a flush may use, and the switches that a flush tests.
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
        /// A flush of everything that a vCPU can use names each of the vCPU's contexts.
        4:4     by_context => bool;
        /// Every request gets the widest flush.
        5:5     force => bool;
        /// Each flush checks whether the VMCS has the right VPID.
        6:6     check_vmcs => bool;
    }
}

impl Policy {
    /// The policy of most CPUs: every type of both instructions, and no switch.
    pub(crate) const DEFAULT: Self = Self::from_raw(0b1111);
}

/// The switches that a user can set, when the module is loaded and at run time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Switches {
    /// Serve every request with the widest flush, to find out whether a bug is a missing flush.
    pub(crate) force_flush: bool,
    /// Let `flush_tlb_all` flush only the contexts that the vCPU can use, so that translations of
    /// other VMs on this CPU survive.
    pub(crate) flush_context: bool,
    /// Bits of `IA32_VMX_EPT_VPID_CAP` that are treated as clear.
    pub(crate) caps_mask: u64,
    /// Check at each flush whether the VMCS has the right VPID.
    pub(crate) check_vmcs: bool,
}

/// The reason why a mask of capabilities is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MaskError {
    /// The mask has bits that cannot be masked.
    Unknown,
    /// The mask leaves no type of INVVPID that flushes a whole VPID.
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
    /// The capabilities that can be masked, since other types can replace each of them: INVEPT of
    /// one context; INVVPID of an address, of one context, of all contexts.
    ///
    /// No other capability can be masked: KVM does not use EPT on a CPU without INVEPT of all
    /// contexts, nor VPIDs on a CPU without INVVPID.
    const MASKABLE: u64 = bit_u64(25) | bit_u64(40) | bit_u64(41) | bit_u64(42);

    /// Checks that the mask leaves a CPU the types that flushes cannot do without.
    ///
    /// # Errors
    ///
    /// See [`MaskError`].
    pub(crate) fn check(self, caps: EptVpidCap) -> Result<(), MaskError> {
        if self.caps_mask & !Self::MASKABLE != 0 {
            return Err(MaskError::Unknown);
        }
        if !self.left(caps).can_flush_vpid() {
            return Err(MaskError::NothingLeft);
        }
        Ok(())
    }

    /// Returns the capabilities of a CPU, less the masked ones.
    fn left(self, caps: EptVpidCap) -> EptVpidCap {
        EptVpidCap::from(caps.into_raw() & !self.caps_mask)
    }

    /// Returns the policy for a CPU with these capabilities.
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
    fn a_masked_capability_is_not_used() {
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
    fn a_mask_that_leaves_no_flush_of_a_vpid_is_refused() {
        let full = EptVpidCap::from(u64::MAX);
        assert_eq!(masked(3 << 41).check(full), Err(MaskError::NothingLeft));
        for bit in [0, 6, 20, 26, 32, 43, 63] {
            assert_eq!(masked(1 << bit).check(full), Err(MaskError::Unknown));
        }
        // A CPU without INVVPID of all contexts cannot do without INVVPID of one.
        let caps = full.with_invvpid_all(false);
        assert_eq!(masked(1 << 41).check(caps), Err(MaskError::NothingLeft));
        assert_eq!(masked(1 << 42).check(caps), Ok(()));
    }
}
