// SPDX-License-Identifier: GPL-2.0

//! This module models KVM's core as far as KVM requests flushes for a guest that is a hypervisor.

use super::vcpu::{
    Ept12,
    Roots,
    L2, //
};
use crate::model::{
    bug::Bug,
    guest::invalidated::Dropped,
    machine::{
        Machine,
        Wrong, //
    }, //
};

impl Machine<'_> {
    /// Enters VMX operation for L1: `enter_vmx_operation()`.
    pub(crate) fn vmx_on(&mut self, id: usize) {
        if !self.vcpus[id].vmxon {
            let vpid02 = self.take_vpid();
            let vcpu = &mut self.vcpus[id];
            vcpu.vmxon = true;
            vcpu.vpid02 = vpid02;
            // Either of the two resets is enough to have vpid02 flushed.
            if !self.bugs.has(Bug::NoFlushOnVmxon) {
                vcpu.vmcs[1] = None;
                vcpu.last_vpid12 = 0;
            }
        }
    }

    /// Leaves VMX operation for L1: `free_nested()`.
    pub(crate) fn vmx_off(&mut self, id: usize) -> Result<(), Wrong> {
        let vcpu = &mut self.vcpus[id];
        if vcpu.vmxon && vcpu.l2.is_none() {
            vcpu.vmxon = false;
            vcpu.mmus[1] = Roots::default();
            let vpid02 = vcpu.vpid02;
            if !self.bugs.has(Bug::Vpid02Leaked) {
                self.free(vpid02)?;
            }
        }
        Ok(())
    }

    /// Requests the flush that L1 may expect of a VM entry or exit:
    /// `nested_vmx_transition_tlb_flush()`.
    fn transition(&mut self, id: usize, l2: L2, entry: bool) {
        let bugs = self.bugs;
        let vcpu = &mut self.vcpus[id];
        if l2.vpid12 == 0 {
            vcpu.pending.guest |= !bugs.has(Bug::NoFlushOnSharedVpid);
        } else if entry && l2.vpid12 != vcpu.last_vpid12 {
            if !bugs.has(Bug::Vpid12NotStored) {
                vcpu.last_vpid12 = l2.vpid12;
            }
            vcpu.pending.guest |= !bugs.has(Bug::NoFlushOnVpid12);
        } else if !self.config.ept && vcpu.vpid02.is_none() {
            vcpu.pending.current |= !bugs.has(Bug::NoFlushOnSharedVpid);
        }
        // Without a VPID, a VM entry and a VM exit invalidate the translations of L1 and L2.
        if l2.vpid12 == 0 {
            let now = self.now;
            for reader in [0, 3] {
                self.vcpus[id].invalidated[reader].note(Dropped::All, now);
            }
        }
    }

    /// Enters L2: `nested_vmx_enter_non_root_mode()`.
    pub(crate) fn enter_l2(&mut self, id: usize, l2: L2) -> Result<(), Wrong> {
        let l2 = L2 {
            ept12: l2.ept12.filter(|_| self.config.ept),
            ..l2
        };
        let vcpu = &self.vcpus[id];
        // If neither L1 nor L2 got a VPID, KVM refuses to enter an L2 with a vpid12.
        let impossible = l2.vpid12 != 0 && vcpu.vpid02.or(vcpu.vpid01).is_none();
        let without = !self.config.vpid && l2.vpid12 != 0;
        if !vcpu.vmxon || vcpu.l2.is_some() || without || impossible {
            return Ok(());
        }
        if !self.bugs.has(Bug::TransitionLosesRequests) {
            self.serve_local(id)?;
        } else {
            self.vcpus[id].pending.current = false;
            self.vcpus[id].pending.guest = false;
        }
        self.vcpus[id].l2 = Some(l2);
        self.begin(id);
        self.load(id);
        self.transition(id, l2, true);
        self.new_root(id);
        Ok(())
    }

    /// Records that nothing is cached for a reader or an EPT that runs for the first time.
    fn begin(&mut self, id: usize) {
        let now = self.now;
        let vcpu = &mut self.vcpus[id];
        let reader = vcpu.reader_index();
        if vcpu.ran >> reader & 1 == 0 {
            vcpu.ran |= 1 << reader;
            vcpu.invalidated[reader].note(Dropped::All, now);
        }
        if let Some(ept12) = vcpu.ept12() {
            if vcpu.ran_on >> ept12.number & 1 == 0 {
                vcpu.ran_on |= 1 << ept12.number;
                vcpu.ept12_dropped[usize::from(ept12.number)] = now;
            }
        }
    }

    /// Switches L2 to another EPT of L1's by VMFUNC: `nested_vmx_eptp_switching()`.
    ///
    /// Like KVM, a switch to the EPT in use does nothing.
    pub(crate) fn switch_ept12(&mut self, id: usize, ept12: Ept12) {
        let vcpu = &mut self.vcpus[id];
        let Some(L2 {
            vpid12,
            ept12: Some(old),
        }) = vcpu.l2
        else {
            return;
        };
        if old == ept12 {
            return;
        }
        vcpu.l2 = Some(L2 {
            vpid12,
            ept12: Some(ept12),
        });
        self.begin(id);
        self.new_root(id);
        // The switch invalidates the translations of an L2 without a VPID.
        if vpid12 == 0 {
            let (now, flush) = (self.now, !self.bugs.has(Bug::NoFlushOnVmfunc));
            let vcpu = &mut self.vcpus[id];
            vcpu.pending.guest |= flush;
            let reader = vcpu.reader_index();
            vcpu.invalidated[reader].note(Dropped::All, now);
        }
    }

    /// Leaves L2: `__nested_vmx_vmexit()`.
    pub(crate) fn leave_l2(&mut self, id: usize) -> Result<(), Wrong> {
        let Some(l2) = self.vcpus[id].l2 else {
            return Ok(());
        };
        if !self.bugs.has(Bug::TransitionLosesRequests) {
            self.serve_local(id)?;
        } else {
            self.vcpus[id].pending.current = false;
            self.vcpus[id].pending.guest = false;
        }
        self.vcpus[id].l2 = None;
        self.load(id);
        self.transition(id, l2, false);
        self.new_root(id);
        Ok(())
    }
}
