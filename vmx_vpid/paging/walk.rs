// SPDX-License-Identifier: GPL-2.0

//! This module walks a guest's page tables, and reads the guest's memory by linear address.
//!
//! It walks as the CPU does for the guest's own accesses: entries from the top down, exceptions in
//! the order of the architecture, accessed and dirty flags set where they are clear.  No guest can
//! keep a walk going for ever: a walk takes at most five levels, and restarts at most [`ATTEMPTS`]
//! times.

use crate::{
    paging::{
        entry::{
            Entry,
            Meaning,
            Page, //
        },
        level::{
            EntryWidth,
            Level,
            Table, //
        },
        permission::{
            Access,
            AccessKind,
            Cause,
            Rights, //
        },
        Paging,
        Root, //
    },
    x86::{
        addr::{
            Gpa,
            Gva, //
        },
        exception::Exception, //
    }, //
};

/// The most levels that a walk takes.
const MAX_LEVELS: usize = 5;

/// The entries of a walk, each in the place of its level: the lowest comes last.
type Path = [Entry; MAX_LEVELS];

/// The number of walks before the guest has to execute its instruction again.
const ATTEMPTS: usize = 16;

/// The size of the smallest page: what a read of physical memory must not cross.
const PAGE_SIZE: usize = 4096;

/// The result of an attempt to replace an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exchange {
    /// It was replaced.
    Done,
    /// It had another value and has it still.
    Changed,
    /// It cannot be replaced: ROM.
    ReadOnly,
    /// There is no memory.
    NoMemory,
}

/// The result of a read of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The bytes were read.
    Bytes,
    /// The guest has no memory there.
    NoMemory,
    /// It has, but the host cannot read it.
    HostFailure,
}

/// The guest that a walk is made for: its memory, and what the walk asks of its registers.
pub(crate) trait Memory {
    /// Reads a naturally aligned entry of a table; `None` where the guest has no memory.
    fn read_entry(&mut self, address: Gpa, width: EntryWidth) -> Option<u64>;
    /// Replaces an entry, as one step, if it still has the value `old`.
    fn exchange_entry(&mut self, address: Gpa, width: EntryWidth, old: u64, new: u64) -> Exchange;
    /// Reads bytes that do not cross a page.
    fn read(&mut self, address: Gpa, bytes: &mut [u8]) -> Answer;
    /// Returns one of the four entries (0 to 3) that the CPU loaded with CR3 for PAE paging.
    fn pdpte(&mut self, index: usize) -> u64;
    /// Returns RFLAGS.AC.  Asked only where SMAP makes it matter.
    fn alignment_check(&mut self) -> bool;
    /// Returns PKRU.  Asked only where a protection key matters.
    fn pkru(&mut self) -> u32;
}

/// Why there is no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The guest gets this exception.
    Exception(Exception),
    /// Entries changed again and again between being read and being marked as accessed.
    ///
    /// The guest is to be resumed where it is: it executes its instruction once more, which it
    /// cannot tell from having been interrupted before it.  Both other ends would be wrong: a fault
    /// that no entry accounts for, or an access that left no trace in the tables.
    Retry,
    /// The guest's memory cannot be read, for a reason of the host's.
    HostFailure,
}

/// Returns the linear address of a number: outside 64-bit mode, addresses start over at 4 GiB.
#[inline]
const fn linear(address: u64, is_64_bit: bool) -> Gva {
    if is_64_bit {
        Gva::new(address)
    } else {
        Gva::new(address & 0xffff_ffff)
    }
}

/// Translates a linear address.
///
/// What comes before paging is the caller's: segments, canonicality, and the bits that LAM masks.
#[inline]
pub(crate) fn translate(
    paging: &Paging,
    memory: &mut impl Memory,
    gva: Gva,
    access: Access,
) -> Result<Gpa, Stop> {
    match attempt(paging, memory, gva, access) {
        Err(Stop::Retry) => try_again(paging, memory, gva, access),
        outcome => outcome,
    }
}

/// Walks again, as often as attempts are left, after an entry changed during the first walk.
#[cold]
fn try_again(
    paging: &Paging,
    memory: &mut impl Memory,
    gva: Gva,
    access: Access,
) -> Result<Gpa, Stop> {
    for _ in 1..ATTEMPTS {
        match attempt(paging, memory, gva, access) {
            Err(Stop::Retry) => {}
            outcome => return outcome,
        }
    }
    Err(Stop::Retry)
}

/// A walk on its way down.
struct Walk<'a, M> {
    paging: &'a Paging,
    memory: &'a mut M,
    gva: Gva,
    /// The common rights so far.
    rights: Rights,
    /// The entries so far.
    path: Path,
}

/// The end of a walk: the entry of the page, and the page.
type Arrival = Result<(Entry, Page), Cause>;

/// Defines the step through one level, from its table to the table below or to a page.
///
/// Each level is a function of its own, so that everything that depends on the level is a constant:
/// inlined into each other, they are straight code.
macro_rules! level {
    ($name:ident, $level:ident, $below:ident) => {
        #[inline(always)]
        fn $name(&mut self, entry: u64) -> Arrival {
            match self.step::<{ Level::$level.slot() }>(Table::new(Level::$level, entry))? {
                (_, Meaning::NotPresent) => Err(Cause::NotPresent),
                (_, Meaning::Reserved) => Err(Cause::Reserved),
                (entry, Meaning::Table(_)) => self.$below(entry.into_raw()),
                (entry, Meaning::Page(page)) => Ok((entry, page)),
            }
        }
    };
}

impl<M: Memory> Walk<'_, M> {
    level!(through_pml5, PML5, through_pml4);
    level!(through_pml4, PML4, through_pdpt);
    level!(through_pdpt, PDPT, through_pd);
    level!(through_pd, PD, through_pt);
    level!(through_pt, PT, no_further);
    level!(through_pd32, PD32, through_pt32);
    level!(through_pt32, PT32, no_further);

    /// Ends a walk below the lowest level, where none gets.
    #[cold]
    fn no_further(&mut self, _: u64) -> Arrival {
        Err(Cause::NotPresent)
    }

    /// Reads the entry of a table, and tells what it says.
    #[inline(always)]
    fn step<const SLOT: usize>(&mut self, table: Table) -> Result<(Entry, Meaning), Cause> {
        const { assert!(SLOT < MAX_LEVELS) };
        let raw = self
            .memory
            .read_entry(table.locate(self.gva), table.level().width())
            .ok_or(Cause::NotPresent)?;
        let entry = Entry::from_raw(raw);
        self.path[SLOT] = entry;
        self.rights = self.rights.through(entry);
        Ok((entry, self.paging.rules().meaning(table, entry)))
    }
}

/// Walks once; [`Stop::Retry`] if an entry changed before it was marked.
#[inline]
fn attempt(
    paging: &Paging,
    memory: &mut impl Memory,
    gva: Gva,
    access: Access,
) -> Result<Gpa, Stop> {
    let stop = |cause| Stop::Exception(paging.control().fault(gva, access, cause));
    let top = match paging.root(gva) {
        Root::Physical(gpa) => return Ok(gpa),
        Root::Pdpte(index) => paging
            .directory(memory.pdpte(index))
            .ok_or_else(|| stop(Cause::NotPresent))?,
        Root::Table(table) => table,
    };

    let mut walk = Walk {
        paging,
        memory,
        gva,
        rights: Rights::ALL,
        path: [Entry::from_raw(0); MAX_LEVELS],
    };
    let address = top.address();
    let (leaf, page) = match top.level() {
        Level::PML4 => walk.through_pml4(address),
        Level::PD => walk.through_pd(address),
        Level::PD32 => walk.through_pd32(address),
        _ => walk.through_pml5(address),
    }
    .map_err(stop)?;
    let Walk { rights, path, .. } = walk;

    let control = paging.control();
    let ac = control.asks_ac(rights, access) && memory.alignment_check();
    let pkru = if control.asks_pkru(rights, access) {
        memory.pkru()
    } else {
        0
    };
    control
        .check(rights, leaf.protection_key().get(), access, ac, pkru)
        .map_err(stop)?;

    let write = access.kind == AccessKind::Write;
    if !rights.accessed() || write && !leaf.dirty() {
        mark(paging, memory, gva, write, top, &path)
            .map_err(|cause| cause.map_or(Stop::Retry, stop))?;
    }
    Ok(page.physical(gva))
}

/// Sets the accessed flags on the way to a page, from the top down, and the page's dirty flag if it
/// is written to.
///
/// # Errors
///
/// Why there is no translation after all, or `None` if an entry changed since it was read.
#[cold]
fn mark(
    paging: &Paging,
    memory: &mut impl Memory,
    gva: Gva,
    write: bool,
    top: Table,
    path: &Path,
) -> Result<(), Option<Cause>> {
    let mut table = top;
    for &entry in path.iter().skip(top.level().slot()) {
        let meaning = paging.rules().meaning(table, entry);
        let dirty = write && matches!(meaning, Meaning::Page(_));
        let marked = entry.with_accessed(true).with_dirty(entry.dirty() || dirty);
        if marked != entry {
            match memory.exchange_entry(
                table.locate(gva),
                table.level().width(),
                entry.into_raw(),
                marked.into_raw(),
            ) {
                // No write would change ROM: the guest's own accesses leave no trace there either.
                Exchange::Done | Exchange::ReadOnly => {}
                Exchange::Changed => return Err(None),
                Exchange::NoMemory => return Err(Some(Cause::NotPresent)),
            }
        }
        match meaning {
            Meaning::Table(below) => table = below,
            _ => break,
        }
    }
    Ok(())
}

/// Reads an operand, which may lie on two pages.
///
/// Both are translated before any byte is read, and a fault on the second one tells the address of
/// its first byte.  Outside 64-bit mode, the byte behind the last one of 4 GiB is that at 0.  Where
/// the guest has no memory, all bits are set, as in a read that no one on the bus answers.
#[inline]
pub(crate) fn read<const N: usize>(
    paging: &Paging,
    memory: &mut impl Memory,
    gva: Gva,
    access: Access,
    is_64_bit: bool,
) -> Result<[u8; N], Stop> {
    const { assert!(N <= PAGE_SIZE, "an operand lies on two pages at most") };
    let gva = linear(gva.into_raw(), is_64_bit);
    let first = translate(paging, memory, gva, access)?;
    let mut bytes = [0; N];
    // CAST: Twelve bits are left.
    let room = PAGE_SIZE - (gva.into_raw() as usize & (PAGE_SIZE - 1));
    match bytes.split_at_mut_checked(room) {
        Some((head, tail)) if !tail.is_empty() => {
            let next = linear(gva.into_raw().wrapping_add(room as u64), is_64_bit);
            let second = translate(paging, memory, next, access)?;
            fill(memory, first, head)?;
            fill(memory, second, tail)?;
        }
        _ => fill(memory, first, &mut bytes)?,
    }
    Ok(bytes)
}

/// Reads bytes that do not cross a page, or all ones where there is no memory.
#[inline]
fn fill(memory: &mut impl Memory, address: Gpa, bytes: &mut [u8]) -> Result<(), Stop> {
    match memory.read(address, bytes) {
        Answer::Bytes => Ok(()),
        answer => unanswered(answer, bytes),
    }
}

/// Ends a read that gave no bytes.
#[cold]
fn unanswered(answer: Answer, bytes: &mut [u8]) -> Result<(), Stop> {
    if answer == Answer::HostFailure {
        return Err(Stop::HostFailure);
    }
    bytes.fill(0xff);
    Ok(())
}
