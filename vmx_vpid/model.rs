// SPDX-License-Identifier: GPL-2.0

//! This module models CPUs, guests and KVM's core, to find a flush that is missing.
//!
//! Emulators drop more than they have to, and so does hardware most of the time, so a missing flush
//! hardly ever shows there.  The CPUs of this model keep every translation, and every step of a
//! walk, for as long as the manual allows.  KVM's core requests flushes exactly when KVM does.
//! Between the two runs the code of the kernel module: [`crate::vpid`] allocates VPIDs,
//! [`crate::flush`] decides and issues, [`crate::exits`] handles the guests' instructions.
//!
//! Before each entry of a guest, the [`oracle`] checks that no translation that the guest could use
//! is stale.  The tests also inject bugs, one at a time ([`bug`]), and each has to be found.
//!
//! - [`machine`] is the whole, [`step`] its steps.
//! - [`cpu`]: caches, accesses and their cost.
//! - [`guest`]: memory, page tables, instructions, and what guests invalidated.
//! - [`kvm`]: KVM's core, its tables, and C's own flushes and handlers.
//! - [`search`]: random and exhaustive search, regressions, counterexamples.
//! - [`ept`]: building and changing EPTs.
//!
//! Two models stand apart: [`host_mm`] of the host's processes and their ASIDs, [`shadow_run`] of
//! shadow pages, which [`shadow_mmu`] manages.

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

    /// Steps of one run; an emulated CPU goes few in a second.
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

    /// Goes [`STEPS`] steps, in which nothing may be wrong.
    fn sound(config: Config) -> Result {
        let record = run::record()?;
        let vpids = Vpids::new(&record)?;
        let mut machine = Machine::new(config, Bugs::NONE, &vpids)?;
        let found = run::at_random(&mut machine, 1, STEPS);
        if let Some(found) = found {
            pr_err!("{:?}: {:?}\n", config, found);
        }
        assert!(found.is_none());
        Ok(())
    }

    #[test]
    fn no_guest_can_use_a_stale_translation() -> Result {
        let force = Switches {
            force_flush: true,
            ..Switches::default()
        };
        for ept in [false, true] {
            for switches in [
                switches(false, 0),
                switches(true, 0),
                force,
                // Without INVEPT of a context; INVVPID of an address, of a context, and of all.
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
    fn no_stale_translation_on_cpus_that_lack_an_invalidation() -> Result {
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
    fn no_stale_translation_with_tags_by_generation() -> Result {
        for ept in [false, true] {
            // A generation ends soon, or never.
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
    fn no_stale_translation_when_c_serves() -> Result {
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

    /// Those that show after many steps only are left to `make mutants`.
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

    /// How much a VM has left in a CPU's caches when another one on it was flushed.
    fn left(config: Config) -> Result<usize> {
        let record = run::record()?;
        let vpids = Vpids::new(&record)?;
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
        // VM 0 has memory remapped.
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
    fn other_vms_keep_their_translations_with_flush_context() -> Result {
        for ept in [false, true] {
            let config = Config::usual(ept);
            assert_eq!(left(config)?, 0);
            let switches = switches(true, 0);
            assert!(left(Config { switches, ..config })? > 0);
        }
        Ok(())
    }
}
