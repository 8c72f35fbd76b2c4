// SPDX-License-Identifier: GPL-2.0

//! This module models CPUs and KVM's core, to find missing flushes.
//!
//! Emulators drop more than the architecture requires, and so does hardware most of the time: a
//! missing flush hardly ever shows there.  The CPUs of the model keep every translation, and every
//! step of the way to a translation, for as long as the manual allows.  The model of KVM's core
//! requests flushes exactly when KVM does.  In between runs the code of the kernel:
//! [`crate::vpid::pool`] and [`crate::vpid::owned`] allocate VPIDs, [`crate::flush`] decides on
//! instructions, [`crate::flush::execute`] executes the instructions, and [`crate::exits`] handles
//! the instructions that guests execute.
//!
//! At each VM entry, [`oracle`] checks that the guest could use no stale translation.  The tests
//! also inject one bug at a time ([`bug`]), and check that the oracle finds each bug.
//!
//! Folders and files:
//!
//! - [`cpu`]: a CPU that caches every translation; lookup, walks, invalidation, cost.
//! - [`guest`]: the guests' memory, page tables, instructions and past invalidations.
//! - [`kvm`]: KVM's core and tables, C's flush policy and exit handlers, and a policy of tag
//!   generations that no kernel has.
//! - [`search`]: the search for a missing flush, and counterexamples in words.
//! - [`ept`]: EPTs that tests build and change.
//! - [`machine`]: the simulated machine.
//! - [`step`]: the steps of the model.
//! - [`oracle`]: the check at each VM entry.
//! - [`bug`]: the injected bugs.
//! - [`random`]: random choices, by a seed.
//!
//! Three more models stand on their own: [`host_mm`] models the host's processes and their ASIDs,
//! [`shadow_mmu`] models shadow pages, and [`shadow_run`] runs guests on shadow pages.

pub(crate) mod bug;
pub(crate) mod cpu;
pub(crate) mod ept;
pub(crate) mod guest;
pub(crate) mod host_mm;
pub(crate) mod kvm;
pub(crate) mod machine;
pub(crate) mod oracle;
pub(crate) mod random;
pub(crate) mod search;
pub(crate) mod shadow_mmu;
pub(crate) mod shadow_run;
pub(crate) mod step;

#[cfg(CONFIG_VMX_VPID_KUNIT_TEST)]
#[kernel::macros::kunit_tests(vmx_vpid_model)]
mod tests {
    use super::{
        bug::{
            Bug,
            Bugs, //
        },
        kvm::vpids::Vpids,
        machine::{
            Backend,
            Config,
            Machine, //
        },
        search::run,
        step::{
            Op,
            Step, //
        }, //
    };
    use crate::flush::policy::Switches;
    use kernel::prelude::*;

    /// The number of steps of one run; an emulated CPU executes few steps per second.
    const STEPS: u64 = if cfg!(vmx_vpid_userspace) {
        20_000
    } else {
        1_000
    };

    fn switches(flush_context: bool, caps_mask: u64) -> Switches {
        Switches {
            flush_context,
            caps_mask,
            ..Switches::default()
        }
    }

    /// Runs [`STEPS`] random steps, and fails if the oracle finds an error.
    fn sound(config: Config) -> Result {
        let flushed = run::flushed_words()?;
        let vpids = Vpids::new(&flushed)?;
        let mut machine = Machine::new(config, Bugs::NONE, &vpids)?;
        let found = run::at_random(&mut machine, 1, STEPS);
        if let Some(found) = found {
            pr_err!("{:?}: {:?}\n", config, found);
        }
        assert!(found.is_none());
        Ok(())
    }

    #[test]
    fn the_model_finds_no_stale_translation() -> Result {
        let force = Switches {
            force_flush: true,
            ..Switches::default()
        };
        for ept in [false, true] {
            for switches in [
                switches(false, 0),
                switches(true, 0),
                force,
                // Without INVEPT of a context; without INVVPID of an address, of a context, of all
                // contexts.
                switches(true, 1 << 25),
                switches(true, 1 << 40),
                switches(true, 1 << 41),
                switches(true, 1 << 42),
                switches(false, 1 << 42),
            ] {
                let config = Config {
                    switches,
                    ..Config::usual(ept)
                };
                sound(config)?;
            }
        }
        Ok(())
    }

    #[test]
    fn machines_without_a_feature_leave_no_stale_translation() -> Result {
        for ept in [false, true] {
            let usual = Config {
                switches: switches(true, 0),
                ..Config::usual(ept)
            };
            sound(Config {
                vpid: false,
                ..usual
            })?;
            sound(Config {
                unknown_roots: true,
                ..usual
            })?;
            sound(Config {
                accessed_dirty: false,
                ..usual
            })?;
            sound(Config {
                pcids: false,
                ..usual
            })?;
            for vpids in [0, 1, 2, 100] {
                sound(Config { vpids, ..usual })?;
            }
        }
        Ok(())
    }

    #[test]
    fn tag_generations_leave_no_stale_translation() -> Result {
        for ept in [false, true] {
            // A generation ends soon with few VPIDs, and never with 60000.
            for vpids in [2, 6, 60_000] {
                sound(Config {
                    backend: Backend::Generations,
                    vpids,
                    ..Config::usual(ept)
                })?;
            }
        }
        Ok(())
    }

    #[test]
    fn the_c_backend_leaves_no_stale_translation() -> Result {
        for ept in [false, true] {
            for backend in [Backend::C, Backend::Both] {
                sound(Config {
                    backend,
                    ..Config::usual(ept)
                })?;
            }
        }
        Ok(())
    }

    /// Covers the bugs that show within a few steps; `make mutants` covers the others.
    #[test]
    fn bugs_that_show_soon_are_found() -> Result {
        for bug in [
            Bug::NoFlushOnLoad,
            Bug::NoFlushOnLoadOfVmcs02,
            Bug::NoRemoteFlush,
            Bug::NoFlushOnRootLoad,
            Bug::CurrentIgnored,
            Bug::Vpid02Leaked,
            Bug::PendingAtEntry,
            Bug::HiddenVpid01,
            Bug::HiddenVpid02,
            Bug::InvalidatesElsewhere,
            Bug::InveptAllLost,
            Bug::InvvpidAllLost,
            Bug::InvvpidForInvept,
            Bug::RolloverKeeps,
            Bug::TagKeptOnRequest,
            Bug::ChangedEptTakenAsClean,
        ] {
            for config in run::machines_for(bug) {
                let found = run::with_bug(config, bug, 1, 3_000)?;
                match found {
                    Some(found) => pr_info!(
                        "ept={}: {} found in step {}\n",
                        config.ept,
                        bug.name(),
                        found.total
                    ),
                    None => pr_err!("ept={}: {} was not found\n", config.ept, bug.name()),
                }
                assert!(found.is_some());
            }
        }
        Ok(())
    }

    /// Returns how many entries of one VM stay cached on a CPU where another VM was flushed.
    fn left(config: Config) -> Result<usize> {
        let flushed = run::flushed_words()?;
        let vpids = Vpids::new(&flushed)?;
        let mut machine = Machine::new(config, Bugs::NONE, &vpids)?;
        let guest = |vcpu| Step::Guest {
            vcpu,
            cpu: 0,
            patience: 0,
            op: Op::Access {
                page: 0,
                write: true,
            },
        };
        // The host remaps memory of VM 0.
        for step in [
            Step::Create(2),
            guest(2),
            Step::Create(0),
            guest(0),
            Step::Relocate { vm: 0, gfn: 0 },
            guest(0),
        ] {
            assert_eq!(machine.step(step), Ok(()));
        }
        Ok(machine.cached_by(2))
    }

    #[test]
    fn flush_context_keeps_the_entries_of_other_vms() -> Result {
        for ept in [false, true] {
            let config = Config::usual(ept);
            assert_eq!(left(config)?, 0);
            let switches = switches(true, 0);
            assert!(left(Config { switches, ..config })? > 0);
        }
        Ok(())
    }
}
