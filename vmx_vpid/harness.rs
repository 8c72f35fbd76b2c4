// SPDX-License-Identifier: GPL-2.0

//! This module has the entry points of userspace test programs, and is built into no kernel module.
//!
//! A program calls a function of a module below this one.  Arguments and results are plain numbers
//! and types of that module: programs see no other types of the crate.

pub mod descriptor;
pub mod ept_walk;
pub mod exhaustive;
pub mod growth;
#[cfg(all(test, vmx_vpid_loom))]
mod loom;
pub mod model;
pub mod operand;
pub mod other_models;
pub mod policies;
pub mod walk;

use crate::x86::exception;

/// An exception that a guest gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exception {
    /// #UD.
    InvalidOpcode,
    /// #GP(0).
    GeneralProtection,
    /// #SS(0).
    Stack,
    /// #PF.
    Page {
        /// The value of CR2.
        address: u64,
        /// The error code.
        code: u32,
    },
}

impl From<exception::Exception> for Exception {
    fn from(exception: exception::Exception) -> Self {
        match exception {
            exception::Exception::InvalidOpcode => Self::InvalidOpcode,
            exception::Exception::GeneralProtection => Self::GeneralProtection,
            exception::Exception::Stack => Self::Stack,
            exception::Exception::Page { address, code } => Self::Page {
                address: address.into_raw(),
                code: code.into_raw(),
            },
        }
    }
}

/// The registers that addresses and paging depend on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Registers {
    /// CR0.
    pub cr0: u64,
    /// CR3.
    pub cr3: u64,
    /// CR4.
    pub cr4: u64,
    /// IA32_EFER.
    pub efer: u64,
    /// RFLAGS.VM.
    pub virtual_8086: bool,
    /// CS.L.
    pub long: bool,
}
