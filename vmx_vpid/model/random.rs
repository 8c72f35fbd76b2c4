// SPDX-License-Identifier: GPL-2.0

//! This module makes random choices, the same in every run with the same seed.
//!
//! All models and unit tests use this generator.  Only `tools/differential` has its own, because it
//! shares no code with what it checks.

/// A source of choices.
pub(crate) trait Choice {
    /// Returns a number below `end`, which must not be 0.
    fn below(&mut self, end: u32) -> u32;

    /// Returns an index below `end`, which must not be 0 and must fit in 32 bits.
    fn index(&mut self, end: usize) -> usize {
        // CAST: Lists of tests have fewer than 2^32 elements, and the result is below that.
        self.below(end as u32) as usize
    }

    /// Returns one element of a list that is not empty.
    fn one_of<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.index(list.len())]
    }
}

/// Random numbers by the xorshift generator of Marsaglia.
#[derive(Clone, Copy)]
pub(crate) struct Random(u64);

impl Random {
    /// Returns a generator that starts from a seed; each seed has a sequence of its own.
    pub(crate) fn new(seed: u64) -> Self {
        // Multiply, so that small seeds differ in all bits.  The state must not be 0.
        let mut random = Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        random.below(2);
        random.below(2);
        random
    }
}

impl Choice for Random {
    fn below(&mut self, end: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        // CAST: The shifted value has 32 bits.
        ((self.0 >> 32) as u32) % end
    }
}
