// SPDX-License-Identifier: GPL-2.0

//! This module builds and changes an EPT.
//!
//! A range of addresses is mapped, unmapped or protected, or remapped by smaller or larger pages.
//! A page that a range covers in part is split first.  Each change is made whole or not at all, and
//! returns the flush that it needs: [`super::flush_needed`].  [`super::transaction`] makes the
//! change.
//!
//! One task at a time changes an EPT; CPUs may use it at any time.

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

/// Where tables come from, and the CPUs that use them.
pub(crate) trait Memory: Tables {
    /// Returns the memory of a table, all zeroes, that no one else has.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`].
    fn allocate(&mut self) -> Result<Hpa>;

    /// Takes back the memory of a table.
    fn free(&mut self, table: Hpa);

    /// Drops all that is tagged by an EP4TA, on each CPU that may have it cached.
    fn invalidate(&mut self, context: Ep4ta);
}

/// A range of guest-physical addresses.
///
/// # Invariants
///
/// It begins and ends at pages of 4 KiB, and is not empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    /// The first address.
    start: u64,
    /// The first address behind it.
    end: u64,
}

impl Range {
    /// Takes so many bytes from an address on.
    ///
    /// # Errors
    ///
    /// [`EINVAL`] when it is none: see the invariants.
    pub(crate) fn new(start: Gpa, bytes: u64) -> Result<Self> {
        let start = start.into_raw();
        let end = start.checked_add(bytes).ok_or(EINVAL)?;
        if bytes == 0 || (start | bytes) & (TABLE_SIZE - 1) != 0 {
            return Err(EINVAL);
        }
        // INVARIANT: Checked.
        Ok(Self { start, end })
    }

    /// Returns the last address.
    fn last(self) -> Gpa {
        Gpa::new(self.end - 1)
    }

    /// Returns how many bytes it has.
    fn bytes(self) -> u64 {
        self.end - self.start
    }

    /// Returns whether it has all addresses that an entry of this level is for.
    pub(crate) fn covers(self, level: Level, gpa: Gpa) -> bool {
        let first = gpa.into_raw();
        self.start <= first && first.saturating_add(level.span()) <= self.end
    }

    /// Returns whether it has any of them.
    pub(crate) fn touches(self, level: Level, gpa: Gpa) -> bool {
        let first = gpa.into_raw();
        first < self.end && self.start < first.saturating_add(level.span())
    }

    /// Returns for which addresses a table has entries that the range has a part in.
    ///
    /// The table is of this level, and its first entry is for `first`.
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

/// What a range is mapped to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// Where its first page is.
    pub(crate) hpa: Hpa,
    /// The memory type.
    pub(crate) memory_type: MemoryType,
    /// What is permitted.
    pub(crate) rights: Rights,
}

/// What is done to a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    /// Each page is mapped; the first address of the range to that of the target.
    Map(Target),
    /// Each page gets the marker of device registers.
    Mmio,
    /// Nothing is left.
    Unmap,
    /// What is mapped permits this and nothing else.
    Protect(Rights),
    /// What is mapped is so by pages of this level or of lower ones.
    Split(Level),
}

/// The change of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// It stays as it is.
    Keep,
    /// It is replaced.
    Put(Entry),
    /// It is to refer to a table, and that is where the change is made.
    Descend,
}

impl Operation {
    /// Decides the change of an entry for the addresses from `gpa` on, some of which are in the
    /// range.
    ///
    /// At the lowest level nothing descends: a range covers a page of 4 KiB, or has no part in it.
    pub(crate) fn step(self, ept: Ept, range: Range, level: Level, gpa: Gpa, old: Entry) -> Step {
        let covered = range.covers(level, gpa);
        match (self, ept.slot(level, old)) {
            (Self::Map(target), _) if covered => {
                // Not below the target's own: the range begins no later than this.
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
    /// What entries mean.
    rules: Rules,
    /// The pointer to it.
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

    /// Returns the pointer by which a CPU uses it.
    pub(crate) fn pointer(self) -> Eptp {
        self.eptp
    }

    /// Returns what entries mean.
    pub(crate) fn rules(self) -> Rules {
        self.rules
    }

    /// Returns the level of the root table.
    pub(crate) fn top(self) -> Level {
        Level::top(self.eptp.levels())
    }

    /// Returns what an entry is there for.
    ///
    /// One that is not sound counts as a marker: CPUs find it misconfigured, and cache nothing.
    pub(crate) fn slot(self, level: Level, entry: Entry) -> Slot {
        check(self.rules, level, entry).unwrap_or(Slot::Mmio)
    }

    /// Returns whether pages of this level are used.
    ///
    /// Not those that cannot be split into pages of the level below.
    pub(crate) fn maps(self, level: Level) -> bool {
        self.rules.has_pages(level)
            && level
                .below()
                .is_none_or(|below| self.rules.has_pages(below))
    }

    /// Returns whether the entry of a page can have these rights, and is present with them.
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

    /// Makes a change, or none.
    fn change(
        self,
        memory: &mut impl Memory,
        range: Range,
        operation: Operation,
    ) -> Result<Change> {
        self.check_range(range)?;
        Transaction::new(self, memory, range).make(operation)
    }

    /// Maps a range, in place of what was mapped there, by the largest pages that there are.
    ///
    /// # Errors
    ///
    /// [`EINVAL`] for addresses that the EPT does not translate, or that the CPU does not have, for
    /// a target that is no multiple of 4 KiB, and for rights that an entry cannot have; [`ENOMEM`].
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

    /// Makes each access to a range exit by a misconfiguration.
    ///
    /// # Errors
    ///
    /// [`EINVAL`] for addresses that the EPT does not translate; [`ENOMEM`].
    pub(crate) fn mark_mmio(self, memory: &mut impl Memory, range: Range) -> Result<Change> {
        self.change(memory, range, Operation::Mmio)
    }

    /// Takes away what a range is mapped to.
    ///
    /// # Errors
    ///
    /// [`EINVAL`] for addresses that the EPT does not translate; [`ENOMEM`].
    pub(crate) fn unmap(self, memory: &mut impl Memory, range: Range) -> Result<Change> {
        self.change(memory, range, Operation::Unmap)
    }

    /// Changes what is permitted where something is mapped.
    ///
    /// # Errors
    ///
    /// [`EINVAL`] for addresses that the EPT does not translate, and for rights that an entry
    /// cannot have: to permit nothing is to unmap; [`ENOMEM`].
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

    /// Makes what is mapped be mapped by pages of this level or of lower ones.
    ///
    /// Pages that the range covers in part are split likewise.
    ///
    /// # Errors
    ///
    /// [`EINVAL`] for addresses that the EPT does not translate; [`ENOMEM`].
    pub(crate) fn split(self, memory: &mut impl Memory, range: Range, to: Level) -> Result<Change> {
        self.change(memory, range, Operation::Split(to))
    }

    /// Makes what is mapped be mapped by as few pages as can be, and frees tables that are empty.
    ///
    /// Only what the range covers as a whole is put together.
    ///
    /// # Errors
    ///
    /// [`EINVAL`] for addresses that the EPT does not translate; [`ENOMEM`].
    pub(crate) fn merge(self, memory: &mut impl Memory, range: Range) -> Result<Change> {
        self.check_range(range)?;
        Transaction::new(self, memory, range).merge()
    }

    /// Takes the whole EPT away.
    ///
    /// No CPU may be given its pointer any more.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`].
    pub(crate) fn destroy(self, memory: &mut impl Memory) -> Result<Change> {
        let mut tables = KVec::new();
        super::transaction::collect(self, memory, self.top(), self.eptp.table(), &mut tables)?;
        Ok(Change::owing(self.eptp.ep4ta(), tables))
    }
}
