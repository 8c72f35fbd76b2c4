// SPDX-License-Identifier: GPL-2.0

//! This module counts the work of printing an EPT by the number of its entries.
//!
//! The code under test is that of the file `ept` in debugfs ([`crate::ept::cursor`],
//! [`crate::ept::dump`]), which prints a piece at a time.

use crate::{
    ept::{
        cursor::{
            Cursor,
            Entries,
            Progress,
            Tree,
            ENTRIES_AT_ONCE, //
        },
        dump::{
            Flags,
            Regions, //
        },
        entry::{
            Level,
            MemoryType,
            Rights,
            Rules, //
        },
        level::ENTRIES,
        Levels, //
    },
    model::ept::{
        arena::Arena,
        build::{
            Ept,
            Range,
            Target, //
        }, //
    },
    vmx::caps::EptVpidCap,
    x86::addr::{
        Gpa,
        Hpa,
        MaxPhyAddr, //
    }, //
};
use kernel::error::Result;
use std::string::String;

/// The size of a page, and of a table.
const PAGE: u64 = 4096;

/// The work of printing an EPT.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shown {
    /// The number of entries that are read.
    pub entries: u64,
    /// The number of look-ups of a table among KVM's pages.
    pub tables: u64,
    /// The number of printed lines.
    pub lines: u64,
    /// The number of pieces.
    pub pieces: u64,
}

/// Tables that count the reads and the look-ups.
struct Counting<'a> {
    arena: &'a mut Arena,
    shown: Shown,
}

impl Entries for Counting<'_> {
    fn read(&mut self, at: Hpa) -> u64 {
        self.shown.entries += 1;
        Entries::read(self.arena, at)
    }

    fn holds(&mut self, table: Hpa, level: Level) -> bool {
        self.shown.tables += 1;
        self.arena.holds(table, level)
    }
}

/// Makes an EPT that maps `pages` consecutive pages of 4 KiB, and prints the EPT.
fn show(pages: u64, alike: bool) -> Result<Shown> {
    let tables = pages.div_ceil(ENTRIES as u64) + 4;
    // CAST: `usize` has 64 bits.
    let mut arena = Arena::new(tables as usize)?;
    let rules = Rules::new(EptVpidCap::from(u64::MAX), MaxPhyAddr::new(46), false);
    let ept = Ept::new(rules, Levels::Four, true, &mut arena)?;
    // The host address is one page off the guest's address, so that no large page can be used.
    let target = Target {
        hpa: Hpa::new((1 << 32) + PAGE),
        memory_type: MemoryType::WriteBack,
        rights: Rights::READ.or(Rights::WRITE),
    };
    ept.map(&mut arena, Range::new(Gpa::new(0), pages * PAGE)?, target)?
        .complete_flush(&mut arena);
    if !alike {
        for page in (1..pages).step_by(2) {
            let range = Range::new(Gpa::new(page * PAGE), PAGE)?;
            ept.protect(&mut arena, range, Rights::READ)?
                .complete_flush(&mut arena);
        }
    }
    let tree = Tree {
        rules,
        root: ept.pointer().table(),
        levels: Levels::Four,
    };
    let mut counting = Counting {
        arena: &mut arena,
        shown: Shown::default(),
    };
    let (mut cursor, mut regions) = (Cursor::new(), Regions::default());
    let mut lines = 0;
    let mut progress = Progress::More;
    while progress == Progress::More {
        counting.shown.pieces += 1;
        progress = cursor.advance(tree, &mut counting, ENTRIES_AT_ONCE, |seen| {
            lines += u64::from(regions.add(seen, Flags::Kept).is_some());
            true
        });
    }
    lines += u64::from(regions.end().is_some());
    Ok(Shown {
        lines,
        ..counting.shown
    })
}

/// Counts the work of printing an EPT that maps `pages` pages of 4 KiB: all with the same
/// attributes, which is one region, or each with other attributes than the page before.
///
/// # Errors
///
/// A message, if there is no memory.
pub fn dump(pages: u64, alike: bool) -> Result<Shown, String> {
    show(pages, alike).map_err(|error| std::format!("{pages} pages: {error:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_entry_of_each_table_is_read() {
        // For one page, there are three tables with one entry in use each, and the page table.  On
        // the way down, the entry of each table is read twice.
        for pages in [1, 512, 513, 4096_u64] {
            let tables = pages.div_ceil(512) + 3;
            let shown = dump(pages, true).unwrap_or_default();
            assert!(shown.entries >= 512 * tables, "{pages}: {shown:?}");
            assert!(
                shown.entries < 512 * tables + 8 * tables,
                "{pages}: {shown:?}"
            );
            assert_eq!(shown.lines, 1);
        }
    }

    #[test]
    fn pages_with_different_attributes_have_lines_of_their_own() {
        let alike = dump(1024, true).unwrap_or_default();
        let unlike = dump(1024, false).unwrap_or_default();
        assert_eq!(unlike.lines, 1024);
        assert_eq!(unlike.entries, alike.entries);
    }
}
