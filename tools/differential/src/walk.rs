// SPDX-License-Identifier: GPL-2.0

//! This module compares walks of a guest's page tables: `paging/walk.rs`, `paging.rs`,
//! `paging/entry.rs`, `paging/level.rs`, `paging/permission.rs`.

use crate::{
    input::Input,
    reference, //
};
use std::collections::BTreeMap;
use vmx_vpid::harness::walk::{
    self,
    Access,
    Answer,
    Exchange,
    Features,
    Memory, //
};

/// More reads of entries than a read of two pages can need, with all retries.
const READS: u32 = 2 * 16 * 5;

/// A guest's memory that has a quadword at every address: an entry for a table or a page, or any
/// number.
///
/// The initial quadword at an address depends on the address alone, so two walks find the same
/// entries in whichever order they read.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Guest {
    /// The initial quadwords, by bits 5:3 of the address.
    quadwords: [u64; 8],
    /// The quadwords that were written.
    written: BTreeMap<u64, u64>,
    /// The guest has no memory at addresses that have all of these bits, unless the mask is 0.
    hole: u64,
    /// The host cannot read memory at addresses that have all of these bits, unless the mask is 0.
    failure: u64,
    /// The results of the next exchanges, the first exchange last, each with the value that another
    /// CPU writes before; `None` for the old value with an ignored bit changed.
    others: Vec<(Exchange, Option<u64>)>,
    pdptes: [u64; 4],
    alignment_check: bool,
    pkru: u32,
    /// The exchanges: address, old value and new value.
    exchanges: Vec<(u64, u64, u64)>,
    /// The number of entries that were read.
    reads: u32,
}

impl Guest {
    fn new(input: &mut Input<'_>) -> Self {
        let quadwords = std::array::from_fn(|_| quadword(input));
        let bits = |input: &mut Input<'_>| match input.below(4) {
            0 => 1u64 << (12 + input.below(40)) | 1 << (12 + input.below(40)),
            _ => 0,
        };
        let (hole, failure) = (bits(input), bits(input));
        let style = input.below(8);
        let count = if style < 2 { input.below(20) } else { 0 };
        let others = (0..count).map(|_| {
            let byte = if style == 0 { input.byte() } else { 3 };
            let other = quadwords[usize::from(byte >> 2 & 7)] ^ u64::from(byte & 0x60);
            match byte & 3 {
                0 => (Exchange::Done, None),
                1 => (Exchange::ReadOnly, None),
                2 if byte & 0x80 != 0 => (Exchange::NoMemory, None),
                2 => (Exchange::Changed, Some(other)),
                _ => (Exchange::Changed, None),
            }
        });
        Self {
            quadwords,
            written: BTreeMap::new(),
            hole,
            failure,
            others: others.collect(),
            pdptes: std::array::from_fn(|n| quadwords[n] ^ 0x10),
            alignment_check: input.flag(),
            pkru: input.dword(),
            exchanges: Vec::new(),
            reads: 0,
        }
    }

    /// Returns whether an address has all bits of a mask that is not 0.
    fn is_in(address: u64, mask: u64) -> bool {
        mask != 0 && address & mask == mask
    }

    /// Returns a quadword.
    fn quadword(&self, address: u64) -> u64 {
        let first = self.quadwords[(address >> 3 & 7) as usize];
        *self.written.get(&address).unwrap_or(&first)
    }

    /// Returns an entry.
    fn entry(&self, address: u64, size: u32) -> u64 {
        match size {
            8 => self.quadword(address),
            _ => self.quadword(address & !7) >> (address % 8 * 8) & 0xffff_ffff,
        }
    }

    /// Writes an entry.
    fn write(&mut self, address: u64, size: u32, new: u64) {
        let mask = if size == 8 { u64::MAX } else { 0xffff_ffff };
        let shift = address % 8 * 8;
        assert_eq!(new & !mask, 0);
        let old = self.quadword(address & !7);
        let new = old & !(mask << shift) | new << shift;
        self.written.insert(address & !7, new);
    }
}

/// Makes a quadword that may be an entry.
fn quadword(input: &mut Input<'_>) -> u64 {
    const BITS: u64 = 0x8000_0000_0000_00e7;
    let style = input.below(8);
    let value = input.qword();
    let small = value & (BITS | 0x7800_000f_ffff_f000);
    match style {
        0 => value,
        1 => small,
        // An entry that permits most accesses, and refers to a table or a page.
        2 | 3 => small & !(1 << 7 | 1 << 63) | 0x27,
        4 => small & !(1 << 7) | 1,
        // An entry for a large page: of 4 MiB, 2 MiB or 1 GiB.
        5 => small & !0x3f_e000 | 0x81,
        6 => small & !0x1f_e000 | 0x81,
        _ => small & !0x3fff_e000 | 0x81,
    }
}

impl Memory for Guest {
    fn read_entry(&mut self, address: u64, size: u32) -> Option<u64> {
        assert!(matches!(size, 4 | 8) && address.is_multiple_of(size.into()) && address < 1 << 52);
        self.reads += 1;
        assert!(self.reads <= READS, "a walk without end");
        (!Self::is_in(address, self.hole)).then(|| self.entry(address, size))
    }

    fn exchange_entry(&mut self, address: u64, size: u32, old: u64, new: u64) -> Exchange {
        self.exchanges.push((address, old, new));
        if Self::is_in(address, self.hole) {
            return Exchange::NoMemory;
        }
        match self.others.pop() {
            None | Some((Exchange::Done, _)) if self.entry(address, size) == old => {
                self.write(address, size, new);
                Exchange::Done
            }
            None | Some((Exchange::Done, _)) => Exchange::Changed,
            Some((Exchange::Changed, other)) => {
                let mask = if size == 8 { u64::MAX } else { 0xffff_ffff };
                let other = other.unwrap_or_else(|| self.entry(address, size) ^ 1 << 9);
                self.write(address, size, other & mask);
                Exchange::Changed
            }
            Some((end, _)) => end,
        }
    }

    fn read(&mut self, address: u64, bytes: &mut [u8]) -> Answer {
        assert!(!bytes.is_empty() && (address & 0xfff) + bytes.len() as u64 <= 4096);
        for (place, byte) in (address..).zip(bytes.iter_mut()) {
            *byte = self.quadword(place & !7).to_le_bytes()[(place % 8) as usize];
        }
        if Self::is_in(address, self.hole) {
            Answer::NoMemory
        } else if Self::is_in(address, self.failure) {
            Answer::HostFailure
        } else {
            Answer::Bytes
        }
    }

    fn pdpte(&mut self, index: usize) -> u64 {
        self.pdptes[index]
    }

    fn alignment_check(&mut self) -> bool {
        self.alignment_check
    }

    fn pkru(&mut self) -> u32 {
        self.pkru
    }
}

/// Makes a case from bytes, and compares the two implementations.
pub fn check(bytes: &[u8]) {
    let input = &mut Input::new(bytes);
    let registers = input.registers();
    let features = Features {
        max_phy_addr: 32 + u32::from(input.below(21)),
        gigabyte_pages: input.flag(),
        pse36: input.flag(),
    };
    let kind = input.below(4);
    let access = Access {
        write: kind == 1,
        fetch: kind == 2,
        user: input.flag(),
    };
    // Most often a random address, in some cases at the end of a page.
    let address = match input.below(4) {
        0 => input.near(),
        1 => input.qword() | 0xff8,
        _ => input.qword(),
    };
    let is_64_bit = reference::is_long(&registers) && registers.long;
    let before = Guest::new(input);
    let (mut guest, mut second) = (before.clone(), before.clone());
    let what = || format!("{address:#x}, {access:?}, {registers:x?}, {features:?}, {before:x?}");

    let (found, wanted) = if input.flag() {
        (
            walk::translate(&registers, &features, &mut guest, address, access).map(Ok),
            reference::walk::translate(&registers, &features, &mut second, address, access).map(Ok),
        )
    } else {
        (
            walk::read(
                &registers, &features, &mut guest, address, access, is_64_bit,
            )
            .map(Err),
            reference::walk::read(
                &registers,
                &features,
                &mut second,
                address,
                access,
                is_64_bit,
            )
            .map(Err),
        )
    };
    assert_eq!(found, wanted, "{}", what());
    // Both walks set flags in the same entries, in the same order.
    assert_eq!(guest.exchanges, second.exchanges, "{}", what());
    assert_eq!(guest.written, second.written, "{}", what());
}
