// SPDX-License-Identifier: GPL-2.0

//! This module replaces functions that the oldest supported rustc lacks.
//!
//! Debian 13 builds its kernels with rustc 1.85.  `Kbuild` sets `vmx_vpid_cold_path` for compilers
//! that have `core::hint::cold_path()`.

#[cfg(vmx_vpid_cold_path)]
pub(crate) use core::hint::cold_path;

/// Marks the path that calls this function as unlikely, for compilers that have a hint for it.
///
/// An older compiler lays the path out as if it was likely: the code is correct and less compact.
#[cfg(not(vmx_vpid_cold_path))]
#[inline(always)]
pub(crate) const fn cold_path() {}
