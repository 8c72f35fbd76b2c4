// SPDX-License-Identifier: GPL-2.0

//! This module executes the actions of guests, and records what each guest has invalidated.
//!
//! With EPT on, the CPU executes a guest's own invalidations; with EPT off the instructions exit,
//! and KVM and the handlers of the module invalidate in KVM's tables.

use super::{
    control_regs::Registers,
    exit::{
        Exited,
        Instruction, //
    },
    invalidated::{
        self,
        Dropped, //
    }, //
};
use crate::{
    model::{
        bug::Bug,
        cpu::{
            access::Access,
            context::Context,
            tlb::address_of,
            tlb_entry::Drop, //
        },
        kvm::{
            fill::Fixed,
            vcpu::Ept12, //
        },
        machine::{
            Machine,
            Wrong, //
        },
        step::Op, //
    },
    x86::{
        control_regs::Cr3,
        invpcid::Pcid, //
    }, //
};

/// The greatest number of retries of an access after exits.
const TRIES: u32 = 24;

impl Machine<'_> {
    /// Executes an action of a vCPU on a CPU.  The vCPU is entered again afterwards, so that the
    /// oracle checks the effect of an invalidation at once.
    pub(crate) fn guest(
        &mut self,
        id: usize,
        cpu: usize,
        patience: u8,
        op: Op,
    ) -> Result<(), Wrong> {
        if !self.put(id, cpu, patience) {
            return Ok(());
        }
        let context = self.enter(id)?;
        self.now += 1;
        match op {
            Op::Access { page, write } => self.touch(context, page, write)?,
            op => {
                self.exited(&context);
                self.execute(&context, op)?;
            }
        }
        let context = self.enter(id)?;
        self.exited(&context);
        self.sweep();
        Ok(())
    }

    /// Accesses a page, and has KVM fill its tables for the page.
    fn touch(&mut self, mut context: Context, page: u16, write: bool) -> Result<(), Wrong> {
        for _ in 0..TRIES {
            let outcome = self.access(&context, page, write);
            self.exited(&context);
            let Access::Exit { number, write } = outcome else {
                return Ok(());
            };
            if self.fill(context.tree, number, write)? == Fixed::GuestFault {
                return Ok(());
            }
            context = self.enter(context.id)?;
        }
        Err(Wrong::Stuck)
    }

    /// Records that a guest invalidated translations of its own.
    pub(crate) fn invalidated(&mut self, context: &Context, what: Dropped) {
        let now = self.now;
        self.vcpus[context.id].invalidated[context.reader_index].note(what, now);
    }

    /// Executes an action that is not an access.
    fn execute(&mut self, context: &Context, op: Op) -> Result<(), Wrong> {
        let id = context.id;
        let (pcid, index) = (context.pcid, context.pcid_index());
        let in_l2 = self.vcpus[id].l2.is_some();
        match op {
            Op::Access { .. } => {}
            Op::Edit {
                table,
                index,
                entry,
            } => self.guest_writes(id / 2, table, index, entry),
            Op::Invlpg(page) => {
                if self.config.ept {
                    self.guest_drops(context, Drop::Invlpg(context.vpid, pcid, page));
                } else {
                    let address = Some(address_of(page));
                    self.exit(id, Instruction::Invlpg, 0, [0; 2], address)?;
                }
                self.invalidated(context, Dropped::Page(index, page));
            }
            Op::EmulatedInvlpg(page) => {
                self.exits_invlpg(id, page)?;
                self.invalidated(context, Dropped::PageAlone(index, page));
            }
            Op::Invpcid { kind, pcid, page } => self.invpcid(context, kind, pcid, page)?,
            Op::MovCr3 { registers, keep } => self.mov_cr3(context, registers, keep),
            Op::TogglePge => {
                if self.config.ept {
                    self.guest_drops(context, Drop::Pcids(context.vpid));
                } else {
                    // kvm_post_set_cr4().
                    self.vcpus[id].pending.guest |= !self.bugs.has(Bug::NoFlushOnPge);
                }
                self.invalidated(context, Dropped::All);
            }
            Op::Toggle(bit) => self.toggle(context, bit),
            Op::Init => self.init(context)?,
            Op::Smm if !in_l2 => {
                self.vcpus[id].smm ^= true;
                self.reset_context(id);
            }
            Op::VmxOn if !in_l2 => self.vmx_on(id),
            Op::VmxOff => self.vmx_off(id)?,
            Op::EnterL2(l2) => self.enter_l2(id, l2)?,
            Op::BounceL2(l2) if !in_l2 => {
                self.enter_l2(id, l2)?;
                self.leave_l2(id)?;
            }
            Op::LeaveL2 => self.leave_l2(id)?,
            Op::Vmfunc(ept12) => self.switch_ept12(id, ept12),
            Op::Invvpid { kind, vpid12, page } if !in_l2 && self.vcpus[id].vmxon => {
                self.invvpid(id, kind, vpid12, page)?;
            }
            Op::Invept { all, ept12 } if !in_l2 && self.vcpus[id].vmxon && self.config.ept => {
                self.invept(id, all, ept12)?;
            }
            // In this state, L1 cannot execute the instruction.
            Op::Smm | Op::VmxOn | Op::BounceL2(_) | Op::Invvpid { .. } | Op::Invept { .. } => {}
        }
        Ok(())
    }

    /// Exits for an instruction, to the backend that serves; returns whether the instruction
    /// completed.
    ///
    /// # Errors
    ///
    /// [`Wrong::FlushFailed`], if every form of a necessary invalidation failed.
    fn exit(
        &mut self,
        id: usize,
        instruction: Instruction,
        kind: u64,
        operand: [u64; 2],
        address: Option<u64>,
    ) -> Result<bool, Wrong> {
        let rust = self.is_rust();
        let mut vcpu = Exited {
            machine: self,
            id,
            kind,
            operand,
            address,
            done: false,
            wrong: None,
        };
        if rust {
            vcpu.handled_by_rust(instruction);
        } else {
            vcpu.handled_by_c(instruction);
        }
        vcpu.wrong.map_or(Ok(vcpu.done), Err)
    }

    /// Has KVM's emulator execute INVLPG for a guest.
    fn exits_invlpg(&mut self, id: usize, page: u16) -> Result<(), Wrong> {
        let mut vcpu = Exited {
            machine: self,
            id,
            kind: 0,
            operand: [0; 2],
            address: Some(address_of(page)),
            done: false,
            wrong: None,
        };
        vcpu.mmu_invlpg();
        vcpu.wrong.map_or(Ok(()), Err)
    }

    /// Executes INVPCID.
    fn invpcid(&mut self, context: &Context, kind: u8, pcid: u8, page: u16) -> Result<(), Wrong> {
        let cr4 = self.vcpus[context.id].cr4();
        let number = if cr4.pcide() { pcid } else { 0 };
        let which = Registers {
            root: 0,
            pcid: number,
        };
        let pcid = which.pcid(cr4);
        let vpid = context.vpid;
        if self.config.ept {
            self.guest_drops(
                context,
                match kind {
                    0 => Drop::PcidAddress(vpid, pcid, page),
                    1 => Drop::Pcid(vpid, pcid),
                    2 => Drop::Pcids(vpid),
                    _ => Drop::PcidsButGlobals(vpid),
                },
            );
        } else {
            let operand = [number.into(), address_of(page)];
            let (id, kind) = (context.id, kind.into());
            if !self.exit(id, Instruction::Invpcid, kind, operand, None)? {
                return Ok(());
            }
        }
        let index = invalidated::index(pcid);
        self.invalidated(
            context,
            match kind {
                0 => Dropped::PcidPage(index, page),
                1 => Dropped::Pcid(index),
                2 => Dropped::All,
                _ => Dropped::ButGlobals,
            },
        );
        Ok(())
    }

    /// Executes MOV to CR3; `keep` is bit 63, which keeps translations: `kvm_set_cr3()`.
    fn mov_cr3(&mut self, context: &Context, registers: Registers, keep: bool) {
        let id = context.id;
        let level = self.vcpus[id].level();
        let cr4 = self.vcpus[id].cr4();
        let registers = Registers {
            pcid: if cr4.pcide() { registers.pcid } else { 0 },
            ..registers
        };
        let keep = keep && cr4.pcide();
        let pcid = registers.pcid(cr4);
        let changed = self.vcpus[id].registers[level] != registers;
        self.vcpus[id].registers[level] = registers;
        if self.config.ept {
            if !keep {
                self.guest_drops(context, Drop::Pcid(context.vpid, pcid));
            }
        } else {
            if changed {
                self.new_root(id);
            }
            if !keep {
                self.invalidate_pcid(id, pcid);
            }
        }
        if !keep {
            self.invalidated(context, Dropped::Pcid(invalidated::index(pcid)));
        }
    }

    /// Equivalent of `kvm_invalidate_pcid()`, for the PCID that was just loaded.
    fn invalidate_pcid(&mut self, id: usize, pcid: Pcid) {
        let bugs = self.bugs;
        let vcpu = &mut self.vcpus[id];
        let cr4 = vcpu.cr4();
        vcpu.pending.sync |= !bugs.has(Bug::NoSyncOnCr3);
        vcpu.pending.current |= !bugs.has(Bug::NoFlushOnCr3);
        if !cr4.pcide() || bugs.has(Bug::RootsKeptOnCr3) {
            return;
        }
        let mmu = vcpu.mmu();
        let current = vcpu.mmus[mmu].0[0];
        vcpu.mmus[mmu].keep(|root| {
            let of = Pcid::of(Cr3::from(root.pgd), cr4);
            Some(root) == current || of != pcid
        });
    }

    /// L1 executes INVVPID.
    fn invvpid(&mut self, id: usize, kind: u8, vpid12: u16, page: u16) -> Result<(), Wrong> {
        let operand = [vpid12.into(), address_of(page)];
        let done = self.exit(id, Instruction::Invvpid, kind.into(), operand, None)?;
        if !done || !self.config.vpid {
            return Ok(());
        }
        let now = self.now;
        let invalidated = &mut self.vcpus[id].invalidated;
        let one = usize::from(vpid12);
        match kind {
            0 => invalidated[one].note(Dropped::PageEverywhere(page), now),
            1 => invalidated[one].note(Dropped::All, now),
            2 => invalidated[1..3]
                .iter_mut()
                .for_each(|invalidated| invalidated.note(Dropped::All, now)),
            _ => invalidated[one].note(Dropped::ButGlobals, now),
        }
        Ok(())
    }

    /// L1 executes INVEPT.
    fn invept(&mut self, id: usize, all: bool, ept12: Ept12) -> Result<(), Wrong> {
        let kind = if all { 2 } else { 1 };
        let operand = [ept12.eptp().into_raw(), 0];
        if !self.exit(id, Instruction::Invept, kind, operand, None)? {
            return Ok(());
        }
        let now = self.now;
        let dropped = &mut self.vcpus[id].ept12_dropped;
        if all {
            *dropped = [now; 2];
        } else {
            dropped[usize::from(ept12.number)] = now;
        }
        Ok(())
    }
}
