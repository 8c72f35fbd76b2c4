// SPDX-License-Identifier: GPL-2.0

//! This module decides which CPUs to notify of a change of tables.

use crate::asid::{
    shootdown::{
        Flush,
        Range, //
    },
    Hva,
    Published, //
};

/// How many steps are taken one by one at most: `tlb_single_page_flush_ceiling`, by default.
///
/// They are steps of whatever size: 33 pages of 2 MiB as well as of 4 KiB.
pub(crate) const CEILING: u64 = 33;

impl Range {
    /// Takes a range to be dropped, or everything if that is less work: `init_flush_tlb_info()`.
    pub(crate) fn capped(start: Hva, end: Hva, shift: u32, ceiling: u64) -> Self {
        if Self::steps(start, end, shift) > ceiling {
            Self::All
        } else {
            Self::new(start, end, shift)
        }
    }
}

/// Where a flush has to be carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// On other CPUs too: each of the mask is looked at, this one as well.
    Many,
    /// Here.
    Here,
    /// No CPU: the next CPU to use the address space reads its tlb_gen.
    Nowhere,
}

impl Reach {
    /// Decides for an address space: whether its mask has others, and whether it is in use here.
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

/// The flush as the requesting CPU sees it, besides the request to the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    /// The request.
    pub(crate) flush: Flush,
    /// Tables were freed, besides what they said.
    pub(crate) freed_tables: bool,
    /// CPUs that do not use the address space are notified too, so that they clear their bit in its
    /// mask.
    pub(crate) trim: bool,
}

impl Told {
    /// Returns whether a CPU of the mask has to be notified: `native_flush_tlb_multi()`.
    ///
    /// A lazy CPU reads the tlb_gen before it uses its translations.  But the CPU may walk tables
    /// speculatively, and a freed table must not be one of them: where tables were freed, all are
    /// notified.
    pub(crate) fn concerns(&self, shown: Published) -> bool {
        self.freed_tables || self.should(shown)
    }

    /// The same, for a flush that freed no tables: `should_flush_tlb()`.
    fn should(&self, shown: Published) -> bool {
        match (shown, self.flush.space) {
            (Published { lazy: true, .. }, _) => false,
            (_, None) => true,
            // On the way: it may have read the tlb_gen before this change.
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

    /// Returns the request for a change, or for all changes (`None`).
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

    /// A CPU that uses an address space; 0: on the way.
    fn shown(loaded: u64, lazy: bool) -> Published {
        let loaded = ContextId::new(loaded);
        Published { loaded, lazy }
    }

    #[test]
    fn a_range_beyond_the_ceiling_flushes_everything() {
        let range = |end, shift| Range::capped(Hva::new(0), Hva::new(end), shift, CEILING);
        assert!(matches!(range(33 << 12, 12), Range::Some { .. }));
        assert_eq!(range(34 << 12, 12), Range::All);
        assert!(matches!(range(33 << 21, 21), Range::Some { .. }));
        assert_eq!(range(34 << 21, 21), Range::All);
        assert_eq!(range(u64::MAX, 0), Range::All);
    }

    #[test]
    fn other_cpus_of_the_mask_are_notified() {
        assert_eq!(Reach::new(true, false), Reach::Many);
        assert_eq!(Reach::new(true, true), Reach::Many);
        assert_eq!(Reach::new(false, true), Reach::Here);
        assert_eq!(Reach::new(false, false), Reach::Nowhere);
    }

    #[test]
    fn cpus_that_use_or_may_use_the_mm_are_notified() {
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
    fn a_cpu_in_another_mm_is_sometimes_notified_to_leave_the_mask() {
        assert!(told(Some(20), false, true).concerns(shown(10, false)));
    }
}
