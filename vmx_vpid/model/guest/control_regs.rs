// SPDX-License-Identifier: GPL-2.0

//! This module models a guest's control registers, and the flushes that KVM's core requests when
//! the guest writes them.
//!
//! [`super::actions`] handles writes of CR3, and of CR4.PGE with EPT on.  The writes in this file
//! exit on every machine: the CPU drops nothing, and KVM has to flush for the guest.

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
    /// The page-map level-4 table that CR3 refers to, 0 or 1.
    pub(crate) root: u8,
    /// The PCID, 0 or 1; with CR4.PCIDE clear, the bits in place of the PCID.
    pub(crate) pcid: u8,
}

impl Registers {
    /// Returns the value that a guest loads for one of two processes, 0 or 1.
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

    /// Returns the value of CR3.
    pub(crate) fn cr3(self) -> Cr3 {
        Cr3::from(self.table().address() | u64::from(self.pcid))
    }

    /// Returns the PCID; PCID 0 with CR4.PCIDE clear.
    pub(crate) fn pcid(self, cr4: Cr4) -> Pcid {
        Pcid::of(self.cr3(), cr4)
    }
}

/// The bits of CR0 and CR4 that control how a guest's addresses are translated and tagged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Controls {
    /// CR0.PG.
    pub(crate) paging: bool,
    /// CR4.PCIDE: in long mode only.
    pub(crate) pcide: bool,
    /// CR4.PAE, which long mode requires.
    ///
    /// A guest's tables always have the same format in the model.  With CR4.PAE clear the tables
    /// mean something else, which the model expresses by using the other root table in place of the
    /// one in CR3.
    pub(crate) pae: bool,
    /// CR4.SMEP: the model has the flushes of SMEP, but not the protection.
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
    /// All bits.
    pub(crate) const ALL: [Self; 4] = [Self::Paging, Self::Pcide, Self::Pae, Self::Smep];
}

impl Controls {
    /// Returns the controls of a guest that has booted.
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

    /// Toggles a bit; `None` if that raises an exception.
    fn toggled(self, bit: Bit, registers: Registers, config: &Config) -> Option<Self> {
        let mut new = self;
        match bit {
            Bit::Paging => new.paging ^= true,
            Bit::Pcide => new.pcide ^= true,
            Bit::Pae => new.pae ^= true,
            Bit::Smep => new.smep ^= true,
        }
        // PCIDs require long mode, and CR4.PCIDE can be set in PCID 0 only.
        let long = new.paging && new.pae;
        let begins = new.pcide && !self.pcide;
        let possible = long && config.pcids && !(begins && registers.pcid != 0);
        (!new.pcide || possible).then_some(new)
    }
}

impl Machine<'_> {
    /// Toggles a bit of CR0 or CR4 for the guest: `kvm_set_cr0()` and `kvm_set_cr4()`.
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
            // kvm_post_set_cr0().  To the guest, no linear address is cached with paging off: the
            // entries have to be dropped in both directions.
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
                // All entries of the PCID: unlike for MOV to CR3, the manual does not except
                // globals.
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

    /// Executes an INIT: `kvm_vcpu_reset()`.
    ///
    /// The INIT is blocked while L1 is in VMX operation or in system-management mode; in L2 the
    /// INIT is a VM exit.
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
