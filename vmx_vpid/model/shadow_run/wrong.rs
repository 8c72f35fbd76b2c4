// SPDX-License-Identifier: GPL-2.0

//! This module defines the errors that the model finds.

/// An error that the model finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wrong {
    /// A CPU could use a stale cached entry.
    TlbEntry(Stale),
    /// A CPU could use a stale entry of KVM's pages.
    Entry(Stale),
    /// A guest makes no progress.
    Stuck,
    /// No page is left.
    Full,
}

/// The reason why an entry is stale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stale {
    /// The frame has moved in the host.
    Host,
    /// The entry permits a write that KVM has to see.
    Unseen,
    /// The entry permits an access that the guest's entries forbid.
    Rights,
    /// The guest's tables do not agree any more, and the guest has invalidated the entry.
    Guest,
    /// The entry leads to a table that is not linked there any more.
    Structure,
}
