// SPDX-License-Identifier: GPL-2.0

//! Each regression is a sequence of steps that went wrong in another system.
//!
//! Documentation/regressions.rst names the systems.  A sequence has to pass, and has to fail with
//! the bug that the sequence is about: random steps would hardly ever find some of these.

mod modes;
mod regression;

use crate::{
    flush::policy::Switches,
    model::{
        bug::Bug,
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
use regression::{
    guest,
    keep,
    l2,
    regression,
    remap,
    remap_ept12,
    Regression,
    READ, //
};

/// A VPID is reused as vpid02, after the previous holder left mappings (KVM, 2026; OpenBSD).
fn vpid02_is_reused(machine: &mut Machine<'_>) -> Result<(), Wrong> {
    // With two VPIDs, the second VMXON allocates the vpid02 of the first.
    machine.step(Step::Create(0))?;
    for choice in [1, 2] {
        guest(machine, 0, 0, Op::VmxOn)?;
        guest(machine, 0, 0, remap(choice))?;
        guest(machine, 0, 0, l2(1, false))?;
        guest(machine, 0, 0, READ)?;
        guest(machine, 0, 0, Op::LeaveL2)?;
        guest(machine, 0, 0, Op::VmxOff)?;
        // In between, another VM has this VPID, on the same CPU.
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
    // VM 0 frees its root on a CPU where the root was never loaded.
    guest(machine, 0, 1, READ)?;
    // VM 1 stays on CPU 0: only the load of its new root flushes.
    machine.step(Step::ZapAll(1))?;
    guest(machine, 2, 0, READ)
}

/// A tree is freed while a vCPU may still use cached entries of the tree: the vCPU switched to
/// another root and kept its translations (Xen, XSA-480).
fn tree_is_freed(machine: &mut Machine<'_>) -> Result<(), Wrong> {
    machine.step(Step::Create(0))?;
    guest(machine, 0, 0, Op::VmxOn)?;
    // The first entry of L2 flushes everything, so the sequence begins with it.
    guest(machine, 0, 0, l2(1, false))?;
    guest(machine, 0, 0, Op::LeaveL2)?;
    // Two roots are cached; the guest leaves the root of table 0 last, and its mappings stay
    // cached.
    guest(machine, 0, 0, keep(1, 0))?;
    guest(machine, 0, 0, keep(0, 0))?;
    guest(machine, 0, 0, READ)?;
    guest(machine, 0, 0, keep(1, 0))?;
    // L2 uses other roots, until the root of table 0 is evicted.
    guest(machine, 0, 0, l2(1, false))?;
    guest(machine, 0, 0, keep(0, 1))?;
    guest(machine, 0, 0, keep(1, 1))?;
    machine.step(Step::Shrink(0))?;
    guest(machine, 0, 0, Op::LeaveL2)?;
    guest(machine, 0, 0, READ)
}

/// L1 invalidates by an EPT pointer that differs from the pointer in use by flags that are not part
/// of the EP4TA (KVM).
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

/// L1 invalidates on another CPU than the CPU where L2 ran, and migrates back (KVM 7.3).
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

/// L1 leaves L2 while a flush of L2 is pending (KVM).
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

/// L1 gives L2 another VPID, with shadow paging, after L2 changed its tables (KVM).
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

/// A VM gets the place of a destroyed VM, and the page of its root: one vCPU has filled the tables
/// when another vCPU comes to the CPU where the old VM ran (Xen, XSA-480).
fn vm_has_a_successor(machine: &mut Machine<'_>) -> Result<(), Wrong> {
    machine.step(Step::Create(0))?;
    guest(machine, 0, 0, READ)?;
    machine.step(Step::Destroy(0))?;
    machine.step(Step::Create(0))?;
    machine.step(Step::Create(1))?;
    guest(machine, 0, 1, READ)?;
    guest(machine, 1, 0, READ)
}

/// A large page is split, and then one of the small pages moves (Xen, XSA-304 and XSA-321).
fn split_page_moves(machine: &mut Machine<'_>) -> Result<(), Wrong> {
    machine.step(Step::Create(0))?;
    guest(machine, 0, 0, READ)?;
    machine.step(Step::Split(0))?;
    machine.step(Step::Relocate { vm: 0, gfn: 0 })?;
    guest(machine, 0, 0, READ)
}

/// The task migrates between the first flush of a VPID and the update of FlushedCpus.
fn bit_is_of_another_cpu(machine: &mut Machine<'_>) -> Result<(), Wrong> {
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

/// Returns all regressions.
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
            // Either the handler or the flush of all contexts that follows is enough, so both have
            // a bug.
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
            "FlushedCpus has the bit of another CPU",
            &[Bug::RecordsWhilePreemptible],
            with_vpids(false, 1),
            bit_is_of_another_cpu,
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
    fn each_regression_fails_with_all_its_bugs_and_passes_with_fewer() -> Result {
        let flushed = run::flushed_words()?;
        for regression in all() {
            let vpids = Vpids::new(&flushed)?;
            for (bugs, wanted) in regression.combinations() {
                let mut machine = Machine::new(regression.config, bugs, &vpids)?;
                let wrong = (regression.run)(&mut machine).err();
                if wrong.is_some() != wanted {
                    pr_err!("{}: {:?} with {:?}\n", regression.name, wrong, bugs);
                }
                assert_eq!(wrong.is_some(), wanted);
            }
        }
        Ok(())
    }
}
