// SPDX-License-Identifier: GPL-2.0

//! This module models KVM's C handlers for the invalidating instructions of guests, as far as the
//! handlers drop translations.
//!
//! The model follows Linux 7.3, like [`super::c_flush`].  All operands are valid: exceptions for
//! invalid operands have tests of their own.

use super::c_flush;
use crate::{
    ept::Eptp,
    exits::{
        ExitResult,
        Nested,
        Roots,
        Translations,
        Vcpu, //
    },
    flush::tags::Tags,
    model::guest::exit::{
        Exited,
        Instruction, //
    },
    x86::{
        addr::{
            CanonicalGva,
            Gva, //
        },
        invpcid::Pcid,
        mode::GuestRegs, //
    }, //
};

impl Exited<'_, '_> {
    /// Handles the exit by the model of KVM's C code.
    #[inline(never)]
    pub(crate) fn handled_by_c(&mut self, instruction: Instruction) -> ExitResult {
        match instruction {
            Instruction::Invlpg => self.invlpg_by_c(),
            Instruction::Invpcid => self.invpcid_by_c(),
            Instruction::Invvpid => self.invvpid_by_c(),
            Instruction::Invept => self.invept_by_c(),
        }
    }

    /// Handles INVLPG.
    fn invlpg_by_c(&mut self) -> ExitResult {
        self.mmu_invlpg();
        self.skip()
    }

    /// Invalidates the address: `kvm_mmu_invlpg()`.
    ///
    /// KVM's emulator calls this function too, with either backend; with EPT on there are no shadow
    /// tables to synchronise.
    pub(crate) fn mmu_invlpg(&mut self) {
        let roots = if self.is_shadowed() {
            Roots::ALL
        } else {
            Roots::NONE
        };
        if let Some(address) = self.canonical(self.exit_qualification()) {
            self.invalidate(address, roots);
        }
    }

    /// Handles INVPCID: `kvm_handle_invpcid()`.
    fn invpcid_by_c(&mut self) -> ExitResult {
        let [pcid, address] = self.operand;
        let pcid = Pcid::of(pcid.into(), self.cr4());
        let in_use = self.machine.vcpus[self.id].registers().pcid(self.cr4());
        match self.kind {
            // kvm_mmu_invpcid_gva().
            0 => {
                let roots = Roots::matching(self.pcids(), |other| other == pcid);
                if let Some(address) = self.canonical(address).filter(|_| roots != Roots::NONE) {
                    self.invalidate(address, roots);
                }
            }
            // kvm_invalidate_pcid().
            1 => {
                if pcid == in_use {
                    self.request_sync();
                }
                if self.cr4().pcide() {
                    let [_, one, two, three] = self.pcids();
                    let cached = [None, one, two, three];
                    self.free_roots(Roots::matching(cached, |other| other == pcid));
                }
            }
            _ => self.request_flush(),
        }
        self.skip()
    }

    /// Handles INVVPID: `handle_invvpid()`.
    fn invvpid_by_c(&mut self) -> ExitResult {
        if !self.l1_has_vpid() {
            // KVM raises #UD.
            return ExitResult::Resume;
        }
        let lacking = self.machine.config.switches.caps_mask;
        let address = self.canonical(self.operand[1]).filter(|_| self.kind == 0);
        self.with_preemption_disabled(|vcpu| {
            if !vcpu.vmcs02_is_here() {
                vcpu.forget_vpid12();
                return;
            }
            // nested_get_vpid02().
            let vpid = vcpu.tags().vpid02().or_else(|| vcpu.tags().vpid01());
            let what = match address {
                Some(address) => c_flush::address(vpid, address, lacking),
                None => c_flush::context(vpid, lacking),
            };
            if let Some(what) = what {
                vcpu.issue(what);
            }
        });
        if !self.tags().ept() {
            self.free_l2_roots();
        }
        self.skip()
    }

    /// Handles INVEPT: `handle_invept()`.
    fn invept_by_c(&mut self) -> ExitResult {
        let tag = Eptp::from(self.operand[0]).ep4ta();
        let roots = match self.kind {
            1 => Roots::matching(self.ept12_roots(), |eptp| eptp.ep4ta() == tag),
            _ => Roots::ALL,
        };
        if roots != Roots::NONE {
            self.free_ept12_roots(roots);
        }
        self.skip()
    }

    /// Checks that an address is canonical, as INVLPG does.
    fn canonical(&self, address: u64) -> Option<CanonicalGva> {
        Gva::new(address).canonical(self.linear_width())
    }
}
