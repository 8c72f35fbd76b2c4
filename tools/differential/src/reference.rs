// SPDX-License-Identifier: GPL-2.0

//! This module has the reference implementations.
//!
//! The reference implementations share only the plain types of the harness with the code under
//! test, and use no trick: they look at each bit and each byte by itself.

pub mod descriptor;
pub mod ept_walk;
pub mod operand;
pub mod walk;

use vmx_vpid::harness::Registers;

/// Returns whether a bit is set.
pub(crate) fn bit(value: u64, number: u32) -> bool {
    value / 2u64.pow(number) % 2 == 1
}

/// Returns the bits `highest` to `lowest` of a value, as a number.
pub(crate) fn bits(value: u64, highest: u32, lowest: u32) -> u64 {
    (lowest..=highest)
        .filter(|&number| bit(value, number))
        .map(|number| 2u64.pow(number - lowest))
        .sum()
}

/// Returns whether all bits of a linear address from the highest translated bit up are the same.
pub(crate) fn is_canonical(address: u64, width: u32) -> bool {
    (width..64).all(|number| bit(address, number) == bit(address, width - 1))
}

/// Returns whether long mode is active.
pub(crate) fn is_long(registers: &Registers) -> bool {
    bit(registers.efer, 10)
}
