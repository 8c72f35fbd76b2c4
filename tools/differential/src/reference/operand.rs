// SPDX-License-Identifier: GPL-2.0

//! This module locates an operand by the manual's "Operand Addressing", "Limit Checking", "Type
//! Checking" and "Information for VM Exits Due to Instruction Execution".

use super::{
    bit,
    bits,
    is_canonical,
    is_long, //
};
use vmx_vpid::harness::{
    operand::{
        Cpu,
        Segment, //
    },
    Exception, //
};

/// The number of segment register SS.
const SS: u64 = 2;
/// The number of segment register FS; GS has the next number.
const FS: u64 = 4;

/// Returns whether the CPU is in 64-bit mode.
fn is_64_bit(cpu: &Cpu) -> bool {
    is_long(&cpu.registers) && cpu.registers.long
}

/// Returns a general-purpose register; outside 64-bit mode, only 32 bits of the register.
fn gpr(cpu: &Cpu, number: u64) -> u64 {
    let value = cpu.gprs[number as usize];
    if is_64_bit(cpu) {
        value
    } else {
        bits(value, 31, 0)
    }
}

/// Returns the value of the register operand.
pub fn register(info: u32, cpu: &Cpu) -> u64 {
    gpr(cpu, bits(info.into(), 31, 28))
}

/// Returns the linear address of an operand, and whether addresses have 64 bits.
///
/// # Errors
///
/// The exception that the guest gets.
pub fn locate(info: u32, displacement: u64, len: u32, cpu: &Cpu) -> Result<(u64, bool), Exception> {
    let info = u64::from(info);
    let number = bits(info, 17, 15);
    let size = match bits(info, 9, 7) {
        0 => 16,
        1 => 32,
        2 => 64,
        _ => return Err(Exception::InvalidOpcode),
    };
    if bit(info, 10) || number > 5 {
        return Err(Exception::InvalidOpcode);
    }
    let segment = &cpu.segments[number as usize];
    let fault = if number == SS {
        Exception::Stack
    } else {
        Exception::GeneralProtection
    };

    // The sum has more bits than needed, and is reduced to the address size at the end.
    let mut sum = i128::from(bits(displacement, size - 1, 0));
    if bit(displacement, size - 1) {
        sum -= 2i128.pow(size);
    }
    if !bit(info, 27) {
        sum += i128::from(gpr(cpu, bits(info, 26, 23)));
    }
    if !bit(info, 22) {
        let scale = 2i128.pow(bits(info, 1, 0) as u32);
        sum += i128::from(gpr(cpu, bits(info, 21, 18))) * scale;
    }
    let offset = sum.rem_euclid(2i128.pow(size)) as u64;

    if is_64_bit(cpu) {
        let base = if number >= FS { segment.base } else { 0 };
        let linear = untagged(offset.wrapping_add(base), cpu);
        let width = if bit(cpu.registers.cr4, 12) { 57 } else { 48 };
        let mut all = (0..u64::from(len)).map(|n| linear.wrapping_add(n));
        return if all.all(|address| is_canonical(address, width)) {
            Ok((linear, true))
        } else {
            Err(fault)
        };
    }

    // The manual leaves it to the CPU whether a flat segment has a limit; CPUs with VMX check none.
    let is_flat = segment.base == 0 && segment.limit == u32::MAX;
    let all: Vec<u64> = (0..len).map(|n| offset + u64::from(n)).collect();
    if bit(cpu.registers.cr0, 0) && !cpu.registers.virtual_8086 {
        protected(segment, fault, is_flat, &all)?;
    } else if !is_flat && !all.iter().all(|&offset| offset <= segment.limit.into()) {
        return Err(fault);
    }
    Ok((bits(segment.base.wrapping_add(offset), 31, 0), false))
}

/// Checks a read of some offsets by the type and the limit of a segment.
fn protected(
    segment: &Segment,
    fault: Exception,
    is_flat: bool,
    offsets: &[u64],
) -> Result<(), Exception> {
    let rights = u64::from(segment.rights);
    let limit = u64::from(segment.limit);
    let (code, big, unusable) = (bit(rights, 3), bit(rights, 14), bit(rights, 16));
    if unusable {
        return Err(fault);
    }
    if code && !bit(rights, 1) {
        return Err(Exception::GeneralProtection);
    }
    let good = if !code && bit(rights, 2) {
        let end = if big { 0xffff_ffff } else { 0xffff };
        offsets
            .iter()
            .all(|&offset| limit < offset && offset <= end)
    } else {
        is_flat || offsets.iter().all(|&offset| offset <= limit)
    };
    if good {
        Ok(())
    } else {
        Err(fault)
    }
}

/// Returns a linear address without its metadata (LAM).
fn untagged(address: u64, cpu: &Cpu) -> u64 {
    let (cr3, cr4) = (cpu.registers.cr3, cpu.registers.cr4);
    let sign = if bit(address, 63) {
        match (bit(cr4, 28), bit(cr4, 12)) {
            (true, true) => 56,
            (true, false) => 47,
            (false, _) => return address,
        }
    } else if bit(cr3, 61) {
        56
    } else if bit(cr3, 62) {
        47
    } else {
        return address;
    };
    let mut clean = bits(address, sign, 0);
    for number in sign + 1..63 {
        if bit(address, sign) {
            clean += 2u64.pow(number);
        }
    }
    if bit(address, 63) {
        clean += 2u64.pow(63);
    }
    clean
}
