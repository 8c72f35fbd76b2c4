// SPDX-License-Identifier: GPL-2.0

//! This module walks a guest's page tables, and reads the guest's memory by linear address.
//!
//! A walk reads entries from the top down, raises exceptions in the order of the architecture, and
//! sets accessed and dirty flags where they are clear, as the CPU does for the guest's own
//! accesses.  No guest can keep a walk running for ever: a walk has at most five levels, and is
//! tried at most [`ATTEMPTS`] times.

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

/// The largest number of levels of a walk.
const MAX_LEVELS: usize = 5;

/// The entries of a walk, each at the index [`Level::slot()`] of its level; the lowest is last.
type Path = [Entry; MAX_LEVELS];

/// The number of walks before the guest has to execute its instruction again.
const ATTEMPTS: usize = 16;

/// The size of the smallest page; no read of physical memory crosses a page boundary.
const PAGE_SIZE: usize = 4096;

/// The result of an attempt to replace an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exchange {
    /// The entry was replaced.
    Done,
    /// The entry has another value than `old`, and was not replaced.
    Changed,
    /// The entry is in ROM, and cannot be replaced.
    ReadOnly,
    /// The guest has no memory at the address.
    NoMemory,
}

/// The result of a read of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The bytes were read.
    Bytes,
    /// The guest has no memory at the address.
    NoMemory,
    /// The guest has memory at the address, but the host cannot read it.
    HostFailure,
}

/// A guest whose tables are walked: its memory, and the registers that a walk reads.
pub(crate) trait Memory {
    /// Reads a naturally aligned entry of a table; `None` where the guest has no memory.
    fn read_entry(&mut self, address: Gpa, width: EntryWidth) -> Option<u64>;
    /// Replaces an entry, as one step, if it still has the value `old`.
    fn exchange_entry(&mut self, address: Gpa, width: EntryWidth, old: u64, new: u64) -> Exchange;
    /// Reads bytes that do not cross a page.
    fn read(&mut self, address: Gpa, bytes: &mut [u8]) -> Answer;
    /// Returns one of the four entries (0 to 3) that the CPU loaded with CR3 for PAE paging.
    fn pdpte(&mut self, index: usize) -> u64;
    /// Returns RFLAGS.AC; a walk calls this function only if SMAP makes the flag matter.
    fn alignment_check(&mut self) -> bool;
    /// Returns PKRU; a walk calls this function only if a protection key matters.
    fn pkru(&mut self) -> u32;
}

/// The reason why a walk or a read has no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The access raises this exception in the guest.
    Exception(Exception),
    /// Entries kept changing between the walk and the exchange that marks them as accessed.
    ///
    /// The handler resumes the guest at the instruction, which the guest then executes again, as
    /// after an interrupt.  An exception would be wrong, since no entry causes one; a read would be
    /// wrong, since entries that it used are not marked.
    Retry,
    /// The host cannot read the guest's memory.
    HostFailure,
}

/// Returns the linear address of a number: outside 64-bit mode, addresses wrap to 0 at 4 GiB.
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
/// The caller handles all that comes before paging: segments, canonicality, and the bits that LAM
/// masks.
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

/// Walks again, up to [`ATTEMPTS`] times in all, after an entry changed during the first walk.
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

/// The state of a walk.
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
/// Each level has a function of its own, so that everything that depends on the level is a
/// constant.  The compiler inlines these functions into each other, and the walk has no loop.
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

    /// Ends a walk below the lowest level, which no walk reaches.
    #[cold]
    fn no_further(&mut self, _: u64) -> Arrival {
        Err(Cause::NotPresent)
    }

    /// Reads the entry of a table; returns the entry and its meaning.
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

/// Walks once; returns [`Stop::Retry`] if an entry changed before it was marked.
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
/// The reason why there is no translation, or `None` if an entry changed since the walk read it.
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
                // ROM does not change: the guest's own accesses do not set flags in ROM either.
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
/// This function translates both pages before it reads any byte; a fault on the second page reports
/// the address of the first byte on that page.  Outside 64-bit mode, address 0 follows the last
/// byte of 4 GiB.  Where the guest has no memory, all bits are set, as in a read to which no device
/// responds.
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
    // CAST: usize has 64 bits; the mask leaves 12 of them.
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

/// Reads bytes that do not cross a page; all bits are set where the guest has no memory.
#[inline]
fn fill(memory: &mut impl Memory, address: Gpa, bytes: &mut [u8]) -> Result<(), Stop> {
    match memory.read(address, bytes) {
        Answer::Bytes => Ok(()),
        answer => unanswered(answer, bytes),
    }
}

/// Ends a read for which [`Memory::read()`] read no bytes.
#[cold]
fn unanswered(answer: Answer, bytes: &mut [u8]) -> Result<(), Stop> {
    if answer == Answer::HostFailure {
        return Err(Stop::HostFailure);
    }
    bytes.fill(0xff);
    Ok(())
}
