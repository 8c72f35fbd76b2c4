// SPDX-License-Identifier: GPL-2.0

//! This crate holds the unit tests of vmx_vpid, as a module of its own.
//!
//! KUnit runs a suite when the suite's module goes live; in vmx_vpid itself that would be after the
//! attach.  This crate builds the same files without kvm/ and debugfs/.

// Functions that only `kvm` calls have no caller in this crate.
#![allow(dead_code)]

mod asid;
mod backend;
mod ept;
mod exits;
mod flush;
#[cfg(vmx_vpid_userspace)]
pub mod harness;
mod invvpid;
mod mmu;
mod model;
mod paging;
mod phase;
mod stats;
mod vmx;
mod vpid;
mod x86;

use kernel::prelude::*;

module! {
    type: Tests,
    name: "vmx_vpid_kunit",
    authors: ["The vmx_vpid developers"],
    description: "KUnit suites of vmx_vpid",
    license: "GPL",
}

struct Tests;

impl kernel::Module for Tests {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        Ok(Self)
    }
}
