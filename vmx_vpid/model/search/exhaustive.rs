// SPDX-License-Identifier: GPL-2.0

//! This module has the step sets of the exhaustive searches.
//!
//! A search tries every sequence of [`LENGTH`] steps of a set.  Each sequence follows the same
//! first steps, which get entries cached that the sequence could leave stale.

use crate::model::{
    bug::Bug,
    guest::{
        control_regs::{
            Bit,
            Registers, //
        },
        edit,
        memory::{
            frames,
            Gfn, //
        }, //
    },
    kvm::vcpu::{
        Ept12,
        L2, //
    },
    step::{
        Op,
        Step, //
    }, //
};

/// The subject of an exhaustive search, which selects the step set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Subject {
    /// Guests without nested guests, while C and Rust serve in turn.
    Guests,
    /// Guests of two VMs with two pages each, on two CPUs.
    Pages,
    /// A guest that changes its paging mode.
    Modes,
    /// A hypervisor with an L2 that has entries cached.
    Hypervisors,
    /// Two vCPUs of a hypervisor that changes the EPT of their L2s.
    Epts,
    /// An L2 without a VPID that switches between EPTs.
    Functions,
    /// VPIDs, vpid02 included, that are freed and allocated again.
    Lives,
}

/// The usual number of steps of a sequence, without the first steps: enough to leave L2, change a
/// table, invalidate, and enter L2 again.
pub(crate) const LENGTH: usize = 4;

impl Subject {
    /// All subjects.
    pub(crate) const ALL: [Self; 7] = [
        Self::Guests,
        Self::Pages,
        Self::Modes,
        Self::Hypervisors,
        Self::Epts,
        Self::Functions,
        Self::Lives,
    ];

    /// Calls a function for each of the first steps.
    pub(crate) fn each_first(self, ept: bool, visit: impl FnMut(Step)) {
        let l2 = enter(ept, 1);
        match self {
            Self::Guests | Self::Modes => [CREATE, TOUCH].into_iter().for_each(visit),
            Self::Pages => [CREATE, TOUCH, guest(0, 0, touch(1))]
                .into_iter()
                .for_each(visit),
            Self::Hypervisors => [CREATE, guest(0, 0, Op::VmxOn), guest(0, 0, l2), TOUCH]
                .into_iter()
                .for_each(visit),
            Self::Epts => [
                CREATE,
                guest(0, 0, Op::VmxOn),
                guest(0, 0, l2),
                TOUCH,
                Step::Create(1),
                guest(1, 0, Op::VmxOn),
                guest(1, 0, l2),
                guest(1, 0, touch(0)),
            ]
            .into_iter()
            .for_each(visit),
            Self::Functions => [
                CREATE,
                guest(0, 0, Op::VmxOn),
                guest(0, 0, enter(ept, 0)),
                TOUCH,
            ]
            .into_iter()
            .for_each(visit),
            // If there are two VPIDs, VM 1 gets the VPID that was vpid02.
            Self::Lives => [
                CREATE,
                guest(0, 0, Op::VmxOn),
                guest(0, 0, l2),
                TOUCH,
                guest(0, 0, Op::LeaveL2),
                guest(0, 0, Op::VmxOff),
                Step::Create(2),
                guest(2, 0, touch(0)),
            ]
            .into_iter()
            .for_each(visit),
        }
    }

    /// Calls a function for each step of the set.
    pub(crate) fn each_step(self, ept: bool, mut visit: impl FnMut(Step)) {
        ALWAYS.into_iter().for_each(&mut visit);
        match self {
            Self::Guests => guests().into_iter().for_each(visit),
            Self::Pages => pages().into_iter().for_each(visit),
            Self::Modes => modes().into_iter().for_each(visit),
            Self::Hypervisors => hypervisors(ept).into_iter().for_each(visit),
            Self::Epts => epts(ept).into_iter().for_each(visit),
            Self::Functions => functions(ept).into_iter().for_each(visit),
            Self::Lives => lives(ept).into_iter().for_each(visit),
        }
    }

    /// Returns bugs that the search has to find, each with the name of a machine: a search that
    /// never found anything would prove nothing.
    pub(crate) fn finds(self) -> &'static [(Bug, &'static str)] {
        match self {
            Self::Guests => &[(Bug::NoFlushOnProtect, "ept,context")],
            Self::Pages => &[
                (Bug::RemoteFlushOfOne, "ept"),
                (Bug::NoRemoteFlush, "shadow"),
            ],
            Self::Modes => &[
                (Bug::InitDropsNothing, "ept"),
                (Bug::NoFlushOnPcideOff, "ept"),
                (Bug::RootsKeptOnCr3, "shadow"),
                (Bug::VmcsKeptOffline, "ept,context"),
            ],
            Self::Hypervisors => &[
                (Bug::NoFlushOnVpid12, "ept"),
                (Bug::InvvpidOfL1NotIssued, "ept"),
                (Bug::L2RootsNotFreed, "shadow"),
            ],
            Self::Epts => &[
                (Bug::Ept12RootsNotFreed, "ept"),
                (Bug::RemoteFlushOfOne, "ept"),
            ],
            Self::Functions => &[
                (Bug::NoFlushOnSharedVpid, "ept"),
                (Bug::NoFlushOnVmfunc, "ept"),
            ],
            Self::Lives => &[(Bug::NoFlushOnVmxon, "ept,vpids2")],
        }
    }
}

/// Returns an action of a vCPU on a CPU; the task does not migrate.
const fn guest(vcpu: u8, cpu: u8, op: Op) -> Step {
    let patience = 0;
    Step::Guest {
        vcpu,
        cpu,
        patience,
        op,
    }
}

/// Returns a write to a page.
const fn touch(page: u16) -> Op {
    Op::Access { page, write: true }
}

/// Returns a write of an entry of a table, by choice.
fn edit(table: Gfn, index: usize, choice: u8) -> Op {
    Op::Edit {
        table,
        index,
        entry: edit::entry(table, index, choice),
    }
}

/// Returns a load of CR3 with one of the root tables and PCID 0.
fn mov_cr3(root: u8, keep: bool) -> Op {
    let registers = Registers { root, pcid: 0 };
    Op::MovCr3 { registers, keep }
}

/// Returns an INVVPID of vpid12 1.
fn invvpid(kind: u8) -> Op {
    Op::Invvpid {
        kind,
        vpid12: 1,
        page: 0,
    }
}

/// Creates the first vCPU.
const CREATE: Step = Step::Create(0);

/// Writes page 0 on the first vCPU.
const TOUCH: Step = guest(0, 0, touch(0));

/// The steps that every set has.
const ALWAYS: [Step; 6] = [
    CREATE,
    Step::Destroy(0),
    TOUCH,
    guest(0, 1, touch(0)),
    Step::Relocate { vm: 0, gfn: 0 },
    Step::ZapAll(0),
];

/// Returns the steps of [`Subject::Guests`].
fn guests() -> [Step; 10] {
    [
        Step::Create(2),
        Step::Destroy(2),
        guest(2, 0, touch(0)),
        guest(0, 0, edit(frames::PT, 0, 2)),
        guest(0, 1, Op::Invlpg(0)),
        guest(0, 0, mov_cr3(1, false)),
        Step::Protect { vm: 0, gfn: 0 },
        Step::Transition,
        Step::Attached,
        Step::Detached,
    ]
}

/// Returns the steps of [`Subject::Pages`].
fn pages() -> [Step; 13] {
    [
        Step::Create(2),
        Step::Destroy(2),
        guest(0, 0, touch(1)),
        guest(0, 1, touch(1)),
        guest(2, 0, touch(0)),
        guest(2, 1, touch(1)),
        guest(0, 0, edit(frames::PT, 0, 2)),
        guest(0, 1, edit(frames::PT, 1, 3)),
        // A large page that contains both pages.
        guest(0, 0, edit(frames::PD, 0, 3)),
        guest(0, 1, Op::Invlpg(0)),
        guest(0, 0, Op::Invlpg(1)),
        Step::Relocate { vm: 0, gfn: 1 },
        Step::Protect { vm: 0, gfn: 1 },
    ]
}

/// Returns the steps of [`Subject::Modes`].
fn modes() -> [Step; 11] {
    [
        Step::Create(2),
        guest(2, 0, touch(0)),
        guest(0, 0, edit(frames::PT, 0, 2)),
        guest(0, 0, mov_cr3(0, true)),
        guest(0, 0, mov_cr3(1, false)),
        guest(0, 0, Op::Toggle(Bit::Paging)),
        guest(0, 0, Op::Toggle(Bit::Pcide)),
        guest(0, 1, Op::Toggle(Bit::Pae)),
        guest(0, 0, Op::Toggle(Bit::Smep)),
        guest(0, 0, Op::Init),
        Step::Replug(0),
    ]
}

/// A pointer to the first EPT of L1's, without accessed and dirty flags.
const EPT12: Ept12 = Ept12 {
    number: 0,
    accessed_dirty: false,
};

/// Returns a VM entry into an L2, on an EPT if the machine has EPT.
fn enter(ept: bool, vpid12: u16) -> Op {
    let ept12 = ept.then_some(EPT12);
    Op::EnterL2(L2 { vpid12, ept12 })
}

/// Returns a VMFUNC to one of two EPTs.
fn vmfunc(number: u8) -> Op {
    Op::Vmfunc(Ept12 { number, ..EPT12 })
}

/// Returns the steps of [`Subject::Hypervisors`].
fn hypervisors(ept: bool) -> [Step; 11] {
    [
        guest(0, 0, Op::VmxOn),
        guest(0, 0, Op::VmxOff),
        guest(0, 0, enter(ept, 1)),
        guest(0, 1, enter(ept, 1)),
        guest(0, 0, enter(ept, 2)),
        guest(0, 0, enter(ept, 0)),
        guest(0, 0, Op::LeaveL2),
        guest(0, 1, Op::LeaveL2),
        guest(0, 0, edit(frames::PT, 0, 2)),
        guest(0, 0, invvpid(1)),
        guest(0, 1, invvpid(1)),
    ]
}

/// Returns the steps of [`Subject::Epts`].
fn epts(ept: bool) -> [Step; 13] {
    let invept = |all| Op::Invept { all, ept12: EPT12 };
    [
        guest(1, 0, touch(0)),
        guest(1, 1, touch(0)),
        guest(0, 0, enter(ept, 1)),
        guest(1, 0, enter(ept, 1)),
        guest(0, 0, Op::LeaveL2),
        guest(1, 0, Op::LeaveL2),
        guest(0, 0, vmfunc(1)),
        guest(0, 0, vmfunc(0)),
        guest(0, 0, edit(frames::PT, 0, 2)),
        guest(0, 0, edit(frames::EPT_PT, 0, 4)),
        guest(0, 0, invept(false)),
        guest(0, 0, invept(true)),
        guest(0, 0, invvpid(0)),
    ]
}

/// Returns the steps of [`Subject::Functions`].
fn functions(ept: bool) -> [Step; 6] {
    [
        guest(0, 0, vmfunc(1)),
        guest(0, 0, vmfunc(0)),
        guest(0, 0, edit(frames::PT, 0, 2)),
        guest(0, 0, edit(frames::EPT_PT, 0, 4)),
        guest(0, 0, Op::LeaveL2),
        guest(0, 0, enter(ept, 0)),
    ]
}

/// Returns the steps of [`Subject::Lives`].
fn lives(ept: bool) -> [Step; 6] {
    [
        guest(0, 0, Op::VmxOn),
        guest(0, 0, Op::VmxOff),
        guest(0, 0, enter(ept, 1)),
        Step::Create(2),
        Step::Destroy(2),
        guest(2, 0, touch(0)),
    ]
}
