// SPDX-License-Identifier: GPL-2.0

//! This module selects the CPUs that have to be notified of a change of tables.

use crate::{
    asid::{
        shootdown::{
            Flush,
            Range, //
        },
        Published, //
    },
    x86::addr::Hva, //
};

/// The most steps that are flushed one by one: the default of `tlb_single_page_flush_ceiling`.
///
/// A step may have any size: the ceiling is 33 pages of 2 MiB as well as of 4 KiB.
pub(crate) const CEILING: u64 = 33;

impl Range {
    /// Returns a range to drop, or everything if the range has too many steps:
    /// `init_flush_tlb_info()`.
    pub(crate) fn capped(start: Hva, end: Hva, shift: u32, ceiling: u64) -> Self {
        if Self::steps(start, end, shift) > ceiling {
            Self::All
        } else {
            Self::new(start, end, shift)
        }
    }
}

/// The CPUs on which a flush may be necessary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Any CPU of the mask, including this one; each CPU is checked.
    Many,
    /// This CPU only.
    Here,
    /// No CPU: a CPU that switches to the address space reads its tlb_gen.
    Nowhere,
}

impl Reach {
    /// Selects the CPUs for an address space: `others` if its mask has other CPUs, `loaded_here` if
    /// this CPU uses it.
    ///
    /// Equivalent of `flush_tlb_mm_range()`.
    pub(crate) fn new(others: bool, loaded_here: bool) -> Self {
        match (others, loaded_here) {
            (true, _) => Self::Many,
            (false, true) => Self::Here,
            (false, false) => Self::Nowhere,
        }
    }
}

/// A flush request, with the fields by which the sender selects the CPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    /// The request that the other CPUs get.
    pub(crate) flush: Flush,
    /// Tables were freed, too.
    pub(crate) freed_tables: bool,
    /// CPUs that do not use the address space get the request, too, to leave its mask.
    pub(crate) trim: bool,
}

impl Told {
    /// Returns whether a CPU of the mask has to be notified: `native_flush_tlb_multi()`.
    ///
    /// A lazy CPU needs no notification of changed pages, because it reads the tlb_gen before it
    /// uses them.  But a lazy CPU may walk tables speculatively, and must not walk a freed table.
    /// So all CPUs are notified if tables were freed.
    pub(crate) fn concerns(&self, shown: Published) -> bool {
        self.freed_tables || self.should(shown)
    }

    /// Returns whether a CPU has to be notified if no tables were freed: `should_flush_tlb()`.
    fn should(&self, shown: Published) -> bool {
        match (shown, self.flush.space) {
            (Published { lazy: true, .. }, _) => false,
            (_, None) => true,
            // In the middle of a switch, the CPU may have read the tlb_gen before this change.
            (Published { loaded: None, .. }, _) => true,
            (Published { loaded, .. }, space) => loaded == space || self.trim,
        }
    }
}

#[cfg(CONFIG_VMX_VPID_KUNIT_TEST)]
#[kernel::macros::kunit_tests(vmx_vpid_flush_cpus)]
mod tests {
    use super::*;
    use crate::asid::{
        ContextId,
        TlbGen, //
    };

    /// A request for an address space, or for the loaded one of each CPU (`None`).
    fn told(space: Option<u64>, freed_tables: bool, trim: bool) -> Told {
        let flush = Flush {
            space: space.and_then(ContextId::new),
            range: Range::All,
            tlb_gen: TlbGen::new(6),
        };
        Told {
            flush,
            freed_tables,
            trim,
        }
    }

    /// The state of a CPU that uses an address space; 0 is the middle of a switch.
    fn shown(loaded: u64, lazy: bool) -> Published {
        let loaded = ContextId::new(loaded);
        Published { loaded, lazy }
    }

    #[test]
    fn a_range_of_more_steps_than_the_ceiling_is_a_full_flush() {
        let range = |end, shift| Range::capped(Hva::new(0), Hva::new(end), shift, CEILING);
        assert!(matches!(range(33 << 12, 12), Range::Some { .. }));
        assert_eq!(range(34 << 12, 12), Range::All);
        assert!(matches!(range(33 << 21, 21), Range::Some { .. }));
        assert_eq!(range(34 << 21, 21), Range::All);
        assert_eq!(range(u64::MAX, 0), Range::All);
    }

    #[test]
    fn other_cpus_are_checked_if_the_mask_has_any() {
        assert_eq!(Reach::new(true, false), Reach::Many);
        assert_eq!(Reach::new(true, true), Reach::Many);
        assert_eq!(Reach::new(false, true), Reach::Here);
        assert_eq!(Reach::new(false, false), Reach::Nowhere);
    }

    #[test]
    fn a_cpu_that_uses_or_loads_the_address_space_is_notified() {
        let one = told(Some(20), false, false);
        assert!(one.concerns(shown(20, false)));
        assert!(one.concerns(shown(0, false)));
        assert!(!one.concerns(shown(10, false)));
        let all = told(None, false, false);
        assert!(all.concerns(shown(10, false)));
    }

    #[test]
    fn a_lazy_cpu_is_notified_of_freed_tables_only() {
        for space in [Some(20), None] {
            assert!(!told(space, false, true).concerns(shown(20, true)));
            assert!(told(space, true, false).concerns(shown(20, true)));
        }
    }

    #[test]
    fn a_cpu_with_another_address_space_is_notified_to_trim_the_mask() {
        assert!(told(Some(20), false, true).concerns(shown(10, false)));
    }
}
