// SPDX-License-Identifier: GPL-2.0

//! This module compares EPT walks: `model/ept/walk.rs`, `ept/entry.rs`, `model/ept/access.rs`.

use crate::{
    input::Input,
    reference, //
};
use std::collections::BTreeMap;
use vmx_vpid::harness::ept_walk::{
    self,
    Access,
    End,
    Setup,
    Stage,
    Tables, //
};

/// Memory that has a quadword at every address: an entry for a table or a page, or any number.
///
/// The initial quadword at an address depends on the address alone.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Memory {
    /// The initial quadwords, by bits 5:3 of the address.
    quadwords: [u64; 8],
    /// The quadwords that were written.
    written: BTreeMap<u64, u64>,
    /// The number of exchanges that fail because another CPU comes first.
    failures: u8,
}

impl Tables for Memory {
    fn read(&mut self, address: u64) -> u64 {
        assert_eq!(address % 8, 0);
        let first = self.quadwords[(address >> 3 & 7) as usize];
        *self.written.get(&address).unwrap_or(&first)
    }

    fn exchange(&mut self, address: u64, old: u64, new: u64) -> bool {
        if self.read(address) != old {
            return false;
        }
        if self.failures > 0 {
            self.failures -= 1;
            // The other CPU has changed a bit that CPUs ignore.
            self.written.insert(address, old ^ 1 << 52);
            return false;
        }
        self.written.insert(address, new);
        true
    }
}

/// Makes an entry: most often a valid entry, or a valid entry with one bit inverted.
fn quadword(input: &mut Input<'_>) -> u64 {
    let style = input.below(8);
    let frame = u64::from(input.dword()) << 12;
    let flags = u64::from(input.byte());
    let other = 1u64 << input.below(64);
    match style {
        0 => input.qword(),
        1 => frame | flags,
        // A table; a page of each size.
        2 => frame | 7,
        3 => frame | 0x37,
        4 => frame << 9 & 0x000f_ffff_ffff_f000 | 0xb7,
        5 => frame | 7 ^ other,
        6 => frame | 0x37 ^ other,
        _ => frame << 18 & 0x000f_ffff_ffff_f000 | 0xb7 ^ other,
    }
}

/// Makes a case from bytes, and walks by both implementations; panics unless both walks have the
/// same result and leave the same memory.
pub fn check(bytes: &[u8]) {
    let input = &mut Input::new(bytes);
    let setup = Setup {
        caps: u64::from(input.dword()) | u64::from(input.flag()) << 17,
        width: 32 + u32::from(input.below(21)),
        mbec: input.flag(),
        five: input.flag(),
        accessed_dirty: input.flag(),
        root: u64::from(input.dword()) << 12,
    };
    let kind = input.below(3);
    let access = Access {
        write: kind == 1,
        fetch: kind == 2,
        stage: match input.below(4) {
            0 => Stage::Table,
            1 => Stage::Physical,
            _ => Stage::Page {
                user: input.flag(),
                writable: input.flag(),
                no_execute: input.flag(),
            },
        },
    };
    let gpa = input.near() & ((1 << 52) - 1);
    let memory = Memory {
        quadwords: std::array::from_fn(|_| quadword(input)),
        written: BTreeMap::new(),
        failures: if input.below(4) == 0 {
            input.below(8)
        } else {
            0
        },
    };
    let (mut first, mut other) = (memory.clone(), memory);
    let ours = ept_walk::walk(setup, &mut first, gpa, access);
    // The reference implementation walks once, so repeat the walk as long as entries change.
    let theirs = (0..16)
        .map(|_| reference::ept_walk::walk(setup, &mut other, gpa, access))
        .find(|end| *end != End::Retry);
    assert_eq!(
        Some(ours),
        theirs,
        "{setup:?} {gpa:#x} {access:?} {first:?}"
    );
    assert_eq!(first, other);
}
