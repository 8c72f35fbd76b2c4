// SPDX-License-Identifier: GPL-2.0

//! This module simulates a machine: CPUs, VMs with their memory and tables, vCPUs, VPIDs, and the
//! backend that serves KVM's requests.

use super::{
    bug::Bugs,
    cpu::{
        cost::Cost,
        tlb::{
            Cpu,
            Here,
            Task, //
        },
        tlb_entry::STRANGER, //
    },
    guest::memory::{
        Memory,
        Tables, //
    },
    kvm::{
        generations::Generations,
        tables::{
            Tree,
            TreeId,
            TREES, //
        },
        vcpu::{
            Seen,
            Vcpu,
            READERS, //
        },
        vpids::Vpids, //
    }, //
};
use crate::{
    flush::{
        execute::FlushFailed,
        policy::{
            Policy,
            Switches, //
        },
        tags::Tags, //
    },
    vmx::caps::EptVpidCap,
    vpid::{
        bitmap::NotAllocated,
        flushed_cpus::FlushedCpus,
        owned::OwnedVpid,
        Vpid, //
    }, //
};
use kernel::prelude::*;

/// The number of CPUs of a machine.
pub(super) const CPUS: usize = 2;
/// The usual number of VMs of a machine.
pub(super) const VMS: usize = 2;
/// The number of vCPUs of a VM.
pub(super) const VCPUS_OF_VM: usize = 2;
/// The usual number of vCPUs of all VMs together.
pub(super) const VCPUS: usize = VMS * VCPUS_OF_VM;

/// The setup of a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Config {
    /// Guests run on EPT.
    pub(crate) ept: bool,
    /// Guests run with VPIDs.
    pub(crate) vpid: bool,
    /// The CPU keeps accessed and dirty flags in EPTs.
    pub(crate) accessed_dirty: bool,
    /// The CPU has PCIDs, and guests begin with CR4.PCIDE set.
    pub(crate) pcids: bool,
    /// KVM has no page for every second root, so that the module cannot tell the root's EPT
    /// pointer.
    pub(crate) unknown_roots: bool,
    /// The backend that serves requests at first.
    pub(crate) backend: Backend,
    /// The number of VPIDs; with generations of tags, the number on each CPU.
    pub(crate) vpids: u16,
    /// The greatest number of VMs, of two vCPUs each.
    pub(crate) vms: u8,
    /// The number of entries that a CPU has room for; usually more than a run of a few hundred
    /// steps fills.
    pub(crate) room: u16,
    /// The ways that a CPU takes to a page.
    pub(crate) ways: Ways,
    /// The user's settings; the CPU lacks the capabilities in `caps_mask`.
    pub(crate) switches: Switches,
}

impl Config {
    /// Returns the usual setup.
    pub(crate) fn usual(ept: bool) -> Self {
        Self {
            ept,
            vpid: true,
            accessed_dirty: true,
            pcids: true,
            unknown_roots: false,
            backend: Backend::Rust,
            vpids: 6,
            // CAST: There are two VMs.
            vms: VMS as u8,
            room: 256,
            ways: Ways::All,
            switches: Switches::default(),
        }
    }
}

/// The ways that a CPU takes to a page: from the root, or from a cached entry of a paging
/// structure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ways {
    /// All ways, even if the page's translation is cached: to find a missing flush.
    All,
    /// The shortest way, and no way at all if the page's translation is cached: to count the cost.
    Shortest,
}

/// The code that serves KVM's requests and handles exits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Backend {
    /// The code of vmx_vpid.ko.
    Rust,
    /// A model of KVM's C code.
    C,
    /// Both in turn: an attach or a detach is under way.
    Both,
    /// A policy that exists in the model only, and allocates new tags instead of flushing:
    /// [`super::kvm::generations`].
    Generations,
}

/// An error that the model finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wrong {
    /// A guest could use a stale entry of a CPU's caches.
    Stale {
        /// The number of the CPU.
        cpu: u8,
        /// The number of the entry in that CPU's caches.
        entry: u16,
        /// The reason why the entry is stale.
        how: Stale,
    },
    /// A guest would run on a stale entry of KVM's tables.
    StaleTable {
        /// The page, or the guest's frame, that the entry maps.
        number: u16,
        /// The reason why the entry is stale.
        how: Stale,
    },
    /// A guest would run on tables that KVM made for another mode.
    OtherMode,
    /// A guest would run with a VPID that was not flushed on the CPU since the allocation.
    Dirty(Vpid),
    /// FlushedCpus has a VPID as flushed on a CPU that still has an entry of an earlier holder.
    FlushedCpus(Vpid),
    /// Two vCPUs have the same VPID.
    Double(Vpid),
    /// Every form of an invalidation failed.
    FlushFailed,
    /// A VPID was freed that was not allocated.
    NotAllocated,
    /// A VPID is in use that no vCPU holds.
    Leaked,
    /// The kernel's walk through a guest's tables and the oracle's walk disagree.
    WalksDiffer,
    /// A vCPU never gets to run.
    Stuck,
    /// The test itself ran out of memory.
    Memory,
}

/// The reason why an entry is stale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stale {
    /// KVM's tables no longer map the page like this.
    Host,
    /// The guest's tables no longer map the page like this, and the guest has invalidated the
    /// entry.
    Guest,
    /// The guest's tables never mapped the page like this: another guest's tables were read.
    Foreign,
    /// L1's EPT no longer maps the frame like this, and L1 has invalidated the entry.
    Nested,
}

impl From<FlushFailed> for Wrong {
    fn from(_: FlushFailed) -> Self {
        Self::FlushFailed
    }
}

impl From<NotAllocated> for Wrong {
    fn from(_: NotAllocated) -> Self {
        Self::NotAllocated
    }
}

impl From<Error> for Wrong {
    fn from(_: Error) -> Self {
        Self::Memory
    }
}

/// The simulated machine.
///
/// The vCPUs 0 and 1 belong to VM 0, the vCPUs 2 and 3 to VM 1, and so on.
pub(crate) struct Machine<'a> {
    pub(super) config: Config,
    pub(super) bugs: Bugs,
    pub(super) policy: Policy,
    pub(super) backend: Backend,
    /// Counts the requests and exits while both backends serve, to alternate between the two.
    pub(super) turn: u32,
    pub(super) cpus: [Cpu; CPUS],
    /// The task of one vCPU at a time, from the beginning of a step to the end of the step.
    pub(super) task: Task,
    pub(super) vpids: &'a Vpids<'a>,
    /// The vCPUs and trees have their own allocations, because a kernel stack is small.
    pub(super) vcpus: KVVec<Vcpu>,
    pub(super) trees: KVVec<Option<Tree>>,
    pub(super) tables: Tables,
    pub(super) memories: KVVec<Memory>,
    /// The state of [`Backend::Generations`].
    pub(super) generations: Generations,
    /// The counters.
    pub(super) cost: Cost,
    /// The time: the number of actions of guests so far.
    pub(super) now: u32,
    /// The number of vCPUs created so far.
    pub(super) lives: u32,
}

impl<'a> Machine<'a> {
    /// Makes a machine without VMs.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`].
    pub(crate) fn new(config: Config, bugs: Bugs, vpids: &'a Vpids<'a>) -> Result<Self> {
        let full = EptVpidCap::from(u64::MAX);
        let caps = EptVpidCap::from(!config.switches.caps_mask);
        let room = usize::from(config.room);
        let vcpus = usize::from(config.vms) * VCPUS_OF_VM;
        let mut memories = KVVec::with_capacity(config.vms.into(), GFP_KERNEL)?;
        for vm in 0..config.vms {
            memories.push(Memory::new(vm.into())?, GFP_KERNEL)?;
        }
        vpids.reset(config.vpids);
        vpids.hand_over(config.backend == Backend::Rust);
        Ok(Self {
            config,
            bugs,
            policy: config.switches.policy(full),
            backend: config.backend,
            turn: 0,
            cpus: [Cpu::new(caps, room)?, Cpu::new(caps, room)?],
            task: Task::new(),
            vpids,
            vcpus: KVVec::from_elem(Vcpu::default(), vcpus, GFP_KERNEL)?,
            trees: KVVec::from_elem(None, TREES, GFP_KERNEL)?,
            tables: Tables::new()?,
            memories,
            generations: Generations::new(),
            cost: Cost::default(),
            now: 1,
            lives: 0,
        })
    }

    /// Copies the state of another machine with the same setup.
    pub(crate) fn assign(&mut self, other: &Self) {
        (self.backend, self.turn) = (other.backend, other.turn);
        for (cpu, from) in self.cpus.iter().zip(&other.cpus) {
            cpu.assign(from);
        }
        self.task = other.task.clone();
        self.vpids.assign(other.vpids);
        self.vcpus.copy_from_slice(&other.vcpus);
        self.trees.copy_from_slice(&other.trees);
        self.tables.assign(&other.tables);
        for (memory, from) in self.memories.iter_mut().zip(&other.memories) {
            memory.assign(from);
        }
        self.generations = other.generations;
        (self.now, self.lives) = (other.now, other.lives);
    }

    /// Resets the machine to the state after `new()`.
    pub(crate) fn restart(&mut self) {
        self.backend = self.config.backend;
        self.turn = 0;
        self.cpus.iter().for_each(Cpu::forget_all);
        self.task = Task::new();
        self.vpids.reset(self.config.vpids);
        self.vpids.hand_over(self.backend == Backend::Rust);
        self.vcpus.fill(Vcpu::default());
        self.trees.fill(None);
        self.tables.give_back_all();
        self.memories.iter_mut().for_each(Memory::reset);
        self.generations = Generations::new();
        (self.now, self.lives) = (1, 0);
    }

    /// Returns an entry of a CPU's caches, to describe a counterexample.
    pub(crate) fn cached(&self, cpu: u8, entry: u16) -> Option<super::cpu::tlb_entry::TlbEntry> {
        self.cpus.get(usize::from(cpu))?.entry(entry.into())
    }

    /// Returns how many entries were evicted for lack of room since the machine was made.
    pub(crate) fn evicted(&self) -> u64 {
        self.cpus.iter().map(Cpu::evicted).sum()
    }

    /// Returns how many linear and combined mappings with a vCPU's vpid01 are cached on all CPUs.
    pub(super) fn cached_by(&self, id: usize) -> usize {
        let vpid = self.vcpus[id].vpid01;
        let of_it = |entry: &super::cpu::tlb_entry::TlbEntry| {
            entry.key.vpid == vpid && entry.key.kind != super::cpu::tlb_entry::Kind::Physical
        };
        self.cpus.iter().map(|cpu| cpu.count(of_it)).sum()
    }

    /// Returns a tree.
    pub(super) fn tree(&self, tree: TreeId) -> Option<Tree> {
        self.trees[usize::from(tree.0)]
    }

    /// Returns the environment of an invalidation: the CPUs, the task and FlushedCpus.
    pub(super) fn here(&self) -> Here<'_> {
        Here {
            cpus: &self.cpus,
            task: &self.task,
            flushed: self.flushed(),
            bugs: self.bugs,
        }
    }

    /// Returns the FlushedCpus of all VPIDs.
    pub(super) fn flushed(&self) -> &'a FlushedCpus<'a, core::cell::Cell<u64>> {
        &self.vpids.flushed
    }

    /// Returns a vCPU's tags as the flush code sees them.
    pub(super) fn seen<'b>(&'b self, vcpu: &'b Vcpu) -> Seen<'b> {
        Seen {
            vcpu,
            config: &self.config,
            trees: &self.trees,
            bugs: self.bugs,
        }
    }

    /// Returns whether the Rust backend serves next.
    pub(super) fn is_rust(&mut self) -> bool {
        match self.backend {
            // The policy of generations has no exit handlers of its own, so Rust's handlers serve.
            Backend::Rust | Backend::Generations => true,
            Backend::C => false,
            Backend::Both => {
                self.turn = self.turn.wrapping_add(1);
                self.turn.is_multiple_of(2)
            }
        }
    }

    /// Allocates a VPID: `allocate_vpid()`.  The policy of generations assigns tags at VM entry.
    pub(super) fn take_vpid(&self) -> Option<Vpid> {
        if self.backend == Backend::Generations {
            return None;
        }
        let owned = self.config.vpid.then(|| OwnedVpid::alloc(self.vpids))??;
        Some(owned.into_foreign())
    }

    /// Frees a VPID: `free_vpid()`.
    pub(super) fn free(&self, vpid: Option<Vpid>) -> Result<(), Wrong> {
        if let Some(vpid) = vpid.filter(|_| self.backend != Backend::Generations) {
            OwnedVpid::from_foreign(self.vpids, vpid).free()?;
        }
        Ok(())
    }

    /// Checks that each VPID in use is held by exactly one vCPU.
    pub(super) fn check_vpids(&self) -> Result<(), Wrong> {
        if self.backend == Backend::Generations {
            return self.check_tags();
        }
        let mut held = 0;
        let vcpus = || self.vcpus.iter().filter(|vcpu| vcpu.alive);
        let vpids = || vcpus().flat_map(|vcpu| [vcpu.vpid01, vcpu.vpid02.filter(|_| vcpu.vmxon)]);
        for (at, vpid) in vpids().enumerate() {
            let Some(vpid) = vpid else { continue };
            held += 1;
            if vpids().skip(at + 1).any(|other| other == Some(vpid)) {
                return Err(Wrong::Double(vpid));
            }
        }
        if self.vpids.in_use() != held {
            return Err(Wrong::Leaked);
        }
        self.check_flushed()
    }

    /// Checks FlushedCpus: where a VPID is recorded as flushed, no entry of an earlier holder is
    /// left.
    ///
    /// C keeps no record, so nothing is checked while C serves.  With EPT on, nothing is checked
    /// either: an entry of an earlier holder under another EP4TA does no harm.
    pub(super) fn check_flushed(&self) -> Result<(), Wrong> {
        if self.config.ept || !self.vpids.is_rust() {
            return Ok(());
        }
        for (number, cpu) in (0..).zip(&self.cpus) {
            let wrong = cpu.find(|entry| {
                // Entries of another hypervisor do not count: FlushedCpus does not cover them.
                let vpid = entry.key.vpid.filter(|_| entry.reader != STRANGER)?;
                let mut vcpus = self.vcpus.iter();
                let holder = vcpus.find(|vcpu| {
                    let vpid02 = vcpu.vpid02.filter(|_| vcpu.vmxon);
                    [vcpu.vpid01, vpid02].contains(&Some(vpid))
                })?;
                let earlier = entry.reader / READERS as u32 != holder.life;
                (earlier && self.flushed().contains(vpid, number)).then_some(vpid)
            });
            if let Some(vpid) = wrong {
                return Err(Wrong::FlushedCpus(vpid));
            }
        }
        Ok(())
    }

    /// Returns the VPID that VM entry uses for a loaded vCPU.
    pub(super) fn entered_with(&self, vcpu: &Vcpu) -> Option<Vpid> {
        let seen = self.seen(vcpu);
        if seen.vpid() {
            seen.entered_with()
        } else {
            None
        }
    }
}
