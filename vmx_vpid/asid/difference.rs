// SPDX-License-Identifier: GPL-2.0

//! This module compares the predicted with the observed state of a CPU, and counts events.

use crate::asid::{
    cpu::{
        Cpu,
        Slot, //
    },
    shootdown::Dropped,
    ContextId, //
};

/// The value that differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// CR3.
    Cr3,
    /// The number of dropped pages: 0 for no flush, all ones for a full flush.
    Flush,
    /// The context id in a slot.
    Context,
    /// The tlb_gen in a slot.
    TlbGen,
    /// The next slot in turn.
    Next,
    /// `invalidate_other`.
    InvalidateOther,
    /// The mask of user halves that have to be flushed.
    UserFlush,
    /// The ASID in use.
    Asid,
    /// The address space in use.
    Loaded,
    /// Whether the CPU is lazy.
    Lazy,
    /// Whether the kernel reported the event.
    Told,
}

impl What {
    /// Returns the name for debugfs.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Cr3 => "cr3",
            Self::Flush => "flush",
            Self::Context => "ctx_id",
            Self::TlbGen => "tlb_gen",
            Self::Next => "next_asid",
            Self::InvalidateOther => "invalidate_other",
            Self::UserFlush => "user_pcid_flush_mask",
            Self::Asid => "asid",
            Self::Loaded => "loaded",
            Self::Lazy => "lazy",
            Self::Told => "told",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// A switch.
    Switch,
    /// A flush.
    Flush,
    /// The interval since the previous switch or flush.
    Between,
}

impl Event {
    /// Returns the name for debugfs.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Switch => "switch",
            Self::Flush => "flush",
            Self::Between => "between",
        }
    }
}

/// One difference between the prediction and the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mismatch {
    /// The event at which the mismatch was found.
    pub(crate) when: Event,
    /// The number of the current switch, or of the last switch before.
    pub(crate) switch: u64,
    /// The value that differs.
    pub(crate) what: What,
    /// The predicted value.
    pub(crate) wanted: u64,
    /// The kernel's value.
    pub(crate) found: u64,
}

/// Returns the number of dropped pages as the kernel traces it.
pub(super) fn pages(dropped: Option<Dropped>) -> u64 {
    match dropped {
        Some(Dropped::All) => u64::MAX,
        Some(Dropped::Pages(pages)) => pages,
        Some(Dropped::Nothing) | None => 0,
    }
}

/// Returns the number of a context id; 0 for none.
pub(super) fn name(id: Option<ContextId>) -> u64 {
    id.map_or(0, ContextId::into_raw)
}

/// What is compared, the predicted number, and the kernel's number.
pub(super) type Compared = (What, u64, u64);

/// Returns the predicted and the observed state of the slots, side by side.
pub(super) fn slots(wanted: &Cpu, found: &Cpu) -> impl Iterator<Item = Compared> {
    let both = wanted.slots.into_iter().zip(found.slots);
    both.flat_map(|(wanted, found)| {
        let tlb_gen = |slot: Slot| match slot.id {
            Some(_) => slot.tlb_gen.into_raw(),
            None => 0,
        };
        [
            (What::Context, name(wanted.id), name(found.id)),
            (What::TlbGen, tlb_gen(wanted), tlb_gen(found)),
        ]
    })
    .chain([
        (What::Next, wanted.next.into(), found.next.into()),
        (
            What::InvalidateOther,
            wanted.invalidate_other.into(),
            found.invalidate_other.into(),
        ),
        (
            What::UserFlush,
            wanted.user_flush.into_raw().into(),
            found.user_flush.into_raw().into(),
        ),
        (What::Lazy, wanted.lazy.into(), found.lazy.into()),
    ])
}

/// Returns the predicted and the observed slot in use, side by side.
pub(super) fn in_use(wanted: &Cpu, found: &Cpu) -> impl Iterator<Item = Compared> {
    let asid = |cpu: &Cpu| cpu.asid.into_raw().into();
    let loaded = |cpu: &Cpu| cpu.loaded.into_raw();
    [
        (What::Asid, asid(wanted), asid(found)),
        (What::Loaded, loaded(wanted), loaded(found)),
    ]
    .into_iter()
}

/// Returns the first comparison whose two numbers differ.
pub(super) fn difference(all: impl IntoIterator<Item = Compared>) -> Option<Compared> {
    all.into_iter().find(|(_, wanted, found)| wanted != found)
}

macro_rules! counts {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// The counts of events.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub(crate) struct Counts {
            $($(#[$doc])* pub(crate) $name: u64,)*
        }

        impl Counts {
            /// Returns the sum of two sets of counts.
            pub(crate) fn plus(self, other: Self) -> Self {
                Self { $($name: self.$name.wrapping_add(other.$name),)* }
            }

            /// Returns each count with its name.
            pub(crate) fn named(self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name),)*].into_iter()
            }
        }
    };
}

counts! {
    /// Switches that were followed.
    switches,
    /// Followed switches that left CR3 unchanged.
    switches_stayed,
    /// Followed switches that kept cached translations.
    switches_kept,
    /// Followed switches that flushed.
    switches_flushed,
    /// Flushes that were followed.
    flushes,
    /// Followed flushes that dropped everything.
    flushes_all,
    /// Followed flushes of some pages.
    flushes_pages,
    /// Predictions that were redone, because the kernel read a newer tlb_gen.
    raced,
    /// Ends of a switch or a flush without a begin.
    unseen,
    /// CPUs that came online again.
    restarts,
    /// Switches, flushes and intervals that differed from the prediction.
    mismatches,
}

/// Increments a count.
pub(super) fn increment(count: &mut u64) {
    *count = count.wrapping_add(1);
}
