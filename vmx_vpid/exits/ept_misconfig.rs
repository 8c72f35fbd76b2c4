// SPDX-License-Identifier: GPL-2.0

//! An EPT misconfiguration: a guest accesses a device register.
//!
//! KVM makes the entries of such pages misconfigured, so that every access exits, and by an exit
//! that is known from those for missing memory at once.  Some devices ask for no more than to be
//! told that there was a write; the instruction is not even looked at then.
//! Source: the manual's chapter on the extended page-table mechanism, "EPT Misconfigurations";
//! answers to `handle_ept_misconfig()`.

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
    // An address of L2's says nothing about devices: those are at addresses of L1's.
    if !exit.runs_l2() && exit.tell_device(address) {
        exit.count(Counter::MmioFast);
        exit.trace_told(address);
        return exit.skip();
    }
    exit.count(Counter::MmioSlow);
    exit.resolve(address, ErrorCode::MISCONFIGURATION)
}

/// Ends an instruction that may not be emulated: in an enclave it cannot be read, and while an
/// event is delivered it is not what accesses the device.
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
        Fake, //
    };

    const DEVICE: u64 = 0xfee0_0000;

    #[test]
    fn a_device_that_wants_no_more_is_told() {
        let mut exit = Fake::new(DEVICE);
        exit.has_device = true;
        assert_eq!(handle(&exit), ExitResult::Resume);
        let expected = [ToldDevice(DEVICE), TracedTold(DEVICE), Skipped];
        assert_eq!(exit.events(), done(expected));
        assert_eq!(exit.counted(), Some(Counter::MmioFast));
    }

    #[test]
    fn others_are_kvms_fault_handlers() {
        for next in [1, 0, -14].map(ExitResult::Raw) {
            let mut exit = Fake::new(DEVICE);
            exit.next = next;
            assert_eq!(handle(&exit), next);
            let expected = [ToldDevice(DEVICE), Resolved(DEVICE, 1 << 3)];
            assert_eq!(exit.events(), done(expected));
            assert_eq!(exit.counted(), Some(Counter::MmioSlow));
        }
    }

    #[test]
    fn no_device_is_told_of_an_address_of_l2() {
        let mut exit = Fake::new(DEVICE);
        exit.has_device = true;
        exit.runs_l2 = true;
        handle(&exit);
        assert_eq!(exit.events(), done([Resolved(DEVICE, 1 << 3)]));
    }

    #[test]
    fn what_may_not_be_emulated_is_refused() {
        for (enclave, delivering) in [(true, false), (false, true), (true, true)] {
            let mut exit = Fake::new(DEVICE);
            exit.has_device = true;
            exit.is_in_enclave = enclave;
            exit.is_delivering_event = delivering;
            assert_eq!(handle(&exit), ExitResult::Resume);
            assert_eq!(exit.events(), done([Refused]));
            assert_eq!(exit.counted(), Some(Counter::MmioRefused));
        }
    }
}
