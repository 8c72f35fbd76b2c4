// SPDX-License-Identifier: GPL-2.0

//! This module searches the model by all short sequences of steps.

use super::model::{
    by_name,
    lasting_machine,
    tell,
    MachineType, //
};
use crate::model::{
    machine::{
        Machine,
        Wrong, //
    },
    search::exhaustive::{
        self,
        Who, //
    },
    step::Step, //
};
use std::{
    string::String,
    vec::Vec, //
};

/// What a search is about: the steps that its sequences are made of.
#[derive(Clone, Copy)]
pub struct StepSet(Who);

impl StepSet {
    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        Who::ALL.into_iter().map(Self)
    }

    /// Its name.
    pub fn name(self) -> String {
        std::format!("{:?}", self.0)
    }

    /// Bugs that the search has to find: the name of each, and that of the machine.
    pub fn finds(self) -> impl Iterator<Item = (&'static str, &'static str)> {
        let bugs = self.0.finds().iter();
        bugs.map(|&(bug, machine)| (bug.name(), machine))
    }
}

/// The usual number of steps of a sequence, without the prefix.
pub const LENGTH: usize = exhaustive::LENGTH;

/// What a search came to.
pub struct Searched {
    /// How many sequences were gone, those counted that others begin with.
    pub count: u64,
    /// The counterexample, if a sequence went wrong.
    pub counterexample: Option<String>,
}

/// Tries all sequences of `length` steps of a step set, each after the prefix of the set, until one
/// goes wrong; `bug` is the name of a bug to inject.
///
/// # Errors
///
/// A sentence, if there is no bug of that name or no memory.
pub fn search(
    machine_type: MachineType,
    step_set: StepSet,
    length: usize,
    bug: Option<&str>,
) -> Result<Searched, String> {
    let (config, bugs) = (machine_type.0, by_name(bug)?);
    let mut steps = Vec::new();
    step_set.0.each_step(config.ept, |step| steps.push(step));
    let mut sequence = Vec::with_capacity(16);
    step_set
        .0
        .each_first(config.ept, |step| sequence.push(step));
    // One machine for each depth: that of a depth is where all longer sequences begin.
    let mut machines = Vec::new();
    for _ in 0..=length {
        machines.push(lasting_machine(config, bugs)?);
    }
    machines[0].restart();
    let mut count = 0;
    let begun = sequence.iter().try_for_each(|&step| machines[0].step(step));
    let wrong = begun.and_then(|()| descend(&mut machines, &steps, &mut sequence, &mut count));
    let counterexample = wrong.err().map(|_| tell(&mut machines[0], &sequence));
    Ok(Searched {
        count,
        counterexample,
    })
}

/// Goes all sequences that begin where the first machine is, until one goes wrong.
fn descend(
    machines: &mut [Machine<'_>],
    steps: &[Step],
    sequence: &mut Vec<Step>,
    count: &mut u64,
) -> Result<(), Wrong> {
    let [here, rest @ ..] = machines else {
        return Ok(());
    };
    if rest.is_empty() {
        return Ok(());
    }
    for &step in steps {
        rest[0].assign(here);
        sequence.push(step);
        *count += 1;
        rest[0].step(step)?;
        descend(rest, steps, sequence, count)?;
        sequence.pop();
    }
    Ok(())
}
