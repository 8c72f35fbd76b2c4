// SPDX-License-Identifier: GPL-2.0

//! This target fuzzes the walk of a guest's page tables.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| differential::walk::check(bytes));
