// SPDX-License-Identifier: GPL-2.0

//! An arena holds the tables of an EPT, for tests.
//!
//! The arena logs each operation, and can run out of tables.  A freed table is overwritten with
//! misconfigured entries, so that a use after free shows.

use super::{
    build::Memory,
    walk::Tables, //
};
use crate::{
    ept::{
        cursor::Entries,
        entry::Level,
        level::ENTRIES,
        Ep4ta, //
    },
    model::ept::entry::TABLE_SIZE,
    x86::addr::Hpa, //
};
use kernel::prelude::*;

/// The address of the first table.
const BASE: u64 = 0x12_3400_0000;

/// Fills a free table: a misconfiguration at every level.
const POISON: u64 = 0x7ff;

/// An operation on the arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// A table was allocated, with zeroes.
    Allocate(Hpa),
    /// An entry was replaced.
    Write(Hpa, u64),
    /// All entries of an EP4TA were invalidated.
    Invalidate(Ep4ta),
    /// A table was freed.
    Free(Hpa),
}

/// Memory for tables.
pub(crate) struct Arena {
    /// The words of all tables, table after table.
    words: KVVec<u64>,
    /// The tables that are in use.
    used: KVVec<bool>,
    /// How many more tables can be allocated.
    pub(crate) left: usize,
    /// The operations since the log was last cleared.
    pub(crate) log: KVVec<Event>,
    /// Flags that a CPU sets in the entry at an address just before the entry is replaced, once.
    pub(crate) race: Option<(Hpa, u64)>,
}

impl Arena {
    /// Makes an arena for `tables` tables.
    pub(crate) fn new(tables: usize) -> Result<Self> {
        Ok(Self {
            words: KVVec::from_elem(POISON, tables * ENTRIES, GFP_KERNEL)?,
            used: KVVec::from_elem(false, tables, GFP_KERNEL)?,
            left: tables,
            log: KVVec::new(),
            race: None,
        })
    }

    /// Returns the number of tables in use.
    pub(crate) fn used(&self) -> usize {
        self.used.iter().filter(|&&used| used).count()
    }

    /// Returns the words of all tables.
    pub(crate) fn words(&self) -> &[u64] {
        &self.words
    }

    /// Makes a copy of all tables; the copy can allocate no more tables.
    pub(crate) fn copy(&self) -> Result<Self> {
        let mut copy = Self::new(self.used.len())?;
        copy.words.copy_from_slice(&self.words);
        copy.used.copy_from_slice(&self.used);
        copy.left = 0;
        Ok(copy)
    }

    /// Returns the number of replaced entries.
    pub(crate) fn writes(&self) -> usize {
        let writes = |event: &&Event| matches!(event, Event::Write(..));
        self.log.iter().filter(writes).count()
    }

    /// Sets an entry, regardless of the old value.
    pub(crate) fn write(&mut self, at: Hpa, entry: u64) {
        let place = Self::place(at);
        self.words[place] = entry;
    }

    /// Logs an operation.
    fn note(&mut self, event: Event) {
        let noted = self.log.push(event, GFP_KERNEL);
        assert!(noted.is_ok());
    }

    /// Repeats an operation of the original on a copy; returns whether the operation changed a
    /// table that was in use when the copy was made.
    pub(crate) fn replay(&mut self, event: Event) -> bool {
        match event {
            Event::Allocate(table) => {
                self.fill(Self::number(table), 0);
                false
            }
            Event::Write(at, entry) => {
                self.write(at, entry);
                self.used[Self::place(at) / ENTRIES]
            }
            Event::Invalidate(_) | Event::Free(_) => false,
        }
    }

    fn place(at: Hpa) -> usize {
        assert_eq!(at.into_raw() % 8, 0);
        ((at.into_raw() - BASE) / 8) as usize
    }

    fn number(table: Hpa) -> usize {
        assert_eq!(table.into_raw() % TABLE_SIZE, 0);
        ((table.into_raw() - BASE) / TABLE_SIZE) as usize
    }

    fn fill(&mut self, table: usize, entry: u64) {
        self.words[table * ENTRIES..][..ENTRIES].fill(entry);
    }
}

impl Tables for Arena {
    fn read(&mut self, at: Hpa) -> u64 {
        self.words[Self::place(at)]
    }

    fn exchange(&mut self, at: Hpa, old: u64, new: u64) -> bool {
        if let Some((_, flags)) = self.race.take_if(|race| race.0 == at) {
            self.words[Self::place(at)] |= flags;
        }
        let replaces = Tables::read(self, at) == old;
        if replaces {
            self.write(at, new);
            self.note(Event::Write(at, new));
        }
        replaces
    }
}

impl Entries for Arena {
    fn read(&mut self, at: Hpa) -> u64 {
        assert!(self.used[Self::place(at) / ENTRIES]);
        Tables::read(self, at)
    }

    fn holds(&mut self, table: Hpa, _level: Level) -> bool {
        let number = table.into_raw().checked_sub(BASE).map(|at| at / TABLE_SIZE);
        let used = number.and_then(|number| self.used.get(number as usize));
        used.copied().unwrap_or(false)
    }
}

impl Memory for Arena {
    fn allocate(&mut self) -> Result<Hpa> {
        self.left = self.left.checked_sub(1).ok_or(ENOMEM)?;
        let table = self.used.iter().position(|&used| !used).ok_or(ENOMEM)?;
        self.used[table] = true;
        self.fill(table, 0);
        let table = Hpa::new(BASE + table as u64 * TABLE_SIZE);
        self.note(Event::Allocate(table));
        Ok(table)
    }

    fn free(&mut self, table: Hpa) {
        self.note(Event::Free(table));
        let table = Self::number(table);
        assert!(self.used[table]);
        self.used[table] = false;
        self.left += 1;
        self.fill(table, POISON);
    }

    fn invalidate(&mut self, context: Ep4ta) {
        self.note(Event::Invalidate(context));
    }
}
