// SPDX-License-Identifier: GPL-2.0

//! This target fuzzes the walk of an EPT.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| differential::ept_walk::check(bytes));
