// SPDX-License-Identifier: GPL-2.0

//! This module models a CPU that caches every translation, and every step of the way to a
//! translation, for as long as the manual allows.

pub(crate) mod access;
pub(crate) mod context;
pub(crate) mod cost;
pub(crate) mod gpa;
pub(crate) mod tlb;
pub(crate) mod tlb_entry;
pub(crate) mod walk_refs;
