// SPDX-License-Identifier: GPL-2.0

//! This module tracks the expected state independently of the code under test.
//!
//! Every thread reports each action, before or after.  Loom has to see these reports, because Loom
//! tries no second order of accesses that do not depend on each other.  So a lock of Loom's
//! protects the state.

use super::scenario::Side::{
    self,
    C, //
};
use std::collections::BTreeMap;

/// The holders of VPIDs, and the CPUs that may have translations of a holder.
pub(super) struct Oracle {
    /// The side that the next call of a task goes to.
    pub(super) lead: Side,
    /// The side whose function each task is in; `None` between two calls.
    inside: [Option<Side>; 2],
    /// Each held VPID, with a number that tells the holders of a VPID apart.
    holders: BTreeMap<u16, u32>,
    /// The holder whose translations a CPU may have under a VPID.
    cached: BTreeMap<(u16, u32), u32>,
    /// The VPIDs in use whose FlushedCpus is valid, since they were allocated or imported.
    recorded: Vec<u16>,
    /// The number of holders so far.
    count: u32,
    /// The number of imports so far, and whether an import is in progress.
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

    /// Records that a task calls a function; returns the side of the function.
    pub(super) fn enter(&mut self, task: usize) -> Side {
        self.inside[task] = Some(self.lead);
        self.lead
    }

    /// Records that the function of a task returns.
    pub(super) fn leave(&mut self, task: usize) {
        self.inside[task] = None;
    }

    /// Returns whether no task is inside a function of the side that livepatch replaces.
    pub(super) fn is_led(&self) -> bool {
        let there = |side: &Option<Side>| side.is_none_or(|side| side == self.lead);
        self.inside.iter().all(there)
    }

    /// Records that a thread has allocated a VPID, and checks that the VPID was free.
    pub(super) fn allocated(&mut self, vpid: u16, side: Side) {
        let other = self.holders.insert(vpid, self.count);
        assert_eq!(other, None, "VPID {vpid} has two holders");
        self.count += 1;
        self.recorded.retain(|&known| known != vpid);
        if side == Side::Rust {
            self.recorded.push(vpid);
        }
    }

    /// Records that the holder of a VPID is about to free the VPID.
    pub(super) fn frees(&mut self, vpid: u16) {
        let held = self.holders.remove(&vpid).is_some();
        assert!(held, "a scenario frees a VPID that is not held");
    }

    /// Returns the held VPIDs, as the first word of a bitmap.
    pub(super) fn held(&self) -> u64 {
        self.holders.keys().map(|vpid| 1 << vpid).sum()
    }

    /// Records that an import begins.
    pub(super) fn import_begins(&mut self) {
        self.imports.1 = true;
    }

    /// Records that an import has ended: FlushedCpus is valid for all held VPIDs from here on.
    pub(super) fn import_ended(&mut self) {
        self.imports = (self.imports.0 + 1, false);
        self.recorded = self.holders.keys().copied().collect();
    }

    /// Returns the number of imports so far; `None` during an import.
    pub(super) fn imports(&self) -> Option<u32> {
        (!self.imports.1).then_some(self.imports.0)
    }

    /// Records that a CPU has flushed a VPID.
    pub(super) fn flushed(&mut self, vpid: u16, cpu: u32) {
        self.cached.remove(&(vpid, cpu));
    }

    /// Records that the holder of a VPID ran a guest on a CPU.
    pub(super) fn ran(&mut self, vpid: u16, cpu: u32) {
        self.cached.insert((vpid, cpu), self.holders[&vpid]);
    }

    /// Checks that a CPU which FlushedCpus has as flushed for a held VPID has no translations of
    /// another holder.
    pub(super) fn check_flushed(&self, vpid: u16, cpu: u32) {
        let other = self.cached.get(&(vpid, cpu));
        assert!(
            other.is_none_or(|other| *other == self.holders[&vpid]),
            "VPID {vpid} is recorded as flushed on CPU {cpu} with another holder's translations"
        );
    }

    /// Returns whether FlushedCpus has to be valid for a VPID.
    pub(super) fn is_recorded(&self, vpid: u16) -> bool {
        self.recorded.contains(&vpid)
    }
}
