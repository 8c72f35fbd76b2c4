// SPDX-License-Identifier: GPL-2.0

//! This module describes the context of a guest: the tags of its translations, and the tables that
//! they are made from.

use crate::{
    ept::Ep4ta,
    model::{
        cpu::tlb_entry::Kind,
        guest::{
            invalidated,
            memory::Gfn, //
        },
        kvm::{
            tables::Tree,
            vcpu::{
                Ept12,
                Reader, //
            }, //
        }, //
    },
    vpid::Vpid,
    x86::invpcid::Pcid, //
};

/// What a guest runs with: the tags that are in force, and what its tables are.
#[derive(Clone, Copy)]
pub(crate) struct Context {
    /// The vCPU.
    pub(crate) id: usize,
    /// The CPU.
    pub(crate) cpu: usize,
    /// The VPID; `None` for VPID 0.
    pub(crate) vpid: Option<Vpid>,
    /// The PCID.
    pub(crate) pcid: Pcid,
    /// The tree that KVM runs it on.
    pub(crate) tree: Tree,
    /// The guest's root table; `None` with paging off.
    pub(crate) root: Option<Gfn>,
    /// For whom its tables are read.
    pub(crate) reader: Reader,
    /// Which of the readers of its life that is.
    pub(crate) reader_index: usize,
    /// The EPT of L1's that it runs on.
    pub(crate) ept12: Option<Ept12>,
}

impl Context {
    /// The EP4TA, with EPT on.
    pub(crate) fn ep4ta(&self) -> Option<Ep4ta> {
        let ept = self.tree.role.is_ept();
        ept.then(|| self.tree.root.eptp(false).ep4ta())
    }

    /// The kind of its mappings of linear addresses.
    pub(crate) fn kind(&self) -> Kind {
        if self.tree.role.is_ept() {
            Kind::Combined
        } else {
            Kind::Linear
        }
    }

    /// Which of the PCIDs it is.
    pub(crate) fn pcid_index(&self) -> usize {
        invalidated::index(self.pcid)
    }
}
