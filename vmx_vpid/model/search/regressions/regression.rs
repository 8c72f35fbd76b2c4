// SPDX-License-Identifier: GPL-2.0

//! This module defines a regression, and the steps that regressions have in common.

use crate::model::{
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
};

/// A sequence of steps, and its bugs.
pub(crate) struct Regression {
    /// The name.
    pub(crate) name: &'static str,
    /// The bugs that make the sequence fail together, where each bug alone has no effect.
    pub(crate) bugs: &'static [Bug],
    /// The machine.
    pub(crate) config: Config,
    /// Executes the sequence.
    pub(crate) run: fn(&mut Machine<'_>) -> Result<(), Wrong>,
}

impl Regression {
    /// Returns each combination of the bugs, and whether the sequence has to fail with it: only the
    /// combination of all bugs has to.
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

/// Executes an action of a vCPU on a CPU.
pub(super) fn guest(machine: &mut Machine<'_>, vcpu: u8, cpu: u8, op: Op) -> Result<(), Wrong> {
    machine.step(Step::Guest {
        vcpu,
        cpu,
        patience: 0,
        op,
    })
}

/// Reads page 0.
pub(super) const READ: Op = Op::Access {
    page: 0,
    write: false,
};

/// Returns a write of the entry that maps page 0, by choice.
pub(super) fn remap(choice: u8) -> Op {
    let (table, index) = (frames::PT, 0);
    let entry = edit::entry(table, index, choice);
    Op::Edit {
        table,
        index,
        entry,
    }
}

/// Returns a write of the entry of an EPT of L1's that maps frame 0, by choice.
pub(super) fn remap_ept12(choice: u8) -> Op {
    let (table, index) = (frames::EPT_PT, 0);
    let entry = edit::entry(table, index, choice);
    Op::Edit {
        table,
        index,
        entry,
    }
}

/// Returns a VM entry into an L2 with a VPID and the first EPT, with or without accessed and dirty
/// flags.
pub(super) fn l2(vpid12: u16, accessed_dirty: bool) -> Op {
    let ept12 = Some(Ept12 {
        number: 0,
        accessed_dirty,
    });
    Op::EnterL2(L2 { vpid12, ept12 })
}

/// Returns a VM entry into an L2 with a VPID and one of two EPTs.
pub(super) fn l2_on(vpid12: u16, number: u8) -> Op {
    let ept12 = Some(Ept12 {
        number,
        accessed_dirty: false,
    });
    Op::EnterL2(L2 { vpid12, ept12 })
}

/// Returns a VMFUNC to one of two EPTs.
pub(super) fn vmfunc(number: u8) -> Op {
    Op::Vmfunc(Ept12 {
        number,
        accessed_dirty: false,
    })
}

/// Returns a MOV to CR3 that keeps translations.
pub(super) fn keep(root: u8, pcid: u8) -> Op {
    Op::MovCr3 {
        registers: Registers { root, pcid },
        keep: true,
    }
}

/// Makes a regression.
pub(super) fn regression(
    name: &'static str,
    bugs: &'static [Bug],
    config: Config,
    run: fn(&mut Machine<'_>) -> Result<(), Wrong>,
) -> Regression {
    Regression {
        name,
        bugs,
        config,
        run,
    }
}
