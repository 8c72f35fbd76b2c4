// SPDX-License-Identifier: GPL-2.0

//! This module replays sequences that went wrong in other systems, step by step.
//!
//! Documentation/regressions.rst names the systems.  Each sequence has to pass, and to fail with
//! the bug that it was about: a random run would hardly ever meet some of these.

mod modes;

use crate::{
    flush::policy::Switches,
    model::{
        bug::{
            Bug,
            Bugs, //
        },
        guest::{
            control_regs::Registers,
            edit,
            memory::frames, //
        },
        kvm::vcpu::{
            Ept12,
            L2, //
        },
        machine::{
            Config,
            Machine,
            Wrong, //
        },
        step::{
            Op,
            Step, //
        }, //
    }, //
};

/// A sequence, and what it is about.
pub(crate) struct Regression {
    /// Its name.
    pub(crate) name: &'static str,
    /// With what it goes wrong: all of these together, where each alone is made up for.
    pub(crate) bugs: &'static [Bug],
    /// The machine.
    pub(crate) config: Config,
    /// The sequence.
    pub(crate) tell: fn(&mut Machine<'_>) -> Result<(), Wrong>,
}

impl Regression {
    /// Each combination of its faults, and whether the sequence has to go wrong with it: with all
    /// of them, and with no fewer.
    pub(crate) fn combinations(&self) -> impl Iterator<Item = (Bugs, bool)> + '_ {
        let all = (1u32 << self.bugs.len()) - 1;
        (0..=all).map(move |mask| {
            let mut bugs = Bugs::NONE;
            for (number, &bug) in self.bugs.iter().enumerate() {
                if mask >> number & 1 != 0 {
                    bugs = bugs.and(bug);
                }
            }
            (bugs, mask == all)
        })
    }
}

/// What a vCPU does on a CPU.
fn guest(machine: &mut Machine<'_>, vcpu: u8, cpu: u8, op: Op) -> Result<(), Wrong> {
    machine.step(Step::Guest {
        vcpu,
        cpu,
        patience: 0,
        op,
    })
}

/// Reads page 0.
const READ: Op = Op::Access {
    page: 0,
    write: false,
};

/// Writes the entry that maps page 0, by choice.
fn remap(choice: u8) -> Op {
    let (table, index) = (frames::PT, 0);
    let entry = edit::entry(table, index, choice);
    Op::Edit {
        table,
        index,
        entry,
    }
}

/// Writes the entry of an EPT of L1's that maps frame 0, by choice.
fn remap_ept12(choice: u8) -> Op {
    let (table, index) = (frames::EPT_PT, 0);
    let entry = edit::entry(table, index, choice);
    Op::Edit {
        table,
        index,
        entry,
    }
}

/// An L2 with a VPID and the first EPT, with accessed and dirty flags or without.
fn l2(vpid12: u16, accessed_dirty: bool) -> Op {
    let ept12 = Some(Ept12 {
        number: 0,
        accessed_dirty,
    });
    Op::EnterL2(L2 { vpid12, ept12 })
}

/// An L2 with a VPID and one of two EPTs.
fn l2_on(vpid12: u16, number: u8) -> Op {
    let ept12 = Some(Ept12 {
        number,
        accessed_dirty: false,
    });
    Op::EnterL2(L2 { vpid12, ept12 })
}

/// VMFUNC to one of two EPTs.
fn vmfunc(number: u8) -> Op {
    Op::Vmfunc(Ept12 {
        number,
        accessed_dirty: false,
    })
}

/// MOV to CR3 that keeps translations.
fn keep(root: u8, pcid: u8) -> Op {
    Op::MovCr3 {
        registers: Registers { root, pcid },
        keep: true,
    }
}

/// A VPID is reused, as vpid02, after its holder left mappings (KVM, 2026; OpenBSD).
fn vpid02_is_reused(machine: &mut Machine<'_>) -> Result<(), Wrong> {
    // With three VPIDs the second life of the hypervisor gets the vpid02 of the first.
    machine.step(Step::Create(0))?;
    for choice in [1, 2] {
        guest(machine, 0, 0, Op::VmxOn)?;
        guest(machine, 0, 0, remap(choice))?;
        guest(machine, 0, 0, l2(1, false))?;
        guest(machine, 0, 0, READ)?;
        guest(machine, 0, 0, Op::LeaveL2)?;
        guest(machine, 0, 0, Op::VmxOff)?;
        // Another vCPU has that VPID now, on the same CPU.
        machine.step(Step::Create(2))?;
        guest(machine, 2, 0, READ)?;
        machine.step(Step::Destroy(2))?;
    }
    Ok(())
}

/// A root is freed without a flush, and its page becomes a root of another VM (KVM's deferred
/// flush; Xen, XSA-480).
fn root_is_reused(machine: &mut Machine<'_>) -> Result<(), Wrong> {
    machine.step(Step::Create(0))?;
    machine.step(Step::Create(2))?;
    guest(machine, 2, 0, READ)?;
    guest(machine, 0, 0, READ)?;
    machine.step(Step::ZapAll(0))?;
    // This vCPU frees its root on a CPU where the root was never loaded.
    guest(machine, 0, 1, READ)?;
    // That one was here all the time: only its new root is flushed.
    machine.step(Step::ZapAll(1))?;
    guest(machine, 2, 0, READ)
}

/// A tree is freed of which a vCPU has something cached that it may still use: it changed to
/// another root and kept its translations (Xen, XSA-480).
fn tree_is_freed(machine: &mut Machine<'_>) -> Result<(), Wrong> {
    machine.step(Step::Create(0))?;
    guest(machine, 0, 0, Op::VmxOn)?;
    // The first entry of L2 flushes everything, and so comes first.
    guest(machine, 0, 0, l2(1, false))?;
    guest(machine, 0, 0, Op::LeaveL2)?;
    // Two roots are cached; that of table 0 is left last, with mappings that stay.
    guest(machine, 0, 0, keep(1, 0))?;
    guest(machine, 0, 0, keep(0, 0))?;
    guest(machine, 0, 0, READ)?;
    guest(machine, 0, 0, keep(1, 0))?;
    // L2 uses other roots, until that of table 0 has no place any more.
    guest(machine, 0, 0, l2(1, false))?;
    guest(machine, 0, 0, keep(0, 1))?;
    guest(machine, 0, 0, keep(1, 1))?;
    machine.step(Step::Shrink(0))?;
    guest(machine, 0, 0, Op::LeaveL2)?;
    guest(machine, 0, 0, READ)
}

/// An EPT pointer of L1's differs from the one that it invalidates by flags that are no part of the
/// tag (KVM).
fn pointers_differ_in_flags(machine: &mut Machine<'_>) -> Result<(), Wrong> {
    machine.step(Step::Create(0))?;
    guest(machine, 0, 0, Op::VmxOn)?;
    guest(machine, 0, 0, l2(1, true))?;
    guest(machine, 0, 0, READ)?;
    guest(machine, 0, 0, Op::LeaveL2)?;
    guest(machine, 0, 0, remap_ept12(4))?;
    let ept12 = Ept12 {
        number: 0,
        accessed_dirty: false,
    };
    guest(machine, 0, 0, Op::Invept { all: false, ept12 })?;
    guest(machine, 0, 0, l2(1, true))?;
    guest(machine, 0, 0, READ)
}

/// L1 invalidates on another CPU than the one where L2 ran, and comes back (KVM 7.3).
fn l1_moves_and_comes_back(machine: &mut Machine<'_>) -> Result<(), Wrong> {
    machine.step(Step::Create(0))?;
    guest(machine, 0, 1, Op::VmxOn)?;
    guest(machine, 0, 1, l2(1, false))?;
    guest(machine, 0, 1, READ)?;
    guest(machine, 0, 1, Op::LeaveL2)?;
    guest(machine, 0, 0, remap(2))?;
    let kind = 1;
    let (vpid12, page) = (1, 0);
    guest(machine, 0, 0, Op::Invvpid { kind, vpid12, page })?;
    guest(machine, 0, 1, l2(1, false))?;
    guest(machine, 0, 1, READ)
}

/// A flush of L2 is requested, and L2 is left before that was served (KVM).
fn request_outlives_l2(machine: &mut Machine<'_>) -> Result<(), Wrong> {
    machine.step(Step::Create(0))?;
    guest(machine, 0, 0, Op::VmxOn)?;
    guest(machine, 0, 0, l2(1, false))?;
    guest(machine, 0, 0, READ)?;
    guest(machine, 0, 0, Op::LeaveL2)?;
    let ept12 = Some(Ept12 {
        number: 0,
        accessed_dirty: false,
    });
    guest(machine, 0, 0, Op::BounceL2(L2 { vpid12: 2, ept12 }))?;
    guest(machine, 0, 0, l2(2, false))
}

/// L1 moves L2 to another VPID, on shadow paging, after L2 changed its tables (KVM).
fn vpid12_changes_on_shadow_paging(machine: &mut Machine<'_>) -> Result<(), Wrong> {
    machine.step(Step::Create(0))?;
    guest(machine, 0, 0, Op::VmxOn)?;
    guest(machine, 0, 0, l2(1, false))?;
    guest(machine, 0, 0, READ)?;
    guest(machine, 0, 0, remap(2))?;
    guest(machine, 0, 0, Op::LeaveL2)?;
    guest(machine, 0, 0, l2(2, false))?;
    guest(machine, 0, 0, READ)
}

/// KVM's emulator executes INVLPG, with EPT on (Xen).
fn invlpg_is_emulated(machine: &mut Machine<'_>) -> Result<(), Wrong> {
    machine.step(Step::Create(0))?;
    guest(machine, 0, 0, READ)?;
    guest(machine, 0, 0, remap(2))?;
    guest(machine, 0, 0, Op::EmulatedInvlpg(0))
}

/// A VM takes the place of another that was destroyed, and the page of its root: one vCPU has
/// filled the tables again when another one moves to the CPU where the old VM ran (Xen, XSA-480).
fn vm_has_a_successor(machine: &mut Machine<'_>) -> Result<(), Wrong> {
    machine.step(Step::Create(0))?;
    guest(machine, 0, 0, READ)?;
    machine.step(Step::Destroy(0))?;
    machine.step(Step::Create(0))?;
    machine.step(Step::Create(1))?;
    guest(machine, 0, 1, READ)?;
    guest(machine, 1, 0, READ)
}

/// A large page is split, and then one of the small ones moves (Xen, XSA-304 and XSA-321).
fn split_page_moves(machine: &mut Machine<'_>) -> Result<(), Wrong> {
    machine.step(Step::Create(0))?;
    guest(machine, 0, 0, READ)?;
    machine.step(Step::Split(0))?;
    machine.step(Step::Relocate { vm: 0, gfn: 0 })?;
    guest(machine, 0, 0, READ)
}

/// The task moves between the first flush of a VPID and the note of it.
fn record_is_of_another_cpu(machine: &mut Machine<'_>) -> Result<(), Wrong> {
    for patience in 1..12 {
        machine.step(Step::Create(0))?;
        guest(machine, 0, 1, READ)?;
        machine.step(Step::Destroy(0))?;
        machine.step(Step::Create(0))?;
        let (vcpu, cpu) = (0, 0);
        machine.step(Step::Guest {
            vcpu,
            cpu,
            patience,
            op: READ,
        })?;
        machine.step(Step::Destroy(0))?;
    }
    Ok(())
}

/// Makes a regression of its parts.
fn regression(
    name: &'static str,
    bugs: &'static [Bug],
    config: Config,
    tell: fn(&mut Machine<'_>) -> Result<(), Wrong>,
) -> Regression {
    Regression {
        name,
        bugs,
        config,
        tell,
    }
}

/// Returns all of them.
pub(crate) fn all() -> impl Iterator<Item = Regression> {
    let usual = Config::usual;
    let with_vpids = |ept, vpids| Config {
        vpids,
        ..usual(ept)
    };
    let by_context = |ept| Config {
        switches: Switches {
            flush_context: true,
            ..Switches::default()
        },
        ..usual(ept)
    };
    let own = [
        regression(
            "vpid02 is reused",
            &[Bug::NoFlushOnVmxon],
            with_vpids(true, 2),
            vpid02_is_reused,
        ),
        regression(
            "a root is reused",
            &[Bug::NoFlushOnRootLoad],
            usual(true),
            root_is_reused,
        ),
        regression(
            "a tree is freed",
            &[Bug::NoFlushOnFree],
            usual(false),
            tree_is_freed,
        ),
        regression(
            "pointers differ in flags",
            &[Bug::ComparedByPointer],
            usual(true),
            pointers_differ_in_flags,
        ),
        regression(
            "L1 moves and comes back",
            // Either the handler or the flush of all that follows would do.
            &[Bug::HiddenL2Root, Bug::Vpid12NotForgotten],
            by_context(true),
            l1_moves_and_comes_back,
        ),
        regression(
            "a request outlives L2",
            &[Bug::TransitionLosesRequests],
            usual(true),
            request_outlives_l2,
        ),
        regression(
            "vpid12 changes on shadow paging",
            &[Bug::NoSyncOnGuestFlush],
            usual(false),
            vpid12_changes_on_shadow_paging,
        ),
        regression(
            "INVLPG is emulated",
            &[Bug::InvvpidAddressLost],
            usual(true),
            invlpg_is_emulated,
        ),
        regression(
            "a VM has a successor",
            &[Bug::NoFlushOnRootLoad],
            by_context(true),
            vm_has_a_successor,
        ),
        regression(
            "a split page moves",
            &[Bug::NoRemoteFlush],
            usual(true),
            split_page_moves,
        ),
        regression(
            "the record is of another CPU",
            &[Bug::RecordsUnpinned],
            with_vpids(false, 1),
            record_is_of_another_cpu,
        ),
    ];
    Iterator::chain(own.into_iter(), modes::all())
}

#[cfg(CONFIG_VMX_VPID_KUNIT_TEST)]
#[kernel::macros::kunit_tests(vmx_vpid_model_regressions)]
mod tests {
    use super::{
        super::run,
        *, //
    };
    use crate::model::kvm::vpids::Vpids;
    use kernel::prelude::*;

    #[test]
    fn each_regression_needs_all_its_bugs() -> Result {
        let record = run::record()?;
        for regression in all() {
            let vpids = Vpids::new(&record)?;
            for (bugs, wanted) in regression.combinations() {
                let mut machine = Machine::new(regression.config, bugs, &vpids)?;
                let wrong = (regression.tell)(&mut machine).err();
                if wrong.is_some() != wanted {
                    pr_err!("{}: {:?} with {:?}\n", regression.name, wrong, bugs);
                }
                assert_eq!(wrong.is_some(), wanted);
            }
        }
        Ok(())
    }
}
