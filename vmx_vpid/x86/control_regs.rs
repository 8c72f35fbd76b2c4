// SPDX-License-Identifier: GPL-2.0

//! This module defines the bits of a guest's control registers and EFER that decide how its
//! addresses are formed, translated and tagged.
//!
//! Source: the manual's chapter on system architecture, "Control Registers" and "Extended Feature
//! Enable Register".

use crate::x86::addr::LinearWidth;
use kernel::bitfield;

bitfield! {
    /// CR0.
    pub(crate) struct Cr0(u64) {
        /// `PE`: protected mode.
        0:0     protected => bool;
        /// `WP`: supervisor writes obey read-only pages.
        16:16   write_protect => bool;
        /// `PG`: paging.
        31:31   paging => bool;
    }
}

bitfield! {
    /// CR3.
    pub(crate) struct Cr3(u64) {
        /// The PCID in use, if CR4.PCIDE is set; other bits otherwise.
        11:0    pcid;
        /// `LAM_U57`: bits 62:57 of user addresses are not translated.
        61:61   lam_u57 => bool;
        /// `LAM_U48`: bits 62:48 of user addresses are not translated.
        62:62   lam_u48 => bool;
    }
}

bitfield! {
    /// CR4.
    pub(crate) struct Cr4(u64) {
        /// `PSE`: pages of 4 MiB in 32-bit paging.
        4:4     page_size_extensions => bool;
        /// `PAE`: entries of 8 bytes.
        5:5     physical_address_extension => bool;
        /// `LA57`: five levels in long mode.
        12:12   la57 => bool;
        /// `PCIDE`: translations are tagged by PCID.
        17:17   pcide => bool;
        /// `SMEP`: no supervisor fetches from user pages.
        20:20   smep => bool;
        /// `SMAP`: no supervisor accesses to user pages, unless RFLAGS.AC is set.
        21:21   smap => bool;
        /// `PKE`: protection keys of user pages.
        22:22   protection_keys => bool;
        /// `LAM_SUP`: the upper bits of supervisor addresses are not translated.
        28:28   lam_supervisor => bool;
    }
}

impl Cr4 {
    /// Returns the width of the linear addresses that paging in long mode translates.
    #[inline]
    pub(crate) fn linear_width(self) -> LinearWidth {
        if self.la57() {
            LinearWidth::Bits57
        } else {
            LinearWidth::Bits48
        }
    }
}

bitfield! {
    /// IA32_EFER.
    pub(crate) struct Efer(u64) {
        /// `LMA`: long mode is active: 64-bit or compatibility mode, by CS.L.
        10:10   long_mode_active => bool;
        /// `NXE`: bit 63 of an entry forbids fetches; it is reserved otherwise.
        11:11   no_execute => bool;
    }
}

bitfield! {
    /// RFLAGS.
    pub(crate) struct Rflags(u64) {
        /// `CF`.
        0:0     carry => bool;
        /// `PF`.
        2:2     parity => bool;
        /// `AF`.
        4:4     auxiliary_carry => bool;
        /// `ZF`.
        6:6     zero => bool;
        /// `SF`.
        7:7     sign => bool;
        /// `OF`.
        11:11   overflow => bool;
        /// `VM`: virtual-8086 mode.
        17:17   virtual_8086 => bool;
        /// `AC`: supervisor accesses to user pages are allowed in spite of CR4.SMAP.
        18:18   alignment_check => bool;
    }
}

impl Rflags {
    /// Clears the six arithmetic flags, as a VMX instruction that succeeds does.
    #[inline]
    pub(crate) fn without_arithmetic(self) -> Self {
        self.with_carry(false)
            .with_parity(false)
            .with_auxiliary_carry(false)
            .with_zero(false)
            .with_sign(false)
            .with_overflow(false)
    }
}
