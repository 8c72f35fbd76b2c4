// SPDX-License-Identifier: GPL-2.0

//! Runs of the two smaller models: of the host's own processes, and of KVM's shadow pages.

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

/// Goes steps at random on shadow pages; `fault` is the name of something to break.
///
/// What it finds is told in a line: the steps before are not kept.
///
/// # Errors
///
/// A sentence, for a fault that there is not, and if there is no memory for the machine.
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
    fn each_fault_is_known_by_its_name_and_no_other_is() {
        for bug in Bug::ALL {
            assert!(broken(bug.name()).is_ok_and(|found| found.name() == bug.name()));
        }
        assert!(shadow(Some("NoSuchFault"), 1, 1).is_err());
    }

    #[test]
    fn nothing_is_found_without_a_fault() {
        assert!(matches!(shadow(None, 1, 10_000), Ok(None)));
    }
}
