// SPDX-License-Identifier: GPL-2.0

//! This module is a policy that no kernel has: a new tag takes the place of a flush.
//!
//! It shows what a better policy than KVM's would be worth, and the same oracle judges it.
//!
//! Each CPU allocates VPIDs by itself, one after the other.  When none is left, one INVVPID drops
//! the mappings of all, and the CPU starts again: that is a generation.  A vCPU has VPIDs of the
//! CPU where it was last entered, and of no other.  If it moves to another CPU, or has to lose its
//! guest's translations, it is entered with the next VPID there.  The mappings of the old VPID are
//! never used again, and are evicted in time.
//!
//! Guest-physical mappings have no VPID. So the policy records when each tree of KVM was last
//! changed, and when each CPU last dropped its mappings of the tree: if the change is later, an
//! INVEPT of the context is due.

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

/// A VPID, as a CPU gave it out.
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
    /// The one that was given out last; 0 for none.
    last: u16,
}

/// What the policy knows.
#[derive(Clone, Copy)]
pub(crate) struct Generations {
    cpus: [Counter; CPUS],
    /// The time, in changes of trees.
    clock: u32,
    /// When each tree was last changed; a tree of a slot was made at 1 or later.
    changed: [u32; TREES],
    /// When each CPU last dropped what it had of each tree; 0 for never.
    dropped: [[u32; TREES]; CPUS],
}

impl Generations {
    /// Knows that nothing is cached.
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

    /// Records that a tree was changed or made: a CPU's mappings of it may be stale.
    pub(crate) fn note_change(&mut self, tree: usize) {
        self.clock += 1;
        self.changed[tree] = self.clock;
    }

    /// Records that a CPU was offline: its mappings may belong to any other hypervisor.
    pub(crate) fn note_offline(&mut self, cpu: usize) {
        self.dropped[cpu] = [0; TREES];
        let counter = &mut self.cpus[cpu];
        counter.generation += 1;
        counter.last = u16::MAX;
    }

    /// Whether a tag is one of a CPU's generation.
    fn is_valid(&self, cpu: usize, tag: Option<Tag>) -> bool {
        tag.is_some_and(|tag| tag.cpu == cpu && tag.generation == self.cpus[cpu].generation)
    }

    /// Takes the next tag of a CPU; `None` if it has given out `max` of them.
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

    /// Begins a generation.
    fn begin(&mut self, cpu: usize) {
        let counter = &mut self.cpus[cpu];
        counter.generation += 1;
        counter.last = 0;
    }
}

impl Machine<'_> {
    /// Sees to it, at VM entry, that a vCPU has VPIDs of the generation of its CPU.
    pub(crate) fn tag(&mut self, id: usize) -> Result<(), Wrong> {
        let before = self.task.pin(true);
        let result = self.tag_here(id);
        self.task.pin(before);
        result
    }

    fn tag_here(&mut self, id: usize) -> Result<(), Wrong> {
        let cpu = self.task.cpu();
        // A vCPU can need two.
        let max = self.config.vpids.max(2);
        let levels = if self.vcpus[id].vmxon { 2 } else { 1 };
        // With the second one a generation can begin, which the first one is not of.
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

    /// Answers a request.
    pub(crate) fn renew(&mut self, id: usize, request: Request) -> Result<(), Wrong> {
        let before = self.task.pin(true);
        let result = self.renew_here(id, request);
        self.task.pin(before);
        result
    }

    fn renew_here(&mut self, id: usize, request: Request) -> Result<(), Wrong> {
        let cpu = self.task.cpu();
        let kept = self.bugs.has(Bug::TagKeptOnRequest);
        let vcpu = &self.vcpus[id];
        let level = usize::from(matches!(vcpu.l2, Some(L2 { vpid12: 1.., .. })));
        match request {
            // Of a vCPU that comes from elsewhere no tag is valid; INVEPT drops what has any.
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
                    // The other CPUs are to drop it too when the vCPU comes there.
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

    /// Drops what a CPU has of a tree, on that CPU.
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
