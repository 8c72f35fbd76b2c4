// SPDX-License-Identifier: GPL-2.0

//! Where an operand is.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| differential::operand::check(bytes));
