// SPDX-License-Identifier: GPL-2.0

//! This module models the host: CPUs that keep every translation, and processes that change their
//! tables.
//!
//! The CPUs keep every translation by its PCID, global ones and the places of tables too, and drop
//! exactly what the manual says an instruction drops.  [`crate::asid`] keeps the ASIDs.  Threads
//! move between CPUs and enter and leave user mode, kernel threads borrow their tables, tables
//! change, processes exit, CPUs go offline and online.  Between two accesses of a CPU, others act.
//!
//! After each step no CPU may have a translation that it could use and that the tables no longer
//! have, once the function that made the change known has returned.  No freed table may be walked,
//! even without an access.  [`mutants()`] lists the injected bugs, each of which has to be found.

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

/// How a machine is set up.
#[derive(Clone, Copy, Debug)]
struct Config {
    /// How the kernel uses the CPUs.
    features: Features,
    /// What is broken.
    bug: Option<Bug>,
}

/// What must not be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wrong {
    /// A CPU could access a page by a translation that the tables do not give.
    Stale { cpu: usize, page: usize },
    /// A CPU could walk a table that is freed.
    Freed { cpu: usize, number: usize },
    /// A CPU has the tables of a process that is gone.
    Gone { cpu: usize },
    /// An instruction would fault, or a PCID is used that the kernel does not use.
    Fault,
}

/// A fault that has to be found: its name, and what returns in which step it is, of so many.
pub(crate) type Mutant = (&'static str, fn(u32) -> Option<u32>);

/// Makes the list of faults.
macro_rules! bugs {
    ($($(#[$doc:meta])* $bug:ident: $pcid:literal, $pti:literal, $invpcid:literal;)*) => {
        /// Something that must not be done so, and is.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        enum Bug {
            $($(#[$doc])* $bug,)*
        }

        /// The faults, and what finds each: it returns in which step, of so many.
        static MUTANTS: &[Mutant] = &[
            $((stringify!($bug), |steps| find(
                Bug::$bug,
                Features { pcid: $pcid, pti: $pti, invpcid: $invpcid },
                steps,
            )),)*
        ];
    };
}

// With PCIDs, page-table isolation, INVPCID: where it can be found.
bugs! {
    /// A slot is taken for a newcomer, and what is cached under its PCID is kept (XSA-292).
    SlotTakenAsItIs: true, false, true;
    /// A slot is used again although tables changed, and what is cached is kept.
    ChangesNotCompared: true, false, true;
    /// The slot of a newcomer keeps the tlb_gen of who had it before.
    GenerationNotNoted: true, false, true;
    /// It keeps the name of who had it before.
    NameNotNoted: true, false, true;
    /// What is noted is not the tlb_gen that was flushed for, but the one after it.
    GenerationReadLate: true, false, true;
    /// The tlb_gen is read before the CPU sets its bit in the mask.
    ReadBeforeJoin: true, false, true;
    /// On the way to a process, a CPU shows the one it comes from.
    SwitchHidden: true, false, true;
    /// After a kernel thread, the CPU does not compare the tlb_gen of the tables.
    LazyNotCompared: true, false, true;
    /// A CPU that was lazy shows that it still is.
    LazyForLong: true, false, true;
    /// A CPU that becomes lazy clears its bit in the mask.
    LazyLeavesMask: true, false, true;
    /// Those who are lazy are not told of freed tables.
    FreedTablesHidden: true, false, true;
    /// A change is counted after it was made known.
    CountedLate: true, false, true;
    /// One change is made up for where several are missing.
    ChangesSkipped: true, false, true;
    /// One change is made up for, and those after it count as made up for too.
    LaterChangesSkipped: true, false, true;
    /// Of a range only the first page is dropped.
    RangeCutShort: true, false, true;
    /// The user half of a slot that was flushed is not noted.
    UserHalfNotNoted: true, true, true;
    /// It is noted by the ASID, where the kPCID is looked for.
    UserHalfNotedByAsid: true, true, true;
    /// It is noted, found, and kept.
    UserHalfKept: true, true, true;
    /// An address is dropped in the kernel's half alone.
    UserHalfForgotten: true, true, true;
    /// Nobody looks whether the slots not in use have old tables of the kernel's.
    InvalidateOtherIgnored: true, true, true;
    /// A page of the kernel's is dropped as if it were not global.
    GlobalsKept: true, false, true;
    /// Everything is dropped by what drops nothing.
    EverythingKept: true, false, false;
    /// A CPU that was off relies on its slots.
    SlotsKeptWhileOff: true, true, true;
}

/// Makes a machine.
///
/// # Errors
///
/// [`ENOMEM`].
// It goes through the stack, which has to be free of it again before it runs.
#[inline(never)]
fn machine(config: Config) -> Result<KBox<Machine>> {
    Ok(KBox::new(Machine::new(config), GFP_KERNEL)?)
}

/// Runs a machine for so many steps; returns what went wrong, and at which of them.
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

/// Returns the step in which a fault is found.
fn find(bug: Bug, features: Features, steps: u32) -> Option<u32> {
    let bug = Some(bug);
    let (step, _) = run(Config { features, bug }, steps).ok()??;
    Some(step)
}

/// Returns the faults that have to be found: the name of each, and a function that returns in
/// which step it is, of at most so many.
pub(crate) fn mutants() -> &'static [Mutant] {
    MUTANTS
}

#[cfg(CONFIG_VMX_VPID_KUNIT_TEST)]
#[kernel::macros::kunit_tests(vmx_vpid_model_host_mm)]
mod tests {
    use super::*;

    /// Steps that a sound machine has to survive.
    const STEPS: u32 = if cfg!(vmx_vpid_userspace) {
        3_000_000
    } else {
        20_000
    };
    /// Steps within which each fault has to be found.
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
    fn each_bug_of_the_host_is_found() {
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
