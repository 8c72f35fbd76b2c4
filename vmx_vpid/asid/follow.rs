// SPDX-License-Identifier: GPL-2.0

//! This module predicts what the kernel does at each context switch and flush, and compares the
//! prediction with what it did.
//!
//! The kernel reports four events: it is about to switch to an address space, or to serve a flush;
//! and it has done so, as far as its tracepoint says.  Each event brings the CPU's slots.  From the
//! slots at the first event, [`Cpu`] predicts the slots at the second.
//!
//! Between two events only the functions that are not followed change anything: a CPU becomes lazy,
//! returns to user mode, or tables of the kernel change.
//!
//! The kernel reads the tlb_gen after the first event, and another CPU may change it in between.
//! If the kernel flushed, it recorded the tlb_gen that it read; the prediction is redone with that
//! value.

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
            Event, //
            Mismatch,
            What,
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
        Hva,
        Mm,
        Published,
        Root,
        TlbGen,
        NOFLUSH, //
    },
    x86::control_regs::Cr3, //
};
use core::cell::Cell;

/// An address space as it was at one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MmSnapshot {
    /// Its name.
    pub(crate) id: ContextId,
    /// The tlb_gen of its tables.
    pub(crate) tlb_gen: TlbGen,
    /// Its tables.
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

/// The hardware of a CPU that is only recording of.
struct RecordingHw {
    features: Features,
    /// The published state.
    shown: Cell<Published>,
    /// The last value written to CR3, and the state published then.
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

/// A bug to inject into each prediction, to see that it is found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Bug {
    /// Nothing.
    #[default]
    None,
    /// Another slot's PCID is in CR3.
    Slot,
    /// A flush is predicted where the CPU keeps translations, and the other way round.
    Flush,
    /// Another slot is the next in turn.
    Next,
    /// Another tlb_gen is noted.
    TlbGen,
    /// Another user half is to be flushed.
    UserFlush,
}

impl Bug {
    /// All of them, by the numbers that a user gives.
    const ALL: [Self; 6] = [
        Self::None,
        Self::Slot,
        Self::Flush,
        Self::Next,
        Self::TlbGen,
        Self::UserFlush,
    ];

    /// Makes a bug of the number that a user writes.
    pub(crate) fn new(number: u64) -> Option<Self> {
        Self::ALL.get(usize::try_from(number).ok()?).copied()
    }
}

/// The next action of a CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// It switches to an address space.
    Switch(MmSnapshot),
    /// It serves a flush, and uses an address space.
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
                    // The switch to the kernel's own address space is followed by itself.
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

    /// The same with another tlb_gen of the address space.
    fn with(self, tlb_gen: TlbGen) -> Self {
        match self {
            Self::Switch(mm) => Self::Switch(MmSnapshot { tlb_gen, ..mm }),
            Self::Flush(flush, mm) => Self::Flush(flush, MmSnapshot { tlb_gen, ..mm }),
        }
    }

    /// The tlb_gen of the address space.
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
    /// The value of CR3, and the state published when it was written, if it was.
    wrote: Option<(Cr3, Published)>,
    /// The report of dropped translations; `None` if there is none.
    dropped: Option<Dropped>,
    /// It goes to the kernel's own address space before anything else.
    leaves: bool,
}

impl Predicted {
    /// Compares it with what a CPU did.
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

    /// Makes it wrong.
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

/// The observed state of a CPU, as far as it reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Observed {
    /// The slots; within a switch, not yet the one that is loaded.
    pub(crate) cpu: Cpu,
    /// The published state.
    pub(crate) shown: Published,
    /// The value of CR3.
    pub(crate) cr3: Cr3,
    /// The report of dropped translations.
    pub(crate) dropped: Dropped,
}

impl Observed {
    /// Returns the tlb_gen that the kernel read, if it flushed: it noted it.
    fn read(&self, when: Event, features: Features) -> Option<TlbGen> {
        let asid = if when == Event::Switch && features.pcid {
            // The field does not name the next slot yet; CR3 does.  CAST: The field has 12 bits.
            Asid::new((self.cr3.pcid().get() as u16).checked_sub(1)?)?
        } else {
            self.cpu.asid
        };
        let slot = self.cpu.slots.get(asid.slot()?)?;
        (self.dropped != Dropped::Nothing).then_some(slot.tlb_gen)
    }
}

/// Takes over the parts of a CPU's state that may change between events.
fn between_events(mut known: Cpu, now: &Cpu, features: Features) -> Cpu {
    // It went lazy, and only a switch ends that; tables of the kernel's changed.
    known.lazy |= now.lazy && known.loaded != ContextId::KERNEL;
    known.invalidate_other |= now.invalidate_other && features.pti;
    // It dropped something, or went to user mode: both are about the slot in use.
    let (mut before, mut after) = (known.user_flush, now.user_flush);
    before.defer(known.asid, features);
    after.defer(known.asid, features);
    if before == after {
        known.user_flush = now.user_flush;
    }
    known
}

/// One CPU that is followed.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Follower {
    /// The action, the slots before it, and the prediction.
    pending: Option<(Next, Cpu, Predicted)>,
    /// The slots as long as nothing happens; `None` until they are seen.
    known: Option<Cpu>,
    /// The counts of events.
    pub(crate) counts: Counts,
    /// The first difference.
    pub(crate) first: Option<Mismatch>,
}

impl Follower {
    /// Handles the beginning of an action on a CPU with these slots.
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

    /// Ends what it did without saying so.
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

    /// Compares what a CPU knows with what it knew when it was last heard of.
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

    /// A CPU says what it did.
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

    /// Handles the end of an action whose beginning was not reported.
    fn unseen(&mut self, when: Event, done: &Observed) {
        let counts = &mut self.counts;
        // Before the first beginning that is reported, there are ends that are.
        let told = match when {
            Event::Switch => counts.switches,
            Event::Flush | Event::Between => counts.flushes,
        };
        if told > 0 {
            increment(&mut counts.unseen);
        }
        self.known = (when == Event::Flush).then_some(done.cpu);
    }

    /// Records a difference; the slots have to be seen again.
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
