// SPDX-License-Identifier: GPL-2.0

//! This module chooses random steps.

use crate::model::{
    guest::{
        control_regs::{
            Bit,
            Registers, //
        },
        edit,
        invalidated::PCIDS,
        memory::{
            FRAMES,
            PAGES, //
        }, //
    },
    kvm::vcpu::{
        Ept12,
        L2, //
    },
    machine::{
        CPUS,
        VCPUS,
        VMS, //
    },
    random::Choice,
    step::{
        Op,
        Step, //
    }, //
};

/// The kinds of guest actions that a part of a run can leave out, with their weights.
const OPS: [(Kind, u32); 17] = [
    (Kind::Access, 16),
    (Kind::Edit, 8),
    (Kind::Invlpg, 2),
    (Kind::Invpcid, 3),
    (Kind::MovCr3, 4),
    (Kind::TogglePge, 1),
    (Kind::Toggle, 3),
    (Kind::Init, 1),
    (Kind::Smm, 1),
    (Kind::VmxOn, 3),
    (Kind::VmxOff, 1),
    (Kind::EnterL2, 6),
    (Kind::BounceL2, 2),
    (Kind::LeaveL2, 4),
    (Kind::Vmfunc, 2),
    (Kind::Invvpid, 4),
    (Kind::Invept, 4),
];

/// The kinds of [`Op`].
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Access,
    Edit,
    Invlpg,
    Invpcid,
    MovCr3,
    TogglePge,
    Toggle,
    Init,
    Smm,
    VmxOn,
    VmxOff,
    EnterL2,
    BounceL2,
    LeaveL2,
    Vmfunc,
    Invvpid,
    Invept,
}

/// Chooses random steps for one part of a run.
///
/// Each part leaves out some kinds of steps and uses only some pages: otherwise random steps would
/// hardly ever find an error that takes many steps of few kinds.
#[derive(Clone)]
pub(crate) struct RandomSteps {
    /// The vCPU of the last step, and the last CPU of each vCPU.
    vcpu: u8,
    cpus: [u8; VCPUS],
    /// The kinds of guest actions, and of host actions, that are left out, by bit.
    without: u32,
    without_host: u32,
    /// The number of pages in use, and the tables that guests edit.
    pages: u32,
    edits: Edits,
    /// A step changes the vCPU with probability 1/`other_vcpu`, the CPU with 1/`other_cpu`.
    other_vcpu: u32,
    other_cpu: u32,
    /// L1 always gives L2 the same VPID and EPT.
    same_l2: bool,
    /// The only type of INVVPID that L1 executes; `None` for all types.
    invvpid: Option<u8>,
}

/// The tables that guests edit.
#[derive(Clone, Copy)]
enum Edits {
    /// All tables.
    All,
    /// One entry of a page table.
    OnePage,
    /// The tables of EPTs.
    Epts,
    /// One entry of a page table of one EPT.
    OneEpt,
}

impl RandomSteps {
    /// Chooses the kinds of steps for a part of a run.
    pub(crate) fn new(choice: &mut impl Choice) -> Self {
        // CAST: There are fewer than 32 kinds of guest actions.
        let needed = 1 << Kind::Access as u32 | 1 << Kind::Edit as u32;
        let nested = [Kind::VmxOn, Kind::EnterL2, Kind::LeaveL2];
        let nested = nested.iter().fold(0, |mask, &kind| mask | 1 << kind as u32);
        let without = choice.below(1 << OPS.len() as u32) & !needed;
        // Some parts have a hypervisor that mostly runs L2 and invalidates.
        let few = [Kind::BounceL2, Kind::Vmfunc, Kind::Invvpid, Kind::Invept];
        let few = few
            .iter()
            .fold(nested | needed, |mask, &kind| mask | 1 << kind as u32);
        // Other parts have a guest that changes its paging mode; most parts have no such guest.
        let modes = 1 << Kind::Toggle as u32 | 1 << Kind::Init as u32;
        let kept = if choice.below(4) == 0 { 0 } else { modes };
        let about = choice.below(8);
        let (hypervisor, moded) = (about < 2, about == 2);
        let without = match choice.below(3) {
            _ if hypervisor => !few,
            _ if moded => !(needed | modes | 1 << Kind::MovCr3 as u32),
            0 => kept,
            1 => without | nested | kept,
            _ => without & !nested | kept,
        };
        Self {
            vcpu: choice.below(VCPUS as u32) as u8,
            cpus: [0; VCPUS],
            without,
            without_host: match choice.below(3) {
                _ if hypervisor || moded => u32::MAX,
                0 => 0,
                1 => u32::MAX,
                _ => choice.below(1 << 12),
            },
            pages: if hypervisor {
                1
            } else {
                [1, 2, PAGES.into()][choice.below(3) as usize]
            },
            invvpid: hypervisor.then(|| choice.below(4) as u8),
            edits: match choice.below(4) {
                _ if moded => Edits::OnePage,
                0 => Edits::All,
                1 => Edits::OnePage,
                2 => Edits::Epts,
                _ => Edits::OneEpt,
            },
            other_vcpu: [3, 8, 40][choice.below(3) as usize],
            other_cpu: [3, 12, 60][choice.below(3) as usize],
            same_l2: hypervisor || choice.below(2) == 0,
        }
    }

    /// Chooses the next step.
    pub(crate) fn next(&mut self, choice: &mut impl Choice) -> Step {
        // CAST: Each number that is cast is below 256.
        if choice.below(self.other_vcpu) == 0 {
            self.vcpu = choice.below(VCPUS as u32) as u8;
        }
        let vcpu = self.vcpu;
        let cpu = &mut self.cpus[usize::from(vcpu)];
        if choice.below(self.other_cpu) == 0 {
            *cpu = choice.below(CPUS as u32) as u8;
        }
        let cpu = *cpu;
        // Usually the VM of that vCPU.
        let vm = if choice.below(4) == 0 {
            choice.below(VMS as u32) as u8
        } else {
            vcpu / 2
        };
        let frames = if self.pages == 1 { 1 } else { FRAMES as u32 };
        let kind = choice.below(64);
        if kind < 12 && self.without_host >> kind & 1 == 0 {
            let gfn = choice.below(frames) as u16;
            match kind {
                2 if choice.below(4) == 0 => return Step::Destroy(vcpu),
                3 | 4 => return Step::Relocate { vm, gfn },
                5 => return Step::Protect { vm, gfn },
                6 => return Step::Clean { vm, gfn },
                7 if choice.below(2) == 0 => return Step::Split(vm),
                8 if choice.below(2) == 0 => {
                    let level = 1 + choice.below(3) as u8;
                    return Step::Merge { vm, level };
                }
                9 if choice.below(3) == 0 => return Step::ZapAll(vm),
                0 if choice.below(3) == 0 => return Step::Shrink(vm),
                10 if choice.below(8) == 0 => {
                    let cpu = choice.below(CPUS as u32) as u8;
                    if choice.below(3) == 0 {
                        return Step::Replug(cpu);
                    }
                    let random = choice.below(u32::MAX);
                    return Step::Forget { cpu, random };
                }
                11 if choice.below(4) == 0 => {
                    return match choice.below(3) {
                        0 => Step::Transition,
                        1 => Step::Attached,
                        _ => Step::Detached,
                    }
                }
                _ => {}
            }
        }
        if kind >= 62 {
            return Step::Create(vcpu);
        }
        let patience = if choice.below(8) == 0 {
            1 + choice.below(12) as u8
        } else {
            0
        };
        let op = self.op(choice);
        Step::Guest {
            vcpu,
            cpu,
            patience,
            op,
        }
    }

    /// Chooses a guest action.
    fn op(&self, choice: &mut impl Choice) -> Op {
        let with = |kind: Kind| self.without >> kind as u32 & 1 == 0;
        let all = OPS.iter().filter(|(kind, _)| with(*kind));
        let mut at = choice.below(all.clone().map(|(_, weight)| weight).sum());
        let kind = all
            .clone()
            .find(|(_, weight)| match at.checked_sub(*weight) {
                None => true,
                Some(rest) => {
                    at = rest;
                    false
                }
            })
            .map_or(Kind::Access, |(kind, _)| *kind);
        // CAST: Each number that is cast is below 256.
        let page = choice.below(self.pages) as u16;
        let pcid = choice.below(PCIDS as u32) as u8;
        let flag = choice.below(2) == 0;
        let kinds = if self.same_l2 { 1 } else { 2 };
        let ept12 = Ept12 {
            number: choice.below(kinds) as u8,
            accessed_dirty: choice.below(3) == 0,
        };
        let vpid12 = 1 + choice.below(kinds) as u16;
        let plain = choice.below(4 * kinds);
        let l2 = L2 {
            vpid12: if plain == 0 { 0 } else { vpid12 },
            ept12: (plain != 1).then_some(ept12),
        };
        match kind {
            Kind::Access => Op::Access { page, write: flag },
            Kind::Edit => {
                let place = match self.edits {
                    Edits::All => choice.below(edit::PLACES.into()),
                    Edits::OnePage => 10,
                    Edits::Epts => 18 + choice.below(14),
                    Edits::OneEpt => 23,
                };
                let (table, index) = edit::place(place as u8);
                let which = choice.below(edit::CHOICES.into()) as u8;
                let entry = edit::entry(table, index, which);
                Op::Edit {
                    table,
                    index,
                    entry,
                }
            }
            Kind::Invlpg if flag => Op::EmulatedInvlpg(page),
            Kind::Invlpg => Op::Invlpg(page),
            Kind::Invpcid => Op::Invpcid {
                kind: choice.below(4) as u8,
                pcid,
                page,
            },
            Kind::MovCr3 => Op::MovCr3 {
                registers: Registers {
                    root: choice.below(2) as u8,
                    pcid,
                },
                keep: flag,
            },
            Kind::TogglePge => Op::TogglePge,
            Kind::Toggle => Op::Toggle(Bit::ALL[choice.below(Bit::ALL.len() as u32) as usize]),
            Kind::Init => Op::Init,
            Kind::Smm => Op::Smm,
            Kind::VmxOn => Op::VmxOn,
            Kind::VmxOff => Op::VmxOff,
            Kind::EnterL2 => Op::EnterL2(l2),
            Kind::BounceL2 => Op::BounceL2(l2),
            Kind::LeaveL2 => Op::LeaveL2,
            Kind::Vmfunc => Op::Vmfunc(Ept12 {
                number: choice.below(2) as u8,
                ..ept12
            }),
            Kind::Invvpid => Op::Invvpid {
                kind: self.invvpid.unwrap_or(choice.below(4) as u8),
                vpid12,
                page,
            },
            Kind::Invept => Op::Invept {
                all: choice.below(4) == 0,
                ept12,
            },
        }
    }
}
