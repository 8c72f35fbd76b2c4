// SPDX-License-Identifier: GPL-2.0

//! This module executes INVLPG of a guest on shadow paging.
//!
//! The exit qualification is the linear address, with the segment's base included.  INVLPG accesses
//! no memory, so neither a segment's limit nor a missing page raises an exception, and an address
//! that is not canonical has no effect.  The CPU checks the privilege before the exit: #GP(0) comes
//! first.
//! Source: the manual's instruction reference, INVLPG.  Equivalent of `handle_invlpg()`.

use super::{
    ExitResult,
    Roots,
    Translations, //
};
use crate::{
    stats::Counter,
    x86::addr::Gva, //
};

/// Handles an exit for INVLPG.
#[inline]
pub(crate) fn handle(vcpu: &mut impl Translations) -> ExitResult {
    vcpu.count(Counter::ExitInvlpg);
    let address = Gva::new(vcpu.exit_qualification());
    if let Some(address) = address.canonical(vcpu.linear_width()) {
        // INVLPG drops global pages of every PCID, and KVM does not know which entries are global,
        // so the handler invalidates the address in all roots.  A root that KVM does not keep needs
        // nothing: `kvm_mmu_load()` synchronises and flushes it when the guest uses it.
        vcpu.invalidate(address, Roots::ALL);
    }
    vcpu.count_in_kvm();
    vcpu.skip()
}

#[cfg(CONFIG_VMX_VPID_KUNIT_TEST)]
#[kernel::macros::kunit_tests(vmx_vpid_exits_invlpg)]
mod tests {
    use super::*;
    use crate::exits::mock::{
        done,
        Event::*,
        MockVcpu, //
    };

    #[test]
    fn an_address_is_invalidated_in_every_root() {
        let mut vcpu = MockVcpu::new();
        assert_eq!(handle(&mut vcpu), ExitResult::Resume);
        assert_eq!(
            vcpu.events,
            done([Invalidated(0x1000, Roots::ALL), Skipped])
        );
        assert!(vcpu.has_counted(Counter::ExitInvlpg));
    }

    #[test]
    fn an_address_that_is_not_canonical_has_no_effect() {
        let mut vcpu = MockVcpu::new();
        vcpu.address = 1 << 47;
        handle(&mut vcpu);
        assert_eq!(vcpu.events, done([Skipped]));
    }
}
