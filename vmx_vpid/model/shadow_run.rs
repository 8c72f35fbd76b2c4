// SPDX-License-Identifier: GPL-2.0

//! This module runs the model of shadow pages, with guests that write to their own tables through
//! them.
//!
//! A VM has two vCPUs, each on a CPU of its own that keeps every translation, and each step of a
//! walk, for as long as the manual allows.  [`crate::model::shadow_mmu`] manages the pages, with
//! all 512 entries of each.  Tables are memory of the guest like any other: the guest edits them by
//! writing to pages that map them, and such a write uses the CPU's cached translation, or KVM's
//! pages, or exits to KVM. The guest changes CR3, CR0.WP, CR4.SMEP, CR4.SMAP, and switches between
//! four levels, two levels and none.
//!
//! Before a guest is entered, the [`oracle`] judges everything that its CPU has cached under its
//! PCID, and KVM's pages.  [`Bug`] lists the bugs that can be injected; each has to be found.

mod cpu;
mod machine;
mod memory;
mod oracle;
mod random;
mod vcpu;

use crate::model::shadow_mmu::bug::Bug;
use kernel::prelude::*;
use machine::Machine;

/// What must not be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wrong {
    /// A CPU could use something that it has cached.
    TlbEntry(Stale),
    /// It could use an entry of KVM's.
    Entry(Stale),
    /// A guest makes no progress.
    Stuck,
    /// No page is left.
    Full,
}

/// Why an entry must not be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stale {
    /// The frame is not there any more.
    Host,
    /// It may be written, and KVM counts on seeing that.
    Unseen,
    /// It permits what the guest's entries forbid.
    Rights,
    /// The guest's tables do not say it any more, and it has been asked to be dropped.
    Guest,
    /// It is the way to a page that is not there any more.
    Structure,
}

/// Steps of a part of a run: what went wrong can be had again by the seed of its part.
const LENGTH: u32 = 300;

/// Something that went wrong.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found {
    /// The seed of the part.
    pub(crate) seed: u64,
    /// In which step of the whole run.
    pub(crate) step: u64,
    /// What.
    pub(crate) wrong: Wrong,
}

/// Makes a machine.
// It goes through the stack, which has to be free of it again before it runs.
#[inline(never)]
fn machine(broken: Option<Bug>) -> Result<KBox<Machine>> {
    Ok(KBox::new(Machine::new(broken)?, GFP_KERNEL)?)
}

/// Goes so many steps from a seed; returns what went wrong.
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

    /// Steps that a sound machine has to survive.
    const STEPS: u64 = if cfg!(vmx_vpid_userspace) {
        1_200_000
    } else {
        6_000
    };
    /// The seed of the first part.
    const FIRST: u64 = 1;
    /// Steps within which each fault has to be found.
    const STEPS_TO_FIND: u64 = if cfg!(vmx_vpid_userspace) {
        2_000_000
    } else {
        3_000
    };
    /// Those that show soon, for an emulated CPU.
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
