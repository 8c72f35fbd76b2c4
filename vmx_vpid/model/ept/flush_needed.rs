// SPDX-License-Identifier: GPL-2.0

//! This module defines the flush that a change of an EPT needs.
//!
//! CPUs keep translations that they made from entries, and the addresses of tables that the entries
//! referred to.  What they may keep after an entry was changed decides what has to follow:
//!
//! - *An entry became present.* Nothing: no CPU caches an entry that is not present, or
//!   misconfigured.
//! - *Rights were added.* Nothing: a CPU that uses the old entry raises a violation, which drops
//!   its mappings of the address.  Then it retries the access.
//! - *Rights were removed, or the page or its memory type was changed.* A flush: a CPU may use the
//!   old entry until it is flushed.
//! - *A table was unlinked.* A flush, whatever the table held: a CPU may read its entries, and set
//!   flags in them, until it is flushed.  Until then the memory is not free.
//!
//! The only flush drops the mappings of an EP4TA. INVEPT has no type for an address, and INVVPID
//! does not drop guest-physical mappings.
//! Source: the manual's chapter on the extended page-table mechanism and caching translation
//! information, "Guidelines for Use of the INVEPT Instruction".

use super::build::Memory;
use crate::{
    ept::Ep4ta,
    x86::addr::Hpa, //
};
use kernel::prelude::*;

/// A value that CPUs may use until they are flushed.
///
/// The only way to get at it is to flush them.  If this is dropped instead, the value is leaked,
/// and no memory is used for two purposes.
#[must_use]
pub(crate) struct Unflushed<T> {
    /// What it is.
    value: T,
    /// The tag of what they may have cached.
    context: Ep4ta,
}

impl<T> Unflushed<T> {
    /// Says that something was in use under a tag, and is to be no more.
    pub(crate) fn new(value: T, context: Ep4ta) -> Self {
        Self { value, context }
    }

    /// Makes the flush, and gives back what may be reused then.
    ///
    /// `invalidate` has to drop all that is tagged by the context on each CPU that may have it
    /// cached, before it returns.
    pub(crate) fn flush(self, invalidate: impl FnOnce(Ep4ta)) -> T {
        invalidate(self.context);
        self.value
    }
}

/// Which flush is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Needs {
    /// None.
    Nothing,
    /// One of all that is tagged by an EP4TA.
    Context(Ep4ta),
}

/// A change that was made, and what is owed for it.
#[must_use = "what was taken away is in use until the change is settled"]
pub(crate) struct Change(Option<Unflushed<KVec<Hpa>>>);

impl Change {
    /// A change that needs no flush.
    pub(crate) fn free() -> Self {
        Self(None)
    }

    /// A change that needs a flush, also if there is no table among what was taken away.
    pub(crate) fn owing(context: Ep4ta, tables: KVec<Hpa>) -> Self {
        Self(Some(Unflushed::new(tables, context)))
    }

    /// Returns which flush is needed.
    pub(crate) fn needs(&self) -> Needs {
        match &self.0 {
            None => Needs::Nothing,
            Some(pending) => Needs::Context(pending.context),
        }
    }

    /// Makes the flush, if one is needed, and gives back the memory of tables that are no more.
    pub(crate) fn complete_flush(self, memory: &mut impl Memory) {
        let Some(pending) = self.0 else { return };
        let tables = pending.flush(|context| memory.invalidate(context));
        for &table in &*tables {
            memory.free(table);
        }
    }
}
