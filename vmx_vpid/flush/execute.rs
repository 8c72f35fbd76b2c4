// SPDX-License-Identifier: GPL-2.0

//! Invalidations as they are issued, and what is done when one fails.
//!
//! No flush is lost in silence: a failed instruction is reported and answered by the next wider one
//! of its kind.  (One that fails on the short way of [`crate::flush`] is first issued again, here.)

use crate::{
    ept,
    invvpid,
    vmx::insn::InsnError,
    vpid::Vpid,
    x86::addr::CanonicalGva, //
};

/// One instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Invalidation {
    /// INVVPID.
    Invvpid(invvpid::Extent),
    /// INVEPT.
    Invept(ept::Extent),
}

/// The instructions that answer a request.
///
/// Most are one, and are never written to memory; see [`crate::flush`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plan {
    /// None: no translation can be left that the request is about.
    Nothing,
    /// One, as narrow as the request.
    One(Invalidation),
    /// One that covers more than the request is about.
    Wider(Invalidation),
    /// Several, which together cover the request; they are issued in their order.
    Several([Option<Invalidation>; Self::MAX]),
}

impl Plan {
    /// How many instructions a plan can have.
    pub(crate) const MAX: usize = 8;

    /// Makes a plan of a few instructions, those that are there.
    #[cold]
    pub(crate) fn several<const N: usize>(few: [Option<Invalidation>; N]) -> Self {
        const { assert!(N <= Self::MAX) };
        if few.iter().all(Option::is_none) {
            return Self::Nothing;
        }
        let mut all = [None; Self::MAX];
        for (slot, invalidation) in all.iter_mut().zip(few) {
            *slot = invalidation;
        }
        Self::Several(all)
    }
}

/// Even the widest form of an instruction failed: translations may be left that were to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FlushFailed;

/// What issues invalidations: the CPU under KVM, a model in tests.
pub(crate) trait Invalidate: Copy {
    /// Issues INVVPID on this CPU; on an error nothing was invalidated.
    fn invvpid(&self, extent: invvpid::Extent) -> Result<(), InsnError>;
    /// Issues INVEPT on this CPU; on an error nothing was invalidated.
    fn invept(&self, extent: ept::Extent) -> Result<(), InsnError>;
    /// Tells that a request was answered by nothing.
    fn skipped(&self);
    /// Tells that a request is answered by an instruction that covers more than it is about.
    fn widened(&self);
    /// Tells that an instruction failed, and whether a wider one is tried in its place.
    fn failed(&self, invalidation: Invalidation, error: InsnError, wider: Option<Invalidation>);
}

impl Invalidation {
    /// Returns the next wider instruction that covers all that this one does, if there is one.
    #[cold]
    fn wider(self) -> Option<Self> {
        match self {
            Self::Invvpid(invvpid::Extent::Address(vpid, _)) => {
                Some(Self::Invvpid(invvpid::Extent::Context(vpid)))
            }
            Self::Invvpid(invvpid::Extent::Context(_)) => Some(Self::Invvpid(invvpid::Extent::All)),
            Self::Invept(ept::Extent::Context(_)) => Some(Self::Invept(ept::Extent::All)),
            // INVEPT is no wider form of INVVPID, nor the other way round: each kind of mapping
            // has its own instruction.
            Self::Invvpid(invvpid::Extent::All) | Self::Invept(ept::Extent::All) => None,
        }
    }

    /// Issues the instruction on this CPU, and leaves it at that if it fails.
    ///
    /// # Errors
    ///
    /// Why it failed.
    pub(crate) fn issue(self, cpu: impl Invalidate) -> Result<(), InsnError> {
        match self {
            Self::Invvpid(extent) => cpu.invvpid(extent),
            Self::Invept(extent) => cpu.invept(extent),
        }
    }

    /// Answers a failed instruction by wider and wider ones, until one works or none is left.
    fn widen(self, mut error: InsnError, cpu: impl Invalidate) -> Result<(), FlushFailed> {
        let mut failed = self;
        loop {
            let wider = failed.wider();
            cpu.failed(failed, error, wider);
            let next = wider.ok_or(FlushFailed)?;
            match next.issue(cpu) {
                Ok(()) => return Ok(()),
                Err(e) => (failed, error) = (next, e),
            }
        }
    }

    /// Issues the instruction on this CPU, and if it fails, what answers that.
    ///
    /// # Errors
    ///
    /// [`FlushFailed`] when nothing helped.
    // Inlined, the instruction does not go through memory.
    #[inline(always)]
    pub(crate) fn execute(self, cpu: impl Invalidate) -> Result<(), FlushFailed> {
        match self {
            Self::Invvpid(extent) => cpu.invvpid(extent).or_else(|error| {
                let (vpid, gva) = extent.parts();
                invvpid_failed(vpid, gva, error, cpu)
            }),
            Self::Invept(extent) => cpu
                .invept(extent)
                .or_else(|error| invept_failed(extent, error, cpu)),
        }
    }
}

/// Answers a failed INVVPID, of which the extent comes in registers.
#[cold]
#[inline(never)]
fn invvpid_failed(
    vpid: Option<Vpid>,
    gva: Option<CanonicalGva>,
    error: InsnError,
    cpu: impl Invalidate,
) -> Result<(), FlushFailed> {
    Invalidation::Invvpid(invvpid::Extent::from_parts(vpid, gva)).widen(error, cpu)
}

/// Answers a failed INVEPT.
#[cold]
#[inline(never)]
fn invept_failed(
    extent: ept::Extent,
    error: InsnError,
    cpu: impl Invalidate,
) -> Result<(), FlushFailed> {
    Invalidation::Invept(extent).widen(error, cpu)
}

impl Plan {
    /// Issues the instructions of a plan on this CPU.
    ///
    /// # Errors
    ///
    /// [`FlushFailed`] when one of them failed for good; the others were issued all the same.
    #[inline(always)]
    pub(crate) fn execute(self, cpu: impl Invalidate) -> Result<(), FlushFailed> {
        match self {
            Self::One(invalidation) => invalidation.execute(cpu),
            Self::Nothing => {
                cpu.skipped();
                Ok(())
            }
            Self::Wider(invalidation) => {
                cpu.widened();
                carry_out_each(&[Some(invalidation)], cpu)
            }
            Self::Several(invalidations) => carry_out_each(&invalidations, cpu),
        }
    }
}

/// Issues the instructions of a plan that is not the usual one.
#[cold]
#[inline(never)]
fn carry_out_each(
    invalidations: &[Option<Invalidation>],
    cpu: impl Invalidate,
) -> Result<(), FlushFailed> {
    let mut result = Ok(());
    for invalidation in invalidations.iter().flatten() {
        // One that is lost does not keep the others from being issued.
        result = result.and(invalidation.execute(cpu));
    }
    result
}

#[cfg(CONFIG_VMX_VPID_KUNIT_TEST)]
#[kernel::macros::kunit_tests(vmx_vpid_execute)]
mod tests {
    use super::{
        Invalidation::*,
        *, //
    };
    use crate::x86::addr::{
        Gva,
        Hpa,
        LinearWidth, //
    };
    use core::cell::Cell;
    use kernel::prelude::*;

    fn whole(vpid: u16) -> Option<Invalidation> {
        Some(Invvpid(invvpid::Extent::Context(Vpid::new(vpid)?)))
    }

    const INVVPID_ALL: Option<Invalidation> = Some(Invvpid(invvpid::Extent::All));

    /// A CPU on which the first `failures` instructions fail; keeps what was issued.
    struct Cpu {
        failures: usize,
        count: Cell<usize>,
        issued: Cell<[Option<Invalidation>; 4]>,
        lost: Cell<bool>,
        skipped: Cell<usize>,
        widened: Cell<usize>,
    }

    impl Cpu {
        fn new(failures: usize) -> Self {
            Self {
                failures,
                count: Cell::new(0),
                issued: Cell::new([None; 4]),
                lost: Cell::new(false),
                skipped: Cell::new(0),
                widened: Cell::new(0),
            }
        }

        fn take(&self, invalidation: Invalidation) -> Result<(), InsnError> {
            let count = self.count.get();
            let mut issued = self.issued.get();
            if let Some(slot) = issued.get_mut(count) {
                *slot = Some(invalidation);
            }
            self.issued.set(issued);
            self.count.set(count + 1);
            if count < self.failures {
                Err(InsnError::VmFail)
            } else {
                Ok(())
            }
        }
    }

    impl Invalidate for &Cpu {
        fn invvpid(&self, extent: invvpid::Extent) -> Result<(), InsnError> {
            self.take(Invvpid(extent))
        }
        fn invept(&self, extent: ept::Extent) -> Result<(), InsnError> {
            self.take(Invept(extent))
        }
        fn skipped(&self) {
            self.skipped.set(self.skipped.get() + 1);
        }
        fn widened(&self) {
            self.widened.set(self.widened.get() + 1);
        }
        fn failed(&self, _: Invalidation, _: InsnError, wider: Option<Invalidation>) {
            self.lost.set(self.lost.get() || wider.is_none());
        }
    }

    #[test]
    fn a_failure_is_answered_by_wider_and_wider_ones() -> Result {
        let vpid = Vpid::new(1).ok_or(EINVAL)?;
        let gva = Gva::new(0x1000)
            .canonical(LinearWidth::Bits48)
            .ok_or(EINVAL)?;
        let root = ept::Eptp::for_root(Hpa::new(0x5000), ept::Levels::Four, true);
        let addresses = [
            Some(Invvpid(invvpid::Extent::Address(vpid, gva))),
            whole(1),
            INVVPID_ALL,
        ];
        let roots = [
            Some(Invept(ept::Extent::Context(root))),
            Some(Invept(ept::Extent::All)),
        ];
        for steps in [&addresses[..], &roots[..]] {
            for failures in 0..=steps.len() {
                let cpu = Cpu::new(failures);
                let result = steps[0].map_or(Plan::Nothing, Plan::One).execute(&cpu);
                let tried = steps.len().min(failures + 1);
                assert_eq!(cpu.count.get(), tried);
                assert_eq!(&cpu.issued.get()[..tried], &steps[..tried]);
                // A flush is lost only when the widest failed too, and that is told.
                assert_eq!(cpu.lost.get(), failures == steps.len());
                assert_eq!(result.is_err(), failures == steps.len());
            }
        }
        Ok(())
    }

    #[test]
    fn a_failure_does_not_stop_the_rest_of_the_plan() {
        let cpu = Cpu::new(1);
        let plan = Plan::several([whole(1), whole(2)]);
        assert_eq!(plan.execute(&cpu), Ok(()));
        // The first was answered by all contexts, the second stands on its own.
        assert_eq!(cpu.issued.get(), [whole(1), INVVPID_ALL, whole(2), None]);
        // Nor does one that is lost, and it stays lost.
        let cpu = Cpu::new(2);
        assert_eq!(plan.execute(&cpu), Err(FlushFailed));
        assert_eq!(cpu.issued.get(), [whole(1), INVVPID_ALL, whole(2), None]);
    }

    #[test]
    fn what_is_skipped_or_widened_is_told() {
        let cpu = Cpu::new(0);
        assert_eq!(Plan::several([None, None]).execute(&cpu), Ok(()));
        assert_eq!((cpu.skipped.get(), cpu.count.get()), (1, 0));
        let plan = Plan::Wider(Invvpid(invvpid::Extent::All));
        assert_eq!(plan.execute(&cpu), Ok(()));
        assert_eq!(cpu.issued.get(), [INVVPID_ALL, None, None, None]);
        assert_eq!((cpu.skipped.get(), cpu.widened.get()), (1, 1));
    }
}
