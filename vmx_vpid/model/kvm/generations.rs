// SPDX-License-Identifier: GPL-2.0

//! This policy allocates a new tag instead of flushing.
//!
//! No kernel runs the policy.  The policy shows how much a better policy than KVM's could save, and
//! the same oracle checks it.
//!
//! Each CPU allocates VPIDs on its own, one after the other.  When no VPID is left, the CPU flushes
//! all VPIDs by one INVVPID and starts again with the first VPID: a new generation.  A vCPU only
//! has VPIDs of the CPU where it was entered last.  When the vCPU migrates to another CPU, or when
//! the guest's translations have to be flushed, the vCPU is entered with the next VPID of the CPU.
//! The entries of the old VPID are never used again, and are evicted in time.
//!
//! Guest-physical mappings have no VPID.  So the policy records when each tree of KVM's last
//! changed, and when each CPU last flushed the tree: if the change is later, an INVEPT of the
//! tree's context is due.

use super::{
    tables::{
        TreeId,
        TREES, //
    },
    vcpu::L2, //
};
use crate::{
    ept,
    flush::{
        execute::Invalidation,
        tags::ROOTS,
        Request, //
    },
    invvpid,
    model::{
        bug::Bug,
        machine::{
            Machine,
            Wrong,
            CPUS, //
        }, //
    },
    vpid::Vpid, //
};

/// A VPID, with the CPU that allocated it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tag {
    cpu: usize,
    generation: u32,
    vpid: Vpid,
}

/// The VPIDs of one CPU.
#[derive(Clone, Copy)]
struct Counter {
    generation: u32,
    /// The last allocated VPID; 0 for none.
    last: u16,
}

/// The state of the policy.
#[derive(Clone, Copy)]
pub(crate) struct Generations {
    cpus: [Counter; CPUS],
    /// The time: the number of changes of trees so far.
    clock: u32,
    /// When each tree was last changed; a tree in use was made at time 1 or later.
    changed: [u32; TREES],
    /// When each CPU last flushed each tree; 0 for never.
    dropped: [[u32; TREES]; CPUS],
}

impl Generations {
    /// Makes the state of a machine with nothing cached.
    pub(crate) fn new() -> Self {
        Self {
            cpus: [Counter {
                generation: 1,
                last: 0,
            }; CPUS],
            clock: 0,
            changed: [0; TREES],
            dropped: [[0; TREES]; CPUS],
        }
    }

    /// Records that a tree was made or changed: entries that CPUs have of the tree may be stale.
    pub(crate) fn note_change(&mut self, tree: usize) {
        self.clock += 1;
        self.changed[tree] = self.clock;
    }

    /// Records that a CPU was offline: its entries may be those of another hypervisor.
    pub(crate) fn note_offline(&mut self, cpu: usize) {
        self.dropped[cpu] = [0; TREES];
        let counter = &mut self.cpus[cpu];
        counter.generation += 1;
        counter.last = u16::MAX;
    }

    /// Returns whether a tag belongs to the current generation of a CPU.
    fn is_valid(&self, cpu: usize, tag: Option<Tag>) -> bool {
        tag.is_some_and(|tag| tag.cpu == cpu && tag.generation == self.cpus[cpu].generation)
    }

    /// Allocates the next tag of a CPU; `None` if the CPU has allocated `max` tags.
    fn take(&mut self, cpu: usize, max: u16) -> Option<Tag> {
        let Counter { generation, last } = &mut self.cpus[cpu];
        let vpid = Vpid::new(last.checked_add(1).filter(|&next| next <= max)?)?;
        *last = vpid.into_raw();
        Some(Tag {
            cpu,
            generation: *generation,
            vpid,
        })
    }

    /// Starts a new generation.
    fn begin(&mut self, cpu: usize) {
        let counter = &mut self.cpus[cpu];
        counter.generation += 1;
        counter.last = 0;
    }
}

impl Machine<'_> {
    /// Ensures at VM entry that a vCPU has VPIDs of the current generation of its CPU.
    pub(crate) fn tag(&mut self, id: usize) -> Result<(), Wrong> {
        let before = self.task.set_preemption_disabled(true);
        let result = self.tag_here(id);
        self.task.set_preemption_disabled(before);
        result
    }

    fn tag_here(&mut self, id: usize) -> Result<(), Wrong> {
        let cpu = self.task.cpu();
        // A vCPU can need two VPIDs.
        let max = self.config.vpids.max(2);
        let levels = if self.vcpus[id].vmxon { 2 } else { 1 };
        // The second VPID can start a new generation, which makes the first VPID invalid: check
        // both twice.
        for level in (0..levels).chain(0..levels) {
            if self.generations.is_valid(cpu, self.vcpus[id].tags[level]) {
                continue;
            }
            let tag = match self.generations.take(cpu, max) {
                Some(tag) => Some(tag),
                None => {
                    if !self.bugs.has(Bug::RolloverKeeps) {
                        Invalidation::Invvpid(invvpid::Extent::All).execute(self.here())?;
                    }
                    self.generations.begin(cpu);
                    self.generations.take(cpu, max)
                }
            };
            self.vcpus[id].tags[level] = tag;
        }
        let vcpu = &mut self.vcpus[id];
        [vcpu.vpid01, vcpu.vpid02] = vcpu.tags.map(|tag| tag.map(|tag| tag.vpid));
        Ok(())
    }

    /// Serves a request.
    pub(crate) fn renew(&mut self, id: usize, request: Request) -> Result<(), Wrong> {
        let before = self.task.set_preemption_disabled(true);
        let result = self.renew_here(id, request);
        self.task.set_preemption_disabled(before);
        result
    }

    fn renew_here(&mut self, id: usize, request: Request) -> Result<(), Wrong> {
        let cpu = self.task.cpu();
        let kept = self.bugs.has(Bug::TagKeptOnRequest);
        let vcpu = &self.vcpus[id];
        let level = usize::from(matches!(vcpu.l2, Some(L2 { vpid12: 1.., .. })));
        match request {
            // After a migration no tag of the vCPU is valid; INVEPT covers mappings without a VPID.
            Request::All if self.config.ept => {
                let mut trees = [None; ROOTS];
                for (slot, tree) in trees.iter_mut().zip(vcpu.trees()) {
                    *slot = Some(tree);
                }
                for tree in trees.into_iter().flatten() {
                    let number = usize::from(tree.0);
                    let known = &self.generations;
                    if known.dropped[cpu][number] < known.changed[number] {
                        self.drop_tree(cpu, tree)?;
                    }
                }
            }
            Request::All if !kept => self.vcpus[id].tags = [None; 2],
            Request::Current if self.config.ept => {
                if let Some(root) = vcpu.root() {
                    // The other CPUs have to flush the tree too, when the vCPU migrates there.
                    self.generations.note_change(root.tree.0.into());
                    self.drop_tree(cpu, root.tree)?;
                }
            }
            Request::Current | Request::Guest if !kept => self.vcpus[id].tags[level] = None,
            Request::All | Request::Current | Request::Guest => {}
            Request::Gva(gva) => {
                if let Some(vpid) = self.entered_with(vcpu) {
                    let extent = invvpid::Extent::Address(vpid, gva);
                    Invalidation::Invvpid(extent).execute(self.here())?;
                }
            }
        }
        Ok(())
    }

    /// Flushes a tree on a CPU, which has to be the current CPU.
    fn drop_tree(&mut self, cpu: usize, id: TreeId) -> Result<(), Wrong> {
        if let Some(tree) = self.tree(id) {
            let eptp = tree.root.eptp(self.config.accessed_dirty);
            Invalidation::Invept(ept::Extent::Context(eptp)).execute(self.here())?;
            self.generations.dropped[cpu][usize::from(id.0)] = self.generations.clock;
        }
        Ok(())
    }

    /// Checks that no two vCPUs have the same tag.
    pub(crate) fn check_tags(&self) -> Result<(), Wrong> {
        let tags = || self.vcpus.iter().flat_map(|vcpu| vcpu.tags).flatten();
        for (at, tag) in tags().enumerate() {
            if tags().skip(at + 1).any(|other| other == tag) {
                return Err(Wrong::Double(tag.vpid));
            }
        }
        Ok(())
    }
}
