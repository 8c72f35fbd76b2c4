// SPDX-License-Identifier: GPL-2.0

//! This module records on which CPUs each VPID was flushed since its allocation.
//!
//! A VPID that was just allocated counts as flushed nowhere: its last holder may have left mappings
//! on any CPU.  The allocator returns an [`UnflushedVpid`], and only FlushedCpus makes a VPID of
//! it.  [`FlushedCpus`] is a mask of CPUs for each VPID: those on which the VPID's holder has
//! flushed it.  No flush is skipped because of FlushedCpus.  KVM requests a flush whenever a vCPU
//! is loaded on another CPU (see "When a VPID is safe to reuse" in Documentation/vpid.rst), and
//! FlushedCpus shows that KVM did.  The model in `model/` enters no guest with a VPID that is not
//! recorded as flushed.

use crate::{
    vpid::{
        bitmap::UnflushedVpid,
        Vpid, //
    },
    x86::compat::cold_path, //
};

/// A word of FlushedCpus, which CPUs read and write concurrently.
///
/// Every access is to the whole word, and no access needs to order others: only the CPU itself sets
/// its bit, and the bit is cleared before the VPID's next holder gets the VPID.
pub(crate) trait Word {
    /// Reads the word.
    fn read(&self) -> u64;
    /// Clears the word.
    fn clear(&self);
    /// Sets the word to `new` if it is `old`.
    ///
    /// # Errors
    ///
    /// The word's value, if it is not `old`.
    fn exchange(&self, old: u64, new: u64) -> Result<(), u64>;

    /// Sets bits of the word.
    fn insert(&self, bits: u64) {
        let mut old = self.read();
        // Retry after another CPU has set its bit in the same word.
        while let Err(now) = self.exchange(old, old | bits) {
            old = now;
        }
    }
}

/// A word for tests, which run on one CPU.
#[cfg(CONFIG_VMX_VPID_KUNIT_TEST)]
impl Word for core::cell::Cell<u64> {
    fn read(&self) -> u64 {
        self.get()
    }
    fn clear(&self) {
        self.set(0);
    }
    fn exchange(&self, old: u64, new: u64) -> Result<(), u64> {
        if self.get() != old {
            return Err(self.get());
        }
        self.set(new);
        Ok(())
    }
}

/// The CPUs on which each VPID was flushed by its holder since the VPID's allocation.
///
/// Every 64 CPUs share a plane, which has one word for each VPID.  Only the CPU itself sets its
/// bit, once for each holder.  After that a flush only reads the word, so that its cache line does
/// not move between CPUs.
pub(crate) struct FlushedCpus<'a, W> {
    first: &'a Plane<W>,
    rest: &'a [Plane<W>],
}

/// FlushedCpus for 64 CPUs: a word for each VPID.
pub(crate) type Plane<W> = [W; Vpid::COUNT];

/// FlushedCpus for one CPU: a bit of each word of a plane.
pub(crate) struct FlushedOnCpu<'a, W> {
    plane: &'a Plane<W>,
    bit: u64,
}

impl<'a, W: Word> FlushedOnCpu<'a, W> {
    /// Returns the part of the CPU that has a bit in a plane.
    #[inline]
    pub(crate) const fn new(plane: &'a Plane<W>, bit: u64) -> Self {
        Self { plane, bit }
    }

    /// Returns the plane and the bit, for a caller that stores them.
    pub(crate) const fn parts(&self) -> (&'a Plane<W>, u64) {
        (self.plane, self.bit)
    }

    /// Returns whether the holder of a VPID has flushed it on this CPU; true for `None`.
    #[inline(always)]
    pub(crate) fn contains(&self, vpid: Option<Vpid>) -> bool {
        // `None` reads word 0, which has the bit of every CPU: this saves a branch.
        let index = vpid.map_or(0, Vpid::into_raw);
        self.plane[usize::from(index)].read() & self.bit != 0
    }

    /// Records that the holder of a VPID has flushed it on this CPU.
    ///
    /// Only the holder calls this function, after a flush.  (A vCPU that is being destroyed may
    /// call it for a VPID that it has just freed.  The VPID was flushed on this CPU nevertheless,
    /// so the bit is true for the next holder as well.)
    pub(crate) fn insert(&self, vpid: Vpid) {
        self.plane[usize::from(vpid.into_raw())].insert(self.bit);
    }
}

impl<'a, W: Word> FlushedCpus<'a, W> {
    /// The number of CPUs in a plane.
    const CPUS: u32 = u64::BITS;

    /// Returns the initial value of a word, by its index among the words of all planes.
    ///
    /// VPID 0 counts as flushed everywhere: no vCPU holds it, so there is nothing to flush.
    pub(crate) const fn initially(place: usize) -> u64 {
        if place & (Vpid::COUNT - 1) == 0 {
            u64::MAX
        } else {
            0
        }
    }

    /// Returns how many planes a machine with this number of CPUs needs; at least one.
    pub(crate) const fn planes(cpus: u32) -> usize {
        1 + (cpus.saturating_sub(1) / Self::CPUS) as usize
    }

    /// Makes FlushedCpus of planes; each word has to start as [`initially()`](Self::initially)
    /// says.
    ///
    /// No flush is recorded for a CPU beyond the planes.
    #[inline]
    pub(crate) const fn new(first: &'a Plane<W>, rest: &'a [Plane<W>]) -> Self {
        Self { first, rest }
    }

    /// Returns the part of a CPU; `None` for a CPU beyond the planes.
    pub(crate) fn on_cpu(&self, cpu: u32) -> Option<FlushedOnCpu<'a, W>> {
        let plane = if cpu < Self::CPUS {
            self.first
        } else {
            self.rest.get((cpu / Self::CPUS - 1) as usize)?
        };
        Some(FlushedOnCpu::new(plane, 1 << (cpu % Self::CPUS)))
    }

    /// Returns whether the holder of a VPID has flushed it on a CPU.
    pub(crate) fn contains(&self, vpid: Vpid, cpu: u32) -> bool {
        self.on_cpu(cpu)
            .is_some_and(|on_cpu| on_cpu.contains(Some(vpid)))
    }

    /// Records that the holder of a VPID has flushed it on a CPU; see [`FlushedOnCpu::insert()`].
    pub(crate) fn insert(&self, vpid: Vpid, cpu: u32) {
        if let Some(on_cpu) = self.on_cpu(cpu) {
            on_cpu.insert(vpid);
        }
    }

    /// Records that a VPID was just allocated and flushed nowhere, and returns the VPID.
    ///
    /// No other function makes a VPID of an [`UnflushedVpid`] ("make test" checks this), so no task
    /// uses the VPID before FlushedCpus is reset.
    #[inline]
    pub(crate) fn reset(&self, taken: UnflushedVpid) -> Vpid {
        let vpid = taken.into_unflushed();
        self.clear(vpid);
        vpid
    }

    /// Records that a VPID is not known to be flushed on any CPU.
    #[inline]
    pub(crate) fn clear(&self, vpid: Vpid) {
        let index = usize::from(vpid.into_raw());
        self.first[index].clear();
        for plane in self.rest {
            cold_path();
            plane[index].clear();
        }
    }

    /// Returns the CPUs on which a VPID was flushed, in ascending order.
    pub(crate) fn cpus(&self, vpid: Vpid) -> impl Iterator<Item = u32> + use<'_, 'a, W> {
        // CAST: There are fewer than 2^32 CPUs.
        (0..(self.rest.len() + 1) as u32 * Self::CPUS).filter(move |&cpu| self.contains(vpid, cpu))
    }
}

#[cfg(CONFIG_VMX_VPID_KUNIT_TEST)]
#[kernel::macros::kunit_tests(vmx_vpid_flushed_cpus)]
mod tests {
    use super::*;
    use core::cell::Cell;
    use kernel::prelude::*;

    #[test]
    fn a_vpid_counts_as_flushed_on_the_recorded_cpus_only() -> Result {
        let count = FlushedCpus::<Cell<u64>>::planes(70) * Vpid::COUNT;
        let mut words = KVVec::with_capacity(count, GFP_KERNEL)?;
        for place in 0..count {
            let word = Cell::new(FlushedCpus::<Cell<u64>>::initially(place));
            words.push(word, GFP_KERNEL)?;
        }
        let (first, rest) = words.as_chunks().0.split_first().ok_or(EINVAL)?;
        let flushed = FlushedCpus::new(first, rest);
        let (one, last) = (Vpid::new(1), Vpid::new(65535));
        let (one, last) = (one.ok_or(EINVAL)?, last.ok_or(EINVAL)?);
        // `None` counts as flushed everywhere, and a new VPID nowhere.
        assert!([0, 63, 64, 69].iter().all(|&cpu| {
            let on_cpu = flushed.on_cpu(cpu);
            on_cpu.is_some_and(|on_cpu| on_cpu.contains(None) && !on_cpu.contains(Some(one)))
        }));
        for vpid in [one, last] {
            assert_eq!(flushed.cpus(vpid).count(), 0);
            for cpu in [69, 0, 63, 64, 0] {
                flushed.insert(vpid, cpu);
                assert!(flushed.contains(vpid, cpu));
            }
            assert!(flushed.cpus(vpid).eq([0, 63, 64, 69]));
        }
        assert_eq!(flushed.reset(UnflushedVpid::new(one)), one);
        assert_eq!(flushed.cpus(one).count(), 0);
        assert_eq!(flushed.cpus(last).count(), 4);
        // An insertion for a CPU beyond the planes is ignored.
        flushed.insert(one, 128);
        assert!(!flushed.contains(one, 128));
        Ok(())
    }
}
