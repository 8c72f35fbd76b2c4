// SPDX-License-Identifier: GPL-2.0

//! This module describes segments as a guest's CPU holds them, and checks an access through a
//! segment.
//!
//! Outside 64-bit mode an operand lies in a segment, and an access has to keep to the segment's
//! type and limit.
//! Source: the manual's chapter on protection, "Limit Checking" and "Type Checking", and the VMX
//! chapter on guest-state fields, "Guest Register State".

use crate::x86::exception::Exception;
use kernel::{
    bitfield,
    num::Bounded, //
};

/// A segment register, by the number that VMX gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum SegmentRegister {
    /// ES.
    Es,
    /// CS.
    Cs,
    /// SS.
    Ss,
    /// DS.
    Ds,
    /// FS.
    Fs,
    /// GS.
    Gs,
}

impl SegmentRegister {
    /// Returns the number, 0 to 5.
    #[inline]
    pub(crate) const fn index(self) -> u32 {
        // CAST: `repr(u32)` makes the discriminant a u32.
        self as u32
    }

    /// Returns whether the segment's base counts in 64-bit mode.
    #[inline]
    pub(crate) const fn has_base_in_64_bit_mode(self) -> bool {
        matches!(self, Self::Fs | Self::Gs)
    }

    /// Returns the exception that an access beyond the segment's limit raises.
    #[inline]
    pub(crate) const fn fault(self) -> Exception {
        match self {
            Self::Ss => Exception::Stack,
            _ => Exception::GeneralProtection,
        }
    }
}

impl TryFrom<Bounded<u32, 3>> for SegmentRegister {
    type Error = Bounded<u32, 3>;

    fn try_from(index: Bounded<u32, 3>) -> Result<Self, Self::Error> {
        Ok(match index.get() {
            0 => Self::Es,
            1 => Self::Cs,
            2 => Self::Ss,
            3 => Self::Ds,
            4 => Self::Fs,
            5 => Self::Gs,
            _ => return Err(index),
        })
    }
}

impl From<SegmentRegister> for Bounded<u32, 3> {
    fn from(register: SegmentRegister) -> Self {
        Self::from_expr(register.index() & 7)
    }
}

bitfield! {
    /// The access rights of a segment, as a VMCS holds them.
    pub(crate) struct Rights(u32) {
        /// Data: may be written.  Code: may be read.
        1:1     writable_or_readable => bool;
        /// Data: expand-down.  Code: conforming.
        2:2     expand_down_or_conforming => bool;
        /// Code, not data.
        3:3     code => bool;
        /// Descriptor privilege level; that of SS is the CPL.
        6:5     dpl;
        /// Code: 64-bit mode, if long mode is active.
        13:13   long => bool;
        /// Offsets have 32 bits; the upper bound of an expand-down segment is 0xffff_ffff.
        14:14   big => bool;
        /// Not usable: loaded with a null selector.
        16:16   unusable => bool;
    }
}

impl Rights {
    /// Returns whether the segment grows downwards: its limit is the last offset *outside*.
    #[inline]
    fn expand_down(self) -> bool {
        !self.code() && self.expand_down_or_conforming()
    }

    /// Returns whether the segment's content may be read as data.
    #[inline]
    fn is_readable(self) -> bool {
        !self.code() || self.writable_or_readable()
    }
}

/// A segment, as the hidden part of a segment register holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    /// Linear address of offset 0.
    pub(crate) base: u64,
    /// The last valid offset, in bytes; of an expand-down segment, the last invalid one.
    pub(crate) limit: u32,
    /// The type and the rights.
    pub(crate) rights: Rights,
}

impl Segment {
    /// Returns whether all bytes of an access lie within the bounds.
    ///
    /// A flat segment, whose base and limit make it the whole address space, has no bounds: a CPU
    /// may ignore its limit, and every CPU with VMX does.  An access then wraps to 0 at 4 GiB.
    #[inline]
    pub(crate) fn contains(&self, offset: u32, len: u32) -> bool {
        let first = u64::from(offset);
        let last = first + u64::from(len.saturating_sub(1));
        let limit = u64::from(self.limit);
        if self.rights.expand_down() {
            let upper = if self.rights.big() { u32::MAX } else { 0xffff };
            first > limit && last <= u64::from(upper)
        } else {
            last <= limit || (self.base == 0 && self.limit == u32::MAX)
        }
    }

    /// Checks a read of `len` bytes at an offset in protected or compatibility mode.
    ///
    /// The check for an unusable segment comes first, because such a segment has no type.
    ///
    /// # Errors
    ///
    /// #GP(0) for execute-only code; #SS(0) in SS and #GP(0) in any other segment if the segment is
    /// unusable or a byte is out of bounds.
    #[inline]
    pub(crate) fn check_read(
        &self,
        register: SegmentRegister,
        offset: u32,
        len: u32,
    ) -> Result<(), Exception> {
        if self.rights.unusable() {
            Err(register.fault())
        } else if !self.rights.is_readable() {
            Err(Exception::GeneralProtection)
        } else if !self.contains(offset, len) {
            Err(register.fault())
        } else {
            Ok(())
        }
    }
}

#[cfg(CONFIG_VMX_VPID_KUNIT_TEST)]
#[kernel::macros::kunit_tests(vmx_vpid_segment)]
mod tests {
    use super::{
        SegmentRegister::*,
        *, //
    };

    /// Data that may be written.
    const DATA: u32 = 0x2;
    /// Data that may be written, expand-down.
    const DOWN: u32 = 0x6;
    /// Code that may be read, and code that may not.
    const CODE: [u32; 2] = [0xa, 0x8];

    fn segment(kind: u32, limit: u32) -> Segment {
        Segment {
            base: 0x1000,
            limit,
            rights: Rights::from(kind),
        }
    }

    #[test]
    fn a_limit_holds_up_to_the_last_byte() {
        let segment = segment(DATA, 0x1fff);
        assert!(segment.contains(0x1ff0, 16));
        assert!(!segment.contains(0x1ff1, 16));
        assert!(!segment.contains(0x2000, 1));
        assert!(!segment.contains(0xffff_fff8, 16));
    }

    #[test]
    fn a_flat_segment_has_no_bounds() {
        let mut segment = segment(DATA, u32::MAX);
        assert!(segment.contains(0xffff_fff0, 16));
        assert!(!segment.contains(0xffff_fff1, 16));
        segment.base = 0;
        assert!(segment.contains(0xffff_fff8, 16));
        // An expand-down segment with that limit is empty.
        segment.rights = Rights::from(DOWN).with_big(true);
        assert!(!segment.contains(0, 1));
        assert!(!segment.contains(u32::MAX, 1));
    }

    #[test]
    fn an_expand_down_segment_is_all_above_its_limit() {
        let mut segment = segment(DOWN, 0x1fff);
        for (offset, inside) in [
            (0, false),
            (0x1ff0, false),
            (0x1fff, false),
            (0x2000, true),
            (0xfff0, true),
            (0xfff1, false),
            (0x1_0000, false),
        ] {
            assert_eq!(segment.contains(offset, 16), inside);
        }
        segment.rights = segment.rights.with_big(true);
        for (offset, inside) in [
            (0x1fff, false),
            (0x2000, true),
            (0x1_0000, true),
            (0xffff_fff0, true),
            (0xffff_fff1, false),
        ] {
            assert_eq!(segment.contains(offset, 16), inside);
        }
    }

    #[test]
    fn ss_raises_a_stack_fault_and_others_gp() {
        let short = segment(DATA, 0xf);
        let unusable = Segment {
            // The type of an unusable segment has no effect.
            rights: Rights::from(CODE[1]).with_unusable(true),
            ..short
        };
        for register in [Es, Cs, Ss, Ds, Fs, Gs] {
            let fault = if register == Ss {
                Exception::Stack
            } else {
                Exception::GeneralProtection
            };
            assert_eq!(short.check_read(register, 0, 16), Ok(()));
            assert_eq!(short.check_read(register, 1, 16), Err(fault));
            assert_eq!(unusable.check_read(register, 0, 16), Err(fault));
        }
    }

    #[test]
    fn code_can_be_read_if_it_is_readable() {
        let [readable, not] = CODE.map(|kind| segment(kind, 0xffff));
        assert_eq!(readable.check_read(Cs, 0, 16), Ok(()));
        let fault = Err(Exception::GeneralProtection);
        assert_eq!(not.check_read(Cs, 0, 16), fault);
        // Conforming code has the bit that means expand-down for data.
        let conforming = segment(CODE[0] | 4, 0xffff);
        assert_eq!(conforming.check_read(Cs, 0, 16), Ok(()));
    }

    #[test]
    fn segment_registers_have_the_numbers_of_the_manual() {
        for (index, register) in (0..).zip([Es, Cs, Ss, Ds, Fs, Gs]) {
            assert_eq!(register.index(), index);
            let number = Bounded::<u32, 3>::from(register);
            assert_eq!(SegmentRegister::try_from(number), Ok(register));
        }
        assert!(SegmentRegister::try_from(Bounded::<u32, 3>::new::<6>()).is_err());
        assert!(SegmentRegister::try_from(Bounded::<u32, 3>::new::<7>()).is_err());
    }
}
