// SPDX-License-Identifier: GPL-2.0

//! This module walks through a guest's tables by the kernel's code, [`crate::paging::walk`].
//!
//! The oracle has a walk of its own ([`super::walk`]), which knows one format of tables.  The two
//! walks have to agree on the same tables.

use super::memory::Gfn;
use crate::{
    model::cpu::tlb::address_of,
    paging::{
        level::EntryWidth,
        permission::{
            Access,
            AccessKind, //
        },
        walk::{
            translate,
            Answer,
            Exchange,
            Memory, //
        },
        Features,
        Paging, //
    },
    x86::{
        addr::{
            Gpa,
            Gva,
            MaxPhyAddr, //
        },
        control_regs::{
            Cr0,
            Cr3,
            Cr4,
            Efer, //
        }, //
    }, //
};
use kernel::prelude::Zeroable;

/// A guest's tables; the closure reads a word of a guest's frame.
struct Words<R>(R);

impl<R: Fn(Gfn, usize) -> Option<u64>> Memory for Words<R> {
    fn read_entry(&mut self, address: Gpa, _: EntryWidth) -> Option<u64> {
        let address = address.into_raw();
        // CAST: The index is masked to nine bits.
        (self.0)(Gfn::of_entry(address), (address >> 3 & 511) as usize)
    }
    /// Sets no flag: the check must not change the tables.
    fn exchange_entry(&mut self, _: Gpa, _: EntryWidth, _: u64, _: u64) -> Exchange {
        Exchange::Done
    }
    fn read(&mut self, _: Gpa, _: &mut [u8]) -> Answer {
        Answer::NoMemory
    }
    fn pdpte(&mut self, _: usize) -> u64 {
        0
    }
    fn alignment_check(&mut self) -> bool {
        false
    }
    fn pkru(&mut self) -> u32 {
        0
    }
}

/// Translates a page for the guest's kernel, with CR0.WP set; `None` if the access gets a fault.
///
/// The tables are read as four-level tables, their format in every mode of the model.
// Not inlined: the stack frame is large, and is free again when the oracle continues.
#[inline(never)]
pub(crate) fn by_kernel(
    root: Gfn,
    page: u16,
    write: bool,
    read: impl Fn(Gfn, usize) -> Option<u64>,
) -> Option<Gfn> {
    let paging = Paging::new(
        Cr0::zeroed().with_paging(true).with_write_protect(true),
        Cr3::from(root.address()),
        Cr4::zeroed().with_physical_address_extension(true),
        Efer::zeroed().with_long_mode_active(true),
        Features {
            max_phy_addr: MaxPhyAddr::new(46),
            gigabyte_pages: true,
            pse36: true,
        },
    );
    let access = Access {
        kind: if write {
            AccessKind::Write
        } else {
            AccessKind::Read
        },
        user: false,
    };
    let gva = Gva::new(address_of(page));
    let gpa = translate(&paging, &mut Words(read), gva, access).ok()?;
    Some(Gfn::of_entry(gpa.into_raw()))
}
