// SPDX-License-Identifier: GPL-2.0

//! This module flushes a CPU after a change of the kernel's own tables, which belong to every
//! address space.

use crate::{
    asid::{
        cpu::Cpu,
        invpcid::Extent,
        Hardware, //
    },
    x86::addr::Hva, //
};

/// A CPU that can toggle CR4.PGE.
pub(crate) trait Pge: Hardware {
    /// Writes CR4 with CR4.PGE toggled, and then the old value: `__native_tlb_flush_global()`.
    fn turn_pge(&self);
}

impl Cpu {
    /// Drops an address of the kernel: `flush_tlb_one_kernel()`.
    ///
    /// Without page-table isolation the page is global, and INVLPG drops it under every PCID.
    pub(crate) fn drop_kernel_address(&mut self, address: Hva, hardware: &impl Hardware) {
        self.drop_address(address, hardware);
        if hardware.features().pti {
            // The page is still cached under the PCIDs of the other slots.
            self.invalidate_other = true;
        }
    }
}

/// Drops everything: `native_flush_tlb_global()`.
///
/// The state of the slots does not change.  That is allowed: the CPU has fewer translations cached
/// than the slots say.
pub(crate) fn drop_everything(hardware: &impl Pge) {
    if hardware.features().invpcid {
        hardware.invpcid(Extent::AllAndGlobals);
    } else {
        hardware.turn_pge();
    }
}

#[cfg(CONFIG_VMX_VPID_KUNIT_TEST)]
#[kernel::macros::kunit_tests(vmx_vpid_flush_kernel)]
mod tests {
    use super::*;
    use crate::{
        asid::{
            mock::{
                cpu,
                features,
                Did,
                Hands, //
            },
            Features, //
        },
        x86::invpcid::Pcid, //
    };

    impl Pge for Hands {
        fn turn_pge(&self) {
            self.note(Did::Pge);
        }
    }

    #[test]
    fn without_isolation_invlpg_is_enough_for_a_kernel_page() {
        let hands = Hands::new(features(true, false));
        let mut cpu = cpu(20, 0);
        cpu.drop_kernel_address(Hva::new(0x1000), &hands);
        assert!(hands.did(&[Did::Invlpg(0x1000)]));
        assert!(!cpu.invalidate_other);
    }

    #[test]
    fn with_isolation_a_kernel_page_invalidates_the_other_slots() {
        let hands = Hands::new(features(true, true));
        let mut cpu = cpu(20, 0);
        cpu.drop_kernel_address(Hva::new(0x1000), &hands);
        let user = Extent::Address(Pcid::from(cpu.asid.upcid()), Hva::new(0x1000));
        assert!(hands.did(&[Did::Invlpg(0x1000), Did::Invpcid(user)]));
        assert!(cpu.invalidate_other);
    }

    #[test]
    fn everything_is_dropped_by_invpcid_or_by_cr4_pge() {
        for (invpcid, did) in [
            (true, Did::Invpcid(Extent::AllAndGlobals)),
            (false, Did::Pge),
        ] {
            let hands = Hands::new(Features {
                invpcid,
                ..features(true, true)
            });
            drop_everything(&hands);
            assert!(hands.did(&[did]));
        }
    }
}
