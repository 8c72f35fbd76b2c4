// SPDX-License-Identifier: GPL-2.0

//! This module describes the environment of a guest at VM entry: the tags of its translations, and
//! its tables.

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

/// The environment of a guest at VM entry: the tags in force, and the tables.
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
    /// The tree of KVM's that the guest runs on.
    pub(crate) tree: Tree,
    /// The guest's root table; `None` with paging off.
    pub(crate) root: Option<Gfn>,
    /// The reader of the guest's tables.
    pub(crate) reader: Reader,
    /// The index of the reader among the readers of its life.
    pub(crate) reader_index: usize,
    /// The EPT of L1's that L2 runs on.
    pub(crate) ept12: Option<Ept12>,
}

impl Context {
    /// Returns the EP4TA, with EPT on.
    pub(crate) fn ep4ta(&self) -> Option<Ep4ta> {
        let ept = self.tree.role.is_ept();
        ept.then(|| self.tree.root.eptp(false).ep4ta())
    }

    /// Returns the kind of the guest's mappings of linear addresses.
    pub(crate) fn kind(&self) -> Kind {
        if self.tree.role.is_ept() {
            Kind::Combined
        } else {
            Kind::Linear
        }
    }

    /// Returns the index of the PCID.
    pub(crate) fn pcid_index(&self) -> usize {
        invalidated::index(self.pcid)
    }
}
