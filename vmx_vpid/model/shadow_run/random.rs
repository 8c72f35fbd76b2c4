// SPDX-License-Identifier: GPL-2.0

//! This module chooses the random steps of the model of shadow pages.

use super::{
    cpu::Drop,
    machine::Machine,
    memory::{
        self,
        Memory,
        PAGES,
        VCPUS, //
    },
    vcpu::{
        Mode,
        PCIDS, //
    },
    wrong::Wrong, //
};
use crate::{
    model::random::{
        Choice,
        Random, //
    },
    paging::permission::{
        Access,
        AccessKind, //
    }, //
};

/// The kinds of steps.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Access,
    Write,
    Invlpg,
    Invpcid,
    InvpcidAll,
    MovCr3,
    TogglePge,
    WriteProtect,
    Smep,
    Smap,
    Mode,
    Relocate,
    ZapAll,
    Reclaim,
    Forget,
}

/// The weights of the kinds.
const KINDS: [(Kind, u32); 15] = [
    (Kind::Access, 20),
    (Kind::Write, 20),
    (Kind::Invlpg, 6),
    (Kind::Invpcid, 4),
    (Kind::InvpcidAll, 1),
    (Kind::MovCr3, 8),
    (Kind::TogglePge, 1),
    (Kind::WriteProtect, 2),
    (Kind::Smep, 1),
    (Kind::Smap, 1),
    (Kind::Mode, 1),
    (Kind::Relocate, 2),
    (Kind::ZapAll, 1),
    (Kind::Reclaim, 1),
    (Kind::Forget, 1),
];

/// Chooses random steps for one part of a run.
///
/// Each part leaves out some kinds of steps and uses only some pages: otherwise random steps would
/// hardly ever find an error that takes many steps of few kinds.
pub(super) struct RandomSteps {
    /// The kinds that are left out, by bit.
    without: u32,
    /// The pages in use, by bit.
    pages: u32,
    /// A step changes the vCPU with probability 1/`other`.
    other: u32,
    /// The vCPU of the last step.
    vcpu: usize,
}

impl RandomSteps {
    /// Chooses the kinds of steps for a part of a run.
    pub(super) fn new(choice: &mut impl Choice) -> Self {
        let needed = 1 << Kind::Access as u32 | 1 << Kind::Write as u32;
        let some = choice.below(1 << KINDS.len());
        let few = some & choice.below(1 << KINDS.len());
        let without = match choice.below(3) {
            0 => 0,
            1 => few,
            _ => some,
        };
        Self {
            without: without & !needed,
            pages: match choice.below(4) {
                0 => u32::MAX,
                1 => choice.below(1 << PAGES),
                _ => choice.below(1 << PAGES) & choice.below(1 << PAGES),
            },
            other: [2, 10, 1000][choice.below(3) as usize],
            vcpu: 0,
        }
    }

    /// Chooses a page.
    fn page(&self, choice: &mut impl Choice) -> u32 {
        let page = choice.below(PAGES);
        let next = (page..page + PAGES).map(|page| page % PAGES);
        let used = |page: &u32| self.pages >> *page & 1 != 0;
        { next }.find(used).unwrap_or(page)
    }

    /// Chooses the kind of a step.
    fn kind(&self, choice: &mut impl Choice) -> Kind {
        let with = |kind: Kind| self.without >> kind as u32 & 1 == 0;
        let all = KINDS.iter().filter(|(kind, _)| with(*kind));
        let mut at = choice.below(all.clone().map(|(_, weight)| weight).sum());
        for &(kind, weight) in all {
            match at.checked_sub(weight) {
                None => return kind,
                Some(rest) => at = rest,
            }
        }
        Kind::Access
    }
}

impl Machine {
    /// Executes a random step, and checks that the vCPU may be entered afterwards.
    pub(super) fn step(&mut self) -> Result<(), Wrong> {
        self.memory.now += 1;
        if self.random.below(self.random_steps.other) == 0 {
            self.random_steps.vcpu = 1 - self.random_steps.vcpu;
        }
        let id = self.random_steps.vcpu;
        let kind = self.random_steps.kind(&mut self.random);
        let page = self.random_steps.page(&mut self.random);
        self.happen(id, kind, page)?;
        self.enter(id)
    }

    /// Executes a step.
    fn happen(&mut self, id: usize, kind: Kind, page: u32) -> Result<(), Wrong> {
        let now = self.memory.now;
        let address = memory::address(page);
        let flag = self.random.below(2) == 0;
        let pcid = u64::from(self.random.below(PCIDS as u32));
        let pcid = if self.vcpus[id].mode == Mode::Long {
            pcid
        } else {
            0
        };
        match kind {
            Kind::Access => {
                let kind = [AccessKind::Read, AccessKind::Write, AccessKind::Fetch];
                let kind = kind[self.random.below(3) as usize];
                // This write goes to an offset at which no table has an entry in use.
                if kind == AccessKind::Write {
                    return self.write(id, address, flag, |_, _, _| (2400, 8, 0));
                }
                self.access(id, address, Access { kind, user: flag })?;
            }
            Kind::Write => {
                let edit = |memory: &Memory, random: &mut Random, frame| {
                    let data = memory::is_data(frame);
                    if data {
                        (0, 8, 0)
                    } else {
                        memory.edit(frame, random)
                    }
                };
                self.write(id, address, flag && page.is_multiple_of(2), edit)?;
            }
            Kind::Invlpg => {
                self.enter(id)?;
                self.invlpg(id, page);
            }
            Kind::Invpcid => {
                self.enter(id)?;
                if flag {
                    self.invpcid(id, page, pcid);
                } else {
                    self.invalidate_pcid(id, pcid);
                }
            }
            Kind::InvpcidAll | Kind::TogglePge => {
                self.enter(id)?;
                self.vcpus[id].pending.guest = true;
                self.vcpus[id].invalidated.all = now;
            }
            Kind::MovCr3 => {
                self.enter(id)?;
                let root = u64::from(self.random.below(2));
                self.load_cr3(id, root, pcid, flag);
            }
            Kind::WriteProtect => {
                self.vcpus[id].write_protect ^= true;
                self.reset_context(id);
            }
            Kind::Smep => {
                let vcpu = &mut self.vcpus[id];
                vcpu.smep ^= true;
                if vcpu.smep {
                    vcpu.pending.current = true;
                    vcpu.invalidated.pcid[vcpu.pcid as usize] = now;
                }
                self.reset_context(id);
            }
            Kind::Smap => {
                self.vcpus[id].smap ^= true;
                self.reset_context(id);
            }
            Kind::Mode => {
                let modes = [Mode::Long, Mode::Legacy, Mode::Off];
                let vcpu = &mut self.vcpus[id];
                vcpu.mode = modes[self.random.below(3) as usize];
                vcpu.pcid = 0;
                vcpu.pending.guest = true;
                vcpu.invalidated.all = now;
                self.reset_context(id);
            }
            Kind::Relocate => {
                let frame = Memory::any_frame(&mut self.random);
                self.shadows.unmap(&mut self.memory, frame);
                self.memory.relocate(frame);
            }
            Kind::ZapAll => self.shadows.zap_all(&mut self.memory),
            Kind::Reclaim => {
                let wanted = self.random.below(40) as usize;
                self.shadows.reclaim(&mut self.memory, wanted);
            }
            Kind::Forget => {
                let random = self.random.below(u32::MAX);
                self.cpus[id].forget(random);
                self.cpus[VCPUS - 1 - id].drop(Drop::Fault(0, address));
            }
        }
        Ok(())
    }
}
