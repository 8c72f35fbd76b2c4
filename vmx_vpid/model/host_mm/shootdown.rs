// SPDX-License-Identifier: GPL-2.0

//! This module changes tables, and announces each change to the CPUs that it concerns.
//!
//! A removed frame or table may be used until the function returns that announces the change, and
//! no longer.

use super::{
    bug::{
        Bug,
        Wrong, //
    },
    machine::{
        Machine,
        CPUS,
        KERNEL, //
    },
    tlb::{
        self,
        PER_TABLE,
        TABLES,
        USER_PAGES, //
    }, //
};
use crate::{
    asid::{
        shootdown::{
            Flush,
            Range, //
        },
        ContextId,
        TlbGen, //
    },
    model::host_mm::{
        flush_cpus::{
            Reach,
            Told, //
        },
        flush_kernel, //
    },
    x86::addr::Hva, //
};
use core::cell::Cell;

/// The most frames and tables that one change removes.
const MOST: usize = USER_PAGES + TABLES;

/// A request to other CPUs.
#[derive(Clone, Copy)]
pub(super) enum Message {
    /// Flush an address space, or the loaded one.
    Spaces(Told),
    /// Flush a page of the kernel.
    KernelPage(usize),
    /// Flush everything.
    Everything,
}

/// A change that a CPU announces.
#[derive(Clone, Copy)]
pub(super) struct Flight {
    message: Message,
    gives_up: [u32; MOST],
    /// The CPUs that were notified and have not served the request yet.
    waiting: u32,
    /// All CPUs that the change concerns were notified.
    sent: bool,
    /// The process that ends with this change.
    ends: Option<usize>,
}

impl Flight {
    /// Returns whether the change removes a frame or a table.
    pub(super) fn gives_up(&self, number: u32) -> bool {
        self.gives_up.contains(&number)
    }
}

/// A change of the tables of a process.
#[derive(Clone, Copy)]
pub(super) enum Edit {
    /// A change of one page.
    Page(usize),
    /// A change of all pages that a table translates, which also frees the table.
    Table(usize),
    /// A change of so many pages that the whole address space is flushed.
    Pages,
    /// A change of everything: the process ends.
    Everything,
}

/// Returns a range of pages of 4 KiB.
fn pages(first: usize, count: usize) -> Range {
    let start = tlb::address(first);
    let end = Hva::new(start.into_raw() + (count as u64) * 0x1000);
    Range::capped(start, end, 12, 2)
}

impl Machine {
    /// Changes entries: first records the frames and tables that the change removes, then writes.
    fn change(&self, cpu: usize, message: Message, ends: Option<usize>, places: &[&Cell<u32>]) {
        let mut gives_up = [0; MOST];
        for (number, place) in gives_up.iter_mut().zip(places) {
            *number = place.get();
        }
        self.cores[cpu].flight.set(Some(Flight {
            message,
            gives_up,
            waiting: 0,
            sent: false,
            ends,
        }));
        for place in places {
            place.set(self.fresh());
        }
        self.elsewhere(cpu);
    }

    /// Updates the record of the change that a CPU announces.
    fn update(&self, cpu: usize, update: impl FnOnce(&mut Flight)) {
        let flight = &self.cores[cpu].flight;
        flight.set(flight.get().map(|mut flight| {
            update(&mut flight);
            flight
        }));
    }

    /// Increments the tlb_gen: `inc_mm_tlb_gen()`.
    fn count(&self, space: usize) -> TlbGen {
        let tlb_gen = &self.spaces[space].tlb_gen;
        tlb_gen.set(tlb_gen.get().next());
        tlb_gen.get()
    }

    /// Changes tables of a process, and announces the change: `flush_tlb_mm_range()`.
    pub(super) fn edit(&self, cpu: usize, space: usize, edit: Edit) {
        let mm = &self.spaces[space];
        let (range, freed_tables) = match edit {
            Edit::Page(page) => (pages(page, 1), false),
            Edit::Table(table) => (pages(table * PER_TABLE, PER_TABLE), true),
            Edit::Pages => (Range::All, false),
            Edit::Everything => (Range::All, true),
        };
        let mut told = Told {
            flush: Flush {
                space: Some(mm.id.get()),
                range,
                tlb_gen: TlbGen::ZERO,
            },
            freed_tables: freed_tables && !self.has_bug(Bug::FreedTablesHidden),
            trim: self.below(4) == 0,
        };
        let ends = matches!(edit, Edit::Everything).then_some(space);
        let [a, b, c, d] = &mm.frames;
        let [low, high] = &mm.tables;
        let change = |places: &[&Cell<u32>]| {
            self.change(cpu, Message::Spaces(told), ends, places);
        };
        match edit {
            Edit::Page(page) => change(&[&mm.frames[page]]),
            Edit::Table(0) => change(&[a, b, low]),
            Edit::Table(_) => change(&[c, d, high]),
            Edit::Pages => change(&[a, b, c, d]),
            Edit::Everything => change(&[a, b, c, d, low, high]),
        }
        let late = self.has_bug(Bug::CountedLate);
        told.flush.tlb_gen = if late {
            mm.tlb_gen.get().next()
        } else {
            self.count(space)
        };
        self.elsewhere(cpu);
        let mask = mm.mask.get();
        let here = self.cores[cpu].shown.get().loaded == Some(mm.id.get());
        self.tell(cpu, Message::Spaces(told), mask, here);
        if late {
            self.elsewhere(cpu);
            self.count(space);
        }
        self.finish(cpu);
    }

    /// Changes a page of each of two processes, and announces both changes at once:
    /// `arch_tlbbatch_add_pending()` and `arch_tlbbatch_flush()`.
    pub(super) fn batch(&self, cpu: usize, spaces: [usize; 2], page: usize) {
        let message = Message::Spaces(Told {
            flush: Flush {
                space: None,
                range: Range::All,
                tlb_gen: TlbGen::ZERO,
            },
            freed_tables: false,
            trim: false,
        });
        let places = spaces.map(|space| &self.spaces[space].frames[page]);
        let different = if spaces[0] == spaces[1] { 1 } else { 2 };
        self.change(cpu, message, None, &places[..different]);
        let mut mask = 0;
        for space in spaces {
            self.count(space);
            self.elsewhere(cpu);
            mask |= self.spaces[space].mask.get();
        }
        self.tell(cpu, message, mask, mask >> cpu & 1 == 1);
        self.finish(cpu);
    }

    /// Changes a page of the kernel, or all of them: `flush_tlb_kernel_range()`.
    pub(super) fn edit_kernel(&self, cpu: usize, page: Option<usize>) {
        let message = page.map_or(Message::Everything, Message::KernelPage);
        let [a, b] = &self.kernel_frames;
        match page {
            Some(page) => self.change(cpu, message, None, &[&self.kernel_frames[page]]),
            None => self.change(cpu, message, None, &[a, b]),
        }
        self.tell(cpu, message, (1 << CPUS) - 1, true);
        self.finish(cpu);
    }

    /// Notifies the CPUs of a mask that a change concerns, and flushes this CPU if necessary.
    fn tell(&self, cpu: usize, message: Message, mask: u32, here: bool) {
        self.update(cpu, |flight| flight.message = message);
        match Reach::new(mask & !(1 << cpu) != 0, here) {
            Reach::Many => self.tell_many(cpu, message, mask),
            Reach::Here => self.serve(cpu, message),
            Reach::Nowhere => {}
        }
        self.update(cpu, |flight| flight.sent = true);
    }

    /// Notifies other CPUs of a mask: `on_each_cpu_cond_mask()`.
    fn tell_many(&self, cpu: usize, message: Message, mask: u32) {
        let concerned = |number: usize| {
            self.elsewhere(cpu);
            let core = &self.cores[number];
            let concerned = match message {
                Message::Spaces(told) => told.concerns(core.shown.get()),
                Message::KernelPage(_) | Message::Everything => true,
            };
            mask >> number & 1 == 1 && core.online.get() && concerned
        };
        for number in (0..CPUS).filter(|&number| number != cpu) {
            if concerned(number) {
                self.update(cpu, |flight| flight.waiting |= 1 << number);
                let inbox = &self.cores[number].inbox;
                let mut places = inbox.get();
                if let Some(place) = places.iter_mut().find(|place| place.is_none()) {
                    *place = Some(cpu);
                }
                inbox.set(places);
            }
        }
        if concerned(cpu) {
            self.serve(cpu, message);
        }
    }

    /// Lets a CPU serve its oldest request; returns whether there was one.
    pub(super) fn serve_next(&self, cpu: usize) -> bool {
        let inbox = &self.cores[cpu].inbox;
        let mut places = inbox.get();
        let Some(sender) = places[0].take() else {
            return false;
        };
        places.rotate_left(1);
        inbox.set(places);
        if let Some(flight) = self.cores[sender].flight.get() {
            self.serve(cpu, flight.message);
        }
        self.update(sender, |flight| flight.waiting &= !(1 << cpu));
        self.finish(sender);
        true
    }

    /// Ends the announcement of a change if all notified CPUs have served it.
    fn finish(&self, cpu: usize) {
        let flight = &self.cores[cpu].flight;
        let Some(done) = flight
            .get()
            .filter(|flight| flight.sent && flight.waiting == 0)
        else {
            return;
        };
        flight.set(None);
        if let Some(space) = done.ends {
            self.note(self.reborn(space));
        }
    }

    /// Creates a new process in the place of one that ended: CR3 of no CPU may have its tables.
    fn reborn(&self, space: usize) -> Result<(), Wrong> {
        let mm = &self.spaces[space];
        for (cpu, core) in self.cores.iter().enumerate() {
            if core.tlb.space() == space {
                return Err(Wrong::Gone { cpu });
            }
        }
        let id = u64::from(self.fresh()) + 1000;
        mm.id.set(ContextId::new(id).unwrap_or(ContextId::KERNEL));
        mm.tlb_gen.set(TlbGen::ZERO);
        mm.mask.set(0);
        mm.dying.set(false);
        Ok(())
    }

    /// Serves a request on a CPU, with interrupts off.
    fn serve(&self, cpu: usize, message: Message) {
        match message {
            Message::Spaces(told) => self.serve_flush(cpu, told.flush),
            Message::KernelPage(page) => self.with(cpu, |state, here| {
                state.drop_kernel_address(tlb::address(USER_PAGES + page), &here);
                if self.has_bug(Bug::InvalidateOtherIgnored) {
                    state.invalidate_other = false;
                }
            }),
            Message::Everything => self.with(cpu, |_, here| flush_kernel::drop_everything(&here)),
        }
    }

    /// Serves a flush of address spaces: `flush_tlb_func()`.
    fn serve_flush(&self, cpu: usize, mut flush: Flush) {
        self.with(cpu, |state, here| {
            let number = self.number(state.loaded).unwrap_or(KERNEL);
            let mut loaded = self.space(number, cpu);
            let kernel = self.space(KERNEL, cpu);
            let now = self.spaces[number].tlb_gen.get();
            let asid = state.asid.into_raw();
            let slot = &mut state.slots[usize::from(asid)];
            let behind = flush.tlb_gen > slot.tlb_gen.next();
            if behind && self.has_bug(Bug::ChangesSkipped) {
                slot.tlb_gen = TlbGen::new(flush.tlb_gen.into_raw() - 1);
            }
            let last = flush.tlb_gen == slot.tlb_gen.next();
            let pretend = last && self.has_bug(Bug::LaterChangesSkipped);
            if pretend {
                loaded.pretended = Some(flush.tlb_gen);
            }
            if let (Range::Some { start, shift, .. }, true) =
                (flush.range, self.has_bug(Bug::RangeCutShort))
            {
                let end = Hva::new(start.into_raw() + (1 << shift));
                flush.range = Range::new(start, end, shift);
            }
            self.distorted(state, |state| {
                state.serve(&flush, &loaded, &kernel, &here);
            });
            if pretend && state.loaded == self.spaces[number].id.get() {
                state.slots[usize::from(asid)].tlb_gen = now;
            }
        });
    }
}
