// SPDX-License-Identifier: GPL-2.0

//! This module defines the exceptions that an emulated instruction can raise in the guest.
//!
//! Whatever its operand is, an emulated instruction raises no other exception.
//! Source: the manual's chapter on interrupt and exception handling.

use crate::x86::addr::Gva;
use kernel::bitfield;

bitfield! {
    /// The error code of a page fault.
    pub(crate) struct PageFaultCode(u32) {
        /// `P`: every entry of the walk was present; the exception is about rights or reserved
        /// bits.
        0:0     present => bool;
        /// `W/R`: the access was a write.
        1:1     write => bool;
        /// `U/S`: the access was in user mode.
        2:2     user => bool;
        /// `RSVD`: a reserved bit was set in an entry.
        3:3     reserved => bool;
        /// `I/D`: the access was a fetch.
        4:4     fetch => bool;
        /// `PK`: a protection key forbade the access.
        5:5     protection_key => bool;
    }
}

/// An exception that an instruction raises in the guest, instead of having its effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exception {
    /// #UD, invalid opcode.
    InvalidOpcode,
    /// #GP(0), general protection.
    GeneralProtection,
    /// #SS(0), stack fault: raised instead of #GP(0) for an operand in SS.
    Stack,
    /// #PF, page fault.
    Page {
        /// The linear address without a translation, which the guest finds in CR2.
        address: Gva,
        /// The error code.
        code: PageFaultCode,
    },
}
