// SPDX-License-Identifier: GPL-2.0

//! CPUs that keep every translation for as long as they may.
//!
//! The manual's chapter on caching translation information with VMX says what an entry is tagged
//! by, and what has to drop it.  Nothing else does here.

use crate::{
    caps::EptVpidCap,
    ept::{
        self,
        Ep4ta, //
    },
    flush::Recorder,
    insn::InsnError,
    invvpid::{
        self,
        Vpid, //
    },
    issue::{
        Invalidate,
        Invalidation, //
    },
    lease::Flushed, //
};
use core::cell::Cell;
use kernel::prelude::*;

/// What a cached translation is of: its kind, its tags, and the page that is translated.
///
/// Without a VPID it is tagged by VPID 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    /// A linear address, with EPT off.
    Linear(Option<Vpid>, u64),
    /// A guest-physical address.
    GuestPhysical(Ep4ta, u64),
    /// A linear address, with EPT on.
    Combined(Option<Vpid>, Ep4ta, u64),
}

impl Key {
    /// The VPID that it is tagged by, if it is by any.
    fn vpid(self) -> Option<Option<Vpid>> {
        match self {
            Self::Linear(vpid, _) | Self::Combined(vpid, ..) => Some(vpid),
            Self::GuestPhysical(..) => None,
        }
    }

    /// The EP4TA that it is tagged by, if it is by any.
    fn ep4ta(self) -> Option<Ep4ta> {
        match self {
            Self::GuestPhysical(ep4ta, _) | Self::Combined(_, ep4ta, _) => Some(ep4ta),
            Self::Linear(..) => None,
        }
    }
}

/// A CPU with what it has cached; `T` is what a page translates to.
pub(super) struct Cpu<T> {
    caps: EptVpidCap,
    cached: Cell<KVec<(Key, T)>>,
}

impl<T: Copy> Cpu<T> {
    /// Makes a CPU that has nothing cached.
    pub(super) fn new(caps: EptVpidCap) -> Self {
        Self {
            caps,
            cached: Cell::new(KVec::new()),
        }
    }

    /// Works on what is cached.
    fn with<R>(&self, work: impl FnOnce(&mut KVec<(Key, T)>) -> R) -> R {
        let mut cached = self.cached.replace(KVec::new());
        let result = work(&mut cached);
        self.cached.set(cached);
        result
    }

    /// Returns what it has cached for a page.
    pub(super) fn hit(&self, key: Key) -> Option<T> {
        self.with(|cached| {
            let entry = cached.iter().find(|(other, _)| *other == key)?;
            Some(entry.1)
        })
    }

    /// Translates a page, and keeps that: a page that is cached is not looked up anew.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`].
    pub(super) fn fill(&self, key: Key, fresh: T) -> Result {
        if self.hit(key).is_none() {
            self.with(|cached| cached.push((key, fresh), GFP_KERNEL))?;
        }
        Ok(())
    }

    /// Returns how many translations are cached with a VPID.
    pub(super) fn cached_with(&self, vpid: Option<Vpid>) -> usize {
        let of_it = |(key, _): &&(Key, T)| key.vpid() == Some(vpid);
        self.with(|cached| cached.iter().filter(of_it).count())
    }

    /// Enters or leaves a guest that has no VPID: that drops what VPID 0 tags.
    pub(super) fn cross_without_vpid(&self) {
        self.drop_if(|key| key.vpid() == Some(None));
    }

    /// Drops some of what is cached.
    fn drop_if(&self, go: impl Fn(Key) -> bool) {
        self.with(|cached| cached.retain(|(key, _)| !go(*key)));
    }

    /// Refuses a type that the CPU lacks.
    fn offered(offered: bool) -> Result<(), InsnError> {
        if offered {
            Ok(())
        } else {
            Err(InsnError::VmFail)
        }
    }
}

/// Where a task is, and where the scheduler moves it to: sometimes, between two accesses, unless
/// it is pinned.
pub(super) struct Task {
    cpu: Cell<usize>,
    pinned: Cell<bool>,
    moved: Cell<bool>,
    random: Cell<u32>,
}

impl Task {
    /// Makes a task that is on CPU 0, and maybe always pinned.
    pub(super) fn new(pinned: bool) -> Self {
        Self {
            cpu: Cell::new(0),
            pinned: Cell::new(pinned),
            moved: Cell::new(false),
            random: Cell::new(1),
        }
    }

    /// Returns the number of its CPU.
    pub(super) fn cpu(&self) -> usize {
        self.cpu.get()
    }

    /// Moves it.
    pub(super) fn put_on(&self, cpu: usize) {
        self.cpu.set(cpu);
    }

    /// Returns whether the scheduler moved it, if only there and back, since it was asked last.
    pub(super) fn has_moved(&self) -> bool {
        self.moved.take()
    }

    /// Gives the scheduler an occasion; of two CPUs, it takes the other one time in 16.
    fn preempt(&self) {
        // A step of a linear congruential generator, with Knuth's constants.
        let next = self.random.get().wrapping_mul(1_664_525);
        self.random.set(next.wrapping_add(1_013_904_223));
        if !self.pinned.get() && next >> 28 == 0 {
            self.cpu.set(1 - self.cpu.get());
            self.moved.set(true);
        }
    }
}

/// A task that invalidates, with the CPUs it can be on and the record that is kept.
pub(super) struct Here<'a, T> {
    /// The CPUs: two.
    pub(super) cpus: &'a [Cpu<T>; 2],
    /// The task.
    pub(super) task: &'a Task,
    /// The record.
    pub(super) flushed: &'a Flushed<'a, Cell<u64>>,
}

// Derived, this would ask the same of `T`.
impl<T> Clone for Here<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Here<'_, T> {}

impl<T> Here<'_, T> {
    /// Returns the CPU that executes what comes next, and its number.
    fn cpu(&self) -> (&Cpu<T>, u32) {
        self.task.preempt();
        let number = self.task.cpu();
        // CAST: There are two.
        (&self.cpus[number], number as u32)
    }
}

impl<T: Copy> Invalidate for Here<'_, T> {
    fn invvpid(&self, extent: invvpid::Extent) -> Result<(), InsnError> {
        let (cpu, _) = self.cpu();
        let caps = cpu.caps;
        match extent {
            invvpid::Extent::Address(vpid, gva) => {
                Cpu::<T>::offered(caps.invvpid_address())?;
                let page = gva.into_raw();
                cpu.drop_if(|key| match key {
                    Key::Linear(of, at) | Key::Combined(of, _, at) => {
                        of == Some(vpid) && at == page
                    }
                    Key::GuestPhysical(..) => false,
                });
            }
            invvpid::Extent::Context(vpid) => {
                Cpu::<T>::offered(caps.invvpid_context())?;
                cpu.drop_if(|key| key.vpid() == Some(Some(vpid)));
            }
            invvpid::Extent::All => {
                Cpu::<T>::offered(caps.invvpid_all())?;
                cpu.drop_if(|key| matches!(key.vpid(), Some(Some(_))));
            }
        }
        Ok(())
    }

    fn invept(&self, extent: ept::Extent) -> Result<(), InsnError> {
        let (cpu, _) = self.cpu();
        match extent {
            ept::Extent::Context(eptp) => {
                Cpu::<T>::offered(cpu.caps.invept_context())?;
                cpu.drop_if(|key| key.ep4ta() == Some(eptp.ep4ta()));
            }
            ept::Extent::All => cpu.drop_if(|key| key.ep4ta().is_some()),
        }
        Ok(())
    }

    fn skipped(&self) {}
    fn widened(&self) {}
    fn failed(&self, _: Invalidation, _: InsnError, _: Option<Invalidation>) {}
}

impl<T: Copy> Recorder for Here<'_, T> {
    fn is_recorded(self, vpid: Vpid) -> bool {
        self.flushed.contains(vpid, self.cpu().1)
    }

    fn record(self, vpid: Vpid) {
        self.flushed.insert(vpid, self.cpu().1);
    }

    fn pinned<R>(self, function: impl FnOnce() -> R) -> R {
        let before = self.task.pinned.replace(true);
        let result = function();
        self.task.pinned.set(before);
        result
    }
}
