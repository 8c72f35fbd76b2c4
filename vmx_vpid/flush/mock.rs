// SPDX-License-Identifier: GPL-2.0

//! A CPU for the tests of [`crate::flush`], as what is recorded there has it.

use crate::{
    ept,
    flush::{
        execute::{
            Invalidate,
            Invalidation, //
        },
        Recorder, //
    },
    invvpid,
    vmx::insn::InsnError,
    vpid::Vpid, //
};
use core::cell::Cell;

/// A CPU on which instructions work or not, in a machine that moves the task to the other CPU
/// whenever it may.
pub(crate) struct Moving {
    /// Whether instructions work.
    works: bool,
    /// Where the task is.
    cpu: Cell<usize>,
    /// How often it was with_preemption_disabled there.
    pins: Cell<u32>,
    /// How many instructions each CPU was given.
    pub(crate) issued: [Cell<u32>; 2],
    /// Which VPIDs were recorded for each.
    pub(crate) recorded: [Cell<[Option<Vpid>; 2]>; 2],
}

impl Moving {
    /// Makes a machine on whose CPUs nothing was issued.
    pub(crate) fn new(works: bool) -> Self {
        Self {
            works,
            cpu: Cell::new(0),
            pins: Cell::new(0),
            issued: Default::default(),
            recorded: Default::default(),
        }
    }

    /// Returns how many instructions were issued.
    pub(crate) fn count(&self) -> u32 {
        self.issued.iter().map(Cell::get).sum()
    }

    /// Issues an instruction.
    fn issue(&self) -> Result<(), InsnError> {
        let issued = &self.issued[self.cpu.get()];
        issued.set(issued.get() + 1);
        self.go_on();
        if self.works {
            Ok(())
        } else {
            Err(InsnError::Fault)
        }
    }

    /// Lets the task be moved.
    fn go_on(&self) {
        if self.pins.get() == 0 {
            self.cpu.set(1 - self.cpu.get());
        }
    }
}

impl Invalidate for &Moving {
    fn invvpid(&self, _: invvpid::Extent) -> Result<(), InsnError> {
        self.issue()
    }
    fn invept(&self, _: ept::Extent) -> Result<(), InsnError> {
        self.issue()
    }
    fn skipped(&self) {}
    fn widened(&self) {}
    fn failed(&self, _: Invalidation, _: InsnError, _: Option<Invalidation>) {}
}

impl Recorder for &Moving {
    fn is_recorded(self, vpid: Option<Vpid>) -> bool {
        let recorded = vpid.is_none() || self.recorded[self.cpu.get()].get().contains(&vpid);
        self.go_on();
        recorded
    }
    fn issue_fast(self, _: Invalidation) -> bool {
        self.issue().is_ok()
    }
    fn record(self, vpid: Vpid) {
        let recorded = &self.recorded[self.cpu.get()];
        let [one, _] = recorded.get();
        recorded.set([Some(vpid), one]);
    }
    fn with_preemption_disabled<R>(self, function: impl FnOnce() -> R) -> R {
        self.pins.set(self.pins.get() + 1);
        let result = function();
        self.pins.set(self.pins.get() - 1);
        result
    }
}
