// SPDX-License-Identifier: GPL-2.0

//! INVLPG of a guest on shadow paging.
//!
//! The exit qualification is the linear address, with the segment's base in it: INVLPG accesses
//! nothing, so neither a segment's limit nor a missing page is a fault, and an address that is not
//! canonical makes it do nothing.  The privilege was checked before the exit: #GP(0) comes first.
//! Source: the manual's instruction reference, INVLPG; answers to `handle_invlpg()`.

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
        // Globals go in every PCID, and KVM does not know which entries are global: all roots.  One
        // that is not cached is brought up to date and flushed by `kvm_mmu_load()` when it is used.
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
        Fake, //
    };

    #[test]
    fn an_address_goes_in_every_root() {
        let mut vcpu = Fake::new();
        assert_eq!(handle(&mut vcpu), ExitResult::Resume);
        assert_eq!(
            vcpu.events,
            done([Invalidated(0x1000, Roots::ALL), Skipped])
        );
        assert!(vcpu.has_counted(Counter::ExitInvlpg));
    }

    #[test]
    fn an_address_that_is_not_canonical_does_nothing() {
        let mut vcpu = Fake::new();
        vcpu.address = 1 << 47;
        handle(&mut vcpu);
        assert_eq!(vcpu.events, done([Skipped]));
    }
}
