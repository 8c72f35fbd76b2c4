// SPDX-License-Identifier: GPL-2.0

//! This module writes a guest's control registers, and makes the requests of KVM's core for these
//! writes.
//!
//! Writes of CR3, and of CR4.PGE with EPT on, are in [`super::actions`].  The writes here exit on
//! every machine: the CPU drops nothing by itself, and KVM has to drop what the CPU would have
//! dropped.

use super::{
    invalidated::Dropped,
    memory::{
        frames,
        Gfn, //
    }, //
};
use crate::{
    model::{
        bug::Bug,
        cpu::{
            context::Context,
            tlb_entry::Drop, //
        },
        kvm::{
            c_flush,
            vcpu::Roots, //
        },
        machine::{
            Config,
            Machine,
            Wrong, //
        }, //
    },
    x86::{
        control_regs::{
            Cr3,
            Cr4, //
        },
        invpcid::Pcid, //
    }, //
};
use kernel::prelude::Zeroable;

/// CR3 of a guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Registers {
    /// Which of its two page-map level-4 tables it refers to, 0 or 1.
    pub(crate) root: u8,
    /// The PCID, 0 or 1; what is in its place with CR4.PCIDE clear.
    pub(crate) pcid: u8,
}

impl Registers {
    /// Returns what a guest loads for one of two processes, 0 or 1.
    pub(crate) fn of_process(process: u8) -> Self {
        Self {
            root: process,
            pcid: process,
        }
    }

    /// Returns the frame of the table.
    pub(crate) fn table(self) -> Gfn {
        frames::PML4.plus(self.root.into())
    }

    /// Returns the register.
    pub(crate) fn cr3(self) -> Cr3 {
        Cr3::from(self.table().address() | u64::from(self.pcid))
    }

    /// Returns the PCID, as CR4 has it.
    pub(crate) fn pcid(self, cr4: Cr4) -> Pcid {
        Pcid::of(self.cr3(), cr4)
    }
}

/// Bits of CR0 and CR4 that say how a guest's addresses are translated and tagged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Controls {
    /// CR0.PG.
    pub(crate) paging: bool,
    /// CR4.PCIDE: in long mode only.
    pub(crate) pcide: bool,
    /// CR4.PAE, which long mode cannot do without.
    ///
    /// A guest's tables have one form here.  That they mean something else with CR4.PAE clear is
    /// told by the table that CR3 stands for: the other one.
    pub(crate) pae: bool,
    /// CR4.SMEP: the model has no rights that depend on it, and all of its flushes.
    pub(crate) smep: bool,
}

/// A bit that a guest toggles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bit {
    /// CR0.PG.
    Paging,
    /// CR4.PCIDE.
    Pcide,
    /// CR4.PAE.
    Pae,
    /// CR4.SMEP.
    Smep,
}

impl Bit {
    /// All.
    pub(crate) const ALL: [Self; 4] = [Self::Paging, Self::Pcide, Self::Pae, Self::Smep];
}

impl Controls {
    /// Those of a guest that is up.
    pub(crate) fn usual(config: &Config) -> Self {
        Self {
            paging: true,
            pcide: config.pcids,
            pae: true,
            smep: false,
        }
    }

    /// Returns CR4.
    pub(crate) fn cr4(self) -> Cr4 {
        Cr4::zeroed()
            .with_pcide(self.pcide)
            .with_physical_address_extension(self.pae)
            .with_smep(self.smep)
    }

    /// Returns the frame of the guest's root table; `None` with paging off.
    pub(crate) fn table(self, registers: Registers) -> Option<Gfn> {
        let root = if self.pae {
            registers.root
        } else {
            registers.root ^ 1
        };
        self.paging.then(|| Registers { root, ..registers }.table())
    }

    /// Toggles a bit; `None` where that is a fault.
    fn toggled(self, bit: Bit, registers: Registers, config: &Config) -> Option<Self> {
        let mut new = self;
        match bit {
            Bit::Paging => new.paging ^= true,
            Bit::Pcide => new.pcide ^= true,
            Bit::Pae => new.pae ^= true,
            Bit::Smep => new.smep ^= true,
        }
        // PCIDs are of long mode, and there are none but 0 when they begin.
        let long = new.paging && new.pae;
        let begins = new.pcide && !self.pcide;
        let possible = long && config.pcids && !(begins && registers.pcid != 0);
        (!new.pcide || possible).then_some(new)
    }
}

impl Machine<'_> {
    /// The guest toggles a bit of CR0 or CR4: `kvm_set_cr0()` and `kvm_set_cr4()`.
    pub(crate) fn toggle(&mut self, context: &Context, bit: Bit) {
        let id = context.id;
        let level = self.vcpus[id].level();
        let (old, registers) = (self.vcpus[id].controls[level], self.vcpus[id].registers());
        let Some(new) = old.toggled(bit, registers, &self.config) else {
            return;
        };
        self.vcpus[id].controls[level] = new;
        let (ept, bugs) = (self.config.ept, self.bugs);
        let index = context.pcid_index();
        match bit {
            // kvm_post_set_cr0().  With paging off nothing was cached of linear addresses, as far
            // as the guest knows: what there is must be gone either way.
            Bit::Paging => {
                let flush = !new.paging && !bugs.has(Bug::NoFlushOnPagingOff);
                self.vcpus[id].pending.guest |= flush;
                if !bugs.has(Bug::RootsKeptOnPaging) {
                    self.reset_context(id);
                }
                self.invalidated(context, Dropped::All);
            }
            // kvm_post_set_cr4().
            Bit::Pcide if new.pcide => {
                if !ept && !bugs.has(Bug::RootsKeptOnPcideOn) {
                    self.reset_context(id);
                }
            }
            Bit::Pcide => {
                self.vcpus[id].pending.guest |= !bugs.has(Bug::NoFlushOnPcideOff);
                self.invalidated(context, Dropped::All);
            }
            Bit::Pae | Bit::Smep => {
                let as_cr3 = bugs.has(Bug::GlobalsKeptOnCr4);
                if as_cr3 {
                    let what = Drop::Pcid(context.vpid, context.pcid);
                    self.cpus[context.cpu].drop(what);
                } else if !bugs.has(Bug::RootsKeptOnCr4) {
                    self.reset_context(id);
                }
                // All that is cached under the PCID: the manual excepts no globals, as it does
                // for MOV to CR3.
                if bit == Bit::Pae || new.smep {
                    let flush = !as_cr3 && !bugs.has(Bug::NoFlushOnCr4);
                    self.vcpus[id].pending.current |= flush;
                    self.invalidated(context, Dropped::PcidAndGlobals(index));
                }
            }
        }
    }

    /// Frees every root: `kvm_mmu_reset_context()`, `kvm_mmu_unload()`.
    pub(crate) fn reset_context(&mut self, id: usize) {
        self.vcpus[id].mmus = [Roots::default(); 2];
    }

    /// INIT comes: `kvm_vcpu_reset()`.
    ///
    /// It waits until L1 has left VMX operation and system-management mode; of L2 it is a VM exit.
    pub(crate) fn init(&mut self, context: &Context) -> Result<(), Wrong> {
        let id = context.id;
        if self.vcpus[id].vmxon {
            return self.leave_l2(id);
        }
        if self.vcpus[id].smm {
            return Ok(());
        }
        let ignored = self.bugs.has(Bug::InitDropsNothing);
        // vmx_vcpu_reset() has an INVVPID of its own.
        let vpid01 = c_flush::context(self.vcpus[id].vpid01, self.config.switches.caps_mask);
        if let Some(invvpid) = vpid01.filter(|_| !ignored) {
            invvpid.execute(self.here())?;
            self.follow(id);
        }
        let vcpu = &mut self.vcpus[id];
        let paging = vcpu.controls[0].paging;
        (vcpu.registers[0], vcpu.controls[0]) = (Registers::default(), Controls::default());
        vcpu.pending.guest |= !ignored && !self.bugs.has(Bug::NoFlushOnInit);
        if paging && !ignored && !self.bugs.has(Bug::RootsKeptOnInit) {
            self.reset_context(id);
        }
        self.invalidated(context, Dropped::All);
        Ok(())
    }
}
