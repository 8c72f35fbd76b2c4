// SPDX-License-Identifier: GPL-2.0

//! This module describes the state of a guest's CPU that addresses depend on: its registers, its
//! mode, and the masking of linear addresses.
//!
//! Source: the manual's chapter on basic execution environment, "Modes of Operation", and its
//! chapter on linear-address pre-processing.

use crate::x86::{
    addr::LinearWidth,
    control_regs::{
        Cr0,
        Cr3,
        Cr4,
        Efer, //
    },
    segment::{
        Segment,
        SegmentRegister, //
    }, //
};
use kernel::num::Bounded;

/// The mode in which a CPU forms addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Real-address mode.
    Real,
    /// Virtual-8086 mode.
    Virtual8086,
    /// Protected mode, of 16 or 32 bits.
    Protected,
    /// Code of 16 or 32 bits under long mode.
    Compatibility,
    /// Code of 64 bits.
    Bits64,
}

impl Mode {
    /// Returns the mode; `virtual_8086` is RFLAGS.VM, `long` is CS.L.
    #[inline]
    pub(crate) fn new(cr0: Cr0, efer: Efer, virtual_8086: bool, long: bool) -> Self {
        match (efer.long_mode_active(), long) {
            (true, true) => Self::Bits64,
            (true, false) => Self::Compatibility,
            (false, _) if virtual_8086 => Self::Virtual8086,
            (false, _) if cr0.protected() => Self::Protected,
            (false, _) => Self::Real,
        }
    }

    /// Returns whether this is 64-bit mode.
    #[inline]
    pub(crate) fn is_64_bit(self) -> bool {
        self == Self::Bits64
    }
}

/// A general-purpose register, by the number that instructions give it: RAX is 0, R15 is 15.
pub(crate) type Gpr = Bounded<u32, 4>;

/// A guest's CPU, as far as addresses depend on it.
pub(crate) trait GuestRegs {
    /// Returns the mode.
    fn mode(&self) -> Mode;
    /// Returns all 64 bits of a general-purpose register.
    fn gpr(&self, register: Gpr) -> u64;
    /// Returns a segment.
    fn segment(&self, register: SegmentRegister) -> Segment;
    /// Returns the base of a segment, the only part that 64-bit mode uses.
    fn segment_base(&self, register: SegmentRegister) -> u64;
    /// Returns CR3.
    fn cr3(&self) -> Cr3;
    /// Returns CR4.
    fn cr4(&self) -> Cr4;
}

/// Removes the metadata (LAM) from an address that 64-bit code is about to access.
///
/// Bits 62:N repeat bit N-1, where N is the width to which CR3 masks user addresses, or CR4
/// supervisor addresses.  Bit 63, which distinguishes supervisor from user addresses, stays.
#[inline]
pub(crate) fn untag(address: u64, cr3: Cr3, cr4: Cr4) -> u64 {
    const SIGN: u64 = 1 << 63;
    let width = if address & SIGN != 0 {
        cr4.lam_supervisor().then(|| cr4.linear_width())
    } else if cr3.lam_u57() {
        Some(LinearWidth::Bits57)
    } else {
        cr3.lam_u48().then_some(LinearWidth::Bits48)
    };
    let Some(width) = width else { return address };
    let unused = u64::BITS - width.bits();
    // CAST: u64 and i64 have the same bits; as i64, a shift to the right repeats the sign bit.
    let repeated = ((address << unused) as i64 >> unused) as u64;
    repeated & !SIGN | address & SIGN
}

#[cfg(CONFIG_VMX_VPID_KUNIT_TEST)]
#[kernel::macros::kunit_tests(vmx_vpid_mode)]
mod tests {
    use super::*;
    use kernel::prelude::*;

    #[test]
    fn registers_determine_the_mode() {
        let (real, protected) = (Cr0::zeroed(), Cr0::zeroed().with_protected(true));
        let (legacy, long) = (Efer::zeroed(), Efer::zeroed().with_long_mode_active(true));
        assert_eq!(Mode::new(real, legacy, false, false), Mode::Real);
        assert_eq!(Mode::new(protected, legacy, false, false), Mode::Protected);
        assert_eq!(Mode::new(protected, legacy, true, false), Mode::Virtual8086);
        assert_eq!(Mode::new(protected, long, false, true), Mode::Bits64);
        assert_eq!(
            Mode::new(protected, long, false, false),
            Mode::Compatibility
        );
        // CS.L has no effect outside long mode.
        assert_eq!(Mode::new(protected, legacy, false, true), Mode::Protected);
    }

    #[test]
    fn lam_metadata_is_removed_from_addresses() {
        const TAG: u64 = 0x5a << 56;
        let (cr3, cr4) = (Cr3::zeroed(), Cr4::zeroed());
        let user = 0x1230 | TAG;
        let supervisor = 0xffff_8000_0000_1230 ^ (0x25 << 57);
        assert_eq!(untag(user, cr3, cr4), user);
        assert_eq!(untag(supervisor, cr3, cr4), supervisor);
        assert_eq!(untag(user, cr3.with_lam_u48(true), cr4), 0x1230);
        // LAM_U48 masks bit 50, LAM_U57 does not; if both are set, LAM_U57 applies.
        let low = 0x1230 | 1 << 50;
        assert_eq!(untag(low, cr3.with_lam_u48(true), cr4), 0x1230);
        let both = cr3.with_lam_u48(true).with_lam_u57(true);
        assert_eq!(untag(low, both, cr4), low);
        // Each half of the addresses has its own switch.
        let masked = cr4.with_lam_supervisor(true);
        assert_eq!(untag(supervisor, cr3, masked), 0xffff_8000_0000_1230);
        assert_eq!(untag(user, cr3, masked), user);
        // Bit 63 stays, so that a tag never makes a user address a supervisor address.
        let lowest = 1 << 47;
        assert_eq!(
            untag(lowest, cr3.with_lam_u48(true), cr4),
            0x7fff_8000_0000_0000
        );
    }
}
