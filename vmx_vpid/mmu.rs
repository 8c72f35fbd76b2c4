// SPDX-License-Identifier: GPL-2.0

//! This module derives which MMU of KVM translates a guest's addresses, and compares it with KVM.
//!
//! The setup of kvm_intel and of the vCPU determines which of four kinds KVM has to use: see
//! [`Choice::of()`].  [`Seen`] is the MMU that KVM uses for a vCPU, read from KVM's pointers and
//! from the role of the root, independently of the choice.  The two have to agree.
//!
//! | EPT on | runs | L1 gave an EPT | translated by        | set of roots | role        |
//! |--------|------|----------------|----------------------|--------------|-------------|
//! | yes    | L1   |                | [`Mmu::Tdp`]         | `root_mmu`   | direct      |
//! | yes    | L2   | no             | [`Mmu::Tdp`]         | `root_mmu`   | direct, L2  |
//! | yes    | L2   | yes            | [`Mmu::NestedTdp`]   | `guest_mmu`  | L2          |
//! | no     | L1   |                | [`Mmu::Shadow`]      | `root_mmu`   |             |
//! | no     | L2   | never          | [`Mmu::NestedShadow`] | `root_mmu`  | L2          |
//!
//! With EPT off and the guest's paging off there is nothing to shadow: the tables are direct, and
//! have three levels, as for each guest whose paging has fewer than four levels.
//!
//! Source: `kvm_init_mmu()` and what it calls in `mmu/mmu.c`; `nested_ept_init_mmu_context()` in
//! `vmx/nested.c`.

/// The MMU that translates a guest's addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mmu {
    /// By the guest's page tables, and by an EPT that KVM builds for the VM's memory:
    /// two-dimensional paging.
    Tdp,
    /// By L2's page tables, and by KVM's shadow of the EPT that L1 gave it.
    NestedTdp,
    /// By KVM's shadow of L1's page tables.
    Shadow,
    /// By KVM's shadow of L2's page tables.
    NestedShadow,
}

impl Mmu {
    /// Returns the name of the MMU in debugfs.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Tdp => "tdp",
            Self::NestedTdp => "nested-tdp",
            Self::Shadow => "shadow",
            Self::NestedShadow => "nested-shadow",
        }
    }

    /// Returns whether each root of the MMU is made for one CR3 of the guest.
    pub(crate) fn is_shadow(self) -> bool {
        matches!(self, Self::Shadow | Self::NestedShadow)
    }
}

/// The setup of kvm_intel and a vCPU, as far as the MMU depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Setup {
    /// kvm_intel uses EPT.
    pub(crate) ept: bool,
    /// The vCPU runs L2.
    pub(crate) l2: bool,
    /// L1 gave L2 an EPT; with EPT off, KVM does not offer EPT to L1.
    pub(crate) ept12: bool,
    /// The number of levels of the running guest's paging, 2 to 5; 0 if the guest's paging is off.
    pub(crate) levels: u8,
}

/// The MMU that KVM has to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Choice {
    /// The kind of the MMU.
    pub(crate) mmu: Mmu,
    /// Whether the roots are for L2.
    pub(crate) guest_mode: bool,
    /// Whether the tables are made from the VM's memory alone.
    pub(crate) direct: bool,
    /// The number of levels of tables, with the root; `None` for an EPT, which has four or five.
    pub(crate) level: Option<u8>,
}

impl Choice {
    /// The smallest number of levels of shadow tables: for a guest with fewer levels, KVM uses the
    /// three levels of PAE paging.
    const LEAST: u8 = 3;

    /// Returns the MMU that KVM has to use with a setup.
    pub(crate) fn of(setup: Setup) -> Self {
        let Setup {
            ept,
            l2,
            ept12,
            levels,
        } = setup;
        let mmu = match (ept, l2) {
            (true, true) if ept12 => Mmu::NestedTdp,
            (true, _) => Mmu::Tdp,
            (false, false) => Mmu::Shadow,
            (false, true) => Mmu::NestedShadow,
        };
        Self {
            mmu,
            guest_mode: l2,
            direct: mmu == Mmu::Tdp || mmu.is_shadow() && levels == 0,
            level: mmu.is_shadow().then_some(levels.max(Self::LEAST)),
        }
    }
}

/// The MMU that KVM uses for a vCPU: its pointers, and the role of its root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Whether the set of roots in use is `guest_mmu`; otherwise it is `root_mmu`.
    pub(crate) guest_mmu: bool,
    /// Whether the MMU walks L1's EPT; otherwise the MMU walks the guest's page tables.
    pub(crate) ngpa_walk: bool,
    /// Whether the role says that the tables are direct.
    pub(crate) direct: bool,
    /// Whether the role says that the tables are for L2.
    pub(crate) guest_mode: bool,
    /// The level of the root.
    pub(crate) level: u8,
}

impl Seen {
    /// Returns the MMU that KVM's pointers and role stand for; `None` if they contradict each
    /// other, as they may while KVM enters or leaves L2.
    pub(crate) fn mmu(self) -> Option<Mmu> {
        match (self.guest_mmu, self.ngpa_walk, self.direct) {
            (true, true, false) if self.guest_mode => Some(Mmu::NestedTdp),
            // An EPT has at least four levels.
            (false, false, true) if self.level > Choice::LEAST => Some(Mmu::Tdp),
            (false, false, _) if self.guest_mode => Some(Mmu::NestedShadow),
            (false, false, _) => Some(Mmu::Shadow),
            _ => None,
        }
    }

    /// Returns whether everything matches a setup.
    pub(crate) fn agrees(self, choice: Choice) -> bool {
        let level = choice.level.unwrap_or(if self.level == 5 { 5 } else { 4 });
        self.mmu() == Some(choice.mmu)
            && (self.guest_mode, self.direct) == (choice.guest_mode, choice.direct)
            && self.level == level
    }
}

#[cfg(CONFIG_VMX_VPID_KUNIT_TEST)]
#[kernel::macros::kunit_tests(vmx_vpid_mmu)]
mod tests {
    use super::*;

    const YES: bool = true;
    const NO: bool = false;

    /// EPT, L2, L1's EPT, levels.
    type Given = (bool, bool, bool, u8);
    /// The expected result: kind, for L2, direct, level.
    type Wanted = (Mmu, bool, bool, Option<u8>);

    #[rustfmt::skip]
    const TABLE: [(Given, Wanted); 19] = [
        ((YES, NO,  NO,  0), (Mmu::Tdp, NO, YES, None)),
        ((YES, NO,  NO,  2), (Mmu::Tdp, NO, YES, None)),
        ((YES, NO,  NO,  4), (Mmu::Tdp, NO, YES, None)),
        ((YES, NO,  NO,  5), (Mmu::Tdp, NO, YES, None)),
        ((YES, YES, NO,  0), (Mmu::Tdp, YES, YES, None)),
        ((YES, YES, NO,  4), (Mmu::Tdp, YES, YES, None)),
        ((YES, YES, YES, 0), (Mmu::NestedTdp, YES, NO, None)),
        ((YES, YES, YES, 3), (Mmu::NestedTdp, YES, NO, None)),
        ((YES, YES, YES, 5), (Mmu::NestedTdp, YES, NO, None)),
        ((NO,  NO,  NO,  0), (Mmu::Shadow, NO, YES, Some(3))),
        ((NO,  NO,  NO,  2), (Mmu::Shadow, NO, NO, Some(3))),
        ((NO,  NO,  NO,  3), (Mmu::Shadow, NO, NO, Some(3))),
        ((NO,  NO,  NO,  4), (Mmu::Shadow, NO, NO, Some(4))),
        ((NO,  NO,  NO,  5), (Mmu::Shadow, NO, NO, Some(5))),
        ((NO,  YES, NO,  0), (Mmu::NestedShadow, YES, YES, Some(3))),
        ((NO,  YES, NO,  2), (Mmu::NestedShadow, YES, NO, Some(3))),
        ((NO,  YES, NO,  3), (Mmu::NestedShadow, YES, NO, Some(3))),
        ((NO,  YES, NO,  4), (Mmu::NestedShadow, YES, NO, Some(4))),
        ((NO,  YES, NO,  5), (Mmu::NestedShadow, YES, NO, Some(5))),
    ];

    fn choices() -> impl Iterator<Item = (Choice, Choice)> {
        TABLE.into_iter().map(|(setup, wanted)| {
            let (ept, l2, ept12, levels) = setup;
            let (mmu, guest_mode, direct, level) = wanted;
            let setup = Setup {
                ept,
                l2,
                ept12,
                levels,
            };
            let wanted = Choice {
                mmu,
                guest_mode,
                direct,
                level,
            };
            (Choice::of(setup), wanted)
        })
    }

    /// Returns the state of KVM that agrees with a choice.
    fn seen(choice: Choice) -> Seen {
        let nested = choice.mmu == Mmu::NestedTdp;
        Seen {
            guest_mmu: nested,
            ngpa_walk: nested,
            direct: choice.direct,
            guest_mode: choice.guest_mode,
            level: choice.level.unwrap_or(4),
        }
    }

    #[test]
    fn each_setup_leads_to_the_mmu_of_the_table() {
        for (is, wanted) in choices() {
            assert_eq!(is, wanted);
        }
    }

    #[test]
    fn kvms_state_of_each_mmu_is_recognised() {
        for (choice, _) in choices() {
            assert_eq!(seen(choice).mmu(), Some(choice.mmu));
            assert!(seen(choice).agrees(choice));
            let five = Seen {
                level: 5,
                ..seen(choice)
            };
            assert_eq!(
                five.agrees(choice),
                choice.level.is_none_or(|level| level == 5)
            );
        }
    }

    /// Tries every state: if the choice leaves the level to an EPT, levels 4 and 5 both agree.
    #[test]
    fn no_other_state_of_kvm_agrees_with_a_choice() {
        for (choice, _) in choices() {
            for bits in 0..16u8 {
                let bit = |number: u8| bits >> number & 1 != 0;
                for level in 0..=6 {
                    let other = Seen {
                        guest_mmu: bit(0),
                        ngpa_walk: bit(1),
                        direct: bit(2),
                        guest_mode: bit(3),
                        level,
                    };
                    let right = seen(choice);
                    let either = choice.level.is_none() && matches!(level, 4 | 5);
                    let same = Seen { level, ..right } == other && (either || level == right.level);
                    assert_eq!(other.agrees(choice), same);
                }
            }
        }
    }

    #[test]
    fn each_mmu_has_a_name_of_its_own() {
        let names = [Mmu::Tdp, Mmu::NestedTdp, Mmu::Shadow, Mmu::NestedShadow].map(Mmu::name);
        for (number, name) in names.iter().enumerate() {
            assert!(!names[..number].contains(name));
        }
    }
}
