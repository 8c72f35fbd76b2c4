// SPDX-License-Identifier: GPL-2.0

//! This module runs two more models: that of the host's own processes, and that of shadow pages.

use super::model::Report;
use crate::model::{
    host_mm,
    shadow_mmu::bug::Bug,
    shadow_run, //
};
use std::string::String;

/// Returns the bugs that can be injected into the host's model: the name of each, and the function
/// that finds the bug.
pub fn host_bugs() -> impl Iterator<Item = (&'static str, impl Fn(u32) -> Option<u32>)> {
    host_mm::mutants()
}

/// Returns the names of the bugs that can be injected into the model of shadow pages.
pub fn shadow_bugs() -> impl Iterator<Item = &'static str> {
    Bug::ALL.iter().map(|broken| broken.name())
}

/// Returns the bug of a name.
fn broken(name: &str) -> Result<Bug, String> {
    let mut all = Bug::ALL.iter().copied();
    all.find(|broken| broken.name() == name)
        .ok_or_else(|| std::format!("there is no bug {name}"))
}

/// Runs random steps on shadow pages; `bug` is the name of a bug to inject.
///
/// The counterexample is one line, the error: this model does not record its steps.
///
/// # Errors
///
/// A message, if there is no bug of that name or no memory.
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
    fn bugs_are_found_by_name_and_unknown_names_are_refused() {
        for bug in Bug::ALL {
            assert!(broken(bug.name()).is_ok_and(|found| found.name() == bug.name()));
        }
        assert!(shadow(Some("NoSuchBug"), 1, 1).is_err());
    }

    #[test]
    fn shadow_pages_have_no_error_without_an_injected_bug() {
        assert!(matches!(shadow(None, 1, 10_000), Ok(None)));
    }
}
