// SPDX-License-Identifier: GPL-2.0

//! This program runs the models: see Documentation/model.rst.

mod compare;

use std::{
    env,
    process::ExitCode, //
};
use vmx_vpid::harness::{
    exhaustive::{
        self,
        StepSet, //
    },
    model::{
        self,
        MachineType, //
    },
    other_models, //
};

const USAGE: &str = "\
usage: model random [--seed N] [--steps N] [--machine NAME] [--bug NAME] [--first]
       model all [--length N] [--machine NAME] [--step-set NAME] [--bug NAME]
       model shadow [--seed N] [--steps N] [--bug NAME]
       model bugs [--seed N] [--steps N]
       model policies [--seed N] [--csv FILE]
       model growth [--seed N] [--csv FILE]";

/// The arguments of the command line.
struct Arguments {
    command: String,
    seed: u64,
    steps: u64,
    length: usize,
    first: bool,
    machine: Option<String>,
    step_set: Option<String>,
    bug: Option<String>,
    csv: Option<String>,
}

fn arguments() -> Option<Arguments> {
    let mut words = env::args().skip(1);
    let mut arguments = Arguments {
        command: words.next()?,
        seed: 1,
        steps: 1_000_000,
        length: exhaustive::LENGTH,
        first: false,
        machine: None,
        step_set: None,
        bug: None,
        csv: None,
    };
    while let Some(name) = words.next() {
        if name == "--first" {
            arguments.first = true;
            continue;
        }
        let value = words.next()?;
        match name.as_str() {
            "--seed" => arguments.seed = value.parse().ok()?,
            "--steps" => arguments.steps = value.parse().ok()?,
            "--length" => arguments.length = value.parse().ok()?,
            "--machine" => arguments.machine = Some(value),
            "--step-set" => arguments.step_set = Some(value),
            "--bug" => arguments.bug = Some(value),
            "--csv" => arguments.csv = Some(value),
            _ => return None,
        }
    }
    Some(arguments)
}

/// Returns the machine with the given name, or all machines, each with its name.
fn machines(arguments: &Arguments) -> Vec<(String, MachineType)> {
    let wanted = arguments.machine.as_ref();
    let named = |name: &String| wanted.is_none_or(|wanted| wanted == name);
    let all = model::machines().into_iter();
    all.filter(|(name, _)| named(name)).collect()
}

/// Executes random steps on each machine, or on one machine.
fn random(arguments: &Arguments) -> Result<bool, String> {
    let mut sound = true;
    let machines = machines(arguments);
    let each = arguments.steps / machines.len().max(1) as u64;
    for (name, machine) in machines {
        let bug = arguments.bug.as_deref();
        let ran = model::at_random(machine, bug, arguments.seed, each)?;
        match ran.found {
            None => println!(
                "ok - {name}: {each} steps from seed {}, {} entries evicted",
                arguments.seed, ran.evicted
            ),
            Some(report) => {
                sound = false;
                println!(
                    "not ok - {name}: after {} steps, seed {}",
                    report.steps, report.seed
                );
                print!("{}", report.counterexample);
                if arguments.first {
                    break;
                }
            }
        }
    }
    Ok(sound)
}

/// Executes random steps on shadow pages.
fn shadow(arguments: &Arguments) -> Result<bool, String> {
    let &Arguments { seed, steps, .. } = arguments;
    let found = other_models::shadow(arguments.bug.as_deref(), seed, steps)?;
    match &found {
        None => println!("ok - shadow pages: {steps} steps from seed {seed}"),
        Some(report) => {
            println!(
                "not ok - shadow pages: after {} steps, seed {}",
                report.steps, report.seed
            );
            print!("{}", report.counterexample);
        }
    }
    Ok(found.is_none())
}

/// Executes all sequences of each step set, or of one step set, of a given length.
fn all(arguments: &Arguments) -> Result<bool, String> {
    let mut sound = true;
    let (length, bug) = (arguments.length, arguments.bug.as_deref());
    for (name, machine) in machines(arguments) {
        for step_set in StepSet::all() {
            let about = step_set.name();
            let mut wanted = arguments.step_set.iter();
            if wanted.any(|wanted| *wanted != about) {
                continue;
            }
            let searched = exhaustive::search(machine, step_set, length, bug)?;
            let count = searched.count;
            match searched.counterexample {
                None => println!("ok - {name}, {about}, {length} steps: {count} sequences"),
                Some(counterexample) => {
                    sound = false;
                    println!("not ok - {name}, {about}, {length} steps: in sequence {count}");
                    print!("{counterexample}");
                }
            }
        }
    }
    Ok(sound)
}

/// Checks that each exhaustive search finds its bugs.
fn found_by_all() -> Result<bool, String> {
    let mut sound = true;
    let machines = model::machines();
    for step_set in StepSet::all() {
        let about = step_set.name();
        for (bug, wanted) in step_set.finds() {
            let machine = machines.iter().find(|(name, _)| name == wanted);
            let (_, machine) = machine.ok_or_else(|| format!("there is no machine {wanted}"))?;
            let searched = exhaustive::search(*machine, step_set, exhaustive::LENGTH, Some(bug))?;
            let (found, count) = (searched.counterexample.is_some(), searched.count);
            sound &= found;
            let (start, word) = if found {
                ("ok", "found in")
            } else {
                ("not ok", "not found in")
            };
            println!("{start} - {bug}: {word} sequence {count} of {about}, {wanted}");
        }
    }
    Ok(sound)
}

/// Injects one bug after the other, and checks that the models find each bug.
fn bugs(arguments: &Arguments) -> Result<bool, String> {
    let mut sound = true;
    for (name, words, harmless, machines) in model::bugs() {
        for machine in machines {
            let ran = model::at_random(machine, Some(name), arguments.seed, arguments.steps)?;
            match ran.found {
                Some(report) if !harmless => {
                    println!("ok - {name}: found in step {}", report.steps);
                }
                None if harmless => println!("ok - {name}: a control, and not found"),
                Some(report) => {
                    sound = false;
                    println!(
                        "not ok - {name}: a control, but found in step {}:",
                        report.steps
                    );
                    print!("{}", report.counterexample);
                }
                None => {
                    sound = false;
                    println!("not ok - {name}: not found ({words})");
                }
            }
        }
    }
    // The model of the host's own processes.
    let steps = u32::try_from(arguments.steps).unwrap_or(u32::MAX);
    for (name, find) in other_models::host_bugs() {
        match find(steps) {
            Some(step) => println!("ok - {name}: found in step {step} of the host"),
            None => {
                sound = false;
                println!("not ok - {name}: not found in {steps} steps of the host");
            }
        }
    }
    // The model of shadow pages.
    for name in other_models::shadow_bugs() {
        match other_models::shadow(Some(name), arguments.seed, arguments.steps)? {
            Some(report) => println!(
                "ok - {name}: found in step {} of shadow pages",
                report.steps
            ),
            None => {
                sound = false;
                println!(
                    "not ok - {name}: not found in {} steps of shadow pages",
                    arguments.steps
                );
            }
        }
    }
    sound &= found_by_all()?;
    // The regressions find bugs that random steps would hardly ever find.
    for regression in model::regressions()? {
        sound &= regression.good;
        let start = if regression.good { "ok" } else { "not ok" };
        for name in regression.bugs {
            println!("{start} - {name}: by the regression '{}'", regression.name);
        }
    }
    Ok(sound)
}

fn main() -> ExitCode {
    let Some(arguments) = arguments() else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let result = match arguments.command.as_str() {
        "random" => random(&arguments),
        "all" => all(&arguments),
        "shadow" => shadow(&arguments),
        "bugs" => bugs(&arguments),
        "policies" => compare::policies(arguments.seed, arguments.csv.as_deref()),
        "growth" => compare::growth(arguments.seed, arguments.csv.as_deref()),
        _ => Err(USAGE.into()),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}
