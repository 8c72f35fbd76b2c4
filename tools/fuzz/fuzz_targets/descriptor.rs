// SPDX-License-Identifier: GPL-2.0

//! What an instruction asks for.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| differential::descriptor::check(bytes));
