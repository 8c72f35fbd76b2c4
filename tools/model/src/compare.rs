// SPDX-License-Identifier: GPL-2.0

//! This module prints the cost of flush policies, and the growth of work with size, as tables and
//! as comma-separated values.
//!
//! All runs with the same seed print the same counts.

use std::{
    fmt::Write,
    fs, //
};
use vmx_vpid::harness::{
    growth,
    policies::{
        self,
        Counted,
        Use,
        Workload,
        WORKLOADS, //
    }, //
};

/// The number of guests' instructions that are counted on each machine.
const INSTRUCTIONS: u64 = 20_000;
/// The number of VMs on a machine, unless the comparison varies the number.
const VMS: u8 = 8;
/// The number of entries that a CPU has room for, unless the comparison varies the number.
const ROOM: u16 = 1024;
/// The number of random steps in which the oracle must find no error, before costs are counted.
const SOUND: u64 = 40_000;

/// Returns the ratio of two counts, in millionths.
fn per_million(count: u64, of: u64) -> u64 {
    count * 1_000_000 / of.max(1)
}

/// Writes a table to a file, if there is one.
fn write(csv: Option<&str>, table: &str) -> Result<(), String> {
    csv.map_or(Ok(()), |path| {
        fs::write(path, table).map_err(|error| format!("{path}: {error}"))
    })
}

/// Returns the compared machines: each workload; the workload of all events with few VMs and with
/// many VMs; and CPUs with little room.
fn machines(seed: u64) -> Vec<Use> {
    let usual = |workload: Workload| Use {
        workload,
        vms: VMS,
        room: ROOM,
        instructions: INSTRUCTIONS,
        seed,
    };
    let mixed = usual(WORKLOADS[WORKLOADS.len() - 1]);
    let mut all: Vec<_> = WORKLOADS.map(usual).into();
    all.extend([1, 2, 4, 12, 16].map(|vms| Use { vms, ..mixed }));
    all.extend([64, 128, 256, 512].map(|room| Use { room, ..mixed }));
    all
}

/// Compares policies; returns whether the oracle finds no error under any policy.
pub(crate) fn policies(seed: u64, csv: Option<&str>) -> Result<bool, String> {
    let wrong = policies::unsound(seed, SOUND)?;
    for wrong in &wrong {
        println!("not ok - {wrong}");
    }
    if !wrong.is_empty() {
        return Ok(false);
    }
    println!("ok - each policy, {SOUND} steps of all kinds from seed {seed}: nothing stale");
    println!("for a million accesses, {INSTRUCTIONS} instructions of guests from seed {seed}:");
    println!(
        "{:10}{:>4}{:>6}  {:12}{:>9}{:>12}{:>15}",
        "workload", "VMs", "room", "policy", "misses", "references", "invalidations"
    );
    let mut table =
        String::from("workload,vms,room,policy,accesses,misses,references,invalidations\n");
    for usage in machines(seed) {
        for policy in policies::policies() {
            let Counted {
                accesses,
                misses,
                references,
                invalidations,
                ..
            } = policies::count(policy, usage)?;
            let [misses, references, invalidations] =
                [misses, references, invalidations].map(|count| per_million(count, accesses));
            let Use {
                workload: Workload { name, .. },
                vms,
                room,
                ..
            } = usage;
            println!(
                "{name:10}{vms:4}{room:6}  {policy:12}{misses:9}{references:12}{invalidations:15}"
            );
            let _ = writeln!(
                table,
                "{name},{vms},{room},{policy},{accesses},{misses},{references},{invalidations}"
            );
        }
    }
    write(csv, &table)?;
    Ok(true)
}

/// Counts how the work of printing an EPT and the work of the oracle grow with size.
pub(crate) fn growth(seed: u64, csv: Option<&str>) -> Result<bool, String> {
    let mut table = String::from("what,size,work\n");
    let mut row = |what: &str, size: u64, work: u64| {
        println!("{what:22}{size:9}{work:10}");
        let _ = writeln!(table, "{what},{size},{work}");
    };
    println!("{:22}{:>9}{:>10}", "what", "size", "work");
    for pages in (0..=18).map(|power| 1 << power) {
        let shown = growth::dump(pages, true)?;
        row("ept_entries", pages, shown.entries);
        row("ept_tables", pages, shown.tables);
        row("ept_pieces", pages, shown.pieces);
    }
    for pages in (0..=14).map(|power| 1 << power) {
        row("ept_lines_unlike", pages, growth::dump(pages, false)?.lines);
    }
    let mixed = Use {
        workload: WORKLOADS[WORKLOADS.len() - 1],
        vms: 1,
        room: 4096,
        instructions: INSTRUCTIONS / 2,
        seed,
    };
    for vms in [1, 2, 4, 8, 16] {
        let counted = policies::count("generations", Use { vms, ..mixed })?;
        row("oracle_vms", vms.into(), counted.judged / counted.steps);
    }
    for room in [64, 128, 256, 512, 1024] {
        let usage = Use {
            vms: 16,
            room,
            ..mixed
        };
        let counted = policies::count("generations", usage)?;
        row("oracle_room", room.into(), counted.judged / counted.steps);
    }
    write(csv, &table)?;
    Ok(true)
}
