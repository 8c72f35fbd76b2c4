// SPDX-License-Identifier: GPL-2.0

//! EPT pointers and the instruction that invalidates by them.
//!
//! Guest-physical and combined mappings are tagged by EP4TA, bits 51:12 of the EPT pointer, and by
//! nothing else of it.  INVEPT drops them by that tag, for every VPID and every PCID.
//! Source: the manual's chapter on VMX instructions, INVEPT, and the chapter on the extended
//! page-table mechanism.

use crate::{
    addr::Hpa,
    insn::{
        invalidate,
        InsnError, //
    }, //
};
use kernel::{
    bitfield,
    num::Bounded,
    prelude::*, //
};

/// Memory type write-back, the only one that KVM gives to an EPT's tables.
const WRITE_BACK: u64 = 6;

bitfield! {
    /// An extended-page-table pointer (EPTP).
    pub(crate) struct Eptp(u64) {
        /// Memory type of the tables: 0 is uncacheable, 6 write-back.
        2:0     memory_type;
        /// Length of the page walk, minus one.
        5:3     walk_length;
        /// Accessed and dirty flags are kept by the CPU.
        6:6     accessed_dirty => bool;
        /// Page frame of the root table; with the low bits 0 this is EP4TA.
        51:12   root;
    }
}

/// How many levels an EPT has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Levels {
    /// Four, which every CPU with EPT has.
    Four,
    /// Five, for guest-physical addresses of more than 48 bits.
    Five,
}

impl Eptp {
    /// Builds the pointer under which KVM runs a root; answers to `construct_eptp()`.
    ///
    /// Bits of `root` that are no part of a table's address are dropped.
    #[inline]
    pub(crate) fn for_root(root: Hpa, levels: Levels, accessed_dirty: bool) -> Self {
        let frame = Bounded::<u64, 52>::from_expr(root.into_raw() & Self::ROOT_MASK);
        Self::zeroed()
            .with_const_memory_type::<WRITE_BACK>()
            .with_walk_length(match levels {
                Levels::Four => Bounded::<u64, 3>::new::<3>(),
                Levels::Five => Bounded::<u64, 3>::new::<4>(),
            })
            .with_accessed_dirty(accessed_dirty)
            .with_root(frame.shr::<12, 40>())
    }
}

/// What one INVEPT covers.
///
/// The numbers of the types are those of the manual, and `VMX_EPT_EXTENT_*` in KVM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    /// Type 1: every mapping tagged by the EP4TA of this pointer.
    Context(Eptp),
    /// Type 2: every mapping of every EP4TA.
    All,
}

/// The operand of INVEPT in memory.
#[repr(C, align(16))]
struct Descriptor {
    /// The EPT pointer; used by type 1 only.
    eptp: u64,
    /// Reserved, 0.
    reserved: u64,
}

kernel::static_assert!(core::mem::size_of::<Descriptor>() == 16);

impl Extent {
    /// Returns the type and the operand that stand for this extent.
    #[inline]
    fn encode(self) -> (u64, Descriptor) {
        let (kind, eptp) = match self {
            Self::Context(eptp) => (1, eptp.into_raw()),
            Self::All => (2, 0),
        };
        (kind, Descriptor { eptp, reserved: 0 })
    }
}

/// Issues INVEPT on this CPU.
///
/// Drops what the extent covers from this CPU's translation caches and from no other's: it is the
/// caller's to run on the CPU that may hold the entries.
///
/// # Errors
///
/// [`InsnError::VmFail`] when the CPU lacks the type or VM entry would refuse the pointer,
/// [`InsnError::Fault`] outside VMX operation.  Nothing was invalidated then.
#[inline]
pub(crate) fn invept(extent: Extent) -> Result<(), InsnError> {
    let (kind, descriptor) = extent.encode();
    invalidate!(
        concat!(env!("VMX_VPID_OBJ"), "/vmx_vpid/invept_asm.rs"),
        &descriptor,
        kind
    )
}

#[cfg(CONFIG_VMX_VPID_KUNIT_TEST)]
#[kernel::macros::kunit_tests(vmx_vpid_ept)]
mod tests {
    use super::*;

    #[test]
    fn pointer_of_a_root() {
        let root = Hpa::new(0x0000_1234_5678_9000);
        let plain = Eptp::for_root(root, Levels::Four, false).into_raw();
        assert_eq!(plain, 0x0000_1234_5678_901e);
        let dirty = Eptp::for_root(root, Levels::Five, true).into_raw();
        assert_eq!(dirty, 0x0000_1234_5678_9066);
    }

    #[test]
    fn bits_outside_the_address_are_dropped() {
        let root = Hpa::new(0xfff0_0000_0000_1fff);
        let eptp = Eptp::for_root(root, Levels::Four, false).into_raw();
        assert_eq!(eptp, 0x101e);
    }

    #[test]
    fn extents_encode_as_the_manual_says() {
        let eptp = Eptp::for_root(Hpa::new(0x5000), Levels::Four, true);
        let (kind, desc) = Extent::Context(eptp).encode();
        assert_eq!((kind, desc.eptp, desc.reserved), (1, 0x505e, 0));
        let (kind, desc) = Extent::All.encode();
        assert_eq!((kind, desc.eptp, desc.reserved), (2, 0, 0));
    }

    // As in the tests of INVVPID: with VMX on, a refused pointer is VM-fail; without, a fault.
    #[test]
    fn failures_are_caught_as_what_they_are() {
        let good = Eptp::for_root(Hpa::new(0x5000), Levels::Four, false);
        let bad = Eptp::from(0x5000 | 0b111_111);
        match invept(Extent::All) {
            Ok(()) => {
                assert_eq!(invept(Extent::Context(good)), Ok(()));
                assert_eq!(invept(Extent::Context(bad)), Err(InsnError::VmFail));
            }
            outcome => {
                assert_eq!(outcome, Err(InsnError::Fault));
                assert_eq!(invept(Extent::Context(bad)), Err(InsnError::Fault));
            }
        }
    }
}
