// SPDX-License-Identifier: GPL-2.0

//! The steps of an exhaustive search.

use super::{
    edit,
    memory::{
        frames,
        Gfn, //
    },
    registers::{
        Bit,
        Registers, //
    },
    step::{
        Op,
        Step, //
    },
    vcpu::{
        Ept12,
        L2, //
    }, //
};

/// What an exhaustive search is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    /// Guests that run nobody.
    Guests,
    /// Guests of two VMs with two pages each, on two CPUs.
    Pages,
    /// A guest that goes from one mode to another.
    Modes,
    /// Hypervisors.
    Hypervisors,
    /// Two vCPUs of a hypervisor that changes its EPT.
    Epts,
}

/// What a vCPU does on a CPU, whose task stays there.
fn guest(vcpu: u8, cpu: u8, op: Op) -> Step {
    let patience = 0;
    Step::Guest {
        vcpu,
        cpu,
        patience,
        op,
    }
}

/// Writes a page.
fn touch(page: u16) -> Op {
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

/// What every search has.
const ALWAYS: [Step; 6] = [
    Step::Create(0),
    Step::Destroy(0),
    Step::Guest {
        vcpu: 0,
        cpu: 0,
        patience: 0,
        op: Op::Access {
            page: 0,
            write: true,
        },
    },
    Step::Guest {
        vcpu: 0,
        cpu: 1,
        patience: 0,
        op: Op::Access {
            page: 0,
            write: true,
        },
    },
    Step::Relocate { vm: 0, gfn: 0 },
    Step::ZapAll(0),
];

/// The steps of guests that run nobody.
fn guests() -> [Step; 8] {
    [
        Step::Create(2),
        Step::Destroy(2),
        guest(2, 0, touch(0)),
        guest(0, 0, edit(frames::PT, 0, 2)),
        guest(0, 1, Op::Invlpg(0)),
        guest(0, 0, mov_cr3(1, false)),
        Step::Protect { vm: 0, gfn: 0 },
        Step::Detached,
    ]
}

/// Those of two pages.
fn pages() -> [Step; 15] {
    [
        Step::Create(2),
        Step::Destroy(2),
        guest(0, 0, touch(1)),
        guest(0, 1, touch(1)),
        guest(2, 0, touch(0)),
        guest(2, 0, touch(1)),
        guest(2, 1, touch(1)),
        guest(0, 0, edit(frames::PT, 0, 2)),
        guest(0, 1, edit(frames::PT, 1, 3)),
        // A large page, which both are parts of.
        guest(0, 0, edit(frames::PD, 0, 3)),
        guest(0, 1, Op::Invlpg(0)),
        guest(0, 0, Op::Invlpg(1)),
        guest(0, 1, mov_cr3(0, false)),
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

/// Those of hypervisors.
fn hypervisors(ept: bool) -> [Step; 11] {
    let ept12 = ept.then_some(EPT12);
    let l2 = |vpid12| Op::EnterL2(L2 { vpid12, ept12 });
    [
        Step::Create(2),
        guest(2, 0, touch(0)),
        guest(0, 0, Op::VmxOn),
        guest(0, 0, Op::VmxOff),
        guest(0, 0, l2(1)),
        guest(0, 1, l2(2)),
        guest(0, 0, l2(0)),
        guest(0, 0, Op::LeaveL2),
        guest(0, 1, Op::LeaveL2),
        guest(0, 0, edit(frames::PT, 0, 2)),
        guest(0, 0, invvpid(1)),
    ]
}

/// An EPT of L1's.
const EPT12: Ept12 = Ept12 {
    number: 0,
    accessed_dirty: false,
};

/// Those of two vCPUs of a hypervisor.
fn epts(ept: bool) -> [Step; 12] {
    let ept12 = ept.then_some(EPT12);
    let l2 = Op::EnterL2(L2 { vpid12: 1, ept12 });
    let invept = |all| Op::Invept { all, ept12: EPT12 };
    [
        Step::Create(1),
        guest(1, 0, touch(0)),
        guest(0, 0, Op::VmxOn),
        guest(1, 0, Op::VmxOn),
        guest(0, 0, l2),
        guest(1, 0, l2),
        guest(0, 0, Op::LeaveL2),
        guest(0, 0, Op::Vmfunc(Ept12 { number: 1, ..EPT12 })),
        guest(0, 0, edit(frames::EPT_PT, 0, 4)),
        guest(0, 0, invept(false)),
        guest(0, 0, invept(true)),
        guest(0, 0, invvpid(0)),
    ]
}

/// Calls a function for each of the steps of an exhaustive search.
pub(crate) fn each(ept: bool, who: Who, mut visit: impl FnMut(Step)) {
    ALWAYS.into_iter().for_each(&mut visit);
    match who {
        Who::Guests => guests().into_iter().for_each(visit),
        Who::Pages => pages().into_iter().for_each(visit),
        Who::Modes => modes().into_iter().for_each(visit),
        Who::Hypervisors => hypervisors(ept).into_iter().for_each(visit),
        Who::Epts => epts(ept).into_iter().for_each(visit),
    }
}
