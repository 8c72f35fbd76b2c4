// SPDX-License-Identifier: GPL-2.0

//! This module predicts what the kernel does at each context switch and flush, and compares the
//! prediction with what the kernel did.
//!
//! The kernel reports four events: the begin and the end of a switch, and the begin and the end of
//! a flush; a tracepoint reports both ends.  Each event comes with the CPU's slots.  From the slots
//! at a begin, [`Cpu`] predicts the slots at the end.
//!
//! Between an end and the next begin, only functions that are not followed change the state: a CPU
//! becomes lazy or goes to user mode, or tables of the kernel change.
//!
//! The kernel reads the tlb_gen after the begin, and another CPU may change the tlb_gen in between.
//! If the kernel flushed, the kernel recorded the tlb_gen that it read, and the prediction is
//! redone with that value.

use crate::{
    asid::{
        cpu::{
            Cpu,
            UserFlush, //
        },
        difference::{
            difference,
            in_use,
            increment,
            name,
            pages,
            slots,
            Compared,
            Counts,
            Event,
            Mismatch,
            What, //
        },
        invpcid::Extent,
        shootdown::{
            Dropped,
            Flush,
            Served, //
        },
        switch::Switched,
        Asid,
        ContextId,
        Features,
        Hardware,
        Mm,
        Published,
        Root,
        TlbGen,
        NOFLUSH, //
    },
    x86::{
        addr::Hva,
        control_regs::Cr3, //
    }, //
};
use core::cell::Cell;

/// The state of an address space at one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MmSnapshot {
    /// The context id.
    pub(crate) id: ContextId,
    /// The tlb_gen.
    pub(crate) tlb_gen: TlbGen,
    /// The root of the tables.
    pub(crate) root: Root,
}

impl Mm for MmSnapshot {
    fn id(&self) -> ContextId {
        self.id
    }

    fn root(&self) -> Root {
        self.root
    }

    fn tlb_gen(&self) -> TlbGen {
        self.tlb_gen
    }

    fn global_asid(&self) -> Option<Asid> {
        None
    }

    fn join(&self) {}
}

/// Hardware that only records the operations.
struct RecordingHw {
    features: Features,
    /// The published state.
    shown: Cell<Published>,
    /// The last value written to CR3, and the state that was published at that time.
    wrote: Cell<Option<(Cr3, Published)>>,
}

impl Hardware for RecordingHw {
    fn features(&self) -> Features {
        self.features
    }

    fn publish(&self, shown: Published) {
        self.shown.set(shown);
    }

    fn leave(&self, _: ContextId) {}

    fn write_cr3(&self, cr3: Cr3) {
        let read = Cr3::from(cr3.into_raw() & !NOFLUSH);
        self.wrote.set(Some((read, self.shown.get())));
    }

    fn invlpg(&self, _: Hva) {}
    fn invpcid(&self, _: Extent) {}
}

/// A bug to inject into each prediction, to test that a mismatch is found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Bug {
    /// No bug.
    #[default]
    None,
    /// Another slot's PCID is in CR3.
    Slot,
    /// A flush is predicted where the CPU keeps translations, and vice versa.
    Flush,
    /// Another slot is the next in turn.
    Next,
    /// Another tlb_gen is recorded.
    TlbGen,
    /// Another user half has to be flushed.
    UserFlush,
}

impl Bug {
    /// All bugs, in the order of the numbers that a user writes.
    const ALL: [Self; 6] = [
        Self::None,
        Self::Slot,
        Self::Flush,
        Self::Next,
        Self::TlbGen,
        Self::UserFlush,
    ];

    /// Returns the bug with the number that a user writes.
    pub(crate) fn new(number: u64) -> Option<Self> {
        Self::ALL.get(usize::try_from(number).ok()?).copied()
    }
}

/// The next action of a CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// A switch to an address space.
    Switch(MmSnapshot),
    /// A flush request, and the loaded address space.
    Flush(Flush, MmSnapshot),
}

impl Next {
    /// Predicts the result of the action on a CPU with these slots.
    fn predict(self, before: Cpu, features: Features) -> Predicted {
        let mut cpu = before;
        let recording = RecordingHw {
            features,
            shown: Cell::new(before.published()),
            wrote: Cell::new(None),
        };
        let (mut leaves, mut dropped) = (false, None);
        match self {
            Self::Switch(next) => {
                if let Switched::Loaded(choice) = cpu.switch_to(&next, &recording) {
                    let flush = choice.flush;
                    dropped = Some(if flush {
                        Dropped::All
                    } else {
                        Dropped::Nothing
                    });
                }
            }
            Self::Flush(flush, loaded) => {
                let kernel = MmSnapshot {
                    id: ContextId::KERNEL,
                    ..loaded
                };
                match cpu.serve(&flush, &loaded, &kernel, &recording) {
                    Served::Elsewhere => dropped = Some(Dropped::Nothing),
                    Served::CaughtUp(what) => dropped = Some(what),
                    // The switch to the kernel's own address space has events of its own.
                    Served::Left => (leaves, cpu) = (true, before),
                    Served::Kernel | Served::Broadcast | Served::Known => {}
                }
            }
        }
        Predicted {
            cpu,
            wrote: recording.wrote.get().filter(|_| !leaves),
            dropped,
            leaves,
        }
    }

    /// Returns the same action with another tlb_gen of the address space.
    fn with(self, tlb_gen: TlbGen) -> Self {
        match self {
            Self::Switch(mm) => Self::Switch(MmSnapshot { tlb_gen, ..mm }),
            Self::Flush(flush, mm) => Self::Flush(flush, MmSnapshot { tlb_gen, ..mm }),
        }
    }

    /// Returns the tlb_gen of the address space.
    fn tlb_gen(self) -> TlbGen {
        match self {
            Self::Switch(mm) | Self::Flush(_, mm) => mm.tlb_gen,
        }
    }

    /// Returns the event at which a difference is found.
    fn when(self) -> Event {
        match self {
            Self::Switch(_) => Event::Switch,
            Self::Flush(..) => Event::Flush,
        }
    }
}

/// The predicted state of a CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Predicted {
    /// The slots.
    cpu: Cpu,
    /// The value written to CR3, if any, and the state that was published at that time.
    wrote: Option<(Cr3, Published)>,
    /// The expected report of dropped translations; `None` if the kernel reports no end.
    dropped: Option<Dropped>,
    /// The CPU has to switch to the kernel's own address space next.
    leaves: bool,
}

impl Predicted {
    /// Returns the first difference from the observed state.
    fn compare(&self, done: &Observed) -> Option<Compared> {
        let told = (What::Told, self.dropped.is_some().into(), 1);
        let dropped = (What::Flush, pages(self.dropped), pages(Some(done.dropped)));
        let wrote = self.wrote.map(|(cr3, shown)| {
            [
                (What::Cr3, cr3.into_raw(), done.cr3.into_raw()),
                (What::Loaded, name(shown.loaded), name(done.shown.loaded)),
                (What::Lazy, shown.lazy.into(), done.shown.lazy.into()),
            ]
        });
        let said = [told, dropped].into_iter();
        let said = said.chain(wrote.into_iter().flatten());
        difference(said.chain(slots(&self.cpu, &done.cpu)))
    }

    /// Injects a bug.
    fn inject(&mut self, bug: Bug) {
        let slot = self
            .cpu
            .asid
            .slot()
            .and_then(|slot| self.cpu.slots.get_mut(slot));
        match (bug, &mut self.wrote, &mut self.dropped, slot) {
            (Bug::Slot, Some((cr3, _)), ..) => *cr3 = Cr3::from(cr3.into_raw() ^ 7),
            (Bug::Flush, _, Some(dropped), _) => {
                *dropped = match dropped {
                    Dropped::All => Dropped::Nothing,
                    Dropped::Nothing | Dropped::Pages(_) => Dropped::All,
                };
            }
            (Bug::Next, ..) => self.cpu.next ^= 7,
            (Bug::TlbGen, .., Some(slot)) => slot.tlb_gen = slot.tlb_gen.next(),
            (Bug::UserFlush, ..) => {
                let mask = self.cpu.user_flush.into_raw();
                self.cpu.user_flush = UserFlush::from_raw(mask ^ 1 << 15);
            }
            _ => {}
        }
    }
}

/// The state of a CPU that the kernel reports at an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Observed {
    /// The slots; at the end of a switch, `loaded` and `asid` still have the old values.
    pub(crate) cpu: Cpu,
    /// The published state.
    pub(crate) shown: Published,
    /// The value of CR3.
    pub(crate) cr3: Cr3,
    /// The report of dropped translations.
    pub(crate) dropped: Dropped,
}

impl Observed {
    /// Returns the tlb_gen that the kernel read, if the kernel flushed and so recorded the tlb_gen.
    fn read(&self, when: Event, features: Features) -> Option<TlbGen> {
        let asid = if when == Event::Switch && features.pcid {
            // `cpu.asid` does not have the new slot yet, but CR3 has.
            // CAST: A PCID has 12 bits.
            Asid::new((self.cr3.pcid().get() as u16).checked_sub(1)?)?
        } else {
            self.cpu.asid
        };
        let slot = self.cpu.slots.get(asid.slot()?)?;
        (self.dropped != Dropped::Nothing).then_some(slot.tlb_gen)
    }
}

/// Copies the parts of a CPU's state that may change between events, if they changed as allowed.
fn between_events(mut known: Cpu, now: &Cpu, features: Features) -> Cpu {
    // The CPU may become lazy, which only a switch ends; the kernel's tables may change.
    known.lazy |= now.lazy && known.loaded != ContextId::KERNEL;
    known.invalidate_other |= now.invalidate_other && features.pti;
    // A drop of an address defers a flush of the slot in use, and user mode executes that flush.
    let (mut before, mut after) = (known.user_flush, now.user_flush);
    before.defer(known.asid, features);
    after.defer(known.asid, features);
    if before == after {
        known.user_flush = now.user_flush;
    }
    known
}

/// A CPU that is followed.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Follower {
    /// The current action, the slots before the action, and the prediction.
    pending: Option<(Next, Cpu, Predicted)>,
    /// The expected slots at the next event; `None` if they are unknown.
    known: Option<Cpu>,
    /// The counts of events.
    pub(crate) counts: Counts,
    /// The first difference.
    pub(crate) first: Option<Mismatch>,
}

impl Follower {
    /// Handles the begin of an action on a CPU with these slots.
    pub(crate) fn begin(&mut self, now: Cpu, next: Next, features: Features, bug: Bug) {
        self.settle(next);
        self.between(&now, features);
        match next {
            Next::Switch(_) => increment(&mut self.counts.switches),
            Next::Flush(..) => increment(&mut self.counts.flushes),
        }
        let mut predicted = next.predict(now, features);
        predicted.inject(bug);
        self.pending = Some((next, now, predicted));
    }

    /// Ends an action for which the kernel reported no end.
    fn settle(&mut self, next: Next) {
        let Some((was, _, predicted)) = self.pending.take() else {
            return;
        };
        self.known = Some(predicted.cpu);
        let left = matches!(next, Next::Switch(mm) if mm.id == ContextId::KERNEL);
        if predicted.dropped.is_some() || (predicted.leaves && !left) {
            self.mismatch(was.when(), (What::Told, 1, 0));
        } else if was.when() == Event::Switch {
            increment(&mut self.counts.switches_stayed);
        }
    }

    /// Compares the slots of a CPU with the slots at the previous event.
    fn between(&mut self, now: &Cpu, features: Features) {
        let Some(known) = self.known.take() else {
            return;
        };
        let known = between_events(known, now, features);
        let Some(found) = difference(slots(&known, now).chain(in_use(&known, now))) else {
            return;
        };
        let mut restarted = known;
        let [first, ..] = now.slots;
        restarted.restart(first.tlb_gen);
        let restarted = between_events(restarted, now, features);
        if difference(slots(&restarted, now).chain(in_use(&restarted, now))).is_none() {
            increment(&mut self.counts.restarts);
        } else {
            self.mismatch(Event::Between, found);
        }
    }

    /// Handles the end of an action.
    pub(crate) fn end(&mut self, when: Event, done: Observed, features: Features) {
        let pending = self.pending.take().filter(|it| it.0.when() == when);
        let Some((next, before, mut predicted)) = pending else {
            self.unseen(when, &done);
            return;
        };
        let read = done.read(when, features);
        if let Some(read) = read.filter(|&read| read > next.tlb_gen()) {
            increment(&mut self.counts.raced);
            predicted = next.with(read).predict(before, features);
        }
        match (when, done.dropped) {
            (Event::Switch, Dropped::Nothing) => increment(&mut self.counts.switches_kept),
            (Event::Switch, _) => increment(&mut self.counts.switches_flushed),
            (_, Dropped::All) => increment(&mut self.counts.flushes_all),
            (_, Dropped::Pages(_)) => increment(&mut self.counts.flushes_pages),
            (_, Dropped::Nothing) => {}
        }
        match predicted.compare(&done) {
            Some(found) => self.mismatch(when, found),
            None => self.known = Some(predicted.cpu),
        }
    }

    /// Handles an end without a begin.
    fn unseen(&mut self, when: Event, done: &Observed) {
        let counts = &mut self.counts;
        // The module listens to ends before it listens to begins, so early ends have no begin.
        let told = match when {
            Event::Switch => counts.switches,
            Event::Flush | Event::Between => counts.flushes,
        };
        if told > 0 {
            increment(&mut counts.unseen);
        }
        self.known = (when == Event::Flush).then_some(done.cpu);
    }

    /// Records a mismatch; the slots are unknown until the next event.
    fn mismatch(&mut self, when: Event, (what, wanted, found): Compared) {
        self.known = None;
        increment(&mut self.counts.mismatches);
        let switch = self.counts.switches;
        self.first.get_or_insert(Mismatch {
            when,
            switch,
            what,
            wanted,
            found,
        });
    }
}
