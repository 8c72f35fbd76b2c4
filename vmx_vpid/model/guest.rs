// SPDX-License-Identifier: GPL-2.0

//! This module models the guests: their memory and page tables, the instructions they execute, and
//! which translations they have invalidated.

pub(crate) mod actions;
pub(crate) mod control_regs;
pub(crate) mod edit;
pub(crate) mod exit;
pub(crate) mod invalidated;
pub(crate) mod memory;
pub(crate) mod walk;
pub(crate) mod walk_check;
