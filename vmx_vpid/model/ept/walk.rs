// SPDX-License-Identifier: GPL-2.0

//! This module walks an EPT as the CPU does.
//!
//! It starts at the root and makes one memory reference for each level.  A walk ends in a
//! translation, in an EPT misconfiguration or in an EPT violation, with its place.

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

/// The most levels that a walk takes.
const MAX_LEVELS: usize = Level::ALL.len();

/// How often a walk is tried while entries change under it.
const ATTEMPTS: usize = 16;

/// The memory that tables are in.
pub(crate) trait Tables {
    /// Reads an entry, as one step.
    ///
    /// The address is a multiple of 8.
    fn read(&mut self, at: Hpa) -> u64;

    /// Replaces an entry, as one step, if it still has the value `old`; returns whether it had.
    fn exchange(&mut self, at: Hpa, old: u64, new: u64) -> bool;
}

/// Where a walk ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Last {
    /// The level of the last entry that was read; that of the root if none was.
    pub(crate) level: Level,
    /// The last entry, as it was read; [`Entry::NONE`] if none was.
    pub(crate) entry: Entry,
    /// How many entries were read.
    pub(crate) references: usize,
}

/// What an address stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Translation {
    /// The host-physical address.
    pub(crate) hpa: Hpa,
    /// What all the entries permit.
    pub(crate) rights: Rights,
    /// The memory type of the page.
    pub(crate) memory_type: MemoryType,
    /// The entry of the page; its level tells the size.
    pub(crate) last: Last,
}

/// How a walk ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// In a translation that permits the access.
    Translated(Translation),
    /// In an EPT violation.
    Violation(Qualification, Last),
    /// In an EPT misconfiguration.
    Misconfiguration(Misconfig, Last),
    /// Entries changed again and again between the read and the mark as used.
    ///
    /// The guest has not made its access yet: it may retry.
    Retry,
}

/// The entries of a walk that refer to tables, and the last one.
struct Path {
    /// Each entry that was read, with where it is, from the top down.
    entries: [(Hpa, Entry); MAX_LEVELS],
    /// Where the walk is, or where it ended.
    last: Last,
    /// What all the entries have permitted so far.
    rights: Rights,
}

/// What stops a walk before its end.
enum Stop {
    /// An entry is not present.
    NotPresent,
    /// An entry makes no sense.
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

    /// Goes down to the page, and returns where it is.
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
            // Below the lowest level there is none: its entries refer to pages.
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

    /// Sets the accessed flag of each entry, from the top down, and the page's dirty flag if it is
    /// written to; returns whether no entry has changed since it was read.
    ///
    /// One step for each entry: another CPU may change it, or set the same flags, at any time.
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
    /// Returns how many levels a walk has; VM entry accepts no other numbers than these two.
    pub(crate) fn levels(self) -> Levels {
        match self.walk_length().get() {
            WALK_5 => Levels::Five,
            _ => Levels::Four,
        }
    }

    /// Returns where the root table is.
    pub(crate) fn table(self) -> Hpa {
        Hpa::new(self.into_raw() & Self::ROOT_MASK)
    }
}

/// Walks once.
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
    // Four levels translate 48 bits, and an address may have 52: no entry is there for it then.
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
    // Asked last: a violation is one of a translation that has no misconfiguration in it, and the
    // qualification tells what all of its entries permit.
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
        // The entry of a page has one.
        memory_type: last.entry.memory_type().unwrap_or(MemoryType::Uncacheable),
        last,
    })
}

/// Translates a guest-physical address through the tables of an EPT pointer that VM entry accepts.
///
/// Flags are set by a walk that ends in a translation alone.  The manual lets a CPU set accessed
/// flags on the way to a fault as well; nobody may rely on that.
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
