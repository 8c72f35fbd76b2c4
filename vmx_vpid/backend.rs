// SPDX-License-Identifier: GPL-2.0

//! This module defines what a backend provides, and registers it.
//!
//! A backend takes the place of kvm_intel's functions for one layer: it allocates VPIDs, decides
//! which instruction serves which flush, and handles exits.  A backend is a type that implements
//! [`Backend`].  `kvm/ops.rs` makes a table of function pointers from the type, like `kvm_x86_ops`.

use crate::{
    exits::ExitResult,
    vpid::Vpid,
    x86::addr::CanonicalGva, //
};
use kernel::{
    error::{
        code::{
            EBUSY,
            EEXIST,
            EINVAL, //
        },
        VTABLE_DEFAULT_ERROR,
    },
    prelude::*, //
};

/// The operations of a backend, each named after the function of kvm_intel that it replaces.
///
/// Every operation may rely on three guarantees of KVM.  A flush runs on the CPU that has the vCPU
/// loaded; if the task moves in the middle, loading the vCPU on the other CPU requests another
/// flush.  The operations on VPIDs run in process context.  A handler runs in process context,
/// while KVM handles an exit of the handler's kind.
#[vtable]
pub(crate) trait Backend {
    /// The vCPU as the backend sees it.
    type Vcpu;

    /// The name under which the backend is reported.
    const LABEL: &'static str;

    /// Allocates a VPID for a vCPU; returns `None` if all VPIDs are in use, and the vCPU then runs
    /// without a VPID.
    fn allocate_vpid() -> Option<Vpid> {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Frees the VPID of a vCPU that will not run again.
    fn free_vpid(_vpid: Vpid) {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Drops every translation of the vCPU from this CPU, whatever root it belongs to.
    fn flush_tlb_all(_vcpu: &Self::Vcpu) {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Drops the translations of the root in use from this CPU.
    fn flush_tlb_current(_vcpu: &Self::Vcpu) {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Drops one linear address of the guest from this CPU.
    fn flush_tlb_gva(_vcpu: &Self::Vcpu, _gva: CanonicalGva) {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Drops the mappings that the guest itself may have cached from this CPU.
    fn flush_tlb_guest(_vcpu: &Self::Vcpu) {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Handles an exit for INVLPG.
    fn handle_invlpg(_vcpu: &Self::Vcpu) -> ExitResult {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Handles an exit for INVPCID.
    fn handle_invpcid(_vcpu: &Self::Vcpu) -> ExitResult {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Handles an exit for INVVPID.
    fn handle_invvpid(_vcpu: &Self::Vcpu) -> ExitResult {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Handles an exit for INVEPT.
    fn handle_invept(_vcpu: &Self::Vcpu) -> ExitResult {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Handles an exit for an EPT violation.
    fn handle_ept_violation(_vcpu: &Self::Vcpu) -> ExitResult {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Handles an exit for an EPT misconfiguration.
    fn handle_ept_misconfig(_vcpu: &Self::Vcpu) -> ExitResult {
        build_error!(VTABLE_DEFAULT_ERROR)
    }
}

/// Returns the name of a mandatory operation that a backend leaves empty, if there is one.
///
/// All operations are mandatory: KVM has no default for any of them, and a layer that is half C and
/// half Rust would not agree on the holder of a VPID.
fn missing<B: Backend>() -> Option<&'static str> {
    [
        (B::HAS_ALLOCATE_VPID, "allocate_vpid"),
        (B::HAS_FREE_VPID, "free_vpid"),
        (B::HAS_FLUSH_TLB_ALL, "flush_tlb_all"),
        (B::HAS_FLUSH_TLB_CURRENT, "flush_tlb_current"),
        (B::HAS_FLUSH_TLB_GVA, "flush_tlb_gva"),
        (B::HAS_FLUSH_TLB_GUEST, "flush_tlb_guest"),
        (B::HAS_HANDLE_INVLPG, "handle_invlpg"),
        (B::HAS_HANDLE_INVPCID, "handle_invpcid"),
        (B::HAS_HANDLE_INVVPID, "handle_invvpid"),
        (B::HAS_HANDLE_INVEPT, "handle_invept"),
        (B::HAS_HANDLE_EPT_VIOLATION, "handle_ept_violation"),
        (B::HAS_HANDLE_EPT_MISCONFIG, "handle_ept_misconfig"),
    ]
    .into_iter()
    .find_map(|(present, name)| (!present).then_some(name))
}

/// The registered backend, if there is one, and whether it serves.
///
/// # Invariants
///
/// `serving` implies that `label` is set.
pub(crate) struct Registry {
    label: Option<&'static str>,
    serving: bool,
}

impl Registry {
    /// Creates a registry without a backend.
    pub(crate) const fn new() -> Self {
        // INVARIANT: `serving` is false, so `label` may be `None`.
        Self {
            label: None,
            serving: false,
        }
    }

    /// Registers a backend.
    ///
    /// # Errors
    ///
    /// [`EEXIST`] if a backend is registered already, [`EINVAL`] if an operation is missing; the
    /// log names the registered backend, or the operation.
    pub(crate) fn register<B: Backend>(&mut self) -> Result {
        if let Some(label) = self.label {
            pr_err!("backend {}: {} is registered already\n", B::LABEL, label);
            return Err(EEXIST);
        }
        if let Some(op) = missing::<B>() {
            pr_err!("backend {}: operation {} is missing\n", B::LABEL, op);
            return Err(EINVAL);
        }
        self.label = Some(B::LABEL);
        Ok(())
    }

    /// Unregisters the backend.
    ///
    /// # Errors
    ///
    /// [`EBUSY`] while the backend serves, [`EINVAL`] if no backend is registered.
    pub(crate) fn unregister(&mut self) -> Result {
        let label = self.label.ok_or(EINVAL)?;
        if self.serving {
            pr_err!("backend {}: still serves guests: detach it first\n", label);
            return Err(EBUSY);
        }
        // INVARIANT: `serving` is false, so `label` may be `None`.
        self.label = None;
        Ok(())
    }

    /// Records whether KVM may call the backend from now on.
    pub(crate) fn set_serving(&mut self, serving: bool) {
        // INVARIANT: `serving` becomes true only if `label` is set.
        self.serving = serving && self.label.is_some();
    }

    /// Returns the registered backend's name.
    pub(crate) fn label(&self) -> Option<&'static str> {
        self.label
    }
}

#[cfg(CONFIG_VMX_VPID_KUNIT_TEST)]
#[kernel::macros::kunit_tests(vmx_vpid_backend)]
mod tests {
    use super::*;

    struct Whole;
    #[vtable]
    impl Backend for Whole {
        type Vcpu = ();
        const LABEL: &'static str = "whole";
        fn allocate_vpid() -> Option<Vpid> {
            None
        }
        fn free_vpid(_: Vpid) {}
        fn flush_tlb_all((): &()) {}
        fn flush_tlb_current((): &()) {}
        fn flush_tlb_gva((): &(), _: CanonicalGva) {}
        fn flush_tlb_guest((): &()) {}
        fn handle_invlpg((): &()) -> ExitResult {
            ExitResult::Resume
        }
        fn handle_invpcid((): &()) -> ExitResult {
            ExitResult::Resume
        }
        fn handle_invvpid((): &()) -> ExitResult {
            ExitResult::Resume
        }
        fn handle_invept((): &()) -> ExitResult {
            ExitResult::Resume
        }
        fn handle_ept_violation((): &()) -> ExitResult {
            ExitResult::Resume
        }
        fn handle_ept_misconfig((): &()) -> ExitResult {
            ExitResult::Resume
        }
    }

    struct Half;
    #[vtable]
    impl Backend for Half {
        type Vcpu = ();
        const LABEL: &'static str = "half";
        fn allocate_vpid() -> Option<Vpid> {
            None
        }
        fn free_vpid(_: Vpid) {}
    }

    #[test]
    fn an_empty_operation_is_refused_by_name() {
        assert_eq!(missing::<Half>(), Some("flush_tlb_all"));
        let mut registry = Registry::new();
        assert_eq!(registry.register::<Half>(), Err(EINVAL));
        assert!(registry.label().is_none());
    }

    #[test]
    fn one_backend_can_be_registered_at_a_time() {
        let mut registry = Registry::new();
        assert_eq!(registry.unregister(), Err(EINVAL));
        assert_eq!(registry.register::<Whole>(), Ok(()));
        assert_eq!(registry.register::<Whole>(), Err(EEXIST));
        registry.set_serving(true);
        assert_eq!(registry.unregister(), Err(EBUSY));
        registry.set_serving(false);
        assert_eq!(registry.unregister(), Ok(()));
        registry.set_serving(true);
        assert_eq!(registry.register::<Whole>(), Ok(()));
        assert_eq!(registry.unregister(), Ok(()));
    }
}
