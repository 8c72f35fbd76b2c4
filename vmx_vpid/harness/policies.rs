// SPDX-License-Identifier: GPL-2.0

//! This module counts the cost of flush policies for guests: the TLB misses of many VMs on two
//! CPUs.
//!
//! The machines, the code under test, and the oracle are the same as in the search for a missing
//! flush ([`super::model`]), with these differences: the CPUs take the shortest way to a page, the
//! CPUs have more room, and there are more VMs.  Each policy runs the same random steps.

use super::model::with_machine;
use crate::{
    flush::policy::Switches,
    model::{
        bug::Bugs,
        cpu::cost::Cost,
        guest::control_regs::Registers,
        machine::{
            Backend,
            Config,
            Machine,
            Ways,
            Wrong, //
        },
        random::{
            Choice,
            Random, //
        },
        search::run,
        step::{
            Op,
            Step, //
        }, //
    }, //
};
use std::{
    collections::VecDeque,
    string::String,
    vec::Vec, //
};

/// The number of CPUs that vCPUs are scheduled on.
const CPUS: usize = 2;
/// The number of instructions of a time slice, including accesses.
const SLICE: u64 = 200;
/// The number of pages that a guest uses, in each of two processes.
const PAGES: u32 = 8;
/// The number of frames that have the guest's data and page tables.
const FRAMES: u32 = 12;
/// The policies that are compared, each with its name.
const POLICIES: [(&str, Backend, bool); 4] = [
    ("c", Backend::C, false),
    ("module", Backend::Rust, false),
    ("context", Backend::Rust, true),
    ("generations", Backend::Generations, false),
];

/// The frequencies of events that need a flush.
#[derive(Clone, Copy, Debug)]
pub struct Workload {
    /// The name.
    pub name: &'static str,
    /// Time slices in a thousand after which the vCPU migrates to the other CPU.
    pub moves: u32,
    /// Time slices in a thousand before which the host changes an EPT: the host moves a frame,
    /// write-protects a frame, or clears the dirty flags of a frame.
    pub changes: u32,
    /// Time slices in a thousand before which a VM is destroyed, and one created.
    pub renewals: u32,
    /// Instructions of guests in a thousand that invalidate.
    pub invalidations: u32,
}

/// The workloads: one without events, one for each kind of event, and one with all events.
pub const WORKLOADS: [Workload; 6] = {
    let quiet = Workload {
        name: "quiet",
        moves: 0,
        changes: 0,
        renewals: 0,
        invalidations: 0,
    };
    [
        quiet,
        Workload {
            name: "moves",
            moves: 100,
            ..quiet
        },
        Workload {
            name: "changes",
            changes: 100,
            ..quiet
        },
        Workload {
            name: "renewals",
            renewals: 20,
            ..quiet
        },
        Workload {
            name: "guests",
            invalidations: 20,
            ..quiet
        },
        Workload {
            name: "mixed",
            moves: 100,
            changes: 100,
            renewals: 20,
            invalidations: 20,
        },
    ]
};

/// Returns the names of the policies.
pub fn policies() -> impl Iterator<Item = &'static str> {
    POLICIES.iter().map(|(name, ..)| *name)
}

/// The use of a machine.
#[derive(Clone, Copy, Debug)]
pub struct Use {
    /// The workload.
    pub workload: Workload,
    /// The number of VMs, of two vCPUs each: 1 to 16.
    pub vms: u8,
    /// The number of entries that each CPU has room for.
    pub room: u16,
    /// The number of guests' instructions that are counted; as many instructions before are not
    /// counted.
    pub instructions: u64,
    /// The seed of the random steps.
    pub seed: u64,
}

/// The counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    /// Accesses of guests.
    pub accesses: u64,
    /// Accesses that found no cached translation.
    pub misses: u64,
    /// Memory references to table entries made by accesses without a cached translation.
    pub references: u64,
    /// Executions of INVVPID and INVEPT by the policy.
    pub invalidations: u64,
    /// Steps that the oracle checked.
    pub steps: u64,
    /// Cached entries that the oracle looked at.
    pub judged: u64,
}

/// The scheduler of the vCPUs, and the choice of the next step.
struct Schedule {
    usage: Use,
    random: Random,
    /// The vCPUs of each CPU, in the order of their time slices.
    queues: [VecDeque<u8>; CPUS],
    accesses: u64,
    steps: u64,
}

impl Schedule {
    fn new(usage: Use) -> Self {
        let vcpus = 0..2 * usage.vms;
        let queue = |cpu: u8| vcpus.clone().filter(move |vcpu| vcpu % 2 == cpu).collect();
        Self {
            usage,
            random: Random::new(usage.seed),
            queues: [queue(0), queue(1)],
            accesses: 0,
            steps: 0,
        }
    }

    /// Returns whether an event happens now that happens so many times in a thousand.
    fn happens(&mut self, times: u32) -> bool {
        self.random.below(1000) < times
    }

    fn step(&mut self, machine: &mut Machine<'_>, step: Step) -> Result<(), Wrong> {
        self.steps += 1;
        machine.step(step)
    }

    /// Creates a VM that is mapped by pages of 4 KiB.
    fn create(&mut self, machine: &mut Machine<'_>, vm: u8) -> Result<(), Wrong> {
        self.step(machine, Step::Create(2 * vm))?;
        self.step(machine, Step::Create(2 * vm + 1))?;
        self.step(machine, Step::Split(vm))
    }

    /// Executes the host's steps before a time slice.
    fn host(&mut self, machine: &mut Machine<'_>) -> Result<(), Wrong> {
        // CAST: The number of VMs is a `u8`, and `FRAMES` is 12.
        let vm = self.random.below(self.usage.vms.into()) as u8;
        let gfn = self.random.below(FRAMES) as u16;
        if self.happens(self.usage.workload.changes) {
            let step = match self.random.below(3) {
                0 => Step::Relocate { vm, gfn },
                1 => Step::Protect { vm, gfn },
                _ => Step::Clean { vm, gfn },
            };
            self.step(machine, step)?;
        }
        if self.happens(self.usage.workload.renewals) {
            self.step(machine, Step::Destroy(2 * vm))?;
            self.step(machine, Step::Destroy(2 * vm + 1))?;
            self.create(machine, vm)?;
        }
        Ok(())
    }

    /// Chooses an instruction of a guest.
    fn op(&mut self) -> Op {
        // CAST: `PAGES` is 8, and there are two processes.
        let page = self.random.below(PAGES) as u16;
        let process = self.random.below(2) as u8;
        let registers = Registers::of_process(process);
        if self.happens(self.usage.workload.invalidations) {
            return match self.random.below(8) {
                0 => Op::Invpcid {
                    kind: 2,
                    pcid: 0,
                    page: 0,
                },
                1 => Op::Invpcid {
                    kind: 1,
                    pcid: process,
                    page: 0,
                },
                2 => Op::MovCr3 {
                    registers,
                    keep: false,
                },
                _ => Op::Invlpg(page),
            };
        }
        // The guest switches to another process.
        if self.happens(20) {
            return Op::MovCr3 {
                registers,
                keep: true,
            };
        }
        let write = self.random.below(4) == 0;
        Op::Access { page, write }
    }

    /// Executes a number of guests' instructions, in time slices on each CPU in turn.
    fn go(&mut self, machine: &mut Machine<'_>, instructions: u64) -> Result<(), Wrong> {
        let mut left = instructions;
        while left != 0 {
            for number in 0..CPUS {
                self.host(machine)?;
                let Some(vcpu) = self.queues[number].pop_front() else {
                    continue;
                };
                let slice = left.min(SLICE);
                left -= slice;
                for _ in 0..slice {
                    let op = self.op();
                    self.accesses += u64::from(matches!(op, Op::Access { .. }));
                    let step = Step::Guest {
                        vcpu,
                        // CAST: `CPUS` is 2.
                        cpu: number as u8,
                        patience: 0,
                        op,
                    };
                    self.step(machine, step)?;
                }
                let moves = self.happens(self.usage.workload.moves);
                let next = if moves { CPUS - 1 - number } else { number };
                self.queues[next].push_back(vcpu);
            }
        }
        Ok(())
    }

    /// Runs all VMs, and counts the second half of the instructions.
    fn run(&mut self, machine: &mut Machine<'_>) -> Result<Counted, Wrong> {
        for vm in 0..self.usage.vms {
            self.create(machine, vm)?;
        }
        self.go(machine, self.usage.instructions)?;
        let (accesses, steps) = (self.accesses, self.steps);
        let (cost, invalidations) = (machine.cost(), machine.invalidations());
        self.go(machine, self.usage.instructions)?;
        let Cost {
            misses,
            references,
            judged,
        } = machine.cost().since(cost);
        Ok(Counted {
            accesses: self.accesses - accesses,
            misses,
            references,
            invalidations: machine.invalidations() - invalidations,
            steps: self.steps - steps,
            judged,
        })
    }
}

/// Counts the cost of the policy of a name.
///
/// # Errors
///
/// A message, if there is no policy of that name, if the number of VMs or the room is out of range,
/// if there is no memory, or if the oracle found an error.
pub fn count(policy: &str, usage: Use) -> Result<Counted, String> {
    let Some(&(_, backend, flush_context)) = POLICIES.iter().find(|(name, ..)| *name == policy)
    else {
        return Err(std::format!("there is no policy {policy}"));
    };
    if !(1..=16).contains(&usage.vms) || usage.room == 0 {
        return Err(String::from(
            "the number of VMs must be 1 to 16, and the room at least 1",
        ));
    }
    let config = Config {
        backend,
        // More VPIDs than the vCPUs need; with generations of tags, the number on each CPU.
        vpids: 4096,
        vms: usage.vms,
        room: usage.room,
        ways: Ways::Shortest,
        switches: Switches {
            flush_context,
            ..Switches::default()
        },
        ..Config::usual(true)
    };
    let counted = with_machine(config, Bugs::NONE, |machine| {
        Schedule::new(usage).run(machine)
    })?;
    counted.map_err(|wrong| std::format!("{policy}: {wrong}"))
}

/// Returns the policies under which random steps of all kinds find an error, each with the error;
/// the parts of a run have the seeds from `seed` on.
///
/// # Errors
///
/// A message, if there is no memory.
pub fn unsound(seed: u64, steps: u64) -> Result<Vec<String>, String> {
    let mut wrong = Vec::new();
    for (policy, backend, flush_context) in POLICIES {
        for ept in [true, false] {
            let config = Config {
                backend,
                switches: Switches {
                    flush_context,
                    ..Switches::default()
                },
                ..Config::usual(ept)
            };
            let found = with_machine(config, Bugs::NONE, |machine| {
                run::at_random(machine, seed, steps)
            })?;
            if let Some(found) = found {
                wrong.push(std::format!("{policy}, ept={ept}: {found:?}"));
            }
        }
    }
    Ok(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(workload: usize) -> Use {
        Use {
            workload: WORKLOADS[workload],
            vms: 8,
            room: 1024,
            instructions: 20_000,
            seed: 1,
        }
    }

    #[test]
    fn no_policy_has_a_cost_without_events() {
        for policy in policies() {
            let cost = count(policy, usage(0)).map(|it| [it.misses, it.invalidations]);
            assert_eq!(cost, Ok([0; 2]));
        }
    }

    #[test]
    fn the_module_costs_the_same_as_c_and_other_policies_cost_less() {
        let misses = |policy| count(policy, usage(1)).map(|counted| counted.misses);
        assert_eq!(misses("module"), misses("c"));
        assert!(misses("context") < misses("c"));
        assert!(misses("generations") < misses("context"));
    }

    #[test]
    fn the_same_seed_counts_the_same() {
        let few = Use {
            instructions: 2_000,
            ..usage(5)
        };
        assert!(count("c", few).is_ok_and(|it| it.misses > 0));
        assert_eq!(count("c", few), count("c", few));
        assert!(count("d", few).is_err());
    }
}
