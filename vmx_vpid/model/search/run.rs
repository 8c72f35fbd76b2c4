// SPDX-License-Identifier: GPL-2.0

//! A run executes steps one after the other, until the model finds an error.

use super::random::RandomSteps;
use crate::{
    flush::policy::Switches,
    model::{
        bug::{
            Bug,
            Bugs,
            Needs, //
        },
        kvm::vpids::Vpids,
        machine::{
            Backend,
            Config,
            Machine,
            Wrong, //
        },
        random::Random,
        step::Step, //
    },
    vpid::{
        flushed_cpus::FlushedCpus,
        Vpid, //
    }, //
};
use core::cell::Cell;
use kernel::prelude::*;

/// The number of steps after which a run restarts without VMs, which keeps counterexamples short.
pub(crate) const LENGTH: u64 = 200;

/// Allocates the words of a machine's FlushedCpus.
pub(crate) fn flushed_words() -> Result<KVVec<Cell<u64>>> {
    let flushed = KVVec::from_elem(Cell::new(0), Vpid::COUNT, GFP_KERNEL)?;
    for (place, word) in flushed.iter().enumerate() {
        word.set(FlushedCpus::<Cell<u64>>::initially(place));
    }
    Ok(flushed)
}

/// An error that a run found.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found {
    /// The seed of the part of the run that has the error.
    pub(crate) seed: u64,
    /// The number of the failing step in that part.
    pub(crate) step: u64,
    /// The number of the failing step in the whole run.
    pub(crate) total: u64,
    /// The error.
    pub(crate) wrong: Wrong,
}

/// Executes random steps; returns the first error.
///
/// Each [`LENGTH`] steps are a part with a seed of its own, which repeats the part alone.
pub(crate) fn at_random(machine: &mut Machine<'_>, seed: u64, steps: u64) -> Option<Found> {
    let mut total = 0;
    let mut part = seed;
    while total < steps {
        machine.restart();
        let mut random = Random::new(part);
        let mut random_steps = RandomSteps::new(&mut random);
        for step in 0..LENGTH {
            total += 1;
            if let Err(wrong) = machine.step(random_steps.next(&mut random)) {
                return Some(Found {
                    seed: part,
                    step,
                    total,
                    wrong,
                });
            }
        }
        part = part.wrapping_add(1);
    }
    None
}

/// Executes given steps on a restarted machine; returns the number of the failing step, and the
/// error.
pub(crate) fn replay(
    machine: &mut Machine<'_>,
    steps: impl IntoIterator<Item = Step>,
) -> Option<(usize, Wrong)> {
    machine.restart();
    steps.into_iter().enumerate().find_map(|(number, step)| {
        let wrong = machine.step(step).err()?;
        Some((number, wrong))
    })
}

/// Returns the machines on which a bug does harm.
pub(crate) fn machines_for(bug: Bug) -> impl Iterator<Item = Config> {
    let by_context = Switches {
        flush_context: true,
        ..Switches::default()
    };
    let with = |ept, switches| Config {
        switches,
        ..Config::usual(ept)
    };
    let generations = |ept| Config {
        backend: Backend::Generations,
        ..Config::usual(ept)
    };
    let plain = Switches::default();
    let (first, second) = match bug.needs() {
        Needs::Both => (with(true, plain), Some(with(false, plain))),
        Needs::Ept => (with(true, plain), None),
        Needs::Shadow => (with(false, plain), None),
        Needs::EptByContext => (with(true, by_context), None),
        Needs::ShadowByContext => (with(false, by_context), None),
        Needs::UnknownRoots => (
            Config {
                unknown_roots: true,
                ..with(true, by_context)
            },
            None,
        ),
        Needs::Generations => (generations(true), Some(generations(false))),
        Needs::EptGenerations => (generations(true), None),
        Needs::Nothing => (with(true, by_context), Some(with(false, by_context))),
        Needs::Regression => return [None, None].into_iter().flatten(),
    };
    [Some(first), second].into_iter().flatten()
}

/// Executes random steps with an injected bug; returns the first error.
///
/// # Errors
///
/// [`ENOMEM`].
pub(crate) fn with_bug(config: Config, bug: Bug, seed: u64, steps: u64) -> Result<Option<Found>> {
    let flushed = flushed_words()?;
    let vpids = Vpids::new(&flushed)?;
    let mut machine = Machine::new(config, Bugs::one(bug), &vpids)?;
    Ok(at_random(&mut machine, seed, steps))
}
