// SPDX-License-Identifier: GPL-2.0

//! This module has a mock of an exit for a guest-physical address, for the unit tests of the
//! handlers.  The mock returns what a test sets, and records the actions of a handler.

use super::{
    ExitResult, //
    GuestPhysical,
};
use crate::{
    ept::violation::{
        ErrorCode,
        Qualification, //
    },
    stats::Counter,
    x86::addr::Gpa, //
};
use core::cell::Cell;

/// An action of a handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// Blocked NMIs in the guest.
    BlockedNmis,
    /// Traced a violation: address and qualification.
    Traced(u64, u64),
    /// Looked for a device that only needs a notification, and notified the device, if any.
    ToldDevice(u64),
    /// Traced the notification.
    TracedTold(u64),
    /// Resumed the guest after the instruction.
    Skipped,
    /// Called KVM's MMU: address and error code.
    Resolved(u64, u64),
    /// Called KVM's emulator.
    Emulated,
    /// Ended an instruction that must not be emulated.
    Refused,
}

/// An exit.
pub(super) struct MockExit {
    pub(super) address: u64,
    pub(super) qualification: u64,
    pub(super) is_delivering_event: bool,
    pub(super) is_in_enclave: bool,
    pub(super) runs_l2: bool,
    pub(super) tells_user_fetches: bool,
    pub(super) is_beyond_guest: bool,
    pub(super) allows_narrow_guests: bool,
    /// Whether there is a device that only needs a notification of a write.
    pub(super) has_device: bool,
    /// The result of KVM's MMU, and of KVM's emulator.
    pub(super) next: ExitResult,
    /// The actions, in their order.
    events: [Cell<Option<Event>>; 4],
    /// The counter that was incremented; `None` after a second increment.
    counted: Cell<Option<Counter>>,
}

impl MockExit {
    /// Returns an exit for an address, to which no special condition applies.
    pub(super) fn new(address: u64) -> Self {
        Self {
            address,
            qualification: 0,
            is_delivering_event: false,
            is_in_enclave: false,
            runs_l2: false,
            tells_user_fetches: false,
            is_beyond_guest: false,
            allows_narrow_guests: false,
            has_device: false,
            next: ExitResult::Raw(1),
            events: Default::default(),
            counted: Cell::new(None),
        }
    }

    fn note(&self, event: Event) {
        if let Some(slot) = self.events.iter().find(|slot| slot.get().is_none()) {
            slot.set(Some(event));
        }
    }

    /// Returns the actions, in their order.
    pub(super) fn events(&self) -> [Option<Event>; 4] {
        self.events.each_ref().map(Cell::get)
    }

    /// Returns the counter that was incremented, if there was one increment.
    pub(super) fn counted(&self) -> Option<Counter> {
        self.counted.get()
    }
}

/// Returns a list of actions, filled up with `None`.
pub(super) fn done<const N: usize>(events: [Event; N]) -> [Option<Event>; 4] {
    let mut all = events.into_iter();
    core::array::from_fn(|_| all.next())
}

impl GuestPhysical for &MockExit {
    fn qualification(self) -> Qualification {
        Qualification::from(self.qualification)
    }
    fn address(self) -> Gpa {
        Gpa::new(self.address)
    }
    fn is_delivering_event(self) -> bool {
        self.is_delivering_event
    }
    fn is_in_enclave(self) -> bool {
        self.is_in_enclave
    }
    fn runs_l2(self) -> bool {
        self.runs_l2
    }
    fn tells_user_fetches(self) -> bool {
        self.tells_user_fetches
    }
    fn is_beyond_guest(self, _: Gpa) -> bool {
        self.is_beyond_guest
    }
    fn allows_narrow_guests(self) -> bool {
        self.allows_narrow_guests
    }
    fn count(self, what: Counter) {
        // A second increment is as wrong as none.
        let before = self.counted.replace(Some(what));
        if before.is_some() {
            self.counted.set(None);
        }
    }
    fn block_nmis(self) {
        self.note(Event::BlockedNmis);
    }
    fn trace_violation(self, address: Gpa, qualification: Qualification) {
        self.note(Event::Traced(address.into_raw(), qualification.into_raw()));
    }
    fn trace_told(self, address: Gpa) {
        self.note(Event::TracedTold(address.into_raw()));
    }
    fn tell_device(self, address: Gpa) -> bool {
        self.note(Event::ToldDevice(address.into_raw()));
        self.has_device
    }
    fn skip(self) -> ExitResult {
        self.note(Event::Skipped);
        ExitResult::Resume
    }
    fn resolve(self, address: Gpa, code: ErrorCode) -> ExitResult {
        self.note(Event::Resolved(address.into_raw(), code.into_raw()));
        self.next
    }
    fn emulate(self) -> ExitResult {
        self.note(Event::Emulated);
        self.next
    }
    fn refuse_emulation(self) {
        self.note(Event::Refused);
    }
}
