// SPDX-License-Identifier: GPL-2.0

//! The steps of the model, chosen by bytes.

use vmx_vpid::harness::model;

/// Goes the steps that bytes stand for; panics with the story if something goes wrong.
pub fn check(bytes: &[u8]) {
    if let Err(counterexample) = model::by_bytes(bytes) {
        panic!("a guest could use what it must not:\n{counterexample}");
    }
}
