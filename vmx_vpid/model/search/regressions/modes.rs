// SPDX-License-Identifier: GPL-2.0

//! This module has the regressions in which a guest writes CR0 or CR4, or switches to another EPT.
//!
//! KVM has to drop what the CPU would have dropped.  Where KVM requests no flush, it frees roots,
//! and loading them again flushes.

use super::{
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

/// What was cached with paging off is used with paging on.
fn paging_is_turned_on(machine: &mut Machine<'_>) -> Result<(), Wrong> {
    machine.step(Step::Create(0))?;
    guest(machine, 0, 0, remap(2))?;
    guest(machine, 0, 0, Op::Toggle(Bit::Pcide))?;
    guest(machine, 0, 0, Op::Toggle(Bit::Paging))?;
    guest(machine, 0, 0, READ)?;
    guest(machine, 0, 0, Op::Toggle(Bit::Paging))
}

/// A root is left with PCIDs off, which drops what was cached of it, and taken again with PCIDs on,
/// which drops nothing.
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

/// CR4.SMEP is set by an L2 that has mappings cached of two EPTs: a flush of the root in use leaves
/// those of the other.
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

/// CR4.SMEP is set by a guest that has a global page cached.
fn smep_is_set_with_globals(machine: &mut Machine<'_>) -> Result<(), Wrong> {
    machine.step(Step::Create(0))?;
    guest(machine, 0, 0, remap(6))?;
    guest(machine, 0, 0, READ)?;
    guest(machine, 0, 0, remap(1))?;
    guest(machine, 0, 0, Op::Toggle(Bit::Smep))
}

/// An L2 without a VPID turns to another EPT and back, which drops what it had cached of the first.
fn l2_turns_to_another_ept(machine: &mut Machine<'_>) -> Result<(), Wrong> {
    machine.step(Step::Create(0))?;
    guest(machine, 0, 0, Op::VmxOn)?;
    guest(machine, 0, 0, l2_on(0, 0))?;
    guest(machine, 0, 0, READ)?;
    guest(machine, 0, 0, remap(2))?;
    guest(machine, 0, 0, vmfunc(1))?;
    guest(machine, 0, 0, vmfunc(0))
}

/// Returns all of these.
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
