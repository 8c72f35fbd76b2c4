// SPDX-License-Identifier: GPL-2.0

//! The walk through a guest's page tables, and reads of its memory by linear address.
//!
//! As the CPU does it for the guest's own accesses: entries from the top down, faults in the order
//! of the architecture, accessed and dirty flags set where they were not.  No guest can keep a walk
//! going: it takes at most five levels, and starts over at most [`ATTEMPTS`] times.

use crate::{
    addr::{
        Gpa,
        Gva, //
    },
    entry::{
        Entry,
        EntryWidth,
        Meaning,
        Table, //
    },
    fault::Fault,
    paging::{
        Paging,
        Root, //
    },
    permission::{
        Access,
        AccessKind,
        Cause,
        Rights, //
    }, //
};

/// The entries of a walk, from the top down.
type Path = [Entry; 5];

/// How often a walk is tried before the guest has to execute its instruction anew.
const ATTEMPTS: usize = 16;

/// The size of the smallest page: what a read of physical memory must not cross.
const PAGE_SIZE: usize = 4096;

/// What became of an attempt to replace an entry.
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

/// The guest that a walk is made for: its memory, and what the walk asks of its registers.
pub(crate) trait Memory {
    /// Reads a naturally aligned entry of a table; `None` where the guest has no memory.
    fn read_entry(&mut self, address: Gpa, width: EntryWidth) -> Option<u64>;
    /// Replaces an entry, as one step, if it still has the value `old`.
    fn exchange_entry(&mut self, address: Gpa, width: EntryWidth, old: u64, new: u64) -> Exchange;
    /// Reads bytes that do not cross a page; returns false where the guest has no memory.
    fn read(&mut self, address: Gpa, bytes: &mut [u8]) -> bool;
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
    /// The guest gets this fault.
    Fault(Fault),
    /// Entries changed again and again between being read and being marked as accessed.
    ///
    /// The guest is to be resumed where it is: it executes its instruction once more, which it
    /// cannot tell from having been interrupted before it.  Both other ends would be wrong: a fault
    /// that no entry accounts for, or an access that left no trace in the tables.
    Retry,
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
/// What comes before paging is the caller's: segments, canonicality, the bits that LAM masks.
pub(crate) fn translate(
    paging: &Paging,
    memory: &mut impl Memory,
    gva: Gva,
    access: Access,
) -> Result<Gpa, Stop> {
    for _ in 0..ATTEMPTS {
        match attempt(paging, memory, gva, access) {
            Err(Stop::Retry) => {}
            outcome => return outcome,
        }
    }
    Err(Stop::Retry)
}

/// Walks once; [`Stop::Retry`] if an entry changed before it was marked.
#[inline]
fn attempt(
    paging: &Paging,
    memory: &mut impl Memory,
    gva: Gva,
    access: Access,
) -> Result<Gpa, Stop> {
    let stop = |cause| Stop::Fault(paging.control().fault(gva, access, cause));
    let top = match paging.root(gva) {
        Root::Physical(gpa) => return Ok(gpa),
        Root::Pdpte(index) => paging
            .directory(memory.pdpte(index))
            .ok_or_else(|| stop(Cause::NotPresent))?,
        Root::Table(table) => table,
    };

    let mut path: Path = [Entry::from_raw(0); 5];
    let mut slots = path.iter_mut();
    let mut rights = Rights::ALL;
    let mut table = top;
    let (leaf, page) = loop {
        let raw = memory
            .read_entry(paging.rules().locate(table, gva), paging.rules().width())
            .ok_or_else(|| stop(Cause::NotPresent))?;
        let entry = Entry::from_raw(raw);
        if let Some(slot) = slots.next() {
            *slot = entry;
        }
        rights = rights.through(entry);
        match paging.rules().meaning(table, entry) {
            Meaning::NotPresent => return Err(stop(Cause::NotPresent)),
            Meaning::Reserved => return Err(stop(Cause::Reserved)),
            Meaning::Table(below) => table = below,
            Meaning::Page(page) => break (entry, page),
        }
    };

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
    for &entry in path {
        let meaning = paging.rules().meaning(table, entry);
        let dirty = write && matches!(meaning, Meaning::Page(_));
        let marked = entry.with_accessed(true).with_dirty(entry.dirty() || dirty);
        if marked != entry {
            match memory.exchange_entry(
                paging.rules().locate(table, gva),
                paging.rules().width(),
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
            fill(memory, first, head);
            fill(memory, second, tail);
        }
        _ => fill(memory, first, &mut bytes),
    }
    Ok(bytes)
}

/// Reads bytes that do not cross a page, or all ones where there is no memory.
#[inline]
fn fill(memory: &mut impl Memory, address: Gpa, bytes: &mut [u8]) {
    if !memory.read(address, bytes) {
        bytes.fill(0xff);
    }
}
