// SPDX-License-Identifier: GPL-2.0

//! This module builds EPT pointers, issues INVEPT, and checks the operands of a guest's INVEPT.
//!
//! EP4TA, bits 51:12 of the EPT pointer, tags guest-physical and combined mappings; the other bits
//! of the pointer do not.  INVEPT drops mappings by EP4TA, for every VPID and every PCID.
//! Source: the manual's chapter on VMX instructions, INVEPT, and the chapter on the extended
//! page-table mechanism.

pub(crate) mod check;
pub(crate) mod cursor;
#[cfg(CONFIG_VMX_VPID_KUNIT_TEST)]
mod cursor_tests;
pub(crate) mod dump;
pub(crate) mod entry;
#[cfg(CONFIG_VMX_VPID_KUNIT_TEST)]
mod entry_tests;
pub(crate) mod level;
pub(crate) mod summary;
pub(crate) mod violation;

use crate::{
    vmx::{
        caps::EptVpidCap,
        insn::{
            invalidate,
            InsnError,
            VmInsnError, //
        }, //
    },
    x86::addr::{
        Hpa,
        MaxPhyAddr, //
    }, //
};
use kernel::{
    bitfield,
    num::Bounded,
    prelude::*, //
};

/// Memory type uncacheable.
const UNCACHEABLE: u64 = 0;
/// Memory type write-back, the only one that KVM gives to an EPT's tables.
const WRITE_BACK: u64 = 6;
/// A walk of four levels.
const WALK_4: u64 = 3;
/// A walk of five levels.
pub(crate) const WALK_5: u64 = 4;

bitfield! {
    /// An extended-page-table pointer (EPTP).
    pub(crate) struct Eptp(u64) {
        /// Memory type of the tables: 0 is uncacheable, 6 write-back.
        2:0     memory_type;
        /// Length of the page walk, minus one.
        5:3     walk_length;
        /// The CPU sets accessed and dirty flags.
        6:6     accessed_dirty => bool;
        /// The CPU enforces access rights of supervisor shadow-stack pages.
        7:7     supervisor_shadow_stack => bool;
        /// Reserved, 0.
        11:8    reserved;
        /// Page frame of the root table: bits 51:12 of EP4TA.
        51:12   root;
    }
}

/// The number of levels of an EPT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Levels {
    /// Four levels, which every CPU with EPT has.
    Four,
    /// Five levels, for guest-physical addresses of more than 48 bits.
    Five,
}

impl Eptp {
    /// Builds the pointer with which KVM runs a root.
    ///
    /// Equivalent of `construct_eptp()`.  Ignores the bits of `root` outside of 51:12.
    #[inline]
    pub(crate) fn for_root(root: Hpa, levels: Levels, accessed_dirty: bool) -> Self {
        let frame = Bounded::<u64, 52>::from_expr(root.into_raw() & Self::ROOT_MASK);
        Self::zeroed()
            .with_const_memory_type::<WRITE_BACK>()
            .with_walk_length(match levels {
                Levels::Four => Bounded::<u64, 3>::new::<WALK_4>(),
                Levels::Five => Bounded::<u64, 3>::new::<WALK_5>(),
            })
            .with_accessed_dirty(accessed_dirty)
            .with_root(frame.shr::<12, 40>())
    }

    /// Returns the tag of the mappings that the CPU caches when it uses this pointer.
    #[inline]
    pub(crate) fn ep4ta(self) -> Ep4ta {
        Ep4ta(self.into_raw() & Self::ROOT_MASK)
    }

    /// Returns whether the CPU has the memory type of the tables.
    fn memory_type_exists(self, caps: EptVpidCap) -> bool {
        match self.memory_type().get() {
            UNCACHEABLE => caps.uncacheable(),
            WRITE_BACK => caps.write_back(),
            _ => false,
        }
    }

    /// Returns whether the CPU has walks of this length.
    fn walk_exists(self, caps: EptVpidCap) -> bool {
        match self.walk_length().get() {
            WALK_4 => caps.walk_4(),
            WALK_5 => caps.walk_5(),
            _ => false,
        }
    }

    /// Returns whether the CPU has the flags that are set.
    fn flags_exist(self, caps: EptVpidCap) -> bool {
        (!self.accessed_dirty() || caps.accessed_dirty())
            && (!self.supervisor_shadow_stack() || caps.supervisor_shadow_stack())
    }

    /// Returns whether the bits 11:8 and those from the physical-address width up are 0.
    fn reserved_bits_clear(self, width: MaxPhyAddr) -> bool {
        self.reserved().get() == 0 && self.into_raw() >> width.bits() == 0
    }

    /// Returns whether VM entry accepts the pointer on a CPU with these capabilities.
    ///
    /// Equivalent of `nested_vmx_check_eptp()`.  Source: the manual's chapter on VM entries,
    /// "VM-Execution Control Fields".
    pub(crate) fn is_accepted(self, caps: EptVpidCap, width: MaxPhyAddr) -> bool {
        self.memory_type_exists(caps)
            && self.walk_exists(caps)
            && self.flags_exist(caps)
            && self.reserved_bits_clear(width)
    }
}

/// Bits 51:12 of an EPT pointer: the tag of guest-physical and combined mappings.
///
/// Two pointers that differ elsewhere (walk length, accessed and dirty flags) have the same tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct Ep4ta(u64);

impl Ep4ta {
    /// Returns bits 51:12 in their place, with all other bits 0.
    #[cfg(vmx_vpid_userspace)]
    pub(crate) const fn into_raw(self) -> u64 {
        self.0
    }
}

/// The mappings that one INVEPT covers.
///
/// The types have the numbers of the manual, as `VMX_EPT_EXTENT_*` in KVM.
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
    /// Returns the type and the EPT pointer of this extent; 0 for an absent pointer.
    #[inline]
    pub(crate) const fn numbers(self) -> (u8, u64) {
        match self {
            Self::Context(eptp) => (1, eptp.into_raw()),
            Self::All => (2, 0),
        }
    }

    /// Returns the type and the operand in memory of this extent.
    #[inline]
    const fn encode(self) -> (u64, Descriptor) {
        let (kind, eptp) = self.numbers();
        // CAST: u64 is wider than u8.
        (kind as u64, Descriptor { eptp, reserved: 0 })
    }
}

/// Issues INVEPT on this CPU.
///
/// INVEPT drops mappings from this CPU's translation caches only: the caller has to run on the CPU
/// that may have cached them.
///
/// # Errors
///
/// [`InsnError::VmFail`] when the CPU lacks the type or VM entry would refuse the pointer,
/// [`InsnError::Exception`] outside VMX operation.  Nothing was invalidated then.
#[inline]
pub(crate) fn invept(extent: Extent) -> Result<(), InsnError> {
    match extent {
        // A constant operand does not have to be written to the stack.
        Extent::All => {
            const ALL: (u64, Descriptor) = Extent::All.encode();
            issue(ALL.0, &ALL.1)
        }
        Extent::Context(_) => {
            let (kind, descriptor) = extent.encode();
            issue(kind, &descriptor)
        }
    }
}

/// Issues INVEPT with a type and an operand.
#[inline]
fn issue(kind: u64, descriptor: &Descriptor) -> Result<(), InsnError> {
    invalidate!(
        concat!(env!("VMX_VPID_OBJ"), "/vmx_vpid/vmx/invept_asm.rs"),
        descriptor,
        kind
    )
}

/// A type of INVEPT that a guest asks for, with the manual's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// 1: one EP4TA.
    Context,
    /// 2: all EP4TAs.
    All,
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
        match value {
            1 if caps.invept_context() => Ok(Self::Context),
            2 if caps.invept_all() => Ok(Self::All),
            _ => Err(VmInsnError::InvalidOperand),
        }
    }
}

/// A request that a guest makes by INVEPT, after all checks of the operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// Drop the mappings that one EP4TA tags.
    Context(Ep4ta),
    /// Drop the mappings of every EP4TA.
    All,
}

/// Checks the operand of a guest's INVEPT, the two quadwords that were read from its memory.
///
/// The second quadword is reserved.  This function ignores it, as KVM does, because some guests
/// leave it dirty, Hyper-V among them.
///
/// # Errors
///
/// [`VmInsnError::InvalidOperand`] when VM entry would refuse the pointer of type 1.
#[inline]
pub(crate) fn check(
    kind: Kind,
    [eptp, _reserved]: [u64; 2],
    caps: EptVpidCap,
    width: MaxPhyAddr,
) -> Result<Request, VmInsnError> {
    let eptp = Eptp::from(eptp);
    match kind {
        Kind::Context if eptp.is_accepted(caps, width) => Ok(Request::Context(eptp.ep4ta())),
        Kind::Context => Err(VmInsnError::InvalidOperand),
        Kind::All => Ok(Request::All),
    }
}

#[cfg(CONFIG_VMX_VPID_KUNIT_TEST)]
#[kernel::macros::kunit_tests(vmx_vpid_ept)]
mod tests {
    use super::*;

    #[test]
    fn the_pointer_of_a_root_has_levels_and_flags() {
        let root = Hpa::new(0x0000_1234_5678_9000);
        let plain = Eptp::for_root(root, Levels::Four, false).into_raw();
        assert_eq!(plain, 0x0000_1234_5678_901e);
        let dirty = Eptp::for_root(root, Levels::Five, true).into_raw();
        assert_eq!(dirty, 0x0000_1234_5678_9066);
    }

    #[test]
    fn bits_outside_the_address_of_a_root_are_ignored() {
        let root = Hpa::new(0xfff0_0000_0000_1fff);
        let eptp = Eptp::for_root(root, Levels::Four, false).into_raw();
        assert_eq!(eptp, 0x101e);
    }

    #[test]
    fn invept_extents_encode_as_the_manual_says() {
        let eptp = Eptp::for_root(Hpa::new(0x5000), Levels::Four, true);
        let (kind, desc) = Extent::Context(eptp).encode();
        assert_eq!((kind, desc.eptp, desc.reserved), (1, 0x505e, 0));
        let (kind, desc) = Extent::All.encode();
        assert_eq!((kind, desc.eptp, desc.reserved), (2, 0, 0));
    }

    #[test]
    fn ep4ta_is_the_address_of_the_root_alone() {
        let root = Hpa::new(0x5000);
        let one = Eptp::for_root(root, Levels::Four, true);
        let other = Eptp::for_root(root, Levels::Five, false);
        assert_eq!(one.ep4ta(), other.ep4ta());
        assert!(one.ep4ta() != Eptp::for_root(Hpa::new(0x6000), Levels::Four, true).ep4ta());
    }

    #[test]
    fn each_bit_of_a_guests_ept_pointer_is_checked() {
        let width = MaxPhyAddr::new(40);
        // KVM offers these to L1, on a CPU with walks of four levels only; `full` has all
        // capabilities, such as shadow stacks.
        let caps = EptVpidCap::zeroed()
            .with_walk_4(true)
            .with_write_back(true)
            .with_accessed_dirty(true);
        let full = EptVpidCap::from(u64::MAX);
        let good = Eptp::for_root(Hpa::new(0x5000), Levels::Four, false).into_raw();
        let accepted = |raw: u64, caps| Eptp::from(raw).is_accepted(caps, width);

        assert!(accepted(good, caps) && accepted(good, full));
        for memory_type in 0..8 {
            let raw = good & !7 | memory_type;
            assert_eq!(accepted(raw, full), matches!(memory_type, 0 | 6));
            assert_eq!(accepted(raw, caps), memory_type == 6);
        }
        for walk in 0..8 {
            let raw = good & !0o70 | walk << 3;
            assert_eq!(accepted(raw, full), matches!(walk, 3 | 4));
            assert_eq!(accepted(raw, caps), walk == 3);
        }
        for bit in 6..64 {
            // Bits 12 to 39 belong to the address of the root table.
            let raw = good | 1 << bit;
            assert_eq!(accepted(raw, caps), bit == 6 || (12..40).contains(&bit));
            assert_eq!(accepted(raw, full), bit < 8 || (12..40).contains(&bit));
        }
        assert!(!accepted(good | 1 << 6, caps.with_accessed_dirty(false)));
    }

    #[test]
    fn invept_types_of_a_guest_are_checked() {
        let full = EptVpidCap::from(u64::MAX);
        for value in [0, 3, 4, 31, 32, 63, 1 << 32, (1 << 32) + 1, u64::MAX] {
            assert!(Kind::from_register(value, full).is_err());
        }
        assert_eq!(Kind::from_register(1, full), Ok(Kind::Context));
        assert_eq!(Kind::from_register(2, full), Ok(Kind::All));
        assert!(Kind::from_register(1, full.with_invept_context(false)).is_err());
        assert!(Kind::from_register(2, full.with_invept_all(false)).is_err());
        // Type 2 ignores the pointer, and both types ignore the reserved quadword.
        let width = MaxPhyAddr::new(40);
        let all = check(Kind::All, [u64::MAX; 2], full, width);
        assert_eq!(all, Ok(Request::All));
        assert!(check(Kind::Context, [u64::MAX; 2], full, width).is_err());
        assert!(check(Kind::Context, [0x501e, u64::MAX], full, width).is_ok());
    }

    // If VMX is on, a refused pointer ends in VM-fail; if VMX is off, every INVEPT raises an
    // exception.
    #[test]
    fn a_failed_invept_returns_vm_fail_or_exception() {
        let good = Eptp::for_root(Hpa::new(0x5000), Levels::Four, false);
        let bad = Eptp::from(0x5000 | 0b111_111);
        match invept(Extent::All) {
            Ok(()) => {
                assert_eq!(invept(Extent::Context(good)), Ok(()));
                assert_eq!(invept(Extent::Context(bad)), Err(InsnError::VmFail));
            }
            outcome => {
                assert_eq!(outcome, Err(InsnError::Exception));
                assert_eq!(invept(Extent::Context(bad)), Err(InsnError::Exception));
            }
        }
    }
}
