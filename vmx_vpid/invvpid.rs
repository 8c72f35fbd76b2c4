// SPDX-License-Identifier: GPL-2.0

//! VPIDs and the instruction that invalidates by them.
//!
//! A VPID tags the linear and the combined mappings of one virtual processor.  INVVPID drops them
//! by tag; it is never required to drop guest-physical mappings, which is what INVEPT is for.
//! Source: the manual's chapter on VMX instructions, INVVPID, and the chapter on caching
//! translation information with VMX.

use crate::{
    addr::Gva,
    insn::{
        invalidate,
        InsnError, //
    }, //
};
use core::num::NonZeroU16;

/// A virtual-processor identifier that a guest may run with.
///
/// Never 0: that is the host's, and VM entry with the VPID control set and VPID 0 fails.  "No
/// VPID" is `Option::<Vpid>::None`, which takes no more room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct Vpid(NonZeroU16);

impl Vpid {
    /// How many VPIDs there are, the host's 0 included; KVM's `VMX_NR_VPIDS`.
    pub(crate) const COUNT: usize = 1 << u16::BITS;

    /// Takes a number; 0 is no guest's VPID.
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

/// What one INVVPID covers.
///
/// The numbers of the types are those of the manual, and `VMX_VPID_EXTENT_*` in KVM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    /// Type 0: the mappings of one linear address, for every PCID and every EP4TA.
    Address(Vpid, Gva),
    /// Type 1: every mapping of one VPID, globals included.
    Context(Vpid),
    /// Type 2: every mapping of every VPID but 0, which it may drop as well.
    All,
}

/// The operand of INVVPID in memory.
#[repr(C, align(16))]
struct Descriptor {
    /// VPID in bits 15:0; bits 63:16 must be 0.
    vpid: u64,
    /// Linear address, used by type 0 only.
    gva: u64,
}

kernel::static_assert!(core::mem::size_of::<Descriptor>() == 16);

impl Extent {
    /// Returns the type and the operand that stand for this extent.
    #[inline]
    fn encode(self) -> (u64, Descriptor) {
        let (kind, vpid, gva) = match self {
            Self::Address(vpid, gva) => (0, vpid.into_raw(), gva.into_raw()),
            Self::Context(vpid) => (1, vpid.into_raw(), 0),
            Self::All => (2, 0, 0),
        };
        let vpid = u64::from(vpid);
        (kind, Descriptor { vpid, gva })
    }
}

/// Issues INVVPID on this CPU.
///
/// Drops what the extent covers from this CPU's translation caches and from no other's: it is the
/// caller's to run on the CPU that may hold the entries.
///
/// # Errors
///
/// [`InsnError::VmFail`] when the CPU lacks the type or the address is not canonical,
/// [`InsnError::Fault`] outside VMX operation.  Nothing was invalidated then.
#[inline]
pub(crate) fn invvpid(extent: Extent) -> Result<(), InsnError> {
    let (kind, descriptor) = extent.encode();
    invalidate!(
        concat!(env!("VMX_VPID_OBJ"), "/vmx_vpid/invvpid_asm.rs"),
        &descriptor,
        kind
    )
}

#[cfg(CONFIG_VMX_VPID_KUNIT_TEST)]
#[kernel::macros::kunit_tests(vmx_vpid_invvpid)]
mod tests {
    use super::*;

    #[test]
    fn zero_is_no_vpid() {
        assert!(Vpid::new(0).is_none());
        assert_eq!(Vpid::new(65535).map(Vpid::into_raw), Some(65535));
        assert_eq!(core::mem::size_of::<Option<Vpid>>(), 2);
    }

    #[test]
    fn extents_encode_as_the_manual_says() -> Result<(), kernel::error::Error> {
        let vpid = Vpid::new(0xabcd).ok_or(kernel::error::code::EINVAL)?;
        let gva = Gva::new(0xffff_8000_0000_1000);
        let raw = |extent: Extent| {
            let (kind, desc) = extent.encode();
            (kind, desc.vpid, desc.gva)
        };
        assert_eq!(raw(Extent::Address(vpid, gva)), (0, 0xabcd, gva.into_raw()));
        assert_eq!(raw(Extent::Context(vpid)), (1, 0xabcd, 0));
        assert_eq!(raw(Extent::All), (2, 0, 0));
        Ok(())
    }

    // Runs on machines of both kinds: where KVM has VMX on, a refused operand is VM-fail; where
    // nothing has, everything faults.  Neither may go unnoticed, or further than the label.
    #[test]
    fn failures_are_caught_as_what_they_are() -> Result<(), kernel::error::Error> {
        let vpid = Vpid::new(1).ok_or(kernel::error::code::EINVAL)?;
        let not_canonical = Extent::Address(vpid, Gva::new(1 << 63));
        match invvpid(Extent::All) {
            Ok(()) => {
                kernel::pr_info!("instructions: VMX is on\n");
                assert_eq!(invvpid(Extent::Context(vpid)), Ok(()));
                assert_eq!(invvpid(not_canonical), Err(InsnError::VmFail));
                // 28 is "invalid operand"; without a current VMCS there is no number.
                let number = crate::insn::vm_instruction_error();
                assert!(matches!(number, None | Some(28)));
            }
            outcome => {
                kernel::pr_info!("instructions: VMX is off\n");
                assert_eq!(outcome, Err(InsnError::Fault));
                assert_eq!(invvpid(not_canonical), Err(InsnError::Fault));
                assert_eq!(crate::insn::vm_instruction_error(), None);
            }
        }
        Ok(())
    }
}
