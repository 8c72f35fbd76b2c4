// SPDX-License-Identifier: GPL-2.0

//! This module runs the model at length: at random, by bytes, with injected bugs; and describes
//! what it finds.

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

/// A machine with the memory it needs, for as long as a function works with it.
pub(super) fn with_machine<R>(
    config: Config,
    bugs: Bugs,
    work: impl FnOnce(&mut Machine<'_>) -> R,
) -> Result<R, String> {
    let no_memory = |_| String::from("no memory");
    let record = run::record().map_err(no_memory)?;
    let vpids = Vpids::new(&record).map_err(no_memory)?;
    let mut machine = Machine::new(config, bugs, &vpids).map_err(no_memory)?;
    Ok(work(&mut machine))
}

/// The machines that runs are made on, each with its name.
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

/// How a machine is set up.
#[derive(Clone, Copy, Debug)]
pub struct MachineType(pub(super) Config);

/// Returns the steps of a part of a random run.
fn steps(seed: u64, count: u64) -> Vec<Step> {
    let mut random = Random::new(seed);
    let mut random_steps = RandomSteps::new(&mut random);
    (0..count).map(|_| random_steps.next(&mut random)).collect()
}

/// A stale use that was found, with its shortest counterexample.
pub struct Report {
    /// The seed by which it can be repeated.
    pub seed: u64,
    /// How many steps it took.
    pub steps: u64,
    /// The counterexample.
    pub counterexample: String,
}

/// Returns what is broken, by the name of the one fault if there is one.
pub(super) fn by_name(bug: Option<&str>) -> Result<Bugs, String> {
    let Some(name) = bug else {
        return Ok(Bugs::NONE);
    };
    let mut all = Bug::ALL.iter().copied();
    all.find(|bug| bug.name() == name)
        .map(Bugs::one)
        .ok_or_else(|| std::format!("there is no bug {name}"))
}

/// What a run at random came to.
pub struct Ran {
    /// What was found, if anything was.
    pub found: Option<Report>,
    /// How many entries the CPUs gave up for want of room: those are not missed any more.
    pub evicted: u64,
}

/// Goes steps at random on a machine; `fault` is the name of something to break.
///
/// # Errors
///
/// A sentence, for a fault that there is not.
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
                counterexample: tell(machine, &short),
            }
        });
        Ran { found, evicted }
    })
}

/// Whether two things that went wrong are of one kind.
fn alike(one: Wrong, other: Wrong) -> bool {
    match (one, other) {
        (Wrong::Stale { how, .. }, Wrong::Stale { how: other, .. }) => how == other,
        _ => std::mem::discriminant(&one) == std::mem::discriminant(&other),
    }
}

/// Leaves out what is not needed for the same kind of fault, as long as there is something.
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
pub(super) fn tell(machine: &mut Machine<'_>, steps: &[Step]) -> String {
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

/// The faults that can be switched on: name, words, whether each is harmless, and the machines that
/// it is tried on.
pub fn bugs() -> Vec<(&'static str, &'static str, bool, Vec<MachineType>)> {
    Bug::ALL
        .iter()
        .map(|&bug| {
            let machines = run::machines_for(bug).map(MachineType).collect();
            (bug.name(), bug.words(), bug.is_harmless(), machines)
        })
        .collect()
}

/// A sequence that went wrong elsewhere.
pub struct Told {
    /// Its name.
    pub name: &'static str,
    /// The faults with which it has to go wrong.
    pub bugs: Vec<&'static str>,
    /// Whether it does, and goes well with fewer.
    pub good: bool,
}

/// Tells the sequences that went wrong elsewhere.
///
/// # Errors
///
/// A sentence, when there is no memory.
pub fn regressions() -> Result<Vec<Told>, String> {
    let mut told = Vec::new();
    for counterexample in regressions::all() {
        let mut good = true;
        for (bugs, wanted) in counterexample.combinations() {
            let told = with_machine(counterexample.config, bugs, |machine| {
                (counterexample.tell)(machine)
            })?;
            good &= told.is_err() == wanted;
        }
        told.push(Told {
            name: counterexample.name,
            bugs: counterexample.bugs.iter().map(|bug| bug.name()).collect(),
            good,
        });
    }
    Ok(told)
}

/// A machine in memory of its own, which it borrows for as long as the program runs.
pub(super) fn lasting_machine(config: Config, bugs: Bugs) -> Result<Machine<'static>, String> {
    let no_memory = |_| String::from("no memory");
    let record = std::boxed::Box::leak(std::boxed::Box::new(run::record().map_err(no_memory)?));
    let vpids = std::boxed::Box::leak(std::boxed::Box::new(Vpids::new(record).map_err(no_memory)?));
    Machine::new(config, bugs, vpids).map_err(no_memory)
}

/// Choices that are made by bytes; where these end, all are 0.
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
    /// The machines that bytes choose from, each made when it is chosen first.
    static MACHINES: RefCell<Vec<Option<Machine<'static>>>> = const { RefCell::new(Vec::new()) };
}

/// Runs the steps that bytes choose, on the machine that the first of them chooses.
///
/// # Errors
///
/// The counterexample, when something goes wrong.
pub fn by_bytes(bytes: &[u8]) -> Result<(), String> {
    let types = machines();
    let mut choice = Bytes(bytes);
    // CAST: There are few.
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
                Err(tell(machine, &short))
            }
        }
    })
}
