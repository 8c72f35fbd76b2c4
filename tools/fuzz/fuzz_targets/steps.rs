// SPDX-License-Identifier: GPL-2.0

//! This target fuzzes the steps of guests, KVM and the host on the model.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| differential::steps::check(bytes));
