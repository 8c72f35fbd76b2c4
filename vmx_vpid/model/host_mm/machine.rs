// SPDX-License-Identifier: GPL-2.0

//! [`Machine`] has the CPUs and processes of the model, and the oracle that checks the CPUs.

use super::{
    bug::{
        Bug,
        Wrong, //
    },
    shootdown::Flight,
    tlb::{
        self,
        Tlb,
        KERNEL_PAGES,
        PER_TABLE,
        TABLES,
        USER_PAGES, //
    }, //
};
use crate::{
    asid::{
        cpu::{
            Cpu,
            Slot,
            UserFlush, //
        },
        invpcid::Extent,
        Asid,
        ContextId,
        Features,
        Hardware,
        Mm,
        Published,
        Root,
        TlbGen,
        SLOTS, //
    },
    model::{
        host_mm::flush_kernel::Pge,
        random::{
            Choice,
            Random, //
        }, //
    },
    x86::{
        addr::Hva,
        control_regs::{
            Cr3,
            Cr4, //
        },
        invpcid::Pcid, //
    }, //
};
use core::{
    array,
    cell::Cell,
    ops::Range, //
};

/// CPUs of a machine.
pub(super) const CPUS: usize = 3;
/// Processes: more than a CPU has slots.
pub(super) const PROCESSES: usize = 7;
/// Address spaces: the kernel's own, a temporary one, and one for each process.
const SPACES: usize = 2 + PROCESSES;
/// The number of the kernel's own address space.
pub(super) const KERNEL: usize = 0;
/// The number of the temporary address space, which is used briefly now and then.
pub(super) const TEMPORARY: usize = 1;

/// The configuration of a machine.
#[derive(Clone, Copy, Debug)]
pub(super) struct Config {
    /// The features that the kernel uses.
    pub(super) features: Features,
    /// The injected bug.
    pub(super) bug: Option<Bug>,
}

/// An address space.
pub(super) struct ModelMm {
    pub(super) id: Cell<ContextId>,
    pub(super) tlb_gen: Cell<TlbGen>,
    /// `mm_cpumask()`.
    pub(super) mask: Cell<u32>,
    /// The process is about to end, and no CPU switches to it.
    pub(super) dying: Cell<bool>,
    pub(super) frames: [Cell<u32>; USER_PAGES],
    pub(super) tables: [Cell<u32>; TABLES],
}

/// A CPU of the machine.
pub(super) struct Core {
    pub(super) tlb: Tlb,
    /// The state of the slots.
    pub(super) state: Cell<Cpu>,
    /// The state that other CPUs see.
    pub(super) shown: Cell<Published>,
    /// The address space of the running thread; [`KERNEL`] for a kernel thread.
    pub(super) thread: Cell<usize>,
    /// The CPU is in user mode.
    pub(super) user: Cell<bool>,
    pub(super) online: Cell<bool>,
    /// The CPU is in the middle of an action, and begins no other.
    pub(super) busy: Cell<bool>,
    /// The CPUs that notified this CPU, and whose requests it has not served yet, in order.
    pub(super) inbox: Cell<[Option<usize>; CPUS]>,
    /// The change that this CPU announces, until all notified CPUs have served it.
    pub(super) flight: Cell<Option<Flight>>,
    /// The address space of a switch in progress; [`KERNEL`] if there is none.
    pub(super) coming: Cell<usize>,
    /// An injected bug: the next write of CR3 keeps translations that it should flush.
    pub(super) keep: Cell<bool>,
}

/// The simulated machine: CPUs, address spaces, and the first error.
pub(super) struct Machine {
    pub(super) config: Config,
    pub(super) cores: [Core; CPUS],
    pub(super) spaces: [ModelMm; SPACES],
    pub(super) kernel_frames: [Cell<u32>; KERNEL_PAGES],
    /// The last number that was given to a frame, a table or a process.
    last: Cell<u32>,
    random: Cell<Random>,
    /// The first error.
    wrong: Cell<Option<Wrong>>,
}

impl Machine {
    /// Creates a machine whose CPUs run kernel threads on the kernel's own address space.
    pub(super) fn new(config: Config) -> Self {
        let last = Cell::new(0);
        let fresh = || {
            last.set(last.get() + 1);
            Cell::new(last.get())
        };
        let cpu = Cpu {
            loaded: ContextId::KERNEL,
            asid: Asid::FIRST,
            lazy: false,
            next: 1,
            invalidate_other: false,
            user_flush: UserFlush::default(),
            slots: [Slot::UNKNOWN; SLOTS],
        };
        let machine = Self {
            config,
            cores: array::from_fn(|_| Core {
                tlb: Tlb::new(config.features, KERNEL),
                state: Cell::new(cpu),
                shown: Cell::new(cpu.published()),
                thread: Cell::new(KERNEL),
                user: Cell::new(false),
                online: Cell::new(true),
                busy: Cell::new(false),
                inbox: Cell::new([None; CPUS]),
                flight: Cell::new(None),
                coming: Cell::new(KERNEL),
                keep: Cell::new(false),
            }),
            spaces: array::from_fn(|number| ModelMm {
                id: Cell::new(ContextId::new(number as u64 + 1).unwrap_or(ContextId::KERNEL)),
                tlb_gen: Cell::new(TlbGen::ZERO),
                mask: Cell::new(0),
                dying: Cell::new(false),
                frames: array::from_fn(|_| fresh()),
                tables: array::from_fn(|_| fresh()),
            }),
            kernel_frames: array::from_fn(|_| fresh()),
            last: Cell::new(last.get() + 100),
            random: Cell::new(Random::new(1)),
            wrong: Cell::new(None),
        };
        for cpu in 0..CPUS {
            machine.with(cpu, |cpu, here| {
                cpu.restart(TlbGen::ZERO);
                here.write_cr3(Root::new(tlb::root(KERNEL)).cr3(cpu.asid, config.features));
            });
        }
        machine
    }

    /// Returns whether a bug is injected.
    pub(super) fn has_bug(&self, bug: Bug) -> bool {
        self.config.bug == Some(bug)
    }

    /// Returns a random number below `end`, which must not be 0.
    pub(super) fn below(&self, end: usize) -> usize {
        let mut random = self.random.get();
        let number = random.index(end);
        self.random.set(random);
        number
    }

    /// Returns a number that was never used.
    pub(super) fn fresh(&self) -> u32 {
        self.last.set(self.last.get() + 1);
        self.last.get()
    }

    /// Records an error, unless there was one before.
    pub(super) fn note(&self, result: Result<(), Wrong>) {
        if let (Err(wrong), None) = (result, self.wrong.get()) {
            self.wrong.set(Some(wrong));
        }
    }

    /// Returns the first error.
    pub(super) fn wrong(&self) -> Option<Wrong> {
        self.wrong.get()
    }

    /// Calls a function on the state of a CPU, with interrupts off.
    pub(super) fn with<R>(&self, cpu: usize, work: impl FnOnce(&mut Cpu, Here<'_>) -> R) -> R {
        let core = &self.cores[cpu];
        let mut state = core.state.get();
        let result = work(&mut state, Here { machine: self, cpu });
        core.state.set(state);
        result
    }

    /// Returns an address space as a CPU sees it.
    pub(super) fn space(&self, number: usize, cpu: usize) -> Seen<'_> {
        Seen {
            machine: self,
            cpu,
            number,
            early: Cell::new(None),
            pretended: None,
        }
    }

    /// Returns the number of an address space, if it exists.
    pub(super) fn number(&self, id: ContextId) -> Option<usize> {
        self.spaces.iter().position(|mm| mm.id.get() == id)
    }

    /// Returns the current frame of a page of an address space.
    pub(super) fn frame(&self, space: usize, page: usize) -> u32 {
        match page.checked_sub(USER_PAGES) {
            Some(page) => self.kernel_frames[page].get(),
            None => self.spaces[space].frames[page].get(),
        }
    }

    /// Returns whether a change that removed a frame or a table is still being announced; the frame
    /// or table is freed afterwards.
    pub(super) fn in_flight(&self, number: u32) -> bool {
        let flights = self.cores.iter().filter_map(|core| core.flight.get());
        flights.into_iter().any(|flight| flight.gives_up(number))
    }

    /// Checks that a CPU cannot use a stale translation or a freed table.
    ///
    /// A CPU may access all pages that its mode permits.  In a kernel thread, and in the middle of
    /// a switch, no code accesses pages of a process; but the CPU may walk the tables
    /// speculatively, and must not find a freed table.
    pub(super) fn check(&self, cpu: usize) -> Result<(), Wrong> {
        let core = &self.cores[cpu];
        if !core.online.get() {
            return Ok(());
        }
        let space = core.tlb.space();
        let mm = &self.spaces[space];
        for (number, table) in mm.tables.iter().enumerate() {
            match core.tlb.table(number)? {
                Some(cached) if cached != table.get() && !self.in_flight(cached) => {
                    return Err(Wrong::Freed { cpu, number });
                }
                _ => {}
            }
        }
        let process = core.thread.get() != KERNEL && !core.busy.get();
        let user_pages = if process { 0..USER_PAGES } else { 0..0 };
        // The user's tables have no pages of the kernel.
        let kernel_pages = if core.tlb.user() {
            0..0
        } else {
            USER_PAGES..tlb::PAGES
        };
        self.check_pages(cpu, user_pages)?;
        self.check_pages(cpu, kernel_pages)
    }

    /// Checks that a CPU has no stale translation of some pages.
    pub(super) fn check_pages(&self, cpu: usize, pages: Range<usize>) -> Result<(), Wrong> {
        let tlb = &self.cores[cpu].tlb;
        for page in pages {
            let wanted = self.frame(tlb.space(), page);
            for frame in tlb.frames(page)?.into_iter().flatten() {
                if frame != wanted && !self.in_flight(frame) {
                    return Err(Wrong::Stale { cpu, page });
                }
            }
        }
        Ok(())
    }

    /// Lets a CPU translate a page and cache the translation.
    pub(super) fn touch(&self, cpu: usize, page: usize) -> Result<(), Wrong> {
        let tlb = &self.cores[cpu].tlb;
        let space = tlb.space();
        if page >= USER_PAGES {
            if !tlb.user() && tlb.frames(page)? == [None, None] {
                tlb.fill(page, self.frame(space, page), !self.config.features.pti)?;
            }
            return Ok(());
        }
        if space == KERNEL || tlb.frames(page)? != [None, None] {
            return Ok(());
        }
        let (number, current) = (
            page / PER_TABLE,
            self.spaces[space].tables[page / PER_TABLE].get(),
        );
        let table = tlb.table(number)?.unwrap_or(current);
        tlb.fill_table(number, table)?;
        // Entries of a removed table lead to frames that were removed with it, so they are not
        // cached.
        if table == current {
            tlb.fill(page, self.frame(space, page), false)?;
        }
        Ok(())
    }
}

/// The hardware of a CPU, and the state that other CPUs see.
#[derive(Clone, Copy)]
pub(super) struct Here<'a> {
    machine: &'a Machine,
    cpu: usize,
}

impl Here<'_> {
    /// Returns the CPU.
    fn core(&self) -> &Core {
        &self.machine.cores[self.cpu]
    }
}

impl Hardware for Here<'_> {
    fn features(&self) -> Features {
        self.machine.config.features
    }

    fn publish(&self, shown: Published) {
        let before = self.core().shown.get();
        let hidden = match shown {
            Published { loaded: None, .. } => self.machine.has_bug(Bug::SwitchHidden),
            Published { lazy: false, .. } => before.lazy && self.machine.has_bug(Bug::LazyForLong),
            _ => false,
        };
        if !hidden {
            self.core().shown.set(shown);
        }
        self.machine.elsewhere(self.cpu);
    }

    fn leave(&self, space: ContextId) {
        if let Some(number) = self.machine.number(space) {
            let mask = &self.machine.spaces[number].mask;
            mask.set(mask.get() & !(1 << self.cpu));
        }
    }

    fn write_cr3(&self, cr3: Cr3) {
        let keep = self.core().keep.take() && self.features().pcid;
        let cr3 = if keep { crate::asid::keeping(cr3) } else { cr3 };
        self.machine.note(self.core().tlb.write_cr3(cr3));
        self.machine.elsewhere(self.cpu);
    }

    fn invlpg(&self, address: Hva) {
        let tlb = &self.core().tlb;
        if self.machine.has_bug(Bug::GlobalsKept) {
            let pcid = Pcid::of(tlb.cr3(), Cr4::from(1 << 17));
            self.machine
                .note(tlb.invpcid(Extent::Address(pcid, address)));
        } else {
            self.machine.note(tlb.invlpg(address));
        }
    }

    fn invpcid(&self, extent: Extent) {
        let ignored = match extent {
            Extent::Address(..) => self.machine.has_bug(Bug::UserHalfForgotten),
            _ => self.machine.has_bug(Bug::EverythingKept),
        };
        if !ignored {
            self.machine.note(self.core().tlb.invpcid(extent));
        }
    }
}

impl Pge for Here<'_> {
    fn turn_pge(&self) {
        if !self.machine.has_bug(Bug::EverythingKept) {
            self.core().tlb.drop_everything();
        }
    }
}

/// An address space, as a CPU sees it.
pub(super) struct Seen<'a> {
    machine: &'a Machine,
    cpu: usize,
    number: usize,
    /// An injected bug: the tlb_gen was read too early.
    early: Cell<Option<TlbGen>>,
    /// An injected bug: the tlb_gen that the CPU reads.
    pub(super) pretended: Option<TlbGen>,
}

impl Mm for Seen<'_> {
    fn id(&self) -> ContextId {
        self.machine.spaces[self.number].id.get()
    }

    fn root(&self) -> Root {
        Root::new(tlb::root(self.number))
    }

    fn tlb_gen(&self) -> TlbGen {
        self.machine.elsewhere(self.cpu);
        let now = self.machine.spaces[self.number].tlb_gen.get();
        let read = self.pretended.or(self.early.take()).unwrap_or(now);
        self.machine.elsewhere(self.cpu);
        read
    }

    fn global_asid(&self) -> Option<Asid> {
        None
    }

    fn join(&self) {
        let mm = &self.machine.spaces[self.number];
        if self.machine.has_bug(Bug::ReadBeforeJoin) {
            self.early.set(Some(mm.tlb_gen.get()));
            self.machine.elsewhere(self.cpu);
        }
        mm.mask.set(mm.mask.get() | 1 << self.cpu);
    }
}
