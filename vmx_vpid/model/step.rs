// SPDX-License-Identifier: GPL-2.0

//! This module defines the steps of the model, and executes a step.

use super::{
    guest::{
        control_regs::{
            Bit,
            Registers, //
        },
        memory::Gfn, //
    },
    kvm::vcpu::{
        Ept12,
        L2, //
    },
    machine::{
        Backend,
        Machine,
        Wrong, //
    }, //
};

/// An action of a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    /// Reads or writes a page.
    Access {
        /// The page.
        page: u16,
        /// The access is a write.
        write: bool,
    },
    /// Writes an entry of a table.
    Edit {
        /// The frame of the table.
        table: Gfn,
        /// The index of the entry.
        index: usize,
        /// The entry.
        entry: u64,
    },
    /// INVLPG.
    Invlpg(u16),
    /// INVLPG executed by KVM's emulator, also with EPT on.
    EmulatedInvlpg(u16),
    /// INVPCID.
    Invpcid {
        /// The type, 0 to 3.
        kind: u8,
        /// The PCID.
        pcid: u8,
        /// The page, for type 0.
        page: u16,
    },
    /// MOV to CR3.
    MovCr3 {
        /// The new value.
        registers: Registers,
        /// Bit 63 is set: translations are kept.
        keep: bool,
    },
    /// Toggles CR4.PGE.
    TogglePge,
    /// Toggles another bit of CR0 or CR4.
    Toggle(Bit),
    /// Receives an INIT.
    Init,
    /// Enters or leaves system-management mode.
    Smm,
    /// VMXON.
    VmxOn,
    /// VMXOFF.
    VmxOff,
    /// VM entry into L2.
    EnterL2(L2),
    /// VM entry into L2 that ends in a VM exit before L2 runs.
    BounceL2(L2),
    /// VM exit from L2.
    LeaveL2,
    /// VMFUNC: L2 switches to another EPT of L1's.
    Vmfunc(Ept12),
    /// INVVPID.
    Invvpid {
        /// The type, 0 to 3.
        kind: u8,
        /// The VPID, 1 or 2.
        vpid12: u16,
        /// The page, for type 0.
        page: u16,
    },
    /// INVEPT.
    Invept {
        /// INVEPT of all contexts.
        all: bool,
        /// The context, unless `all` is set.
        ept12: Ept12,
    },
}

/// A step of the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// A vCPU is created; the first vCPU of a VM creates the VM.
    Create(u8),
    /// A vCPU is destroyed; the last vCPU of a VM destroys the VM.
    Destroy(u8),
    /// A vCPU runs on a CPU.
    Guest {
        /// The vCPU.
        vcpu: u8,
        /// The CPU.
        cpu: u8,
        /// The number of preemption points until the scheduler migrates the task; 0 for never.
        patience: u8,
        /// The action of the guest.
        op: Op,
    },
    /// The host moves a guest's frame.
    Relocate {
        /// The VM.
        vm: u8,
        /// The frame.
        gfn: u16,
    },
    /// The host write-protects a frame, to notice the next write.
    Protect {
        /// The VM.
        vm: u8,
        /// The frame.
        gfn: u16,
    },
    /// The host clears the dirty flags of a frame.
    Clean {
        /// The VM.
        vm: u8,
        /// The frame.
        gfn: u16,
    },
    /// The host maps a VM by small pages.
    Split(u8),
    /// The host maps a VM by pages of a level.
    Merge {
        /// The VM.
        vm: u8,
        /// The level.
        level: u8,
    },
    /// The host zaps all tables of a VM.
    ZapAll(u8),
    /// The host frees the trees that no vCPU keeps.
    Shrink(u8),
    /// A CPU drops some of its cached entries.
    Forget {
        /// The CPU.
        cpu: u8,
        /// Selects the entries.
        random: u32,
    },
    /// A CPU goes offline and online again.
    Replug(u8),
    /// An attach or a detach begins.
    Transition,
    /// The attach ends: Rust serves.
    Attached,
    /// The detach ends: C serves.
    Detached,
}

impl Machine<'_> {
    /// Executes a step, and checks the VPIDs.
    pub(crate) fn step(&mut self, step: Step) -> Result<(), Wrong> {
        match step {
            Step::Create(vcpu) => self.create(vcpu.into()),
            Step::Destroy(vcpu) => self.destroy(vcpu.into())?,
            Step::Guest {
                vcpu,
                cpu,
                patience,
                op,
            } => self.guest(vcpu.into(), cpu.into(), patience, op)?,
            Step::Relocate { vm, gfn } => self.relocate(vm.into(), gfn),
            Step::Protect { vm, gfn } => self.protect(vm.into(), gfn),
            Step::Clean { vm, gfn } => self.clean(vm.into(), gfn),
            Step::Split(vm) => self.split(vm.into()),
            Step::Merge { vm, level } => self.merge(vm.into(), level),
            Step::ZapAll(vm) => self.zap_all(vm.into()),
            Step::Shrink(vm) => self.shrink(vm.into()),
            Step::Forget { cpu, random } => self.cpus[usize::from(cpu)].forget(random),
            Step::Replug(cpu) => self.replug(cpu.into()),
            Step::Transition => self.transfer(Backend::Both),
            Step::Attached => self.transfer(Backend::Rust),
            Step::Detached => self.transfer(Backend::C),
        }
        self.check_vpids()
    }

    /// Switches to another backend, or to both: the phases of attach and detach.
    ///
    /// Generations of tags exist in the model only; no attach or detach switches to or from them.
    fn transfer(&mut self, backend: Backend) {
        if self.backend == Backend::Generations {
            return;
        }
        // The pool is the active allocator only while Rust serves alone; in a transition both
        // backends serve, and KVM's bitmap is active.
        self.vpids.hand_over(backend == Backend::Rust);
        self.backend = backend;
    }
}
