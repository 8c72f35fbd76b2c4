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

mod machine;
mod oracle;
mod record;

use crate::phase::Callback::{
    self,
    *, //
};
use std::thread;

/// The backend whose functions a task runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    C,
    Rust,
}
use Side::*;

/// An injected bug, which breaks a guarantee.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bug {
    /// The VPIDs that move to the other allocator are read before the lock is taken.
    CopiedBeforeLock,
    /// C drops the lock between finding a free VPID and allocating the VPID.
    DroppedBeforeTake,
    /// Rust reads which allocator is active, drops the lock, takes the lock again, and uses that
    /// allocator.
    AskedBeforeLock,
    /// KVM's bitmap is not filled while the pool is active.
    BitmapNotFilled,
    /// Livepatch reports that no task runs C any more while a task still does.
    ImportTooEarly,
    /// Tasks run C before livepatch reports the detach.
    ExportTooLate,
    /// FlushedCpus is not cleared for a VPID when the VPID is allocated again.
    RecordKept,
    /// A CPU sets its bit by a read and a write instead of an atomic exchange.
    BitSetInTwo,
}

/// All injected bugs.
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

/// An action of livepatch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Move {
    /// Livepatch calls a callback.
    Call(Callback),
    /// From here on, the next call of each task goes to a side.
    Lead(Side),
    /// Livepatch waits until no task is inside a function of the other side.
    Wait,
}
use Move::*;

/// An action of a task, on a CPU of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    /// Allocates a VPID; the number of VPIDs is sufficient for all tasks.
    Alloc,
    /// Flushes the task's VPID, runs a guest with the VPID, and checks where FlushedCpus has the
    /// VPID as flushed.
    Run,
    /// Frees the task's VPID.
    Free,
    /// Flushes the VPID that the task freed last, as a vCPU that is destroyed may.
    Late,
    /// Frees a VPID that is not allocated.
    FreeForeign,
    /// Reads which VPIDs are in use.
    Look,
    /// A function of C that livepatch does not replace allocates a VPID, if C finds a free VPID.
    StrayAlloc,
    /// A function of C that livepatch does not replace frees the VPID that is held from the start.
    StrayFree,
}
use Act::*;

/// The actions of livepatch and of two tasks.
struct Scenario {
    /// Rust serves at first.
    attached: bool,
    /// The actions of livepatch at the same time.
    schedule: &'static [Move],
    /// The actions of the two tasks.
    tasks: [&'static [Act]; 2],
}

/// The orders of callbacks in Documentation/attach.rst, "Callbacks and phases", and scenarios that
/// need other tasks.
const SCENARIOS: [(&str, Scenario); 9] = [
    (
        "attach",
        Scenario {
            attached: false,
            schedule: &[Call(PrePatch), Lead(Rust), Wait, Call(PostPatch)],
            tasks: [
                &[Alloc, Run, Free, Look],
                &[Alloc, Free, FreeForeign, Alloc],
            ],
        },
    ),
    (
        "attach, reversed",
        Scenario {
            attached: false,
            schedule: &[Call(PrePatch), Lead(Rust), Lead(C), Wait, Call(PostUnpatch)],
            tasks: [&[Alloc, Run, Free], &[Alloc, Look, Free, Alloc]],
        },
    ),
    (
        "detach",
        Scenario {
            attached: true,
            schedule: &[Call(PreUnpatch), Lead(C), Wait, Call(PostUnpatch)],
            tasks: [
                &[Alloc, Run, Free, Look],
                &[Alloc, Free, FreeForeign, Alloc],
            ],
        },
    ),
    (
        "detach, reversed",
        Scenario {
            attached: true,
            schedule: &[Call(PreUnpatch), Lead(C), Lead(Rust), Wait, Call(PostPatch)],
            tasks: [&[Alloc, Run, Free], &[Alloc, Free, Alloc, Run]],
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
            tasks: [&[Alloc, Free], &[Alloc, Free, Alloc]],
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
            tasks: [&[Alloc, Run, Free], &[Alloc, Run]],
        },
    ),
    (
        "attached, VPIDs are allocated again",
        Scenario {
            attached: true,
            schedule: &[],
            tasks: [&[Alloc, Run, Free, Late], &[Alloc, Run, Free, Alloc, Run]],
        },
    ),
    (
        "attached, with reads and errors",
        Scenario {
            attached: true,
            schedule: &[],
            tasks: [&[Alloc, Look, FreeForeign, Free], &[Alloc, Free, Look]],
        },
    ),
    (
        "detach, with functions of C that livepatch does not replace",
        Scenario {
            attached: true,
            schedule: &[Call(PreUnpatch), Lead(C), Wait, Call(PostUnpatch)],
            tasks: [&[StrayAlloc, StrayFree, StrayAlloc], &[Alloc, Free, Alloc]],
        },
    ),
];

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
