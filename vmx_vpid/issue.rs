// SPDX-License-Identifier: GPL-2.0

//! Invalidations as they are issued, and what is done when one fails.
//!
//! No flush is lost in silence: a failed instruction is reported and answered by the next wider one
//! of its kind.

use crate::{
    ept,
    insn::InsnError,
    invvpid, //
};

/// One instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Invalidation {
    /// INVVPID.
    Invvpid(invvpid::Extent),
    /// INVEPT.
    Invept(ept::Extent),
}

/// What issues invalidations: the CPU under KVM, a model in tests.
pub(crate) trait Invalidate {
    /// Issues INVVPID on this CPU; on an error nothing was invalidated.
    fn invvpid(&self, extent: invvpid::Extent) -> Result<(), InsnError>;
    /// Issues INVEPT on this CPU; on an error nothing was invalidated.
    fn invept(&self, extent: ept::Extent) -> Result<(), InsnError>;
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

    /// Issues the instruction.
    fn issue(self, cpu: &impl Invalidate) -> Result<(), InsnError> {
        match self {
            Self::Invvpid(extent) => cpu.invvpid(extent),
            Self::Invept(extent) => cpu.invept(extent),
        }
    }

    /// Answers a failed instruction by wider and wider ones, until one works or none is left.
    fn widen(self, mut error: InsnError, cpu: &impl Invalidate) {
        let mut failed = self;
        loop {
            let wider = failed.wider();
            cpu.failed(failed, error, wider);
            let Some(next) = wider else { return };
            match next.issue(cpu) {
                Ok(()) => return,
                Err(e) => (failed, error) = (next, e),
            }
        }
    }
}

/// Issues invalidations on this CPU, in their order.
// Inlined, a plan of one instruction does not go through memory.
#[inline(always)]
pub(crate) fn carry_out(
    plan: impl IntoIterator<Item = Option<Invalidation>>,
    cpu: &impl Invalidate,
) {
    for invalidation in plan.into_iter().flatten() {
        match invalidation {
            Invalidation::Invvpid(extent) => {
                if let Err(error) = cpu.invvpid(extent) {
                    invvpid_failed(extent, error, cpu);
                }
            }
            Invalidation::Invept(extent) => {
                if let Err(error) = cpu.invept(extent) {
                    invept_failed(extent, error, cpu);
                }
            }
        }
    }
}

/// Answers a failed INVVPID.
#[cold]
#[inline(never)]
fn invvpid_failed(extent: invvpid::Extent, error: InsnError, cpu: &impl Invalidate) {
    Invalidation::Invvpid(extent).widen(error, cpu);
}

/// Answers a failed INVEPT.
#[cold]
#[inline(never)]
fn invept_failed(extent: ept::Extent, error: InsnError, cpu: &impl Invalidate) {
    Invalidation::Invept(extent).widen(error, cpu);
}

#[cfg(CONFIG_VMX_VPID_KUNIT_TEST)]
#[kernel::macros::kunit_tests(vmx_vpid_issue)]
mod tests {
    use super::{
        Invalidation::*,
        *, //
    };
    use crate::{
        addr::{
            Gva,
            LinearWidth, //
        },
        invvpid::Vpid, //
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
    }

    impl Cpu {
        fn new(failures: usize) -> Self {
            Self {
                failures,
                count: Cell::new(0),
                issued: Cell::new([None; 4]),
                lost: Cell::new(false),
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

    impl Invalidate for Cpu {
        fn invvpid(&self, extent: invvpid::Extent) -> Result<(), InsnError> {
            self.take(Invvpid(extent))
        }
        fn invept(&self, extent: ept::Extent) -> Result<(), InsnError> {
            self.take(Invept(extent))
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
        let steps = [
            Some(Invvpid(invvpid::Extent::Address(vpid, gva))),
            whole(1),
            INVVPID_ALL,
        ];
        for failures in 0..=3 {
            let cpu = Cpu::new(failures);
            carry_out([steps[0], None], &cpu);
            let tried = steps.len().min(failures + 1);
            assert_eq!(cpu.count.get(), tried);
            assert_eq!(&cpu.issued.get()[..tried], &steps[..tried]);
            // A flush is lost only when the widest failed too, and that is told.
            assert_eq!(cpu.lost.get(), failures == 3);
        }
        Ok(())
    }

    #[test]
    fn a_failure_does_not_stop_the_rest_of_the_plan() {
        let cpu = Cpu::new(1);
        carry_out([whole(1), whole(2)], &cpu);
        // The first was answered by all contexts, the second stands on its own.
        assert_eq!(cpu.issued.get(), [whole(1), INVVPID_ALL, whole(2), None]);
    }
}
