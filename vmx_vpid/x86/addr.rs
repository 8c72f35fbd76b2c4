// SPDX-License-Identifier: GPL-2.0

//! This module has a type for the addresses of each address space.
//!
//! A guest-virtual, a guest-physical and a host-physical address are all 64-bit numbers, and many
//! bugs in the history of this layer come from using one for another.  These types do not convert
//! into each other.

/// The number of bits of a linear address that are translated; the higher bits repeat the highest
/// of these.
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
        // CAST: The type is represented by that number.
        self as u32
    }
}

/// A guest-virtual (linear) address, as a guest's instruction or page walk uses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct Gva(u64);

impl Gva {
    /// Makes a guest-virtual address; every 64-bit value is one, canonical or not.
    #[inline]
    pub(crate) const fn new(address: u64) -> Self {
        Self(address)
    }

    /// Returns the address as a number.
    #[inline]
    pub(crate) const fn into_raw(self) -> u64 {
        self.0
    }

    /// Returns whether all bits above the translated ones repeat the highest of these.
    ///
    /// The manual's chapter on basic execution environment, "Canonical Addressing".
    #[inline]
    pub(crate) const fn is_canonical(self, width: LinearWidth) -> bool {
        // An address that is canonical by 48 bits is canonical by 57 bits too.  Nearly every
        // address is, so only others need a look at the width.
        self.repeats_from(LinearWidth::Bits48) || self.repeats_from(width)
    }

    /// Returns whether the bits above a width repeat the highest below it.
    #[inline]
    const fn repeats_from(self, width: LinearWidth) -> bool {
        let unused = u64::BITS - width.bits();
        // CAST: Shifting a signed number right repeats its sign.
        ((self.0 << unused) as i64 >> unused) as u64 == self.0
    }

    /// Returns the address as one that may be the operand of an invalidation, if it is canonical.
    ///
    /// The width is that of the CPU, whatever paging the guest uses: so do INVLPG, INVPCID and
    /// INVVPID take their addresses.
    #[inline]
    pub(crate) const fn canonical(self, width: LinearWidth) -> Option<CanonicalGva> {
        // INVARIANT: Checked.
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
/// It was found canonical by [`Gva::canonical()`].
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

    /// Returns a mask of the bits 51:MAXPHYADDR, which are reserved wherever an address is held.
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
    fn addresses_at_the_canonical_edges() {
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
        // Canonical by 57 bits alone.
        assert!(Gva::new(1 << 48).is_canonical(Bits57));
        assert!(!Gva::new(1 << 48).is_canonical(Bits48));
    }

    #[test]
    fn reserved_bits_of_physical_addresses() {
        assert_eq!(MaxPhyAddr::new(52).reserved(), 0);
        assert_eq!(MaxPhyAddr::new(36).reserved(), 0x000f_fff0_0000_0000);
        assert_eq!(MaxPhyAddr::new(0).bits(), 32);
        assert_eq!(MaxPhyAddr::new(64).bits(), 52);
    }
}
