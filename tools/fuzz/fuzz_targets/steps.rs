// SPDX-License-Identifier: GPL-2.0

//! What guests, KVM and the host do, on the CPUs of the model.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| differential::steps::check(bytes));
