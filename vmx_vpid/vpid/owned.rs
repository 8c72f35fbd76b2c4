// SPDX-License-Identifier: GPL-2.0

//! An owned VPID has one holder, and is freed exactly once.
//!
//! An [`OwnedVpid`] frees its VPID when it is dropped, and cannot be copied.  KVM keeps VPIDs as
//! numbers, so an [`OwnedVpid`] can be turned into a number for C, and a number of C's back into an
//! [`OwnedVpid`], as with `ForeignOwnable`.  If C names a VPID that was not in use,
//! [`OwnedVpid::free()`] returns an error and changes nothing.

use crate::vpid::{
    bitmap::NotAllocated,
    Vpid, //
};
use core::mem;

/// A source of VPIDs, which takes the lock that it needs.
pub(crate) trait VpidSource {
    /// Allocates a VPID; returns `None` when all are in use.
    fn alloc(&self) -> Option<Vpid>;

    /// Frees a VPID.
    ///
    /// # Errors
    ///
    /// [`NotAllocated`] when the VPID was not in use; nothing was changed then.
    fn free(&self, vpid: Vpid) -> Result<(), NotAllocated>;
}

/// A VPID with one holder; dropping an `OwnedVpid` frees the VPID.
///
/// # Invariants
///
/// `vpid` was allocated from `source` and not freed since; or C named `vpid` as the result of
/// [`Self::into_foreign()`].
#[must_use = "dropping it frees the VPID"]
pub(crate) struct OwnedVpid<'a, S: VpidSource> {
    vpid: Vpid,
    source: &'a S,
}

impl<'a, S: VpidSource> OwnedVpid<'a, S> {
    /// Allocates a VPID; returns `None` when all are in use.
    #[inline]
    pub(crate) fn alloc(source: &'a S) -> Option<Self> {
        // INVARIANT: `vpid` was just allocated from `source`.
        source.alloc().map(|vpid| Self { vpid, source })
    }

    /// Passes the VPID to C, which keeps it as a number; the VPID stays allocated.
    #[inline]
    pub(crate) fn into_foreign(self) -> Vpid {
        let vpid = self.vpid;
        mem::forget(self);
        vpid
    }

    /// Takes a VPID over from C.
    ///
    /// Nothing proves yet that C got the VPID by [`Self::into_foreign()`]: [`Self::free()`] checks
    /// whether the VPID is in use.
    #[inline]
    pub(crate) fn from_foreign(source: &'a S, vpid: Vpid) -> Self {
        // INVARIANT: The caller passes the VPID that C named.
        Self { vpid, source }
    }

    /// Frees the VPID, and reports an error, which a drop would not.
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
        // A VPID that was allocated here is in use, so freeing it works.  A VPID that C named may
        // not be in use; callers free such a VPID by `free()`, which returns the error.
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
    fn an_owned_vpid_is_freed_once() {
        let source = One(Cell::new(true));
        let owned = OwnedVpid::alloc(&source);
        assert!(owned.is_some() && OwnedVpid::alloc(&source).is_none());
        drop(owned);
        assert!(source.0.get());
        assert_eq!(OwnedVpid::alloc(&source).map(OwnedVpid::free), Some(Ok(())));
        assert!(source.0.get());
    }

    #[test]
    fn a_vpid_that_c_frees_has_to_be_in_use() -> Result {
        let source = One(Cell::new(true));
        let vpid = OwnedVpid::alloc(&source)
            .map(OwnedVpid::into_foreign)
            .ok_or(EINVAL)?;
        // C has the VPID, so it is still allocated.
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
