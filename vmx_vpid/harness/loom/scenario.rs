// SPDX-License-Identifier: GPL-2.0

//! This module lists the scenarios: the actions of livepatch and of tasks, and the injected bugs.

use crate::phase::Callback::{
    self,
    *, //
};

/// The backend whose functions a task runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    C,
    Rust,
}
use Side::*;

/// An injected bug, which breaks a guarantee.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bug {
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
    BitsKept,
    /// A CPU sets its bit by a read and a write instead of an atomic exchange.
    BitSetInTwo,
}

/// All injected bugs.
pub(super) const BUGS: [Bug; 8] = [
    Bug::CopiedBeforeLock,
    Bug::DroppedBeforeTake,
    Bug::AskedBeforeLock,
    Bug::BitmapNotFilled,
    Bug::ImportTooEarly,
    Bug::ExportTooLate,
    Bug::BitsKept,
    Bug::BitSetInTwo,
];

/// An action of livepatch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Move {
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
pub(super) enum Act {
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
pub(super) struct Scenario {
    /// Rust serves at first.
    pub(super) attached: bool,
    /// The actions of livepatch at the same time.
    pub(super) schedule: &'static [Move],
    /// The actions of the two tasks.
    pub(super) tasks: [&'static [Act]; 2],
}

/// The orders of callbacks in Documentation/attach.rst, "Callbacks and phases", and scenarios that
/// need other tasks.
pub(super) const SCENARIOS: [(&str, Scenario); 9] = [
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
