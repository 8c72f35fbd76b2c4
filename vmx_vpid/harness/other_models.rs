// SPDX-License-Identifier: GPL-2.0

//! This module runs the two smaller models: of the host's own processes, and of KVM's shadow pages.

use super::model::Report;
use crate::model::{
    host_mm,
    shadow_mmu::bug::Bug,
    shadow_run, //
};
use std::string::String;

/// A fault of the model of the host: its name, and what finds it, as [`host_mm::Mutant`] says.
pub type HostBug = (&'static str, fn(u32) -> Option<u32>);

/// The faults that can be switched on in the model of the host.
pub fn host_bugs() -> &'static [HostBug] {
    host_mm::mutants()
}

/// The names of the faults that can be switched on in the model of shadow pages.
pub fn shadow_bugs() -> impl Iterator<Item = &'static str> {
    Bug::ALL.iter().map(|broken| broken.name())
}

/// Returns something to break, by its name.
fn broken(name: &str) -> Result<Bug, String> {
    let mut all = Bug::ALL.iter().copied();
    all.find(|broken| broken.name() == name)
        .ok_or_else(|| std::format!("there is no bug {name}"))
}

/// Runs random steps on shadow pages; `bug` is the name of a bug to inject.
///
/// The result is one line: the steps before are not kept.
///
/// # Errors
///
/// A sentence, if there is no bug of that name, or no memory for the machine.
pub fn shadow(bug: Option<&str>, seed: u64, count: u64) -> Result<Option<Report>, String> {
    let broken = bug.map(broken).transpose()?;
    let found = shadow_run::run(broken, seed, count).map_err(|_| String::from("no memory"))?;
    Ok(found.map(|found| Report {
        seed: found.seed,
        steps: found.step,
        counterexample: std::format!("  {:?}\n", found.wrong),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bug_is_known_by_its_name_and_no_other_name_is() {
        for bug in Bug::ALL {
            assert!(broken(bug.name()).is_ok_and(|found| found.name() == bug.name()));
        }
        assert!(shadow(Some("NoSuchFault"), 1, 1).is_err());
    }

    #[test]
    fn nothing_is_found_without_an_injected_bug() {
        assert!(matches!(shadow(None, 1, 10_000), Ok(None)));
    }
}
