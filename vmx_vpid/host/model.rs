// SPDX-License-Identifier: GPL-2.0

//! Long runs of the model: at random, by all short sequences, with faults; and the stories of what
//! they find.

use crate::{
    model::{
        alphabet,
        course::{
            Choice,
            Course,
            Random, //
        },
        fault::{
            Fault,
            Faults, //
        },
        machine::{
            Backend,
            Config,
            Machine,
            Wrong, //
        },
        run,
        step::Step,
        stories,
        vpids::Vpids, //
    },
    policy::Switches, //
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
    faults: Faults,
    work: impl FnOnce(&mut Machine<'_>) -> R,
) -> Result<R, String> {
    let no_memory = |_| String::from("no memory");
    let record = run::record().map_err(no_memory)?;
    let vpids = Vpids::new(&record).map_err(no_memory)?;
    let mut machine = Machine::new(config, faults, &vpids).map_err(no_memory)?;
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

/// What an exhaustive search is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// Guests that run nobody.
    Guests,
    /// Guests of two VMs with two pages each, on two CPUs.
    Pages,
    /// A guest that goes from one mode to another.
    Modes,
    /// Hypervisors.
    Hypervisors,
    /// Two vCPUs of a hypervisor that changes its EPT.
    Epts,
}

impl From<Who> for alphabet::Who {
    fn from(who: Who) -> Self {
        match who {
            Who::Guests => Self::Guests,
            Who::Pages => Self::Pages,
            Who::Modes => Self::Modes,
            Who::Hypervisors => Self::Hypervisors,
            Who::Epts => Self::Epts,
        }
    }
}

/// How a machine is set up.
#[derive(Clone, Copy, Debug)]
pub struct MachineType(Config);

/// Returns the steps of a part of a random run.
fn steps(seed: u64, count: u64) -> Vec<Step> {
    let mut random = Random::new(seed);
    let mut course = Course::new(&mut random);
    (0..count).map(|_| course.next(&mut random)).collect()
}

/// Something that was found, with its shortest story.
pub struct Report {
    /// The seed by which it can be repeated.
    pub seed: u64,
    /// How many steps it took.
    pub steps: u64,
    /// The story.
    pub story: String,
}

/// Goes steps at random on a machine; `fault` is the name of something to break.
///
/// # Errors
///
/// A sentence, for a fault that there is not.
pub fn at_random(
    machine_type: MachineType,
    fault: Option<&str>,
    seed: u64,
    count: u64,
) -> Result<Option<Report>, String> {
    let faults = match fault {
        None => Faults::NONE,
        Some(name) => Faults::one(
            Fault::ALL
                .iter()
                .copied()
                .find(|fault| fault.name() == name)
                .ok_or_else(|| std::format!("there is no fault {name}"))?,
        ),
    };
    with_machine(machine_type.0, faults, |machine| {
        let found = run::at_random(machine, seed, count)?;
        let steps = steps(found.seed, found.step + 1);
        let short = shrink(machine, steps, found.wrong);
        Some(Report {
            seed: found.seed,
            steps: found.total,
            story: tell(machine, &short),
        })
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

/// Tells a sequence as a story.
fn tell(machine: &mut Machine<'_>, steps: &[Step]) -> String {
    let mut story = String::new();
    for (number, step) in steps.iter().enumerate() {
        let _ = writeln!(story, "  {:2}. {step}", number + 1);
    }
    if let Some((_, wrong)) = run::replay(machine, steps.iter().copied()) {
        let _ = writeln!(story, "      {wrong}");
        if let Wrong::Stale { cpu, entry, .. } = wrong {
            if let Some(cached) = machine.cached(cpu, entry) {
                let _ = writeln!(story, "      ({cached})");
            }
        }
    }
    story
}

/// The faults that can be switched on: name, words, whether each is harmless, and the machines that
/// it is tried on.
pub fn faults() -> Vec<(&'static str, &'static str, bool, Vec<MachineType>)> {
    Fault::ALL
        .iter()
        .map(|&fault| {
            let machines = run::machines_for(fault).map(MachineType).collect();
            (fault.name(), fault.words(), fault.is_harmless(), machines)
        })
        .collect()
}

/// A sequence that went wrong elsewhere.
pub struct Told {
    /// Its name.
    pub name: &'static str,
    /// The faults with which it has to go wrong.
    pub faults: Vec<&'static str>,
    /// Whether it does, and goes well without.
    pub good: bool,
}

/// Tells the sequences that went wrong elsewhere.
///
/// # Errors
///
/// A sentence, when there is no memory.
pub fn stories() -> Result<Vec<Told>, String> {
    let mut told = Vec::new();
    for story in stories::all() {
        let sound = with_machine(story.config, Faults::NONE, |machine| (story.tell)(machine))?;
        let faults = Faults::all(story.faults);
        let broken = with_machine(story.config, faults, |machine| (story.tell)(machine))?;
        told.push(Told {
            name: story.name,
            faults: story.faults.iter().map(|fault| fault.name()).collect(),
            good: sound.is_ok() && broken.is_err(),
        });
    }
    Ok(told)
}

/// A machine in memory of its own, which it borrows for as long as the program runs.
fn lasting_machine(config: Config) -> Result<Machine<'static>, String> {
    let no_memory = |_| String::from("no memory");
    let record = std::boxed::Box::leak(std::boxed::Box::new(run::record().map_err(no_memory)?));
    let vpids = std::boxed::Box::leak(std::boxed::Box::new(Vpids::new(record).map_err(no_memory)?));
    Machine::new(config, Faults::NONE, vpids).map_err(no_memory)
}

/// Goes all sequences of a certain length of a few steps; returns how many there were, or the
/// shortest story of one that went wrong.
///
/// # Errors
///
/// A sentence, when there is no memory.
pub fn exhaustive(
    machine_type: MachineType,
    who: Who,
    length: usize,
) -> Result<Result<u64, String>, String> {
    let config = machine_type.0;
    let mut letters = Vec::new();
    alphabet::each(config.ept, who.into(), |step| letters.push(step));
    // One machine for each depth: that of a depth is where all longer sequences begin.
    let mut machines = Vec::new();
    for _ in 0..=length {
        machines.push(lasting_machine(config)?);
    }
    machines[0].restart();
    let mut word = Vec::with_capacity(length);
    let mut count = 0;
    let wrong = descend(&mut machines, &letters, &mut word, &mut count);
    if wrong.is_err() {
        return Ok(Err(tell(&mut machines[0], &word)));
    }
    Ok(Ok(count))
}

/// Goes all sequences that begin where the first machine is; those that go wrong end there.
fn descend(
    machines: &mut [Machine<'_>],
    letters: &[Step],
    word: &mut Vec<Step>,
    count: &mut u64,
) -> Result<(), Wrong> {
    let [here, rest @ ..] = machines else {
        return Ok(());
    };
    if rest.is_empty() {
        return Ok(());
    }
    for &letter in letters {
        // Without a VM nothing happens: every sequence begins with one.
        if word.is_empty() && letter != Step::Create(0) {
            continue;
        }
        rest[0].assign(here);
        word.push(letter);
        *count += 1;
        rest[0].step(letter)?;
        descend(rest, letters, word, count)?;
        word.pop();
    }
    Ok(())
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

/// Goes the steps that bytes stand for, on the machine that the first of them chooses.
///
/// # Errors
///
/// The story, when something goes wrong.
pub fn by_bytes(bytes: &[u8]) -> Result<(), String> {
    let types = machines();
    let mut choice = Bytes(bytes);
    // CAST: There are few.
    let which = choice.below(types.len() as u32) as usize;
    MACHINES.with_borrow_mut(|made| {
        made.resize_with(types.len(), || None);
        let machine = match &mut made[which] {
            Some(machine) => machine,
            empty => empty.insert(lasting_machine(types[which].1 .0)?),
        };
        let mut course = Course::new(&mut choice);
        let mut steps = Vec::new();
        while !choice.0.is_empty() {
            steps.push(course.next(&mut choice));
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
