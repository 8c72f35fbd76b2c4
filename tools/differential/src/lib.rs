// SPDX-License-Identifier: GPL-2.0

//! Pure files of vmx_vpid against second versions, made to be right and not fast.
//!
//! What a guest controls is where a mistake costs most: operands, descriptors, page tables.  Each
//! module here has a function `check()` that makes a case of any bytes, has it done twice, by the
//! module's code and by its second version in [`reference`], and panics unless both agree.  The second
//! versions go by the manual, bit by bit and byte by byte, and know nothing of the code.
//!
//! Bytes come from a fuzzer (`tools/fuzz`), from its corpus, or at random.

pub mod descriptor;
pub mod ept_walk;
pub mod input;
pub mod operand;
pub mod reference;
pub mod steps;
pub mod walk;

#[cfg(test)]
mod differential {
    use super::*;
    use std::{
        fs,
        io,
        path::Path, //
    };

    /// Cases at random, of so many bytes at most.
    const CASES: u32 = 200_000;
    const LEN: u64 = 200;

    /// Tries cases at random; where they come from is xorshift, by Marsaglia.
    fn at_random(check: fn(&[u8])) {
        let mut random = 0x2545_f491_4f6c_dd1d_u64;
        let mut next = || {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random >> 16
        };
        for _ in 0..CASES {
            let len = next() % LEN;
            // CAST: The lowest byte.
            let bytes: Vec<u8> = (0..len).map(|_| next() as u8).collect();
            check(&bytes);
        }
    }

    /// Tries what a fuzzer found worth keeping.
    fn of_corpus(target: &str, check: fn(&[u8])) -> io::Result<()> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
        let mut count = 0;
        for file in fs::read_dir(folder.join(target))? {
            check(&fs::read(file?.path())?);
            count += 1;
        }
        assert!(count > 10, "{target}: a corpus of {count}");
        Ok(())
    }

    #[test]
    fn operands_at_random() {
        at_random(operand::check);
    }

    #[test]
    fn operands_of_the_corpus() -> io::Result<()> {
        of_corpus("operand", operand::check)
    }

    #[test]
    fn descriptors_at_random() {
        at_random(descriptor::check);
    }

    #[test]
    fn descriptors_of_the_corpus() -> io::Result<()> {
        of_corpus("descriptor", descriptor::check)
    }

    #[test]
    fn ept_walks_at_random() {
        at_random(ept_walk::check);
    }

    #[test]
    fn ept_walks_of_the_corpus() -> io::Result<()> {
        of_corpus("ept_walk", ept_walk::check)
    }

    #[test]
    fn steps_of_the_corpus() -> io::Result<()> {
        of_corpus("steps", steps::check)
    }

    #[test]
    fn walks_at_random() {
        at_random(walk::check);
    }

    #[test]
    fn walks_of_the_corpus() -> io::Result<()> {
        of_corpus("walk", walk::check)
    }
}
