// SPDX-License-Identifier: GPL-2.0

//! This module is the simulated machine: CPUs, VMs, vCPUs, VPIDs and the backend.

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

/// CPUs of a machine.
pub(super) const CPUS: usize = 2;
/// VMs on it, usually.
pub(super) const VMS: usize = 2;
/// vCPUs of a VM.
pub(super) const VCPUS_OF_VM: usize = 2;
/// vCPUs of all VMs together, usually.
pub(super) const VCPUS: usize = VMS * VCPUS_OF_VM;

/// How a machine is set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Config {
    /// Guests run on EPT.
    pub(crate) ept: bool,
    /// Guests run with VPIDs.
    pub(crate) vpid: bool,
    /// The CPU keeps accessed and dirty flags in EPTs.
    pub(crate) accessed_dirty: bool,
    /// There are PCIDs, and guests begin with CR4.PCIDE set.
    pub(crate) pcids: bool,
    /// KVM keeps no page for every second root.
    pub(crate) unknown_roots: bool,
    /// Who answers requests at first.
    pub(crate) backend: Backend,
    /// How many VPIDs there are; for generations of tags, on each CPU.
    pub(crate) vpids: u16,
    /// How many VMs there can be at once, of two vCPUs each.
    pub(crate) vms: u8,
    /// How many entries a CPU keeps; usually more than a run of a few hundred steps gets cached.
    pub(crate) room: u16,
    /// Which ways a CPU goes to a page.
    pub(crate) ways: Ways,
    /// What the user has switched; what is masked the CPU lacks.
    pub(crate) switches: Switches,
}

impl Config {
    /// The usual machine.
    pub(crate) fn usual(ept: bool) -> Self {
        Self {
            ept,
            vpid: true,
            accessed_dirty: true,
            pcids: true,
            unknown_roots: false,
            backend: Backend::Rust,
            vpids: 6,
            // CAST: There are two.
            vms: VMS as u8,
            room: 256,
            ways: Ways::All,
            switches: Switches::default(),
        }
    }
}

/// Which ways a CPU goes to a page, from the root or from entries of paging structures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ways {
    /// All there are, whatever it has cached: in search of a missing flush.
    All,
    /// The shortest, and none where it has the page's translation: to count what that takes.
    Shortest,
}

/// Who answers KVM's requests and handles exits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Backend {
    /// The code of the kernel module.
    Rust,
    /// KVM's own policy.
    C,
    /// Both, by turns: an attach or a detach is under way.
    Both,
    /// A policy of the model's own, that gives out new tags in the place of flushes:
    /// [`super::kvm::generations`].
    Generations,
}

/// What must not be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wrong {
    /// A guest could use a translation that is not to be used any more: an entry of a CPU's caches.
    Stale {
        /// The number of the CPU.
        cpu: u8,
        /// Which of its entries it is.
        entry: u16,
        /// What is wrong with it.
        how: Stale,
    },
    /// A guest would run on an entry of KVM's tables that is not to be used any more.
    StaleTable {
        /// The page, or the guest's frame, that the entry is for.
        number: u16,
        /// What is wrong with it.
        how: Stale,
    },
    /// A guest would run on tables that KVM made for another mode.
    OtherMode,
    /// A guest would run with a VPID that was not flushed on the CPU since it was taken.
    Dirty(Vpid),
    /// A VPID is recorded as clean on a CPU that has something of an earlier holder's.
    Record(Vpid),
    /// Two vCPUs have the same VPID.
    Double(Vpid),
    /// Every form of an invalidation failed.
    FlushFailed,
    /// A VPID was freed that nobody held.
    NotAllocated,
    /// VPIDs in use that no vCPU holds.
    Leaked,
    /// The two walks through a guest's tables do not agree.
    WalksDiffer,
    /// A vCPU does not come to run.
    Stuck,
    /// The test itself ran out of memory.
    Memory,
}

/// What is wrong with an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stale {
    /// KVM's tables do not say it any more.
    Host,
    /// The guest's tables do not say it any more, and the guest dropped it.
    Guest,
    /// The tables never gave it to this guest: it was read for another one.
    Foreign,
    /// L1's EPT does not say it any more, and L1 dropped it.
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

/// All there is.
///
/// The vCPUs 0 and 1 belong to VM 0, the vCPUs 2 and 3 to VM 1, and so on.
pub(crate) struct Machine<'a> {
    pub(super) config: Config,
    pub(super) bugs: Bugs,
    pub(super) policy: Policy,
    pub(super) backend: Backend,
    /// Counts what is done while both serve, so that they take turns.
    pub(super) turn: u32,
    pub(super) cpus: [Cpu; CPUS],
    /// Works for one vCPU at a time, from the beginning of a step to its end.
    pub(super) task: Task,
    pub(super) vpids: &'a Vpids<'a>,
    /// In memory of their own, like the trees: a kernel's stack is small.
    pub(super) vcpus: KVVec<Vcpu>,
    pub(super) trees: KVVec<Option<Tree>>,
    pub(super) tables: Tables,
    pub(super) memories: KVVec<Memory>,
    /// What [`Backend::Generations`] knows.
    pub(super) generations: Generations,
    /// What was counted.
    pub(super) cost: Cost,
    /// The time, in things that guests did.
    pub(super) now: u32,
    /// How many vCPUs there ever were.
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

    /// Makes it what another one is, that was set up alike.
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

    /// Makes it a machine without VMs again, whatever happened.
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

    /// Returns an entry of a CPU's caches, in the form of a counterexample.
    pub(crate) fn cached(&self, cpu: u8, entry: u16) -> Option<super::cpu::tlb_entry::TlbEntry> {
        self.cpus.get(usize::from(cpu))?.entry(entry.into())
    }

    /// Returns how many entries went for want of room, since the machine was made.
    pub(crate) fn evicted(&self) -> u64 {
        self.cpus.iter().map(Cpu::evicted).sum()
    }

    /// Returns how many translations all CPUs have cached of a vCPU's own.
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

    /// Returns where an invalidation is executed.
    pub(super) fn here(&self) -> Here<'_> {
        Here {
            cpus: &self.cpus,
            task: &self.task,
            flushed: self.flushed(),
            bugs: self.bugs,
        }
    }

    /// Returns the record.
    pub(super) fn flushed(&self) -> &'a FlushedCpus<'a, core::cell::Cell<u64>> {
        &self.vpids.flushed
    }

    /// Returns a vCPU as a flush sees it.
    pub(super) fn seen<'b>(&'b self, vcpu: &'b Vcpu) -> Seen<'b> {
        Seen {
            vcpu,
            config: &self.config,
            trees: &self.trees,
            bugs: self.bugs,
        }
    }

    /// Whether it is Rust's turn.
    pub(super) fn is_rust(&mut self) -> bool {
        match self.backend {
            // The policy of generations has no handlers of its own.
            Backend::Rust | Backend::Generations => true,
            Backend::C => false,
            Backend::Both => {
                self.turn = self.turn.wrapping_add(1);
                self.turn.is_multiple_of(2)
            }
        }
    }

    /// Takes a VPID as a number: `allocate_vpid()`.  A tag of a generation is taken at VM entry.
    pub(super) fn take_vpid(&self) -> Option<Vpid> {
        if self.backend == Backend::Generations {
            return None;
        }
        let owned = self.config.vpid.then(|| OwnedVpid::alloc(self.vpids))??;
        Some(owned.into_foreign())
    }

    /// Gives one back by its number: `free_vpid()`.
    pub(super) fn free(&self, vpid: Option<Vpid>) -> Result<(), Wrong> {
        if let Some(vpid) = vpid.filter(|_| self.backend != Backend::Generations) {
            OwnedVpid::from_foreign(self.vpids, vpid).free()?;
        }
        Ok(())
    }

    /// Checks that the VPIDs in use are those that vCPUs hold, each held once.
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
        self.check_record()
    }

    /// Checks that where a VPID is recorded as clean, nothing of an earlier holder's is left that
    /// the one of now could use: with EPT off, nothing at all.
    ///
    /// While C serves it keeps no record; with EPT on, what is left of a VPID under another EP4TA
    /// does no harm.
    pub(super) fn check_record(&self) -> Result<(), Wrong> {
        if self.config.ept || !self.vpids.is_rust() {
            return Ok(());
        }
        for (number, cpu) in (0..).zip(&self.cpus) {
            let wrong = cpu.find(|entry| {
                // What some other hypervisor left is nothing that the record tells of.
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
                return Err(Wrong::Record(vpid));
            }
        }
        Ok(())
    }

    /// The VPID of a vCPU that is loaded, as VM entry uses it.
    pub(super) fn entered_with(&self, vcpu: &Vcpu) -> Option<Vpid> {
        let seen = self.seen(vcpu);
        if seen.vpid() {
            seen.entered_with()
        } else {
            None
        }
    }
}
