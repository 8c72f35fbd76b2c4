// SPDX-License-Identifier: GPL-2.0

//! This module models KVM's core as far as KVM requests flushes: vCPUs are created, migrate, load
//! roots and are entered.
//!
//! Each function names its equivalent in KVM.  Functions of KVM without an equivalent here request
//! no flush.

use super::{
    c_flush,
    tables::{
        Role,
        Tree,
        TreeId, //
    },
    vcpu::{
        Kept,
        Pending,
        Vcpu,
        READERS, //
    }, //
};
use crate::{
    flush::{
        execute::FlushFailed,
        flush_fast,
        flush_slow,
        takes_fast_path,
        Request, //
    },
    model::{
        bug::Bug,
        cpu::{
            context::Context,
            tlb_entry::Drop, //
        },
        guest::{
            control_regs::Controls,
            invalidated::Invalidated, //
        },
        machine::{
            Backend,
            Machine,
            Wrong, //
        }, //
    }, //
};

/// The greatest number of rounds before a VM entry; a vCPU that needs more is stuck.
const PATIENCE: u32 = 16;

impl Machine<'_> {
    /// Creates a vCPU: `vmx_vcpu_create()`.
    pub(crate) fn create(&mut self, id: usize) {
        if self.vcpus[id].alive {
            return;
        }
        self.lives += 1;
        self.now += 1;
        let loaded_before = self.bugs.has(Bug::NoFlushOnCreate);
        self.vcpus[id] = Vcpu {
            alive: true,
            life: self.lives,
            vpid01: self.take_vpid(),
            vmcs: [loaded_before.then_some(0), None],
            invalidated: [Invalidated::from(self.now); READERS],
            ept12_dropped: [self.now; 2],
            controls: [Controls::usual(&self.config); 2],
            ..Vcpu::default()
        };
    }

    /// Destroys a vCPU: `vmx_vcpu_free()`; the last vCPU of a VM destroys the VM.
    pub(crate) fn destroy(&mut self, id: usize) -> Result<(), Wrong> {
        let vcpu = &self.vcpus[id];
        if !vcpu.alive {
            return Ok(());
        }
        let (vpid01, vpid02) = (vcpu.vpid01, vcpu.vpid02.filter(|_| vcpu.vmxon));
        self.vcpus[id] = Vcpu::default();
        self.free(vpid01)?;
        self.free(vpid02)?;
        self.sweep();
        if !self.vcpus[id ^ 1].alive {
            // No flush is needed: the VM has no vCPU left that could use the entries.
            for number in 0..self.trees.len() {
                if let Some(tree) = self.trees[number].filter(|tree| tree.vm == id / 2) {
                    self.trees[number] = None;
                    tree.free_table(&mut self.tables, tree.root, 4);
                }
            }
            self.memories[id / 2].renew();
        }
        Ok(())
    }

    /// Takes a CPU offline and online again, after another hypervisor ran there:
    /// `vmx_disable_virtualization_cpu()`, which clears each VMCS that was loaded on the CPU.
    pub(crate) fn replug(&mut self, cpu: usize) {
        if !self.bugs.has(Bug::VmcsKeptOffline) {
            for vmcs in self.vcpus.iter_mut().flat_map(|vcpu| &mut vcpu.vmcs) {
                *vmcs = vmcs.filter(|&on| on != cpu);
            }
        }
        self.generations.note_offline(cpu);
        self.cpus[cpu].estrange();
    }

    /// Serves a flush request; the task may migrate before, during and after the flush.
    pub(crate) fn flush(&mut self, id: usize, request: Request) -> Result<(), Wrong> {
        let rust = self.is_rust();
        match request {
            Request::Current if self.bugs.has(Bug::CurrentIgnored) => {}
            Request::Guest if self.bugs.has(Bug::GuestIgnored) => {}
            _ if self.backend == Backend::Generations => self.renew(id, request)?,
            _ if rust => self.flush_by_rust(id, request)?,
            _ => self.flush_by_c(id, request)?,
        }
        if self.task.has_moved_at_all() {
            self.check_flushed()?;
        }
        self.follow(id);
        Ok(())
    }

    /// Serves a flush request by the code of vmx_vpid.ko.
    // Not inlined, because each backend has a large stack frame of its own.
    #[inline(never)]
    fn flush_by_rust(&self, id: usize, request: Request) -> Result<(), FlushFailed> {
        let seen = self.seen(&self.vcpus[id]);
        if takes_fast_path(request, self.policy) && flush_fast(request, &seen, self.here()) {
            return Ok(());
        }
        flush_slow(request, &seen, self.policy, self.here())
    }

    /// Serves a flush request by the model of KVM's C code.
    #[inline(never)]
    fn flush_by_c(&self, id: usize, request: Request) -> Result<(), FlushFailed> {
        let seen = self.seen(&self.vcpus[id]);
        c_flush::flush(request, &seen, self.config.switches, self.here())
    }

    /// Loads a vCPU on the CPU to which its task migrated: KVM's preempt notifier.
    pub(crate) fn follow(&mut self, id: usize) {
        if self.task.has_moved() {
            let level = self.vcpus[id].level();
            self.vcpus[id].vmcs[level] = None;
            self.load(id);
        }
    }

    /// Loads the VMCS in use on the task's CPU: `vmx_vcpu_load_vmcs()`.
    pub(crate) fn load(&mut self, id: usize) {
        let cpu = self.task.cpu();
        let vcpu = &mut self.vcpus[id];
        let level = vcpu.level();
        let flush = match level {
            0 => !self.bugs.has(Bug::NoFlushOnLoad),
            _ => !self.bugs.has(Bug::NoFlushOnLoadOfVmcs02),
        };
        if vcpu.vmcs[level].replace(cpu) != Some(cpu) && flush {
            vcpu.pending.all = true;
        }
    }

    /// Serves the requests that depend on the vCPU's mode:
    /// `kvm_service_local_tlb_flush_requests()`.
    pub(crate) fn serve_local(&mut self, id: usize) -> Result<(), Wrong> {
        let Pending { current, guest, .. } = self.vcpus[id].pending;
        self.vcpus[id].pending.current = false;
        self.vcpus[id].pending.guest = false;
        if current {
            self.flush(id, Request::Current)?;
        }
        if guest {
            // kvm_vcpu_flush_tlb_guest(): with shadow paging, also synchronise KVM's tables.
            if !self.config.ept && !self.bugs.has(Bug::NoSyncOnGuestFlush) {
                let roots = self.vcpus[id].mmus[self.vcpus[id].mmu()];
                for root in roots.0.into_iter().flatten() {
                    self.sync_root(root);
                }
            }
            self.flush(id, Request::Guest)?;
        }
        Ok(())
    }

    /// Synchronises a root: `kvm_mmu_sync_root()`.
    fn sync_root(&mut self, root: Kept) {
        if let Some(tree) = self.tree(root.tree) {
            self.synchronise(tree, None);
        }
    }

    /// Returns whether a vCPU of a VM can run on a root: `is_root_usable()`.
    fn fits(&self, vm: usize, root: Kept, (role, pgd): (Role, u64)) -> bool {
        let tree = self.tree(root.tree);
        let pgd = pgd == root.pgd || self.bugs.has(Bug::RootOfAnyPgd);
        pgd && tree.is_some_and(|it| it.vm == vm && it.role == role && !it.obsolete)
    }

    /// Switches to the root that the vCPU now needs: `kvm_mmu_new_pgd()`.
    pub(crate) fn new_root(&mut self, id: usize) {
        let wanted = self.vcpus[id].wanted(&self.config);
        let mmu = self.vcpus[id].mmu();
        let mut roots = self.vcpus[id].mmus[mmu];
        roots.switch(|root| self.fits(id / 2, root, wanted));
        self.vcpus[id].mmus[mmu] = roots;
    }

    /// Loads a root if the vCPU has none: `kvm_mmu_load()`.
    fn load_root(&mut self, id: usize) -> Result<(), Wrong> {
        let mmu = self.vcpus[id].mmu();
        if self.vcpus[id].root().is_some() {
            return Ok(());
        }
        let (role, pgd) = self.vcpus[id].wanted(&self.config);
        let vm = id / 2;
        let shared = (0..self.trees.len()).find(|&number| {
            self.trees[number].is_some_and(|it| it.vm == vm && it.role == role && !it.obsolete)
        });
        let number = match shared {
            Some(number) => number,
            None => self.new_tree(vm, role)?,
        };
        // CAST: `TREES` is below 256.
        let tree = TreeId(number as u8);
        let root = Kept { tree, pgd };
        if self.bugs.has(Bug::FlushBeforeRoot) {
            self.flush(id, Request::Current)?;
        }
        self.vcpus[id].mmus[mmu].0[0] = Some(root);
        if !self.bugs.has(Bug::NoSyncOnRootLoad) {
            self.sync_root(root);
        }
        if self.bugs.has(Bug::NoFlushOnRootLoad) || self.bugs.has(Bug::FlushBeforeRoot) {
            return Ok(());
        }
        self.flush(id, Request::Current)
    }

    /// Makes an empty tree, in the free slot and table with the lowest number; frees an unused tree
    /// if there is none.
    fn new_tree(&mut self, vm: usize, role: Role) -> Result<usize, Wrong> {
        loop {
            let place = self.trees.iter().position(Option::is_none);
            if let (Some(number), Some(root)) = (place, self.tables.take()) {
                self.trees[number] = Some(Tree {
                    vm,
                    role,
                    root,
                    obsolete: false,
                });
                self.generations.note_change(number);
                return Ok(number);
            }
            let idle = (0..self.trees.len())
                .find(|&number| self.trees[number].is_some() && !self.is_kept(number));
            self.free_tree(idle.ok_or(Wrong::Memory)?);
        }
    }

    /// Loads a vCPU on a CPU; the task migrates after `patience` preemption points (0 for never).
    /// Returns whether the vCPU exists.
    pub(crate) fn put(&mut self, id: usize, cpu: usize, patience: u8) -> bool {
        if !self.vcpus[id].alive {
            return false;
        }
        self.task.put_on(cpu, patience);
        self.load(id);
        true
    }

    /// Prepares the VM entry as KVM does, and enters the guest: `vcpu_enter_guest()`.
    pub(crate) fn enter(&mut self, id: usize) -> Result<Context, Wrong> {
        for _ in 0..PATIENCE {
            let trees = &self.trees;
            let obsolete =
                |root: Kept| trees[usize::from(root.tree.0)].is_none_or(|it| it.obsolete);
            for mmu in &mut self.vcpus[id].mmus {
                mmu.keep(|root| !obsolete(root));
            }
            if self.vcpus[id].pending.sync {
                self.vcpus[id].pending.sync = false;
                if let Some(root) = self.vcpus[id].root() {
                    self.sync_root(root);
                }
            }
            if self.vcpus[id].pending.all {
                self.vcpus[id].pending.all = false;
                if !self.bugs.has(Bug::AllKeepsCurrent) {
                    self.vcpus[id].pending.current = false;
                }
                self.flush(id, Request::All)?;
            }
            self.serve_local(id)?;
            self.load_root(id)?;
            // KVM checks the requests again with interrupts off: none is pending when the guest
            // runs.
            if !self.vcpus[id].pending.any() || self.bugs.has(Bug::PendingAtEntry) {
                return self.entered(id);
            }
        }
        Err(Wrong::Stuck)
    }

    /// Enters the guest: checks the VPID and the root, and runs the oracle.
    fn entered(&mut self, id: usize) -> Result<Context, Wrong> {
        if self.backend == Backend::Generations {
            self.tag(id)?;
        }
        let cpu = self.task.cpu();
        let vcpu = &self.vcpus[id];
        let vpid = self.entered_with(vcpu);
        // CAST: There are two CPUs.
        let number = cpu as u32;
        match vpid {
            None => self.cpus[cpu].drop(Drop::Crossing),
            Some(vpid) if !self.flushed().contains(vpid, number) => {
                // FlushedCpus does not record the flushes of C.
                if self.backend == Backend::Rust && !self.vpids.is_mixed() {
                    return Err(Wrong::Dirty(vpid));
                }
            }
            Some(_) => {}
        }
        let root = vcpu.root().ok_or(Wrong::Stuck)?;
        let tree = self.tree(root.tree).ok_or(Wrong::Stuck)?;
        if tree.role != vcpu.wanted(&self.config).0 {
            return Err(Wrong::OtherMode);
        }
        let context = Context {
            id,
            cpu,
            vpid,
            pcid: vcpu.registers().pcid(vcpu.cr4()),
            tree,
            root: vcpu.table(),
            reader: vcpu.reader(),
            reader_index: vcpu.reader_index(),
            ept12: vcpu.ept12(),
        };
        self.cost.judged += self.cpus[cpu].count(|_| true) as u64;
        self.check(&context)?;
        Ok(context)
    }

    /// Exits from the guest.
    pub(crate) fn exited(&self, context: &Context) {
        if context.vpid.is_none() {
            self.cpus[context.cpu].drop(Drop::Crossing);
        }
    }
}
