// SPDX-License-Identifier: GPL-2.0

//! This module defines the step sets of the bounded exhaustive search.
//!
//! Every sequence of [`LENGTH`] steps is tried after a fixed prefix that fills the TLB with
//! translations that the steps could leave behind.

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

/// What an exhaustive search is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    /// Guests that run nobody, while C and Rust take turns.
    Guests,
    /// Guests of two VMs with two pages each, on two CPUs.
    Pages,
    /// A guest that goes from one mode to another.
    Modes,
    /// A hypervisor with an L2 that has something cached.
    Hypervisors,
    /// Two vCPUs of a hypervisor that changes the EPT of their L2s.
    Epts,
    /// An L2 without a VPID that turns from EPT to EPT.
    Functions,
    /// VPIDs that are given back and taken again, vpid02 among them.
    Lives,
}

/// The usual number of steps of a sequence, without the prefix: enough to leave L2, change a table,
/// invalidate and enter L2 again.
pub(crate) const LENGTH: usize = 4;

impl Who {
    /// All of them.
    pub(crate) const ALL: [Self; 7] = [
        Self::Guests,
        Self::Pages,
        Self::Modes,
        Self::Hypervisors,
        Self::Epts,
        Self::Functions,
        Self::Lives,
    ];

    /// Calls a function for each of the first steps, which all sequences begin with.
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
            // VM 1 has the VPID that was vpid02, where there are two.
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

    /// Calls a function for each letter.
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

    /// Bugs that the search has to find, each with the name of the machine: a search that was
    /// never seen to find anything proves nothing.
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

/// What a vCPU does on a CPU, whose task stays there.
const fn guest(vcpu: u8, cpu: u8, op: Op) -> Step {
    let patience = 0;
    Step::Guest {
        vcpu,
        cpu,
        patience,
        op,
    }
}

/// Writes a page.
const fn touch(page: u16) -> Op {
    Op::Access { page, write: true }
}

/// Writes an entry of a table, by choice.
fn edit(table: Gfn, index: usize, choice: u8) -> Op {
    Op::Edit {
        table,
        index,
        entry: edit::entry(table, index, choice),
    }
}

/// Loads CR3 with one of the root tables and PCID 0.
fn mov_cr3(root: u8, keep: bool) -> Op {
    let registers = Registers { root, pcid: 0 };
    Op::MovCr3 { registers, keep }
}

/// INVVPID of vpid12 1.
fn invvpid(kind: u8) -> Op {
    Op::Invvpid {
        kind,
        vpid12: 1,
        page: 0,
    }
}

/// The first vCPU is created.
const CREATE: Step = Step::Create(0);

/// It writes its first page.
const TOUCH: Step = guest(0, 0, touch(0));

/// What every search has.
const ALWAYS: [Step; 6] = [
    CREATE,
    Step::Destroy(0),
    TOUCH,
    guest(0, 1, touch(0)),
    Step::Relocate { vm: 0, gfn: 0 },
    Step::ZapAll(0),
];

/// The steps of guests that run nobody.
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

/// Those of two pages.
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
        // A large page, which both are parts of.
        guest(0, 0, edit(frames::PD, 0, 3)),
        guest(0, 1, Op::Invlpg(0)),
        guest(0, 0, Op::Invlpg(1)),
        Step::Relocate { vm: 0, gfn: 1 },
        Step::Protect { vm: 0, gfn: 1 },
    ]
}

/// Those of a guest that goes from one mode to another.
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

/// An EPT of L1's, the first, as a pointer without accessed and dirty flags names it.
const EPT12: Ept12 = Ept12 {
    number: 0,
    accessed_dirty: false,
};

/// VM entry into an L2, on an EPT where there is EPT.
fn enter(ept: bool, vpid12: u16) -> Op {
    let ept12 = ept.then_some(EPT12);
    Op::EnterL2(L2 { vpid12, ept12 })
}

/// VMFUNC to one of two EPTs.
fn vmfunc(number: u8) -> Op {
    Op::Vmfunc(Ept12 { number, ..EPT12 })
}

/// Those of hypervisors.
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

/// Those of two vCPUs of a hypervisor.
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

/// Those of an L2 that turns from EPT to EPT.
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

/// Those of VPIDs that go round.
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
