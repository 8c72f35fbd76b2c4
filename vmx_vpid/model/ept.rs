// SPDX-License-Identifier: GPL-2.0

//! This module builds and changes EPTs for the models and the tests.
//!
//! vmx_vpid.ko reads EPTs and never changes one, so nothing here is built into it.

pub(crate) mod access;
pub(crate) mod arena;
pub(crate) mod build;
pub(crate) mod entry;
pub(crate) mod fixture;
pub(crate) mod flush_needed;
pub(crate) mod merge;
pub(crate) mod survey;
pub(crate) mod transaction;
pub(crate) mod walk;

#[cfg(CONFIG_VMX_VPID_KUNIT_TEST)]
mod build_tests;
#[cfg(CONFIG_VMX_VPID_KUNIT_TEST)]
mod sequence_tests;
#[cfg(CONFIG_VMX_VPID_KUNIT_TEST)]
mod transaction_tests;
#[cfg(CONFIG_VMX_VPID_KUNIT_TEST)]
mod walk_tests;
