// SPDX-License-Identifier: GPL-2.0

//! This module chooses the random steps of the host's CPUs.

use super::{
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
    },
    Bug, //
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
    /// Lets the other CPUs do something, or not, between two accesses of one; and that one
    /// translate something on its own account.
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

    /// Does something on a CPU that is not in the middle of anything else.
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

    /// Does something on a CPU.
    fn act(&self, cpu: usize) {
        let core = &self.cores[cpu];
        if !core.online.get() {
            if self.below(8) == 0 {
                self.bring_up(cpu);
            }
            return;
        }
        // Who waits for others serves what comes, and does nothing else.
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
                // A CPU that is short of memory does some of it, wherever the process runs.
                let spaces = [space, TEMPORARY + 1 + this.below(PROCESSES)];
                if spaces.iter().all(|&space| !this.spaces[space].dying.get()) {
                    this.batch(cpu, spaces, this.below(USER_PAGES));
                }
            }),
            27 if self.below(4) == 0 => self.end(cpu),
            28 if self.below(4) == 0 => self.take_down(cpu),
            29..32 => self.use_temporary(cpu),
            _ => {
                // Most of all those that another CPU is just coming to.
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
                        // Who uses the temporary one leaves its mask while CR3 has it still: that
                        // is only good since nobody frees its tables.
                        1 | 2 if space != TEMPORARY => Edit::Table(self.below(TABLES)),
                        _ => Edit::Page(self.below(USER_PAGES)),
                    };
                    self.in_kernel(cpu, |this| this.edit(cpu, space, edit));
                }
            }
        }
    }

    /// A process that has a slot on a CPU, if there is one.
    fn recent(&self, cpu: usize) -> usize {
        let slots = self.cores[cpu].state.get().slots;
        let id = slots[self.below(slots.len())].id;
        let space = id.and_then(|id| self.number(id));
        space.filter(|&space| space != TEMPORARY).unwrap_or(KERNEL)
    }

    /// Serves the requests to a CPU, from user mode too.
    fn interrupt(&self, cpu: usize) {
        let user = self.cores[cpu].user.get();
        self.in_kernel(cpu, |this| while this.serve_next(cpu) {});
        if user {
            self.go_to_user(cpu);
        }
    }

    /// Does something in kernel mode.
    fn in_kernel(&self, cpu: usize, work: impl FnOnce(&Self)) {
        let core = &self.cores[cpu];
        if core.user.replace(false) {
            self.with(cpu, |_, here| pti_cr3::to_kernel(core.tlb.cr3(), &here));
        }
        work(self);
    }

    /// Goes to user mode, if there is a process to go to.
    fn go_to_user(&self, cpu: usize) {
        let core = &self.cores[cpu];
        if core.thread.get() == KERNEL || core.user.get() || core.flight.get().is_some() {
            return;
        }
        self.with(cpu, |state, here| {
            core.keep.set(self.broken(Bug::UserHalfKept));
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

    /// Runs a kernel thread, on the tables that are there.
    fn run_kernel_thread(&self, cpu: usize) {
        self.in_kernel(cpu, |this| {
            let thread = this.cores[cpu].thread.replace(KERNEL);
            this.with(cpu, |state, here| {
                state.enter_lazy(&here);
                if thread != KERNEL && this.broken(Bug::LazyLeavesMask) {
                    here.leave(this.spaces[thread].id.get());
                }
            });
        });
    }

    /// A kernel thread, or nobody, leaves the tables of a process: `leave_mm()`.
    fn leave(&self, cpu: usize) {
        if self.cores[cpu].thread.get() == KERNEL {
            self.switch(cpu, KERNEL);
        }
    }

    /// Goes to an address space, with whatever is broken about that.
    fn switch(&self, cpu: usize, space: usize) {
        let core = &self.cores[cpu];
        let next = self.space(space, cpu);
        core.coming.set(space);
        self.with(cpu, |state, here| {
            let id = next.id();
            if state.loaded == id && state.lazy && self.broken(Bug::LazyNotCompared) {
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
            core.keep.set(self.broken(kept) && state.loaded != id);
            let before = state.slots;
            let switched = self.distorted(state, |state| state.switch_to(&next, &here));
            core.keep.set(false);
            if let Switched::Loaded(choice) = switched {
                let place = usize::from(choice.asid.into_raw());
                let slot = &mut state.slots[place];
                if choice.flush && self.broken(Bug::GenerationNotNoted) {
                    slot.tlb_gen = before[place].tlb_gen;
                }
                if choice.flush && self.broken(Bug::NameNotNoted) {
                    slot.id = before[place].id;
                }
                if choice.flush && self.broken(Bug::GenerationReadLate) {
                    slot.tlb_gen = self.spaces[space].tlb_gen.get();
                }
            }
        });
        core.coming.set(KERNEL);
    }

    /// Uses an address space that has no process, for a moment and with interrupts off:
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
            // From here on this CPU is not notified: its next use of the address space reads the
            // tlb_gen.
            this.with(cpu, |state, here| here.leave(state.loaded));
            this.switch(cpu, before.unwrap_or(KERNEL));
        });
    }

    /// Calls what may defer the flush of a user half, with whatever is broken about that.
    pub(super) fn distorted<R>(&self, state: &mut Cpu, work: impl FnOnce(&mut Cpu) -> R) -> R {
        let before = state.user_flush.into_raw();
        let result = work(state);
        let new = state.user_flush.into_raw() & !before;
        if self.broken(Bug::UserHalfNotNoted) {
            state.user_flush = UserFlush::from_raw(before);
        }
        if self.broken(Bug::UserHalfNotedByAsid) {
            state.user_flush = UserFlush::from_raw(before | new >> 1);
        }
        result
    }

    /// Changes something of the kernel's.
    fn edit_kernel_from(&self, cpu: usize) {
        let page = (self.below(4) != 0).then(|| self.below(KERNEL_PAGES));
        self.in_kernel(cpu, |this| this.edit_kernel(cpu, page));
    }

    /// The process that runs here ends, unless it runs elsewhere too or something is being changed.
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

    /// Takes a CPU offline: from then on it is not notified.
    fn take_down(&self, cpu: usize) {
        let core = &self.cores[cpu];
        let others = self.cores.iter().filter(|core| core.online.get()).count() > 1;
        if others && core.inbox.get()[0].is_none() {
            self.run_kernel_thread(cpu);
            self.switch(cpu, KERNEL);
            // A request may have come in between.
            while self.serve_next(cpu) {}
            core.online.set(false);
        }
    }

    /// Brings a CPU online, on the kernel's own address space: `initialize_tlbstate_and_flush()`.
    ///
    /// Global pages are gone, because CR4.PGE was clear in between.  Every other cached translation
    /// is junk.
    fn bring_up(&self, cpu: usize) {
        let core = &self.cores[cpu];
        core.tlb.drop_globals();
        core.online.set(true);
        self.with(cpu, |state, here| {
            if !self.broken(Bug::SlotsKeptWhileOff) {
                state.restart(TlbGen::ZERO);
            }
            let features = here.features();
            here.write_cr3(Root::new(tlb::root(KERNEL)).cr3(state.asid, features));
        });
    }
}
