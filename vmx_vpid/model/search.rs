// SPDX-License-Identifier: GPL-2.0

//! This module searches for a missing flush: at random, by trying every short sequence of steps,
//! and by replaying sequences that went wrong in other systems.

pub(crate) mod describe;
pub(crate) mod exhaustive;
pub(crate) mod random;
pub(crate) mod regressions;
pub(crate) mod run;
