// SPDX-License-Identifier: GPL-2.0

//! This module walks an EPT for userspace programs.

use crate::{
    ept::{
        entry::Rules,
        Eptp,
        Levels, //
    },
    model::ept::{
        access,
        walk::{
            self,
            Last,
            Outcome, //
        }, //
    },
    paging::permission::AccessKind,
    vmx::caps::EptVpidCap,
    x86::addr::{
        Gpa,
        Hpa,
        MaxPhyAddr, //
    }, //
};

/// A CPU and an EPT pointer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Setup {
    /// `IA32_VMX_EPT_VPID_CAP`.
    pub caps: u64,
    /// The width of physical addresses, 32 to 52.
    pub width: u32,
    /// Mode-based execute control is on.
    pub mbec: bool,
    /// The EPT has five levels instead of four.
    pub five: bool,
    /// The EPT has accessed and dirty flags.
    pub accessed_dirty: bool,
    /// The address of the root table.
    pub root: u64,
}

/// The purpose of an access to a guest-physical address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The access is to the translation of a linear address.
    Page {
        /// User-mode accesses are permitted.
        user: bool,
        /// Writes are permitted.
        writable: bool,
        /// Fetches are forbidden.
        no_execute: bool,
    },
    /// The access is to an entry of the guest's page tables.
    Table,
    /// No linear address is involved.
    Physical,
}

/// An access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// The access is a write.
    pub write: bool,
    /// The access is a fetch; at most one of `write` and `fetch` is set.
    pub fetch: bool,
    /// The purpose of the access.
    pub stage: Stage,
}

/// The end of a walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// A page.
    Page {
        /// The host-physical address.
        hpa: u64,
        /// The rights that all entries give: bits 0 to 2, and 10.
        rights: u64,
        /// The number of the memory type.
        memory_type: u8,
        /// The number of entries that were read.
        references: usize,
    },
    /// An EPT violation.
    Violation {
        /// The exit qualification.
        qualification: u64,
        /// The number of entries that were read.
        references: usize,
    },
    /// An EPT misconfiguration.
    Misconfiguration {
        /// The number of entries that were read.
        references: usize,
    },
    /// No end: entries kept changing.
    Retry,
}

/// The memory of the tables.
pub trait Tables {
    /// Reads an entry.
    fn read(&mut self, address: u64) -> u64;
    /// Replaces an entry if it still has the value `old`; returns whether it had.
    fn exchange(&mut self, address: u64, old: u64, new: u64) -> bool;
}

/// Passes the reads and exchanges of a walk to a [`Tables`].
struct Theirs<'a, T>(&'a mut T);

impl<T: Tables> walk::Tables for Theirs<'_, T> {
    fn read(&mut self, at: Hpa) -> u64 {
        self.0.read(at.into_raw())
    }
    fn exchange(&mut self, at: Hpa, old: u64, new: u64) -> bool {
        self.0.exchange(at.into_raw(), old, new)
    }
}

/// Walks to an address.
pub fn walk(setup: Setup, tables: &mut impl Tables, gpa: u64, access: Access) -> End {
    let width = MaxPhyAddr::new(setup.width);
    let rules = Rules::new(EptVpidCap::from(setup.caps), width, setup.mbec);
    let levels = if setup.five {
        Levels::Five
    } else {
        Levels::Four
    };
    let eptp = Eptp::for_root(Hpa::new(setup.root), levels, setup.accessed_dirty);
    let access = access::Access {
        kind: match (access.write, access.fetch) {
            (true, _) => AccessKind::Write,
            (_, true) => AccessKind::Fetch,
            _ => AccessKind::Read,
        },
        stage: match access.stage {
            Stage::Physical => access::Stage::Physical,
            Stage::Table => access::Stage::Table,
            Stage::Page {
                user,
                writable,
                no_execute,
            } => access::Stage::Page(access::Linear {
                user,
                writable,
                no_execute,
            }),
        },
    };
    match walk::walk(rules, eptp, &mut Theirs(tables), Gpa::new(gpa), access) {
        Outcome::Translated(found) => End::Page {
            hpa: found.hpa.into_raw(),
            rights: found.rights.into_raw(),
            // CAST: The value of the enumeration is the number of the memory type, at most 7.
            memory_type: found.memory_type as u8,
            references: found.last.references,
        },
        Outcome::Violation(qualification, Last { references, .. }) => End::Violation {
            qualification: qualification.into_raw(),
            references,
        },
        Outcome::Misconfiguration(_, Last { references, .. }) => {
            End::Misconfiguration { references }
        }
        Outcome::Retry => End::Retry,
    }
}
