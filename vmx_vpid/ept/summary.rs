// SPDX-License-Identifier: GPL-2.0

//! A summary counts the tables, pages and markers in an EPT.

use super::{
    check::Slot,
    cursor::Seen,
    dump::Flags,
    entry::Level, //
};
use kernel::fmt;

/// The counts of an EPT.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Summary {
    /// The number of bytes that pages of 4 KiB, of 2 MiB and of 1 GiB map.
    pub(crate) mapped: [u64; 3],
    /// The number of tables, including the root.
    pub(crate) tables: u64,
    /// The number of bytes in pages with the accessed flag, and in pages with the dirty flag;
    /// `None` if the CPU ignores the flags.
    pub(crate) used: Option<[u64; 2]>,
    /// The number of markers of device registers.
    pub(crate) mmio: u64,
    /// The number of entries that no sound EPT has.
    pub(crate) bad: u64,
}

impl Summary {
    /// Returns the counts of an EPT with an empty root table.
    pub(crate) fn new(flags: Flags) -> Self {
        Self {
            tables: 1,
            used: (flags == Flags::Kept).then_some([0; 2]),
            ..Self::default()
        }
    }

    /// Counts an entry.
    pub(crate) fn add(&mut self, seen: &Seen) {
        let add = |to: &mut u64, number| *to = to.saturating_add(number);
        match seen.slot {
            Ok(Slot::Empty) => {}
            Ok(Slot::Table(_)) => add(&mut self.tables, 1),
            Ok(Slot::Mmio) => add(&mut self.mmio, 1),
            Err(_) => add(&mut self.bad, 1),
            Ok(Slot::Page(_)) => {
                let bytes = seen.end.saturating_sub(seen.first);
                let [small, large, huge] = &mut self.mapped;
                let mapped = match seen.level {
                    Level::Pt => small,
                    Level::Pd => large,
                    // No entry of a level above `Pdpt` refers to a page.
                    _ => huge,
                };
                add(mapped, bytes);
                if let Some([accessed, dirty]) = &mut self.used {
                    if seen.entry.accessed() {
                        add(accessed, bytes);
                    }
                    if seen.entry.dirty() {
                        add(dirty, bytes);
                    }
                }
            }
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [small, large, huge] = self.mapped;
        write!(f, "mapped_4k={small} mapped_2m={large} mapped_1g={huge}")?;
        write!(f, " tables={}", self.tables)?;
        match self.used {
            Some([accessed, dirty]) => write!(f, " accessed={accessed} dirty={dirty}")?,
            None => write!(f, " accessed=- dirty=-")?,
        }
        write!(f, " mmio={} misconfigured={}", self.mmio, self.bad)
    }
}

#[cfg(CONFIG_VMX_VPID_KUNIT_TEST)]
#[kernel::macros::kunit_tests(vmx_vpid_ept_summary)]
mod tests {
    use super::*;
    use crate::{
        ept::{
            cursor::{
                Cursor,
                Progress, //
            },
            dump::{
                Attributes,
                Region,
                Regions, //
            }, //
        },
        model::ept::{
            arena::Arena,
            build::Ept,
            fixture::*,
            walk::Tables, //
        }, //
    };
    use kernel::prelude::*;

    /// Returns the summary of an EPT.
    fn count_all(ept: Ept, arena: &mut Arena) -> Summary {
        let mut summary = Summary::new(Flags::Kept);
        let done = Cursor::new().advance(tree(ept), arena, usize::MAX, |seen| {
            summary.add(seen);
            true
        });
        assert_eq!(done, Progress::Done);
        summary
    }

    #[test]
    fn mapped_bytes_are_counted_by_page_size() -> Result {
        let (ept, mut arena) = with_gib(RW)?;
        let whole = count_all(ept, &mut arena);
        assert_eq!((whole.mapped, whole.tables), ([0, 0, GIB], 2));
        ept.mark_mmio(&mut arena, range(MIB_2, 2 * KIB_4)?)?
            .complete_flush(&mut arena);
        let mut summary = count_all(ept, &mut arena);
        let small = MIB_2 - 2 * KIB_4;
        assert_eq!(summary.mapped, [small, GIB - MIB_2, 0]);
        assert_eq!((summary.tables, summary.mmio, summary.bad), (4, 2, 0));
        assert_eq!(summary.used, Some([0; 2]));

        // Set the flags of two pages, and the accessed flag of a table, which does not count.
        for (level, gpa, flags) in [
            (Level::Pd, 0, A | D),
            (Level::Pd, MIB_2, A),
            (Level::Pt, 2 * MIB_2 - KIB_4, A),
        ] {
            let at = locate(ept, &mut arena, level, gpa);
            let entry = Tables::read(&mut arena, at);
            arena.write(at, entry | flags);
        }
        summary = count_all(ept, &mut arena);
        assert_eq!(summary.used, Some([MIB_2 + KIB_4, MIB_2]));

        let at = locate(ept, &mut arena, Level::Pd, 2 * MIB_2);
        arena.write(at, 0b010);
        summary = count_all(ept, &mut arena);
        assert_eq!((summary.bad, summary.mapped[1]), (1, GIB - 2 * MIB_2));
        Ok(())
    }

    #[test]
    fn a_summary_and_the_regions_of_an_ept_agree() -> Result {
        let (ept, mut arena) = with_gib(RWX)?;
        ept.protect(&mut arena, range(KIB_4, MIB_2)?, RX)?
            .complete_flush(&mut arena);
        ept.unmap(&mut arena, range(4 * MIB_2, KIB_4)?)?
            .complete_flush(&mut arena);
        let summary = count_all(ept, &mut arena);
        let (mut regions, mut mapped) = (Regions::default(), [0; 3]);
        let mut add = |region: Region| {
            if let Attributes::Page { level, .. } = region.attributes {
                let place = [Level::Pt, Level::Pd, Level::Pdpt];
                let place = place.iter().position(|&other| other == level);
                mapped[place.unwrap_or(3)] += region.end - region.start;
            }
        };
        Cursor::new().advance(tree(ept), &mut arena, usize::MAX, |seen| {
            regions
                .add(seen, Flags::Kept)
                .into_iter()
                .for_each(&mut add);
            true
        });
        regions.end().into_iter().for_each(add);
        assert_eq!(mapped, summary.mapped);
        assert_eq!(mapped, [3 * MIB_2 - KIB_4, GIB - 3 * MIB_2, 0]);
        assert_eq!(leads_to(ept, &mut arena, 4 * MIB_2), None);
        Ok(())
    }
}
