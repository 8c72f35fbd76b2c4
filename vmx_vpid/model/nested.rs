// SPDX-License-Identifier: GPL-2.0

//! KVM's core as far as it asks for flushes when a hypervisor runs in a guest.

use super::{
    kvm::{
        Machine,
        Wrong, //
    },
    vcpu::{
        Fault,
        Roots,
        Vcpu,
        L2, //
    }, //
};

impl Machine<'_> {
    /// L1 enters VMX operation: `enter_vmx_operation()`.
    pub(super) fn vmx_on(&mut self, id: usize, cpu: usize) -> Result<(), Wrong> {
        self.with(id, cpu, |this, vcpu| {
            if !vcpu.vmxon {
                vcpu.vmxon = true;
                vcpu.vpid02 = this.take_vpid();
                // Either is enough by itself.
                if !this.broken(Fault::NoFlushOnVmxon) {
                    vcpu.vmcs[1] = None;
                    vcpu.last_vpid12 = 0;
                }
            }
            Ok(())
        })
    }

    /// L1 leaves VMX operation: `free_nested()`.
    pub(super) fn vmx_off(&mut self, id: usize, cpu: usize) -> Result<(), Wrong> {
        self.with(id, cpu, |this, vcpu| {
            if vcpu.vmxon && vcpu.l2.is_none() {
                vcpu.vmxon = false;
                this.give_back(vcpu.vpid02)?;
                vcpu.mmus[1] = Roots::default();
            }
            Ok(())
        })
    }

    /// Asks for what L1 may expect of a VM entry or exit: `nested_vmx_transition_tlb_flush()`.
    fn transition(&self, vcpu: &mut Vcpu, l2: L2, entry: bool) {
        if l2.vpid12 == 0 {
            vcpu.pending.guest |= !self.broken(Fault::NoFlushOnSharedVpid);
        } else if entry && l2.vpid12 != vcpu.last_vpid12 {
            vcpu.last_vpid12 = l2.vpid12;
            vcpu.pending.guest |= !self.broken(Fault::NoFlushOnVpid12);
        } else if !self.config.ept && vcpu.vpid02.is_none() {
            vcpu.pending.current |= !self.broken(Fault::NoFlushOnSharedVpid);
        }
    }

    /// Enters L2: `nested_vmx_enter_non_root_mode()`.
    pub(super) fn enter_l2(
        &mut self,
        id: usize,
        cpu: usize,
        vpid12: u16,
        eptp12: Option<u8>,
    ) -> Result<(), Wrong> {
        // Without a VPID L2 may find nothing that it left: as if it had other tables each time.
        let space = if vpid12 == 0 {
            self.fresh()
        } else {
            u32::MAX - u32::from(vpid12)
        };
        self.with(id, cpu, |this, vcpu| {
            if !vcpu.vmxon || vcpu.l2.is_some() {
                return Ok(());
            }
            this.serve_local(vcpu)?;
            let l2 = L2 {
                vpid12,
                space,
                ept: eptp12.is_some(),
            };
            vcpu.l2 = Some(l2);
            this.load(vcpu);
            this.transition(vcpu, l2, true);
            // Without an EPT of its own L2 runs on L1's memory.  With EPT off it is L2's own tables
            // that are shadowed: they are its address space.
            vcpu.variants[1] = eptp12.map_or(0, |eptp12| eptp12 + 1);
            this.new_root(id, vcpu);
            Ok(())
        })
    }

    /// Leaves L2: `__nested_vmx_vmexit()`.
    pub(super) fn leave_l2(&mut self, id: usize, cpu: usize) -> Result<(), Wrong> {
        self.with(id, cpu, |this, vcpu| {
            let Some(l2) = vcpu.l2 else {
                return Ok(());
            };
            this.serve_local(vcpu)?;
            vcpu.l2 = None;
            this.load(vcpu);
            this.transition(vcpu, l2, false);
            this.new_root(id, vcpu);
            Ok(())
        })
    }
}
