// SPDX-License-Identifier: GPL-2.0

//! This module simulates the machine that runs on shadow pages: it enters vCPUs, and makes their
//! accesses.

use super::{
    cpu::{
        Cpu,
        Drop,
        Structure,
        Translation, //
    },
    memory::{
        Memory,
        VCPUS, //
    },
    vcpu::{
        Mode,
        Pending,
        Vcpu, //
    },
    wrong::Wrong, //
};
use crate::{
    model::{
        random::Random,
        shadow_mmu::{
            self,
            bug::Bug,
            fetch::Fixed,
            zap::Written,
            Gfn,
            PageId,
            Place,
            Shadows,
            Vm, //
        }, //
    },
    paging::{
        level::ADDRESS,
        permission::{
            Access,
            AccessKind, //
        }, //
    },
    x86::addr::Hpa, //
};
use kernel::prelude::*;

/// The number of shadow pages: so few that KVM has to reclaim pages.
const POOL: usize = 40;

/// The greatest number of rounds before a VM entry, and of retries of an access.
const PATIENCE: u32 = 16;

/// The result of an access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The access was made, to this frame.
    Done(Gfn),
    /// KVM has to emulate the access, a write to this frame.
    Emulate(Gfn),
    /// The guest gets a page fault.
    Fault,
}

/// The simulated machine.
pub(super) struct Machine {
    pub(super) memory: Memory,
    pub(super) shadows: Shadows,
    pub(super) vcpus: [Vcpu; VCPUS],
    pub(super) cpus: [Cpu; VCPUS],
    pub(super) random: Random,
    /// The choice of steps for this part of a run.
    pub(super) random_steps: super::random::RandomSteps,
}

impl Machine {
    /// Makes a machine.
    pub(super) fn new(broken: Option<Bug>) -> Result<Self> {
        let mut random = Random::new(0);
        Ok(Self {
            memory: Memory::new(broken)?,
            shadows: Shadows::new(POOL)?,
            vcpus: [Vcpu::new(), Vcpu::new()],
            cpus: [Cpu::new()?, Cpu::new()?],
            random_steps: super::random::RandomSteps::new(&mut random),
            random,
        })
    }

    /// Restarts the machine, from a seed.
    pub(super) fn restart(&mut self, seed: u64) {
        self.memory.restart();
        self.shadows.restart();
        self.vcpus = [Vcpu::new(), Vcpu::new()];
        self.cpus.iter_mut().for_each(|cpu| cpu.drop(Drop::All));
        self.random = Random::new(seed);
        self.random_steps = super::random::RandomSteps::new(&mut self.random);
    }

    /// Clears the request of a remote flush of a vCPU; returns whether there was a request.
    fn was_asked(&self, id: usize) -> bool {
        let mut flush = self.memory.flush.get();
        let asked = core::mem::take(&mut flush[id]);
        self.memory.flush.set(flush);
        asked
    }

    /// Prepares the VM entry as KVM does, and checks that the guest may be entered:
    /// `vcpu_enter_guest()`.
    pub(super) fn enter(&mut self, id: usize) -> Result<(), Wrong> {
        for _ in 0..PATIENCE {
            let (shadows, memory) = (&mut self.shadows, &mut self.memory);
            let (vcpu, cpu) = (&mut self.vcpus[id], &mut self.cpus[id]);
            vcpu.roots.free_obsolete(shadows, memory);
            let Pending {
                sync,
                current,
                guest,
            } = core::mem::take(&mut vcpu.pending);
            if sync || guest {
                vcpu.roots.sync(shadows, memory);
            }
            if guest {
                vcpu.roots.sync_previous(shadows, memory);
            }
            if current || guest {
                cpu.drop(Drop::All);
            }
            let loaded = vcpu.roots.load(shadows, memory, &vcpu.paging());
            if loaded.map_err(|_| Wrong::Full)? && !memory.has(Bug::NotFlushedAtLoad) {
                cpu.drop(Drop::All);
            }
            if !self.was_asked(id) {
                return self.check(id);
            }
            self.cpus[id].drop(Drop::All);
        }
        Err(Wrong::Stuck)
    }

    /// Accesses an address for a vCPU, with KVM handling the faults.
    pub(super) fn access(
        &mut self,
        id: usize,
        address: u64,
        access: Access,
    ) -> Result<Outcome, Wrong> {
        for _ in 0..PATIENCE {
            self.enter(id)?;
            if let Some(frame) = self.attempt(id, address, access) {
                return Ok(Outcome::Done(frame));
            }
            let vcpu = &self.vcpus[id];
            self.cpus[id].drop(Drop::Fault(vcpu.pcid, address));
            let (roots, paging) = (vcpu.roots, vcpu.paging());
            let (shadows, memory) = (&mut self.shadows, &mut self.memory);
            let fixed = shadows.fault(memory, &roots, &paging, address, access);
            match fixed.map_err(|_| Wrong::Full)? {
                Fixed::Yes => {}
                Fixed::GuestFault => {
                    self.enter(id)?;
                    return Ok(Outcome::Fault);
                }
                Fixed::Emulate(frame) => return Ok(Outcome::Emulate(frame)),
            }
        }
        Err(Wrong::Stuck)
    }

    /// Makes an access by a cached translation, or else by KVM's tables; `None` if the access
    /// faults.
    ///
    /// The CPU takes every way that it could take: from the root, and from each cached table.
    fn attempt(&mut self, id: usize, address: u64, access: Access) -> Option<Gfn> {
        let pcid = self.vcpus[id].pcid;
        let vcpu = &self.vcpus[id];
        let mut frame = self.cpus[id]
            .translations(pcid)
            .find(|it| it.address == address && vcpu.cpu_allows(it.entry, access))
            .map(|it| it.at);
        let mut starts = KVec::new();
        let (top, level) = vcpu.roots.top(address)?;
        for way in self.cpus[id].ways(pcid).filter(|it| it.covers(address)) {
            // The push fails only without memory, and then the walk from this table is left out.
            let _ = starts.push((way.table, way.level, way.root), GFP_KERNEL);
        }
        let _ = starts.push((top, level, (top, level)), GFP_KERNEL);
        for (table, level, root) in starts {
            let at = self.go(id, (table, level), root, address, access);
            frame = frame.or(at);
        }
        self.memory.frame_at(frame?)
    }

    /// Walks one way to a page, and caches each entry on the way.
    fn go(
        &mut self,
        id: usize,
        from: (PageId, u8),
        root: (PageId, u8),
        address: u64,
        access: Access,
    ) -> Option<Hpa> {
        let pcid = self.vcpus[id].pcid;
        let (mut page, mut level) = from;
        loop {
            let index = shadow_mmu::index(level, address);
            let place = Place { page, index, level };
            let entry = self.shadows.entry(place);
            let at = Hpa::new(entry.into_raw() & ADDRESS);
            if !entry.present() {
                return None;
            }
            if level > 1 {
                (page, level) = (PageId::at(at), level - 1);
                self.cpus[id].keep_way(Structure {
                    pcid,
                    address,
                    level,
                    table: page,
                    root,
                });
                continue;
            }
            if !self.vcpus[id].cpu_allows(entry, access) {
                return None;
            }
            self.cpus[id].keep(Translation {
                pcid,
                address,
                entry,
                at,
                origin: self.shadows.origin(&self.memory, place),
            });
            return Some(at);
        }
    }

    /// Writes into a page for a vCPU, or has KVM emulate the write.
    pub(super) fn write(
        &mut self,
        id: usize,
        address: u64,
        user: bool,
        edit: impl FnOnce(&Memory, &mut Random, Gfn) -> (usize, usize, u64),
    ) -> Result<(), Wrong> {
        let kind = AccessKind::Write;
        let outcome = self.access(id, address, Access { kind, user })?;
        let (frame, seen) = match outcome {
            Outcome::Done(frame) => (frame, false),
            Outcome::Emulate(frame) => (frame, true),
            Outcome::Fault => return Ok(()),
        };
        let (offset, bytes, value) = edit(&self.memory, &mut self.random, frame);
        self.memory.write_bytes(frame, offset, bytes, value);
        if seen {
            let written = Written {
                frame,
                offset,
                bytes,
            };
            self.shadows.track_write(&mut self.memory, written);
        }
        Ok(())
    }

    /// Sets the role of a vCPU's roots after a change of registers.
    pub(super) fn reset_context(&mut self, id: usize) {
        let vcpu = &mut self.vcpus[id];
        let role = vcpu.role();
        vcpu.roots.reset(&mut self.shadows, &mut self.memory, role);
    }

    /// Executes MOV to CR3: `kvm_set_cr3()`.
    pub(super) fn load_cr3(&mut self, id: usize, root: u64, pcid: u64, keep: bool) {
        let (shadows, memory) = (&mut self.shadows, &mut self.memory);
        let vcpu = &mut self.vcpus[id];
        let pcids = vcpu.mode == Mode::Long;
        let before = vcpu.paging().cr3;
        (vcpu.root, vcpu.pcid) = (root, if pcids { pcid } else { 0 });
        let cr3 = vcpu.paging().cr3;
        if cr3 != before {
            vcpu.roots.turn_to(shadows, memory, cr3);
        }
        if keep && pcids {
            return;
        }
        self.invalidate_pcid(id, self.vcpus[id].pcid);
    }

    /// Invalidates a PCID: `kvm_invalidate_pcid()`.
    pub(super) fn invalidate_pcid(&mut self, id: usize, pcid: u64) {
        let vcpu = &mut self.vcpus[id];
        if vcpu.pcid == pcid {
            vcpu.pending.sync |= !self.memory.has(Bug::NotSyncedAtCr3);
            vcpu.pending.current |= !self.memory.has(Bug::NotFlushedAtCr3);
        }
        if vcpu.mode == Mode::Long {
            vcpu.roots
                .free_pcid(&mut self.shadows, &mut self.memory, pcid);
        }
        vcpu.invalidated.pcid[pcid as usize] = self.memory.now;
    }

    /// Invalidates a page; KVM drops the page under every PCID: `kvm_mmu_invlpg()`.
    pub(super) fn invlpg(&mut self, id: usize, page: u32) {
        let address = super::memory::address(page);
        let vcpu = &mut self.vcpus[id];
        self.cpus[id].drop(Drop::Address(address));
        vcpu.roots
            .invalidate(&mut self.shadows, &mut self.memory, address, true, None);
        vcpu.invalidated.page[vcpu.pcid as usize][page as usize] = self.memory.now;
    }

    /// Invalidates a page under one PCID: `kvm_mmu_invpcid_gva()`.
    pub(super) fn invpcid(&mut self, id: usize, page: u32, pcid: u64) {
        let address = super::memory::address(page);
        let vcpu = &mut self.vcpus[id];
        let current = vcpu.pcid == pcid;
        if current || vcpu.roots.has_pcid(pcid) {
            self.cpus[id].drop(Drop::Address(address));
            let (shadows, memory) = (&mut self.shadows, &mut self.memory);
            vcpu.roots
                .invalidate(shadows, memory, address, current, Some(pcid));
        }
        vcpu.invalidated.page[pcid as usize][page as usize] = self.memory.now;
    }
}
