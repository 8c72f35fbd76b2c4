// SPDX-License-Identifier: GPL-2.0

//! In these regressions a guest writes CR0 or CR4, or switches to another EPT.
//!
//! KVM has to flush the translations that such an action invalidates.  Where KVM requests no flush,
//! KVM frees roots, and loading the roots again flushes.

use super::regression::{
    guest,
    keep,
    l2_on,
    regression,
    remap,
    vmfunc,
    Regression,
    READ, //
};
use crate::model::{
    bug::Bug,
    guest::control_regs::{
        Bit,
        Registers, //
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
};

/// Entries cached with paging off are used with paging on.
fn paging_is_turned_on(machine: &mut Machine<'_>) -> Result<(), Wrong> {
    machine.step(Step::Create(0))?;
    guest(machine, 0, 0, remap(2))?;
    guest(machine, 0, 0, Op::Toggle(Bit::Pcide))?;
    guest(machine, 0, 0, Op::Toggle(Bit::Paging))?;
    guest(machine, 0, 0, READ)?;
    guest(machine, 0, 0, Op::Toggle(Bit::Paging))
}

/// A guest leaves a root with PCIDs off, which invalidates the root's translations, and returns to
/// the root with PCIDs on, which invalidates nothing.
fn root_outlives_its_pcid(machine: &mut Machine<'_>) -> Result<(), Wrong> {
    machine.step(Step::Create(0))?;
    guest(machine, 0, 0, Op::Toggle(Bit::Pcide))?;
    guest(machine, 0, 0, READ)?;
    let registers = Registers { root: 1, pcid: 0 };
    let keeps = false;
    guest(
        machine,
        0,
        0,
        Op::MovCr3 {
            registers,
            keep: keeps,
        },
    )?;
    guest(machine, 0, 0, remap(2))?;
    guest(machine, 0, 0, Op::Toggle(Bit::Pcide))?;
    guest(machine, 0, 0, keep(0, 0))
}

/// An L2 that has mappings of two EPTs cached sets CR4.SMEP: a flush of the current root leaves the
/// mappings of the other EPT.
fn smep_is_set_on_another_ept(machine: &mut Machine<'_>) -> Result<(), Wrong> {
    machine.step(Step::Create(0))?;
    guest(machine, 0, 0, Op::VmxOn)?;
    guest(machine, 0, 0, l2_on(1, 0))?;
    guest(machine, 0, 0, READ)?;
    guest(machine, 0, 0, Op::LeaveL2)?;
    guest(machine, 0, 0, l2_on(1, 1))?;
    guest(machine, 0, 0, remap(2))?;
    guest(machine, 0, 0, Op::Toggle(Bit::Smep))?;
    guest(machine, 0, 0, Op::LeaveL2)?;
    guest(machine, 0, 0, l2_on(1, 0))
}

/// A guest that has a global page cached sets CR4.SMEP.
fn smep_is_set_with_globals(machine: &mut Machine<'_>) -> Result<(), Wrong> {
    machine.step(Step::Create(0))?;
    guest(machine, 0, 0, remap(6))?;
    guest(machine, 0, 0, READ)?;
    guest(machine, 0, 0, remap(1))?;
    guest(machine, 0, 0, Op::Toggle(Bit::Smep))
}

/// An L2 without a VPID switches to another EPT and back, which invalidates the translations of the
/// first EPT.
fn l2_turns_to_another_ept(machine: &mut Machine<'_>) -> Result<(), Wrong> {
    machine.step(Step::Create(0))?;
    guest(machine, 0, 0, Op::VmxOn)?;
    guest(machine, 0, 0, l2_on(0, 0))?;
    guest(machine, 0, 0, READ)?;
    guest(machine, 0, 0, remap(2))?;
    guest(machine, 0, 0, vmfunc(1))?;
    guest(machine, 0, 0, vmfunc(0))
}

/// Returns all regressions of this file.
pub(super) fn all() -> impl Iterator<Item = Regression> {
    [
        regression(
            "paging is turned on",
            &[Bug::RootsKeptOnPaging],
            Config::usual(true),
            paging_is_turned_on,
        ),
        regression(
            "a root outlives its PCID",
            &[Bug::RootsKeptOnPcideOn],
            Config::usual(false),
            root_outlives_its_pcid,
        ),
        regression(
            "SMEP is set on another EPT",
            &[Bug::RootsKeptOnCr4],
            Config::usual(true),
            smep_is_set_on_another_ept,
        ),
        regression(
            "SMEP is set with globals",
            &[Bug::GlobalsKeptOnCr4],
            Config::usual(true),
            smep_is_set_with_globals,
        ),
        regression(
            "L2 turns to another EPT",
            &[Bug::NoFlushOnVmfunc],
            Config::usual(true),
            l2_turns_to_another_ept,
        ),
    ]
    .into_iter()
}
