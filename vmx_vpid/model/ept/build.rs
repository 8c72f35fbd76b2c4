// SPDX-License-Identifier: GPL-2.0

//! This module builds and changes EPTs.
//!
//! An operation maps, unmaps or protects a range of addresses, or makes a range of smaller or
//! larger pages.  A page that the range covers in part is split first.  An operation takes effect
//! completely or not at all, and returns the flush that is pending: [`super::flush_needed`].
//! [`super::transaction`] changes the entries.
//!
//! One task at a time changes an EPT; CPUs may use the EPT at any time.

use super::{
    flush_needed::Change,
    transaction::Transaction,
    walk::Tables, //
};
use crate::{
    ept::{
        check::{
            check,
            Slot, //
        },
        entry::{
            Entry,
            Level,
            MemoryType,
            Rights,
            Rules, //
        },
        level::ENTRIES,
        Ep4ta,
        Eptp,
        Levels, //
    },
    model::ept::entry::TABLE_SIZE,
    x86::addr::{
        Gpa,
        Hpa, //
    }, //
};
use kernel::prelude::*;

/// The memory of tables, and the CPUs that use the tables.
pub(crate) trait Memory: Tables {
    /// Allocates a table, with zeroes.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`].
    fn allocate(&mut self) -> Result<Hpa>;

    /// Frees a table.
    fn free(&mut self, table: Hpa);

    /// Invalidates all mappings tagged by an EP4TA, on each CPU that may have such mappings cached.
    fn invalidate(&mut self, context: Ep4ta);
}

/// A range of guest-physical addresses.
///
/// # Invariants
///
/// The range begins and ends at multiples of 4 KiB, and is not empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    /// The first address.
    start: u64,
    /// The first address behind the range.
    end: u64,
}

impl Range {
    /// Makes a range of `bytes` bytes from an address on.
    ///
    /// # Errors
    ///
    /// [`EINVAL`] if the range is empty, is not made of pages of 4 KiB, or wraps around.
    pub(crate) fn new(start: Gpa, bytes: u64) -> Result<Self> {
        let start = start.into_raw();
        let end = start.checked_add(bytes).ok_or(EINVAL)?;
        if bytes == 0 || (start | bytes) & (TABLE_SIZE - 1) != 0 {
            return Err(EINVAL);
        }
        // INVARIANT: The checks above returned for an empty or unaligned range.
        Ok(Self { start, end })
    }

    /// Returns the last address.
    fn last(self) -> Gpa {
        Gpa::new(self.end - 1)
    }

    /// Returns the size in bytes.
    fn bytes(self) -> u64 {
        self.end - self.start
    }

    /// Returns whether the range contains all addresses of an entry of a level.
    pub(crate) fn covers(self, level: Level, gpa: Gpa) -> bool {
        let first = gpa.into_raw();
        self.start <= first && first.saturating_add(level.span()) <= self.end
    }

    /// Returns whether the range contains any address of an entry of a level.
    pub(crate) fn touches(self, level: Level, gpa: Gpa) -> bool {
        let first = gpa.into_raw();
        first < self.end && self.start < first.saturating_add(level.span())
    }

    /// Returns the first addresses of a table's entries that the range touches.
    ///
    /// The table has this level, and its first entry is for `first`.
    pub(crate) fn entries(self, level: Level, first: Gpa) -> impl Iterator<Item = Gpa> {
        let first = first.into_raw();
        let table = level.span().saturating_mul(ENTRIES as u64);
        let start = self.start.max(first) & !level.offset_mask();
        let end = self.end.min(first.saturating_add(table));
        (0..end.saturating_sub(start).div_ceil(level.span()))
            .map(move |place| start.saturating_add(place << level.page_bits()))
            .map(Gpa::new)
    }
}

/// The target of a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// The host-physical address of the first page.
    pub(crate) hpa: Hpa,
    /// The memory type.
    pub(crate) memory_type: MemoryType,
    /// The rights.
    pub(crate) rights: Rights,
}

/// An operation on a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    /// Maps each page; the first address of the range gets the first address of the target.
    Map(Target),
    /// Gives each page the marker of device registers.
    Mmio,
    /// Unmaps all pages.
    Unmap,
    /// Gives mapped pages these rights.
    Protect(Rights),
    /// Splits mapped pages into pages of this level or of lower levels.
    Split(Level),
}

/// The change of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The entry stays unchanged.
    Keep,
    /// The entry is replaced.
    Put(Entry),
    /// The entry has to refer to a table, and the table's entries are changed.
    Descend,
}

impl Operation {
    /// Decides on the change of an entry for the addresses from `gpa` on, some of which are in the
    /// range.
    ///
    /// No entry of the lowest level descends: a range contains a page of 4 KiB completely, or not
    /// at all.
    pub(crate) fn step(self, ept: Ept, range: Range, level: Level, gpa: Gpa, old: Entry) -> Step {
        let covered = range.covers(level, gpa);
        match (self, ept.slot(level, old)) {
            (Self::Map(target), _) if covered => {
                // `gpa` is not below `range.start`, because the range covers the entry.
                let offset = gpa.into_raw().wrapping_sub(range.start);
                let page = target.hpa.into_raw().wrapping_add(offset);
                if ept.maps(level) && page & level.offset_mask() == 0 {
                    let page = Hpa::new(page);
                    Step::Put(Entry::page(level, page, target.memory_type, target.rights))
                } else {
                    Step::Descend
                }
            }
            (Self::Mmio, _) if level == Level::Pt => Step::Put(Entry::mmio()),
            (Self::Map(_) | Self::Mmio, _) => Step::Descend,
            (Self::Unmap, _) if covered => Step::Put(Entry::NONE),
            (Self::Protect(rights), Slot::Page(_)) if covered => Step::Put(old.permitting(rights)),
            (Self::Split(to), Slot::Page(_)) if level <= to => Step::Keep,
            (_, Slot::Empty | Slot::Mmio) => Step::Keep,
            (_, Slot::Table(_) | Slot::Page(_)) => Step::Descend,
        }
    }
}

/// An EPT.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ept {
    /// The rules for entries on this CPU.
    rules: Rules,
    /// The EPT pointer.
    eptp: Eptp,
}

impl Ept {
    /// Makes an EPT that maps nothing.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`].
    pub(crate) fn new(
        rules: Rules,
        levels: Levels,
        accessed_dirty: bool,
        memory: &mut impl Memory,
    ) -> Result<Self> {
        let root = memory.allocate()?;
        let eptp = Eptp::for_root(root, levels, accessed_dirty);
        Ok(Self { rules, eptp })
    }

    /// Returns the EPT pointer.
    pub(crate) fn pointer(self) -> Eptp {
        self.eptp
    }

    /// Returns the rules for entries.
    pub(crate) fn rules(self) -> Rules {
        self.rules
    }

    /// Returns the level of the root table.
    pub(crate) fn top(self) -> Level {
        Level::top(self.eptp.levels())
    }

    /// Returns what an entry refers to.
    ///
    /// An unsound entry counts as a marker: CPUs find the entry misconfigured, and cache nothing.
    pub(crate) fn slot(self, level: Level, entry: Entry) -> Slot {
        check(self.rules, level, entry).unwrap_or(Slot::Mmio)
    }

    /// Returns whether the EPT uses pages of this level.
    ///
    /// The EPT does not use pages that cannot be split into pages of the level below.
    pub(crate) fn maps(self, level: Level) -> bool {
        self.rules.has_pages(level)
            && level
                .below()
                .is_none_or(|below| self.rules.has_pages(below))
    }

    /// Returns whether a page's entry with these rights is sound and present.
    fn has_rights(self, rights: Rights) -> bool {
        let page = Entry::page(Level::Pt, Hpa::new(0), MemoryType::WriteBack, rights);
        matches!(self.slot(Level::Pt, page), Slot::Page(_))
    }

    /// Checks that the EPT translates a range.
    fn check_range(self, range: Range) -> Result {
        if self.top().covers(range.last()) {
            Ok(())
        } else {
            Err(EINVAL)
        }
    }

    /// Executes an operation, completely or not at all.
    fn change(
        self,
        memory: &mut impl Memory,
        range: Range,
        operation: Operation,
    ) -> Result<Change> {
        self.check_range(range)?;
        Transaction::new(self, memory, range).make(operation)
    }

    /// Maps a range by the largest possible pages; replaces earlier mappings.
    ///
    /// # Errors
    ///
    /// [`EINVAL`] for addresses that the EPT does not translate or that the CPU does not have, for
    /// a target that is not a multiple of 4 KiB, and for rights that an entry cannot have;
    /// [`ENOMEM`].
    pub(crate) fn map(
        self,
        memory: &mut impl Memory,
        range: Range,
        target: Target,
    ) -> Result<Change> {
        let first = target.hpa.into_raw();
        let last = first.checked_add(range.bytes() - 1).ok_or(EINVAL)?;
        if first & (TABLE_SIZE - 1) != 0
            || !self.rules.has_address(Hpa::new(last))
            || !self.has_rights(target.rights)
        {
            return Err(EINVAL);
        }
        self.change(memory, range, Operation::Map(target))
    }

    /// Makes each access to a range exit by an EPT misconfiguration.
    ///
    /// # Errors
    ///
    /// [`EINVAL`] for addresses that the EPT does not translate; [`ENOMEM`].
    pub(crate) fn mark_mmio(self, memory: &mut impl Memory, range: Range) -> Result<Change> {
        self.change(memory, range, Operation::Mmio)
    }

    /// Unmaps a range.
    ///
    /// # Errors
    ///
    /// [`EINVAL`] for addresses that the EPT does not translate; [`ENOMEM`].
    pub(crate) fn unmap(self, memory: &mut impl Memory, range: Range) -> Result<Change> {
        self.change(memory, range, Operation::Unmap)
    }

    /// Changes the rights of mapped pages.
    ///
    /// # Errors
    ///
    /// [`EINVAL`] for addresses that the EPT does not translate, and for rights that an entry
    /// cannot have (to remove all rights, unmap the range); [`ENOMEM`].
    pub(crate) fn protect(
        self,
        memory: &mut impl Memory,
        range: Range,
        rights: Rights,
    ) -> Result<Change> {
        if !self.has_rights(rights) {
            return Err(EINVAL);
        }
        self.change(memory, range, Operation::Protect(rights))
    }

    /// Splits mapped pages into pages of this level or of lower levels.
    ///
    /// Pages that the range covers in part are split too.
    ///
    /// # Errors
    ///
    /// [`EINVAL`] for addresses that the EPT does not translate; [`ENOMEM`].
    pub(crate) fn split(self, memory: &mut impl Memory, range: Range, to: Level) -> Result<Change> {
        self.change(memory, range, Operation::Split(to))
    }

    /// Maps a range by as few pages as possible, and frees empty tables.
    ///
    /// Only tables that the range covers completely are merged.
    ///
    /// # Errors
    ///
    /// [`EINVAL`] for addresses that the EPT does not translate; [`ENOMEM`].
    pub(crate) fn merge(self, memory: &mut impl Memory, range: Range) -> Result<Change> {
        self.check_range(range)?;
        Transaction::new(self, memory, range).merge()
    }

    /// Returns all tables of the EPT, the root included, as a change that frees the tables after a
    /// flush.
    ///
    /// No CPU may be given the EPT pointer afterwards.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`].
    pub(crate) fn destroy(self, memory: &mut impl Memory) -> Result<Change> {
        let mut tables = KVec::new();
        super::transaction::collect(self, memory, self.top(), self.eptp.table(), &mut tables)?;
        Ok(Change::pending(self.eptp.ep4ta(), tables))
    }
}
