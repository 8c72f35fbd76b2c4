// SPDX-License-Identifier: GPL-2.0

//! This module locates an operand for userspace programs.

use super::{
    Exception,
    Registers, //
};
use crate::{
    vmx::operand::{
        InsnInfo,
        Place, //
    },
    x86::{
        control_regs::{
            Cr3,
            Cr4, //
        },
        mode::{
            Gpr,
            GuestRegs,
            Mode, //
        },
        segment::{
            self,
            SegmentRegister, //
        }, //
    }, //
};

/// A segment, in the format of a VMCS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// The base.
    pub base: u64,
    /// The limit.
    pub limit: u32,
    /// The access rights.
    pub rights: u32,
}

/// A guest's CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cpu {
    /// Control registers, flags and CS.L.
    pub registers: Registers,
    /// General-purpose registers, RAX to R15.
    pub gprs: [u64; 16],
    /// Segments, from ES to GS.
    pub segments: [Segment; 6],
}

impl GuestRegs for Cpu {
    fn mode(&self) -> Mode {
        let Registers {
            cr0,
            efer,
            virtual_8086,
            long,
            ..
        } = self.registers;
        Mode::new(cr0.into(), efer.into(), virtual_8086, long)
    }

    fn gpr(&self, register: Gpr) -> u64 {
        self.gprs[register.get() as usize]
    }

    fn segment(&self, register: SegmentRegister) -> segment::Segment {
        let Segment {
            base,
            limit,
            rights,
        } = self.segments[register.index() as usize];
        segment::Segment {
            base,
            limit,
            rights: rights.into(),
        }
    }

    fn segment_base(&self, register: SegmentRegister) -> u64 {
        self.segments[register.index() as usize].base
    }

    fn cr3(&self) -> Cr3 {
        self.registers.cr3.into()
    }

    fn cr4(&self) -> Cr4 {
        self.registers.cr4.into()
    }
}

/// Returns the value of the register operand.
pub fn register(info: u32, cpu: &Cpu) -> u64 {
    InsnInfo::from(info).register_operand(cpu.mode(), cpu)
}

/// Returns the linear address of an operand of `len` bytes in memory, and whether addresses have 64
/// bits.
///
/// # Errors
///
/// The exception that the guest gets.
pub fn locate(info: u32, displacement: u64, len: u32, cpu: &Cpu) -> Result<(u64, bool), Exception> {
    let Place { address, is_64_bit } =
        InsnInfo::from(info).locate(cpu.mode(), displacement, len, cpu)?;
    Ok((address.into_raw(), is_64_bit))
}
