// SPDX-License-Identifier: GPL-2.0

//! This module decides which flush is pending after a change of an EPT.
//!
//! CPUs cache translations from entries, and the addresses of tables.  The cached entries that a
//! change makes stale decide which flush is needed:
//!
//! - *An entry became present.*  No flush: CPUs cache no entries that are not present or
//!   misconfigured.
//! - *Rights were added.*  No flush: a CPU that uses the old entry raises an EPT violation.  The
//!   violation drops the cached mappings of the address, and the guest retries the access.
//! - *Rights were removed, or the page or its memory type was changed.*  A flush: a CPU may use the
//!   old entry until the entry is invalidated.
//! - *A table was unlinked.*  A flush, regardless of the table's contents: a CPU may read the
//!   table's entries, and may set flags in them, until the flush.  The memory must not be reused
//!   before.
//!
//! The only possible flush invalidates all mappings tagged by an EP4TA.  INVEPT has no type for an
//! address, and INVVPID does not invalidate guest-physical mappings.  Source: the manual's chapter
//! on the extended page-table mechanism and caching translation information, "Guidelines for Use of
//! the INVEPT Instruction".

use super::build::Memory;
use crate::{
    ept::Ep4ta,
    x86::addr::Hpa, //
};
use kernel::prelude::*;

/// A value that CPUs may use until a flush.
///
/// The only way to get the value is the flush.  If this is dropped instead, the value leaks, and is
/// never used twice.
#[must_use]
pub(crate) struct Unflushed<T> {
    /// The value.
    value: T,
    /// The tag of the mappings that CPUs may have cached.
    context: Ep4ta,
}

impl<T> Unflushed<T> {
    /// Wraps a value that was in use under a tag and is unlinked now.
    pub(crate) fn new(value: T, context: Ep4ta) -> Self {
        Self { value, context }
    }

    /// Flushes, and returns the value, which may be reused then.
    ///
    /// Before `invalidate` returns, it has to invalidate all mappings tagged by the context, on
    /// each CPU that may have such mappings cached.
    pub(crate) fn flush(self, invalidate: impl FnOnce(Ep4ta)) -> T {
        invalidate(self.context);
        self.value
    }
}

/// The flush that a change needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Needs {
    /// No flush.
    Nothing,
    /// A flush of all mappings tagged by an EP4TA.
    Context(Ep4ta),
}

/// A completed change, and its pending flush.
#[must_use = "unlinked tables are not freed before complete_flush()"]
pub(crate) struct Change(Option<Unflushed<KVec<Hpa>>>);

impl Change {
    /// Returns a change that needs no flush.
    pub(crate) fn free() -> Self {
        Self(None)
    }

    /// Returns a change that needs a flush; `tables` are the unlinked tables, if any.
    pub(crate) fn pending(context: Ep4ta, tables: KVec<Hpa>) -> Self {
        Self(Some(Unflushed::new(tables, context)))
    }

    /// Returns the flush that the change needs.
    pub(crate) fn needs(&self) -> Needs {
        match &self.0 {
            None => Needs::Nothing,
            Some(pending) => Needs::Context(pending.context),
        }
    }

    /// Executes the pending flush, if any, and frees the unlinked tables.
    pub(crate) fn complete_flush(self, memory: &mut impl Memory) {
        let Some(pending) = self.0 else { return };
        let tables = pending.flush(|context| memory.invalidate(context));
        for &table in &*tables {
            memory.free(table);
        }
    }
}
