// SPDX-License-Identifier: GPL-2.0

//! This module runs all short sequences of steps on the model.

use super::model::{
    by_name,
    describe,
    lasting_machine,
    MachineType, //
};
use crate::model::{
    machine::{
        Machine,
        Wrong, //
    },
    search::exhaustive::{
        self,
        Subject, //
    },
    step::Step, //
};
use std::{
    string::String,
    vec::Vec, //
};

/// A step set: the steps of a search's sequences.
#[derive(Clone, Copy)]
pub struct StepSet(Subject);

impl StepSet {
    /// Returns all step sets.
    pub fn all() -> impl Iterator<Item = Self> {
        Subject::ALL.into_iter().map(Self)
    }

    /// Returns the name.
    pub fn name(self) -> String {
        std::format!("{:?}", self.0)
    }

    /// Returns bugs that the search has to find, each with the name of a machine.
    pub fn finds(self) -> impl Iterator<Item = (&'static str, &'static str)> {
        let bugs = self.0.finds().iter();
        bugs.map(|&(bug, machine)| (bug.name(), machine))
    }
}

/// The usual number of steps of a sequence, without the prefix.
pub const LENGTH: usize = exhaustive::LENGTH;

/// The result of a search.
pub struct Searched {
    /// The number of sequences that were executed, including each beginning of a longer sequence.
    pub count: u64,
    /// The counterexample, if the search found an error.
    pub counterexample: Option<String>,
}

/// Executes all sequences of `length` steps of a step set, each after the prefix of the set, until
/// the first error; `bug` is the name of a bug to inject.
///
/// # Errors
///
/// A message, if there is no bug of that name or no memory.
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
    // One machine for each depth: all longer sequences start from the machine of their depth.
    let mut machines = Vec::new();
    for _ in 0..=length {
        machines.push(lasting_machine(config, bugs)?);
    }
    machines[0].restart();
    let mut count = 0;
    let begun = sequence.iter().try_for_each(|&step| machines[0].step(step));
    let wrong = begun.and_then(|()| descend(&mut machines, &steps, &mut sequence, &mut count));
    let counterexample = wrong.err().map(|_| describe(&mut machines[0], &sequence));
    Ok(Searched {
        count,
        counterexample,
    })
}

/// Executes all sequences that start from the state of the first machine, until the first error.
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
