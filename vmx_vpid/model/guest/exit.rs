// SPDX-License-Identifier: GPL-2.0

//! A vCPU of the model exits for an instruction, and the handlers of the kernel see the vCPU by the
//! traits of this module.
//!
//! The operand is in memory that the vCPU reaches without paging: the walk to an operand has tests
//! of its own.

use super::memory::Gfn;
use crate::{
    ept::Eptp,
    exits::{
        self,
        ExitResult,
        Nested,
        Roots,
        Translations,
        Vcpu, //
    },
    flush::{
        execute::Invalidation,
        policy::Policy,
        tags::{
            Root,
            Tags,
            ROOTS, //
        },
        Request, //
    },
    model::{
        bug::Bug,
        cpu::tlb::page_of,
        kvm::{
            tables::Role,
            vcpu::Seen, //
        },
        machine::{
            Machine,
            Wrong, //
        }, //
    },
    paging::{
        level::EntryWidth,
        walk::{
            Answer,
            Exchange,
            Memory, //
        },
        Features,
        Paging, //
    },
    stats::Counter,
    vmx::{
        caps::EptVpidCap,
        insn::VmInsnError,
        operand::{
            AddressSize,
            InsnInfo, //
        }, //
    },
    vpid::Vpid,
    x86::{
        addr::{
            CanonicalGva,
            Gpa,
            LinearWidth,
            MaxPhyAddr, //
        },
        control_regs::{
            Cr0,
            Cr3,
            Cr4,
            Efer,
            Rflags, //
        },
        exception,
        invpcid::Pcid,
        mode::{
            Gpr,
            Mode, //
        },
        segment::{
            Rights,
            Segment,
            SegmentRegister, //
        }, //
    }, //
};
use kernel::prelude::*;

/// The address of the operand.
const OPERAND: u64 = 0x1000;

/// An instruction that exits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Instruction {
    /// INVLPG.
    Invlpg,
    /// INVPCID.
    Invpcid,
    /// INVVPID.
    Invvpid,
    /// INVEPT.
    Invept,
}

/// A vCPU that exited.
pub(crate) struct Exited<'m, 'a> {
    /// The machine.
    pub(crate) machine: &'m mut Machine<'a>,
    /// The vCPU.
    pub(crate) id: usize,
    /// The type in the register operand.
    pub(crate) kind: u64,
    /// The descriptor in memory.
    pub(crate) operand: [u64; 2],
    /// The address of INVLPG.
    pub(crate) address: Option<u64>,
    /// The instruction completed.
    pub(crate) done: bool,
    /// The error, if the oracle or a flush found one.
    pub(crate) wrong: Option<Wrong>,
}

impl crate::x86::mode::GuestRegs for Exited<'_, '_> {
    fn mode(&self) -> Mode {
        Mode::Bits64
    }
    fn gpr(&self, _: Gpr) -> u64 {
        self.kind
    }
    fn segment(&self, register: SegmentRegister) -> Segment {
        Segment {
            base: self.segment_base(register),
            limit: u32::MAX,
            rights: Rights::from(2),
        }
    }
    fn segment_base(&self, _: SegmentRegister) -> u64 {
        0
    }
    fn cr3(&self) -> Cr3 {
        self.machine.vcpus[self.id].registers().cr3()
    }
    fn cr4(&self) -> Cr4 {
        self.machine.vcpus[self.id].cr4()
    }
}

impl Memory for Exited<'_, '_> {
    fn read_entry(&mut self, _: Gpa, _: EntryWidth) -> Option<u64> {
        None
    }
    fn exchange_entry(&mut self, _: Gpa, _: EntryWidth, _: u64, _: u64) -> Exchange {
        Exchange::NoMemory
    }
    fn read(&mut self, _: Gpa, bytes: &mut [u8]) -> Answer {
        let words = self.operand.iter().flat_map(|word| word.to_le_bytes());
        for (to, from) in bytes.iter_mut().zip(words) {
            *to = from;
        }
        Answer::Bytes
    }
    fn pdpte(&mut self, _: usize) -> u64 {
        0
    }
    fn alignment_check(&mut self) -> bool {
        false
    }
    fn pkru(&mut self) -> u32 {
        0
    }
}

impl Vcpu for Exited<'_, '_> {
    fn paging(&self) -> Paging {
        let features = Features {
            max_phy_addr: self.max_phy_addr(),
            gigabyte_pages: true,
            pse36: true,
        };
        let (cr3, cr4) = (Cr3::zeroed(), Cr4::zeroed());
        Paging::new(Cr0::zeroed(), cr3, cr4, Efer::zeroed(), features)
    }
    fn cpl(&self) -> u8 {
        0
    }
    fn instruction_information(&self) -> InsnInfo {
        InsnInfo::zeroed()
            .with_address_size(AddressSize::Bits64)
            .with_segment(SegmentRegister::Ds)
            .with_no_base(true)
            .with_no_index(true)
    }
    fn exit_qualification(&self) -> u64 {
        self.address.unwrap_or(OPERAND)
    }
    fn linear_width(&self) -> LinearWidth {
        LinearWidth::Bits48
    }
    fn count(&mut self, _: Counter) {}
    fn skip(&mut self) -> ExitResult {
        self.done = true;
        ExitResult::Resume
    }
    fn raise(&mut self, _: exception::Exception) {}
    fn give_up(&mut self) -> ExitResult {
        ExitResult::UserSpace
    }
}

impl Translations for Exited<'_, '_> {
    fn has_invpcid(&self) -> bool {
        true
    }
    fn is_shadowed(&self) -> bool {
        !self.machine.config.ept
    }
    fn pcids(&self) -> [Option<Pcid>; Roots::COUNT] {
        let vcpu = &self.machine.vcpus[self.id];
        let cr4 = vcpu.cr4();
        vcpu.mmus[vcpu.mmu()]
            .0
            .map(|root| root.map(|root| Pcid::of(Cr3::from(root.pgd), cr4)))
    }
    /// Equivalent of `kvm_mmu_invalidate_addr()`.
    fn invalidate(&mut self, address: CanonicalGva, roots: Roots) {
        let bugs = self.machine.bugs;
        if !bugs.has(Bug::AddressNotFlushed) {
            let flushed = self.machine.flush(self.id, Request::Gva(address));
            self.wrong = self.wrong.or(flushed.err());
        }
        let vcpu = &self.machine.vcpus[self.id];
        let kept = vcpu.mmus[vcpu.mmu()].0;
        let mut mask = roots.into_raw();
        if bugs.has(Bug::OnlyCurrentRoot) {
            mask &= 1;
        }
        for (number, root) in kept.into_iter().enumerate() {
            let tree = root.and_then(|root| self.machine.tree(root.tree));
            if let Some(tree) = tree.filter(|_| mask >> number & 1 != 0) {
                let page = page_of(address.into_raw());
                self.machine.synchronise(tree, Some(page));
            }
        }
    }
    fn count_in_kvm(&mut self) {}
    fn request_sync(&mut self) {
        let bugs = self.machine.bugs;
        let pending = &mut self.machine.vcpus[self.id].pending;
        pending.sync |= !bugs.has(Bug::SyncNotRequested);
        pending.current |= !bugs.has(Bug::CurrentNotRequested);
    }
    /// Equivalent of `kvm_mmu_free_roots()`.
    fn free_roots(&mut self, roots: Roots) {
        if self.machine.bugs.has(Bug::RootsNotFreed) {
            return;
        }
        let mmu = self.machine.vcpus[self.id].mmu();
        let kept = &mut self.machine.vcpus[self.id].mmus[mmu].0;
        for (number, root) in kept.iter_mut().enumerate() {
            if roots.into_raw() >> number & 1 != 0 {
                *root = None;
            }
        }
    }
    fn request_flush(&mut self) {
        let bugs = self.machine.bugs;
        let pending = &mut self.machine.vcpus[self.id].pending;
        pending.guest |= !bugs.has(Bug::GuestNotRequested);
    }
}

impl Tags for Exited<'_, '_> {
    fn ept(&self) -> bool {
        self.machine.config.ept
    }
    fn vpid(&self) -> bool {
        self.machine.config.vpid
    }
    fn vpid01(&self) -> Option<Vpid> {
        self.seen().vpid01()
    }
    fn vpid02(&self) -> Option<Vpid> {
        self.seen().vpid02()
    }
    fn current_vpid(&self) -> Option<Vpid> {
        self.seen().current_vpid()
    }
    fn root(&self) -> Root {
        self.seen().root()
    }
    fn roots(&self) -> [Root; ROOTS] {
        self.seen().roots()
    }
}

impl Exited<'_, '_> {
    /// Handles the exit by the handlers of vmx_vpid.ko.
    // Not inlined, because each handler has a large stack frame of its own.
    #[inline(never)]
    pub(crate) fn handled_by_rust(&mut self, instruction: Instruction) -> ExitResult {
        match instruction {
            Instruction::Invlpg => exits::invlpg::handle(self),
            Instruction::Invpcid => exits::invpcid::handle(self),
            Instruction::Invvpid => exits::invvpid::handle(self),
            Instruction::Invept => exits::invept::handle(self),
        }
    }

    /// Returns the vCPU's tags as the flush code sees them.
    fn seen(&self) -> Seen<'_> {
        self.machine.seen(&self.machine.vcpus[self.id])
    }
}

impl Nested for Exited<'_, '_> {
    fn tags(&self) -> &impl Tags {
        self
    }
    fn is_in_vmx_operation(&self) -> bool {
        self.machine.vcpus[self.id].vmxon
    }
    fn l1_has_vpid(&self) -> bool {
        self.machine.config.vpid
    }
    fn l1_has_ept(&self) -> bool {
        self.machine.config.ept
    }
    fn l1_caps(&self) -> EptVpidCap {
        EptVpidCap::from(u64::MAX)
    }
    fn max_phy_addr(&self) -> MaxPhyAddr {
        MaxPhyAddr::new(46)
    }
    fn rflags(&self) -> Rflags {
        Rflags::zeroed()
    }
    fn set_rflags(&mut self, _: Rflags) {}
    fn set_vm_instruction_error(&mut self, _: VmInsnError) -> bool {
        true
    }
    fn policy(&self) -> Policy {
        self.machine.policy
    }
    fn issue(&mut self, what: Invalidation) {
        if !self.machine.bugs.has(Bug::InvvpidOfL1NotIssued) {
            let issued = what.execute(self.machine.here());
            self.wrong = self.wrong.or(issued.err().map(Wrong::from));
        }
    }
    fn with_preemption_disabled(&mut self, function: impl FnOnce(&mut Self)) {
        let disabled = !self.machine.bugs.has(Bug::InvvpidOfL1WhilePreemptible);
        let before = self.machine.task.set_preemption_disabled(disabled);
        function(self);
        self.machine.task.set_preemption_disabled(before);
        self.machine.follow(self.id);
    }
    fn vmcs02_is_here(&self) -> bool {
        let here = self.machine.vcpus[self.id].vmcs[1] == Some(self.machine.task.cpu());
        here || self.machine.bugs.has(Bug::Vmcs02TakenToBeHere)
    }
    fn forget_vpid12(&mut self) {
        if !self.machine.bugs.has(Bug::Vpid12NotForgotten) {
            self.machine.vcpus[self.id].last_vpid12 = 0;
        }
    }
    /// Equivalent of `kvm_mmu_free_guest_mode_roots()`.
    fn free_l2_roots(&mut self) {
        if self.machine.bugs.has(Bug::L2RootsNotFreed) {
            return;
        }
        let trees = &self.machine.trees;
        self.machine.vcpus[self.id].mmus[0].keep(|root| {
            trees[usize::from(root.tree.0)]
                .is_some_and(|tree| !matches!(tree.role, Role::Shadow { l2: true, .. }))
        });
    }
    fn ept12_roots(&self) -> [Option<Eptp>; Roots::COUNT] {
        let by_pointer = self.machine.bugs.has(Bug::ComparedByPointer);
        self.machine.vcpus[self.id].mmus[1].0.map(|root| {
            let eptp = Eptp::from(root?.pgd);
            // The bug compares pointers instead of EP4TAs, and so misses a pointer with other
            // flags.
            Some(if by_pointer && eptp.accessed_dirty() {
                Eptp::from(Gfn(0x500).address())
            } else {
                eptp
            })
        })
    }
    fn free_ept12_roots(&mut self, roots: Roots) {
        let bugs = self.machine.bugs;
        let mut mask = roots.into_raw();
        if bugs.has(Bug::OnlyCurrentEpt12Root) {
            mask &= 1;
        }
        if bugs.has(Bug::Ept12RootsNotFreed) {
            mask = 0;
        }
        let kept = &mut self.machine.vcpus[self.id].mmus[1].0;
        for (number, root) in kept.iter_mut().enumerate() {
            if mask >> number & 1 != 0 {
                *root = None;
            }
        }
    }
}
