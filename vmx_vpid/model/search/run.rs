// SPDX-License-Identifier: GPL-2.0

//! This module runs steps one after the other, until the oracle finds something.

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

/// The number of steps after which a run starts again, with no VM, so that a counterexample stays
/// short.
pub(crate) const LENGTH: u64 = 200;

/// Memory for the record of a machine.
pub(crate) fn record() -> Result<KVVec<Cell<u64>>> {
    let record = KVVec::from_elem(Cell::new(0), Vpid::COUNT, GFP_KERNEL)?;
    for (place, word) in record.iter().enumerate() {
        word.set(FlushedCpus::<Cell<u64>>::initially(place));
    }
    Ok(record)
}

/// Something that went wrong in a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found {
    /// The seed of the part of the run in which it was.
    pub(crate) seed: u64,
    /// In which step of that part.
    pub(crate) step: u64,
    /// In which step of the whole run.
    pub(crate) total: u64,
    /// What went wrong.
    pub(crate) wrong: Wrong,
}

/// Goes so many steps at random; returns what went wrong, if anything did.
///
/// Each [`LENGTH`] steps are a part with a seed of its own, by which it can be repeated alone.
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

/// Goes certain steps from the beginning; returns in which of them something went wrong, and what.
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

/// Returns the machines on which a fault does harm.
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
        Needs::Told => return [None, None].into_iter().flatten(),
    };
    [Some(first), second].into_iter().flatten()
}

/// Goes so many steps with something broken; returns what was found.
///
/// # Errors
///
/// [`ENOMEM`].
pub(crate) fn with_bug(config: Config, bug: Bug, seed: u64, steps: u64) -> Result<Option<Found>> {
    let record = record()?;
    let vpids = Vpids::new(&record)?;
    let mut machine = Machine::new(config, Bugs::one(bug), &vpids)?;
    Ok(at_random(&mut machine, seed, steps))
}
