// SPDX-License-Identifier: GPL-2.0

//! This module lists the bugs that the tests inject, one at a time; the model has to find each.

/// Defines the enumeration of the bugs, with their names.
macro_rules! broken {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// An injected bug.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Bug {
            $($(#[$doc])* $name,)*
        }

        impl Bug {
            /// All bugs.
            pub(crate) const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Returns the bug's name.
            pub(crate) fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                }
            }
        }
    };
}

broken! {
    // Look-up.
    /// A page is looked up by its table alone.
    RoleNotCompared,
    /// The look-up ignores CR0.WP.
    WpNotCompared,
    /// The look-up ignores CR4.SMEP.
    SmepNotCompared,
    /// The look-up ignores CR4.SMAP with CR0.WP clear.
    SmapNotCompared,
    /// The look-up ignores the access that the entries above permit.
    AccessNotCompared,
    /// The look-up ignores the level.
    LevelNotCompared,
    /// The look-up ignores the quadrant.
    QuadrantNotCompared,
    /// The look-up ignores whether the page is direct.
    DirectNotCompared,
    /// The look-up ignores the size of the guest's entries.
    WidthNotCompared,
    /// The look-up finds an unsync page and does not synchronise it.
    FoundUnsync,

    // Unsync pages.
    /// The pages above an unsync page do not record that it is unsync.
    ParentsNotTold,
    /// Only one of the entries that lead to an unsync page is recorded.
    OneParentTold,
    /// A new entry that leads to an unsync page is not recorded.
    LinkedUnsync,
    /// A page that leads to unsync pages is linked without synchronising them.
    ChildrenLinkedUnsync,
    /// The guest may write tables of higher levels, whose pages do not become unsync.
    TrackedMadeWritable,
    /// The guest may write page tables of the lowest level, whose pages do not become unsync.
    UnsyncForgotten,
    /// When a page is made from a table, the table's frame stays writable.
    NotProtected,
    /// When a page is made from a table, the table's frame is write-protected without a flush.
    NotProtectedAtOnce,

    // Synchronising.
    /// Synchronising an entry does not compare the frame.
    PresenceIsEnough,
    /// Synchronising an entry keeps the old access.
    AccessKept,
    /// Synchronising an entry ignores that the guest's accessed flag is clear.
    AccessedNotAsked,
    /// A page may be written although the guest's dirty flag is clear.
    DirtyNotAsked,
    /// Synchronising flushes nothing.
    SyncNotFlushed,
    /// A guest's table stays writable while its page counts as synchronised.
    SyncedUnprotected,

    // Writes to write-protected tables.
    /// KVM ignores the write.
    WriteNotTracked,
    /// Of the two entries made from a guest's entry of four bytes, only one is dropped.
    HalfTracked,
    /// Entries are dropped without a flush.
    TrackedNotFlushed,

    // Zapping.
    /// Entries that lead to a zapped page stay.
    ParentsKept,
    /// Zapped pages are freed without a flush.
    ZapNotFlushed,
    /// A vCPU keeps running on a zapped root.
    InvalidRootKept,
    /// A frame moves, and the entries that map the frame stay.
    UnmapForgotten,
    /// A frame moves, and the entries that map the frame are dropped without a flush.
    UnmapNotFlushed,

    // Page faults.
    /// A direct page is kept although the guest's entry permits another access now.
    DirectNotValidated,
    /// A page that a supervisor may write because CR0.WP is clear stays a user page.
    WpLeavesUser,
    /// A page that a supervisor may write because CR0.WP is clear stays executable with CR4.SMEP.
    WpLeavesExecute,

    // Roots.
    /// A cached root is used for any CR3.
    PgdNotCompared,
    /// A loaded root is not synchronised.
    NotSyncedAtLoad,
    /// Loading a root flushes nothing.
    NotFlushedAtLoad,
    /// An invalidation of the current PCID does not synchronise the root.
    NotSyncedAtCr3,
    /// An invalidation of the current PCID flushes nothing.
    NotFlushedAtCr3,
    /// An invalidation of a PCID keeps previous roots of the PCID.
    PcidKept,
    /// INVLPG does not synchronise previous roots.
    PreviousNotInvalidated,
    /// INVLPG synchronises no entry.
    InvlpgNotSynced,
    /// A change of CR4.PGE keeps unsync previous roots.
    PreviousNotSynced,
    /// A change of registers that the role depends on frees no roots.
    ContextKept,
    /// A request to flush all vCPUs has no effect.
    RemoteIgnored,
}
