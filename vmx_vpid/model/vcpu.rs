// SPDX-License-Identifier: GPL-2.0

//! A vCPU as KVM keeps it, as far as translations go.

use super::{
    fault::{
        Fault,
        Faults, //
    },
    generations::Tag,
    machine::Config,
    memory::{
        frames,
        Gfn, //
    },
    promise::Promise,
    registers::{
        Controls,
        Registers, //
    },
    tables::{
        Role,
        Tree,
        TreeId, //
    }, //
};
use crate::{
    control::Cr4,
    ept::{
        Eptp,
        Levels, //
    },
    flush::{
        Root,
        Tags,
        ROOTS, //
    },
    invvpid::Vpid, //
};

/// A root that a vCPU keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kept {
    /// The tree.
    pub(super) tree: TreeId,
    /// What the guest loaded to get there: CR3 with its PCID, or an EPT pointer of L1's.
    pub(super) pgd: u64,
}

/// The roots of one `struct kvm_mmu`: the current one, and the cached.
#[derive(Clone, Copy, Default)]
pub(super) struct Roots(pub(super) [Option<Kept>; Self::LEN]);

impl Roots {
    /// How many an MMU keeps.
    pub(super) const LEN: usize = ROOTS / 2;

    /// Makes another root the current one: a cached one that is wanted, or none, to be loaded.
    ///
    /// Answers to `fast_pgd_switch()`: the one that was current is cached, and the oldest let go
    /// when there is no room.
    pub(super) fn switch(&mut self, wanted: impl Fn(Kept) -> bool) {
        match self.0.iter().position(|root| root.is_some_and(&wanted)) {
            Some(place) => self.0[..=place].rotate_right(1),
            None if self.0[0].is_some() => {
                self.0.rotate_right(1);
                self.0[0] = None;
            }
            None => {}
        }
    }

    /// Lets go of the roots that are not to be kept.
    pub(super) fn keep(&mut self, keep: impl Fn(Kept) -> bool) {
        for root in &mut self.0 {
            *root = root.filter(|&root| keep(root));
        }
    }
}

/// L2 as L1 has set it up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct L2 {
    /// 0 if L1 gave it no VPID; else 1 or 2.
    pub(super) vpid12: u16,
    /// The EPT that L1 gave it, if any.
    pub(super) ept12: Option<Ept12>,
}

/// An EPT pointer of L1's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ept12 {
    /// Which of its two EPTs it is, 0 or 1.
    pub(super) number: u8,
    /// Whether it has accessed and dirty flags: that is no part of the tag.
    pub(super) accessed_dirty: bool,
}

impl Ept12 {
    /// Returns the frame of its root.
    pub(super) fn root(self) -> Gfn {
        frames::EPT_ROOT.plus(self.number.into())
    }

    /// Returns it as L1 writes it.
    pub(super) fn eptp(self) -> Eptp {
        let root = crate::addr::Hpa::new(self.root().address());
        Eptp::for_root(root, Levels::Four, self.accessed_dirty)
    }
}

/// What KVM was asked to do before the vCPU runs on.
#[derive(Clone, Copy, Default)]
pub(super) struct Pending {
    /// `KVM_REQ_MMU_SYNC`.
    pub(super) sync: bool,
    /// `KVM_REQ_TLB_FLUSH`.
    pub(super) all: bool,
    /// `KVM_REQ_TLB_FLUSH_CURRENT`.
    pub(super) current: bool,
    /// `KVM_REQ_TLB_FLUSH_GUEST`.
    pub(super) guest: bool,
}

impl Pending {
    /// Whether anything is to be done.
    pub(super) fn any(self) -> bool {
        self.sync || self.all || self.current || self.guest
    }
}

/// For whom translations are made: a life of a vCPU, and in it L1, or an L2 by its vpid12.
pub(super) type Reader = u32;

/// Readers of one life: L1, the two VPIDs that it gives to L2, and L2 without a VPID.
pub(super) const READERS: usize = 4;

/// A vCPU.
#[derive(Clone, Copy, Default)]
pub(super) struct Vcpu {
    /// It was created and not destroyed.
    pub(super) alive: bool,
    /// Which of all vCPUs that ever were it is.
    pub(super) life: u32,
    /// `None` if there was none left.
    pub(super) vpid01: Option<Vpid>,
    /// Left as it was outside VMX operation, as KVM does.
    pub(super) vpid02: Option<Vpid>,
    /// Where these two are from, as long as they may be used: tags of a CPU's generation.
    pub(super) tags: [Option<Tag>; 2],
    /// L1 is in VMX operation.
    pub(super) vmxon: bool,
    /// L2, while it is active.
    pub(super) l2: Option<L2>,
    /// The vpid12 that L2 was last entered with; 0 for none since VMXON.
    pub(super) last_vpid12: u16,
    /// The CPU on which vmcs01 and vmcs02 were last loaded.
    pub(super) vmcs: [Option<usize>; 2],
    /// `root_mmu` and `guest_mmu`.
    pub(super) mmus: [Roots; 2],
    /// CR3 of L1, and that of L2.
    pub(super) registers: [Registers; 2],
    /// CR0 and CR4 likewise.
    pub(super) controls: [Controls; 2],
    /// L1 is in system-management mode: a role of its own.
    pub(super) smm: bool,
    /// What is to be done before it runs on.
    pub(super) pending: Pending,
    /// What each reader was promised.
    pub(super) promises: [Promise; READERS],
    /// When L1 last dropped what it cached of each of its EPTs.
    pub(super) ept12_dropped: [u32; 2],
    /// Which readers ever ran, and which EPTs L2 ever ran on, by bit: nothing can have been cached
    /// for the others.
    pub(super) ran: u8,
    pub(super) ran_on: u8,
}

impl Vcpu {
    /// Which VMCS is in use: 0 is vmcs01, 1 is vmcs02.
    pub(super) fn level(&self) -> usize {
        self.l2.is_some().into()
    }

    /// The EPT of L1's that L2 runs on.
    pub(super) fn ept12(&self) -> Option<Ept12> {
        self.l2?.ept12
    }

    /// Which MMU is in use: `guest_mmu` for an L2 that has an EPT.
    pub(super) fn mmu(&self) -> usize {
        self.ept12().is_some().into()
    }

    /// The root in use.
    pub(super) fn root(&self) -> Option<Kept> {
        self.mmus[self.mmu()].0[0]
    }

    /// CR3 in use.
    pub(super) fn registers(&self) -> Registers {
        self.registers[self.level()]
    }

    /// CR4 in use.
    pub(super) fn cr4(&self) -> Cr4 {
        self.controls[self.level()].cr4()
    }

    /// The frame of the guest's root table; `None` with paging off.
    pub(super) fn table(&self) -> Option<Gfn> {
        self.controls[self.level()].table(self.registers())
    }

    /// Which of the readers of its life it is.
    pub(super) fn reader_index(&self) -> usize {
        match self.l2 {
            None => 0,
            Some(L2 { vpid12: 0, .. }) => 3,
            Some(L2 { vpid12, .. }) => vpid12.into(),
        }
    }

    /// For whom translations are made as it stands.
    pub(super) fn reader(&self) -> Reader {
        // CAST: There are four.
        self.life * READERS as u32 + self.reader_index() as u32
    }

    /// The tree that it has to run on as it stands, and what the guest loaded to get there.
    pub(super) fn wanted(&self, config: &Config) -> (Role, u64) {
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

    /// The trees that it keeps.
    pub(super) fn trees(&self) -> impl Iterator<Item = TreeId> + '_ {
        let roots = self.mmus.iter().flat_map(|mmu| mmu.0).flatten();
        roots.map(|root| root.tree)
    }
}

/// A vCPU as a flush sees it.
#[derive(Clone, Copy)]
pub(super) struct Seen<'a> {
    /// The vCPU as it is.
    pub(super) vcpu: &'a Vcpu,
    /// How the machine is set up.
    pub(super) config: &'a Config,
    /// The trees there are.
    pub(super) trees: &'a [Option<Tree>],
    /// What is broken.
    pub(super) faults: Faults,
}

impl Seen<'_> {
    /// What the vCPU tells of a root.
    fn root_of(&self, root: Option<Kept>) -> Root {
        let Some(tree) = root.and_then(|root| self.trees[usize::from(root.tree.0)]) else {
            return Root::Invalid;
        };
        let table = tree.root;
        if self.config.unknown_roots && table.0 % 2 == 1 {
            if self.faults.has(Fault::UnknownRootsHidden) {
                return Root::Invalid;
            }
            return Root::Unknown;
        }
        let address = if self.faults.has(Fault::WrongRootNamed) {
            table.address().into_raw() ^ 0x4_0000
        } else {
            table.address().into_raw()
        };
        Root::Known {
            table: crate::addr::Hpa::new(address),
            levels: Levels::Four,
            accessed_dirty: self.config.accessed_dirty,
        }
    }

    /// The VPID that the vCPU enters the guest with, whatever is broken.
    pub(super) fn entered_with(&self) -> Option<Vpid> {
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
        let told = !self.faults.has(Fault::HiddenVpid01);
        self.vcpu.vpid01.filter(|_| told)
    }

    fn vpid02(&self) -> Option<Vpid> {
        let told = self.vcpu.vmxon && !self.faults.has(Fault::HiddenVpid02);
        self.vcpu.vpid02.filter(|_| told)
    }

    fn current_vpid(&self) -> Option<Vpid> {
        if self.faults.has(Fault::AlwaysVpid01) {
            return self.vcpu.vpid01;
        }
        if self.faults.has(Fault::AlwaysVpid02) {
            return self.vcpu.vpid02.or(self.vcpu.vpid01);
        }
        self.entered_with()
    }

    fn root(&self) -> Root {
        if self.faults.has(Fault::RootOfOtherMmu) {
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
        for (fault, range) in [
            (Fault::HiddenCurrentRoot, 0..1),
            (Fault::HiddenCachedRoots, 1..4),
            (Fault::HiddenL2Root, 4..5),
            (Fault::HiddenCachedL2Roots, 5..8),
        ] {
            if self.faults.has(fault) {
                roots[range].fill(Root::Invalid);
            }
        }
        roots
    }
}
