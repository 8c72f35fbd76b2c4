// SPDX-License-Identifier: GPL-2.0

//! This module tracks the expected state independently of the code under test.
//!
//! Every thread reports what it is about to do, and what it did.  Loom has to see these reports: it
//! tries no second order of accesses that do not depend on each other.  So a lock of Loom's guards
//! the state.

use super::{
    Side,
    C, //
};
use std::collections::BTreeMap;

/// Who holds what, and where its translations are.
pub(super) struct Oracle {
    /// To which side livepatch leads a task that is between two calls.
    pub(super) lead: Side,
    /// Inside a function of which side each task is.
    inside: [Option<Side>; 2],
    /// Each VPID that is held, with a number that tells its holders apart.
    holders: BTreeMap<u16, u32>,
    /// The holder whose translations a CPU may have under a VPID.
    cached: BTreeMap<(u16, u32), u32>,
    /// The VPIDs in use that the record knows of since they were taken, or imported.
    recorded: Vec<u16>,
    /// How many holders there were.
    count: u32,
    /// How many imports there were, and whether one is under way.
    imports: (u32, bool),
}

impl Oracle {
    /// The VPID that is held from the start.
    pub(super) const FIRST: u16 = 1;

    pub(super) fn new() -> Self {
        Self {
            lead: C,
            inside: [None; 2],
            holders: BTreeMap::from([(Self::FIRST, 0)]),
            cached: BTreeMap::new(),
            recorded: Vec::new(),
            count: 1,
            imports: (0, false),
        }
    }

    /// A task calls a function; returns of which side.
    pub(super) fn enter(&mut self, task: usize) -> Side {
        self.inside[task] = Some(self.lead);
        self.lead
    }

    /// The function returns.
    pub(super) fn leave(&mut self, task: usize) {
        self.inside[task] = None;
    }

    /// Whether no task is inside a function of the side that livepatch leads away from.
    pub(super) fn is_led(&self) -> bool {
        let there = |side: &Option<Side>| side.is_none_or(|side| side == self.lead);
        self.inside.iter().all(there)
    }

    /// A thread has allocated a VPID.
    pub(super) fn took(&mut self, vpid: u16, side: Side) {
        let other = self.holders.insert(vpid, self.count);
        assert_eq!(other, None, "VPID {vpid} has two holders");
        self.count += 1;
        self.recorded.retain(|&known| known != vpid);
        if side == Side::Rust {
            self.recorded.push(vpid);
        }
    }

    /// Its holder is about to give a VPID back.
    pub(super) fn gives(&mut self, vpid: u16) {
        assert!(self.holders.remove(&vpid).is_some(), "a scenario is wrong");
    }

    /// The VPIDs that are held, as the first word of a bitmap.
    pub(super) fn held(&self) -> u64 {
        self.holders.keys().map(|vpid| 1 << vpid).sum()
    }

    /// An import begins.
    pub(super) fn import_begins(&mut self) {
        self.imports.1 = true;
    }

    /// It is over: from here on the record knows of all that are held.
    pub(super) fn import_ended(&mut self) {
        self.imports = (self.imports.0 + 1, false);
        self.recorded = self.holders.keys().copied().collect();
    }

    /// How many imports there were; `None` in the midst of one.
    pub(super) fn imports(&self) -> Option<u32> {
        (!self.imports.1).then_some(self.imports.0)
    }

    /// A CPU forgets what it has under a VPID.
    pub(super) fn flushed(&mut self, vpid: u16, cpu: u32) {
        self.cached.remove(&(vpid, cpu));
    }

    /// The holder of a VPID runs a guest on a CPU.
    pub(super) fn ran(&mut self, vpid: u16, cpu: u32) {
        self.cached.insert((vpid, cpu), self.holders[&vpid]);
    }

    /// A CPU is recorded as clean for a VPID that is held.
    pub(super) fn is_clean(&self, vpid: u16, cpu: u32) {
        let other = self.cached.get(&(vpid, cpu));
        assert!(
            other.is_none_or(|other| *other == self.holders[&vpid]),
            "VPID {vpid} is recorded as clean on CPU {cpu}, which has another holder's translations"
        );
    }

    /// Whether the record can be expected to know of a VPID.
    pub(super) fn is_recorded(&self, vpid: u16) -> bool {
        self.recorded.contains(&vpid)
    }
}
