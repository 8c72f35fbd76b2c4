// SPDX-License-Identifier: GPL-2.0

//! What the module shows under `vmx_vpid/` in debugfs.
//!
//! Each file has one `name value` per line; names are stable, see
//! Documentation/ABI/testing/debugfs-vmx-vpid.  The files themselves are made in C, see
//! [`crate::kvm::files`].

use crate::{
    kvm::{
        cpu,
        handover,
        percpu, //
    },
    phase::Phase,
    stats::Counter, //
};
use kernel::seq_file::{
    seq_print,
    SeqFile, //
};

/// `stats`: the counters, and the VPIDs in use.
pub(crate) fn show_stats(file: &SeqFile) {
    for &counter in Counter::ALL {
        seq_print!(file, "{} {}\n", counter.name(), percpu::sum(counter));
    }
    match handover::status().vpids {
        Some((in_use, high_water)) => {
            seq_print!(file, "vpid_in_use {in_use}\nvpid_high_water {high_water}\n");
        }
        None => seq_print!(file, "vpid_in_use n/a\nvpid_high_water n/a\n"),
    }
}

/// `status`: where the backend stands.
pub(crate) fn show_status(file: &SeqFile) {
    let status = handover::status();
    let (calls, all_calls) = status.static_calls;
    let (exits, all_exits) = status.exits;
    seq_print!(file, "backend {}\n", status.backend);
    seq_print!(file, "phase {}\n", status.phase.name());
    seq_print!(file, "static_calls {calls}/{all_calls}\n");
    seq_print!(file, "exit_handlers {exits}/{all_exits}\n");
    seq_print!(file, "ept_vpid_cap {:#x}\n", cpu::caps().into_raw());
    match (status.phase, status.live) {
        (Phase::Detached, true) => seq_print!(file, "kvm_intel: served by C\n"),
        (Phase::Detached, false) => seq_print!(file, "kvm_intel: not loaded\n"),
        _ => {}
    }
}
