// SPDX-License-Identifier: GPL-2.0

//! This module walks through a guest's own tables in their current state; the walk uses no cache
//! and sets no flag.

use super::{
    edit::{
        DIRTY,
        GLOBAL,
        LARGE,
        PRESENT,
        WRITABLE, //
    },
    memory::{
        Gfn,
        Memory,
        FRAMES, //
    }, //
};
use crate::model::{
    cpu::tlb_entry::Rights,
    kvm::tables::NO_TABLE, //
};

/// The end of a walk through a guest's tables.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Leaf {
    /// The page's frame.
    pub(crate) gfn: Gfn,
    /// The level of the entry: 1 for a page of 4 KiB.
    pub(crate) level: u8,
    /// The rights that the last entry gives.
    pub(crate) rights: Rights,
    /// The page is global.
    pub(crate) global: bool,
    /// The tables on the way, by level.
    pub(crate) path: [Gfn; 5],
}

/// The frames of the tables that a walk reached, by level; frame 0 stands for no table.
pub(crate) type Path = [Gfn; 5];

/// Returns the index of a page's entry in one of a guest's page tables of a level.
pub(crate) fn index(level: u8, page: u16) -> usize {
    // CAST: The masked value is 0 or 1.
    usize::from(page >> (level - 1) & 1)
}

/// Returns the frame of a page, from the entry of the guest's page, of any size.
pub(crate) fn frame(entry: u64, level: u8, page: u16) -> Gfn {
    let below = |level: u16| page >> (level - 1) & 1;
    match level {
        1 => Gfn::of_entry(entry),
        2 => Gfn::of_entry(entry).plus(below(1)),
        _ => Gfn::of_entry(entry).plus(below(1) + (below(2) << 9)),
    }
}

/// Translates a page with paging off, where a linear address is a physical address; an error if
/// there is no memory.
pub(crate) fn unpaged(page: u16) -> Result<Leaf, Path> {
    let path = [NO_TABLE; 5];
    if page >> 2 != 0 {
        return Err(path);
    }
    Ok(Leaf {
        gfn: frame(0, 3, page),
        level: 3,
        rights: Rights::ALL,
        global: false,
        path,
    })
}

/// Walks through a guest's page tables; an error has the path up to the last table.
///
/// `read` reads a word of a guest's frame.
pub(crate) fn walk(
    root: Gfn,
    page: u16,
    read: impl Fn(Gfn, usize) -> Option<u64>,
) -> Result<Leaf, Path> {
    let mut path = [Gfn(0); 5];
    let (mut table, mut level) = (root, 4u8);
    loop {
        path[usize::from(level)] = table;
        let entry = read(table, index(level, page)).ok_or(path)?;
        if entry & PRESENT == 0 {
            return Err(path);
        }
        if level == 1 || entry & LARGE != 0 {
            return Ok(Leaf {
                gfn: frame(entry, level, page),
                level,
                rights: Rights {
                    write: entry & WRITABLE != 0,
                    dirty: entry & DIRTY != 0,
                },
                global: entry & GLOBAL != 0,
                path,
            });
        }
        (table, level) = (Gfn::of_entry(entry), level - 1);
    }
}

/// Walks through an EPT of L1's.
pub(crate) fn ept12(memory: &Memory, root: Gfn, gfn: Gfn) -> Option<Leaf> {
    let mut path = [Gfn(0); 5];
    let (mut table, mut level) = (root, 4u8);
    loop {
        path[usize::from(level)] = table;
        let index = match level {
            1 => usize::from(gfn.0 & 511),
            2 => usize::from(gfn.0 >> 9),
            _ => 0,
        };
        if index >= FRAMES {
            return None;
        }
        let entry = memory.read(table, index);
        if entry & PRESENT == 0 {
            return None;
        }
        if level == 1 || entry & LARGE != 0 {
            let offset = gfn.0 & ((1 << (9 * (level - 1)).min(15)) - 1);
            return Some(Leaf {
                gfn: Gfn::of_entry(entry).plus(offset),
                level,
                rights: Rights {
                    write: entry & WRITABLE != 0,
                    dirty: true,
                },
                global: false,
                path,
            });
        }
        (table, level) = (Gfn::of_entry(entry), level - 1);
    }
}
