// SPDX-License-Identifier: GPL-2.0

//! This module runs the model for many steps, which are random or chosen by bytes, with or without
//! an injected bug, and describes the errors that it finds.

use crate::{
    flush::policy::Switches,
    model::{
        bug::{
            Bug,
            Bugs, //
        },
        kvm::vpids::Vpids,
        machine::{
            Backend,
            Config,
            Machine,
            Wrong, //
        },
        random::{
            Choice,
            Random, //
        },
        search::{
            random::RandomSteps,
            regressions,
            run, //
        },
        step::Step, //
    }, //
};
use std::{
    cell::RefCell,
    fmt::Write,
    string::String,
    vec::Vec, //
};

/// Makes a machine and its memory, and calls a function on the machine.
pub(super) fn with_machine<R>(
    config: Config,
    bugs: Bugs,
    work: impl FnOnce(&mut Machine<'_>) -> R,
) -> Result<R, String> {
    let no_memory = |_| String::from("no memory");
    let flushed = run::flushed_words().map_err(no_memory)?;
    let vpids = Vpids::new(&flushed).map_err(no_memory)?;
    let mut machine = Machine::new(config, bugs, &vpids).map_err(no_memory)?;
    Ok(work(&mut machine))
}

/// Returns the machines of the runs, each with its name.
pub fn machines() -> Vec<(String, MachineType)> {
    let mut all = Vec::new();
    for ept in [true, false] {
        let base = if ept { "ept" } else { "shadow" };
        let usual = Config::usual(ept);
        let mut add = |name: &str, config| {
            all.push((std::format!("{base}{name}"), MachineType(config)));
        };
        let switches = |flush_context, caps_mask, force_flush| Switches {
            flush_context,
            caps_mask,
            force_flush,
            ..Switches::default()
        };
        let with = |switches| Config { switches, ..usual };
        let by_context = with(switches(true, 0, false));
        add("", usual);
        add(",context", by_context);
        add(",force", with(switches(false, 0, true)));
        for bit in [25, 41, 42] {
            add(
                &std::format!(",force,no{bit}"),
                with(switches(false, 1 << bit, true)),
            );
        }
        add(
            ",context,no25,no40",
            with(switches(true, 1 << 25 | 1 << 40, false)),
        );
        for (name, backend) in [
            (",c", Backend::C),
            (",both", Backend::Both),
            (",generations", Backend::Generations),
        ] {
            add(name, Config { backend, ..usual });
        }
        for bit in [25, 40, 41, 42] {
            add(
                &std::format!(",context,no{bit}"),
                with(switches(true, 1 << bit, false)),
            );
        }
        add(",no42", with(switches(false, 1 << 42, false)));
        add(
            ",novpid",
            Config {
                vpid: false,
                ..usual
            },
        );
        add(
            ",context,novpid",
            Config {
                vpid: false,
                ..by_context
            },
        );
        add(
            ",context,unknown",
            Config {
                unknown_roots: true,
                ..by_context
            },
        );
        add(
            ",context,noad",
            Config {
                accessed_dirty: false,
                ..by_context
            },
        );
        add(
            ",context,nopcid",
            Config {
                pcids: false,
                ..by_context
            },
        );
        add(",vpids2", Config { vpids: 2, ..usual });
        for vpids in [0, 1, 2, 100] {
            add(
                &std::format!(",context,vpids{vpids}"),
                Config {
                    vpids,
                    ..by_context
                },
            );
        }
    }
    all
}

/// The setup of a machine.
#[derive(Clone, Copy, Debug)]
pub struct MachineType(pub(super) Config);

/// Returns the steps of a part of a random run.
fn steps(seed: u64, count: u64) -> Vec<Step> {
    let mut random = Random::new(seed);
    let mut random_steps = RandomSteps::new(&mut random);
    (0..count).map(|_| random_steps.next(&mut random)).collect()
}

/// An error that was found, with a short counterexample.
pub struct Report {
    /// The seed that repeats the part of the run with the error.
    pub seed: u64,
    /// The number of steps until the error.
    pub steps: u64,
    /// The counterexample.
    pub counterexample: String,
}

/// Returns the set with the bug of a name; the empty set if there is no name.
pub(super) fn by_name(bug: Option<&str>) -> Result<Bugs, String> {
    let Some(name) = bug else {
        return Ok(Bugs::NONE);
    };
    let mut all = Bug::ALL.iter().copied();
    all.find(|bug| bug.name() == name)
        .map(Bugs::one)
        .ok_or_else(|| std::format!("there is no bug {name}"))
}

/// The result of a random run.
pub struct Ran {
    /// The error, if the run found one.
    pub found: Option<Report>,
    /// The number of entries that the CPUs evicted for lack of room: a missing flush of an evicted
    /// entry does not show.
    pub evicted: u64,
}

/// Executes random steps on a machine; `bug` is the name of a bug to inject.
///
/// # Errors
///
/// A message, if there is no bug of that name or no memory.
pub fn at_random(
    machine_type: MachineType,
    bug: Option<&str>,
    seed: u64,
    count: u64,
) -> Result<Ran, String> {
    with_machine(machine_type.0, by_name(bug)?, |machine| {
        let found = run::at_random(machine, seed, count);
        let evicted = machine.evicted();
        let found = found.map(|found| {
            let steps = steps(found.seed, found.step + 1);
            let short = shrink(machine, steps, found.wrong);
            Report {
                seed: found.seed,
                steps: found.total,
                counterexample: describe(machine, &short),
            }
        });
        Ran { found, evicted }
    })
}

/// Returns whether two errors are of the same kind.
fn alike(one: Wrong, other: Wrong) -> bool {
    match (one, other) {
        (Wrong::Stale { how, .. }, Wrong::Stale { how: other, .. }) => how == other,
        _ => std::mem::discriminant(&one) == std::mem::discriminant(&other),
    }
}

/// Removes steps from a failing sequence, as long as the rest fails with an error of the same kind.
fn shrink(machine: &mut Machine<'_>, steps: Vec<Step>, wrong: Wrong) -> Vec<Step> {
    let mut short = steps;
    let mut piece = short.len().div_ceil(2);
    loop {
        let mut at = 0;
        let before = short.len();
        while at < short.len() {
            let end = (at + piece).min(short.len());
            let less: Vec<Step> = [&short[..at], &short[end..]].concat();
            match run::replay(machine, less.iter().copied()) {
                Some((last, found)) if alike(found, wrong) => {
                    short = less;
                    short.truncate(last + 1);
                }
                _ => at += piece,
            }
        }
        if piece == 1 && short.len() == before {
            return short;
        }
        piece = piece.div_ceil(2).max(1);
    }
}

/// Describes a sequence as a counterexample.
pub(super) fn describe(machine: &mut Machine<'_>, steps: &[Step]) -> String {
    let mut counterexample = String::new();
    for (number, step) in steps.iter().enumerate() {
        let _ = writeln!(counterexample, "  {:2}. {step}", number + 1);
    }
    if let Some((_, wrong)) = run::replay(machine, steps.iter().copied()) {
        let _ = writeln!(counterexample, "      {wrong}");
        if let Wrong::Stale { cpu, entry, .. } = wrong {
            if let Some(cached) = machine.cached(cpu, entry) {
                let _ = writeln!(counterexample, "      ({cached})");
            }
        }
    }
    counterexample
}

/// Returns the bugs that can be injected: the name, the description, whether the bug is harmless,
/// and the machines to try.
pub fn bugs() -> Vec<(&'static str, &'static str, bool, Vec<MachineType>)> {
    Bug::ALL
        .iter()
        .map(|&bug| {
            let machines = run::machines_for(bug).map(MachineType).collect();
            (bug.name(), bug.words(), bug.is_harmless(), machines)
        })
        .collect()
}

/// The result of a regression: a sequence that went wrong in another system.
pub struct RegressionResult {
    /// The name.
    pub name: &'static str,
    /// The bugs with which the sequence has to fail.
    pub bugs: Vec<&'static str>,
    /// The sequence fails with all of the bugs, and passes with fewer.
    pub good: bool,
}

/// Runs all regressions.
///
/// # Errors
///
/// A message, if there is no memory.
pub fn regressions() -> Result<Vec<RegressionResult>, String> {
    let mut results = Vec::new();
    for counterexample in regressions::all() {
        let mut good = true;
        for (bugs, wanted) in counterexample.combinations() {
            let result = with_machine(counterexample.config, bugs, |machine| {
                (counterexample.run)(machine)
            })?;
            good &= result.is_err() == wanted;
        }
        results.push(RegressionResult {
            name: counterexample.name,
            bugs: counterexample.bugs.iter().map(|bug| bug.name()).collect(),
            good,
        });
    }
    Ok(results)
}

/// Makes a machine whose memory is never freed.
pub(super) fn lasting_machine(config: Config, bugs: Bugs) -> Result<Machine<'static>, String> {
    let no_memory = |_| String::from("no memory");
    let flushed = std::boxed::Box::leak(std::boxed::Box::new(
        run::flushed_words().map_err(no_memory)?,
    ));
    let vpids = std::boxed::Box::leak(std::boxed::Box::new(
        Vpids::new(flushed).map_err(no_memory)?,
    ));
    Machine::new(config, bugs, vpids).map_err(no_memory)
}

/// Choices by bytes; behind the last byte, every choice is 0.
struct Bytes<'a>(&'a [u8]);

impl Choice for Bytes<'_> {
    fn below(&mut self, end: u32) -> u32 {
        let count = if end <= 256 { 1 } else { 4 };
        let (now, later) = self.0.split_at(self.0.len().min(count));
        self.0 = later;
        let number = now
            .iter()
            .fold(0, |number, &byte| number << 8 | u32::from(byte));
        number % end
    }
}

std::thread_local! {
    /// The machines that bytes choose from; a machine is made when it is chosen for the first time.
    static MACHINES: RefCell<Vec<Option<Machine<'static>>>> = const { RefCell::new(Vec::new()) };
}

/// Executes the steps that bytes choose, on the machine that the first byte chooses.
///
/// # Errors
///
/// The counterexample, if the model finds an error.
pub fn by_bytes(bytes: &[u8]) -> Result<(), String> {
    let types = machines();
    let mut choice = Bytes(bytes);
    // CAST: There are fewer than 256 machines.
    let which = choice.below(types.len() as u32) as usize;
    MACHINES.with_borrow_mut(|made| {
        made.resize_with(types.len(), || None);
        let machine = match &mut made[which] {
            Some(machine) => machine,
            empty => empty.insert(lasting_machine(types[which].1 .0, Bugs::NONE)?),
        };
        let mut random_steps = RandomSteps::new(&mut choice);
        let mut steps = Vec::new();
        while !choice.0.is_empty() {
            steps.push(random_steps.next(&mut choice));
        }
        match run::replay(machine, steps.iter().copied()) {
            None => Ok(()),
            Some((last, wrong)) => {
                steps.truncate(last + 1);
                let short = shrink(machine, steps, wrong);
                Err(describe(machine, &short))
            }
        }
    })
}
