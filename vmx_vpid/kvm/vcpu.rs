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

// This module casts a `struct kvm_vcpu` to the `struct vcpu_vmx` around it; KVM asserts the same.
kernel::static_assert!(offset_of!(bindings::vcpu_vmx, vcpu) == 0);

/// A vCPU that KVM called an operation for.
///
/// # Invariants
///
/// The vCPU is part of a `struct vcpu_vmx`, and loaded by this task, which holds the vCPU's mutex
/// or destroys the vCPU: no other task changes the fields that this module reads.
///
/// If a vCPU is destroyed while L2 is active, nested_vmx_free_vcpu() serves pending flushes after
/// the VPIDs were freed.  Such a flush may drop mappings of another vCPU that has the VPID by now,
/// and may record that VPID as flushed, which is true.
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
        // SAFETY: By the safety requirements `vcpu` points to a vCPU that lives for `'a`, and
        // `Self` is transparent.
        // INVARIANT: By the safety requirements the invariants hold for `vcpu`: KVM calls an
        // operation with the vCPU loaded, and with its mutex held unless the vCPU is being
        // destroyed.
        unsafe { &*vcpu.cast() }
    }

    /// Returns the `struct vcpu_vmx` of the vCPU.
    #[inline]
    pub(super) fn vmx(&self) -> *const bindings::vcpu_vmx {
        self.0.get().cast()
    }

    /// Returns whether the vCPU's VM is being destroyed.
    pub(super) fn is_dying(&self) -> bool {
        // SAFETY: By the type invariant the vCPU is live, and so is its VM.  The count is an
        // aligned word that other tasks may write at the same time; one load reads all of it.
        unsafe {
            let kvm = (*self.vmx()).vcpu.kvm;
            (&raw const (*kvm).users_count.refs.counter).read_volatile() == 0
        }
    }

    /// Returns whether L2 is active and L1 runs L2 with a VPID.
    #[inline]
    fn l2_has_vpid(&self) -> bool {
        let vmx = self.vmx();
        // SAFETY: By the type invariant `vmx` is live and its fields are stable.
        let flags = unsafe { (*vmx).vcpu.arch.hflags };
        if flags & bindings::HF_GUEST_MASK == 0 {
            return false;
        }
        // SAFETY: By the type invariant the fields are live and stable.  While L2 is active,
        // `cached_vmcs12` points to a vmcs12, which KVM allocates when L1 enters VMX operation and
        // frees after L2 is left.
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

    /// Returns the root with the address that `root` returns.
    ///
    /// This function calls `root` again after the look at the root's page: to keep the address
    /// would take a register, which each flush would have to save.
    #[inline]
    fn root_at(&self, root: impl Fn() -> bindings::hpa_t) -> Root {
        if root() == bindings::INVALID_PAGE {
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
            // SAFETY: There is a vCPU, so kvm_intel is initialised; an operation runs, so its
            // symbols are resolved.
            accessed_dirty: role.ad_disabled() == 0
                && unsafe { super::symbols::enable_ept_ad_bits() },
        }
    }
}

impl Tags for Vcpu {
    #[inline]
    fn ept(&self) -> bool {
        // SAFETY: There is a vCPU, so kvm_intel is initialised; an operation runs, so its symbols
        // are resolved.
        unsafe { super::symbols::enable_ept() }
    }

    #[inline]
    fn vpid(&self) -> bool {
        // SAFETY: There is a vCPU, so kvm_intel is initialised; an operation runs, so its symbols
        // are resolved.
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
        // KVM does not clear `vpid02` when it frees the VPID: outside VMX operation the number may
        // be another vCPU's VPID.
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
        // L2 runs with vpid01 if no VPID was free for vpid02.
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
        // `root_mmu` has the roots of L1, and of L2 without an EPT of L1's; `guest_mmu` has the
        // roots of L2 with such an EPT.
        // SAFETY: By the type invariant the fields are live and stable.
        let (l1, l2) = unsafe { (&(*vmx).vcpu.arch.root_mmu, &(*vmx).vcpu.arch.guest_mmu) };
        let [a, b, c] = l1.prev_roots;
        let [d, e, f] = l2.prev_roots;
        [l1.root, a, b, c, l2.root, d, e, f].map(|root| self.root_at(|| root.hpa))
    }
}
