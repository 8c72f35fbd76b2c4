// SPDX-License-Identifier: GPL-2.0

//! This module makes numbers from bytes.
//!
//! Any bytes make a case, and each byte determines one part of the case.  Behind the last byte,
//! every byte is 0.

use vmx_vpid::harness::Registers;

/// The bytes that were not used yet.
pub struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    /// Makes an input from bytes.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Uses a number of bytes.
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let mut taken = [0; N];
        let (now, later) = self.0.split_at(self.0.len().min(N));
        taken[..now.len()].copy_from_slice(now);
        self.0 = later;
        taken
    }

    /// Returns a byte.
    pub fn byte(&mut self) -> u8 {
        self.take::<1>()[0]
    }

    /// Returns a number below `end`.
    pub fn below(&mut self, end: u8) -> u8 {
        self.byte() % end
    }

    /// Returns true or false.
    pub fn flag(&mut self) -> bool {
        self.below(2) != 0
    }

    /// Returns a number of 32 bits.
    pub fn dword(&mut self) -> u32 {
        u32::from_le_bytes(self.take())
    }

    /// Returns a number of 64 bits.
    pub fn qword(&mut self) -> u64 {
        u64::from_le_bytes(self.take())
    }

    /// Returns a number of 64 bits, most often one near a boundary.
    pub fn near(&mut self) -> u64 {
        /// The bits where addresses, offsets and fields end.
        const ENDS: [u8; 8] = [12, 16, 32, 47, 48, 56, 57, 63];
        let small = |byte: u8| i64::from(byte.cast_signed()).cast_unsigned();
        match self.below(8) {
            0 => self.qword(),
            1 => u64::from(self.dword()),
            2 => u64::from(self.byte()),
            3 => small(self.byte()),
            4 => (1u64 << self.below(64)).wrapping_add(small(self.byte())),
            style => {
                // A power of two, or its negative, plus a number from -16 to 15.
                let end = 1u64 << ENDS[usize::from(self.below(8))];
                let end = if style == 5 { end.wrapping_neg() } else { end };
                end.wrapping_add(small(self.below(32))).wrapping_sub(16)
            }
        }
    }

    /// Returns registers that a CPU can have: no long mode without paging, no paging without
    /// protected mode.
    pub fn registers(&mut self) -> Registers {
        const PE: u64 = 1;
        const PG: u64 = 1 << 31;
        const PAE: u64 = 1 << 5;
        const LMA: u64 = 1 << 10;
        let mode = self.below(8);
        let others = [self.dword(), self.dword(), self.dword()].map(u64::from);
        let [cr0, cr4, efer] = others;
        let (cr0, cr4, efer) = (cr0 & !(PE | PG), cr4 & !PAE, efer & !LMA);
        let (cr0, cr4, efer) = match mode {
            // Real mode, without paging.
            0 => (cr0, cr4, efer),
            // Protected or virtual-8086 mode, without paging.
            1 => (cr0 | PE, cr4 | others[1] & PAE, efer),
            2 => (cr0 | PE | PG, cr4, efer),
            // PAE paging.
            3 => (cr0 | PE | PG, cr4 | PAE, efer),
            // Four or five levels.
            _ => (cr0 | PE | PG, cr4 | PAE, efer | LMA),
        };
        Registers {
            cr0,
            cr3: self.qword(),
            cr4,
            efer,
            virtual_8086: matches!(mode, 1..4) && self.flag(),
            long: mode > 4,
        }
    }
}
