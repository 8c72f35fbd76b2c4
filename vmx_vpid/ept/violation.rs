// SPDX-License-Identifier: GPL-2.0

//! EPT violations: what the exit qualification tells of one.
//!
//! How the CPU comes to write it is in [`crate::model::ept::access`].
//! Source: the manual's chapter on VM exits, the exit qualification for EPT violations.

use kernel::bitfield;

bitfield! {
    /// The exit qualification of an EPT violation.
    ///
    /// A read-modify-write access sets `write`; whether it sets `read` too is up to the CPU, and
    /// both are seen.  So who asks what an access needs has to take a write for a read as well.
    pub(crate) struct Qualification(u64) {
        /// The access was a data read.
        0:0     read => bool;
        /// The access was a data write.
        1:1     write => bool;
        /// The access was an instruction fetch.
        2:2     fetch => bool;
        /// Every entry used permits reads; all four are 0 if one of them is not present.
        3:3     readable => bool;
        /// Every entry used permits writes.
        4:4     writable => bool;
        /// Every entry used permits fetches; with mode-based execute control, the supervisor's.
        5:5     executable => bool;
        /// Every entry used permits fetches of user mode; undefined without mode-based execute
        /// control.
        6:6     user_executable => bool;
        /// The field of the guest linear address is valid.
        7:7     linear_valid => bool;
        /// The access was one to what the linear address stands for, and not to an entry of the
        /// guest's page tables on the way there; defined with `linear_valid` only.
        8:8     linear_translated => bool;
        /// The linear address is one of user mode; this and the next two are defined with both of
        /// the above only, on a CPU that has advanced information.
        9:9     linear_user => bool;
        /// The guest's page tables permit writes.
        10:10   linear_writable => bool;
        /// The guest's page tables forbid fetches.
        11:11   linear_no_execute => bool;
        /// IRET had unblocked NMIs before it came to the violation.
        12:12   nmi_unblocking => bool;
        /// The access was one to a shadow stack.
        13:13   shadow_stack => bool;
        /// The entry of the page lets a supervisor use it as shadow stack.
        14:14   supervisor_shadow_stack => bool;
        /// Guest-paging verification failed.
        15:15   guest_paging_verification => bool;
        /// The access was not one of the instruction that the guest was at.
        16:16   asynchronous => bool;
    }
}

bitfield! {
    /// A page fault's error code as KVM's fault handler takes it.
    ///
    /// The low bits are those of a guest's page fault; the high ones are KVM's own, `PFERR_*`
    /// there.
    pub(crate) struct ErrorCode(u64) {
        /// Entries were present, and did not permit the access.
        0:0     present => bool;
        /// The access was a write.
        1:1     write => bool;
        /// The linear address was one of user mode.
        2:2     user => bool;
        /// An entry was misconfigured.
        3:3     reserved => bool;
        /// The access was a fetch.
        4:4     fetch => bool;
        /// The access was one to what the guest's linear address stands for.
        32:32   guest_final => bool;
        /// The access was one to the guest's page tables.
        33:33   guest_page => bool;
    }
}

impl ErrorCode {
    /// The error code of an EPT misconfiguration, for which the CPU tells no more than the address.
    pub(crate) const MISCONFIGURATION: Self = Self::from_raw(Self::RESERVED_MASK);
}

impl Qualification {
    /// Returns whether an entry was present and did not permit the access; if not, one was not
    /// present.
    ///
    /// Bit 6 counts with mode-based execute control (`mbec`) only.  An entry that permits nothing
    /// is not present, and those that permit something between them may have nothing in common:
    /// that is told as one that is not present too.
    #[inline]
    pub(crate) fn is_present(self, mbec: bool) -> bool {
        let permitted = Self::READABLE_MASK | Self::WRITABLE_MASK | Self::EXECUTABLE_MASK;
        let user = if mbec { Self::USER_EXECUTABLE_MASK } else { 0 };
        self.into_raw() & (permitted | user) != 0
    }

    /// Returns whether the access was one to what a linear address stands for.
    #[inline]
    pub(crate) fn is_of_page(self) -> bool {
        const BOTH: u64 = Qualification::LINEAR_VALID_MASK | Qualification::LINEAR_TRANSLATED_MASK;
        self.into_raw() & BOTH == BOTH
    }

    /// Returns the error code by which KVM's fault handler is told of the violation; answers to
    /// `__vmx_handle_ept_violation()`.
    ///
    /// A read is neither a write nor a fetch there, so that the uncertainty about `read` does not
    /// matter.  KVM has one bit more, for the private memory of TDX guests, whose violations are no
    /// business of this layer.
    #[inline]
    pub(crate) fn error_code(self, mbec: bool) -> ErrorCode {
        let code = ErrorCode::from_raw(0)
            .with_present(self.is_present(mbec))
            .with_write(self.write())
            .with_fetch(self.fetch());
        // As it is nearly always; `linear_user` is defined then only.
        if self.is_of_page() {
            code.with_guest_final(true).with_user(self.linear_user())
        } else {
            self.not_of_page(code)
        }
    }

    /// Adds to an error code what an access was for, if not for what a linear address stands for.
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
    fn every_bit_has_its_name() {
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
    fn error_codes() {
        const P: u64 = 1 << 0;
        const W: u64 = 1 << 1;
        const U: u64 = 1 << 2;
        const F: u64 = 1 << 4;
        const FINAL: u64 = 1 << 32;
        const PAGE: u64 = 1 << 33;
        for (qualification, without_mbec, with_mbec) in [
            (0, 0, 0),
            // A read is what is left when it is nothing else.
            (1 << 0, 0, 0),
            (1 << 1, W, W),
            (1 << 0 | 1 << 1, W, W),
            (1 << 2, F, F),
            (1 << 3, P, P),
            (1 << 4, P, P),
            (1 << 5, P, P),
            (1 << 6, 0, P),
            // Bit 8 means nothing without bit 7, bit 9 nothing without both.
            (1 << 7, PAGE, PAGE),
            (1 << 8, 0, 0),
            (1 << 8 | 1 << 9, 0, 0),
            (1 << 9, 0, 0),
            (1 << 7 | 1 << 9, PAGE, PAGE),
            (1 << 7 | 1 << 8, FINAL, FINAL),
            (1 << 7 | 1 << 8 | 1 << 9, FINAL | U, FINAL | U),
            (0b1_1000_1010, FINAL | P | W, FINAL | P | W),
            // No other bit has a say.
            (!0 << 10, 0, 0),
        ] {
            let found = Qualification::from(qualification);
            assert_eq!(found.error_code(false).into_raw(), without_mbec);
            assert_eq!(found.error_code(true).into_raw(), with_mbec);
        }
        assert_eq!(ErrorCode::MISCONFIGURATION.into_raw(), 1 << 3);
    }
}
