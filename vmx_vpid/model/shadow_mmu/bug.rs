// SPDX-License-Identifier: GPL-2.0

//! This module lists the bugs that can be injected, one at a time: each has to be found.

/// Makes the enum and its names.
macro_rules! broken {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Something that must not be done so, and is.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Bug {
            $($(#[$doc])* $name,)*
        }

        impl Bug {
            /// All of them.
            pub(crate) const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Returns its name.
            pub(crate) fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                }
            }
        }
    };
}

broken! {
    // A look-up.
    /// A page is found by its table alone.
    RoleNotCompared,
    /// CR0.WP is no part of the role.
    WpNotCompared,
    /// CR4.SMEP is none.
    SmepNotCompared,
    /// CR4.SMAP while CR0.WP is clear is none.
    SmapNotCompared,
    /// What is permitted above is none.
    AccessNotCompared,
    /// The level is none.
    LevelNotCompared,
    /// The quadrant is none.
    QuadrantNotCompared,
    /// That a page is direct is none.
    DirectNotCompared,
    /// The size of the guest's entries is none.
    WidthNotCompared,
    /// A page that is unsync is found, and taken as it is.
    FoundUnsync,

    // Which pages are unsync.
    /// It is not known above that one is.
    ParentsNotTold,
    /// It is known in one place above only.
    OneParentTold,
    /// A page that is unsync gets one more place above, which is not told.
    LinkedUnsync,
    /// A page that leads to some that are unsync is linked as it is.
    ChildrenLinkedUnsync,
    /// Tables of tables may be written, and are not unsync.
    TrackedMadeWritable,
    /// Pages of the lowest level may be written, and are not unsync.
    UnsyncForgotten,
    /// What may be written already may be so when a table gets its first page.
    NotProtected,
    /// That is taken away, and not flushed.
    NotProtectedAtOnce,

    // How a page is brought up to date.
    /// It is only looked whether an entry is present.
    PresenceIsEnough,
    /// What the entry permits stays as it was.
    AccessKept,
    /// An entry that was not accessed counts as present.
    AccessedNotAsked,
    /// A page may be written before the guest's dirty flag is set.
    DirtyNotAsked,
    /// What is lost is not flushed.
    SyncNotFlushed,
    /// A table of the guest's may be written on while its page counts as up to date.
    SyncedUnprotected,

    // What the guest writes into a table that is not to be written.
    /// Nobody looks at it.
    WriteNotTracked,
    /// Of the two entries that stand for one of four bytes, one is dropped.
    HalfTracked,
    /// What is dropped is not flushed.
    TrackedNotFlushed,

    // How pages are given up.
    /// Entries that lead to a page stay when it goes.
    ParentsKept,
    /// Pages that go are free at once.
    ZapNotFlushed,
    /// A root that is given up is run on.
    InvalidRootKept,
    /// A frame moves, and its entries stay.
    UnmapForgotten,
    /// They go, and are not flushed.
    UnmapNotFlushed,

    // How a fault is handled.
    /// A direct page is kept under an entry that permits something else now.
    DirectNotValidated,
    /// A page that a supervisor may write because of CR0.WP stays the user's.
    WpLeavesUser,
    /// And may be executed in spite of CR4.SMEP.
    WpLeavesExecute,

    // Roots.
    /// A cached root is taken whatever its CR3 is.
    PgdNotCompared,
    /// A root that is loaded is not brought up to date.
    NotSyncedAtLoad,
    /// What is cached of an earlier root is not flushed then.
    NotFlushedAtLoad,
    /// MOV to CR3 does not bring the root up to date.
    NotSyncedAtCr3,
    /// It flushes nothing.
    NotFlushedAtCr3,
    /// It keeps other roots of its PCID.
    PcidKept,
    /// INVLPG leaves cached roots as they are.
    PreviousNotInvalidated,
    /// INVLPG does not bring the entry up to date.
    InvlpgNotSynced,
    /// A change of CR4.PGE leaves cached roots as they are.
    PreviousNotSynced,
    /// A change of registers that the role depends on keeps all roots.
    ContextKept,
    /// What others are asked to flush, they do not.
    RemoteIgnored,
}
