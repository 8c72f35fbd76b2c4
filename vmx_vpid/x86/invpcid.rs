// SPDX-License-Identifier: GPL-2.0

//! This module defines PCIDs, and checks the operands of a guest's INVPCID.
//!
//! A PCID tags translations within one VPID, and INVPCID drops translations by PCID.  The handler
//! of INVPCID does not issue the host's own INVPCID ([`crate::asid::invpcid`]): it works on the
//! tables that KVM keeps for the guest.
//! Source: the manual's instruction reference, INVPCID, and its chapter on paging, "Process-Context
//! Identifiers".

use crate::x86::{
    addr::{
        CanonicalGva,
        Gva,
        LinearWidth, //
    },
    control_regs::{
        Cr3,
        Cr4, //
    }, //
};

/// A process-context identifier, 0 to 4095.
///
/// # Invariants
///
/// Bits 15:12 are 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct Pcid(u16);

impl Pcid {
    /// The PCID of all translations as long as CR4.PCIDE is clear.
    pub(crate) const ZERO: Self = Self(0);

    /// Makes a PCID of the lower 12 bits of a number.
    #[inline]
    pub(crate) const fn from_low_bits(number: u16) -> Self {
        // INVARIANT: The mask clears bits 15:12.
        Self(number & 0xfff)
    }

    /// Returns the number.
    #[cfg(CONFIG_VMX_VPID_KUNIT_TEST)]
    #[inline]
    pub(crate) const fn into_raw(self) -> u16 {
        self.0
    }

    /// Returns the PCID that tags translations made under `cr3`.
    ///
    /// Equivalent of `kvm_get_pcid()`.
    #[inline]
    pub(crate) fn of(cr3: Cr3, cr4: Cr4) -> Self {
        if cr4.pcide() {
            // CAST: The field has 12 bits, so it fits in u16.
            // INVARIANT: The field has 12 bits, so bits 15:12 are 0.
            Self(cr3.pcid().get() as u16)
        } else {
            Self::ZERO
        }
    }
}

/// A type of INVPCID, by the manual's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// 0: one address under one PCID, globals excepted.
    Address,
    /// 1: one PCID, globals excepted.
    Context,
    /// 2: everything, globals included.
    AllAndGlobals,
    /// 3: everything but globals.
    All,
}

impl Kind {
    /// Returns the type that a register names; `None`, for #GP(0), if there is no such type.
    #[inline]
    pub(crate) fn from_register(value: u64) -> Option<Self> {
        Some(match value {
            0 => Self::Address,
            1 => Self::Context,
            2 => Self::AllAndGlobals,
            3 => Self::All,
            _ => return None,
        })
    }
}

/// The operand of INVPCID in memory, unchecked.
#[derive(Clone, Copy)]
pub(crate) struct Descriptor {
    /// PCID in bits 11:0; bits 63:12 must be 0.
    pcid: u64,
    /// Linear address, used by type 0 only.
    address: Gva,
}

impl Descriptor {
    /// Makes a descriptor of the two quadwords read from memory.
    #[inline]
    pub(crate) fn new([pcid, address]: [u64; 2]) -> Self {
        let address = Gva::new(address);
        Self { pcid, address }
    }

    /// Returns the PCID; `None`, for #GP(0) in any type, if a reserved bit of 63:12 is set.
    #[inline]
    fn pcid(self) -> Option<Pcid> {
        // CAST: `then_some()` keeps the PCID only if bits 63:12 are 0, so it fits in u16.
        // INVARIANT: `then_some()` keeps the PCID only if bits 63:12 are 0, so bits 15:12 are 0.
        (self.pcid >> 12 == 0).then_some(Pcid(self.pcid as u16))
    }

    /// Returns the address, which type 0 uses; `None`, for #GP(0), if it is not canonical.
    ///
    /// Linear-address masking (LAM) does not apply, because INVPCID does not access the address.
    #[inline]
    fn address(self, width: LinearWidth) -> Option<CanonicalGva> {
        self.address.canonical(width)
    }
}

/// Returns whether a type that names a PCID may name `pcid`.
///
/// With CR4.PCIDE clear, any PCID but 0 is #GP(0).  Types 2 and 3 name no PCID.
#[inline]
fn pcid_exists(pcid: Pcid, cr4: Cr4) -> bool {
    cr4.pcide() || pcid == Pcid::ZERO
}

/// The checked request of a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// Drop one address under one PCID.
    Address(Pcid, CanonicalGva),
    /// Drop one PCID.
    Context(Pcid),
    /// Drop everything, globals included.
    AllAndGlobals,
    /// Drop everything but globals.
    All,
}

/// Checks a type and an operand; returns `None` for #GP(0).
///
/// Each failed check is #GP(0), so a guest cannot see the order of the checks.
#[inline]
pub(crate) fn check(
    kind: u64,
    descriptor: Descriptor,
    cr4: Cr4,
    width: LinearWidth,
) -> Option<Request> {
    let pcid = descriptor.pcid()?;
    match Kind::from_register(kind)? {
        Kind::Address if pcid_exists(pcid, cr4) => {
            Some(Request::Address(pcid, descriptor.address(width)?))
        }
        Kind::Context if pcid_exists(pcid, cr4) => Some(Request::Context(pcid)),
        Kind::Address | Kind::Context => None,
        Kind::AllAndGlobals => Some(Request::AllAndGlobals),
        Kind::All => Some(Request::All),
    }
}

#[cfg(CONFIG_VMX_VPID_KUNIT_TEST)]
#[kernel::macros::kunit_tests(vmx_vpid_invpcid)]
mod tests {
    use super::*;
    use kernel::prelude::*;

    const LOW: u64 = 0x1000;

    /// Returns the outcome for a type and a descriptor, with CR4.PCIDE as given.
    fn outcome(kind: u64, pcid: u64, address: u64, pcide: bool) -> Option<Request> {
        let cr4 = Cr4::zeroed().with_pcide(pcide);
        let descriptor = Descriptor::new([pcid, address]);
        check(kind, descriptor, cr4, LinearWidth::Bits48)
    }

    #[test]
    fn every_invpcid_type_is_decoded() {
        let address = Gva::new(LOW).canonical(LinearWidth::Bits48);
        let wanted = [
            address.map(|address| Request::Address(Pcid(7), address)),
            Some(Request::Context(Pcid(7))),
            Some(Request::AllAndGlobals),
            Some(Request::All),
        ];
        for (kind, wanted) in (0..).zip(wanted) {
            assert_eq!(outcome(kind, 7, LOW, true), wanted);
        }
        for kind in [4, 5, 31, 32, 63, 1 << 32, (1 << 32) + 1, u64::MAX] {
            assert_eq!(outcome(kind, 7, LOW, true), None);
        }
    }

    #[test]
    fn reserved_bits_are_refused_for_every_type() {
        for kind in 0..4 {
            assert!(outcome(kind, 0xfff, LOW, true).is_some());
            for bit in 12..64 {
                assert_eq!(outcome(kind, 1 << bit, LOW, true), None);
            }
        }
    }

    #[test]
    fn without_pcids_only_pcid_0_is_valid() {
        for kind in 0..4 {
            assert!(outcome(kind, 0, LOW, false).is_some());
            assert_eq!(outcome(kind, 1, LOW, false).is_some(), kind >= 2);
        }
    }

    #[test]
    fn only_type_0_checks_the_address() {
        for kind in 0..4 {
            // Neither is canonical; the second one would be canonical if LAM masked bits 62:57.
            for address in [1 << 47, 0x7e00_0000_0000_1000] {
                assert_eq!(outcome(kind, 0, address, true).is_some(), kind != 0);
            }
        }
    }

    #[test]
    fn a_cr3_gives_its_pcid() {
        let cr3 = Cr3::from(0x8000_0000_1234_5fff);
        assert_eq!(Pcid::of(cr3, Cr4::zeroed()), Pcid::ZERO);
        assert_eq!(Pcid::of(cr3, Cr4::zeroed().with_pcide(true)), Pcid(0xfff));
    }
}
