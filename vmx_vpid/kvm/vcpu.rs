// SPDX-License-Identifier: GPL-2.0

//! This module reads the fields of KVM's vCPU that a flush needs.

use crate::{
    bindings,
    ept::Levels,
    flush::tags::{
        Root,
        Tags,
        ROOTS, //
    },
    vpid::Vpid,
    x86::addr::Hpa, //
};
use core::mem::offset_of;
use kernel::types::Opaque;

// KVM's `to_vmx()` is a cast, and KVM asserts the same.
kernel::static_assert!(offset_of!(bindings::vcpu_vmx, vcpu) == 0);

/// A vCPU that KVM called an operation for.
///
/// # Invariants
///
/// It is part of a `struct vcpu_vmx`, loaded by this task, which holds the vCPU's mutex or destroys
/// the vCPU: no other task changes the fields that are read here.
///
/// If a vCPU is destroyed while L2 is active, nested_vmx_free_vcpu() serves pending flushes after
/// the VPIDs were freed.  Such a flush may drop mappings of another vCPU that has the VPID by now,
/// and may record that vCPU's VPID as flushed, which it is then.
#[repr(transparent)]
pub(crate) struct Vcpu(Opaque<bindings::kvm_vcpu>);

impl Vcpu {
    /// Makes the vCPU of the pointer that KVM passed to an operation.
    ///
    /// # Safety
    ///
    /// `vcpu` points to a vCPU that lives for `'a` and for which the invariants of [`Vcpu`] hold.
    #[inline]
    pub(super) unsafe fn from_raw<'a>(vcpu: *mut bindings::kvm_vcpu) -> &'a Self {
        // SAFETY: KVM passes a live vCPU, and `Self` is transparent.
        // INVARIANT: KVM calls those entries with the vCPU loaded, and its mutex held unless it is
        // being destroyed.
        unsafe { &*vcpu.cast() }
    }

    /// Returns the vCPU as kvm_intel knows it.
    #[inline]
    pub(super) fn vmx(&self) -> *const bindings::vcpu_vmx {
        self.0.get().cast()
    }

    /// Returns whether its VM is being destroyed.
    pub(super) fn is_dying(&self) -> bool {
        // SAFETY: By the type invariant the vCPU is live, and so is its VM.  The count is an
        // aligned word that others write: one load of all of it.
        unsafe {
            let kvm = (*self.vmx()).vcpu.kvm;
            (&raw const (*kvm).users_count.refs.counter).read_volatile() == 0
        }
    }

    /// Returns whether L2 is active and L1 has given it a VPID of its own.
    #[inline]
    fn l2_has_vpid(&self) -> bool {
        let vmx = self.vmx();
        // SAFETY: By the type invariant `vmx` is live and its fields are stable.
        let flags = unsafe { (*vmx).vcpu.arch.hflags };
        if flags & bindings::HF_GUEST_MASK == 0 {
            return false;
        }
        // SAFETY: By the type invariant the fields are live and stable.  While L2 is active there
        // is a cached vmcs12; it is allocated with the vCPU's nested state and freed after L2 is
        // left.
        let (primary, secondary) = unsafe {
            let vmcs12 = (*vmx).nested.cached_vmcs12;
            (
                (*vmcs12).cpu_based_vm_exec_control,
                (*vmcs12).secondary_vm_exec_control,
            )
        };
        primary & bindings::VMX_VPID_SECONDARY_CONTROLS != 0
            && secondary & bindings::VMX_VPID_ENABLE_VPID != 0
    }

    /// Returns a root by its address, which the function returns.
    ///
    /// It is called again after the look at the root's page: to keep the address would take a
    /// register, which each flush would have to save.
    #[inline]
    fn root_at(&self, root: impl Fn() -> bindings::hpa_t) -> Root {
        if root() == bindings::VMX_VPID_INVALID_PAGE {
            return Root::Invalid;
        }
        if !self.ept() {
            return Root::Unknown;
        }

        // SAFETY: A valid root of a vCPU with EPT on is the dummy root, or a page of the kernel's
        // memory map, and the helper only reads.  Every member of the role's union is valid for any
        // bits.
        let role = unsafe { bindings::vmx_vpid_root_role(root()).__bindgen_anon_1 };
        if role.level() == 0 {
            return Root::Unknown;
        }
        Root::Known {
            table: Hpa::new(root()),
            levels: if role.level() == 5 {
                Levels::Five
            } else {
                Levels::Four
            },
            // SAFETY: There is a vCPU and an operation runs, so the symbols are resolved.
            accessed_dirty: role.ad_disabled() == 0
                && unsafe { super::symbols::enable_ept_ad_bits() },
        }
    }
}

impl Tags for Vcpu {
    #[inline]
    fn ept(&self) -> bool {
        // SAFETY: There is a vCPU, so kvm_intel is loaded; an operation runs, so its symbols are
        // resolved.
        unsafe { super::symbols::enable_ept() }
    }

    #[inline]
    fn vpid(&self) -> bool {
        // SAFETY: There is a vCPU, so kvm_intel is loaded; an operation runs, so its symbols are
        // resolved.
        unsafe { super::symbols::enable_vpid() }
    }

    #[inline]
    fn vpid01(&self) -> Option<Vpid> {
        // SAFETY: By the type invariant the field is live and stable.
        let vpid = unsafe { (*self.vmx()).vpid };
        // CAST: KVM keeps a 16-bit number in an `int`.
        Vpid::new(vpid as u16)
    }

    #[inline]
    fn vpid02(&self) -> Option<Vpid> {
        // KVM leaves the number where it was when it gives the VPID back: outside VMX operation
        // it is another vCPU's.
        // SAFETY: By the type invariant the fields are live and stable.
        let (vmxon, vpid02) = unsafe {
            let nested = &raw const (*self.vmx()).nested;
            ((*nested).vmxon || (*nested).smm.vmxon, (*nested).vpid02)
        };
        if vmxon {
            Vpid::new(vpid02)
        } else {
            None
        }
    }

    #[inline]
    fn current_vpid(&self) -> Option<Vpid> {
        // L2 runs with vpid01 if there was no VPID left for vpid02.
        if self.l2_has_vpid() {
            self.vpid02().or_else(|| self.vpid01())
        } else {
            self.vpid01()
        }
    }

    #[inline]
    fn root(&self) -> Root {
        // SAFETY: By the type invariant the fields are live and stable; `mmu` always points to one
        // of the vCPU's own `struct kvm_mmu`.
        self.root_at(|| unsafe { (*(*self.vmx()).vcpu.arch.mmu).root.hpa })
    }

    fn roots(&self) -> [Root; ROOTS] {
        let vmx = self.vmx();
        // L1's tables, and those of an L2 that L1 gave an EPT: there is no other `struct kvm_mmu`.
        // SAFETY: By the type invariant the fields are live and stable.
        let (l1, l2) = unsafe { (&(*vmx).vcpu.arch.root_mmu, &(*vmx).vcpu.arch.guest_mmu) };
        let [a, b, c] = l1.prev_roots;
        let [d, e, f] = l2.prev_roots;
        [l1.root, a, b, c, l2.root, d, e, f].map(|root| self.root_at(|| root.hpa))
    }
}
