// SPDX-License-Identifier: GPL-2.0

//! This module has a type for the addresses of each address space.
//!
//! A guest-virtual, a guest-physical and a host-physical address are all 64-bit numbers, and many
//! bugs in the history of this layer come from using one for another.  These types do not convert
//! into each other.

/// The number of bits of a linear address that paging translates; the higher bits repeat the
/// highest translated bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum LinearWidth {
    /// 48 bits: paging of four levels.
    Bits48 = 48,
    /// 57 bits: paging of five levels.
    Bits57 = 57,
}

impl LinearWidth {
    /// Returns the number of bits.
    #[inline]
    pub(crate) const fn bits(self) -> u32 {
        // CAST: The discriminant is the number of bits, and fits in u32.
        self as u32
    }
}

/// A guest-virtual (linear) address, as a guest's instruction or page walk uses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct Gva(u64);

impl Gva {
    /// Makes a guest-virtual address of any 64-bit number, canonical or not.
    #[inline]
    pub(crate) const fn new(address: u64) -> Self {
        Self(address)
    }

    /// Returns the address as a number.
    #[inline]
    pub(crate) const fn into_raw(self) -> u64 {
        self.0
    }

    /// Returns whether the bits above the width repeat the highest bit within the width.
    ///
    /// Source: the manual's chapter on basic execution environment, "Canonical Addressing".
    #[inline]
    pub(crate) const fn is_canonical(self, width: LinearWidth) -> bool {
        // An address that is canonical for 48 bits is canonical for 57 bits too.  Nearly every
        // address is canonical for 48 bits, so the second test is rare.
        self.repeats_from(LinearWidth::Bits48) || self.repeats_from(width)
    }

    /// Returns whether the bits above the width repeat the highest bit within the width.
    #[inline]
    const fn repeats_from(self, width: LinearWidth) -> bool {
        let unused = u64::BITS - width.bits();
        // CAST: u64 and i64 have the same bits; as i64, a shift to the right repeats the sign bit.
        ((self.0 << unused) as i64 >> unused) as u64 == self.0
    }

    /// Returns the address as the operand of an invalidation; `None` if it is not canonical.
    ///
    /// `width` is the width of the CPU, whatever paging the guest uses: INVLPG, INVPCID and INVVPID
    /// check their addresses against that width.
    #[inline]
    pub(crate) const fn canonical(self, width: LinearWidth) -> Option<CanonicalGva> {
        // INVARIANT: The address becomes a `CanonicalGva` only if `is_canonical()` returns true.
        if self.is_canonical(width) {
            Some(CanonicalGva(self))
        } else {
            None
        }
    }
}

/// A guest-virtual address that the CPU accepts as operand of an invalidation.
///
/// # Invariants
///
/// [`Gva::canonical()`] found the address canonical.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct CanonicalGva(Gva);

impl CanonicalGva {
    /// Returns the address as a number.
    #[inline]
    pub(crate) const fn into_raw(self) -> u64 {
        self.0.into_raw()
    }
}

/// A guest-physical address, as the guest's page tables hold it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct Gpa(u64);

impl Gpa {
    /// Makes a guest-physical address.
    #[inline]
    pub(crate) const fn new(address: u64) -> Self {
        Self(address)
    }

    /// Returns the address as a number.
    #[inline]
    pub(crate) const fn into_raw(self) -> u64 {
        self.0
    }
}

/// A host-physical address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct Hpa(u64);

impl Hpa {
    /// Makes a host-physical address.
    #[inline]
    pub(crate) const fn new(address: u64) -> Self {
        Self(address)
    }

    /// Returns the address as a number.
    #[inline]
    pub(crate) const fn into_raw(self) -> u64 {
        self.0
    }
}

/// A linear address of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct Hva(u64);

impl Hva {
    /// Makes an address; every 64-bit value is valid.
    #[inline]
    pub(crate) const fn new(address: u64) -> Self {
        Self(address)
    }

    /// Returns the address as a number.
    #[inline]
    pub(crate) const fn into_raw(self) -> u64 {
        self.0
    }
}

/// The width of a guest's physical addresses: its MAXPHYADDR, 32 to 52.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct MaxPhyAddr(u32);

impl MaxPhyAddr {
    /// Makes a width; a number out of range becomes the nearest bound.
    #[inline]
    pub(crate) const fn new(bits: u32) -> Self {
        Self(match bits {
            ..32 => 32,
            32..=52 => bits,
            _ => 52,
        })
    }

    /// Returns the number of bits, 32 to 52.
    #[inline]
    pub(crate) const fn bits(self) -> u32 {
        self.0
    }

    /// Returns a mask of bits 51:MAXPHYADDR, which are reserved in every entry that has an address.
    #[inline]
    pub(crate) const fn reserved(self) -> u64 {
        (1 << 52) - (1 << self.0)
    }
}

#[cfg(CONFIG_VMX_VPID_KUNIT_TEST)]
#[kernel::macros::kunit_tests(vmx_vpid_addr)]
mod tests {
    use super::{
        LinearWidth::*,
        *, //
    };

    #[test]
    fn addresses_are_canonical_up_to_the_edge_of_each_half() {
        // The last address of the lower half and the first of the upper, for both widths.
        for (width, low) in [(Bits48, 0x7fff_ffff_ffff), (Bits57, 0xff_ffff_ffff_ffff)] {
            for (address, canonical) in [
                (0, true),
                (low, true),
                (low + 1, false),
                (!low - 1, false),
                (!low, true),
                (u64::MAX, true),
                (1 << 63, false),
            ] {
                assert_eq!(Gva::new(address).is_canonical(width), canonical);
                assert_eq!(Gva::new(address).canonical(width).is_some(), canonical);
            }
        }
        // This address is canonical for 57 bits only.
        assert!(Gva::new(1 << 48).is_canonical(Bits57));
        assert!(!Gva::new(1 << 48).is_canonical(Bits48));
    }

    #[test]
    fn bits_above_maxphyaddr_are_reserved() {
        assert_eq!(MaxPhyAddr::new(52).reserved(), 0);
        assert_eq!(MaxPhyAddr::new(36).reserved(), 0x000f_fff0_0000_0000);
        assert_eq!(MaxPhyAddr::new(0).bits(), 32);
        assert_eq!(MaxPhyAddr::new(64).bits(), 52);
    }
}
