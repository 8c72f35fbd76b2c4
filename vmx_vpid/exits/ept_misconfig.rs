// SPDX-License-Identifier: GPL-2.0

//! This module handles an EPT misconfiguration: a guest accesses a device register.
//!
//! KVM misconfigures the entries of such pages on purpose.  Every access then exits, with another
//! exit reason than an access to missing memory.  Some devices only need a notification of a write;
//! KVM does not decode the instruction then.
//! Source: the manual's chapter on the extended page-table mechanism, "EPT Misconfigurations".
//! Equivalent of `handle_ept_misconfig()`.

use super::{
    ExitResult, //
    GuestPhysical,
};
use crate::{
    ept::violation::ErrorCode,
    stats::Counter, //
};

/// Handles an exit for an EPT misconfiguration.
#[inline]
pub(crate) fn handle(exit: impl GuestPhysical) -> ExitResult {
    if exit.is_in_enclave() || exit.is_delivering_event() {
        return refuse(exit);
    }
    let address = exit.address();
    // Devices have addresses of L1, so no device has an address of L2.
    if !exit.runs_l2() && exit.tell_device(address) {
        exit.count(Counter::MmioFast);
        exit.trace_told(address);
        return exit.skip();
    }
    exit.count(Counter::MmioSlow);
    exit.resolve(address, ErrorCode::MISCONFIGURATION)
}

/// Ends an instruction that must not be emulated: KVM cannot read an instruction in an enclave, and
/// during the delivery of an event no instruction makes the access.
#[cold]
fn refuse(exit: impl GuestPhysical) -> ExitResult {
    exit.count(Counter::MmioRefused);
    exit.refuse_emulation();
    ExitResult::Resume
}

#[cfg(CONFIG_VMX_VPID_KUNIT_TEST)]
#[kernel::macros::kunit_tests(vmx_vpid_exits_ept_misconfig)]
mod tests {
    use super::*;
    use crate::exits::mock_ept::{
        done,
        Event::*,
        MockExit, //
    };

    const DEVICE: u64 = 0xfee0_0000;

    #[test]
    fn a_device_that_only_needs_a_notification_gets_it() {
        let mut exit = MockExit::new(DEVICE);
        exit.has_device = true;
        assert_eq!(handle(&exit), ExitResult::Resume);
        let expected = [ToldDevice(DEVICE), TracedTold(DEVICE), Skipped];
        assert_eq!(exit.events(), done(expected));
        assert_eq!(exit.counted(), Some(Counter::MmioFast));
    }

    #[test]
    fn other_misconfigurations_go_to_kvms_fault_handler() {
        for next in [1, 0, -14].map(ExitResult::Raw) {
            let mut exit = MockExit::new(DEVICE);
            exit.next = next;
            assert_eq!(handle(&exit), next);
            let expected = [ToldDevice(DEVICE), Resolved(DEVICE, 1 << 3)];
            assert_eq!(exit.events(), done(expected));
            assert_eq!(exit.counted(), Some(Counter::MmioSlow));
        }
    }

    #[test]
    fn no_device_is_notified_of_an_address_of_l2() {
        let mut exit = MockExit::new(DEVICE);
        exit.has_device = true;
        exit.runs_l2 = true;
        handle(&exit);
        assert_eq!(exit.events(), done([Resolved(DEVICE, 1 << 3)]));
    }

    #[test]
    fn emulation_is_refused_where_it_is_not_allowed() {
        for (enclave, delivering) in [(true, false), (false, true), (true, true)] {
            let mut exit = MockExit::new(DEVICE);
            exit.has_device = true;
            exit.is_in_enclave = enclave;
            exit.is_delivering_event = delivering;
            assert_eq!(handle(&exit), ExitResult::Resume);
            assert_eq!(exit.events(), done([Refused]));
            assert_eq!(exit.counted(), Some(Counter::MmioRefused));
        }
    }
}
