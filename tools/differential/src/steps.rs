// SPDX-License-Identifier: GPL-2.0

//! This module runs steps of the model that bytes choose.

use vmx_vpid::harness::model;

/// Runs the steps that bytes choose; panics with the counterexample if something goes wrong.
pub fn check(bytes: &[u8]) {
    if let Err(counterexample) = model::by_bytes(bytes) {
        panic!("a guest could use what it must not:\n{counterexample}");
    }
}
