// SPDX-License-Identifier: GPL-2.0

//! This crate compares the pure files of vmx_vpid with reference implementations that are made to
//! be right, not fast.
//!
//! A mistake costs most where a guest controls the input: operands, descriptors, page tables.  Each
//! module has a function `check()` that turns any bytes into a case, runs the case by the code of
//! vmx_vpid and by the implementation in [`reference`], and panics unless both agree.  The
//! reference implementations follow the manual bit by bit and byte by byte, and share no code with
//! vmx_vpid, not even a random generator.
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

    /// The number of random cases.
    const CASES: u32 = 200_000;
    /// The length of a random case, in bytes, is below this number.
    const LEN: u64 = 200;

    /// Checks random cases; the generator is the xorshift of Marsaglia.
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
            // CAST: Only the lowest byte of the number is used.
            let bytes: Vec<u8> = (0..len).map(|_| next() as u8).collect();
            check(&bytes);
        }
    }

    /// Decodes one line of a seed file: two hexadecimal digits for each byte.
    fn decode(line: &str) -> Option<Vec<u8>> {
        let digits: Option<Vec<u32>> = line.chars().map(|digit| digit.to_digit(16)).collect();
        let (pairs, rest) = digits.as_ref()?.as_chunks::<2>();
        if !rest.is_empty() {
            return None;
        }
        // CAST: Two hexadecimal digits fit in a byte.
        Some(
            pairs
                .iter()
                .map(|[high, low]| (high << 4 | low) as u8)
                .collect(),
        )
    }

    /// Checks each case in the corpus of a fuzz target.
    fn of_corpus(target: &str, check: fn(&[u8])) -> io::Result<()> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
        let mut count = 0;
        for line in fs::read_to_string(folder.join(format!("{target}.seeds")))?.lines() {
            let seed = decode(line);
            assert!(
                seed.is_some(),
                "{target}.seeds: no hexadecimal digits: {line}"
            );
            check(&seed.unwrap_or_default());
            count += 1;
        }
        assert!(count > 10, "{target}: a corpus of {count}");
        Ok(())
    }

    #[test]
    fn random_operands_agree_with_the_reference() {
        at_random(operand::check);
    }

    #[test]
    fn corpus_operands_agree_with_the_reference() -> io::Result<()> {
        of_corpus("operand", operand::check)
    }

    #[test]
    fn random_descriptors_agree_with_the_reference() {
        at_random(descriptor::check);
    }

    #[test]
    fn corpus_descriptors_agree_with_the_reference() -> io::Result<()> {
        of_corpus("descriptor", descriptor::check)
    }

    #[test]
    fn random_ept_walks_agree_with_the_reference() {
        at_random(ept_walk::check);
    }

    #[test]
    fn corpus_ept_walks_agree_with_the_reference() -> io::Result<()> {
        of_corpus("ept_walk", ept_walk::check)
    }

    #[test]
    fn corpus_steps_leave_no_stale_translation() -> io::Result<()> {
        of_corpus("steps", steps::check)
    }

    #[test]
    fn random_walks_agree_with_the_reference() {
        at_random(walk::check);
    }

    #[test]
    fn corpus_walks_agree_with_the_reference() -> io::Result<()> {
        of_corpus("walk", walk::check)
    }
}
