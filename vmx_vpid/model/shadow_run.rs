// SPDX-License-Identifier: GPL-2.0

//! This module runs the model of shadow pages, with guests that write to their own tables through
//! shadow pages.
//!
//! A VM has two vCPUs, each on a CPU of its own that keeps every translation, and each step of a
//! walk, for as long as the manual allows.  [`crate::model::shadow_mmu`] manages the pages, with
//! all 512 entries of each.  Tables are ordinary memory of the guest: the guest edits a table by
//! writing to a page that maps the table.  Such a write uses the CPU's cached translation, or KVM's
//! pages, or exits to KVM.  The guest changes CR3, CR0.WP, CR4.SMEP, CR4.SMAP, and switches between
//! four levels, two levels and none.
//!
//! Before a guest is entered, the [`oracle`] judges everything that the CPU has cached under the
//! guest's PCID, and KVM's pages.  [`Bug`] lists the injected bugs, which the oracle has to find.

mod cpu;
mod machine;
mod memory;
mod oracle;
mod random;
mod vcpu;
mod wrong;

use crate::model::shadow_mmu::bug::Bug;
use kernel::prelude::*;
use machine::Machine;
use wrong::Wrong;

/// The number of steps of a part of a run; the seed of a part repeats the part alone.
const LENGTH: u32 = 300;

/// An error that a run found.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found {
    /// The seed of the part.
    pub(crate) seed: u64,
    /// The number of the failing step in the whole run.
    pub(crate) step: u64,
    /// The error.
    pub(crate) wrong: Wrong,
}

/// Makes a machine.
// A machine is built on the stack before it is moved to its box.  Without inlining, this function
// frees that part of the stack before the machine runs.
#[inline(never)]
fn machine(broken: Option<Bug>) -> Result<KBox<Machine>> {
    Ok(KBox::new(Machine::new(broken)?, GFP_KERNEL)?)
}

/// Executes random steps from a seed; returns the first error.
///
/// # Errors
///
/// [`ENOMEM`].
pub(crate) fn run(broken: Option<Bug>, seed: u64, steps: u64) -> Result<Option<Found>> {
    let mut machine = machine(broken)?;
    let (mut step, mut part) = (0, seed);
    while step < steps {
        machine.restart(part);
        for _ in 0..LENGTH {
            step += 1;
            if let Err(wrong) = machine.step() {
                let seed = part;
                return Ok(Some(Found { seed, step, wrong }));
            }
        }
        part += 1;
    }
    Ok(None)
}

#[cfg(CONFIG_VMX_VPID_KUNIT_TEST)]
#[kernel::macros::kunit_tests(vmx_vpid_model_shadow)]
mod tests {
    use super::*;

    /// The number of steps without an injected bug, in which the model must find no error.
    const STEPS: u64 = if cfg!(vmx_vpid_userspace) {
        1_200_000
    } else {
        6_000
    };
    /// The seed of the first part.
    const FIRST: u64 = 1;
    /// The number of steps within which the model has to find each bug.
    const STEPS_TO_FIND: u64 = if cfg!(vmx_vpid_userspace) {
        2_000_000
    } else {
        3_000
    };
    /// The bugs that show within a few steps, for an emulated CPU.
    const SOON: &[Bug] = &[
        Bug::RoleNotCompared,
        Bug::AccessNotCompared,
        Bug::ParentsNotTold,
        Bug::TrackedMadeWritable,
        Bug::UnsyncForgotten,
        Bug::NotProtected,
        Bug::SyncedUnprotected,
        Bug::WriteNotTracked,
        Bug::UnmapForgotten,
        Bug::PgdNotCompared,
        Bug::RemoteIgnored,
    ];

    #[test]
    fn no_guest_on_shadow_pages_can_use_a_stale_translation() -> Result {
        let found = run(None, FIRST, STEPS)?;
        match found {
            Some(found) => pr_err!("{:?}\n", found),
            None => pr_info!("shadow pages: {} steps from seed {}\n", STEPS, FIRST),
        }
        assert!(found.is_none());
        Ok(())
    }

    #[test]
    fn each_bug_of_shadow_pages_is_found() -> Result {
        let mut missed = 0;
        let all = if cfg!(vmx_vpid_userspace) {
            Bug::ALL
        } else {
            SOON
        };
        for &broken in all {
            match run(Some(broken), FIRST, STEPS_TO_FIND)? {
                Some(found) => pr_info!("{} found: {:?}\n", broken.name(), found),
                None => {
                    pr_err!("{} not found\n", broken.name());
                    missed += 1;
                }
            }
        }
        assert_eq!(missed, 0);
        Ok(())
    }
}
