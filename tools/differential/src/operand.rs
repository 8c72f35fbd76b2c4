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

/// Makes a case of bytes, and checks it.
pub fn check(bytes: &[u8]) {
    let input = &mut Input::new(bytes);
    let registers = input.registers();
    let is_long = reference::is_long(&registers);
    let is_64_bit = is_long && registers.long;
    let info = input.dword();
    // An address size of 64 bits exists in 64-bit mode alone, and one of 16 bits does not.
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

    // What the case must not depend on, every register but three and every segment but one, has
    // something that would show.
    let mut cpu = Cpu {
        registers,
        gprs: std::array::from_fn(|n| 0x0123_4567_89ab_cdef ^ (n as u64) << 40),
        ..Cpu::default()
    };
    for shift in [18, 23, 28] {
        cpu.gprs[(info >> shift & 15) as usize] = input.near();
    }
    // CAST: The upper half is what is cut off.
    let mut segment = Segment {
        base: input.near(),
        limit: input.near() as u32,
        rights: input.dword() & 0x1_f0ff,
    };
    // A flat one; and one that is all but flat.
    let style = input.below(4);
    if style < 2 {
        segment.limit = u32::MAX;
        segment.rights &= !(1 << 16);
        segment.base *= u64::from(style);
    }
    let is_protected = registers.cr0 & 1 != 0 && !registers.virtual_8086;
    if !is_protected {
        // A data segment, as loading a selector there makes it.
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
