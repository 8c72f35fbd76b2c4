// SPDX-License-Identifier: GPL-2.0

//! VPIDs as a bitmap, the form in which KVM keeps those in use.
//!
//! While C and Rust serve side by side the bitmap is the truth, and is used here as
//! `allocate_vpid()` and `free_vpid()` of KVM use it: the first that is free is taken.

use crate::vpid::Vpid;
use core::iter::successors;

/// Bits in one word of the bitmap.
pub(crate) const BITS: usize = u64::BITS as usize;

/// Words of the bitmap, one bit for each VPID.
pub(crate) const WORDS: usize = Vpid::COUNT / BITS;

/// The VPIDs of a machine as a bitmap, in the layout of the kernel's `DECLARE_BITMAP()`.
pub(crate) type Words = [u64; WORDS];

/// A VPID was released that was not in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotAllocated;

/// A VPID that was just taken: on any CPU its last holder may have left mappings.
///
/// It is not a [`Vpid`] yet.  [`crate::vpid::flushed_cpus::FlushedCpus::reset()`] makes it one, and has the record
/// say that it is clean nowhere: so that cannot be left out.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "it is in use from now on"]
pub(crate) struct UnflushedVpid(Vpid);

impl UnflushedVpid {
    /// Says of a VPID that it was just taken.
    #[inline]
    pub(crate) fn new(vpid: Vpid) -> Self {
        Self(vpid)
    }

    /// Returns the VPID; for the record alone, which has to forget it, and for tests.
    #[inline]
    pub(crate) fn into_unflushed(self) -> Vpid {
        self.0
    }
}

/// Returns the index and the mask under which a VPID is found.
#[inline]
pub(crate) fn place(vpid: Vpid) -> (usize, u64) {
    let id = usize::from(vpid.into_raw());
    (id / BITS, 1 << (id % BITS))
}

/// Returns the VPIDs that a word of a bitmap has bits for, the host's 0 aside.
pub(crate) fn members(index: usize, word: u64) -> impl Iterator<Item = Vpid> {
    // From each to the next, the lowest bit that is set is cleared.
    let next = |&rest: &u64| Some(rest & rest.wrapping_sub(1));
    successors(Some(word), next)
        .take_while(|&rest| rest != 0)
        .filter_map(move |rest| {
            let id = index * BITS + rest.trailing_zeros() as usize;
            Vpid::new(u16::try_from(id).ok()?)
        })
}

/// Takes the first VPID that is free; `None` if all are in use.
///
/// None either if bit 0 is clear: kvm_intel sets it in its initialisation, before there are vCPUs.
#[cold]
pub(crate) fn alloc_first(words: &mut Words) -> Option<UnflushedVpid> {
    let (index, word) = words
        .iter_mut()
        .enumerate()
        .find(|(_, word)| **word != u64::MAX)?;
    let bit = word.trailing_ones();
    let vpid = Vpid::new(u16::try_from(index * BITS + bit as usize).ok()?)?;
    *word |= 1 << bit;
    Some(UnflushedVpid(vpid))
}

/// Gives a VPID back.
///
/// # Errors
///
/// [`NotAllocated`] when it was not in use; nothing was changed then.
#[cold]
pub(crate) fn free(words: &mut Words, vpid: Vpid) -> Result<(), NotAllocated> {
    let (index, bit) = place(vpid);
    if words[index] & bit == 0 {
        return Err(NotAllocated);
    }
    words[index] &= !bit;
    Ok(())
}

#[cfg(CONFIG_VMX_VPID_KUNIT_TEST)]
#[kernel::macros::kunit_tests(vmx_vpid_bitmap)]
mod tests {
    use super::*;
    use kernel::prelude::*;

    fn take(words: &mut Words) -> Option<u16> {
        alloc_first(words).map(|taken| taken.into_unflushed().into_raw())
    }

    #[test]
    fn the_first_that_is_free_is_taken() -> Result {
        let mut words = KBox::<Words>::zeroed(GFP_KERNEL)?;
        // As long as KVM has not set the bit of the host's, nothing is given out.
        assert_eq!(take(&mut words), None);
        assert!(words.iter().all(|&word| word == 0));
        words[0] = 1;
        for id in 1..=u16::MAX {
            assert_eq!(take(&mut words), Some(id));
        }
        assert_eq!(take(&mut words), None);
        for id in [65535, 64, 63] {
            let vpid = Vpid::new(id).ok_or(EINVAL)?;
            assert_eq!(free(&mut words, vpid), Ok(()));
            assert_eq!(free(&mut words, vpid), Err(NotAllocated));
        }
        assert!(members(1, !words[1]).eq(Vpid::new(64)));
        assert_eq!(take(&mut words), Some(63));
        assert_eq!(take(&mut words), Some(64));
        assert_eq!(take(&mut words), Some(65535));
        Ok(())
    }

    #[test]
    fn the_hosts_is_nobodys() {
        assert!(members(0, u64::MAX).all(|vpid| vpid.into_raw() != 0));
        assert_eq!(members(0, u64::MAX).count(), 63);
        assert_eq!(members(1023, 1 << 63).last(), Vpid::new(65535));
    }
}
