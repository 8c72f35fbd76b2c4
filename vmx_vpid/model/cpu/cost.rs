// SPDX-License-Identifier: GPL-2.0

//! This module counts the cost of accesses on a CPU that takes the shortest way to a page, and the
//! cost of the oracle.
//!
//! If the page's translation is cached, the CPU walks no table.  Otherwise the CPU begins at the
//! lowest table that it has cached, and makes one memory reference for each entry that it reads, of
//! the guest's tables and of KVM's.  The frames of the guest's tables are guest-physical: the CPU
//! looks each frame up in the EPT, from the lowest cached EPT table, unless the frame's translation
//! is cached.

use super::tlb_entry::{
    Kind, //
    TlbEntry,
};
use crate::model::{
    cpu::context::Context,
    guest::memory::Gfn,
    machine::{
        Machine,
        Ways, //
    }, //
};

/// The counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cost {
    /// Accesses of guests that found no cached translation, including accesses that exited.
    pub(crate) misses: u64,
    /// Memory references to table entries made by these accesses.
    pub(crate) references: u64,
    /// Cached entries that the oracle looked at.
    pub(crate) judged: u64,
}

impl Cost {
    /// Returns the difference from an earlier count.
    pub(crate) fn since(self, earlier: Self) -> Self {
        Self {
            misses: self.misses - earlier.misses,
            references: self.references - earlier.references,
            judged: self.judged - earlier.judged,
        }
    }
}

/// Returns whether an entry permits an access without a walk: a write to a page that is not dirty
/// has to set a flag in the tables.
fn permits(entry: &TlbEntry, write: bool) -> bool {
    let permits = |rights: super::tlb_entry::Rights| rights.write && rights.dirty;
    !write || permits(entry.guest) && permits(entry.host)
}

impl Machine<'_> {
    /// Returns whether a CPU has cached the translation of a page.
    pub(crate) fn has_translation(&self, context: &Context, page: u16, write: bool) -> bool {
        let (kind, ep4ta) = (context.kind(), context.ep4ta());
        let found = self.cpus[context.cpu].find(|it| {
            let key = &it.key;
            let usable = key.kind == kind
                && !key.is_structure()
                && (key.vpid, key.ep4ta) == (context.vpid, ep4ta)
                && key.seen_with(context.pcid)
                && key.covers(page);
            (usable && permits(it, write)).then_some(())
        });
        found.is_some()
    }

    /// Returns how many entries of an EPT a CPU reads to look a frame up whose entry is in a table
    /// of a level.
    ///
    /// A CPU that takes all ways begins at the root each time.
    pub(crate) fn ept_references(
        &self,
        context: &Context,
        gfn: Gfn,
        write: bool,
        level: u8,
    ) -> u64 {
        let ep4ta = context.ep4ta();
        let mut lowest = 4;
        let known = match self.config.ways {
            Ways::All => None,
            Ways::Shortest => self.cpus[context.cpu].find(|it| {
                let key = &it.key;
                let of_it = key.kind == Kind::Physical && key.ep4ta == ep4ta && key.covers(gfn.0);
                if of_it && key.is_structure() {
                    lowest = lowest.min(key.level);
                }
                (of_it && !key.is_structure() && permits(it, write)).then_some(())
            }),
        };
        match known {
            Some(()) => 0,
            None => u64::from(lowest.saturating_sub(level)) + 1,
        }
    }

    /// Returns the counters since the machine was made.
    pub(crate) fn cost(&self) -> Cost {
        self.cost
    }

    /// Returns how many invalidations all CPUs executed since the machine was made.
    pub(crate) fn invalidations(&self) -> u64 {
        self.cpus.iter().map(|cpu| cpu.invalidations()).sum()
    }
}

#[cfg(CONFIG_VMX_VPID_KUNIT_TEST)]
#[kernel::macros::kunit_tests(vmx_vpid_model_cost)]
mod tests {
    use crate::model::{
        bug::Bugs,
        kvm::vpids::Vpids,
        machine::{
            Config,
            Machine,
            Ways, //
        },
        search::run,
        step::{
            Op,
            Step, //
        }, //
    };
    use kernel::prelude::*;

    /// A vCPU reads page 0.
    fn reads(vcpu: u8, cpu: u8) -> Step {
        Step::Guest {
            vcpu,
            cpu,
            patience: 0,
            op: Op::Access {
                page: 0,
                write: false,
            },
        }
    }

    /// Returns the cost of vCPU 1's first and second access, after vCPU 0 had KVM fill its tables
    /// on the other CPU.
    fn two_accesses(ept: bool) -> Result<[(u64, u64); 2]> {
        let flushed = run::flushed_words()?;
        let vpids = Vpids::new(&flushed)?;
        let config = Config {
            ways: Ways::Shortest,
            ..Config::usual(ept)
        };
        let mut machine = Machine::new(config, Bugs::NONE, &vpids)?;
        for step in [
            Step::Create(0),
            Step::Create(1),
            Step::Split(0),
            reads(0, 0),
        ] {
            assert_eq!(machine.step(step), Ok(()));
        }
        let mut taken = [(0, 0); 2];
        for taken in &mut taken {
            let before = machine.cost();
            assert_eq!(machine.step(reads(1, 1)), Ok(()));
            let counted = machine.cost().since(before);
            *taken = (counted.misses, counted.references);
        }
        Ok(taken)
    }

    #[test]
    fn the_first_access_walks_and_the_second_does_not() -> Result {
        // Four levels of the EPT for the root table; one EPT entry each for the page and for three
        // tables, whose frames share an EPT table; and four levels of the guest's tables.
        assert_eq!(two_accesses(true)?, [(1, 4 + 4 + 4), (0, 0)]);
        assert_eq!(two_accesses(false)?, [(1, 4), (0, 0)]);
        Ok(())
    }

    #[test]
    fn the_oracle_judges_all_cached_entries_before_and_after_a_step() -> Result {
        let flushed = run::flushed_words()?;
        let vpids = Vpids::new(&flushed)?;
        let mut machine = Machine::new(Config::usual(true), Bugs::NONE, &vpids)?;
        // At the first access KVM has to fill tables, and enters the guest more than once.
        for step in [Step::Create(0), reads(0, 0)] {
            assert_eq!(machine.step(step), Ok(()));
        }
        // CAST: A `usize` fits in 64 bits.
        let cached = machine.cpus[0].count(|_| true) as u64;
        assert!(cached > 0);
        let before = machine.cost();
        assert_eq!(machine.step(reads(0, 0)), Ok(()));
        assert_eq!(machine.cpus[0].count(|_| true) as u64, cached);
        assert_eq!(machine.cost().since(before).judged, 2 * cached);
        Ok(())
    }
}
