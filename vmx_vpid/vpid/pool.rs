// SPDX-License-Identifier: GPL-2.0

//! The pool allocates VPIDs while the backend is attached.
//!
//! KVM scans its bitmap from the start, so that a VPID just freed is the next one allocated, and
//! the cost grows with the number in use.  The pool keeps free VPIDs in a queue, and allocates the
//! VPID that has been free for longest: each VPID is reused as late as possible.  Allocating and
//! freeing take constant time, whatever the number in use.
//!
//! The pool does not flush a reused VPID.  No flush is needed here, because KVM flushes on the
//! first load of a vCPU on each CPU: see "When a VPID is safe to reuse" in Documentation/vpid.rst.
//! [`crate::vpid::flushed_cpus`] records these flushes.

use crate::vpid::{
    bitmap::{
        members,
        place,
        NotAllocated,
        UnflushedVpid,
        Words,
        BITS,
        WORDS, //
    },
    Vpid, //
};
use kernel::prelude::*;

/// All VPIDs: the used ones as a bitmap, the free ones as a queue.
///
/// # Invariants
///
/// - Bit 0 of `used` is clear: VPID 0 is the host's, and the pool never allocates it.
/// - The places of `queue` from `head` up to but not including `tail`, modulo its length, hold each
///   VPID from 1 to `max` that is clear in `used`, once.  All other places hold 0.
/// - `beyond` is the number of VPIDs above `max` that are set in `used`.
/// - `low_water` is at most the number of VPIDs in the queue.
///
/// At most 65535 VPIDs are free, and there are 65536 places: the queue never overruns.
#[derive(Zeroable)]
pub(crate) struct Pool {
    used: Words,
    queue: [u16; Vpid::COUNT],
    head: u16,
    tail: u16,
    max: u16,
    beyond: u16,
    low_water: u16,
}

impl Pool {
    /// Creates a pool that has no VPID to allocate before [`Self::import()`].
    pub(crate) const fn new() -> Self {
        // INVARIANT: `max` is 0, so no VPID has to be in the queue, and no bit of `used` is set.
        Self {
            used: [0; WORDS],
            queue: [0; Vpid::COUNT],
            head: 0,
            tail: 0,
            max: 0,
            beyond: 0,
            low_water: 0,
        }
    }

    /// Allocates the VPID that has been free for longest.
    ///
    /// Returns `None` when all VPIDs from 1 to `max` are in use.
    #[inline]
    pub(crate) fn acquire(&mut self) -> Option<UnflushedVpid> {
        let first = &mut self.queue[usize::from(self.head)];
        // If the queue is empty, this place holds 0.
        let vpid = Vpid::new(*first)?;
        let (word, bit) = place(vpid);
        // INVARIANT: The VPID leaves the queue, and its bit, which was clear, is set.
        *first = 0;
        self.head = self.head.wrapping_add(1);
        self.used[word] |= bit;
        if self.free() < self.low_water {
            self.low_water = self.free();
        }
        Some(UnflushedVpid::new(vpid))
    }

    /// Frees a VPID.
    ///
    /// # Errors
    ///
    /// [`NotAllocated`] when the VPID was not in use (freed twice, or never allocated); the pool is
    /// unchanged then.
    #[inline]
    pub(crate) fn release(&mut self, vpid: Vpid) -> Result<(), NotAllocated> {
        let (word, bit) = place(vpid);
        if self.used[word] & bit == 0 {
            return Err(NotAllocated);
        }
        // INVARIANT: The bit was set, so the VPID is not in the queue.  A VPID above `max` was
        // allocated by C before the import; it does not belong in the queue.
        self.used[word] &= !bit;
        if vpid.into_raw() <= self.max {
            self.enqueue(vpid.into_raw());
        } else {
            self.beyond = self.beyond.wrapping_sub(1);
        }
        Ok(())
    }

    /// Replaces the VPIDs in use by those of a bitmap, and restarts the high-water mark.
    ///
    /// After the import the pool allocates no VPID above `max`.  Bit 0 is ignored: kvm_intel sets
    /// bit 0 in its own initialisation, which may come after the import.
    ///
    /// Calls `clear` for each VPID in use, since the bitmap does not tell where each was flushed.
    pub(crate) fn import(&mut self, from: &Words, max: u16, clear: impl Fn(Vpid)) {
        self.used = *from;
        self.used[0] &= !1;
        self.max = max;
        (self.head, self.tail, self.beyond) = (0, 0, 0);
        // INVARIANT: The queue is empty, and each free VPID up to `max` is appended, once.
        for (index, &word) in from.iter().enumerate() {
            for vpid in members(index, word) {
                clear(vpid);
                if vpid.into_raw() > max {
                    self.beyond = self.beyond.wrapping_add(1);
                }
            }
            // Callers wait for the lock during the import, so append a clear word, as most are, in
            // one loop over its 64 VPIDs.
            let tail = usize::from(self.tail);
            match (word, self.queue.get_mut(tail..tail + BITS)) {
                (0, Some(places)) if (1..usize::from(max) / BITS).contains(&index) => {
                    for (offset, place) in places.iter_mut().enumerate() {
                        // CAST: The number of a bit in a word is below `max` here, so it fits in
                        // u16.
                        *place = (index * BITS + offset) as u16;
                    }
                    // CAST: `BITS` is 64, and fits in u16.
                    self.tail = self.tail.wrapping_add(BITS as u16);
                }
                _ => members(index, !word)
                    .map(Vpid::into_raw)
                    .filter(|&vpid| vpid <= max)
                    .for_each(|vpid| self.enqueue(vpid)),
            }
        }
        self.queue[usize::from(self.tail)..].fill(0);
        self.low_water = self.free();
    }

    /// Frees the VPIDs that are in use here but clear in KVM's bitmap; returns how many.
    ///
    /// KVM's bitmap is filled when the pool becomes active, and C should not use the bitmap after
    /// that.  A compiler may have inlined `allocate_vpid()` or `free_vpid()` into a caller, though,
    /// where livepatch cannot replace it.  An inlined `allocate_vpid()` finds no free VPID.  An
    /// inlined `free_vpid()` in `vmx_vcpu_free()` gets VPID 0, because `Entry::vcpu_free()` has
    /// freed the VPID and set it to 0.  C clears a bit only where C bypasses `Entry::vcpu_free()`,
    /// and this function then frees the VPID in the pool as well.
    pub(crate) fn reconcile(&mut self, bitmap: &Words) -> u32 {
        let before = self.in_use();
        for (index, &word) in bitmap.iter().enumerate() {
            for vpid in members(index, !word & self.used[index]) {
                // `release()` keeps the invariants.
                let _ = self.release(vpid);
            }
        }
        before.wrapping_sub(self.in_use())
    }

    /// Writes the VPIDs in use as a bitmap with bit 0 set, the form that KVM keeps.
    pub(crate) fn export(&self, to: &mut Words) {
        *to = self.used;
        to[0] |= 1;
    }

    /// Returns the VPIDs in use as a bitmap, with bit 0 clear.
    pub(crate) fn words(&self) -> &Words {
        &self.used
    }

    /// Returns how many VPIDs are in use, 0..=65535.
    pub(crate) fn in_use(&self) -> u32 {
        self.in_use_with(self.free())
    }

    /// Returns the most VPIDs that were in use at once since the last import.
    ///
    /// VPIDs above `max` count only as long as they are in use.
    pub(crate) fn high_water(&self) -> u32 {
        self.in_use_with(self.low_water)
    }

    /// Returns how many VPIDs are in use when `free` VPIDs up to `max` are free.
    fn in_use_with(&self, free: u16) -> u32 {
        u32::from(self.max.wrapping_sub(free)) + u32::from(self.beyond)
    }

    /// Returns how many VPIDs are in the queue, 0..=65535.
    #[inline]
    fn free(&self) -> u16 {
        self.tail.wrapping_sub(self.head)
    }

    /// Copies another pool; for the model, which returns to an earlier state.
    #[cfg(CONFIG_VMX_VPID_KUNIT_TEST)]
    pub(crate) fn assign(&mut self, other: &Self) {
        self.used.copy_from_slice(&other.used);
        self.queue.copy_from_slice(&other.queue);
        // INVARIANT: Every field is copied from `other`, for which the invariants hold.
        (self.head, self.tail) = (other.head, other.tail);
        (self.max, self.beyond) = (other.max, other.beyond);
        self.low_water = other.low_water;
    }

    /// Appends a VPID to the queue.
    #[inline]
    fn enqueue(&mut self, id: u16) {
        self.queue[usize::from(self.tail)] = id;
        self.tail = self.tail.wrapping_add(1);
    }
}

#[cfg(CONFIG_VMX_VPID_KUNIT_TEST)]
#[kernel::macros::kunit_tests(vmx_vpid_pool)]
mod tests {
    use super::*;
    use crate::model::random::{
        Choice,
        Random, //
    };
    use core::cell::Cell;

    /// Returns a bitmap without VPIDs in use; it is too large for a kernel stack.
    fn words() -> Result<KBox<Words>> {
        Ok(KBox::zeroed(GFP_KERNEL)?)
    }

    /// Returns a pool that can allocate VPIDs 1 to `max`; the pool is built in place, since it is
    /// too large for a kernel stack.
    fn pool(max: u16) -> Result<KVBox<Pool>> {
        let mut pool = KVBox::<Pool>::zeroed(GFP_KERNEL)?;
        pool.import(&*words()?, max, |_| {});
        Ok(pool)
    }

    fn next(pool: &mut Pool) -> Option<Vpid> {
        pool.acquire().map(UnflushedVpid::into_unflushed)
    }

    fn vpid(id: u16) -> Result<Vpid> {
        Vpid::new(id).ok_or(EINVAL)
    }

    /// Checks every invariant of a pool by counting.
    fn consistent(pool: &Pool) -> Result<bool> {
        let count: u32 = pool.used.iter().map(|word| word.count_ones()).sum();
        let mut queued = words()?;
        for offset in 0..=u16::MAX {
            let id = pool.queue[usize::from(pool.head.wrapping_add(offset))];
            let (word, bit) = (usize::from(id) / 64, 1 << (usize::from(id) % 64));
            if (id != 0) != (offset < pool.free()) || id != 0 && queued[word] & bit != 0 {
                return Ok(false);
            }
            queued[word] |= bit;
        }
        let complementary = (1..=u16::MAX).all(|id| {
            let (word, bit) = (usize::from(id) / 64, 1 << (usize::from(id) % 64));
            (queued[word] & bit != 0) == (id <= pool.max && pool.used[word] & bit == 0)
        });
        Ok(pool.used[0] & 1 == 0
            && complementary
            && pool.in_use() == count
            && pool.high_water() >= pool.in_use())
    }

    #[test]
    fn a_pool_without_import_allocates_nothing() -> Result {
        let mut pool = KVBox::<Pool>::zeroed(GFP_KERNEL)?;
        assert!(consistent(&pool)?);
        assert_eq!(next(&mut pool), None);
        assert_eq!(pool.release(vpid(1)?), Err(NotAllocated));
        Ok(())
    }

    #[test]
    fn vpid_0_is_never_allocated_and_reuse_is_late() -> Result {
        let mut pool = pool(u16::MAX)?;
        assert_eq!(next(&mut pool), Vpid::new(1));
        assert_eq!(pool.release(vpid(1)?), Ok(()));
        // VPID 1 is allocated again after every other one, and 0 never.
        for id in 2..=u16::MAX {
            assert_eq!(next(&mut pool), Vpid::new(id));
        }
        assert_eq!(next(&mut pool), Vpid::new(1));
        assert_eq!(next(&mut pool), None);
        assert_eq!(pool.in_use(), 65535);
        assert!(consistent(&pool)?);
        Ok(())
    }

    #[test]
    fn the_longest_free_vpid_comes_first() -> Result {
        let mut pool = pool(u16::MAX)?;
        while next(&mut pool).is_some() {}
        let ids = [65535, 1, 4096, 63, 64, 65472, 32768];
        for id in ids {
            assert_eq!(pool.release(vpid(id)?), Ok(()));
        }
        assert!(consistent(&pool)?);
        for id in ids {
            assert_eq!(next(&mut pool), Vpid::new(id));
        }
        assert_eq!(next(&mut pool), None);
        Ok(())
    }

    #[test]
    fn freeing_a_vpid_twice_is_an_error_and_changes_nothing() -> Result {
        let mut pool = pool(u16::MAX)?;
        assert_eq!(pool.release(vpid(7)?), Err(NotAllocated));
        let one = next(&mut pool).ok_or(ENOSPC)?;
        assert_eq!(pool.release(one), Ok(()));
        assert_eq!(pool.release(one), Err(NotAllocated));
        assert_eq!(pool.in_use(), 0);
        assert!(consistent(&pool)?);
        Ok(())
    }

    #[test]
    fn import_takes_over_the_vpids_in_use() -> Result {
        let mut bitmap = words()?;
        // Bit 0 is clear, as in kvm_intel's bitmap before the initialisation of kvm_intel.
        bitmap[0] = 0b1110;
        for word in &mut bitmap[64..128] {
            *word = u64::MAX;
        }
        bitmap[WORDS - 1] = 1 << 63;
        let mut pool = KVBox::<Pool>::zeroed(GFP_KERNEL)?;
        pool.import(&bitmap, u16::MAX, |_| {});
        assert!(consistent(&pool)?);
        assert_eq!(pool.in_use(), 3 + 64 * 64 + 1);
        assert_eq!(pool.high_water(), pool.in_use());
        assert_eq!(next(&mut pool), Vpid::new(4));
        assert_eq!(pool.release(vpid(65535)?), Ok(()));
        // An export sets the host's bit.
        pool.export(&mut bitmap);
        assert_eq!(bitmap[0], 0b1_1111);
        assert_eq!(bitmap[WORDS - 1], 0);
        // An import ignores the host's bit, set or clear.
        pool.import(&bitmap, u16::MAX, |_| {});
        assert!(consistent(&pool)?);
        assert_eq!(pool.in_use(), 4 + 64 * 64);
        Ok(())
    }

    #[test]
    fn a_small_pool_keeps_to_its_size() -> Result {
        let mut bitmap = words()?;
        // C has allocated 2, and 100, which is beyond the pool's limit.
        bitmap[0] = 0b101;
        bitmap[1] = 1 << 36;
        let mut pool = KVBox::<Pool>::zeroed(GFP_KERNEL)?;
        let cleared = Cell::new(0);
        pool.import(&bitmap, 3, |vpid| {
            cleared.set(cleared.get() + vpid.into_raw())
        });
        assert_eq!((cleared.get(), pool.in_use()), (2 + 100, 2));
        assert_eq!(next(&mut pool), Vpid::new(1));
        assert_eq!(next(&mut pool), Vpid::new(3));
        assert_eq!(next(&mut pool), None);
        // VPID 100 can be freed, once, and is not allocated again.
        assert_eq!(pool.release(vpid(100)?), Ok(()));
        assert_eq!(pool.release(vpid(100)?), Err(NotAllocated));
        assert_eq!(next(&mut pool), None);
        assert!(consistent(&pool)?);
        Ok(())
    }

    #[test]
    fn reconcile_frees_the_vpids_that_c_freed() -> Result {
        let mut pool = pool(u16::MAX)?;
        for _ in 0..130 {
            next(&mut pool).ok_or(ENOSPC)?;
        }
        let mut bitmap = words()?;
        bitmap.fill(u64::MAX);
        assert_eq!(pool.reconcile(&bitmap), 0);
        // Bits 0 (the host's), 3, 64 and 130 were cleared, and 4000, which was not in use.
        bitmap[0] = !0b1001;
        bitmap[1] = !1;
        bitmap[2] = !0b100;
        bitmap[62] = !(1 << 32);
        assert_eq!(pool.reconcile(&bitmap), 3);
        assert_eq!(pool.in_use(), 127);
        assert!(consistent(&pool)?);
        assert_eq!(pool.release(vpid(64)?), Err(NotAllocated));
        Ok(())
    }

    #[test]
    fn random_use_keeps_the_invariants() -> Result {
        let mut pool = pool(u16::MAX)?;
        let mut held = KVec::new();
        let mut shadow = words()?;
        let mut random = Random::new(1);
        for turn in 0..20_000u32 {
            if random.below(4) != 0 || held.is_empty() {
                let new = next(&mut pool).ok_or(ENOSPC)?;
                let (word, bit) = place(new);
                assert_eq!(shadow[word] & bit, 0);
                shadow[word] |= bit;
                held.push(new, GFP_KERNEL)?;
            } else {
                let index = random.index(held.len());
                let last = held.len() - 1;
                held.swap(index, last);
                let gone = held.pop().ok_or(EINVAL)?;
                assert_eq!(pool.release(gone), Ok(()));
                let (word, bit) = place(gone);
                shadow[word] &= !bit;
            }
            if turn % 1024 == 0 {
                assert!(consistent(&pool)?);
            }
        }
        assert_eq!(pool.in_use() as usize, held.len());
        Ok(())
    }
}
