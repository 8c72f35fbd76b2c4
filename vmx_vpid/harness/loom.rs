// SPDX-License-Identifier: GPL-2.0

//! This module tests VPIDs and the change of their allocator in every order of some threads.
//!
//! Two CPUs allocate VPIDs, flush, use and free them, while livepatch attaches or detaches on a
//! third.  Loom runs each scenario again and again, until it has tried every order of the accesses
//! under locks and to atomic words, up to a number of preemptions.  The code is that of the kernel:
//! [`crate::vpid::allocator`] with the modules below it, and [`crate::phase`].  The surroundings
//! stand in for the guarantees of `kvm/`: the lock, the words of the record, C's two functions, and
//! livepatch.
//!
//! In any order and at any time: no VPID has two owners; none is lost; a free of a VPID that is not
//! allocated is reported; one allocator is active; and no CPU is recorded as flushed that is not.
//! Each [`Bug`] breaks one of the guarantees, and some scenario has to find it.

mod machine;
mod oracle;
mod record;

use crate::phase::Callback::{
    self,
    *, //
};
use std::thread;

/// Whose functions a task runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    C,
    Rust,
}
use Side::*;

/// A guarantee that is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bug {
    /// What changes sides is read before the lock is taken that it changes sides under.
    CopiedBeforeLock,
    /// C drops the lock between finding a free VPID and taking it.
    DroppedBeforeTake,
    /// Rust reads which allocator is active, drops the lock, takes it again, and uses that
    /// allocator.
    AskedBeforeLock,
    /// KVM's bitmap is left as it is while the pool is active.
    BitmapNotFilled,
    /// Livepatch tells that no task runs C any more while one does.
    ImportTooEarly,
    /// Tasks are led to C before livepatch tells of it.
    ExportTooLate,
    /// The record of a VPID is not reset when the VPID is allocated again.
    RecordKept,
    /// A CPU sets its bit by a read and a write.
    BitSetInTwo,
}

/// Each of them.
const BUGS: [Bug; 8] = [
    Bug::CopiedBeforeLock,
    Bug::DroppedBeforeTake,
    Bug::AskedBeforeLock,
    Bug::BitmapNotFilled,
    Bug::ImportTooEarly,
    Bug::ExportTooLate,
    Bug::RecordKept,
    Bug::BitSetInTwo,
];

/// What livepatch does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Move {
    /// It calls back.
    Call(Callback),
    /// From here on, a task that is between two calls goes to that side.
    Lead(Side),
    /// It waits until no task is inside a function of the other side.
    Wait,
}
use Move::*;

/// What a task does, on a CPU of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    /// It takes a VPID; there are enough of them.
    Take,
    /// It flushes what it has, runs a guest with it, and looks where it is recorded as clean.
    Run,
    /// It gives back what it has.
    Give,
    /// It flushes what it gave back last, as a vCPU that is destroyed may.
    Late,
    /// It gives back what nobody holds.
    GiveForeign,
    /// It looks at who is in use.
    Look,
    /// A function of C that livepatch does not reach takes a VPID, if C knows of one.
    StrayTake,
    /// A function of C that livepatch does not reach gives back the VPID held from the start.
    StrayGive,
}
use Act::*;

/// Some threads.
struct Scenario {
    /// Whether Rust serves at first.
    attached: bool,
    /// The actions of livepatch at the same time.
    schedule: &'static [Move],
    /// What two tasks do.
    tasks: [&'static [Act]; 2],
}

/// The courses of livepatch in Documentation/design.rst, and what needs other tasks.
const SCENARIOS: [(&str, Scenario); 9] = [
    (
        "attach",
        Scenario {
            attached: false,
            schedule: &[Call(PrePatch), Lead(Rust), Wait, Call(PostPatch)],
            tasks: [&[Take, Run, Give, Look], &[Take, Give, GiveForeign, Take]],
        },
    ),
    (
        "attach, turned round",
        Scenario {
            attached: false,
            schedule: &[Call(PrePatch), Lead(Rust), Lead(C), Wait, Call(PostUnpatch)],
            tasks: [&[Take, Run, Give], &[Take, Look, Give, Take]],
        },
    ),
    (
        "detach",
        Scenario {
            attached: true,
            schedule: &[Call(PreUnpatch), Lead(C), Wait, Call(PostUnpatch)],
            tasks: [&[Take, Run, Give, Look], &[Take, Give, GiveForeign, Take]],
        },
    ),
    (
        "detach, turned round",
        Scenario {
            attached: true,
            schedule: &[Call(PreUnpatch), Lead(C), Lead(Rust), Wait, Call(PostPatch)],
            tasks: [&[Take, Run, Give], &[Take, Give, Take, Run]],
        },
    ),
    (
        "attach and detach",
        Scenario {
            attached: false,
            schedule: &[
                Call(PrePatch),
                Lead(Rust),
                Wait,
                Call(PostPatch),
                Call(PreUnpatch),
                Lead(C),
                Wait,
                Call(PostUnpatch),
            ],
            tasks: [&[Take, Give], &[Take, Give, Take]],
        },
    ),
    (
        "detach and attach",
        Scenario {
            attached: true,
            schedule: &[
                Call(PreUnpatch),
                Lead(C),
                Wait,
                Call(PostUnpatch),
                Call(PrePatch),
                Lead(Rust),
                Wait,
                Call(PostPatch),
            ],
            tasks: [&[Take, Run, Give], &[Take, Run]],
        },
    ),
    (
        "attached, VPIDs are allocated again",
        Scenario {
            attached: true,
            schedule: &[],
            tasks: [&[Take, Run, Give, Late], &[Take, Run, Give, Take, Run]],
        },
    ),
    (
        "attached, all look and err",
        Scenario {
            attached: true,
            schedule: &[],
            tasks: [&[Take, Look, GiveForeign, Give], &[Take, Give, Look]],
        },
    ),
    (
        "detach, with C where livepatch does not reach",
        Scenario {
            attached: true,
            schedule: &[Call(PreUnpatch), Lead(C), Wait, Call(PostUnpatch)],
            tasks: [&[StrayTake, StrayGive, StrayTake], &[Take, Give, Take]],
        },
    ),
];

/// Runs a scenario; returns in how many orders, or `None` when something was wrong in one.
fn run(scenario: &'static Scenario, bug: Option<Bug>) -> Option<usize> {
    // A thread of its own, since loom does not clean up after what panics.
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
