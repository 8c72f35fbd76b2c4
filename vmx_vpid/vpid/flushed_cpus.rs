// SPDX-License-Identifier: GPL-2.0

//! The record of flushed CPUs: on which CPUs each VPID was flushed since it was taken.
//!
//! A VPID that was just taken is clean nowhere: on every CPU its last holder may have left
//! mappings.  It comes as [`UnflushedVpid`], of which only the record makes a VPID.  [`FlushedCpus`] is the
//! record of where its holder has flushed it since, a mask of CPUs for each VPID.  It decides
//! nothing: KVM asks for a flush whenever a vCPU comes to a CPU (see "When a VPID is safe to reuse"
//! in Documentation/design.rst), and the record shows that it did.  The model in [`crate::model`]
//! enters no guest with a VPID that is not recorded as clean.

use crate::vpid::{
    bitmap::UnflushedVpid,
    Vpid, //
};
use core::hint::cold_path;

/// A word of the record, which CPUs read and write at the same time.
///
/// Every access is one of the whole word, and none orders others: a CPU's bit is set by that CPU,
/// and cleared before the VPID gets to its next holder.
pub(crate) trait Word {
    /// Reads the word.
    fn read(&self) -> u64;
    /// Clears the word.
    fn clear(&self);
    /// Makes the word `new` if it is `old`.
    ///
    /// # Errors
    ///
    /// What it is instead.
    fn exchange(&self, old: u64, new: u64) -> Result<(), u64>;

    /// Sets bits of the word.
    fn insert(&self, bits: u64) {
        let mut old = self.read();
        // Other CPUs set their bits in the same word.
        while let Err(now) = self.exchange(old, old | bits) {
            old = now;
        }
    }
}

/// A word of a test, which runs on one CPU.
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

/// Where each VPID was flushed by its holder since it was taken.
///
/// Every 64 CPUs have a plane of one word for each VPID.  A CPU's own bit is set by that CPU alone,
/// once for each holder; from then on a flush only reads the word, so that no cache line is passed
/// around.
pub(crate) struct FlushedCpus<'a, W> {
    first: &'a Plane<W>,
    rest: &'a [Plane<W>],
}

/// What is recorded for 64 CPUs: a word for each VPID.
pub(crate) type Plane<W> = [W; Vpid::COUNT];

/// What is recorded for one CPU: a bit of each word of a plane.
pub(crate) struct FlushedOnCpu<'a, W> {
    plane: &'a Plane<W>,
    bit: u64,
}

impl<'a, W: Word> FlushedOnCpu<'a, W> {
    /// Takes the column of a CPU, by the plane that has it and its bit there.
    #[inline]
    pub(crate) const fn new(plane: &'a Plane<W>, bit: u64) -> Self {
        Self { plane, bit }
    }

    /// Returns the plane and the bit, to be kept for later.
    pub(crate) const fn parts(&self) -> (&'a Plane<W>, u64) {
        (self.plane, self.bit)
    }

    /// Whether its holder has flushed a VPID on this CPU, if there is one.
    #[inline(always)]
    pub(crate) fn contains(&self, vpid: Option<Vpid>) -> bool {
        // Without a VPID that is word 0, which says so of every CPU: it saves a test.
        let index = vpid.map_or(0, Vpid::into_raw);
        self.plane[usize::from(index)].read() & self.bit != 0
    }

    /// Records that the holder of a VPID has flushed it on this CPU.
    ///
    /// To be called by the holder, for what was flushed.  (A vCPU that is being destroyed may call
    /// it for a VPID that it just gave back: then it says of its next holder what is true as well.)
    pub(crate) fn insert(&self, vpid: Vpid) {
        self.plane[usize::from(vpid.into_raw())].insert(self.bit);
    }
}

impl<'a, W: Word> FlushedCpus<'a, W> {
    /// CPUs in a plane.
    const CPUS: u32 = u64::BITS;

    /// Returns what a word of the planes is to be at first, by its place among those of all planes.
    ///
    /// Of VPID 0, which nobody holds, there is nothing to be flushed.
    pub(crate) const fn initially(place: usize) -> u64 {
        if place & (Vpid::COUNT - 1) == 0 {
            u64::MAX
        } else {
            0
        }
    }

    /// Returns how many planes a machine with so many CPUs needs; one at least.
    pub(crate) const fn planes(cpus: u32) -> usize {
        1 + (cpus.saturating_sub(1) / Self::CPUS) as usize
    }

    /// Takes the planes, whose words are to be as [`initially()`](Self::initially) at first.
    ///
    /// CPUs that they have no place for are never recorded.
    #[inline]
    pub(crate) const fn new(first: &'a Plane<W>, rest: &'a [Plane<W>]) -> Self {
        Self { first, rest }
    }

    /// Returns what is recorded for a CPU; `None` for one that there is no place for.
    pub(crate) fn on_cpu(&self, cpu: u32) -> Option<FlushedOnCpu<'a, W>> {
        let plane = if cpu < Self::CPUS {
            self.first
        } else {
            self.rest.get((cpu / Self::CPUS - 1) as usize)?
        };
        Some(FlushedOnCpu::new(plane, 1 << (cpu % Self::CPUS)))
    }

    /// Whether its holder has flushed a VPID on a CPU.
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

    /// Records that a VPID was taken, clean nowhere, and returns it.
    ///
    /// Nothing else makes a VPID of what was taken ("make test" looks for that): so nobody knows it
    /// before this is recorded.
    #[inline]
    pub(crate) fn reset(&self, taken: UnflushedVpid) -> Vpid {
        let vpid = taken.into_unflushed();
        self.clear(vpid);
        vpid
    }

    /// Records that a VPID in use is clean nowhere, as far as is known.
    #[inline]
    pub(crate) fn clear(&self, vpid: Vpid) {
        let index = usize::from(vpid.into_raw());
        self.first[index].clear();
        for plane in self.rest {
            cold_path();
            plane[index].clear();
        }
    }

    /// Returns the CPUs on which a VPID was flushed, in their order.
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
    fn a_vpid_is_clean_where_it_was_flushed() -> Result {
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
        // Without a VPID there is nothing to be recorded.
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
        // Beyond the machine nothing is recorded, and nothing breaks.
        flushed.insert(one, 128);
        assert!(!flushed.contains(one, 128));
        Ok(())
    }
}
