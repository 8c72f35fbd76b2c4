// SPDX-License-Identifier: GPL-2.0

//! This module holds the facts of the x86 architecture that do not depend on VMX: addresses,
//! control registers, modes, segments, exceptions and INVPCID descriptors.
//!
//! Source: the manual's volume 3, the chapters on system architecture, protected-mode memory
//! management and paging.

pub(crate) mod addr;
pub(crate) mod compat;
pub(crate) mod control_regs;
pub(crate) mod exception;
pub(crate) mod invpcid;
pub(crate) mod mode;
pub(crate) mod segment;
