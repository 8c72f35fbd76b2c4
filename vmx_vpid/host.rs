// SPDX-License-Identifier: GPL-2.0

//! What other programs of the host build come in by; no kernel has it.
//!
//! What those programs need of the files here, they call by a function of a module below this one,
//! in plain numbers and types of its own: the files' own types stay within the crate.

pub mod model;
#[cfg(all(test, vmx_vpid_loom))]
mod threads;
