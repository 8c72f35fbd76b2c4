// SPDX-License-Identifier: GPL-2.0

//! This target fuzzes the checks of descriptors.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| differential::descriptor::check(bytes));
