// SPDX-License-Identifier: GPL-2.0

//! This module decodes the exit qualification of an EPT violation.
//!
//! `model/ept/access.rs` models how the CPU writes the qualification.
//! Source: the manual's chapter on VM exits, the exit qualification for EPT violations.

use kernel::bitfield;

bitfield! {
    /// The exit qualification of an EPT violation.
    ///
    /// A read-modify-write access sets `write`.  Some CPUs set `read` as well, and some do not, so
    /// a caller that checks the rights for an access has to treat a write as a read, too.
    pub(crate) struct Qualification(u64) {
        /// The access was a data read.
        0:0     read => bool;
        /// The access was a data write.
        1:1     write => bool;
        /// The access was an instruction fetch.
        2:2     fetch => bool;
        /// Every entry used permits reads; bits 6:3 are 0 if an entry is not present.
        3:3     readable => bool;
        /// Every entry used permits writes.
        4:4     writable => bool;
        /// Every entry used permits fetches; with mode-based execute control, the supervisor's.
        5:5     executable => bool;
        /// Every entry used permits fetches of user mode; undefined without mode-based execute
        /// control.
        6:6     user_executable => bool;
        /// The VMCS field with the guest-linear address is valid.
        7:7     linear_valid => bool;
        /// The access was to the translation of the linear address, and not to an entry of the
        /// guest's page tables during the walk; defined with `linear_valid` only.
        8:8     linear_translated => bool;
        /// The linear address is a user-mode address.  Bits 11:9 are defined only if bits 7 and 8
        /// are set, on a CPU with advanced VM-exit information.
        9:9     linear_user => bool;
        /// The guest's page tables permit writes.
        10:10   linear_writable => bool;
        /// The guest's page tables forbid fetches.
        11:11   linear_no_execute => bool;
        /// IRET had unblocked NMIs before it caused the violation.
        12:12   nmi_unblocking => bool;
        /// The access was to a shadow stack.
        13:13   shadow_stack => bool;
        /// The entry of the page lets a supervisor use it as shadow stack.
        14:14   supervisor_shadow_stack => bool;
        /// Guest-paging verification failed.
        15:15   guest_paging_verification => bool;
        /// The access was asynchronous to the instruction that the guest executed.
        16:16   asynchronous => bool;
    }
}

bitfield! {
    /// A page fault's error code, in the form that KVM's fault handler takes.
    ///
    /// The low bits are those of a guest's page fault.  KVM defines the high bits, as `PFERR_*`.
    pub(crate) struct ErrorCode(u64) {
        /// The entries were present, and did not permit the access.
        0:0     present => bool;
        /// The access was a write.
        1:1     write => bool;
        /// The linear address was a user-mode address.
        2:2     user => bool;
        /// An entry was misconfigured.
        3:3     reserved => bool;
        /// The access was a fetch.
        4:4     fetch => bool;
        /// The access was to the translation of the guest's linear address.
        32:32   guest_final => bool;
        /// The access was to the guest's page tables.
        33:33   guest_page => bool;
    }
}

impl ErrorCode {
    /// The error code of an EPT misconfiguration, for which the CPU reports the address only.
    pub(crate) const MISCONFIGURATION: Self = Self::from_raw(Self::RESERVED_MASK);
}

impl Qualification {
    /// Returns whether all entries were present and did not permit the access; if false, an entry
    /// was not present.
    ///
    /// Bit 6 counts with mode-based execute control (`mbec`) only.  The CPU reports the rights that
    /// all entries permit.  If the entries have no right in common, this function returns false,
    /// although each entry is present.
    #[inline]
    pub(crate) fn is_present(self, mbec: bool) -> bool {
        let permitted = Self::READABLE_MASK | Self::WRITABLE_MASK | Self::EXECUTABLE_MASK;
        let user = if mbec { Self::USER_EXECUTABLE_MASK } else { 0 };
        self.into_raw() & (permitted | user) != 0
    }

    /// Returns whether the access was to the translation of a linear address.
    #[inline]
    pub(crate) fn is_of_page(self) -> bool {
        const BOTH: u64 = Qualification::LINEAR_VALID_MASK | Qualification::LINEAR_TRANSLATED_MASK;
        self.into_raw() & BOTH == BOTH
    }

    /// Returns the error code of the violation, for KVM's fault handler.
    ///
    /// Equivalent of `__vmx_handle_ept_violation()`.  An access counts as a read if it is neither a
    /// write nor a fetch, so it does not matter whether the CPU sets `read`.  KVM has another bit,
    /// for the private memory of TDX guests, whose violations this layer does not handle.
    #[inline]
    pub(crate) fn error_code(self, mbec: bool) -> ErrorCode {
        let code = ErrorCode::from_raw(0)
            .with_present(self.is_present(mbec))
            .with_write(self.write())
            .with_fetch(self.fetch());
        // This is the usual case; `linear_user` is defined in this case only.
        if self.is_of_page() {
            code.with_guest_final(true).with_user(self.linear_user())
        } else {
            self.not_of_page(code)
        }
    }

    /// Adds to an error code whether the access was to the guest's page tables; for an access that
    /// was not to the translation of a linear address.
    #[cold]
    fn not_of_page(self, code: ErrorCode) -> ErrorCode {
        code.with_guest_page(self.linear_valid())
    }
}

#[cfg(CONFIG_VMX_VPID_KUNIT_TEST)]
#[kernel::macros::kunit_tests(vmx_vpid_ept_violation)]
mod tests {
    use super::*;

    #[test]
    fn each_bit_of_the_qualification_has_one_name() {
        type Bit = fn(Qualification) -> bool;
        let names: [Bit; 17] = [
            |found| found.read(),
            |found| found.write(),
            |found| found.fetch(),
            |found| found.readable(),
            |found| found.writable(),
            |found| found.executable(),
            |found| found.user_executable(),
            |found| found.linear_valid(),
            |found| found.linear_translated(),
            |found| found.linear_user(),
            |found| found.linear_writable(),
            |found| found.linear_no_execute(),
            |found| found.nmi_unblocking(),
            |found| found.shadow_stack(),
            |found| found.supervisor_shadow_stack(),
            |found| found.guest_paging_verification(),
            |found| found.asynchronous(),
        ];
        for bit in 0..64 {
            let found = Qualification::from(1 << bit);
            for (place, name) in names.iter().enumerate() {
                assert_eq!(name(found), place == bit);
            }
        }
    }

    #[test]
    fn violations_have_the_error_codes_of_kvm() {
        const P: u64 = 1 << 0;
        const W: u64 = 1 << 1;
        const U: u64 = 1 << 2;
        const F: u64 = 1 << 4;
        const FINAL: u64 = 1 << 32;
        const PAGE: u64 = 1 << 33;
        for (qualification, without_mbec, with_mbec) in [
            (0, 0, 0),
            // An access that is neither a write nor a fetch is a read.
            (1 << 0, 0, 0),
            (1 << 1, W, W),
            (1 << 0 | 1 << 1, W, W),
            (1 << 2, F, F),
            (1 << 3, P, P),
            (1 << 4, P, P),
            (1 << 5, P, P),
            (1 << 6, 0, P),
            // Bit 8 is ignored without bit 7, and bit 9 without bits 7 and 8.
            (1 << 7, PAGE, PAGE),
            (1 << 8, 0, 0),
            (1 << 8 | 1 << 9, 0, 0),
            (1 << 9, 0, 0),
            (1 << 7 | 1 << 9, PAGE, PAGE),
            (1 << 7 | 1 << 8, FINAL, FINAL),
            (1 << 7 | 1 << 8 | 1 << 9, FINAL | U, FINAL | U),
            (0b1_1000_1010, FINAL | P | W, FINAL | P | W),
            // All other bits are ignored.
            (!0 << 10, 0, 0),
        ] {
            let found = Qualification::from(qualification);
            assert_eq!(found.error_code(false).into_raw(), without_mbec);
            assert_eq!(found.error_code(true).into_raw(), with_mbec);
        }
        assert_eq!(ErrorCode::MISCONFIGURATION.into_raw(), 1 << 3);
    }
}
