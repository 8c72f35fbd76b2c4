// SPDX-License-Identifier: GPL-2.0

//! This module compares the location of operands: `vmx/operand.rs`, `x86/segment.rs`,
//! `x86/mode.rs`.

use crate::{
    input::Input,
    reference, //
};
use vmx_vpid::harness::operand::{
    self,
    Cpu,
    Segment, //
};

/// Makes a case from bytes, and compares the two implementations.
pub fn check(bytes: &[u8]) {
    let input = &mut Input::new(bytes);
    let registers = input.registers();
    let is_long = reference::is_long(&registers);
    let is_64_bit = is_long && registers.long;
    let info = input.dword();
    // Only 64-bit mode has an address size of 64 bits, and has no address size of 16 bits.
    let size = match input.below(16) {
        0 => 3 + u32::from(input.below(5)),
        n if is_64_bit => 1 + u32::from(n) % 2,
        n => u32::from(n) % 2,
    };
    let mut info = info & !(7 << 7) | size << 7;
    if input.below(16) != 0 {
        info &= !(1 << 10);
    }
    let displacement = input.near();

    // The case must not depend on any register but three, nor on any segment but one.  The other
    // registers have values that would show in a result.
    let mut cpu = Cpu {
        registers,
        gprs: std::array::from_fn(|n| 0x0123_4567_89ab_cdef ^ (n as u64) << 40),
        ..Cpu::default()
    };
    for shift in [18, 23, 28] {
        cpu.gprs[(info >> shift & 15) as usize] = input.near();
    }
    // CAST: Only the lower 32 bits of the number are used.
    let mut segment = Segment {
        base: input.near(),
        limit: input.near() as u32,
        rights: input.dword() & 0x1_f0ff,
    };
    // A flat segment; a segment that is flat except for its base.
    let style = input.below(4);
    if style < 2 {
        segment.limit = u32::MAX;
        segment.rights &= !(1 << 16);
        segment.base *= u64::from(style);
    }
    let is_protected = registers.cr0 & 1 != 0 && !registers.virtual_8086;
    if !is_protected {
        // The rights of a segment whose selector was loaded in this mode.
        segment.rights = 0x93;
    }
    if let Some(place) = cpu.segments.get_mut((info >> 15 & 7) as usize) {
        *place = segment;
    }
    let len = 1 + u32::from(input.below(16));

    assert_eq!(
        operand::locate(info, displacement, len, &cpu),
        reference::operand::locate(info, displacement, len, &cpu),
        "info {info:#x}, displacement {displacement:#x}, len {len}, {cpu:x?}"
    );
    assert_eq!(
        operand::register(info, &cpu),
        reference::operand::register(info, &cpu),
        "info {info:#x}, {cpu:x?}"
    );
}
