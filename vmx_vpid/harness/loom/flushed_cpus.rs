// SPDX-License-Identifier: GPL-2.0

//! This module makes FlushedCpus of words of which Loom tries every order of accesses.

use super::scenario::Bug;
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

/// A word of FlushedCpus, if a run uses the word.
///
/// Loom needs new words in each execution, and a scenario uses only a few of the 65536 words.
pub(super) struct Slot {
    bug: Option<Bug>,
    word: Mutex<Option<Arc<AtomicU64>>>,
}

impl Slot {
    /// Makes a plane without words.
    pub(super) fn plane(bug: Option<Bug>) -> Box<Plane<Self>> {
        let new = || Self {
            bug,
            word: Mutex::new(None),
        };
        let slots: Box<[Self]> = std::iter::repeat_with(new).take(Vpid::COUNT).collect();
        slots.try_into().unwrap_or_else(|_| unreachable!())
    }

    /// Sets or removes the word.
    pub(super) fn put(&self, word: Option<AtomicU64>) {
        *self.word.lock().unwrap_or_else(PoisonError::into_inner) = word.map(Arc::new);
    }

    /// Returns the word.
    ///
    /// The lock is dropped before the caller accesses the word, because Loom may switch to another
    /// thread at any access.
    fn word(&self) -> Arc<AtomicU64> {
        let word = self.word.lock().unwrap_or_else(PoisonError::into_inner);
        word.clone().expect("no scenario uses this VPID")
    }
}

impl Word for Slot {
    fn read(&self) -> u64 {
        self.word().load(Relaxed)
    }

    fn clear(&self) {
        if self.bug != Some(Bug::BitsKept) {
            // The kernel uses a store.  Loom does not order a store and an exchange as a CPU does,
            // and could lose a CPU's bit that no CPU loses; Loom orders two exchanges.
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
