// SPDX-License-Identifier: GPL-2.0

//! This module handles an EPT violation: a guest accesses memory in a way that the EPT does not
//! permit, most often because the host maps memory on first use.
//!
//! The handler translates the exit qualification into an error code for KVM's fault handler.  KVM's
//! fault handler maps the page, makes the page writable again after a write to a write-protected
//! page, or has the access emulated.
//! Source: the manual's chapter on VM exits, the exit qualification for EPT violations.  Equivalent
//! of `handle_ept_violation()`.

use super::{
    ExitResult, //
    GuestPhysical,
};
use crate::{
    ept::violation::{
        ErrorCode,
        Qualification, //
    },
    stats::{
        Counter,
        VIOLATIONS, //
    },
    x86::addr::Gpa, //
};

/// Handles an exit for an EPT violation.
#[inline]
pub(crate) fn handle(exit: impl GuestPhysical) -> ExitResult {
    let found = exit.qualification();
    if found.nmi_unblocking() {
        end_iret(exit);
    }
    let address = exit.address();
    exit.trace_violation(address, found);
    let code = found.error_code(exit.tells_user_fetches());
    exit.count(cause(found, code));
    if exit.is_beyond_guest(address) {
        return beyond(exit, address, code);
    }
    exit.resolve(address, code)
}

/// Undoes the unblocking of NMIs by an IRET that the guest executes again.
///
/// If the violation came during the delivery of an event, no IRET unblocked NMIs.
#[cold]
fn end_iret(exit: impl GuestPhysical) {
    if !exit.is_delivering_event() {
        exit.block_nmis();
    }
}

/// Ends an access to an address that the guest's CPU does not have.
///
/// If KVM allows guests with fewer address bits than the host, the guest gets the page fault that
/// its CPU would raise for a reserved bit in an entry.  The exit does not say which access of the
/// instruction failed, so KVM's emulator has to find out.
#[cold]
fn beyond(exit: impl GuestPhysical, address: Gpa, code: ErrorCode) -> ExitResult {
    if exit.allows_narrow_guests() {
        exit.emulate()
    } else {
        exit.resolve(address, code)
    }
}

/// Returns the counter of a violation.
#[inline]
fn cause(found: Qualification, code: ErrorCode) -> Counter {
    let access = if found.is_of_page() {
        usize::from(found.fetch()) * 2 + usize::from(found.write())
    } else {
        cause_beside(found)
    };
    // The remainder does not change the index, and lets the compiler omit the bounds check.
    VIOLATIONS[(access * 2 + usize::from(code.present())) % VIOLATIONS.len()]
}

/// Returns the kind of an access that was not to the translation of a linear address.
#[cold]
fn cause_beside(found: Qualification) -> usize {
    if found.linear_valid() {
        3
    } else if found.fetch() {
        2
    } else {
        found.write().into()
    }
}

#[cfg(CONFIG_VMX_VPID_KUNIT_TEST)]
#[kernel::macros::kunit_tests(vmx_vpid_exits_ept_violation)]
mod tests {
    use super::*;
    use crate::exits::mock_ept::{
        done,
        Event::*,
        MockExit, //
    };

    /// Returns a vCPU that exited with a qualification, for address 0x1234_5678.
    fn exited(qualification: u64) -> MockExit {
        let mut exit = MockExit::new(0x1234_5678);
        exit.qualification = qualification;
        exit
    }

    /// A write by the supervisor to a page that is not present.
    const WRITE: u64 = 0b01_1000_0010;
    /// The error code of that write, for KVM's fault handler.
    const CODE: u64 = 1 << 32 | 1 << 1;

    #[test]
    fn kvms_fault_handler_gets_address_and_error_code() {
        for (qualification, mbec, code) in [
            (WRITE, false, CODE),
            (WRITE | 1 << 9, false, CODE | 1 << 2),
            (WRITE | 0b101 << 3, false, CODE | 1),
            (WRITE | 1 << 6, false, CODE),
            (WRITE | 1 << 6, true, CODE | 1),
            (0b00_1000_0011, false, 1 << 33 | 1 << 1),
            (0b01_1000_0100, false, 1 << 32 | 1 << 4),
        ] {
            let mut exit = exited(qualification);
            exit.tells_user_fetches = mbec;
            assert_eq!(handle(&exit), ExitResult::Raw(1));
            let expected = [
                Traced(0x1234_5678, qualification),
                Resolved(0x1234_5678, code),
            ];
            assert_eq!(exit.events(), done(expected));
        }
    }

    #[test]
    fn the_result_of_kvms_fault_handler_is_returned() {
        for next in [1, 0, -14].map(ExitResult::Raw) {
            let mut exit = exited(WRITE);
            exit.next = next;
            assert_eq!(handle(&exit), next);
        }
    }

    #[test]
    fn nmis_are_blocked_again_for_a_repeated_iret() {
        for (qualification, delivering, blocks) in [
            (WRITE, false, false),
            (WRITE, true, false),
            (WRITE | 1 << 12, false, true),
            (WRITE | 1 << 12, true, false),
        ] {
            let mut exit = exited(qualification);
            exit.is_delivering_event = delivering;
            handle(&exit);
            let events = exit.events();
            let blocked = events[0] == Some(BlockedNmis);
            assert_eq!(blocked, blocks);
            // The address and the error code are the same in each case.
            assert!(events.contains(&Some(Resolved(0x1234_5678, CODE))));
        }
    }

    #[test]
    fn an_access_beyond_the_guests_address_width_is_emulated() {
        let mut exit = exited(WRITE);
        exit.is_beyond_guest = true;
        assert_eq!(handle(&exit), ExitResult::Raw(1));
        let traced = Traced(0x1234_5678, WRITE);
        assert_eq!(exit.events(), done([traced, Resolved(0x1234_5678, CODE)]));
        // KVM's emulator is called only if KVM allows guests with fewer address bits.
        let mut exit = exited(WRITE);
        exit.is_beyond_guest = true;
        exit.allows_narrow_guests = true;
        assert_eq!(handle(&exit), ExitResult::Raw(1));
        assert_eq!(exit.events(), done([traced, Emulated]));
        assert_eq!(exit.counted(), Some(Counter::ViolationWriteNotPresent));
        let mut exit = exited(WRITE);
        exit.allows_narrow_guests = true;
        handle(&exit);
        assert_eq!(exit.events(), done([traced, Resolved(0x1234_5678, CODE)]));
    }

    #[test]
    fn each_cause_has_a_counter() {
        const OF_PAGE: u64 = 0b11 << 7;
        const ON_WALK: u64 = 1 << 7;
        for (qualification, expected) in [
            (OF_PAGE | 1, Counter::ViolationReadNotPresent),
            (OF_PAGE | 1 | 1 << 5, Counter::ViolationReadPermission),
            (OF_PAGE | 2, Counter::ViolationWriteNotPresent),
            (OF_PAGE | 3, Counter::ViolationWriteNotPresent),
            (OF_PAGE | 2 | 1 << 3, Counter::ViolationWritePermission),
            (OF_PAGE | 4, Counter::ViolationFetchNotPresent),
            (OF_PAGE | 4 | 1 << 3, Counter::ViolationFetchPermission),
            (ON_WALK | 1, Counter::ViolationWalkNotPresent),
            (ON_WALK | 3, Counter::ViolationWalkNotPresent),
            (ON_WALK | 3 | 1 << 3, Counter::ViolationWalkPermission),
            // An access without a linear address counts like one with.
            (1, Counter::ViolationReadNotPresent),
            (2 | 1 << 3, Counter::ViolationWritePermission),
        ] {
            let exit = exited(qualification);
            handle(&exit);
            assert_eq!(exit.counted(), Some(expected));
        }
    }
}
