// SPDX-License-Identifier: GPL-2.0

//! This module defines the steps of the model.

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

/// What a guest does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    /// Reads or writes a page.
    Access {
        /// The page.
        page: u16,
        /// It is written.
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
    /// INVLPG that KVM's emulator executes, with EPT on too.
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
        /// What is loaded.
        registers: Registers,
        /// Bit 63 is set: translations are kept.
        keep: bool,
    },
    /// Toggles CR4.PGE.
    TogglePge,
    /// Toggles another bit of CR0 or CR4.
    Toggle(Bit),
    /// Gets an INIT.
    Init,
    /// Enters or leaves system-management mode.
    Smm,
    /// VMXON.
    VmxOn,
    /// VMXOFF.
    VmxOff,
    /// VM entry into L2.
    EnterL2(L2),
    /// VM entry into L2 that ends in a VM exit before L2 ran.
    BounceL2(L2),
    /// VM exit from L2.
    LeaveL2,
    /// VMFUNC: L2 turns to another EPT of L1's.
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
        /// Of all contexts.
        all: bool,
        /// Of this one, otherwise.
        ept12: Ept12,
    },
}

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// A vCPU is created, and its VM if it is the first one.
    Create(u8),
    /// A vCPU is destroyed, and its VM if it was the last one.
    Destroy(u8),
    /// A vCPU runs on a CPU.
    Guest {
        /// The vCPU.
        vcpu: u8,
        /// The CPU.
        cpu: u8,
        /// After how many occasions the scheduler moves its task; 0 for never.
        patience: u8,
        /// What it does.
        op: Op,
    },
    /// The host moves a guest's frame.
    Relocate {
        /// The VM.
        vm: u8,
        /// The frame.
        gfn: u16,
    },
    /// It wants to notice the next write to a frame.
    Protect {
        /// The VM.
        vm: u8,
        /// The frame.
        gfn: u16,
    },
    /// It clears the dirty flags of a frame.
    Clean {
        /// The VM.
        vm: u8,
        /// The frame.
        gfn: u16,
    },
    /// It maps a VM by small pages.
    Split(u8),
    /// It maps it by pages of a level.
    Merge {
        /// The VM.
        vm: u8,
        /// The level.
        level: u8,
    },
    /// It gives up all tables of a VM.
    ZapAll(u8),
    /// It frees those that no vCPU keeps.
    Shrink(u8),
    /// A CPU forgets some of what it has cached.
    Forget {
        /// The CPU.
        cpu: u8,
        /// What it forgets.
        random: u32,
    },
    /// A CPU goes offline, and comes back.
    Replug(u8),
    /// An attach or a detach begins.
    Transition,
    /// It ends: Rust serves.
    Attached,
    /// It ends: C serves.
    Detached,
}

impl Machine<'_> {
    /// Has something happen.
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

    /// Has another one serve, or both: the phases of the handover.
    ///
    /// Generations of tags are of the model alone, and nobody takes over from them.
    fn transfer(&mut self, backend: Backend) {
        if self.backend == Backend::Generations {
            return;
        }
        // A transition goes through both; the pool is active while Rust alone serves.
        self.vpids.hand_over(backend == Backend::Rust);
        self.backend = backend;
    }
}
