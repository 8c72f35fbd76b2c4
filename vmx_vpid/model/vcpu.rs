// SPDX-License-Identifier: GPL-2.0

//! A vCPU as KVM keeps it, as far as flushes go.

use crate::{
    addr::Hpa,
    ept::{
        Ep4ta,
        Eptp,
        Levels, //
    },
    flush::{
        Root,
        Tags,
        ROOTS, //
    },
    invvpid::Vpid,
    policy::Switches, //
};

/// How a machine is set up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Config {
    /// Guests run on EPT.
    pub(super) ept: bool,
    /// Guests run with VPIDs.
    pub(super) vpid: bool,
    /// Tasks are moved at any time.
    pub(super) preempted: bool,
    /// KVM keeps no page for every second root.
    pub(super) unknown_roots: bool,
    /// What the user has switched; what is masked the CPU lacks.
    pub(super) switches: Switches,
    /// What is broken.
    pub(super) fault: Option<Fault>,
}

/// Something that a flush relies on, broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// `vmx_vcpu_load_vmcs()` asks for nothing when a VMCS comes to a CPU.
    NoFlushOnLoad,
    /// `kvm_mmu_load()` asks for nothing for a new root.
    NoFlushOnRootLoad,
    /// `kvm_flush_remote_tlbs()` asks nothing of the vCPUs when memory changes.
    NoRemoteFlush,
    /// `nested_vmx_transition_tlb_flush()` asks for nothing when vpid12 changes.
    NoFlushOnVpid12,
    /// Nor when L2 runs with L1's VPID.
    NoFlushOnSharedVpid,
    /// `kvm_set_cr3()` asks for nothing, with EPT off.
    NoFlushOnCr3,
    /// A new vmcs01 counts as loaded on CPU 0.
    NoFlushOnCreate,
    /// At VMXON neither vmcs02 nor vpid12 counts as new.
    NoFlushOnVmxon,
    /// The vCPU does not tell some of its roots: from the first number up to the second.
    HiddenRoots(usize, usize),
    /// It takes a root of which KVM keeps no page for none.
    UnknownRootsHidden,
    /// It does not tell its vpid01.
    HiddenVpid01,
    /// It does not tell its vpid02.
    HiddenVpid02,
}

/// The tables of one `struct kvm_mmu`, by their numbers: the current one, and the cached.
#[derive(Clone, Copy, Default)]
pub(super) struct Roots(pub(super) [Option<usize>; Self::LEN]);

impl Roots {
    /// How many an MMU keeps.
    const LEN: usize = ROOTS / 2;

    /// Makes another root the current one: a cached one that is wanted, or none, to be loaded.
    ///
    /// Answers to `fast_pgd_switch()`: the one that was current is cached, and the oldest let go
    /// when there is no room.
    pub(super) fn switch(&mut self, wanted: impl Fn(usize) -> bool) {
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
    pub(super) fn keep(&mut self, keep: impl Fn(usize) -> bool) {
        for root in &mut self.0 {
            *root = root.filter(|&table| keep(table));
        }
    }
}

/// L2 as L1 has set it up.
#[derive(Clone, Copy)]
pub(super) struct L2 {
    /// 0 if L1 gave it no VPID.
    pub(super) vpid12: u16,
    /// Stands for its page tables.
    pub(super) space: u32,
    /// L1 gave it an EPT.
    pub(super) ept: bool,
}

/// What KVM was asked to do before the vCPU runs on.
#[derive(Clone, Copy, Default)]
pub(super) struct Pending {
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
        self.all || self.current || self.guest
    }
}

/// A vCPU.
#[derive(Clone, Copy, Default)]
pub(super) struct Vcpu {
    /// `None` if there was none left.
    pub(super) vpid01: Option<Vpid>,
    /// Left as it was outside VMX operation, as KVM does.
    pub(super) vpid02: Option<Vpid>,
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
    /// Which tables L1 and L2 want: by an address-space of theirs, or by their mode.
    pub(super) variants: [u8; 2],
    /// What is to be done before it runs on.
    pub(super) pending: Pending,
}

impl Vcpu {
    /// Which VMCS is in use: 0 is vmcs01, 1 is vmcs02.
    pub(super) fn level(&self) -> usize {
        self.l2.is_some().into()
    }

    /// Which MMU is in use: `guest_mmu` for an L2 that has an EPT.
    pub(super) fn mmu(&self) -> usize {
        self.l2.is_some_and(|l2| l2.ept).into()
    }

    /// Which table is in use.
    pub(super) fn root(&self) -> Option<usize> {
        self.mmus[self.mmu()].0[0]
    }

    /// The tables that it keeps.
    pub(super) fn roots(&self) -> impl Iterator<Item = usize> + '_ {
        self.mmus.iter().flat_map(|mmu| mmu.0).flatten()
    }
}

/// The EPT pointer of a table.
fn eptp(table: usize) -> Eptp {
    Eptp::for_root(address(table), Levels::Four, false)
}

/// What a table's mappings are tagged by.
pub(super) fn ep4ta(table: usize) -> Ep4ta {
    eptp(table).ep4ta()
}

/// The address of a table.
fn address(table: usize) -> Hpa {
    Hpa::new((table as u64 + 1) << 12)
}

/// A vCPU as a flush sees it.
pub(super) struct Seen<'a> {
    /// The vCPU as it is.
    pub(super) vcpu: &'a Vcpu,
    /// The machine that it is on.
    pub(super) config: &'a Config,
}

impl Seen<'_> {
    /// Whether something is broken.
    fn broken(&self, fault: Fault) -> bool {
        self.config.fault == Some(fault)
    }

    /// What the vCPU tells of a table.
    fn root_of(&self, table: Option<usize>) -> Root {
        match table {
            None => Root::Invalid,
            Some(table) if self.config.unknown_roots && table % 2 == 1 => {
                if self.broken(Fault::UnknownRootsHidden) {
                    Root::Invalid
                } else {
                    Root::Unknown
                }
            }
            Some(table) => Root::Known {
                table: address(table),
                levels: Levels::Four,
                accessed_dirty: false,
            },
        }
    }

    /// The VPID that the vCPU enters the guest with, whatever is broken.
    pub(super) fn entered_with(&self) -> Option<Vpid> {
        match self.vcpu.l2 {
            Some(l2) if l2.vpid12 != 0 => self.vcpu.vpid02.or(self.vcpu.vpid01),
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
        let told = !self.broken(Fault::HiddenVpid01);
        self.vcpu.vpid01.filter(|_| told)
    }

    fn vpid02(&self) -> Option<Vpid> {
        let told = self.vcpu.vmxon && !self.broken(Fault::HiddenVpid02);
        self.vcpu.vpid02.filter(|_| told)
    }

    fn current_vpid(&self) -> Option<Vpid> {
        self.entered_with()
    }

    fn root(&self) -> Root {
        self.root_of(self.vcpu.root())
    }

    fn roots(&self) -> [Root; ROOTS] {
        let [l1, l2] = &self.vcpu.mmus;
        let mut roots = [Root::Invalid; ROOTS];
        let told = l1.0.iter().chain(&l2.0).map(|&table| self.root_of(table));
        for (slot, root) in roots.iter_mut().zip(told) {
            *slot = root;
        }
        if let Some(Fault::HiddenRoots(from, to)) = self.config.fault {
            roots[from..to].fill(Root::Invalid);
        }
        roots
    }
}
