// SPDX-License-Identifier: GPL-2.0

//! This module holds the facts of VMX that several instructions share: how a VMX instruction is
//! issued and how it fails, which invalidations a CPU supports, and where the operand of a guest's
//! instruction is.
//!
//! Source: the manual's volume 3, the chapter on VMX instructions and the appendix on VMX
//! capability reporting.

pub(crate) mod caps;
pub(crate) mod insn;
pub(crate) mod operand;
