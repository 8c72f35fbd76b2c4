// SPDX-License-Identifier: GPL-2.0

//! The unit tests of vmx_vpid, as a module of their own.
//!
//! Suites run when their module is live, which for vmx_vpid itself would be after it attached.
//! Here the same files are built without the part that knows KVM.

// Each file is built whole, but what only `kvm` calls has no caller here.
#![allow(dead_code)]

mod addr;
mod asid;
mod backend;
mod bitmap;
mod caps;
mod control;
mod emulate;
mod entry;
mod ept;
mod fault;
mod flush;
mod flush_mock;
mod flush_tests;
#[cfg(vmx_vpid_host)]
pub mod host;
mod insn;
mod invpcid;
mod invvpid;
mod issue;
mod lease;
mod mmu;
mod mode;
mod model;
mod operand;
mod ownership;
mod paging;
mod permission;
mod phase;
mod policy;
mod segment;
mod shadow;
mod stats;
mod table;
mod tagging;
mod truth;
mod vpid;
mod walk;
mod walk_guest;
mod walk_tests;

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
