// SPDX-License-Identifier: GPL-2.0

//! This module mocks KVM, KVM's tasks and livepatch.

use super::{
    flushed_cpus::Slot,
    oracle::Oracle,
    scenario::{
        Act,
        Bug,
        Move,
        Scenario,
        Side, //
    }, //
};
use crate::{
    phase::{
        Callback,
        Phase,
        Transfer, //
    },
    vpid::{
        allocator::{
            Allocators,
            Handover,
            VpidAllocator,
            VpidLock, //
        },
        bitmap::{
            self,
            NotAllocated,
            Words, //
        },
        flushed_cpus::{
            FlushedCpus,
            Plane, //
        },
        owned::OwnedVpid,
        Vpid, //
    }, //
};
use kernel::prelude::*;
use loom::{
    model::Builder,
    sync::{
        atomic::AtomicU64,
        Arc,
        Mutex, //
    },
    thread, //
};
use std::sync::{
    self,
    atomic::{
        AtomicUsize,
        Ordering::Relaxed, //
    }, //
};

/// The number of VPIDs: enough for every allocation of a scenario.
const MAX: u16 = 3;
/// The VPIDs that scenarios use.
const USED: std::ops::RangeInclusive<u16> = 1..=4;
/// A VPID that is never allocated.
const FOREIGN: u16 = 100;
/// The greatest number of preemptions in one order, unless `LOOM_MAX_PREEMPTIONS` has another.
const PREEMPTIONS: usize = 2;

/// Runs a scenario in every order, and panics if an order has an error.
///
/// Returns the number of orders.
pub(super) fn run(scenario: &'static Scenario, bug: Option<Bug>) -> usize {
    let orders = sync::Arc::new(AtomicUsize::new(0));
    let count = orders.clone();
    let mut builder = Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(PREEMPTIONS));
    let plane: sync::Arc<Plane<Slot>> = sync::Arc::from(Slot::plane(bug));
    builder.check(move || {
        let put = |new: fn() -> Option<AtomicU64>| {
            USED.for_each(|vpid| plane[usize::from(vpid)].put(new()));
        };
        put(|| Some(AtomicU64::new(0)));
        let machine = Arc::new(Machine::new(bug, plane.clone()));
        Machine::play(&machine, scenario);
        put(|| None);
        count.fetch_add(1, Relaxed);
    });
    orders.load(Relaxed)
}

/// The data that the lock protects.
struct Guarded {
    allocator: KVBox<VpidAllocator>,
    bitmap: KBox<Words>,
}

/// A machine with two CPUs for tasks, and livepatch.
struct Machine {
    bug: Option<Bug>,
    phase: Mutex<Phase>,
    guarded: Mutex<Guarded>,
    plane: sync::Arc<Plane<Slot>>,
    oracle: Mutex<Oracle>,
}

impl VpidLock for Machine {
    type Word = Slot;

    fn locked<R>(&self, function: impl FnOnce(Allocators<'_>) -> R) -> R {
        let mut guarded = self.guarded.lock().unwrap();
        let Guarded { allocator, bitmap } = &mut *guarded;
        function(Allocators { allocator, bitmap })
    }

    fn flushed(&self) -> FlushedCpus<'_, Slot> {
        FlushedCpus::new(&self.plane, &[])
    }
}

impl Machine {
    fn new(bug: Option<Bug>, plane: sync::Arc<Plane<Slot>>) -> Self {
        let mut bitmap = KBox::<Words>::zeroed(GFP_KERNEL).unwrap();
        bitmap[0] = 1 | 1 << Oracle::FIRST;
        Self {
            bug,
            phase: Mutex::new(Phase::Detached),
            guarded: Mutex::new(Guarded {
                allocator: KVBox::zeroed(GFP_KERNEL).unwrap(),
                bitmap,
            }),
            plane,
            oracle: Mutex::new(Oracle::new()),
        }
    }

    /// Returns whether a bug is injected.
    fn breaks(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    /// Calls a function on the oracle.
    fn oracle<R>(&self, function: impl FnOnce(&mut Oracle) -> R) -> R {
        function(&mut self.oracle.lock().unwrap())
    }

    /// Runs a scenario to its end, and checks the final state.
    fn play(this: &Arc<Self>, scenario: &'static Scenario) {
        if scenario.attached {
            this.step(Callback::PrePatch);
            this.oracle(|oracle| oracle.lead = Side::Rust);
            this.step(Callback::PostPatch);
        }
        let tasks = [0, 1].map(|number| {
            let machine = this.clone();
            thread::spawn(move || machine.task(number, scenario.tasks[number]))
        });
        scenario
            .schedule
            .iter()
            .for_each(|&step| this.livepatch(step));
        for task in tasks {
            task.join().unwrap();
        }
        let phase = *this.phase.lock().unwrap();
        let words = this.locked(|allocators| {
            assert_eq!(allocators.pool_active(), phase == Phase::Attached);
            let full = allocators.bitmap.iter().all(|&word| word == u64::MAX);
            assert!(full || phase != Phase::Attached, "C could allocate VPIDs");
            in_use(&allocators)
        });
        assert_eq!(words, this.oracle(|oracle| oracle.held()), "VPIDs are lost");
    }

    /// Executes an action of livepatch.
    fn livepatch(&self, step: Move) {
        match step {
            Move::Call(callback) => {
                if self.breaks(Bug::ExportTooLate) && callback == Callback::PreUnpatch {
                    self.oracle(|oracle| oracle.lead = Side::C);
                    thread::yield_now();
                }
                self.step(callback);
            }
            Move::Lead(side) => self.oracle(|oracle| oracle.lead = side),
            Move::Wait => {
                while !self.breaks(Bug::ImportTooEarly) && !self.oracle(|oracle| oracle.is_led()) {
                    thread::yield_now();
                }
            }
        }
    }

    /// Executes a callback of livepatch, as `kvm/attach.rs` does.
    fn step(&self, callback: Callback) {
        let mut phase = self.phase.lock().unwrap();
        let (next, transfer) = phase.on(callback);
        if transfer != Transfer::None {
            self.transfer(transfer);
        }
        *phase = next;
    }

    /// Moves the VPIDs to the other allocator.
    fn transfer(&self, transfer: Transfer) {
        let copied = self.breaks(Bug::CopiedBeforeLock);
        let copy = copied.then(|| self.locked(|allocators| in_use(&allocators) | 1));
        let import = transfer == Transfer::Import;
        if import {
            self.oracle(|oracle| oracle.import_begins());
        }
        self.locked(|mut allocators| {
            let before = allocators.bitmap[0];
            if import {
                allocators.bitmap[0] = copy.unwrap_or(before);
            }
            let Handover { freed_by_c, .. } = allocators.transfer(transfer, MAX, &self.flushed());
            assert!(freed_by_c <= 1);
            if !import {
                allocators.bitmap[0] = copy.unwrap_or(allocators.bitmap[0]);
            } else if self.breaks(Bug::BitmapNotFilled) {
                allocators.bitmap.fill(0);
                allocators.bitmap[0] = before;
            }
        });
        if import {
            self.oracle(|oracle| oracle.import_ended());
        }
    }

    /// Executes all actions of a task.
    fn task(&self, number: usize, acts: &[Act]) {
        let mut has = None;
        let mut had = None;
        for act in acts {
            let side = self.oracle(|oracle| oracle.enter(number));
            match act {
                Act::Alloc => {
                    let vpid = self.alloc_on(side).expect("there are free VPIDs");
                    self.oracle(|oracle| oracle.allocated(vpid.into_raw(), side));
                    has = Some(vpid);
                }
                Act::Free => {
                    let vpid = has.take().unwrap();
                    self.oracle(|oracle| oracle.frees(vpid.into_raw()));
                    assert_eq!(self.free_on(side, vpid), Ok(()), "VPID {vpid:?} was lost");
                    had = Some(vpid);
                }
                Act::Run => self.run(side, has.unwrap(), number as u32),
                Act::Late => self.flush(side, had.unwrap(), number as u32),
                Act::FreeForeign => {
                    let told = self.free_on(Side::Rust, Vpid::new(FOREIGN).unwrap());
                    assert_eq!(told, Err(NotAllocated), "the VPID was not allocated");
                }
                Act::Look => {
                    let mine = has.map_or(0, |vpid: Vpid| 1 << vpid.into_raw());
                    let all = self.locked(|allocators| in_use(&allocators));
                    let held = mine | 1 << Oracle::FIRST;
                    assert_eq!(all & held, held, "a held VPID is not in use");
                }
                Act::StrayAlloc => {
                    if let Some(vpid) = self.alloc_on(Side::C) {
                        self.oracle(|oracle| oracle.allocated(vpid.into_raw(), Side::C));
                    }
                }
                Act::StrayFree => {
                    let first = Vpid::new(Oracle::FIRST).unwrap();
                    self.oracle(|oracle| oracle.frees(Oracle::FIRST));
                    assert_eq!(self.free_on(Side::C, first), Ok(()));
                }
            }
            self.oracle(|oracle| oracle.leave(number));
        }
    }

    /// Allocates a VPID by the function of a side.
    fn alloc_on(&self, side: Side) -> Option<Vpid> {
        match side {
            Side::C => self.c_allocate(),
            Side::Rust if self.asks_c_too_early() => self.locked(|allocators| {
                bitmap::alloc_first(allocators.bitmap).map(|taken| self.flushed().reset(taken))
            }),
            Side::Rust => OwnedVpid::alloc(self).map(OwnedVpid::into_foreign),
        }
    }

    /// Frees a VPID by the function of a side; C's function reports no error.
    fn free_on(&self, side: Side, vpid: Vpid) -> Result<(), NotAllocated> {
        match side {
            Side::C => {
                let (word, bit) = bitmap::place(vpid);
                self.locked(|allocators| allocators.bitmap[word] &= !bit);
                Ok(())
            }
            Side::Rust if self.asks_c_too_early() => {
                self.locked(|allocators| bitmap::free(allocators.bitmap, vpid))
            }
            Side::Rust => OwnedVpid::from_foreign(self, vpid).free(),
        }
    }

    /// Returns whether KVM's bitmap is active, by a read before the lock is taken.
    fn asks_c_too_early(&self) -> bool {
        self.breaks(Bug::AskedBeforeLock) && !self.locked(|allocators| allocators.pool_active())
    }

    /// Allocates the first VPID whose bit is clear, like KVM's `allocate_vpid()`.
    fn c_allocate(&self) -> Option<Vpid> {
        let first = |words: &Words| words[0].trailing_ones();
        let mut found = None;
        if self.breaks(Bug::DroppedBeforeTake) {
            found = Some(self.locked(|allocators| first(allocators.bitmap)));
        }
        self.locked(|allocators| {
            let bit = found.unwrap_or_else(|| first(allocators.bitmap));
            allocators.bitmap[0] |= 1u64.checked_shl(bit)?;
            Vpid::new(u16::try_from(bit).ok()?)
        })
    }

    /// Flushes a VPID on a CPU; only Rust records the flush in FlushedCpus.
    fn flush(&self, side: Side, vpid: Vpid, cpu: u32) {
        self.oracle(|oracle| oracle.flushed(vpid.into_raw(), cpu));
        if side == Side::Rust {
            self.flushed().insert(vpid, cpu);
        }
    }

    /// Runs a guest with a VPID on a CPU, and checks where FlushedCpus has the VPID as flushed.
    fn run(&self, side: Side, vpid: Vpid, cpu: u32) {
        let id = vpid.into_raw();
        let imports = self.oracle(|oracle| oracle.imports());
        self.flush(side, vpid, cpu);
        let here = self.flushed().contains(vpid, cpu);
        self.oracle(|oracle| {
            let cleared = imports.is_none() || imports != oracle.imports();
            assert!(here || cleared || side == Side::C, "a CPU's bit is lost");
            oracle.ran(id, cpu);
        });
        if self.oracle(|oracle| oracle.is_recorded(id)) {
            for cpu in [0, 1] {
                if self.flushed().contains(vpid, cpu) {
                    self.oracle(|oracle| oracle.check_flushed(id, cpu));
                }
            }
        }
    }
}

/// Returns the VPIDs in use of the active allocator; in a scenario, all are in the first word.
fn in_use(allocators: &Allocators<'_>) -> u64 {
    let mut words = KBox::<Words>::zeroed(GFP_KERNEL).unwrap();
    allocators.add_to(&mut words);
    assert!(words.iter().skip(1).all(|&word| word == 0));
    words[0] & !1
}
