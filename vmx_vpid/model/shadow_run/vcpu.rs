// SPDX-License-Identifier: GPL-2.0

//! This module models a vCPU: its registers, its roots, its invalidations, and KVM's pending work
//! for it.

use super::memory::{
    PD32,
    PML4, //
};
use crate::{
    model::shadow_mmu::{
        guest::Paging,
        role::{
            Grant,
            Role, //
        },
        roots::Cache, //
    },
    paging::{
        entry::Entry,
        permission::{
            Access,
            AccessKind,
            Control, //
        }, //
    },
    x86::control_regs::{
        Cr0,
        Cr4,
        Efer, //
    }, //
};

/// The number of PCIDs in use.
pub(super) const PCIDS: usize = 3;

/// The paging mode of a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// Four levels, and PCIDs.
    Long,
    /// Two levels.
    Legacy,
    /// Paging off.
    Off,
}

/// The times at which a guest last invalidated its translations.
#[derive(Clone, Copy, Default)]
pub(super) struct Invalidated {
    /// All translations.
    pub(super) all: u32,
    /// A PCID.
    pub(super) pcid: [u32; PCIDS],
    /// A page in a PCID.
    pub(super) page: [[u32; super::memory::PAGES as usize]; PCIDS],
}

impl Invalidated {
    /// Returns the time of the last invalidation that covers a page in a PCID.
    pub(super) fn since(&self, pcid: u64, page: usize) -> u32 {
        let at = pcid as usize % PCIDS;
        self.all.max(self.pcid[at]).max(self.page[at][page])
    }
}

/// The requests that KVM has to serve before the vCPU runs again.
#[derive(Clone, Copy, Default)]
pub(super) struct Pending {
    /// `KVM_REQ_MMU_SYNC`.
    pub(super) sync: bool,
    /// `KVM_REQ_TLB_FLUSH_CURRENT`.
    pub(super) current: bool,
    /// `KVM_REQ_TLB_FLUSH_GUEST`.
    pub(super) guest: bool,
}

/// A vCPU.
pub(super) struct Vcpu {
    pub(super) mode: Mode,
    pub(super) write_protect: bool,
    pub(super) smep: bool,
    pub(super) smap: bool,
    /// The root table in use, one of two of the mode.
    pub(super) root: u64,
    pub(super) pcid: u64,
    pub(super) roots: Cache,
    pub(super) invalidated: Invalidated,
    pub(super) pending: Pending,
}

impl Vcpu {
    /// Makes a vCPU with four levels.
    pub(super) fn new() -> Self {
        let mut vcpu = Self {
            mode: Mode::Long,
            write_protect: true,
            smep: false,
            smap: false,
            root: 0,
            pcid: 0,
            roots: Cache::new(Role::from_raw(0)),
            invalidated: Invalidated::default(),
            pending: Pending::default(),
        };
        vcpu.roots = Cache::new(vcpu.role());
        vcpu
    }

    /// Returns the registers that permissions depend on.
    pub(super) fn control(&self) -> Control {
        let on = self.mode != Mode::Off;
        let long = self.mode == Mode::Long;
        Control {
            cr0: Cr0::from(0)
                .with_protected(true)
                .with_paging(on)
                .with_write_protect(self.write_protect),
            cr4: Cr4::from(0)
                .with_page_size_extensions(true)
                .with_physical_address_extension(long)
                .with_pcide(long)
                .with_smep(self.smep)
                .with_smap(self.smap),
            efer: Efer::from(0)
                .with_long_mode_active(long)
                .with_no_execute(true),
        }
    }

    /// Returns the setup of the guest's paging.
    pub(super) fn paging(&self) -> Paging {
        let (table, levels) = match self.mode {
            Mode::Long => (PML4 + self.root, 4),
            Mode::Legacy => (PD32 + self.root, 2),
            Mode::Off => (0, 0),
        };
        Paging {
            control: self.control(),
            levels,
            cr3: table << 12 | self.pcid,
        }
    }

    /// Returns the role of the roots that the vCPU needs.
    pub(super) fn role(&self) -> Role {
        let levels = match self.mode {
            Mode::Legacy => 2,
            _ => 4,
        };
        Role::of_guest(&self.control(), levels, false, false).root()
    }

    /// Returns whether the CPU permits an access by an entry of KVM's.  The CPU runs with CR0.WP
    /// set in any case, and with SMEP and SMAP clear while the guest has paging off.
    pub(super) fn cpu_allows(&self, entry: Entry, access: Access) -> bool {
        let control = self.control();
        let paging = control.cr0.paging();
        let cpu = Control {
            cr0: control.cr0.with_write_protect(true),
            cr4: control
                .cr4
                .with_smep(self.smep && paging)
                .with_smap(self.smap && paging),
            ..control
        };
        let rights = Grant::of(entry).rights();
        entry.present() && cpu.check(rights, 0, access, false, 0).is_ok()
    }

    /// Returns whether the guest's own entries, with these rights, permit an access.
    pub(super) fn guest_allows(&self, guest: Grant, access: Access) -> bool {
        let control = self.control();
        let check = || control.check(guest.rights(), 0, access, false, 0).is_ok();
        self.mode == Mode::Off || check()
    }
}

/// Returns every kind of access.
pub(super) fn accesses() -> impl Iterator<Item = Access> {
    let kinds = [AccessKind::Read, AccessKind::Write, AccessKind::Fetch];
    kinds
        .into_iter()
        .flat_map(|kind| [false, true].map(|user| Access { kind, user }))
}
