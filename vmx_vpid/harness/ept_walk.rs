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
    /// The EPT has five levels, and not four.
    pub five: bool,
    /// It has accessed and dirty flags.
    pub accessed_dirty: bool,
    /// Where its root is.
    pub root: u64,
}

/// What a guest-physical address is accessed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It is what a linear address stands for.
    Page {
        /// User mode may access it.
        user: bool,
        /// It may be written.
        writable: bool,
        /// Nothing may be fetched.
        no_execute: bool,
    },
    /// An entry of the guest's page tables is there.
    Table,
    /// No linear address has to do with it.
    Physical,
}

/// An access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// It writes.
    pub write: bool,
    /// It fetches; does not go with `write`.
    pub fetch: bool,
    /// What for.
    pub stage: Stage,
}

/// How a walk ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// At a page.
    Page {
        /// The host-physical address.
        hpa: u64,
        /// What all entries permit: bits 0 to 2, and 10.
        rights: u64,
        /// The memory type, by its number.
        memory_type: u8,
        /// How many entries were read.
        references: usize,
    },
    /// In a violation.
    Violation {
        /// The exit qualification.
        qualification: u64,
        /// How many entries were read.
        references: usize,
    },
    /// In a misconfiguration.
    Misconfiguration {
        /// How many entries were read.
        references: usize,
    },
    /// Nowhere: entries kept changing.
    Retry,
}

/// The memory that tables are in.
pub trait Tables {
    /// Reads an entry.
    fn read(&mut self, address: u64) -> u64;
    /// Replaces an entry, if it still has the value `old`.
    fn exchange(&mut self, address: u64, old: u64, new: u64) -> bool;
}

/// Tables as the walk wants them.
struct Theirs<'a, T>(&'a mut T);

impl<T: Tables> walk::Tables for Theirs<'_, T> {
    fn read(&mut self, at: Hpa) -> u64 {
        self.0.read(at.into_raw())
    }
    fn exchange(&mut self, at: Hpa, old: u64, new: u64) -> bool {
        self.0.exchange(at.into_raw(), old, new)
    }
}

/// Walks.
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
            // CAST: Its number.
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
