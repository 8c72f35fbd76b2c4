// SPDX-License-Identifier: GPL-2.0

//! This module defines accesses to guest-physical addresses: the rights that an access needs, and
//! the exit qualification that the CPU writes if the EPT does not give these rights.
//!
//! Source: the manual's chapter on the extended page-table mechanism, "EPT Violations", and the
//! chapter on VM exits, the exit qualification for EPT violations.

use crate::{
    ept::{
        entry::{
            Rights,
            Rules, //
        },
        violation::Qualification, //
    },
    paging::permission::AccessKind, //
};

/// The rights that a guest's own page tables give for the accessed page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Linear {
    /// User-mode accesses are permitted: the address is a user-mode linear address.
    pub(crate) user: bool,
    /// Writes are permitted.
    pub(crate) writable: bool,
    /// Fetches are forbidden.
    pub(crate) no_execute: bool,
}

impl Linear {
    /// The rights of every address when the guest has paging off.
    pub(crate) const UNPAGED: Self = Self {
        user: true,
        writable: true,
        no_execute: false,
    };
}

/// The purpose of an access to a guest-physical address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// The access is to the translation of a linear address.
    Page(Linear),
    /// The access is to an entry of the guest's page tables, to translate a linear address.
    Table,
    /// No linear address is involved, for example when a load of CR3 loads the four PDPTEs.
    Physical,
}

/// An access to a guest-physical address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Access {
    /// The kind of the access.
    pub(crate) kind: AccessKind,
    /// The purpose of the access.
    pub(crate) stage: Stage,
}

impl Access {
    /// Returns the rights that every entry on the way has to give.
    ///
    /// The CPU reads an entry of the guest's page tables, and writes the entry to set the accessed
    /// or dirty flag.  If EPT entries have such flags (`accessed_dirty`), each access to a guest's
    /// entry counts as a read and a write.
    #[inline]
    pub(crate) fn needs(self, rules: Rules, accessed_dirty: bool) -> Rights {
        let user = matches!(self.stage, Stage::Page(Linear { user: true, .. }));
        match (self.stage, self.kind) {
            (Stage::Table, AccessKind::Write) => Rights::READ.or(Rights::WRITE),
            (Stage::Table, _) if accessed_dirty => Rights::READ.or(Rights::WRITE),
            (Stage::Table, _) | (_, AccessKind::Read) => Rights::READ,
            (_, AccessKind::Write) => Rights::WRITE,
            (_, AccessKind::Fetch) if user && rules.mbec() => Rights::EXECUTE_USER,
            (_, AccessKind::Fetch) => Rights::EXECUTE,
        }
    }
}

impl Qualification {
    /// Builds the exit qualification of a violation.
    ///
    /// `needed` has the rights that the access needs; `granted` has the rights that all used
    /// entries give, or [`Rights::NONE`] if an entry is not present.  Bits that depend on the
    /// instruction and not on the walk, such as those for NMIs and shadow stacks, are 0.
    #[inline]
    pub(crate) fn for_walk(rules: Rules, stage: Stage, needed: Rights, granted: Rights) -> Self {
        let qualification = Self::from_raw(0)
            .with_read(needed.read())
            .with_write(needed.write())
            .with_fetch(needed.execute() || needed.execute_user())
            .with_readable(granted.read())
            .with_writable(granted.write())
            .with_executable(granted.execute())
            .with_user_executable(granted.execute_user());
        match stage {
            Stage::Physical => qualification,
            Stage::Table => qualification.with_linear_valid(true),
            Stage::Page(linear) => qualification
                .with_linear_valid(true)
                .with_linear_translated(true)
                .with_advanced(rules, linear),
        }
    }

    /// Adds the bits that only CPUs with advanced exit information report.
    fn with_advanced(self, rules: Rules, linear: Linear) -> Self {
        if !rules.advanced_exit_info() {
            return self;
        }
        self.with_linear_user(linear.user)
            .with_linear_writable(linear.writable)
            .with_linear_no_execute(linear.no_execute)
    }
}

#[cfg(CONFIG_VMX_VPID_KUNIT_TEST)]
#[kernel::macros::kunit_tests(vmx_vpid_ept_access)]
mod tests {
    use super::{
        AccessKind::*,
        *, //
    };
    use crate::{
        vmx::caps::EptVpidCap,
        x86::addr::MaxPhyAddr, //
    };

    fn rules(mbec: bool, advanced: bool) -> Rules {
        let caps = EptVpidCap::from(0).with_advanced_exit_info(advanced);
        Rules::new(caps, MaxPhyAddr::new(46), mbec)
    }

    /// Returns a linear address from bits 11:9 of a qualification.
    fn linear(bits: u64) -> Linear {
        Linear {
            user: bits & 1 << 9 != 0,
            writable: bits & 1 << 10 != 0,
            no_execute: bits & 1 << 11 != 0,
        }
    }

    #[test]
    fn needed_rights_follow_kind_stage_and_flags() {
        const R: u64 = 1;
        const W: u64 = 2;
        let user = Stage::Page(Linear::UNPAGED);
        let supervisor = Stage::Page(linear(0));
        for (stage, kind, mbec, accessed_dirty, needed) in [
            (user, Read, true, true, R),
            (user, Write, true, true, W),
            (user, Fetch, true, false, 1 << 10),
            (user, Fetch, false, true, 1 << 2),
            (supervisor, Read, true, true, R),
            (supervisor, Write, true, false, W),
            (supervisor, Fetch, true, true, 1 << 2),
            (supervisor, Fetch, false, false, 1 << 2),
            (Stage::Physical, Read, true, true, R),
            (Stage::Physical, Write, false, false, W),
            (Stage::Table, Read, true, false, R),
            (Stage::Table, Read, true, true, R | W),
            (Stage::Table, Write, false, false, R | W),
            (Stage::Table, Write, false, true, R | W),
        ] {
            let found = Access { kind, stage }.needs(rules(mbec, true), accessed_dirty);
            assert_eq!(found.into_raw(), needed);
        }
    }

    #[test]
    fn a_qualification_has_needed_and_granted_rights() {
        let read_write = Rights::READ.or(Rights::WRITE);
        for (needed, low) in [
            (Rights::READ, 1),
            (Rights::WRITE, 2),
            (read_write, 3),
            (Rights::EXECUTE, 4),
            (Rights::EXECUTE_USER, 4),
        ] {
            for (granted, middle) in [
                (Rights::NONE, 0),
                (Rights::READ, 1 << 3),
                (Rights::WRITE, 1 << 4),
                (Rights::EXECUTE, 1 << 5),
                (Rights::EXECUTE_USER, 1 << 6),
                (Rights::ALL, 0b1111 << 3),
            ] {
                let found = |stage, advanced| {
                    Qualification::for_walk(rules(true, advanced), stage, needed, granted)
                        .into_raw()
                };
                assert_eq!(found(Stage::Physical, true), low | middle);
                assert_eq!(found(Stage::Table, true), low | middle | 1 << 7);
                for bits in (0..8).map(|bits| bits << 9) {
                    let page = Stage::Page(linear(bits));
                    assert_eq!(found(page, true), low | middle | 0b11 << 7 | bits);
                    assert_eq!(found(page, false), low | middle | 0b11 << 7);
                }
            }
        }
    }
}
