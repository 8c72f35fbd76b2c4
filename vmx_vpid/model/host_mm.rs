// SPDX-License-Identifier: GPL-2.0

//! This module is a model of the host's own processes, on CPUs that keep every translation.
//!
//! The CPUs cache every translation under its PCID, also global translations and the addresses of
//! tables.  An instruction drops only what the manual says that the instruction drops.  The
//! bookkeeping is [`crate::asid`], unchanged.  Threads migrate between CPUs, enter and leave user
//! mode, and kernel threads borrow their tables.  Tables change, processes end, CPUs go offline and
//! come online.  Between any two accesses of one CPU, the other CPUs may act.
//!
//! The oracle checks two rules after each step.  Once the function has returned that announces a
//! change, no CPU may have a translation in use that the tables do not have any more.  No CPU may
//! walk a freed table, even if the CPU accesses no page.  [`mutants()`] lists the injected bugs
//! that the model has to find.

pub(crate) mod flush_cpus;
pub(crate) mod flush_kernel;
pub(crate) mod machine;
pub(crate) mod pti_cr3;
pub(crate) mod random;
pub(crate) mod shootdown;
pub(crate) mod tlb;

use crate::asid::Features;
use kernel::prelude::*;
use machine::Machine;

/// The configuration of a machine.
#[derive(Clone, Copy, Debug)]
struct Config {
    /// The features that the kernel uses.
    features: Features,
    /// The injected bug.
    bug: Option<Bug>,
}

/// An error that the model finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wrong {
    /// A CPU could access a page by a translation that the tables do not have.
    Stale { cpu: usize, page: usize },
    /// A CPU could walk a freed table.
    Freed { cpu: usize, number: usize },
    /// CR3 of a CPU has the tables of a process that has ended.
    Gone { cpu: usize },
    /// An instruction would raise an exception, or has a PCID that the kernel does not use.
    Fault,
}

/// An injected bug: its name, and a function that runs at most a number of steps and returns in
/// which step the model found the bug.
pub(crate) type Mutant = (&'static str, fn(u32) -> Option<u32>);

/// Defines the injected bugs.
macro_rules! bugs {
    ($($(#[$doc:meta])* $bug:ident: $pcid:literal, $pti:literal, $invpcid:literal;)*) => {
        /// An injected bug.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        enum Bug {
            $($(#[$doc])* $bug,)*
        }

        /// The injected bugs, each with a function that finds it.
        static MUTANTS: &[Mutant] = &[
            $((stringify!($bug), |steps| find(
                Bug::$bug,
                Features { pcid: $pcid, pti: $pti, invpcid: $invpcid },
                steps,
            )),)*
        ];
    };
}

// The three flags are the features with which the bug can be found: PCIDs, page-table isolation,
// INVPCID.
bugs! {
    /// A new address space gets a slot without a flush of the slot's PCID (XSA-292).
    SlotTakenAsItIs: true, false, true;
    /// A slot is used again without a flush, although tables changed.
    ChangesNotCompared: true, false, true;
    /// The slot of a new address space keeps the tlb_gen of the old one.
    GenerationNotNoted: true, false, true;
    /// The slot of a new address space keeps the context id of the old one.
    NameNotNoted: true, false, true;
    /// A flush records the tlb_gen after the flush, and not the one read before.
    GenerationReadLate: true, false, true;
    /// The tlb_gen is read before the CPU enters the `mm_cpumask()`.
    ReadBeforeJoin: true, false, true;
    /// In the middle of a switch, a CPU publishes the address space that it leaves.
    SwitchHidden: true, false, true;
    /// A CPU that returns from a kernel thread does not compare the tlb_gen.
    LazyNotCompared: true, false, true;
    /// A CPU that is not lazy any more still publishes that it is.
    LazyForLong: true, false, true;
    /// A CPU that becomes lazy leaves the `mm_cpumask()`.
    LazyLeavesMask: true, false, true;
    /// Lazy CPUs are not notified of freed tables.
    FreedTablesHidden: true, false, true;
    /// The tlb_gen is incremented after the other CPUs are notified.
    CountedLate: true, false, true;
    /// A CPU that lacks several changes flushes for the last one only.
    ChangesSkipped: true, false, true;
    /// A CPU flushes for one change, and records later changes as flushed, too.
    LaterChangesSkipped: true, false, true;
    /// A flush of a range drops only the first page.
    RangeCutShort: true, false, true;
    /// A flush of a slot does not defer the flush of the user half.
    UserHalfNotNoted: true, true, true;
    /// A deferred flush of a user half is recorded by the ASID, and looked up by the kPCID.
    UserHalfNotedByAsid: true, true, true;
    /// A deferred flush of a user half is found and skipped.
    UserHalfKept: true, true, true;
    /// A flush of an address drops it in the kernel's half only.
    UserHalfForgotten: true, true, true;
    /// `invalidate_other` is ignored, so other slots keep translations of old kernel tables.
    InvalidateOtherIgnored: true, true, true;
    /// A flush of a kernel page keeps global translations.
    GlobalsKept: true, false, true;
    /// A flush of everything drops nothing.
    EverythingKept: true, false, false;
    /// A CPU that comes online keeps the state of its slots.
    SlotsKeptWhileOff: true, true, true;
}

/// Creates a machine.
///
/// # Errors
///
/// [`ENOMEM`].
// A machine is built on the stack before it is moved to its box.  Without inlining, this function
// frees that part of the stack before the machine runs.
#[inline(never)]
fn machine(config: Config) -> Result<KBox<Machine>> {
    Ok(KBox::new(Machine::new(config), GFP_KERNEL)?)
}

/// Runs a machine for a number of steps; returns the first error, and in which step it occurred.
///
/// # Errors
///
/// [`ENOMEM`].
fn run(config: Config, steps: u32) -> Result<Option<(u32, Wrong)>> {
    let machine = machine(config)?;
    Ok((0..steps).find_map(|step| {
        machine.step();
        Some((step, machine.wrong()?))
    }))
}

/// Returns the step in which the model finds a bug.
fn find(bug: Bug, features: Features, steps: u32) -> Option<u32> {
    let bug = Some(bug);
    let (step, _) = run(Config { features, bug }, steps).ok()??;
    Some(step)
}

/// Returns the injected bugs that the model has to find.
pub(crate) fn mutants() -> &'static [Mutant] {
    MUTANTS
}

#[cfg(CONFIG_VMX_VPID_KUNIT_TEST)]
#[kernel::macros::kunit_tests(vmx_vpid_model_host_mm)]
mod tests {
    use super::*;

    /// Steps without an injected bug, in which the model must find no error.
    const STEPS: u32 = if cfg!(vmx_vpid_userspace) {
        3_000_000
    } else {
        20_000
    };
    /// Steps within which the model has to find each bug.
    const STEPS_TO_FIND: u32 = 100_000;

    #[test]
    fn no_cpu_of_the_host_can_use_a_stale_translation() -> Result {
        for features in [
            [true, false, true],
            [true, true, true],
            [true, false, false],
            [true, true, false],
            [false, true, true],
            [false, false, false],
        ] {
            let [pcid, pti, invpcid] = features;
            let features = Features { pcid, pti, invpcid };
            let bug = None;
            let wrong = run(Config { features, bug }, STEPS)?;
            if let Some((step, wrong)) = wrong {
                pr_err!("{:?}: {:?} in step {}\n", features, wrong, step);
            }
            assert_eq!(wrong, None);
        }
        Ok(())
    }

    #[test]
    fn each_injected_bug_is_found() {
        let mut missed = 0;
        for (name, find) in mutants() {
            match find(STEPS_TO_FIND) {
                Some(step) => pr_info!("{} found in step {}\n", name, step),
                None => {
                    pr_err!("{} not found\n", name);
                    missed += 1;
                }
            }
        }
        assert_eq!(missed, 0);
    }
}
