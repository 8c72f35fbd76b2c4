// SPDX-License-Identifier: GPL-2.0

//! This target fuzzes the location of operands.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| differential::operand::check(bytes));
