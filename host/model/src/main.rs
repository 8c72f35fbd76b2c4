// SPDX-License-Identifier: GPL-2.0

//! Long runs of the model: see Documentation/model.rst.

mod compare;

use std::{
    env,
    process::ExitCode, //
};
use vmx_vpid::host::{
    model::{
        self,
        Who, //
    },
    small, //
};

const USAGE: &str = "\
usage: model random [--seed N] [--steps N] [--machine NAME] [--fault NAME] [--first]
       model all --length N [--machine NAME]
       model shadow [--seed N] [--steps N] [--fault NAME]
       model faults [--seed N] [--steps N]
       model policies [--seed N] [--csv FILE]
       model growth [--seed N] [--csv FILE]";

/// What the command line says.
struct Arguments {
    command: String,
    seed: u64,
    steps: u64,
    length: usize,
    first: bool,
    machine: Option<String>,
    fault: Option<String>,
    csv: Option<String>,
}

fn arguments() -> Option<Arguments> {
    let mut words = env::args().skip(1);
    let mut arguments = Arguments {
        command: words.next()?,
        seed: 1,
        steps: 1_000_000,
        length: 4,
        first: false,
        machine: None,
        fault: None,
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
            "--fault" => arguments.fault = Some(value),
            "--csv" => arguments.csv = Some(value),
            _ => return None,
        }
    }
    Some(arguments)
}

/// Goes steps at random, on each machine or on one.
fn random(arguments: &Arguments) -> Result<bool, String> {
    let mut sound = true;
    let machines: Vec<_> = model::machines()
        .into_iter()
        .filter(|(name, _)| {
            arguments
                .machine
                .as_ref()
                .is_none_or(|wanted| wanted == name)
        })
        .collect();
    let each = arguments.steps / machines.len().max(1) as u64;
    for (name, machine) in machines {
        let fault = arguments.fault.as_deref();
        match model::at_random(machine, fault, arguments.seed, each)? {
            None => println!("ok - {name}: {each} steps from seed {}", arguments.seed),
            Some(report) => {
                sound = false;
                println!(
                    "not ok - {name}: after {} steps, seed {}",
                    report.steps, report.seed
                );
                print!("{}", report.story);
                if arguments.first {
                    break;
                }
            }
        }
    }
    Ok(sound)
}

/// Goes steps at random on shadow pages.
fn shadow(arguments: &Arguments) -> Result<bool, String> {
    let &Arguments { seed, steps, .. } = arguments;
    let found = small::shadow(arguments.fault.as_deref(), seed, steps)?;
    match &found {
        None => println!("ok - shadow pages: {steps} steps from seed {seed}"),
        Some(report) => {
            println!(
                "not ok - shadow pages: after {} steps, seed {}",
                report.steps, report.seed
            );
            print!("{}", report.story);
        }
    }
    Ok(found.is_none())
}

/// Goes all sequences of a length, of guests alone and of hypervisors, with one page and with two.
fn all(arguments: &Arguments) -> Result<bool, String> {
    let mut sound = true;
    for (name, machine) in model::machines() {
        if arguments
            .machine
            .as_ref()
            .is_some_and(|wanted| *wanted != name)
        {
            continue;
        }
        for who in [
            Who::Guests,
            Who::Pages,
            Who::Modes,
            Who::Hypervisors,
            Who::Epts,
        ] {
            match model::exhaustive(machine, who, arguments.length)? {
                Ok(count) => println!(
                    "ok - {name}, {who:?}, {} steps: {count} sequences",
                    arguments.length
                ),
                Err(story) => {
                    sound = false;
                    println!("not ok - {name}, {who:?}:");
                    print!("{story}");
                }
            }
        }
    }
    Ok(sound)
}

/// Breaks one thing after the other; each has to be found.
fn faults(arguments: &Arguments) -> Result<bool, String> {
    let mut sound = true;
    for (name, words, harmless, machines) in model::faults() {
        for machine in machines {
            match model::at_random(machine, Some(name), arguments.seed, arguments.steps)? {
                Some(report) if !harmless => {
                    println!("ok - {name}: found in step {}", report.steps);
                }
                None if harmless => println!("ok - {name}: harmless, and not found"),
                Some(report) => {
                    sound = false;
                    println!("not ok - {name}: harmless, but in step {}:", report.steps);
                    print!("{}", report.story);
                }
                None => {
                    sound = false;
                    println!("not ok - {name}: not found ({words})");
                }
            }
        }
    }
    // The host's own processes have a model of their own.
    let steps = u32::try_from(arguments.steps).unwrap_or(u32::MAX);
    for (name, find) in small::host_faults() {
        match find(steps) {
            Some(step) => println!("ok - {name}: found in step {step} of the host"),
            None => {
                sound = false;
                println!("not ok - {name}: not found in {steps} steps of the host");
            }
        }
    }
    // Those that would hardly ever be met at random have sequences of their own.
    for story in model::stories()? {
        sound &= story.good;
        let start = if story.good { "ok" } else { "not ok" };
        for name in story.faults {
            println!("{start} - {name}: by the story '{}'", story.name);
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
        "faults" => faults(&arguments),
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
