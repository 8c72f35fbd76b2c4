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

mod bug;
pub(crate) mod flush_cpus;
pub(crate) mod flush_kernel;
pub(crate) mod machine;
pub(crate) mod pti_cr3;
pub(crate) mod random;
pub(crate) mod shootdown;
pub(crate) mod tlb;

use crate::asid::Features;
use bug::{
    Bug,
    Mutant,
    Wrong,
    MUTANTS, //
};
use kernel::prelude::*;
use machine::{
    Config,
    Machine, //
};

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

/// Returns the injected bugs that the model has to find: the name of each, and a function that runs
/// at most a number of steps and returns in which step the model found the bug.
pub(crate) fn mutants() -> impl Iterator<Item = (&'static str, impl Fn(u32) -> Option<u32>)> {
    let find = |mutant: &'static Mutant| move |steps| find(mutant.bug, mutant.features, steps);
    MUTANTS
        .iter()
        .map(move |mutant| (mutant.name, find(mutant)))
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
