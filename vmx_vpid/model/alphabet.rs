// SPDX-License-Identifier: GPL-2.0

//! The steps of an exhaustive search.

use super::{
    edit,
    memory::{
        frames,
        Gfn, //
    },
    registers::Registers,
    step::{
        Op,
        Step, //
    },
    vcpu::{
        Ept12,
        L2, //
    }, //
};

/// Who an exhaustive search is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    /// Guests that run nobody.
    Guests,
    /// Hypervisors.
    Hypervisors,
    /// Two vCPUs of a hypervisor that changes its EPT.
    Epts,
}

/// Returns the steps of an exhaustive search.
pub(crate) fn alphabet(ept: bool, who: Who) -> impl Iterator<Item = Step> {
    let guest = |vcpu, cpu, op| Step::Guest {
        vcpu,
        cpu,
        patience: 0,
        op,
    };
    let page = 0;
    let touch = Op::Access { page, write: true };
    let edit = |table: Gfn, choice| Op::Edit {
        table,
        index: 0,
        entry: edit::entry(table, 0, choice),
    };
    let remap = edit(frames::PT, 2);
    let registers = Registers { root: 1, pcid: 0 };
    let ept12 = Ept12 {
        number: 0,
        accessed_dirty: false,
    };
    let l2 = |vpid12| {
        Op::EnterL2(L2 {
            vpid12,
            ept12: ept.then_some(ept12),
        })
    };
    let invvpid = |kind| Op::Invvpid {
        kind,
        vpid12: 1,
        page,
    };
    let both = [
        Step::Create(0),
        Step::Destroy(0),
        guest(0, 0, touch),
        guest(0, 1, touch),
        Step::Relocate { vm: 0, gfn: 0 },
        Step::ZapAll(0),
    ];
    let others = [
        Step::Create(2),
        Step::Destroy(2),
        guest(2, 0, touch),
        guest(0, 0, remap),
        guest(0, 1, Op::Invlpg(page)),
        guest(
            0,
            0,
            Op::MovCr3 {
                registers,
                keep: false,
            },
        ),
        Step::Protect { vm: 0, gfn: 0 },
        Step::Detached,
    ];
    let hypervisors = [
        Step::Create(2),
        guest(2, 0, touch),
        guest(0, 0, Op::VmxOn),
        guest(0, 0, Op::VmxOff),
        guest(0, 0, l2(1)),
        guest(0, 1, l2(2)),
        guest(0, 0, l2(0)),
        guest(0, 0, Op::LeaveL2),
        guest(0, 1, Op::LeaveL2),
        guest(0, 0, remap),
        guest(0, 0, invvpid(1)),
    ];
    let epts = [
        Step::Create(1),
        guest(1, 0, touch),
        guest(0, 0, Op::VmxOn),
        guest(1, 0, Op::VmxOn),
        guest(0, 0, l2(1)),
        guest(1, 0, l2(1)),
        guest(0, 0, Op::LeaveL2),
        guest(0, 0, edit(frames::EPT_PT, 4)),
        guest(0, 0, Op::Invept { all: false, ept12 }),
        guest(0, 0, Op::Invept { all: true, ept12 }),
        guest(0, 0, invvpid(0)),
    ];
    both.into_iter()
        .chain(others.into_iter().filter(move |_| who == Who::Guests))
        .chain(
            hypervisors
                .into_iter()
                .filter(move |_| who == Who::Hypervisors),
        )
        .chain(epts.into_iter().filter(move |_| who == Who::Epts))
}
