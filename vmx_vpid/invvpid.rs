// SPDX-License-Identifier: GPL-2.0

//! This module issues INVVPID, and checks the operands of a guest's INVVPID.
//!
//! A VPID tags the linear and the combined mappings of one virtual processor.  INVVPID drops these
//! mappings by VPID.  INVVPID does not have to drop guest-physical mappings; INVEPT does.
//! Source: the manual's chapter on VMX instructions, INVVPID, and the chapter on caching
//! translation information with VMX.

use crate::{
    vmx::{
        caps::EptVpidCap,
        insn::{
            invalidate,
            InsnError,
            VmInsnError, //
        }, //
    },
    vpid::Vpid,
    x86::addr::{
        CanonicalGva,
        Gva,
        LinearWidth, //
    }, //
};

/// The mappings that one INVVPID covers.
///
/// The types have the numbers of the manual, as `VMX_VPID_EXTENT_*` in KVM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    /// Type 0: the mappings of one linear address, for every PCID and every EP4TA.
    Address(Vpid, CanonicalGva),
    /// Type 1: every mapping of one VPID, globals included.
    Context(Vpid),
    /// Type 2: every mapping of every VPID but 0; the CPU may drop the mappings of VPID 0 as well.
    All,
}

/// The operand of INVVPID in memory.
#[repr(C, align(16))]
pub(crate) struct Descriptor {
    /// VPID in bits 15:0; bits 63:16 must be 0.
    vpid: u64,
    /// Linear address, used by type 0 only.
    gva: u64,
}

kernel::static_assert!(core::mem::size_of::<Descriptor>() == 16);

impl Extent {
    /// Returns the VPID and the address that limit this extent; `None` where there is no limit.
    #[inline]
    pub(crate) fn parts(self) -> (Option<Vpid>, Option<CanonicalGva>) {
        match self {
            Self::Address(vpid, gva) => (Some(vpid), Some(gva)),
            Self::Context(vpid) => (Some(vpid), None),
            Self::All => (None, None),
        }
    }

    /// Returns the extent with such limits; the inverse of [`Self::parts()`].
    pub(crate) fn from_parts(vpid: Option<Vpid>, gva: Option<CanonicalGva>) -> Self {
        match (vpid, gva) {
            (Some(vpid), Some(gva)) => Self::Address(vpid, gva),
            (Some(vpid), None) => Self::Context(vpid),
            (None, _) => Self::All,
        }
    }

    /// Returns the type, the VPID and the address of this extent; 0 for an absent VPID or address.
    #[inline]
    pub(crate) const fn numbers(self) -> (u8, u16, u64) {
        match self {
            Self::Address(vpid, gva) => (0, vpid.into_raw(), gva.into_raw()),
            Self::Context(vpid) => (1, vpid.into_raw(), 0),
            Self::All => (2, 0, 0),
        }
    }

    /// Returns the type and the operand in memory of this extent.
    #[inline]
    const fn encode(self) -> (u64, Descriptor) {
        let (kind, vpid, gva) = self.numbers();
        // CAST: u64 is wider than u8 and u16.
        let vpid = vpid as u64;
        (kind as u64, Descriptor { vpid, gva })
    }
}

/// Issues INVVPID on this CPU.
///
/// INVVPID drops mappings from this CPU's translation caches only: the caller has to run on the CPU
/// that may have cached them.
///
/// # Errors
///
/// [`InsnError::VmFail`] when the CPU lacks the type, [`InsnError::Exception`] outside VMX
/// operation.  Nothing was invalidated then.
#[inline]
pub(crate) fn invvpid(extent: Extent) -> Result<(), InsnError> {
    match extent {
        // A constant operand does not have to be written to the stack.
        Extent::All => {
            const ALL: (u64, Descriptor) = Extent::All.encode();
            issue(ALL.0, &ALL.1)
        }
        Extent::Address(..) | Extent::Context(_) => {
            let (kind, descriptor) = extent.encode();
            issue(kind, &descriptor)
        }
    }
}

/// Issues INVVPID with a type and an operand.
#[inline]
fn issue(kind: u64, descriptor: &Descriptor) -> Result<(), InsnError> {
    invalidate!(
        concat!(env!("VMX_VPID_OBJ"), "/vmx_vpid/vmx/invvpid_asm.rs"),
        descriptor,
        kind
    )
}

/// A type of INVVPID that a guest asks for, with the manual's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// 0: one linear address under one VPID.
    Address,
    /// 1: one VPID, globals included.
    Context,
    /// 2: all VPIDs.
    All,
    /// 3: one VPID, globals excepted.
    ContextRetainingGlobals,
}

impl Kind {
    /// Returns the type that a guest's register names, if the guest's CPU has that type.
    ///
    /// # Errors
    ///
    /// [`VmInsnError::InvalidOperand`] for a type that does not exist or that `caps` lacks.  The
    /// CPU checks this before it reads the operand in memory.
    #[inline]
    pub(crate) fn from_register(value: u64, caps: EptVpidCap) -> Result<Self, VmInsnError> {
        let (kind, offered) = match value {
            0 => (Self::Address, caps.invvpid_address()),
            1 => (Self::Context, caps.invvpid_context()),
            2 => (Self::All, caps.invvpid_all()),
            3 => (
                Self::ContextRetainingGlobals,
                caps.invvpid_context_retain_globals(),
            ),
            _ => return Err(VmInsnError::InvalidOperand),
        };
        if offered {
            Ok(kind)
        } else {
            Err(VmInsnError::InvalidOperand)
        }
    }
}

/// A VPID in the numbering of L1: a vpid12.
///
/// A vpid12 is never an operand of this CPU's INVVPID: KVM runs every L2 of a vCPU with the vCPU's
/// one vpid02.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct Vpid12(Vpid);

impl Vpid12 {
    /// Returns the number, 1..=65535.
    #[cfg(vmx_vpid_userspace)]
    pub(crate) const fn into_raw(self) -> u16 {
        self.0.into_raw()
    }
}

/// A request that a guest makes by INVVPID, after all checks of the operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// Drop one linear address under one VPID.
    Address(Vpid12, CanonicalGva),
    /// Drop one VPID.
    Context(Vpid12),
    /// Drop all VPIDs.
    All,
    /// Drop one VPID, globals excepted.
    ContextRetainingGlobals(Vpid12),
}

impl Descriptor {
    /// Makes a descriptor of the two quadwords that were read from a guest's memory.
    #[inline]
    pub(crate) fn from_guest([vpid, gva]: [u64; 2]) -> Self {
        Self { vpid, gva }
    }

    /// Returns the VPID field; `None` if a reserved bit of 63:16 is set, which no type allows.
    #[inline]
    fn vpid_field(&self) -> Option<u16> {
        u16::try_from(self.vpid).ok()
    }

    /// Returns the address, which type 0 uses; `None` if it is not canonical.
    ///
    /// Linear-address masking (LAM) does not apply, because INVVPID does not access the address.
    #[inline]
    fn address(&self, width: LinearWidth) -> Option<CanonicalGva> {
        Gva::new(self.gva).canonical(width)
    }

    /// Checks the operand of a guest's INVVPID.
    ///
    /// # Errors
    ///
    /// [`VmInsnError::InvalidOperand`] when a reserved bit is set, when the VPID is 0 in a type
    /// other than 2, or when the address of type 0 is not canonical.
    #[inline]
    pub(crate) fn check(&self, kind: Kind, width: LinearWidth) -> Result<Request, VmInsnError> {
        let check = || {
            Some(match (kind, Vpid::new(self.vpid_field()?).map(Vpid12)) {
                // Type 2 ignores the VPID, which may be 0 then.
                (Kind::All, _) => Request::All,
                (_, None) => return None,
                (Kind::Address, Some(vpid)) => Request::Address(vpid, self.address(width)?),
                (Kind::Context, Some(vpid)) => Request::Context(vpid),
                (Kind::ContextRetainingGlobals, Some(vpid)) => {
                    Request::ContextRetainingGlobals(vpid)
                }
            })
        };
        check().ok_or(VmInsnError::InvalidOperand)
    }
}

#[cfg(CONFIG_VMX_VPID_KUNIT_TEST)]
#[kernel::macros::kunit_tests(vmx_vpid_invvpid)]
mod tests {
    use super::*;

    #[test]
    fn vpid_0_cannot_be_made() {
        assert!(Vpid::new(0).is_none());
        assert_eq!(Vpid::new(65535).map(Vpid::into_raw), Some(65535));
        assert_eq!(core::mem::size_of::<Option<Vpid>>(), 2);
    }

    #[test]
    fn invvpid_extents_encode_as_the_manual_says() -> Result<(), kernel::error::Error> {
        let vpid = Vpid::new(0xabcd).ok_or(kernel::error::code::EINVAL)?;
        let gva = Gva::new(0xffff_8000_0000_1000)
            .canonical(LinearWidth::Bits48)
            .ok_or(kernel::error::code::EINVAL)?;
        let raw = |extent: Extent| {
            let (kind, desc) = extent.encode();
            (kind, desc.vpid, desc.gva)
        };
        assert_eq!(raw(Extent::Address(vpid, gva)), (0, 0xabcd, gva.into_raw()));
        assert_eq!(raw(Extent::Context(vpid)), (1, 0xabcd, 0));
        assert_eq!(raw(Extent::All), (2, 0, 0));
        Ok(())
    }

    #[test]
    fn an_invvpid_type_exists_if_the_capability_is_set() {
        let all = EptVpidCap::from(u64::MAX);
        for (value, caps) in (0..).zip([
            all.with_invvpid_address(false),
            all.with_invvpid_context(false),
            all.with_invvpid_all(false),
            all.with_invvpid_context_retain_globals(false),
        ]) {
            assert!(Kind::from_register(value, all).is_ok());
            for other in 0..4 {
                let there = Kind::from_register(other, caps).is_ok();
                assert_eq!(there, other != value);
            }
        }
        for value in [4, 31, 32, 63, 1 << 32, (1 << 32) + 1, u64::MAX] {
            assert!(Kind::from_register(value, all).is_err());
        }
    }

    #[test]
    fn each_invvpid_type_checks_its_own_operand() {
        let kinds = [
            Kind::Address,
            Kind::Context,
            Kind::All,
            Kind::ContextRetainingGlobals,
        ];
        let passes = |kind, vpid, gva| {
            let descriptor = Descriptor::from_guest([vpid, gva]);
            descriptor.check(kind, LinearWidth::Bits48).is_ok()
        };
        for kind in kinds {
            assert!(passes(kind, 1, 0));
            assert!(passes(kind, 0xffff, 0));
            assert_eq!(passes(kind, 0, 0), kind == Kind::All);
            // Neither is canonical; the second one would be canonical if LAM masked bits 62:57.
            for gva in [1 << 47, 0x7e00_0000_0000_1000] {
                assert_eq!(passes(kind, 1, gva), kind != Kind::Address);
            }
            for bit in 16..64 {
                assert!(!passes(kind, 1 | 1 << bit, 0));
            }
        }
    }

    // If KVM has turned VMX on, a refused operand ends in VM-fail; if VMX is off, every INVVPID
    // raises an exception.  Each has to become an error, the exception by the exception table.
    #[test]
    fn a_failed_invvpid_returns_vm_fail_or_exception() -> Result<(), kernel::error::Error> {
        let vpid = Vpid::new(1).ok_or(kernel::error::code::EINVAL)?;
        // `Extent` cannot express VPID 0, which the CPU refuses.
        let refused = || {
            let descriptor = Descriptor { vpid: 0, gva: 0 };
            issue(1, &descriptor)
        };
        match invvpid(Extent::All) {
            Ok(()) => {
                kernel::pr_info!("instructions: VMX is on\n");
                assert_eq!(invvpid(Extent::Context(vpid)), Ok(()));
                assert_eq!(refused(), Err(InsnError::VmFail));
                // 28 is "invalid operand"; without a current VMCS the CPU gives no number.
                let number = crate::vmx::insn::vm_instruction_error();
                assert!(matches!(number, None | Some(28)));
            }
            outcome => {
                kernel::pr_info!("instructions: VMX is off\n");
                assert_eq!(outcome, Err(InsnError::Exception));
                assert_eq!(refused(), Err(InsnError::Exception));
                assert_eq!(crate::vmx::insn::vm_instruction_error(), None);
            }
        }
        Ok(())
    }
}
