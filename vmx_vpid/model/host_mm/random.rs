// SPDX-License-Identifier: GPL-2.0

//! This module makes CPUs act at random; between two accesses of one CPU, the other CPUs may act.

use super::{
    bug::Bug,
    machine::{
        Core,
        Machine,
        CPUS,
        KERNEL,
        PROCESSES,
        TEMPORARY, //
    },
    shootdown::Edit,
    tlb::{
        self,
        KERNEL_PAGES,
        PAGES,
        TABLES,
        USER_PAGES, //
    }, //
};
use crate::{
    asid::{
        cpu::{
            Cpu,
            UserFlush, //
        },
        switch::Switched,
        Hardware,
        Mm,
        Root,
        TlbGen, //
    },
    model::host_mm::pti_cr3, //
};

impl Machine {
    /// Lets other CPUs act between two accesses of a CPU, at random, and lets the CPU translate a
    /// page speculatively.
    pub(super) fn elsewhere(&self, cpu: usize) {
        let busy = self.cores[cpu].busy.replace(true);
        while self.below(3) == 0 {
            self.step();
        }
        if self.below(3) == 0 {
            self.note(self.touch(cpu, self.below(PAGES)));
        }
        self.cores[cpu].busy.set(busy);
    }

    /// Lets a random CPU act, unless it is in the middle of an action, and checks all CPUs.
    pub(super) fn step(&self) {
        let cpu = self.below(CPUS);
        let core = &self.cores[cpu];
        if core.busy.replace(true) {
            return;
        }
        self.act(cpu);
        core.busy.set(false);
        for cpu in 0..CPUS {
            self.note(self.check(cpu));
        }
    }

    /// Lets a CPU act.
    fn act(&self, cpu: usize) {
        let core = &self.cores[cpu];
        if !core.online.get() {
            if self.below(8) == 0 {
                self.bring_up(cpu);
            }
            return;
        }
        // A CPU that waits for other CPUs only serves their requests.
        if core.flight.get().is_some() || self.below(4) == 0 {
            self.interrupt(cpu);
            return;
        }
        let space = TEMPORARY + 1 + self.below(PROCESSES);
        let thread = core.thread.get();
        match self.below(36) {
            0..12 => self.note(self.touch(cpu, self.below(PAGES))),
            12..15 => self.go_to_user(cpu),
            15..20 => self.run(
                cpu,
                if self.below(2) == 0 {
                    space
                } else {
                    self.recent(cpu)
                },
            ),
            20..23 => self.run_kernel_thread(cpu),
            23 => self.leave(cpu),
            24 | 25 => self.edit_kernel_from(cpu),
            26 => self.in_kernel(cpu, |this| {
                // Reclaim runs on any CPU, for processes that need not run there.
                let spaces = [space, TEMPORARY + 1 + this.below(PROCESSES)];
                if spaces.iter().all(|&space| !this.spaces[space].dying.get()) {
                    this.batch(cpu, spaces, this.below(USER_PAGES));
                }
            }),
            27 if self.below(4) == 0 => self.end(cpu),
            28 if self.below(4) == 0 => self.take_down(cpu),
            29..32 => self.use_temporary(cpu),
            _ => {
                // Prefer an address space that another CPU is switching to.
                let coming = self.cores[self.below(CPUS)].coming.get();
                let space = match self.below(4) {
                    _ if coming != KERNEL => coming,
                    0 => space,
                    1 => TEMPORARY,
                    _ => thread,
                };
                if space != KERNEL && !self.spaces[space].dying.get() {
                    let edit = match self.below(8) {
                        0 => Edit::Pages,
                        // A CPU leaves the mask of the temporary address space while CR3 still has
                        // its tables.  That is correct only because they are never freed.
                        1 | 2 if space != TEMPORARY => Edit::Table(self.below(TABLES)),
                        _ => Edit::Page(self.below(USER_PAGES)),
                    };
                    self.in_kernel(cpu, |this| this.edit(cpu, space, edit));
                }
            }
        }
    }

    /// Returns a process that has a slot on a CPU; [`KERNEL`] if there is none.
    fn recent(&self, cpu: usize) -> usize {
        let slots = self.cores[cpu].state.get().slots;
        let id = slots[self.below(slots.len())].id;
        let space = id.and_then(|id| self.number(id));
        space.filter(|&space| space != TEMPORARY).unwrap_or(KERNEL)
    }

    /// Serves the requests that a CPU got, and returns to user mode if the CPU was there.
    fn interrupt(&self, cpu: usize) {
        let user = self.cores[cpu].user.get();
        self.in_kernel(cpu, |this| while this.serve_next(cpu) {});
        if user {
            self.go_to_user(cpu);
        }
    }

    /// Calls a function in kernel mode.
    fn in_kernel(&self, cpu: usize, work: impl FnOnce(&Self)) {
        let core = &self.cores[cpu];
        if core.user.replace(false) {
            self.with(cpu, |_, here| pti_cr3::to_kernel(core.tlb.cr3(), &here));
        }
        work(self);
    }

    /// Enters user mode, if the CPU runs a process.
    fn go_to_user(&self, cpu: usize) {
        let core = &self.cores[cpu];
        if core.thread.get() == KERNEL || core.user.get() || core.flight.get().is_some() {
            return;
        }
        self.with(cpu, |state, here| {
            core.keep.set(self.has_bug(Bug::UserHalfKept));
            state.enter_user(core.tlb.cr3(), &here);
            core.keep.set(false);
        });
        core.user.set(true);
    }

    /// Runs a thread of a process: `context_switch()`.
    fn run(&self, cpu: usize, space: usize) {
        self.in_kernel(cpu, |this| {
            if space != KERNEL && !this.spaces[space].dying.get() {
                this.cores[cpu].thread.set(space);
                this.switch(cpu, space);
            }
        });
    }

    /// Runs a kernel thread, on the tables that are loaded.
    fn run_kernel_thread(&self, cpu: usize) {
        self.in_kernel(cpu, |this| {
            let thread = this.cores[cpu].thread.replace(KERNEL);
            this.with(cpu, |state, here| {
                state.enter_lazy(&here);
                if thread != KERNEL && this.has_bug(Bug::LazyLeavesMask) {
                    here.leave(this.spaces[thread].id.get());
                }
            });
        });
    }

    /// Leaves the tables of a process, from a kernel thread: `leave_mm()`.
    fn leave(&self, cpu: usize) {
        if self.cores[cpu].thread.get() == KERNEL {
            self.switch(cpu, KERNEL);
        }
    }

    /// Switches to an address space, with the injected bugs of a switch.
    fn switch(&self, cpu: usize, space: usize) {
        let core = &self.cores[cpu];
        let next = self.space(space, cpu);
        core.coming.set(space);
        self.with(cpu, |state, here| {
            let id = next.id();
            if state.loaded == id && state.lazy && self.has_bug(Bug::LazyNotCompared) {
                state.lazy = false;
                here.publish(state.published());
                return;
            }
            let known = state.slots.iter().any(|slot| slot.id == Some(id));
            let kept = if known {
                Bug::ChangesNotCompared
            } else {
                Bug::SlotTakenAsItIs
            };
            core.keep.set(self.has_bug(kept) && state.loaded != id);
            let before = state.slots;
            let switched = self.distorted(state, |state| state.switch_to(&next, &here));
            core.keep.set(false);
            if let Switched::Loaded(choice) = switched {
                let place = usize::from(choice.asid.into_raw());
                let slot = &mut state.slots[place];
                if choice.flush && self.has_bug(Bug::GenerationNotNoted) {
                    slot.tlb_gen = before[place].tlb_gen;
                }
                if choice.flush && self.has_bug(Bug::NameNotNoted) {
                    slot.id = before[place].id;
                }
                if choice.flush && self.has_bug(Bug::GenerationReadLate) {
                    slot.tlb_gen = self.spaces[space].tlb_gen.get();
                }
            }
        });
        core.coming.set(KERNEL);
    }

    /// Uses the temporary address space, which has no process, with interrupts off:
    /// `use_temporary_mm()` and `unuse_temporary_mm()`.
    fn use_temporary(&self, cpu: usize) {
        self.in_kernel(cpu, |this| {
            let core = &this.cores[cpu];
            if core.state.get().lazy {
                this.switch(cpu, KERNEL);
            }
            let before = this.number(core.state.get().loaded);
            this.switch(cpu, TEMPORARY);
            this.note(this.touch(cpu, this.below(USER_PAGES)));
            this.note(this.check_pages(cpu, 0..USER_PAGES));
            // From here on, other CPUs do not notify this CPU; the next use reads the tlb_gen.
            this.with(cpu, |state, here| here.leave(state.loaded));
            this.switch(cpu, before.unwrap_or(KERNEL));
        });
    }

    /// Calls a function that may defer the flush of a user half, with the injected bugs of that.
    pub(super) fn distorted<R>(&self, state: &mut Cpu, work: impl FnOnce(&mut Cpu) -> R) -> R {
        let before = state.user_flush.into_raw();
        let result = work(state);
        let new = state.user_flush.into_raw() & !before;
        if self.has_bug(Bug::UserHalfNotNoted) {
            state.user_flush = UserFlush::from_raw(before);
        }
        if self.has_bug(Bug::UserHalfNotedByAsid) {
            state.user_flush = UserFlush::from_raw(before | new >> 1);
        }
        result
    }

    /// Changes a page of the kernel, or all of them.
    fn edit_kernel_from(&self, cpu: usize) {
        let page = (self.below(4) != 0).then(|| self.below(KERNEL_PAGES));
        self.in_kernel(cpu, |this| this.edit_kernel(cpu, page));
    }

    /// Ends the process that runs on a CPU, unless it also runs on another CPU, or a CPU announces
    /// a change.
    fn end(&self, cpu: usize) {
        self.in_kernel(cpu, |this| {
            let space = this.cores[cpu].thread.get();
            let runs = |core: &&Core| core.thread.get() == space;
            let changed = this.cores.iter().any(|core| core.flight.get().is_some());
            if space == KERNEL || changed || this.cores.iter().filter(runs).count() > 1 {
                return;
            }
            this.spaces[space].dying.set(true);
            this.run_kernel_thread(cpu);
            this.edit(cpu, space, Edit::Everything);
        });
    }

    /// Takes a CPU offline: from then on, other CPUs do not notify it.
    fn take_down(&self, cpu: usize) {
        let core = &self.cores[cpu];
        let others = self.cores.iter().filter(|core| core.online.get()).count() > 1;
        if others && core.inbox.get()[0].is_none() {
            self.run_kernel_thread(cpu);
            self.switch(cpu, KERNEL);
            // Other CPUs may have notified this CPU during the switch.
            while self.serve_next(cpu) {}
            core.online.set(false);
        }
    }

    /// Brings a CPU online, on the kernel's own address space: `initialize_tlbstate_and_flush()`.
    ///
    /// No global page is cached, because CR4.PGE was clear while the CPU was offline.  All other
    /// translations that the CPU has cached may be stale.
    fn bring_up(&self, cpu: usize) {
        let core = &self.cores[cpu];
        core.tlb.drop_globals();
        core.online.set(true);
        self.with(cpu, |state, here| {
            if !self.has_bug(Bug::SlotsKeptWhileOff) {
                state.restart(TlbGen::ZERO);
            }
            let features = here.features();
            here.write_cr3(Root::new(tlb::root(KERNEL)).cr3(state.asid, features));
        });
    }
}
