// SPDX-License-Identifier: GPL-2.0

//! This module models the VM's memory: the content of its frames, their places in the host, and the
//! writes to tables.
//!
//! Tables are real tables in memory, but only a few of their entries are used.  One frame may be a
//! table of any level, with entries of either size.

use crate::{
    model::{
        random::Choice,
        shadow_mmu::{
            bug::Bug,
            Gfn,
            Vm, //
        }, //
    },
    paging::{
        entry::Entry,
        level::EntryWidth, //
    },
    x86::addr::Hpa, //
};
use core::cell::Cell;
use kernel::prelude::*;

/// The number of vCPUs.
pub(super) const VCPUS: usize = 2;

/// The number of frames with content; all other frames read as 0.
const FRAMES: usize = 16;

/// The number of frames of the VM.
const MOST: u64 = 1 << 20;

/// The number of linear pages in use: three in each of two regions of 2 MiB in each of two GiB.
pub(super) const PAGES: u32 = 12;

/// The number of frames of data, 0 to 3.
const DATA: u64 = 4;
/// The frame of data where large pages begin, which is a page table too.
const BOTH: u64 = 0;
/// Two page-map level-4 tables, the roots of four levels.
pub(super) const PML4: u64 = 4;
/// Two page-directory-pointer tables.
const PDPT: u64 = 6;
/// Two page directories.
const PD: u64 = 8;
/// Two page tables.
const PT: u64 = 10;
/// Two page directories with entries of 4 bytes, the roots of two levels.
pub(super) const PD32: u64 = 12;
/// Two page tables with entries of 4 bytes.
const PT32: u64 = 14;

/// The indices of the entries in use, by kind of table: four kinds with entries of 8 bytes, then
/// two kinds with entries of 4 bytes.
const INDICES: [&[usize]; 6] = [
    &[0],
    &[0, 3],
    &[0, 1],
    &[0, 5, 511],
    &[0, 768],
    &[0, 5, 511, 512, 517, 1023],
];

/// Returns the address of a page.
pub(super) fn address(page: u32) -> u64 {
    let (first, rest) = (page % 3, page / 3);
    let low = [0u64, 5, 511][first as usize];
    let (middle, high) = (u64::from(rest & 1), u64::from(rest >> 1) * 3);
    high << 30 | middle << 21 | low << 12
}

/// The memory of the VM, and the requests of remote flushes.
pub(super) struct Memory {
    words: KVVec<[u64; 512]>,
    /// The frames that are in their second place, by bit.
    moved: u32,
    /// The time: the number of steps so far.
    pub(super) now: u32,
    /// The vCPUs that have to flush before they run again.
    pub(super) flush: Cell<[bool; VCPUS]>,
    broken: Option<Bug>,
}

impl Memory {
    /// Makes a memory.
    pub(super) fn new(broken: Option<Bug>) -> Result<Self> {
        Ok(Self {
            words: KVVec::from_elem([0; 512], FRAMES, GFP_KERNEL)?,
            moved: 0,
            now: 0,
            flush: Cell::new([false; VCPUS]),
            broken,
        })
    }

    /// Resets the memory to that of a new VM, whose tables map data and the tables themselves.
    pub(super) fn restart(&mut self) {
        self.words.iter_mut().for_each(|words| words.fill(0));
        (self.moved, self.now) = (0, 0);
        self.flush.set([false; VCPUS]);
        let long: [(u64, usize, u64); 16] = [
            (PML4, 0, PDPT),
            (PML4 + 1, 0, PDPT + 1),
            (PDPT, 0, PD),
            (PDPT, 3, PD + 1),
            (PDPT + 1, 0, PD + 1),
            (PDPT + 1, 3, PD),
            (PD, 0, PT),
            (PD, 1, PT + 1),
            (PD + 1, 0, PT + 1),
            (PD + 1, 1, PT),
            (PT, 0, 0),
            (PT, 5, PT),
            (PT, 511, PD),
            (PT + 1, 0, 1),
            (PT + 1, 5, PT + 1),
            (PT + 1, 511, PDPT),
        ];
        for (table, index, frame) in long {
            self.write(Gfn(table), index, EntryWidth::Bytes8, plain(frame));
        }
        let legacy: [(u64, usize, u64); 16] = [
            (PD32, 0, PT32),
            (PD32, 768, PT32 + 1),
            (PD32 + 1, 0, PT32 + 1),
            (PD32 + 1, 768, PT32),
            (PT32, 0, 0),
            (PT32, 5, PT32),
            (PT32, 511, PD32),
            (PT32, 512, 1),
            (PT32, 517, PT32 + 1),
            (PT32, 1023, PT),
            (PT32 + 1, 0, 2),
            (PT32 + 1, 5, PT32 + 1),
            (PT32 + 1, 511, PD32 + 1),
            (PT32 + 1, 512, 3),
            (PT32 + 1, 517, PT32),
            (PT32 + 1, 1023, 0),
        ];
        for (table, index, frame) in legacy {
            self.write(Gfn(table), index, EntryWidth::Bytes4, plain(frame));
        }
    }

    /// Moves a frame to its other place.
    pub(super) fn relocate(&mut self, frame: Gfn) {
        if frame.0 < FRAMES as u64 {
            self.moved ^= 1 << frame.0;
        }
    }

    /// Returns a random frame with content.
    pub(super) fn any_frame(choice: &mut impl Choice) -> Gfn {
        Gfn(choice.below(FRAMES as u32).into())
    }

    /// Returns the frame that is at a host address now.
    pub(super) fn frame_at(&self, at: Hpa) -> Option<Gfn> {
        let frame = Gfn(at.into_raw() >> 12 & (MOST - 1));
        (self.host(frame) == Some(at)).then_some(frame)
    }

    /// Writes the low bytes of a value into a frame.
    pub(super) fn write_bytes(&mut self, frame: Gfn, offset: usize, bytes: usize, value: u64) {
        let mask = u64::MAX >> (64 - 8 * bytes.clamp(1, 8));
        let shift = 8 * (offset % 8);
        if let Some(words) = self.words.get_mut(frame.0 as usize) {
            let word = &mut words[offset / 8 % 512];
            *word = *word & !(mask << shift) | (value & mask) << shift;
        }
    }

    /// Chooses a guest's write into a frame: the offset, the number of bytes, and the value.
    pub(super) fn edit(&self, frame: Gfn, choice: &mut impl Choice) -> (usize, usize, u64) {
        let (kind, below): (usize, &[u64]) = match frame.0 {
            PML4 | 5 => (0, &[PDPT, PDPT + 1]),
            PDPT | 7 => (1, &[PD, PD + 1, PT]),
            PD | 9 => (2, &[PT, PT + 1, PT, PT + 1, PD, PT32, BOTH, BOTH]),
            PT | 11 | BOTH => (3, &[0, 1, 2, 3, PT, PT + 1, PD, PDPT, PML4, PT32]),
            PD32 | 13 => (4, &[PT32, PT32 + 1, PT32, PT]),
            PT32 | 15 => (5, &[0, 1, 2, 3, PT32, PT32 + 1, PD32, PT]),
            _ => return (0, 8, 0),
        };
        let pick = |choice: &mut dyn FnMut(u32) -> u32, from: usize| choice(from as u32) as usize;
        let mut number = |end| choice.below(end);
        let index = INDICES[kind][pick(&mut number, INDICES[kind].len())];
        let large = matches!(kind, 2 | 4) && number(4) == 0;
        let frame = if large {
            0
        } else {
            below[pick(&mut number, below.len())]
        };
        let entry = plain(frame)
            .with_present(number(10) != 0)
            .with_writable(number(4) != 0)
            .with_user(number(3) != 0)
            .with_accessed(number(3) != 0)
            .with_dirty(number(3) != 0)
            .with_page_size(large)
            .with_no_execute(number(6) == 0);
        let size = if kind >= 4 { 4 } else { 8 };
        // Some writes change only the flags, or some of the flags.
        let bytes = match number(12) {
            0 => 1,
            1 => 4,
            2 => 2,
            _ => size,
        };
        (index * size, bytes.min(size), entry.into_raw())
    }
}

/// Makes an entry that permits everything.
fn plain(frame: u64) -> Entry {
    Entry::from(frame << 12)
        .with_present(true)
        .with_writable(true)
        .with_user(true)
        .with_accessed(true)
        .with_dirty(true)
}

/// Returns whether a frame has data and is never a table.
pub(super) fn is_data(frame: Gfn) -> bool {
    frame.0 < DATA && frame.0 != BOTH
}

impl Vm for Memory {
    fn read(&self, table: Gfn, index: usize, width: EntryWidth) -> Option<Entry> {
        if table.0 >= MOST {
            return None;
        }
        let Some(words) = self.words.get(table.0 as usize) else {
            return Some(Entry::from(0));
        };
        Some(Entry::from(match width {
            EntryWidth::Bytes8 => words[index % 512],
            EntryWidth::Bytes4 => words[index / 2 % 512] >> (32 * (index % 2)) & 0xffff_ffff,
        }))
    }

    fn write(&mut self, table: Gfn, index: usize, width: EntryWidth, entry: Entry) {
        let size = width as usize;
        self.write_bytes(table, index * size, size, entry.into_raw());
    }

    fn host(&self, frame: Gfn) -> Option<Hpa> {
        let moved = frame.0 < FRAMES as u64 && self.moved >> frame.0 & 1 != 0;
        let bank = if moved { 2 } else { 1 };
        (frame.0 < MOST).then(|| Hpa::new((frame.0 + bank * MOST) << 12))
    }

    fn flush_remote(&mut self) {
        if !self.has(Bug::RemoteIgnored) {
            self.flush.set([true; VCPUS]);
        }
    }

    fn now(&self) -> u32 {
        self.now
    }

    fn has(&self, broken: Bug) -> bool {
        self.broken == Some(broken)
    }
}
