// SPDX-License-Identifier: GPL-2.0

//! This module runs the model with steps that bytes choose.

use vmx_vpid::harness::model;

/// Executes the steps that bytes choose; panics with the counterexample if the model finds an
/// error.
pub fn check(bytes: &[u8]) {
    if let Err(counterexample) = model::by_bytes(bytes) {
        panic!("the model finds an error:\n{counterexample}");
    }
}
