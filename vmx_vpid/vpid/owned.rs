// SPDX-License-Identifier: GPL-2.0

//! Owned VPIDs: a VPID that has one holder, and goes back to where it came from exactly once.
//!
//! A [`OwnedVpid`] is a VPID that has one holder.  It goes back when the owned ends, once: by its type
//! it cannot be copied.  KVM keeps VPIDs as numbers, so that a owned can be lent to C and taken
//! back by its number; a number that nobody held is told then, and changes nothing.

use crate::vpid::{
    bitmap::NotAllocated,
    Vpid, //
};
use core::mem;

/// What VPIDs are taken from and given back to, with whatever lock it needs.
pub(crate) trait VpidSource {
    /// Takes a free VPID; `None` when there is none.
    fn alloc(&self) -> Option<Vpid>;

    /// Takes a VPID back.
    ///
    /// # Errors
    ///
    /// [`NotAllocated`] when it was not in use; nothing was changed then.
    fn free(&self, vpid: Vpid) -> Result<(), NotAllocated>;
}

/// A VPID with its one holder; it goes back when this is dropped.
///
/// # Invariants
///
/// `vpid` was taken from `source`, or was named by C as one that it had been lent, and has not been
/// given back since.
#[must_use = "dropping it gives the VPID back"]
pub(crate) struct OwnedVpid<'a, S: VpidSource> {
    vpid: Vpid,
    source: &'a S,
}

impl<'a, S: VpidSource> OwnedVpid<'a, S> {
    /// Takes a VPID; `None` when all are in use.
    #[inline]
    pub(crate) fn alloc(source: &'a S) -> Option<Self> {
        // INVARIANT: It is taken here.
        source.alloc().map(|vpid| Self { vpid, source })
    }

    /// Leaves the VPID to C, which keeps it as a number.
    #[inline]
    pub(crate) fn into_foreign(self) -> Vpid {
        let vpid = self.vpid;
        mem::forget(self);
        vpid
    }

    /// Takes back from C what it was lent.
    ///
    /// Whether it was is found when the owned ends: the number is C's word only.
    #[inline]
    pub(crate) fn from_foreign(source: &'a S, vpid: Vpid) -> Self {
        // INVARIANT: C named it.
        Self { vpid, source }
    }

    /// Gives the VPID back, and tells how that went.
    ///
    /// # Errors
    ///
    /// [`NotAllocated`] when C named a VPID that was not in use.
    #[inline]
    pub(crate) fn free(self) -> Result<(), NotAllocated> {
        let source = self.source;
        source.free(self.into_foreign())
    }
}

impl<S: VpidSource> Drop for OwnedVpid<'_, S> {
    fn drop(&mut self) {
        // What was taken here is held: that it is not can only be C's word, for which there is
        // `free()`.
        let _ = self.source.free(self.vpid);
    }
}

#[cfg(CONFIG_VMX_VPID_KUNIT_TEST)]
#[kernel::macros::kunit_tests(vmx_vpid_owned)]
mod tests {
    use super::*;
    use core::cell::Cell;
    use kernel::prelude::*;

    /// A source with one VPID.
    struct One(Cell<bool>);

    impl VpidSource for One {
        fn alloc(&self) -> Option<Vpid> {
            if self.0.replace(false) {
                Vpid::new(7)
            } else {
                None
            }
        }
        fn free(&self, vpid: Vpid) -> Result<(), NotAllocated> {
            if Vpid::new(7) != Some(vpid) || self.0.replace(true) {
                return Err(NotAllocated);
            }
            Ok(())
        }
    }

    #[test]
    fn a_lease_goes_back_once() {
        let source = One(Cell::new(true));
        let owned = OwnedVpid::alloc(&source);
        assert!(owned.is_some() && OwnedVpid::alloc(&source).is_none());
        drop(owned);
        assert!(source.0.get());
        assert_eq!(OwnedVpid::alloc(&source).map(OwnedVpid::free), Some(Ok(())));
        assert!(source.0.get());
    }

    #[test]
    fn what_c_names_is_checked() -> Result {
        let source = One(Cell::new(true));
        let vpid = OwnedVpid::alloc(&source)
            .map(OwnedVpid::into_foreign)
            .ok_or(EINVAL)?;
        // C has it: it is not free.
        assert!(!source.0.get());
        assert_eq!(OwnedVpid::from_foreign(&source, vpid).free(), Ok(()));
        assert_eq!(
            OwnedVpid::from_foreign(&source, vpid).free(),
            Err(NotAllocated)
        );
        let foreign = Vpid::new(8).ok_or(EINVAL)?;
        assert_eq!(
            OwnedVpid::from_foreign(&source, foreign).free(),
            Err(NotAllocated)
        );
        assert!(source.0.get());
        Ok(())
    }
}
