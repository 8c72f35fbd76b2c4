// SPDX-License-Identifier: GPL-2.0

//! This module has a mock of two CPUs for the tests of [`crate::flush`]; it counts instructions and
//! keeps the recorded VPIDs of each CPU.

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

/// A machine of two CPUs on which instructions either succeed or fail.
///
/// The machine migrates the task to the other CPU whenever preemption is enabled.
pub(crate) struct Moving {
    /// Whether instructions succeed.
    works: bool,
    /// The CPU that the task runs on.
    cpu: Cell<usize>,
    /// How many sections with preemption disabled the task is in.
    pins: Cell<u32>,
    /// How many instructions were issued on each CPU.
    pub(crate) issued: [Cell<u32>; 2],
    /// The last two VPIDs that were recorded as flushed on each CPU.
    pub(crate) recorded: [Cell<[Option<Vpid>; 2]>; 2],
}

impl Moving {
    /// Makes a machine on whose CPUs no instruction was issued.
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

    /// Counts an instruction, and returns whether it succeeds.
    fn issue(&self) -> Result<(), InsnError> {
        let issued = &self.issued[self.cpu.get()];
        issued.set(issued.get() + 1);
        self.go_on();
        if self.works {
            Ok(())
        } else {
            Err(InsnError::Exception)
        }
    }

    /// Migrates the task to the other CPU, unless preemption is disabled.
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
