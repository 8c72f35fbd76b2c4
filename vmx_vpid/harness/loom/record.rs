// SPDX-License-Identifier: GPL-2.0

//! This module makes the record of flushed CPUs of words whose every order Loom tries.

use super::Bug;
use crate::vpid::{
    flushed_cpus::{
        Plane,
        Word, //
    },
    Vpid, //
};
use loom::sync::atomic::{
    AtomicU64,
    Ordering::Relaxed, //
};
use std::sync::{
    Arc,
    Mutex,
    PoisonError, //
};

/// A word of the record, as far as a run uses it.
///
/// Loom needs new words in each execution, and of the 65536 only a few are used.
pub(super) struct Slot {
    bug: Option<Bug>,
    word: Mutex<Option<Arc<AtomicU64>>>,
}

impl Slot {
    /// Makes a plane of words that are not there yet.
    pub(super) fn plane(bug: Option<Bug>) -> Box<Plane<Self>> {
        let new = || Self {
            bug,
            word: Mutex::new(None),
        };
        let slots: Box<[Self]> = std::iter::repeat_with(new).take(Vpid::COUNT).collect();
        slots.try_into().unwrap_or_else(|_| unreachable!())
    }

    /// Puts a word there, or takes it away.
    pub(super) fn put(&self, word: Option<AtomicU64>) {
        *self.word.lock().unwrap_or_else(PoisonError::into_inner) = word.map(Arc::new);
    }

    /// The word; not with the lock held, since loom may go to another thread in any access.
    fn word(&self) -> Arc<AtomicU64> {
        let word = self.word.lock().unwrap_or_else(PoisonError::into_inner);
        word.clone().expect("a VPID that no scenario has")
    }
}

impl Word for Slot {
    fn read(&self) -> u64 {
        self.word().load(Relaxed)
    }

    fn clear(&self) {
        if self.bug != Some(Bug::RecordKept) {
            // The kernel's is a store.  Loom lets one and an exchange be in two orders at once, and
            // a CPU's bit be lost that no CPU loses: between exchanges, there is but one order.
            self.word().swap(0, Relaxed);
        }
    }

    fn exchange(&self, old: u64, new: u64) -> Result<(), u64> {
        if self.bug == Some(Bug::BitSetInTwo) {
            self.word().store(new, Relaxed);
            return Ok(());
        }
        self.word()
            .compare_exchange(old, new, Relaxed, Relaxed)
            .map(|_| ())
    }
}
