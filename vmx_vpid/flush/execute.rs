// SPDX-License-Identifier: GPL-2.0

//! This module executes plans of invalidations, and handles instructions that fail.
//!
//! No flush is lost silently: a failed instruction is reported, and the next wider instruction of
//! the same kind replaces it.  (An instruction that fails on the fast path of [`crate::flush`] is
//! first issued again, by this module.)

use crate::{
    ept,
    invvpid,
    vmx::insn::InsnError,
    vpid::Vpid,
    x86::addr::CanonicalGva, //
};

/// One invalidating instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Invalidation {
    /// INVVPID.
    Invvpid(invvpid::Extent),
    /// INVEPT.
    Invept(ept::Extent),
}

/// The instructions that serve a request.
///
/// Most plans are one instruction, and such a plan is never written to memory; see
/// [`crate::flush`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plan {
    /// No instruction: no translation that the request covers can be cached.
    Nothing,
    /// One instruction, as narrow as the request.
    One(Invalidation),
    /// One instruction, which covers more than the request.
    Wider(Invalidation),
    /// Several instructions, which together cover the request and are issued in this order.
    Several([Option<Invalidation>; Self::MAX]),
}

impl Plan {
    /// The largest number of instructions in a plan.
    pub(crate) const MAX: usize = 8;

    /// Makes a plan of the instructions that are not `None`.
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

/// The error of a flush that failed in its widest form too: stale translations may be left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FlushFailed;

/// An issuer of invalidations: the CPU under KVM, or a model in tests.
pub(crate) trait Invalidate: Copy {
    /// Issues INVVPID on this CPU; on an error nothing was invalidated.
    fn invvpid(&self, extent: invvpid::Extent) -> Result<(), InsnError>;
    /// Issues INVEPT on this CPU; on an error nothing was invalidated.
    fn invept(&self, extent: ept::Extent) -> Result<(), InsnError>;
    /// Reports that a request needed no instruction.
    fn skipped(&self);
    /// Reports that an instruction covers more than the request that it serves.
    fn widened(&self);
    /// Reports that an instruction failed, and which wider instruction replaces it, if any.
    fn failed(&self, invalidation: Invalidation, error: InsnError, wider: Option<Invalidation>);
}

impl Invalidation {
    /// Returns the next wider instruction, which covers all that this instruction covers; `None`
    /// if there is none.
    #[cold]
    fn wider(self) -> Option<Self> {
        match self {
            Self::Invvpid(invvpid::Extent::Address(vpid, _)) => {
                Some(Self::Invvpid(invvpid::Extent::Context(vpid)))
            }
            Self::Invvpid(invvpid::Extent::Context(_)) => Some(Self::Invvpid(invvpid::Extent::All)),
            Self::Invept(ept::Extent::Context(_)) => Some(Self::Invept(ept::Extent::All)),
            // Neither INVVPID nor INVEPT is a wider form of the other: INVEPT does not have to
            // drop linear mappings, and INVVPID does not have to drop guest-physical mappings.
            Self::Invvpid(invvpid::Extent::All) | Self::Invept(ept::Extent::All) => None,
        }
    }

    /// Issues the instruction on this CPU, and no other instruction if it fails.
    ///
    /// # Errors
    ///
    /// The reason why the instruction failed; nothing was invalidated then.
    pub(crate) fn issue(self, cpu: impl Invalidate) -> Result<(), InsnError> {
        match self {
            Self::Invvpid(extent) => cpu.invvpid(extent),
            Self::Invept(extent) => cpu.invept(extent),
        }
    }

    /// Issues wider and wider instructions after a failure, until one succeeds or none is left.
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

    /// Issues the instruction on this CPU, and wider ones in its place if it fails.
    ///
    /// # Errors
    ///
    /// [`FlushFailed`] when the widest instruction failed too.
    // Inlining keeps the `Invalidation` out of memory.
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

/// Replaces a failed INVVPID by wider ones; takes the extent in parts, which fit in registers.
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

/// Replaces a failed INVEPT by wider ones.
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
    /// [`FlushFailed`] when an instruction and its wider forms failed; the other instructions of
    /// the plan were issued nevertheless.
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

/// Issues the instructions of a plan other than [`Plan::One`], the usual plan.
#[cold]
#[inline(never)]
fn carry_out_each(
    invalidations: &[Option<Invalidation>],
    cpu: impl Invalidate,
) -> Result<(), FlushFailed> {
    let mut result = Ok(());
    for invalidation in invalidations.iter().flatten() {
        // A failed flush does not keep the other instructions from being issued.
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

    /// A CPU on which the first `failures` instructions fail; it keeps the issued instructions.
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
    fn a_failed_instruction_is_replaced_by_wider_ones() -> Result {
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
                // A flush is lost only when the widest instruction fails too, which is reported.
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
        // INVVPID of all contexts replaces the first one; the second one is issued nevertheless.
        assert_eq!(cpu.issued.get(), [whole(1), INVVPID_ALL, whole(2), None]);
        // A lost flush does not stop the rest of the plan either, and the plan fails.
        let cpu = Cpu::new(2);
        assert_eq!(plan.execute(&cpu), Err(FlushFailed));
        assert_eq!(cpu.issued.get(), [whole(1), INVVPID_ALL, whole(2), None]);
    }

    #[test]
    fn skipped_and_widened_requests_are_reported() {
        let cpu = Cpu::new(0);
        assert_eq!(Plan::several([None, None]).execute(&cpu), Ok(()));
        assert_eq!((cpu.skipped.get(), cpu.count.get()), (1, 0));
        let plan = Plan::Wider(Invvpid(invvpid::Extent::All));
        assert_eq!(plan.execute(&cpu), Ok(()));
        assert_eq!(cpu.issued.get(), [INVVPID_ALL, None, None, None]);
        assert_eq!((cpu.skipped.get(), cpu.widened.get()), (1, 1));
    }
}
