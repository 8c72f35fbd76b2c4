// SPDX-License-Identifier: GPL-2.0

//! The pool that VPIDs come from while the backend is attached.
//!
//! KVM scans its bitmap from the start, so that an id just freed is the next one given out, and the
//! cost grows with the number in use.  Here a search goes on where the last one ended (next-fit):
//! a freed id is reused as late as possible.  Two summary levels above the bitmap bound the cost of
//! every call: whatever is in use, at most three words are searched twice.
//!
//! Nothing here makes a reused VPID clean.  What does is KVM's flush on the first load of a vCPU
//! on each CPU and at vCPU reset: see "When a VPID is safe to reuse" in Documentation/design.rst.

use crate::invvpid::Vpid;

/// Bits in one word of the bitmap.
const BITS: usize = u64::BITS as usize;

/// Words of the lowest level, one bit for each VPID.
const WORDS: usize = Vpid::COUNT / BITS;

/// Words of the middle level, one bit for each word below.
const GROUPS: usize = WORDS / BITS;

/// The VPIDs of a machine as a bitmap, in the layout of the kernel's `DECLARE_BITMAP()`.
pub(crate) type Words = [u64; WORDS];

/// A VPID was released that the pool had not given out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotHeld;

/// The set of VPIDs, those in use and those free.
///
/// # Invariants
///
/// - Bit 0 of `used` is set: VPID 0 is the host's.
/// - Bit `w % 64` of `full[w / 64]` is set if and only if every bit of `used[w]` is.
/// - Bit `g` of `top` is set if and only if every bit of `full[g]` is.
/// - `in_use` is the number of bits set in `used`, bit 0 aside, and `high_water >= in_use`.
pub(crate) struct Pool {
    used: Words,
    full: [u64; GROUPS],
    top: u16,
    next: u16,
    in_use: u32,
    high_water: u32,
}

impl Pool {
    /// Creates a pool with every VPID free but the host's.
    pub(crate) const fn new() -> Self {
        let mut used = [0; WORDS];
        used[0] = 1;
        // INVARIANT: One bit is set, and no word is full.
        Self {
            used,
            full: [0; GROUPS],
            top: 0,
            next: 1,
            in_use: 0,
            high_water: 0,
        }
    }

    /// Takes the next free VPID at or after the place where the last search ended.
    ///
    /// Returns `None` when all 65535 are in use.
    #[inline]
    pub(crate) fn acquire(&mut self) -> Option<Vpid> {
        let id = self
            .search(usize::from(self.next))
            .or_else(|| self.search(0))?;
        let vpid = Vpid::new(id)?;

        let (word, bit) = Self::place(id);
        // INVARIANT: The bit was clear, so one more is in use; the summaries follow their words.
        self.used[word] |= bit;
        if self.used[word] == u64::MAX {
            let (group, bit) = (word / BITS, 1 << (word % BITS));
            self.full[group] |= bit;
            if self.full[group] == u64::MAX {
                self.top |= 1 << group;
            }
        }
        self.in_use = self.in_use.wrapping_add(1);
        self.high_water = self.high_water.max(self.in_use);
        self.next = id.wrapping_add(1);
        Some(vpid)
    }

    /// Gives a VPID back.
    ///
    /// # Errors
    ///
    /// [`NotHeld`] when it was not in use (a double release, or an id from elsewhere); the pool is
    /// as it was then.
    #[inline]
    pub(crate) fn release(&mut self, vpid: Vpid) -> Result<(), NotHeld> {
        let (word, bit) = Self::place(vpid.into_raw());
        if self.used[word] & bit == 0 {
            return Err(NotHeld);
        }
        // INVARIANT: The bit was set, so one less is in use.  The word has a free bit now, and with
        // it its group; clearing a summary bit that was clear changes nothing.
        self.used[word] &= !bit;
        self.full[word / BITS] &= !(1 << (word % BITS));
        self.top &= !(1 << (word / BITS));
        self.in_use = self.in_use.wrapping_sub(1);
        Ok(())
    }

    /// Makes the pool hold exactly the VPIDs of a bitmap, and starts the high-water mark anew.
    ///
    /// Bit 0 counts as set whatever the bitmap says: kvm_intel sets it only in its own
    /// initialisation, which may come after the import.
    pub(crate) fn import(&mut self, from: &Words) {
        let mut count: u32 = 0;
        self.top = 0;
        for (group, words) in from.chunks_exact(BITS).enumerate() {
            let mut full = 0u64;
            for (i, &word) in words.iter().enumerate() {
                let index = group * BITS + i;
                let word = if index == 0 { word | 1 } else { word };
                if let Some(slot) = self.used.get_mut(index) {
                    *slot = word;
                }
                count = count.wrapping_add(word.count_ones());
                full |= u64::from(word == u64::MAX) << i;
            }
            if let Some(slot) = self.full.get_mut(group) {
                *slot = full;
            }
            self.top |= u16::from(full == u64::MAX) << group;
        }
        // INVARIANT: `count` includes bit 0, which is nobody's.
        self.in_use = count.wrapping_sub(1);
        self.high_water = self.in_use;
    }

    /// Releases what is in use here but clear in a bitmap that started out full; returns how many.
    ///
    /// While the pool is the truth, KVM's own bitmap is full, and nothing should touch it.  A
    /// compiler may have inlined `allocate_vpid()` or `free_vpid()` into a caller, though, where
    /// livepatch does not reach them: the one finds nothing free then, and the other leaves the
    /// trace that is followed here.
    pub(crate) fn reconcile(&mut self, bitmap: &Words) -> u32 {
        let before = self.in_use;
        for (index, &word) in bitmap.iter().enumerate() {
            let mut freed = !word & self.used.get(index).copied().unwrap_or(0);
            while freed != 0 {
                // `release()` keeps the invariants, and VPID 0 is never released.
                if let Some(vpid) = Self::id(index, freed).and_then(Vpid::new) {
                    let _ = self.release(vpid);
                }
                freed &= freed - 1;
            }
        }
        before.wrapping_sub(self.in_use)
    }

    /// Returns the VPIDs in use as a bitmap with bit 0 set, the form that KVM keeps.
    #[inline]
    pub(crate) fn words(&self) -> &Words {
        &self.used
    }

    /// Returns how many VPIDs are in use, 0..=65535.
    #[inline]
    pub(crate) fn in_use(&self) -> u32 {
        self.in_use
    }

    /// Returns the most VPIDs that were in use at once since the last import.
    #[inline]
    pub(crate) fn high_water(&self) -> u32 {
        self.high_water
    }

    /// Returns the index and the mask under which an id is found in `used`.
    #[inline]
    fn place(id: u16) -> (usize, u64) {
        let id = usize::from(id);
        (id / BITS, 1 << (id % BITS))
    }

    /// Finds the lowest free id at or above `start` (0..=65535).
    #[inline]
    fn search(&self, start: usize) -> Option<u16> {
        let word = start / BITS;
        let free = !self.used.get(word)? & (u64::MAX << (start % BITS));
        if free != 0 {
            return Self::id(word, free);
        }
        // From here on whole words: the lowest one above `word` that is not full, first in its
        // own group, then in the groups above.  A shift by the width of the type would be an
        // overflow, hence the two steps of `MAX << n << 1`.
        let group = word / BITS;
        let open = !self.full.get(group)? & (u64::MAX << (word % BITS) << 1);
        if open != 0 {
            return self.first_in_word(group, open);
        }
        let groups = !self.top & (u16::MAX << group << 1);
        if groups == 0 {
            return None;
        }
        let group = groups.trailing_zeros() as usize;
        self.first_in_word(group, !*self.full.get(group)?)
    }

    /// Finds the lowest free id in the lowest word of a group that `open` (not 0) has a bit for.
    #[inline]
    fn first_in_word(&self, group: usize, open: u64) -> Option<u16> {
        let word = group * BITS + open.trailing_zeros() as usize;
        Self::id(word, !*self.used.get(word)?)
    }

    /// Returns the id of the lowest bit of `free` in a word.
    #[inline]
    fn id(word: usize, free: u64) -> Option<u16> {
        u16::try_from(word * BITS + free.trailing_zeros() as usize).ok()
    }
}

#[cfg(CONFIG_VMX_VPID_KUNIT_TEST)]
#[kernel::macros::kunit_tests(vmx_vpid_pool)]
mod tests {
    use super::*;
    use kernel::prelude::*;

    /// A new pool; too large for a kernel stack.
    fn pool() -> Result<KBox<Pool>> {
        Ok(KBox::new(Pool::new(), GFP_KERNEL)?)
    }

    fn vpid(id: u16) -> Result<Vpid> {
        Vpid::new(id).ok_or(EINVAL)
    }

    /// Checks every invariant of a pool the slow way.
    fn consistent(pool: &Pool) -> bool {
        let count: u32 = pool.used.iter().map(|w| w.count_ones()).sum();
        let words = (0..WORDS)
            .all(|w| (pool.full[w / BITS] >> (w % BITS) & 1 == 1) == (pool.used[w] == u64::MAX));
        let groups = (0..GROUPS).all(|g| (pool.top >> g & 1 == 1) == (pool.full[g] == u64::MAX));
        pool.used[0] & 1 == 1
            && words
            && groups
            && pool.in_use + 1 == count
            && pool.high_water >= pool.in_use
    }

    #[test]
    fn never_gives_out_zero_and_reuses_late() -> Result {
        let mut pool = pool()?;
        assert_eq!(pool.acquire(), Vpid::new(1));
        assert_eq!(pool.release(vpid(1)?), Ok(()));
        // Every other id comes before 1 does again, and 0 never comes.
        for id in 2..=u16::MAX {
            assert_eq!(pool.acquire(), Vpid::new(id));
        }
        assert_eq!(pool.acquire(), Vpid::new(1));
        assert_eq!(pool.acquire(), None);
        assert_eq!(pool.in_use(), 65535);
        assert!(consistent(&pool));
        Ok(())
    }

    #[test]
    fn finds_the_only_free_id_wherever_it_is() -> Result {
        let mut pool = pool()?;
        while pool.acquire().is_some() {}
        for id in [1, 62, 63, 64, 4095, 4096, 32767, 32768, 65471, 65472, 65535] {
            assert_eq!(pool.release(vpid(id)?), Ok(()));
            assert!(consistent(&pool));
            assert_eq!(pool.acquire(), Vpid::new(id));
            assert!(consistent(&pool));
            assert_eq!(pool.acquire(), None);
        }
        Ok(())
    }

    #[test]
    fn a_double_release_is_told_and_changes_nothing() -> Result {
        let mut pool = pool()?;
        assert_eq!(pool.release(vpid(7)?), Err(NotHeld));
        let one = pool.acquire().ok_or(ENOSPC)?;
        assert_eq!(pool.release(one), Ok(()));
        assert_eq!(pool.release(one), Err(NotHeld));
        assert_eq!(pool.in_use(), 0);
        assert!(consistent(&pool));
        Ok(())
    }

    #[test]
    fn import_takes_over_what_is_held() -> Result {
        let mut words = KBox::new([0; WORDS], GFP_KERNEL)?;
        // Bit 0 is left clear, as kvm_intel's bitmap has it before its initialisation.
        words[0] = 0b1110;
        for word in &mut words[64..128] {
            *word = u64::MAX;
        }
        words[WORDS - 1] = 1 << 63;
        let mut pool = pool()?;
        pool.import(&words);
        assert!(consistent(&pool));
        assert_eq!(pool.in_use(), 3 + 64 * 64 + 1);
        assert_eq!(pool.high_water(), pool.in_use());
        assert_eq!(pool.acquire(), Vpid::new(4));
        assert_eq!(pool.release(vpid(65535)?), Ok(()));
        // What goes back to KVM has the host's bit set.
        assert_eq!(pool.words()[0], 0b1_1111);
        assert_eq!(pool.words()[WORDS - 1], 0);
        Ok(())
    }

    #[test]
    fn reconcile_follows_what_was_freed_elsewhere() -> Result {
        let mut pool = pool()?;
        for _ in 0..130 {
            pool.acquire().ok_or(ENOSPC)?;
        }
        let mut bitmap = KBox::new([u64::MAX; WORDS], GFP_KERNEL)?;
        assert_eq!(pool.reconcile(&bitmap), 0);
        // Bits 0 (the host's), 3, 64 and 130 were cleared, and 4000, which nobody held.
        bitmap[0] = !0b1001;
        bitmap[1] = !1;
        bitmap[2] = !0b100;
        bitmap[62] = !(1 << 32);
        assert_eq!(pool.reconcile(&bitmap), 3);
        assert_eq!(pool.in_use(), 127);
        assert!(consistent(&pool));
        assert_eq!(pool.release(vpid(64)?), Err(NotHeld));
        Ok(())
    }

    #[test]
    fn random_use_keeps_the_invariants() -> Result {
        let mut pool = pool()?;
        let mut held = KVec::new();
        let mut shadow = KBox::new([0u64; WORDS], GFP_KERNEL)?;
        let mut seed: u64 = 0x9e37_79b9_7f4a_7c15;
        for turn in 0..20_000u32 {
            // Xorshift: any full-period generator will do.
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            if seed & 3 != 0 || held.is_empty() {
                let new = pool.acquire().ok_or(ENOSPC)?;
                let (word, bit) = Pool::place(new.into_raw());
                assert_eq!(shadow[word] & bit, 0);
                shadow[word] |= bit;
                held.push(new, GFP_KERNEL)?;
            } else {
                let index = (seed >> 32) as usize % held.len();
                let last = held.len() - 1;
                held.swap(index, last);
                let gone = held.pop().ok_or(EINVAL)?;
                assert_eq!(pool.release(gone), Ok(()));
                let (word, bit) = Pool::place(gone.into_raw());
                shadow[word] &= !bit;
            }
            if turn % 1024 == 0 {
                assert!(consistent(&pool));
            }
        }
        assert_eq!(pool.in_use() as usize, held.len());
        Ok(())
    }
}
