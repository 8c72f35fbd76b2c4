// SPDX-License-Identifier: GPL-2.0

//! KVM's core as far as it asks for flushes: vCPUs move, roots and memory change.
//!
//! Each function names the one of KVM that it answers to.  What is not said here asks for nothing.

use super::{
    tlb::{
        Cpu,
        Here,
        Key,
        Task, //
    },
    vcpu::{
        ep4ta,
        Config,
        Fault,
        Pending,
        Seen,
        Vcpu, //
    }, //
};
use crate::{
    bitmap::NotHeld,
    caps::EptVpidCap,
    flush::{
        answer,
        Request, //
    },
    invvpid::Vpid,
    issue::Lost,
    lease::{
        Flushed,
        Lease,
        Source, //
    },
    policy::Policy,
    vpid::Pool, //
};
use core::cell::Cell;
use kernel::prelude::*;

/// CPUs of a machine.
pub(super) const CPUS: usize = 2;
/// VMs on it.
pub(super) const VMS: usize = 2;
/// vCPUs of all VMs together.
pub(super) const VCPUS: usize = 4;
/// Pages of a VM.
pub(super) const PAGES: usize = 2;
/// As many as there can be at once: all that each vCPU can keep, and the one that it loads.
const TABLES: usize = VCPUS * 9;

/// What a page translates to; equal ones are the same translation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mapping {
    /// The page of the host's, of which each is used once.
    frame: u32,
    /// The tables that say so: L2's or not, and which of them.
    role: (bool, u8),
    /// The page tables of L2; 0 for L1, and for what the guest's own tables have no part in.
    space: u32,
}

/// The tables that a VM's pages are translated by.
#[derive(Clone, Copy)]
struct Table {
    vm: usize,
    role: (bool, u8),
    obsolete: bool,
}

/// What must not be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wrong {
    /// A guest could use a translation that its tables do not give.
    Stale { key: Key, cached: Mapping },
    /// A guest would run with a VPID that was not flushed on the CPU since it was taken.
    Dirty(Vpid),
    /// Every form of an invalidation failed.
    Lost,
    /// A VPID was freed that nobody held.
    NotHeld,
    /// The test itself ran out of memory.
    Memory,
}

impl From<Lost> for Wrong {
    fn from(_: Lost) -> Self {
        Self::Lost
    }
}

impl From<NotHeld> for Wrong {
    fn from(_: NotHeld) -> Self {
        Self::NotHeld
    }
}

impl From<Error> for Wrong {
    fn from(_: Error) -> Self {
        Self::Memory
    }
}

/// The pool with its record, taken and given back as in the kernel.
pub(super) struct Vpids<'a> {
    /// There whenever nobody works on it, as if it had a lock.
    pub(super) pool: Cell<Option<KVBox<Pool>>>,
    pub(super) flushed: Flushed<'a, Cell<u64>>,
}

impl Vpids<'_> {
    /// Works on the pool.
    fn with<R>(&self, work: impl FnOnce(&mut Pool) -> R) -> Option<R> {
        let mut pool = self.pool.take()?;
        let result = work(&mut pool);
        self.pool.set(Some(pool));
        Some(result)
    }
}

impl Source for Vpids<'_> {
    fn take(&self) -> Option<Vpid> {
        let taken = self.with(Pool::acquire)??;
        Some(self.flushed.forget(taken))
    }

    fn give_back(&self, vpid: Vpid) -> Result<(), NotHeld> {
        self.with(|pool| pool.release(vpid)).unwrap_or(Err(NotHeld))
    }
}

/// All there is: CPUs, VMs with their memory and tables, vCPUs, VPIDs.
///
/// The vCPUs 0 and 1 belong to VM 0, the vCPUs 2 and 3 to VM 1.
pub(super) struct Machine<'a> {
    pub(super) config: Config,
    policy: Policy,
    cpus: [Cpu<Mapping>; CPUS],
    /// Works for one vCPU at a time, from the beginning of a step to its end.
    pub(super) task: Task,
    vpids: &'a Vpids<'a>,
    vcpus: [Option<Vcpu>; VCPUS],
    tables: [Option<Table>; TABLES],
    frames: [[u32; PAGES]; VMS],
    /// The last number that was given to a page or an address space.
    last: u32,
}

impl<'a> Machine<'a> {
    /// Makes a machine without VMs.
    pub(super) fn new(config: Config, vpids: &'a Vpids<'a>) -> Self {
        let full = EptVpidCap::from(u64::MAX);
        let caps = EptVpidCap::from(!config.switches.caps_mask);
        Self {
            config,
            policy: config.switches.policy(full),
            cpus: [Cpu::new(caps), Cpu::new(caps)],
            task: Task::new(!config.preempted),
            vpids,
            vcpus: [None; VCPUS],
            tables: [None; TABLES],
            // No two pages are one.
            frames: [[1, 2], [3, 4]],
            last: 4,
        }
    }

    /// Whether something is broken.
    pub(super) fn broken(&self, fault: Fault) -> bool {
        self.config.fault == Some(fault)
    }

    /// A number that was never used.
    pub(super) fn fresh(&mut self) -> u32 {
        self.last += 1;
        self.last
    }

    /// Returns a vCPU, if it is there.
    pub(super) fn vcpu(&self, id: usize) -> Option<&Vcpu> {
        self.vcpus[id].as_ref()
    }

    /// Returns a CPU.
    pub(super) fn cpu(&self, cpu: usize) -> &Cpu<Mapping> {
        &self.cpus[cpu]
    }

    /// Takes a VPID as a number: `allocate_vpid()`.
    pub(super) fn take_vpid(&self) -> Option<Vpid> {
        let lease = self.config.vpid.then(|| Lease::take(self.vpids))??;
        Some(lease.lend())
    }

    /// Gives one back by its number: `free_vpid()`.
    pub(super) fn give_back(&self, vpid: Option<Vpid>) -> Result<(), Wrong> {
        if let Some(vpid) = vpid {
            Lease::redeem(self.vpids, vpid).end()?;
        }
        Ok(())
    }

    /// Creates a vCPU: `vmx_vcpu_create()`.
    pub(super) fn create(&mut self, id: usize) {
        if self.vcpus[id].is_none() {
            let loaded_before = self.broken(Fault::NoFlushOnCreate);
            self.vcpus[id] = Some(Vcpu {
                vpid01: self.take_vpid(),
                vmcs: [loaded_before.then_some(0), None],
                ..Vcpu::default()
            });
        }
    }

    /// Destroys a vCPU: `vmx_vcpu_free()`; the last one takes its VM along.
    pub(super) fn destroy(&mut self, id: usize) -> Result<(), Wrong> {
        let Some(vcpu) = self.vcpus[id].take() else {
            return Ok(());
        };
        self.give_back(vcpu.vpid01)?;
        self.give_back(vcpu.vpid02.filter(|_| vcpu.vmxon))?;
        self.sweep();
        if self.vcpus[id ^ 1].is_none() {
            for page in 0..PAGES {
                self.frames[id / 2][page] = self.fresh();
            }
        }
        Ok(())
    }

    /// Frees the tables that no vCPU keeps.
    ///
    /// They are not flushed: whoever gets the page loads it as a root first.
    fn sweep(&mut self) {
        for (number, table) in self.tables.iter_mut().enumerate() {
            let mut vcpus = self.vcpus.iter().flatten();
            if !vcpus.any(|vcpu| vcpu.roots().any(|root| root == number)) {
                *table = None;
            }
        }
    }

    /// Answers a flush; the task may be moved before, meanwhile and after.
    fn flush(&self, vcpu: &mut Vcpu, request: Request) -> Result<(), Wrong> {
        let here = Here {
            cpus: &self.cpus,
            task: &self.task,
            flushed: &self.vpids.flushed,
        };
        let config = &self.config;
        answer(request, &Seen { vcpu, config }, self.policy, here)?;
        // The preempt notifier loads the vCPU wherever the task comes to.
        if self.task.has_moved() {
            vcpu.vmcs[vcpu.level()] = None;
            self.load(vcpu);
        }
        Ok(())
    }

    /// Loads the VMCS in use on the task's CPU: `vmx_vcpu_load_vmcs()`.
    pub(super) fn load(&self, vcpu: &mut Vcpu) {
        let cpu = self.task.cpu();
        let here = &mut vcpu.vmcs[vcpu.level()];
        if here.replace(cpu) != Some(cpu) && !self.broken(Fault::NoFlushOnLoad) {
            vcpu.pending.all = true;
        }
    }

    /// Serves what depends on the vCPU's mode: `kvm_service_local_tlb_flush_requests()`.
    pub(super) fn serve_local(&self, vcpu: &mut Vcpu) -> Result<(), Wrong> {
        let Pending { current, guest, .. } = vcpu.pending;
        (vcpu.pending.current, vcpu.pending.guest) = (false, false);
        if current {
            self.flush(vcpu, Request::Current)?;
        }
        if guest {
            self.flush(vcpu, Request::Guest)?;
        }
        Ok(())
    }

    /// The tables that a vCPU has to run on as it stands.
    fn role(vcpu: &Vcpu) -> (bool, u8) {
        (vcpu.l2.is_some(), vcpu.variants[vcpu.level()])
    }

    /// Whether a table is what a vCPU of a VM has to run on.
    fn fits(&self, table: usize, vm: usize, role: (bool, u8)) -> bool {
        self.tables[table].is_some_and(|it| it.vm == vm && it.role == role && !it.obsolete)
    }

    /// Turns to the tables that the vCPU now needs: `kvm_mmu_new_pgd()`.
    pub(super) fn new_root(&self, id: usize, vcpu: &mut Vcpu) {
        let role = Self::role(vcpu);
        let mmu = vcpu.mmu();
        vcpu.mmus[mmu].switch(|table| self.fits(table, id / 2, role));
    }

    /// Loads a root if there is none: `kvm_mmu_load()`.
    fn load_root(&mut self, id: usize, vcpu: &mut Vcpu) -> Result<(), Wrong> {
        if vcpu.root().is_some() {
            return Ok(());
        }
        let (vm, role) = (id / 2, Self::role(vcpu));
        let shared = (0..TABLES).find(|&table| self.fits(table, vm, role));
        // A page that was freed is taken again as soon as can be, by whichever VM.
        let free = || self.tables.iter().position(Option::is_none);
        let table = shared.or_else(free).ok_or(Wrong::Memory)?;
        self.tables[table] = Some(Table {
            vm,
            role,
            obsolete: false,
        });
        vcpu.mmus[vcpu.mmu()].0[0] = Some(table);
        if self.broken(Fault::NoFlushOnRootLoad) {
            return Ok(());
        }
        self.flush(vcpu, Request::Current)
    }

    /// Works on a vCPU that a task has loaded on a CPU.
    pub(super) fn with(
        &mut self,
        id: usize,
        cpu: usize,
        work: impl FnOnce(&mut Self, &mut Vcpu) -> Result<(), Wrong>,
    ) -> Result<(), Wrong> {
        let Some(mut vcpu) = self.vcpus[id] else {
            return Ok(());
        };
        self.task.put_on(cpu);
        self.load(&mut vcpu);
        work(self, &mut vcpu)?;
        self.vcpus[id] = Some(vcpu);
        self.sweep();
        Ok(())
    }

    /// Runs a vCPU, which uses some pages (a mask): `vcpu_enter_guest()`.
    pub(super) fn run(&mut self, id: usize, cpu: usize, pages: u64) -> Result<(), Wrong> {
        self.with(id, cpu, |this, vcpu| {
            let obsolete = |table: usize| this.tables[table].is_some_and(|it| it.obsolete);
            for mmu in &mut vcpu.mmus {
                mmu.keep(|table| !obsolete(table));
            }
            loop {
                if vcpu.pending.all {
                    vcpu.pending.all = false;
                    vcpu.pending.current = false;
                    this.flush(vcpu, Request::All)?;
                }
                this.serve_local(vcpu)?;
                this.load_root(id, vcpu)?;
                // With interrupts off it looks again: nothing is pending when the guest runs.
                if !vcpu.pending.any() {
                    return this.guest(id, vcpu, pages);
                }
            }
        })
    }

    /// Is in the guest, on the hardware.
    fn guest(&self, id: usize, vcpu: &Vcpu, pages: u64) -> Result<(), Wrong> {
        let cpu = self.task.cpu();
        let Some(root) = vcpu.root() else {
            return Ok(());
        };
        let config = &self.config;
        let vpid = Seen { vcpu, config }.entered_with();
        let cpu_number = cpu as u32;
        match vpid {
            None => self.cpus[cpu].cross_without_vpid(),
            Some(vpid) if !self.vpids.flushed.contains(vpid, cpu_number) => {
                return Err(Wrong::Dirty(vpid));
            }
            Some(_) => {}
        }
        for page in 0..PAGES {
            let own = Mapping {
                frame: self.frames[id / 2][page],
                role: Self::role(vcpu),
                space: vcpu.l2.map_or(0, |l2| l2.space),
            };
            let number = page as u64;
            let of_tables = Mapping { space: 0, ..own };
            let keys = if self.config.ept {
                let tag = ep4ta(root);
                [
                    Some((Key::Combined(vpid, tag, number), own)),
                    Some((Key::GuestPhysical(tag, number), of_tables)),
                ]
            } else {
                [Some((Key::Linear(vpid, number), own)), None]
            };
            for (key, mapping) in keys.into_iter().flatten() {
                match self.cpus[cpu].hit(key) {
                    Some(cached) if cached != mapping => return Err(Wrong::Stale { key, cached }),
                    _ if pages >> page & 1 == 1 => self.cpus[cpu].fill(key, mapping)?,
                    _ => {}
                }
            }
        }
        if vpid.is_none() {
            self.cpus[cpu].cross_without_vpid();
        }
        Ok(())
    }

    /// Changes what a VM's page translates to, in all its tables: `kvm_flush_remote_tlbs()`.
    pub(super) fn edit(&mut self, vm: usize, page: usize) {
        self.frames[vm][page] = self.fresh();
        if self.broken(Fault::NoRemoteFlush) {
            return;
        }
        for vcpu in self.vcpus[2 * vm..][..2].iter_mut().flatten() {
            vcpu.pending.all = true;
        }
    }

    /// Gives up all tables of a VM: `kvm_mmu_zap_all_fast()`.
    ///
    /// Its vCPUs let go of them before they run on.
    pub(super) fn zap(&mut self, vm: usize) {
        for table in self.tables.iter_mut().flatten() {
            table.obsolete |= table.vm == vm;
        }
    }

    /// L1 changes its tables: by MOV CR3 with EPT off, by its mode with EPT on.
    pub(super) fn set_variant(&mut self, id: usize, cpu: usize, variant: u8) -> Result<(), Wrong> {
        self.with(id, cpu, |this, vcpu| {
            if vcpu.l2.is_none() {
                vcpu.variants[0] = variant;
                vcpu.pending.current |= !this.config.ept && !this.broken(Fault::NoFlushOnCr3);
                this.new_root(id, vcpu);
            }
            Ok(())
        })
    }
}
