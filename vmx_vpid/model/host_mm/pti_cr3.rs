// SPDX-License-Identifier: GPL-2.0

//! This module writes CR3 on the way to user mode and back, under page-table isolation.
//!
//! The kernel's entry code uses only CR3 and the mask of user halves that have to be flushed.

use crate::{
    asid::{
        cpu::Cpu,
        keeping,
        Asid,
        Features,
        Hardware,
        Upcid,
        NOFLUSH, //
    },
    x86::control_regs::Cr3, //
};
use kernel::bits::bit_u64;

/// The bit of CR3 that tells the user's tables from the kernel's: `PTI_USER_PGTABLE_MASK`.
const USER_TABLES: u64 = bit_u64(12);

/// Bits 10:0 of CR3, the kPCID, which is the number of the bit in the mask.
const KPCID: u64 = bit_u64(11) - 1;

impl Cpu {
    /// Enters user mode; `cr3` is the current value of CR3.
    ///
    /// Equivalent of `SWITCH_TO_USER_CR3`, and of `PARANOID_RESTORE_CR3` if it restores a user CR3.
    pub(crate) fn enter_user(&mut self, cr3: Cr3, hardware: &impl Hardware) {
        let features = hardware.features();
        if !features.pti {
            return;
        }
        let tables = cr3.into_raw() | USER_TABLES;
        if !features.pcid {
            hardware.write_cr3(Cr3::from(tables));
            return;
        }
        let user = Cr3::from(tables | u64::from(Upcid::BIT));
        if self.take_deferred(cr3) {
            hardware.write_cr3(user);
        } else {
            hardware.write_cr3(keeping(user));
        }
    }

    /// Clears the deferred flush of the user half that belongs to CR3; returns whether there was
    /// one.
    fn take_deferred(&mut self, cr3: Cr3) -> bool {
        // CAST: A kPCID has 11 bits.
        let kpcid = (cr3.into_raw() & KPCID) as u16;
        let asid = kpcid.checked_sub(1).and_then(Asid::new);
        asid.is_some_and(|asid| self.user_flush.take(asid))
    }
}

/// Enters the kernel from user mode; `cr3` is the current value of CR3.
///
/// No flush of the kernel's half is needed: the kernel flushes it while it runs on it, and never
/// defers that flush.  Equivalent of `SWITCH_TO_KERNEL_CR3` with `ADJUST_KERNEL_CR3`.
pub(crate) fn to_kernel(cr3: Cr3, hardware: &impl Hardware) {
    let Features { pcid, pti, .. } = hardware.features();
    if pti {
        let no_flush = if pcid { NOFLUSH } else { 0 };
        let kernel = cr3.into_raw() & !USER_TABLES & !u64::from(Upcid::BIT);
        hardware.write_cr3(Cr3::from(kernel | no_flush));
    }
}

#[cfg(CONFIG_VMX_VPID_KUNIT_TEST)]
#[kernel::macros::kunit_tests(vmx_vpid_pti_cr3)]
mod tests {
    use super::*;
    use crate::asid::{
        cpu::UserFlush,
        mock::{
            cpu,
            features,
            Did,
            Hands, //
        }, //
    };

    /// CR3 in kernel mode, for an address space under ASID 3.
    const KERNEL: u64 = 0x20004;
    /// CR3 in user mode for the same address space, without a flush.
    const KEPT: u64 = 1 << 63 | 0x21804;

    /// Enters user mode with a mask; returns the log, and the mask afterwards.
    fn to_user(mask: u16, pcid: bool, pti: bool) -> (Hands, u16) {
        let hands = Hands::new(features(pcid, pti));
        let mut cpu = cpu(20, 3);
        cpu.user_flush = UserFlush::from_raw(mask);
        cpu.enter_user(Cr3::from(KERNEL), &hands);
        (hands, cpu.user_flush.into_raw())
    }

    #[test]
    fn a_user_half_is_flushed_only_if_its_bit_is_set() {
        // The bits of all other slots.
        let (hands, left) = to_user(0x6e, true, true);
        assert!(hands.did(&[Did::Cr3(KEPT)]));
        assert_eq!(left, 0x6e);
        let (hands, left) = to_user(0x7e, true, true);
        assert!(hands.did(&[Did::Cr3(0x21804)]));
        assert_eq!(left, 0x6e);
    }

    #[test]
    fn without_pcids_the_two_halves_differ_only_in_their_tables() {
        let hands = Hands::new(features(false, true));
        cpu(20, 0).enter_user(Cr3::from(0x20000), &hands);
        to_kernel(Cr3::from(0x21000), &hands);
        assert!(hands.did(&[Did::Cr3(0x21000), Did::Cr3(0x20000)]));
    }

    #[test]
    fn without_isolation_user_mode_keeps_cr3() {
        let (hands, left) = to_user(0x7e, true, false);
        to_kernel(Cr3::from(KERNEL), &hands);
        assert!(hands.did(&[]));
        assert_eq!(left, 0x7e);
    }

    #[test]
    fn an_entry_to_the_kernel_keeps_the_kernels_half() {
        let hands = Hands::new(features(true, true));
        to_kernel(Cr3::from(0x21804), &hands);
        assert!(hands.did(&[Did::Cr3(1 << 63 | KERNEL)]));
    }
}
