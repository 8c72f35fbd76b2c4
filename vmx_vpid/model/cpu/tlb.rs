// SPDX-License-Identifier: GPL-2.0

//! This module models CPUs that keep every translation for as long as the manual allows.
//!
//! A CPU drops the entries that an instruction has to drop ([`Drop`]).  A CPU drops other entries
//! only in a step that drops entries at random, and when the CPU has no room left.

use super::tlb_entry::{
    Drop, //
    TlbEntry,
};
use crate::{
    ept,
    flush::{
        execute::{
            Invalidate,
            Invalidation, //
        },
        Recorder, //
    },
    invvpid,
    model::bug::{
        Bug,
        Bugs, //
    },
    vmx::{
        caps::EptVpidCap,
        insn::InsnError, //
    },
    vpid::{
        flushed_cpus::FlushedCpus,
        Vpid, //
    }, //
};
use core::cell::Cell;
use kernel::prelude::*;

/// A CPU with its cached entries.
pub(crate) struct Cpu {
    caps: EptVpidCap,
    cached: Cell<KVec<TlbEntry>>,
    /// The greatest number of cached entries.
    room: usize,
    /// The entry that the next one replaces when there is no room, round robin; not always the
    /// oldest entry, once entries were dropped.
    next: Cell<usize>,
    /// The number of invalidations that the CPU executed.
    invalidations: Cell<u64>,
    /// The number of entries that were evicted since the CPU was made.
    evicted: Cell<u64>,
}

impl Cpu {
    /// Makes a CPU that has nothing cached.
    pub(crate) fn new(caps: EptVpidCap, room: usize) -> Result<Self> {
        Ok(Self {
            caps,
            cached: Cell::new(KVec::with_capacity(room, GFP_KERNEL)?),
            room,
            next: Cell::new(0),
            invalidations: Cell::new(0),
            evicted: Cell::new(0),
        })
    }

    /// Runs a function on the cached entries.
    fn with<R>(&self, work: impl FnOnce(&mut KVec<TlbEntry>) -> R) -> R {
        let mut cached = self.cached.take();
        let result = work(&mut cached);
        self.cached.set(cached);
        result
    }

    /// Copies the state of another CPU.
    pub(crate) fn assign(&self, other: &Self) {
        self.with(|cached| {
            cached.clear();
            other.with(|others| {
                for &entry in others.iter() {
                    // The push cannot fail: both CPUs have the same room.
                    let _ = cached.push(entry, GFP_KERNEL);
                }
            });
        });
        self.next.set(other.next.get());
    }

    /// Caches an entry.  An entry with the same tags and contents is kept instead, with the later
    /// times: a guest cannot tell the two apart.
    pub(crate) fn keep(&self, entry: TlbEntry) {
        let same = |it: &&mut TlbEntry| {
            it.key == entry.key
                && (it.gfn, it.hfn, it.root) == (entry.gfn, entry.hfn, entry.root)
                && (it.guest, it.host, it.reader) == (entry.guest, entry.host, entry.reader)
        };
        self.with(|cached| {
            if let Some(old) = cached.iter_mut().find(same) {
                old.time = old.time.max(entry.time);
                old.nested_time = old.nested_time.max(entry.nested_time);
            } else if cached.len() < self.room {
                let _ = cached.push(entry, GFP_KERNEL);
            } else {
                self.evicted.set(self.evicted.get() + 1);
                let place = self.next.get();
                self.next.set((place + 1) % self.room);
                cached[place] = entry;
            }
        });
    }

    /// Calls a function for each entry, until it returns something.
    pub(crate) fn find<R>(&self, look: impl FnMut(&TlbEntry) -> Option<R>) -> Option<R> {
        self.with(|cached| cached.iter().find_map(look))
    }

    /// Returns the entry with a number, the first being 0.
    pub(crate) fn entry(&self, number: usize) -> Option<TlbEntry> {
        self.with(|cached| cached.get(number).copied())
    }

    /// Returns how many entries were evicted since the CPU was made.
    pub(crate) fn evicted(&self) -> u64 {
        self.evicted.get()
    }

    /// Returns how many entries match a predicate.
    pub(crate) fn count(&self, wanted: impl Fn(&TlbEntry) -> bool) -> usize {
        self.with(|cached| cached.iter().filter(|it| wanted(it)).count())
    }

    /// Drops the entries that an event has to drop.
    pub(crate) fn drop(&self, what: Drop) {
        self.with(|cached| cached.retain(|it| !what.takes(&it.key)));
    }

    /// Drops all entries.
    pub(crate) fn forget_all(&self) {
        self.with(KVec::clear);
        self.next.set(0);
    }

    /// Turns all entries into entries of another hypervisor, which used the same tags by chance:
    /// VMXOFF and VMXON need not drop anything.
    pub(crate) fn estrange(&self) {
        self.with(|cached| cached.iter_mut().for_each(TlbEntry::estrange));
    }

    /// Drops each second entry, as selected by a number: a CPU may drop entries at any time.
    pub(crate) fn forget(&self, mut random: u32) {
        self.with(|cached| {
            cached.retain(|_| {
                random = random.rotate_left(1);
                random & 1 == 0
            });
        });
    }

    /// Returns how many invalidations (INVVPID, INVEPT) the CPU executed.
    pub(crate) fn invalidations(&self) -> u64 {
        self.invalidations.get()
    }

    /// Counts an invalidation.
    fn count_invalidation(&self) {
        self.invalidations.set(self.invalidations.get() + 1);
    }

    /// Returns an error for a type that the CPU lacks.
    fn offered(offered: bool) -> Result<(), InsnError> {
        if offered {
            Ok(())
        } else {
            Err(InsnError::VmFail)
        }
    }
}

/// Returns the number of an address's page, as the model numbers pages.
///
/// One bit of an address selects the entry of each table.
pub(crate) fn page_of(address: u64) -> u16 {
    // CAST: The masked values are 0 or 1.
    (address >> 30 & 1) as u16 * 4 + (address >> 21 & 1) as u16 * 2 + (address >> 12 & 1) as u16
}

/// Returns the address of a page: the inverse of [`page_of`].
pub(crate) fn address_of(page: u16) -> u64 {
    let bit = |number: u32| u64::from(page >> number & 1);
    bit(2) << 30 | bit(1) << 21 | bit(0) << 12
}

/// The place of a task.  The scheduler sometimes migrates the task between two accesses, unless
/// preemption is disabled.
#[derive(Clone)]
pub(crate) struct Task {
    cpu: Cell<usize>,
    with_preemption_disabled: Cell<bool>,
    moved: Cell<bool>,
    /// The number of preemption points until the task migrates; 0 if the task stays.
    patience: Cell<u8>,
}

impl Task {
    /// Makes a task that is on CPU 0.
    pub(crate) fn new() -> Self {
        Self {
            cpu: Cell::new(0),
            with_preemption_disabled: Cell::new(false),
            moved: Cell::new(false),
            patience: Cell::new(0),
        }
    }

    /// Returns the number of the task's CPU.
    pub(crate) fn cpu(&self) -> usize {
        self.cpu.get()
    }

    /// Moves the task to a CPU, and sets after how many preemption points the task migrates; 0 for
    /// never.
    pub(crate) fn put_on(&self, cpu: usize, patience: u8) {
        self.cpu.set(cpu);
        self.patience.set(patience);
    }

    /// Returns whether the scheduler migrated the task since the last call.
    pub(crate) fn has_moved(&self) -> bool {
        self.moved.take()
    }

    /// Returns whether the scheduler migrated the task, without resetting the flag.
    pub(crate) fn has_moved_at_all(&self) -> bool {
        self.moved.get()
    }

    /// Is a preemption point.
    fn preempt(&self) {
        match self.patience.get() {
            0 => {}
            _ if self.with_preemption_disabled.get() => {}
            1 => {
                self.patience.set(0);
                self.cpu.set(1 - self.cpu.get());
                self.moved.set(true);
            }
            more => self.patience.set(more - 1),
        }
    }

    /// Disables or enables preemption; returns the previous state.
    pub(crate) fn set_preemption_disabled(&self, with_preemption_disabled: bool) -> bool {
        self.with_preemption_disabled
            .replace(with_preemption_disabled)
    }

    /// Runs a function with preemption disabled.
    pub(crate) fn with_preemption_disabled<R>(&self, function: impl FnOnce() -> R) -> R {
        let before = self.with_preemption_disabled.replace(true);
        let result = function();
        self.with_preemption_disabled.set(before);
        result
    }
}

/// The environment of an invalidation: the task, the CPUs and FlushedCpus.
#[derive(Clone, Copy)]
pub(crate) struct Here<'a> {
    /// The two CPUs.
    pub(crate) cpus: &'a [Cpu; 2],
    /// The task.
    pub(crate) task: &'a Task,
    /// The CPUs on which each VPID was flushed.
    pub(crate) flushed: &'a FlushedCpus<'a, Cell<u64>>,
    /// The injected bugs.
    pub(crate) bugs: Bugs,
}

impl<'a> Here<'a> {
    /// Returns the CPU that executes the next access, and the CPU's number.
    fn cpu(&self) -> (&'a Cpu, u32) {
        self.task.preempt();
        let number = self.task.cpu();
        // CAST: There are two CPUs.
        (&self.cpus[number], number as u32)
    }

    /// Returns the CPU that executes an invalidation.
    fn executing(&self) -> &'a Cpu {
        let (cpu, number) = self.cpu();
        if self.bugs.has(Bug::InvalidatesElsewhere) {
            return &self.cpus[1 - number as usize];
        }
        cpu
    }
}

impl Invalidate for Here<'_> {
    fn invvpid(&self, extent: invvpid::Extent) -> Result<(), InsnError> {
        let cpu = self.executing();
        let caps = cpu.caps;
        let what = match extent {
            invvpid::Extent::Address(vpid, gva) => {
                Cpu::offered(caps.invvpid_address())?;
                Drop::Address(vpid, page_of(gva.into_raw()))
            }
            invvpid::Extent::Context(vpid) => {
                Cpu::offered(caps.invvpid_context())?;
                Drop::Vpid(vpid)
            }
            invvpid::Extent::All => {
                Cpu::offered(caps.invvpid_all())?;
                Drop::Vpids
            }
        };
        cpu.count_invalidation();
        match what {
            Drop::Vpid(_) if self.bugs.has(Bug::InvvpidContextLost) => {}
            Drop::Vpids if self.bugs.has(Bug::InvvpidAllLost) => {}
            Drop::Address(..) if self.bugs.has(Bug::InvvpidAddressLost) => {}
            // The bug issues type 3 instead of type 1.
            Drop::Vpid(vpid) if self.bugs.has(Bug::InvvpidKeepsGlobals) => {
                cpu.drop(Drop::PcidsButGlobals(Some(vpid)));
            }
            Drop::Ep4ta(_) => {}
            _ => cpu.drop(what),
        }
        Ok(())
    }

    fn invept(&self, extent: ept::Extent) -> Result<(), InsnError> {
        let cpu = self.executing();
        cpu.count_invalidation();
        match extent {
            ept::Extent::Context(eptp) => {
                Cpu::offered(cpu.caps.invept_context())?;
                if !self.bugs.has(Bug::InveptContextLost) {
                    cpu.drop(Drop::Ep4ta(eptp.ep4ta()));
                }
            }
            // The bug issues INVVPID instead of INVEPT.
            ept::Extent::All if self.bugs.has(Bug::InvvpidForInvept) => {
                cpu.drop(Drop::Vpids);
            }
            ept::Extent::All if self.bugs.has(Bug::InveptAllLost) => {}
            ept::Extent::All => cpu.drop(Drop::Ep4tas),
        }
        Ok(())
    }

    fn skipped(&self) {}
    fn widened(&self) {}
    fn failed(&self, _: Invalidation, _: InsnError, _: Option<Invalidation>) {}
}

impl Recorder for Here<'_> {
    fn is_recorded(self, vpid: Option<Vpid>) -> bool {
        let flushed = self.flushed.on_cpu(self.cpu().1);
        flushed.is_some_and(|flushed| flushed.contains(vpid))
    }

    fn issue_fast(self, what: Invalidation) -> bool {
        what.issue(self).is_ok()
    }

    fn record(self, vpid: Vpid) {
        self.flushed.insert(vpid, self.cpu().1);
    }

    fn with_preemption_disabled<R>(self, function: impl FnOnce() -> R) -> R {
        if self.bugs.has(Bug::RecordsWhilePreemptible) {
            return function();
        }
        self.task.with_preemption_disabled(function)
    }
}
