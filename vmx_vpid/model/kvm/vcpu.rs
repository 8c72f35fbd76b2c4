// SPDX-License-Identifier: GPL-2.0

//! This module has the state that KVM keeps of a vCPU, as far as the state affects translations.

use super::{
    generations::Tag,
    tables::{
        Role,
        Tree,
        TreeId, //
    }, //
};
use crate::{
    ept::{
        Eptp,
        Levels, //
    },
    flush::tags::{
        Root,
        Tags,
        ROOTS, //
    },
    model::{
        bug::{
            Bug,
            Bugs, //
        },
        guest::{
            control_regs::{
                Controls,
                Registers, //
            },
            invalidated::Invalidated,
            memory::{
                frames,
                Gfn, //
            }, //
        },
        machine::Config, //
    },
    vpid::Vpid,
    x86::{
        addr::Hpa,
        control_regs::Cr4, //
    }, //
};

/// A root that a vCPU keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kept {
    /// The tree.
    pub(crate) tree: TreeId,
    /// The value that the guest loaded for this root: CR3 with the PCID, or an EPT pointer of L1's.
    pub(crate) pgd: u64,
}

/// The roots of one `struct kvm_mmu`: the current root, and the cached roots.
#[derive(Clone, Copy, Default)]
pub(crate) struct Roots(pub(crate) [Option<Kept>; Self::LEN]);

impl Roots {
    /// The number of roots of an MMU.
    pub(crate) const LEN: usize = ROOTS / 2;

    /// Makes a matching cached root the current root; without a match there is no current root.
    ///
    /// Equivalent of `fast_pgd_switch()`: the previous root is cached, and the oldest root is freed
    /// when there is no room.
    pub(crate) fn switch(&mut self, wanted: impl Fn(Kept) -> bool) {
        match self.0.iter().position(|root| root.is_some_and(&wanted)) {
            Some(place) => self.0[..=place].rotate_right(1),
            None if self.0[0].is_some() => {
                self.0.rotate_right(1);
                self.0[0] = None;
            }
            None => {}
        }
    }

    /// Frees the roots that do not match a predicate.
    pub(crate) fn keep(&mut self, keep: impl Fn(Kept) -> bool) {
        for root in &mut self.0 {
            *root = root.filter(|&root| keep(root));
        }
    }
}

/// The setup of L2 by L1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct L2 {
    /// 1 or 2; 0 if L1 gives L2 no VPID.
    pub(crate) vpid12: u16,
    /// The EPT that L1 gives L2, if any.
    pub(crate) ept12: Option<Ept12>,
}

/// An EPT pointer of L1's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ept12 {
    /// The number of the EPT, 0 or 1.
    pub(crate) number: u8,
    /// The EPT has accessed and dirty flags; the flag is not part of the EP4TA.
    pub(crate) accessed_dirty: bool,
}

impl Ept12 {
    /// Returns the frame of the EPT's root.
    pub(crate) fn root(self) -> Gfn {
        frames::EPT_ROOT.plus(self.number.into())
    }

    /// Returns the EPT pointer that L1 writes.
    pub(crate) fn eptp(self) -> Eptp {
        let root = Hpa::new(self.root().address());
        Eptp::for_root(root, Levels::Four, self.accessed_dirty)
    }
}

/// The requests that KVM has to serve before the vCPU runs again.
#[derive(Clone, Copy, Default)]
pub(crate) struct Pending {
    /// `KVM_REQ_MMU_SYNC`.
    pub(crate) sync: bool,
    /// `KVM_REQ_TLB_FLUSH`.
    pub(crate) all: bool,
    /// `KVM_REQ_TLB_FLUSH_CURRENT`.
    pub(crate) current: bool,
    /// `KVM_REQ_TLB_FLUSH_GUEST`.
    pub(crate) guest: bool,
}

impl Pending {
    /// Returns whether a request is pending.
    pub(crate) fn any(self) -> bool {
        self.sync || self.all || self.current || self.guest
    }
}

/// Identifies the owner of translations: a life of a vCPU, and in that life L1, or L2 by its
/// vpid12.
pub(crate) type Reader = u32;

/// The number of readers of one life: L1, L2 with each of two VPIDs, and L2 without a VPID.
pub(crate) const READERS: usize = 4;

/// A vCPU.
#[derive(Clone, Copy, Default)]
pub(crate) struct Vcpu {
    /// The vCPU was created and not destroyed.
    pub(crate) alive: bool,
    /// The number of the vCPU among all vCPUs created so far.
    pub(crate) life: u32,
    /// `None` if no VPID was left.
    pub(crate) vpid01: Option<Vpid>,
    /// vpid02; outside VMX operation the old value stays, as in KVM.
    pub(crate) vpid02: Option<Vpid>,
    /// The tags that vpid01 and vpid02 come from, with generations of tags.
    pub(crate) tags: [Option<Tag>; 2],
    /// L1 is in VMX operation.
    pub(crate) vmxon: bool,
    /// L2, while it is active.
    pub(crate) l2: Option<L2>,
    /// The vpid12 that L2 was last entered with; 0 for none since VMXON.
    pub(crate) last_vpid12: u16,
    /// The CPU on which vmcs01 and vmcs02 were last loaded.
    pub(crate) vmcs: [Option<usize>; 2],
    /// `root_mmu` and `guest_mmu`.
    pub(crate) mmus: [Roots; 2],
    /// CR3 of L1 and of L2.
    pub(crate) registers: [Registers; 2],
    /// CR0 and CR4 of L1 and of L2.
    pub(crate) controls: [Controls; 2],
    /// L1 is in system-management mode, which has a role of its own.
    pub(crate) smm: bool,
    /// The pending requests.
    pub(crate) pending: Pending,
    /// The past invalidations of each reader.
    pub(crate) invalidated: [Invalidated; READERS],
    /// When L1 last invalidated each of its EPTs.
    pub(crate) ept12_dropped: [u32; 2],
    /// The readers that ever ran, and the EPTs that L2 ever ran on, by bit: for the others nothing
    /// can be cached.
    pub(crate) ran: u8,
    pub(crate) ran_on: u8,
}

impl Vcpu {
    /// Returns the VMCS in use: 0 for vmcs01, 1 for vmcs02.
    pub(crate) fn level(&self) -> usize {
        self.l2.is_some().into()
    }

    /// Returns the EPT of L1's that L2 runs on.
    pub(crate) fn ept12(&self) -> Option<Ept12> {
        self.l2?.ept12
    }

    /// Returns the MMU in use: 1 (`guest_mmu`) for an L2 with an EPT, else 0 (`root_mmu`).
    pub(crate) fn mmu(&self) -> usize {
        self.ept12().is_some().into()
    }

    /// Returns the root in use.
    pub(crate) fn root(&self) -> Option<Kept> {
        self.mmus[self.mmu()].0[0]
    }

    /// Returns CR3 in use.
    pub(crate) fn registers(&self) -> Registers {
        self.registers[self.level()]
    }

    /// Returns CR4 in use.
    pub(crate) fn cr4(&self) -> Cr4 {
        self.controls[self.level()].cr4()
    }

    /// Returns the frame of the guest's root table; `None` with paging off.
    pub(crate) fn table(&self) -> Option<Gfn> {
        self.controls[self.level()].table(self.registers())
    }

    /// Returns the index of the current reader among the readers of its life.
    pub(crate) fn reader_index(&self) -> usize {
        match self.l2 {
            None => 0,
            Some(L2 { vpid12: 0, .. }) => 3,
            Some(L2 { vpid12, .. }) => vpid12.into(),
        }
    }

    /// Returns the current reader.
    pub(crate) fn reader(&self) -> Reader {
        // CAST: `READERS` is 4.
        self.life * READERS as u32 + self.reader_index() as u32
    }

    /// Returns the role of the tree that the vCPU has to run on, and the value that the guest
    /// loaded for it.
    pub(crate) fn wanted(&self, config: &Config) -> (Role, u64) {
        let l2 = self.l2.is_some();
        if let Some(ept12) = self.ept12() {
            let role = Role::Nested {
                root: ept12.root(),
                accessed_dirty: ept12.accessed_dirty,
            };
            return (role, ept12.eptp().into_raw());
        }
        if config.ept {
            let smm = self.smm && !l2;
            return (Role::Direct { smm, l2 }, 0);
        }
        let Some(root) = self.table() else {
            return (Role::Unpaged { l2 }, 0);
        };
        let pae = self.controls[self.level()].pae;
        (
            Role::Shadow { root, pae, l2 },
            self.registers().cr3().into_raw(),
        )
    }

    /// Returns the trees that the vCPU keeps.
    pub(crate) fn trees(&self) -> impl Iterator<Item = TreeId> + '_ {
        let roots = self.mmus.iter().flat_map(|mmu| mmu.0).flatten();
        roots.map(|root| root.tree)
    }
}

/// The tags of a vCPU as the flush code sees them.
#[derive(Clone, Copy)]
pub(crate) struct Seen<'a> {
    /// The actual vCPU.
    pub(crate) vcpu: &'a Vcpu,
    /// The setup of the machine.
    pub(crate) config: &'a Config,
    /// All trees.
    pub(crate) trees: &'a [Option<Tree>],
    /// The injected bugs.
    pub(crate) bugs: Bugs,
}

impl Seen<'_> {
    /// Returns a root as the vCPU reports it.
    fn root_of(&self, root: Option<Kept>) -> Root {
        let Some(tree) = root.and_then(|root| self.trees[usize::from(root.tree.0)]) else {
            return Root::Invalid;
        };
        let table = tree.root;
        if self.config.unknown_roots && table.0 % 2 == 1 {
            if self.bugs.has(Bug::UnknownRootsHidden) {
                return Root::Invalid;
            }
            return Root::Unknown;
        }
        let address = if self.bugs.has(Bug::WrongRootNamed) {
            table.address().into_raw() ^ 0x4_0000
        } else {
            table.address().into_raw()
        };
        Root::Known {
            table: Hpa::new(address),
            levels: Levels::Four,
            accessed_dirty: self.config.accessed_dirty,
        }
    }

    /// Returns the VPID that VM entry uses, unaffected by injected bugs.
    pub(crate) fn entered_with(&self) -> Option<Vpid> {
        match self.vcpu.l2 {
            Some(L2 { vpid12: 1.., .. }) => self.vcpu.vpid02.or(self.vcpu.vpid01),
            _ => self.vcpu.vpid01,
        }
    }
}

impl Tags for Seen<'_> {
    fn ept(&self) -> bool {
        self.config.ept
    }

    fn vpid(&self) -> bool {
        self.config.vpid
    }

    fn vpid01(&self) -> Option<Vpid> {
        let told = !self.bugs.has(Bug::HiddenVpid01);
        self.vcpu.vpid01.filter(|_| told)
    }

    fn vpid02(&self) -> Option<Vpid> {
        let told = self.vcpu.vmxon && !self.bugs.has(Bug::HiddenVpid02);
        self.vcpu.vpid02.filter(|_| told)
    }

    fn current_vpid(&self) -> Option<Vpid> {
        if self.bugs.has(Bug::AlwaysVpid01) {
            return self.vcpu.vpid01;
        }
        if self.bugs.has(Bug::AlwaysVpid02) {
            return self.vcpu.vpid02.or(self.vcpu.vpid01);
        }
        self.entered_with()
    }

    fn root(&self) -> Root {
        if self.bugs.has(Bug::RootOfOtherMmu) {
            return self.root_of(self.vcpu.mmus[1 - self.vcpu.mmu()].0[0]);
        }
        self.root_of(self.vcpu.root())
    }

    fn roots(&self) -> [Root; ROOTS] {
        let [l1, l2] = &self.vcpu.mmus;
        let mut roots = [Root::Invalid; ROOTS];
        let told = l1.0.iter().chain(&l2.0).map(|&root| self.root_of(root));
        for (slot, root) in roots.iter_mut().zip(told) {
            *slot = root;
        }
        for (bug, range) in [
            (Bug::HiddenCurrentRoot, 0..1),
            (Bug::HiddenCachedRoots, 1..4),
            (Bug::HiddenL2Root, 4..5),
            (Bug::HiddenCachedL2Roots, 5..8),
        ] {
            if self.bugs.has(bug) {
                roots[range].fill(Root::Invalid);
            }
        }
        roots
    }
}
