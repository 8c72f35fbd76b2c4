// SPDX-License-Identifier: GPL-2.0

//! This module finds the operand of an instruction that exited to KVM.
//!
//! INVPCID, INVVPID and INVEPT take a type in a register and 16 bytes in memory.  The VM-exit
//! instruction information encodes registers, scale, segment and address size, and the exit
//! qualification holds the displacement.  From these and the guest's registers,
//! [`InsnInfo::locate()`] forms the linear address, with every check that the CPU would make; the
//! page walk comes after it.
//!
//! Source: the manual's chapter on VM exits, "Information for VM Exits Due to Instruction
//! Execution", and the one on instruction operands, "Operand Addressing".
//! Documentation/differences.rst lists where KVM's `get_vmx_mem_address()` differs.

use crate::x86::{
    addr::Gva,
    exception::Exception,
    mode::{
        untag,
        GuestRegs,
        Mode, //
    },
    segment::SegmentRegister, //
};
use kernel::{
    bitfield,
    num::Bounded, //
};

/// The number of bits of an effective address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum AddressSize {
    /// 16 bits.
    Bits16,
    /// 32 bits.
    Bits32,
    /// 64 bits.
    Bits64,
}

impl AddressSize {
    /// Returns a mask of the bits that an effective address of this size has.
    #[inline]
    const fn mask(self) -> u64 {
        match self {
            Self::Bits16 => 0xffff,
            Self::Bits32 => 0xffff_ffff,
            Self::Bits64 => u64::MAX,
        }
    }
}

impl TryFrom<Bounded<u32, 3>> for AddressSize {
    type Error = Bounded<u32, 3>;

    fn try_from(size: Bounded<u32, 3>) -> Result<Self, Self::Error> {
        match size.get() {
            0 => Ok(Self::Bits16),
            1 => Ok(Self::Bits32),
            2 => Ok(Self::Bits64),
            _ => Err(size),
        }
    }
}

impl From<AddressSize> for Bounded<u32, 3> {
    fn from(size: AddressSize) -> Self {
        // CAST: `repr(u32)` makes the discriminant a u32.
        Self::from_expr(size as u32 & 7)
    }
}

bitfield! {
    /// The VM-exit instruction information of INVEPT, INVPCID and INVVPID.
    pub(crate) struct InsnInfo(u32) {
        /// The number of bits to shift the index left.
        1:0     scale;
        /// The number of bits of the effective address.
        9:7     address_size ?=> AddressSize;
        /// The second operand is a register, which none of these instructions allows.
        10:10   register_form => bool;
        /// The segment that the operand is in.
        17:15   segment ?=> SegmentRegister;
        /// The index register.
        21:18   index;
        /// There is no index register.
        22:22   no_index => bool;
        /// The base register.
        26:23   base;
        /// There is no base register.
        27:27   no_base => bool;
        /// The register operand: it holds the type.
        31:28   register;
    }
}

/// A place in a guest's linear address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The address of the first byte.
    pub(crate) address: Gva,
    /// Whether addresses continue beyond 4 GiB; otherwise they wrap to 0 there.
    pub(crate) is_64_bit: bool,
}

impl InsnInfo {
    /// Returns the value of the register operand; outside 64-bit mode it has 32 bits.
    #[inline]
    pub(crate) fn register_operand(self, mode: Mode, cpu: &impl GuestRegs) -> u64 {
        let value = cpu.gpr(self.register());
        if mode.is_64_bit() {
            value
        } else {
            value & 0xffff_ffff
        }
    }

    /// Forms the effective address: base + index * scale + displacement, in the address size.
    ///
    /// The sum is cut to the address size, so the higher bits of registers, and the undefined
    /// higher bits of a displacement, have no effect.
    #[inline]
    fn effective_address(self, size: AddressSize, displacement: u64, cpu: &impl GuestRegs) -> u64 {
        let mut sum = displacement;
        if !self.no_base() {
            sum = sum.wrapping_add(cpu.gpr(self.base()));
        }
        if !self.no_index() {
            sum = sum.wrapping_add(cpu.gpr(self.index()) << self.scale().get());
        }
        sum & size.mask()
    }

    /// Returns the linear address of an operand of `len` bytes that the instruction reads.
    ///
    /// # Errors
    ///
    /// #UD if the operand is a register.  #GP(0) if the segment may not be read.  #SS(0) in SS, or
    /// #GP(0) in any other segment, if the segment is unusable, or a byte of the operand is outside
    /// the segment or not canonical.
    #[inline]
    pub(crate) fn locate(
        self,
        mode: Mode,
        displacement: u64,
        len: u32,
        cpu: &impl GuestRegs,
    ) -> Result<Place, Exception> {
        // The CPU raises #UD for a register before the exit, and reports no undefined encoding.
        let (false, Ok(register), Ok(size)) =
            (self.register_form(), self.segment(), self.address_size())
        else {
            return Err(Exception::InvalidOpcode);
        };
        let offset = self.effective_address(size, displacement, cpu);
        if mode.is_64_bit() {
            return locate_64(register, offset, len, cpu);
        }

        let segment = cpu.segment(register);
        // CAST: Outside 64-bit mode the address size is at most 32 bits, so the offset fits in u32.
        let offset = offset as u32;
        match mode {
            // Without protection a segment has a limit, but no type.
            Mode::Real | Mode::Virtual8086 if segment.contains(offset, len) => {}
            Mode::Real | Mode::Virtual8086 => return Err(register.fault()),
            _ => segment.check_read(register, offset, len)?,
        }
        // CAST: Outside 64-bit mode a linear address has 32 bits, so the base is cut to 32 bits.
        let address = (segment.base as u32).wrapping_add(offset);
        Ok(Place {
            address: Gva::new(u64::from(address)),
            is_64_bit: false,
        })
    }
}

/// Forms a linear address in 64-bit mode, where segments have no limit and addresses have to be
/// canonical.
///
/// The sum has 64 bits even if the effective address has 32.  If the first and the last byte are
/// canonical, every byte is: an operand is too short to span the addresses that are not.
///
/// # Errors
///
/// #SS(0) in SS, or #GP(0) in any other segment, if a byte of the operand is not canonical.
#[inline]
fn locate_64(
    register: SegmentRegister,
    offset: u64,
    len: u32,
    cpu: &impl GuestRegs,
) -> Result<Place, Exception> {
    let linear = if register.has_base_in_64_bit_mode() {
        offset.wrapping_add(cpu.segment_base(register))
    } else {
        offset
    };
    let cr4 = cpu.cr4();
    let first = untag(linear, cpu.cr3(), cr4);
    let last = first.wrapping_add(u64::from(len.saturating_sub(1)));
    let width = cr4.linear_width();
    if !Gva::new(first).is_canonical(width) || !Gva::new(last).is_canonical(width) {
        return Err(register.fault());
    }
    Ok(Place {
        address: Gva::new(first),
        is_64_bit: true,
    })
}

#[cfg(CONFIG_VMX_VPID_KUNIT_TEST)]
#[kernel::macros::kunit_tests(vmx_vpid_operand)]
mod tests {
    use super::{
        SegmentRegister::*,
        *, //
    };
    use crate::x86::{
        addr::LinearWidth,
        control_regs::{
            Cr3,
            Cr4, //
        },
        mode::Gpr,
        segment::{
            Rights,
            Segment, //
        }, //
    };
    use kernel::prelude::*;

    /// A CPU in which each register holds a different number.
    struct Cpu {
        mode: Mode,
        segment: Segment,
        cr3: Cr3,
        cr4: Cr4,
    }

    impl Cpu {
        fn new(mode: Mode) -> Self {
            let segment = Segment {
                base: 0x10_0000,
                limit: u32::MAX,
                rights: Rights::from(2),
            };
            let (cr3, cr4) = (Cr3::zeroed(), Cr4::zeroed());
            Self {
                mode,
                segment,
                cr3,
                cr4,
            }
        }
    }

    /// Returns the value of register `n`; the upper half is set, so that a missing cut shows.
    fn held(n: u32) -> u64 {
        0xffff_8000_0000_1000 + u64::from(n) * 0x1_0010
    }

    impl GuestRegs for Cpu {
        fn mode(&self) -> Mode {
            self.mode
        }
        fn gpr(&self, register: Gpr) -> u64 {
            held(register.get())
        }
        fn segment(&self, _: SegmentRegister) -> Segment {
            self.segment
        }
        fn segment_base(&self, _: SegmentRegister) -> u64 {
            self.segment.base
        }
        fn cr3(&self) -> Cr3 {
            self.cr3
        }
        fn cr4(&self) -> Cr4 {
            self.cr4
        }
    }

    /// Returns the instruction information of an operand in DS that is a displacement only.
    fn plain(size: AddressSize) -> InsnInfo {
        InsnInfo::zeroed()
            .with_address_size(size)
            .with_segment(Ds)
            .with_no_base(true)
            .with_no_index(true)
    }

    /// Returns the address of an operand of 16 bytes.
    fn address(info: InsnInfo, displacement: u64, cpu: &Cpu) -> Result<u64, Exception> {
        let place = info.locate(cpu.mode, displacement, 16, cpu)?;
        Ok(place.address.into_raw())
    }

    #[test]
    fn base_index_and_displacement_add_up_in_every_size() {
        let cpu = Cpu::new(Mode::Bits64);
        for size in [AddressSize::Bits32, AddressSize::Bits64] {
            for scale in 0..4u32 {
                let info = plain(size)
                    .with_no_base(false)
                    .with_base(Gpr::new::<15>())
                    .with_no_index(false)
                    .with_index(Gpr::new::<9>())
                    .with_scale(Bounded::from_expr(scale & 3));
                let sum = held(15)
                    .wrapping_add(held(9) << scale)
                    .wrapping_add(0u64.wrapping_sub(8));
                let sum = sum & size.mask();
                let wanted = if Gva::new(sum).is_canonical(LinearWidth::Bits48) {
                    Ok(sum)
                } else {
                    Err(Exception::GeneralProtection)
                };
                assert_eq!(address(info, 0u64.wrapping_sub(8), &cpu), wanted);
            }
        }
        // With 16 bits, base and index wrap within 64 KiB before the segment's base is added.
        let cpu = Cpu::new(Mode::Protected);
        let info = plain(AddressSize::Bits16)
            .with_no_base(false)
            .with_base(Gpr::new::<3>());
        assert_eq!(address(info, 0xf000, &cpu), Ok(0x10_0000 + 0x30));
        // Undefined bits of a displacement have no effect.
        assert_eq!(address(info, 0xdead_0000_f000, &cpu), Ok(0x10_0000 + 0x30));
    }

    #[test]
    fn only_fs_and_gs_have_a_base_in_64_bit_mode() {
        let mut cpu = Cpu::new(Mode::Bits64);
        for register in [Es, Cs, Ss, Ds, Fs, Gs] {
            let base = if matches!(register, Fs | Gs) {
                0x10_0000
            } else {
                0
            };
            for size in [AddressSize::Bits32, AddressSize::Bits64] {
                let info = plain(size).with_segment(register);
                assert_eq!(address(info, 0x1230, &cpu), Ok(base + 0x1230));
            }
        }
        // An effective address of 32 bits does not keep the sum below 4 GiB.
        cpu.segment.base = 0xffff_8000_0000_0000;
        let info = plain(AddressSize::Bits32).with_segment(Gs);
        assert_eq!(address(info, 0xffff_fff0, &cpu), Ok(0xffff_8000_ffff_fff0));
        // Limits and types have no effect.
        cpu.segment.limit = 0;
        cpu.segment.rights = Rights::from(8).with_unusable(true);
        assert_eq!(address(info, 0x1230, &cpu), Ok(0xffff_8000_0000_1230));
    }

    #[test]
    fn every_byte_of_an_operand_has_to_be_canonical() {
        let mut cpu = Cpu::new(Mode::Bits64);
        for (register, fault) in [(Ds, Exception::GeneralProtection), (Ss, Exception::Stack)] {
            let info = plain(AddressSize::Bits64).with_segment(register);
            for (last, good) in [
                (0x7fff_ffff_ffff, true),
                (0x8000_0000_0000, false),
                (0x8000_0000_000f, false),
                (0xffff_7fff_ffff_ffff, false),
                (0xffff_8000_0000_000e, false),
                (0xffff_8000_0000_000f, true),
                (u64::MAX, true),
            ] {
                let first = last - 15;
                let wanted = if good { Ok(first) } else { Err(fault) };
                assert_eq!(address(info, first, &cpu), wanted);
            }
        }
        // With five levels of paging more addresses are canonical.
        let info = plain(AddressSize::Bits64);
        assert!(address(info, 1 << 52, &cpu).is_err());
        cpu.cr4 = cpu.cr4.with_la57(true);
        assert_eq!(address(info, 1 << 52, &cpu), Ok(1 << 52));
    }

    #[test]
    fn linear_addresses_wrap_outside_64_bit_mode() {
        for mode in [Mode::Real, Mode::Protected, Mode::Compatibility] {
            let cpu = Cpu::new(mode);
            let place = plain(AddressSize::Bits32).locate(mode, 0xfff8_0000, 16, &cpu);
            let wanted = Place {
                address: Gva::new(0x8_0000),
                is_64_bit: false,
            };
            assert_eq!(place, Ok(wanted));
        }
    }

    #[test]
    fn segments_are_checked_in_compatibility_mode() {
        for mode in [Mode::Protected, Mode::Compatibility] {
            let mut cpu = Cpu::new(mode);
            let info = plain(AddressSize::Bits32);
            assert_eq!(address(info, 0x1230, &cpu), Ok(0x10_1230));
            cpu.segment.limit = 0x123e;
            assert_eq!(
                address(info, 0x1230, &cpu),
                Err(Exception::GeneralProtection)
            );
            let stack = info.with_segment(Ss);
            assert_eq!(address(stack, 0x1230, &cpu), Err(Exception::Stack));
        }
    }

    #[test]
    fn without_protection_a_segment_has_only_a_limit() {
        for mode in [Mode::Real, Mode::Virtual8086] {
            let mut cpu = Cpu::new(mode);
            cpu.segment.limit = 0xffff;
            cpu.segment.rights = Rights::from(8);
            let info = plain(AddressSize::Bits16);
            assert_eq!(address(info, 0xfff0, &cpu), Ok(0x10_fff0));
            assert_eq!(
                address(info, 0xfff1, &cpu),
                Err(Exception::GeneralProtection)
            );
        }
    }

    #[test]
    fn a_register_operand_has_no_address() {
        let cpu = Cpu::new(Mode::Bits64);
        let info = plain(AddressSize::Bits64).with_register_form(true);
        assert_eq!(address(info, 0, &cpu), Err(Exception::InvalidOpcode));
        // No CPU reports these numbers.
        for raw in [3 << 7, 2 << 7 | 6 << 15] {
            let info = InsnInfo::from(raw);
            assert_eq!(address(info, 0, &cpu), Err(Exception::InvalidOpcode));
        }
    }

    #[test]
    fn the_register_operand_has_the_width_of_the_mode() {
        let info = InsnInfo::zeroed().with_register(Gpr::new::<12>());
        for mode in [Mode::Real, Mode::Protected, Mode::Compatibility] {
            let value = info.register_operand(mode, &Cpu::new(mode));
            assert_eq!(value, held(12) & 0xffff_ffff);
        }
        let mode = Mode::Bits64;
        assert_eq!(info.register_operand(mode, &Cpu::new(mode)), held(12));
    }
}
