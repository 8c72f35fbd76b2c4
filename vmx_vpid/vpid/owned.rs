// SPDX-License-Identifier: GPL-2.0

//! Owned VPIDs: a VPID that has one holder, and goes back to where it came from exactly once.
//!
//! A [`Lease`] is a VPID that has one holder.  It goes back when the lease ends, once: by its type
//! it cannot be copied.  KVM keeps VPIDs as numbers, so that a lease can be lent to C and taken
//! back by its number; a number that nobody held is told then, and changes nothing.

use crate::vpid::{
    bitmap::NotHeld,
    Vpid, //
};
use core::mem;

/// What VPIDs are taken from and given back to, with whatever lock it needs.
pub(crate) trait Source {
    /// Takes a free VPID; `None` when there is none.
    fn take(&self) -> Option<Vpid>;

    /// Takes a VPID back.
    ///
    /// # Errors
    ///
    /// [`NotHeld`] when it was not in use; nothing was changed then.
    fn give_back(&self, vpid: Vpid) -> Result<(), NotHeld>;
}

/// A VPID with its one holder; it goes back when this is dropped.
///
/// # Invariants
///
/// `vpid` was taken from `source`, or was named by C as one that it had been lent, and has not been
/// given back since.
#[must_use = "dropping it gives the VPID back"]
pub(crate) struct Lease<'a, S: Source> {
    vpid: Vpid,
    source: &'a S,
}

impl<'a, S: Source> Lease<'a, S> {
    /// Takes a VPID; `None` when all are in use.
    #[inline]
    pub(crate) fn take(source: &'a S) -> Option<Self> {
        // INVARIANT: It is taken here.
        source.take().map(|vpid| Self { vpid, source })
    }

    /// Leaves the VPID to C, which keeps it as a number.
    #[inline]
    pub(crate) fn lend(self) -> Vpid {
        let vpid = self.vpid;
        mem::forget(self);
        vpid
    }

    /// Takes back from C what it was lent.
    ///
    /// Whether it was is found when the lease ends: the number is C's word only.
    #[inline]
    pub(crate) fn redeem(source: &'a S, vpid: Vpid) -> Self {
        // INVARIANT: C named it.
        Self { vpid, source }
    }

    /// Gives the VPID back, and tells how that went.
    ///
    /// # Errors
    ///
    /// [`NotHeld`] when C named a VPID that was not in use.
    #[inline]
    pub(crate) fn end(self) -> Result<(), NotHeld> {
        let source = self.source;
        source.give_back(self.lend())
    }
}

impl<S: Source> Drop for Lease<'_, S> {
    fn drop(&mut self) {
        // What was taken here is held: that it is not can only be C's word, for which there is
        // `end()`.
        let _ = self.source.give_back(self.vpid);
    }
}

#[cfg(CONFIG_VMX_VPID_KUNIT_TEST)]
#[kernel::macros::kunit_tests(vmx_vpid_lease)]
mod tests {
    use super::*;
    use core::cell::Cell;
    use kernel::prelude::*;

    /// A source with one VPID.
    struct One(Cell<bool>);

    impl Source for One {
        fn take(&self) -> Option<Vpid> {
            if self.0.replace(false) {
                Vpid::new(7)
            } else {
                None
            }
        }
        fn give_back(&self, vpid: Vpid) -> Result<(), NotHeld> {
            if Vpid::new(7) != Some(vpid) || self.0.replace(true) {
                return Err(NotHeld);
            }
            Ok(())
        }
    }

    #[test]
    fn a_lease_goes_back_once() {
        let source = One(Cell::new(true));
        let lease = Lease::take(&source);
        assert!(lease.is_some() && Lease::take(&source).is_none());
        drop(lease);
        assert!(source.0.get());
        assert_eq!(Lease::take(&source).map(Lease::end), Some(Ok(())));
        assert!(source.0.get());
    }

    #[test]
    fn what_c_names_is_checked() -> Result {
        let source = One(Cell::new(true));
        let vpid = Lease::take(&source).map(Lease::lend).ok_or(EINVAL)?;
        // C has it: it is not free.
        assert!(!source.0.get());
        assert_eq!(Lease::redeem(&source, vpid).end(), Ok(()));
        assert_eq!(Lease::redeem(&source, vpid).end(), Err(NotHeld));
        let foreign = Vpid::new(8).ok_or(EINVAL)?;
        assert_eq!(Lease::redeem(&source, foreign).end(), Err(NotHeld));
        assert!(source.0.get());
        Ok(())
    }
}
