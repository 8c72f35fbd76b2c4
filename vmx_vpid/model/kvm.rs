// SPDX-License-Identifier: GPL-2.0

//! This module models KVM's core as far as KVM maps memory, migrates vCPUs and requests flushes.

pub(crate) mod c_exits;
pub(crate) mod c_flush;
pub(crate) mod core;
pub(crate) mod fill;
pub(crate) mod generations;
pub(crate) mod nested;
pub(crate) mod tables;
pub(crate) mod vcpu;
pub(crate) mod vpids;
pub(crate) mod zap;
