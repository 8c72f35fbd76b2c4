// SPDX-License-Identifier: GPL-2.0

//! This module tests the allocation of VPIDs during attach and detach, in every order of a few
//! threads.
//!
//! Two CPUs allocate VPIDs, flush, use and free them, while livepatch attaches or detaches on a
//! third CPU.  Loom repeats each scenario until Loom has tried every order of the accesses under
//! locks and to atomic words, up to a number of preemptions.  The code under test is that of the
//! kernel: [`crate::vpid::allocator`] with the modules below it, and [`crate::phase`].  Mocks
//! replace the parts that `kvm/` guarantees: the lock, the words of FlushedCpus, C's two functions,
//! and livepatch.
//!
//! In any order and at any time: no VPID has two holders; no VPID is lost; a free of a VPID that is
//! not allocated is reported; exactly one allocator is active; and no CPU is recorded as flushed
//! that has not flushed.  Each [`Bug`] breaks one of the guarantees, and some scenario has to find
//! the bug.

mod flushed_cpus;
mod machine;
mod oracle;
mod scenario;

use scenario::{
    Bug,
    Scenario,
    BUGS,
    SCENARIOS, //
};
use std::thread;

/// Runs a scenario; returns the number of orders, or `None` if an order has an error.
fn run(scenario: &'static Scenario, bug: Option<Bug>) -> Option<usize> {
    // Run in a thread of its own, because Loom does not clean up after a panic.
    thread::spawn(move || machine::run(scenario, bug))
        .join()
        .ok()
}

#[test]
fn every_order_keeps_every_guarantee() {
    for (name, scenario) in &SCENARIOS {
        let orders = run(scenario, None);
        assert!(orders > Some(100), "{name}: {orders:?} orders");
    }
}

#[test]
fn every_injected_bug_is_found() {
    for bug in BUGS {
        let mut scenarios = SCENARIOS.iter();
        let found = scenarios.any(|(_, scenario)| run(scenario, Some(bug)).is_none());
        assert!(found, "{bug:?}");
    }
}
