// SPDX-License-Identifier: GPL-2.0

//! This module handles VPIDs as a bitmap, the form in which KVM keeps the VPIDs in use.
//!
//! While some tasks run C and some run Rust, KVM's bitmap is the active allocator.  This module
//! then uses it as `allocate_vpid()` and `free_vpid()` of KVM do: it allocates the first free VPID.

use crate::vpid::Vpid;
use core::iter::successors;

/// Bits in one word of the bitmap.
pub(crate) const BITS: usize = u64::BITS as usize;

/// Words of the bitmap, one bit for each VPID.
pub(crate) const WORDS: usize = Vpid::COUNT / BITS;

/// All VPIDs as a bitmap, in the layout of the kernel's `DECLARE_BITMAP()`.
pub(crate) type Words = [u64; WORDS];

/// The error of freeing a VPID that was not in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotAllocated;

/// A VPID that was just allocated: its last holder may have left mappings on any CPU.
///
/// This type keeps an allocation from skipping the reset of FlushedCpus: only
/// [`FlushedCpus::reset()`](crate::vpid::flushed_cpus::FlushedCpus::reset) makes a [`Vpid`] of it,
/// and records that the VPID was flushed nowhere.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "the VPID is in use from now on"]
pub(crate) struct UnflushedVpid(Vpid);

impl UnflushedVpid {
    /// Marks a VPID as just allocated.
    #[inline]
    pub(crate) fn new(vpid: Vpid) -> Self {
        Self(vpid)
    }

    /// Returns the VPID; for `FlushedCpus::reset()` and for tests only.
    #[inline]
    pub(crate) fn into_unflushed(self) -> Vpid {
        self.0
    }
}

/// Returns the index of the word that has a VPID's bit, and the mask of the bit.
#[inline]
pub(crate) fn place(vpid: Vpid) -> (usize, u64) {
    let id = usize::from(vpid.into_raw());
    (id / BITS, 1 << (id % BITS))
}

/// Returns the VPIDs whose bits are set in a word of a bitmap, except the host's 0.
pub(crate) fn members(index: usize, word: u64) -> impl Iterator<Item = Vpid> {
    // Each step clears the lowest bit that is set.
    let next = |&rest: &u64| Some(rest & rest.wrapping_sub(1));
    successors(Some(word), next)
        .take_while(|&rest| rest != 0)
        .filter_map(move |rest| {
            let id = index * BITS + rest.trailing_zeros() as usize;
            Vpid::new(u16::try_from(id).ok()?)
        })
}

/// Allocates the first free VPID; returns `None` if all are in use.
///
/// Returns `None` as well if bit 0 is clear: kvm_intel sets bit 0 in its initialisation, before any
/// vCPU exists.
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

/// Frees a VPID.
///
/// # Errors
///
/// [`NotAllocated`] when the VPID was not in use; nothing was changed then.
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
    fn the_first_free_vpid_is_allocated() -> Result {
        let mut words = KBox::<Words>::zeroed(GFP_KERNEL)?;
        // No VPID is allocated before KVM has set the host's bit.
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
    fn vpid_0_is_in_no_list_of_members() {
        assert!(members(0, u64::MAX).all(|vpid| vpid.into_raw() != 0));
        assert_eq!(members(0, u64::MAX).count(), 63);
        assert_eq!(members(1023, 1 << 63).last(), Vpid::new(65535));
    }
}
