// SPDX-License-Identifier: GPL-2.0

//! A dump shows an EPT as regions of addresses with equal attributes.
//!
//! The format is that of the kernel's dump of its own page tables: a region, its size, and its
//! attributes.  Addresses without a mapping are left out.

use super::{
    check::Slot,
    cursor::{
        EntryError,
        Seen, //
    },
    entry::{
        Entry,
        Level,
        MemoryType,
        Misconfig,
        Rights, //
    }, //
};
use kernel::{
    fmt,
    prelude::*, //
};

/// Whether the CPU sets accessed and dirty flags in an EPT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flags {
    /// The CPU sets the flags.
    Kept,
    /// The CPU ignores the bits, and software may have set them.
    Ignored,
}

/// The attributes of a region of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attributes {
    /// Memory.
    Page {
        /// The level of the entries, which determines the size of the pages.
        level: Level,
        /// The rights that the EPT permits.
        rights: Rights,
        /// The memory type.
        memory_type: MemoryType,
        /// Whether the guest's PAT is ignored.
        ignore_pat: bool,
        /// The accessed and the dirty flag; `None` if the CPU ignores them.
        flags: Option<(bool, bool)>,
    },
    /// Device registers.
    Mmio {
        /// The level of the entries.
        level: Level,
    },
    /// An entry that no sound EPT has.
    Bad {
        /// The level of the entry.
        level: Level,
        /// The reason why a sound EPT does not have the entry.
        fault: EntryError,
        /// The entry.
        entry: Entry,
    },
}

impl Attributes {
    /// Returns the attributes of the addresses of an entry; `None` if the entry is empty or refers
    /// to a table.
    pub(crate) fn of(seen: &Seen, flags: Flags) -> Option<Self> {
        let Seen { level, entry, .. } = *seen;
        match seen.slot {
            Ok(Slot::Empty | Slot::Table(_)) => None,
            Ok(Slot::Mmio) => Some(Self::Mmio { level }),
            Ok(Slot::Page(_)) => Some(Self::Page {
                level,
                rights: seen.rights,
                // The entry of a page always has a memory type, so the default is not used.
                memory_type: entry.memory_type().unwrap_or(MemoryType::Uncacheable),
                ignore_pat: entry.ignore_pat(),
                flags: (flags == Flags::Kept).then(|| (entry.accessed(), entry.dirty())),
            }),
            Err(fault) => Some(Self::Bad {
                level,
                fault,
                entry,
            }),
        }
    }
}

/// A region of addresses with equal attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Region {
    /// The first address.
    pub(crate) start: u64,
    /// The first address after the region.
    pub(crate) end: u64,
    /// The attributes of the region.
    pub(crate) attributes: Attributes,
}

/// Merges entries into regions.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Regions {
    /// The last region, which the next entry may extend.
    open: Option<Region>,
}

impl Regions {
    /// Adds the next entry; returns the region before the entry, if that region has ended.
    pub(crate) fn add(&mut self, seen: &Seen, flags: Flags) -> Option<Region> {
        let next = Region {
            start: seen.first,
            end: seen.end,
            attributes: Attributes::of(seen, flags)?,
        };
        match &mut self.open {
            Some(open) if open.end == next.start && open.attributes == next.attributes => {
                open.end = next.end;
                None
            }
            open => open.replace(next),
        }
    }

    /// Returns the last region.
    pub(crate) fn end(&mut self) -> Option<Region> {
        self.open.take()
    }
}

impl Level {
    /// Returns the text for the size that an entry of this level covers.
    const fn size(self) -> &'static str {
        match self {
            Self::Pt => "4K",
            Self::Pd => "2M",
            Self::Pdpt => "1G",
            Self::Pml4 => "512G",
            Self::Pml5 => "256T",
        }
    }
}

impl MemoryType {
    /// Returns the manual's abbreviation.
    const fn name(self) -> &'static str {
        match self {
            Self::Uncacheable => "UC",
            Self::WriteCombining => "WC",
            Self::WriteThrough => "WT",
            Self::WriteProtected => "WP",
            Self::WriteBack => "WB",
        }
    }
}

impl EntryError {
    /// Returns the text for this error.
    const fn name(self) -> &'static str {
        match self {
            Self::Misconfigured(Misconfig::WriteOnly) => "writes without reads",
            Self::Misconfigured(Misconfig::ExecuteOnly) => "fetches without reads",
            Self::Misconfigured(Misconfig::Reserved) => "reserved bits",
            Self::Misconfigured(Misconfig::MemoryType) => "no memory type",
            Self::NoTable => "no table",
        }
    }
}

/// A number of bytes, in the largest unit that leaves no remainder.
struct Size(u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut size = self.0 >> 10;
        let mut unit = 'K';
        for larger in ['M', 'G', 'T'] {
            if size & 1023 != 0 {
                break;
            }
            size >>= 10;
            unit = larger;
        }
        write!(f, "{size:>8}{unit}")
    }
}

/// Returns a letter if `holds` is true, and a dash otherwise.
const fn letter(holds: bool, letter: char) -> char {
    if holds {
        letter
    } else {
        '-'
    }
}

impl fmt::Display for Attributes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Page {
                level,
                rights,
                memory_type,
                ignore_pat,
                flags,
            } => {
                let read = letter(rights.read(), 'R');
                let write = letter(rights.write(), 'W');
                let execute = letter(rights.execute(), 'X');
                let user = letter(rights.execute_user(), 'U');
                let pat = if ignore_pat { "ipat" } else { "pat" };
                write!(f, "{:<4} {read}{write}{execute}{user}", level.size())?;
                write!(f, " {} {pat:<4}", memory_type.name())?;
                if let Some((accessed, dirty)) = flags {
                    write!(f, " {}{}", letter(accessed, 'A'), letter(dirty, 'D'))?;
                }
                Ok(())
            }
            Self::Mmio { level } => write!(f, "{:<4} mmio", level.size()),
            Self::Bad {
                level,
                fault,
                entry,
            } => write!(
                f,
                "{:<4} misconfigured: {} {:#018x}",
                level.size(),
                fault.name(),
                entry.into_raw()
            ),
        }
    }
}

impl fmt::Display for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { start, end, .. } = *self;
        let size = Size(end.saturating_sub(start));
        f.write_fmt(fmt!("{start:#018x}-{end:#018x} {size} {}", self.attributes))
    }
}

#[cfg(CONFIG_VMX_VPID_KUNIT_TEST)]
#[kernel::macros::kunit_tests(vmx_vpid_ept_dump)]
mod tests {
    use super::*;
    use crate::{
        ept::cursor::Cursor,
        model::ept::{
            arena::Arena,
            build::Ept,
            fixture::*,
            walk::Tables, //
        }, //
    };
    use core::fmt::Write;

    /// A writer that compares the text with the expected text, which it holds.
    struct Compare<'a>(&'a str);

    impl Write for Compare<'_> {
        fn write_str(&mut self, text: &str) -> core::fmt::Result {
            self.0 = self.0.strip_prefix(text).ok_or(core::fmt::Error)?;
            Ok(())
        }
    }

    fn shows(value: impl fmt::Display, text: &str) -> bool {
        let mut left = Compare(text);
        left.write_fmt(fmt!("{value}")).is_ok() && left.0.is_empty()
    }

    /// Returns the regions of an EPT.
    fn regions(ept: Ept, arena: &mut Arena, flags: Flags) -> Result<KVec<Region>> {
        let (mut open, mut all) = (Regions::default(), KVec::new());
        let mut full = false;
        Cursor::new().advance(tree(ept), arena, usize::MAX, |seen| {
            if let Some(region) = open.add(seen, flags) {
                full |= all.push(region, GFP_KERNEL).is_err();
            }
            true
        });
        if let Some(region) = open.end() {
            all.push(region, GFP_KERNEL)?;
        }
        assert!(!full);
        Ok(all)
    }

    #[test]
    fn pages_with_equal_attributes_are_one_region() -> Result {
        let (ept, mut arena) = with_gib(RWX)?;
        ept.protect(&mut arena, range(MIB_2, KIB_4)?, RX)?
            .complete_flush(&mut arena);
        ept.mark_mmio(&mut arena, range(2 * MIB_2 - 2 * KIB_4, 2 * KIB_4)?)?
            .complete_flush(&mut arena);
        ept.unmap(&mut arena, range(4 * MIB_2, 3 * MIB_2)?)?
            .complete_flush(&mut arena);
        // A page in the middle of other pages differs in its flags alone.
        let at = locate(ept, &mut arena, Level::Pd, 9 * MIB_2);
        let entry = Tables::read(&mut arena, at);
        arena.write(at, entry | A);
        let all = regions(ept, &mut arena, Flags::Kept)?;
        let expected = [
            (0, MIB_2),
            (MIB_2, MIB_2 + KIB_4),
            (MIB_2 + KIB_4, 2 * MIB_2 - 2 * KIB_4),
            (2 * MIB_2 - 2 * KIB_4, 2 * MIB_2),
            (2 * MIB_2, 4 * MIB_2),
            // The addresses before are not mapped.
            (7 * MIB_2, 9 * MIB_2),
            (9 * MIB_2, 10 * MIB_2),
            (10 * MIB_2, GIB),
        ];
        assert_eq!(all.len(), expected.len());
        for (region, (start, end)) in all.iter().zip(expected) {
            assert_eq!((region.start, region.end), (start, end));
        }
        assert_eq!(all[3].attributes, Attributes::Mmio { level: Level::Pt });
        // Ignored flags do not separate regions.
        assert_eq!(regions(ept, &mut arena, Flags::Ignored)?.len(), 6);
        Ok(())
    }

    #[test]
    fn a_gap_ends_a_region() -> Result {
        let (ept, mut arena) = empty()?;
        for start in [0, 2 * KIB_4] {
            ept.map(&mut arena, range(start, KIB_4)?, to(start, RW))?
                .complete_flush(&mut arena);
        }
        let all = regions(ept, &mut arena, Flags::Kept)?;
        assert_eq!(all.len(), 2);
        assert_eq!((all[0].end, all[1].start), (KIB_4, 2 * KIB_4));
        Ok(())
    }

    #[test]
    fn a_region_has_the_format_of_the_kernels_page_table_dump() {
        let page = |rights, memory_type, ignore_pat, flags| Attributes::Page {
            level: Level::Pd,
            rights,
            memory_type,
            ignore_pat,
            flags,
        };
        for (start, end, attributes, text) in [
            (
                0,
                0xa_0000,
                page(RWX, MemoryType::WriteBack, true, Some((true, false))),
                "0x0000000000000000-0x00000000000a0000      640K 2M   RWX- WB ipat A-",
            ),
            (
                GIB,
                3 * GIB,
                page(Rights::ALL, MemoryType::Uncacheable, false, None),
                "0x0000000040000000-0x00000000c0000000        2G 2M   RWXU UC pat ",
            ),
            (
                1 << 47,
                1 << 48,
                Attributes::Mmio { level: Level::Pt },
                "0x0000800000000000-0x0001000000000000      128T 4K   mmio",
            ),
            (
                0,
                KIB_4,
                Attributes::Bad {
                    level: Level::Pt,
                    fault: EntryError::Misconfigured(Misconfig::WriteOnly),
                    entry: Entry::from(0x123),
                },
                "0x0000000000000000-0x0000000000001000        4K 4K   misconfigured: \
                 writes without reads 0x0000000000000123",
            ),
        ] {
            let region = Region {
                start,
                end,
                attributes,
            };
            assert!(shows(region, text));
            assert!(!shows(region, "0x0000000000000000"));
        }
    }
}
