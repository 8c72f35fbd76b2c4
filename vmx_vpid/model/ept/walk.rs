// SPDX-License-Identifier: GPL-2.0

//! This module walks through an EPT like the CPU.
//!
//! A walk starts at the root, and makes one memory reference for each level.  A walk ends in a
//! translation, an EPT misconfiguration or an EPT violation, and returns the last entry.

use super::access::Access;
use crate::{
    ept::{
        entry::{
            Entry,
            Level,
            Meaning,
            MemoryType,
            Misconfig,
            Rights,
            Rules, //
        },
        violation::Qualification,
        Eptp,
        Levels,
        WALK_5, //
    },
    x86::addr::{
        Gpa,
        Hpa, //
    }, //
};

/// The greatest number of levels of a walk.
const MAX_LEVELS: usize = Level::ALL.len();

/// The number of attempts of a walk while entries change concurrently.
const ATTEMPTS: usize = 16;

/// The memory of tables.
pub(crate) trait Tables {
    /// Reads an entry atomically.
    ///
    /// The address is a multiple of 8.
    fn read(&mut self, at: Hpa) -> u64;

    /// Replaces an entry atomically if it still has the value `old`; returns whether it had.
    fn exchange(&mut self, at: Hpa, old: u64, new: u64) -> bool;
}

/// The end of a walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Last {
    /// The level of the last entry read; the level of the root if none was read.
    pub(crate) level: Level,
    /// The value of the last entry read; [`Entry::NONE`] if none was read.
    pub(crate) entry: Entry,
    /// The number of entries read.
    pub(crate) references: usize,
}

/// The translation of a guest-physical address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Translation {
    /// The host-physical address.
    pub(crate) hpa: Hpa,
    /// The rights that all entries give.
    pub(crate) rights: Rights,
    /// The memory type of the page.
    pub(crate) memory_type: MemoryType,
    /// The entry of the page, whose level determines the size.
    pub(crate) last: Last,
}

/// The result of a walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// A translation that permits the access.
    Translated(Translation),
    /// An EPT violation.
    Violation(Qualification, Last),
    /// An EPT misconfiguration.
    Misconfiguration(Misconfig, Last),
    /// Entries changed repeatedly between being read and being marked as used.
    ///
    /// The guest has noticed nothing, and may retry its access.
    Retry,
}

/// The entries that a walk has read.
struct Path {
    /// Each entry that was read, with its address, from the top down.
    entries: [(Hpa, Entry); MAX_LEVELS],
    /// The current entry, or the last one.
    last: Last,
    /// The rights that all entries so far give.
    rights: Rights,
}

/// The reasons to stop a walk early.
enum Stop {
    /// An entry is not present.
    NotPresent,
    /// An entry is misconfigured.
    Misconfigured(Misconfig),
}

impl Path {
    /// Starts a walk.
    fn new(top: Level) -> Self {
        Self {
            entries: [(Hpa::new(0), Entry::NONE); MAX_LEVELS],
            last: Last {
                level: top,
                entry: Entry::NONE,
                references: 0,
            },
            rights: Rights::ALL,
        }
    }

    /// Walks down to the page, and returns its address.
    fn descend(
        &mut self,
        rules: Rules,
        root: Hpa,
        tables: &mut impl Tables,
        gpa: Gpa,
    ) -> Result<Hpa, Stop> {
        let mut table = root;
        let mut next = Some(self.last.level);
        for slot in &mut self.entries {
            // Entries of the lowest level refer to pages, so there is no level below.
            let Some(level) = next else { break };
            let at = level.locate(table, gpa);
            let entry = Entry::from(tables.read(at));
            *slot = (at, entry);
            self.last = Last {
                level,
                entry,
                references: self.last.references.saturating_add(1),
            };
            self.rights = self.rights.and(rules.rights(entry));
            match rules.meaning(level, entry) {
                Meaning::NotPresent => return Err(Stop::NotPresent),
                Meaning::Misconfigured(misconfig) => return Err(Stop::Misconfigured(misconfig)),
                Meaning::Page(page) => return Ok(page),
                Meaning::Table(below) => table = below,
            }
            next = level.below();
        }
        Err(Stop::NotPresent)
    }

    /// Sets the accessed flag of each entry, from the top down, and the page's dirty flag for a
    /// write; returns whether no entry has changed since the entry was read.
    ///
    /// Each entry is updated by its own exchange: another CPU may change the entry, or set the same
    /// flags, at any time.
    fn mark(&self, tables: &mut impl Tables, write: bool) -> bool {
        let page = self.last.references.saturating_sub(1);
        let used = self.entries.iter().take(self.last.references);
        used.enumerate().all(|(place, &(at, entry))| {
            let dirty = write && place == page;
            let marked = entry.with_accessed(true).with_dirty(entry.dirty() || dirty);
            marked == entry || tables.exchange(at, entry.into_raw(), marked.into_raw())
        })
    }
}

impl Eptp {
    /// Returns the number of levels of a walk; VM entry accepts only these two numbers.
    pub(crate) fn levels(self) -> Levels {
        match self.walk_length().get() {
            WALK_5 => Levels::Five,
            _ => Levels::Four,
        }
    }

    /// Returns the address of the root table.
    pub(crate) fn table(self) -> Hpa {
        Hpa::new(self.into_raw() & Self::ROOT_MASK)
    }
}

/// Attempts a walk once.
fn attempt(
    rules: Rules,
    eptp: Eptp,
    tables: &mut impl Tables,
    gpa: Gpa,
    access: Access,
) -> Outcome {
    let needed = access.needs(rules, eptp.accessed_dirty());
    let violation = |granted, last| {
        let qualification = Qualification::for_walk(rules, access.stage, needed, granted);
        Outcome::Violation(qualification, last)
    };
    let top = Level::top(eptp.levels());
    let mut path = Path::new(top);
    // Four levels translate 48 bits, but an address may have 52 bits: no entry is for such an
    // address.
    if !top.covers(gpa) {
        return violation(Rights::NONE, path.last);
    }
    let page = match path.descend(rules, eptp.table(), tables, gpa) {
        Ok(page) => page,
        Err(Stop::NotPresent) => return violation(Rights::NONE, path.last),
        Err(Stop::Misconfigured(misconfig)) => {
            return Outcome::Misconfiguration(misconfig, path.last);
        }
    };
    // Check the rights last: a violation implies that no entry is misconfigured, and the
    // qualification has the rights that all entries give.
    if !path.rights.contains(needed) {
        return violation(path.rights, path.last);
    }
    if eptp.accessed_dirty() && !path.mark(tables, needed.write()) {
        return Outcome::Retry;
    }
    let Path { last, rights, .. } = path;
    let offset = gpa.into_raw() & last.level.offset_mask();
    Outcome::Translated(Translation {
        hpa: Hpa::new(page.into_raw() | offset),
        rights,
        // A page's entry always has a memory type.
        memory_type: last.entry.memory_type().unwrap_or(MemoryType::Uncacheable),
        last,
    })
}

/// Translates a guest-physical address by the tables of an EPT pointer that VM entry accepts.
///
/// Only a walk that ends in a translation sets flags.  The manual lets a CPU set accessed flags on
/// the way to a fault too, but no code may rely on these flags.
pub(crate) fn walk(
    rules: Rules,
    eptp: Eptp,
    tables: &mut impl Tables,
    gpa: Gpa,
    access: Access,
) -> Outcome {
    for _ in 0..ATTEMPTS {
        match attempt(rules, eptp, tables, gpa, access) {
            Outcome::Retry => {}
            outcome => return outcome,
        }
    }
    Outcome::Retry
}
