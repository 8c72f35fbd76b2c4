// SPDX-License-Identifier: GPL-2.0

//! This module lists the injected bugs, and the errors by which the model finds the bugs.

use crate::asid::Features;

/// An error that the model finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wrong {
    /// A CPU could access a page by a translation that the tables do not have.
    Stale { cpu: usize, page: usize },
    /// A CPU could walk a freed table.
    Freed { cpu: usize, number: usize },
    /// CR3 of a CPU has the tables of a process that has ended.
    Gone { cpu: usize },
    /// An instruction would raise an exception, or has a PCID that the kernel does not use.
    Exception,
}

/// An injected bug, and the features with which the model finds the bug.
pub(super) struct Mutant {
    /// The name of the bug.
    pub(super) name: &'static str,
    /// The bug.
    pub(super) bug: Bug,
    /// The features.
    pub(super) features: Features,
}

/// Defines the injected bugs.
macro_rules! bugs {
    ($($(#[$doc:meta])* $bug:ident: $pcid:literal, $pti:literal, $invpcid:literal;)*) => {
        /// An injected bug.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Bug {
            $($(#[$doc])* $bug,)*
        }

        /// The injected bugs.
        pub(super) static MUTANTS: &[Mutant] = &[
            $(Mutant {
                name: stringify!($bug),
                bug: Bug::$bug,
                features: Features { pcid: $pcid, pti: $pti, invpcid: $invpcid },
            },)*
        ];
    };
}

// The three flags are the features with which the bug can be found: PCIDs, page-table isolation,
// INVPCID.
bugs! {
    /// A new address space gets a slot without a flush of the slot's PCID (XSA-292).
    SlotTakenAsItIs: true, false, true;
    /// A slot is used again without a flush, although tables changed.
    ChangesNotCompared: true, false, true;
    /// The slot of a new address space keeps the tlb_gen of the old one.
    GenerationNotNoted: true, false, true;
    /// The slot of a new address space keeps the context id of the old one.
    NameNotNoted: true, false, true;
    /// A flush records the tlb_gen after the flush, and not the one read before.
    GenerationReadLate: true, false, true;
    /// The tlb_gen is read before the CPU enters the `mm_cpumask()`.
    ReadBeforeJoin: true, false, true;
    /// In the middle of a switch, a CPU publishes the address space that it leaves.
    SwitchHidden: true, false, true;
    /// A CPU that returns from a kernel thread does not compare the tlb_gen.
    LazyNotCompared: true, false, true;
    /// A CPU that is not lazy any more still publishes that it is.
    LazyForLong: true, false, true;
    /// A CPU that becomes lazy leaves the `mm_cpumask()`.
    LazyLeavesMask: true, false, true;
    /// Lazy CPUs are not notified of freed tables.
    FreedTablesHidden: true, false, true;
    /// The tlb_gen is incremented after the other CPUs are notified.
    CountedLate: true, false, true;
    /// A CPU that lacks several changes flushes for the last one only.
    ChangesSkipped: true, false, true;
    /// A CPU flushes for one change, and records later changes as flushed, too.
    LaterChangesSkipped: true, false, true;
    /// A flush of a range drops only the first page.
    RangeCutShort: true, false, true;
    /// A flush of a slot does not defer the flush of the user half.
    UserHalfNotNoted: true, true, true;
    /// A deferred flush of a user half is recorded by the ASID, and looked up by the kPCID.
    UserHalfNotedByAsid: true, true, true;
    /// A deferred flush of a user half is found and skipped.
    UserHalfKept: true, true, true;
    /// A flush of an address drops it in the kernel's half only.
    UserHalfForgotten: true, true, true;
    /// `invalidate_other` is ignored, so other slots keep translations of old kernel tables.
    InvalidateOtherIgnored: true, true, true;
    /// A flush of a kernel page keeps global translations.
    GlobalsKept: true, false, true;
    /// A flush of everything drops nothing.
    EverythingKept: true, false, false;
    /// A CPU that comes online keeps the state of its slots.
    SlotsKeptWhileOff: true, true, true;
}
