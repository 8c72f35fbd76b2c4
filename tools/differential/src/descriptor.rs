// SPDX-License-Identifier: GPL-2.0

//! This module compares the checks of descriptors: `x86/invpcid.rs`, `invvpid.rs`, `ept.rs`.

use crate::{
    input::Input,
    reference, //
};
use vmx_vpid::harness::descriptor;

/// Makes a case from bytes, and compares the two implementations.
pub fn check(bytes: &[u8]) {
    let input = &mut Input::new(bytes);
    let instruction = input.below(3);
    let kind = if input.below(16) == 0 {
        input.near()
    } else {
        u64::from(input.below(5))
    };
    let mut operand = [input.near(), input.near()];
    let caps = if input.flag() {
        input.qword()
    } else {
        u64::MAX
    };
    let (bits57, pcide) = (input.flag(), input.flag());
    let max_phy_addr = 32 + u32::from(input.below(21));
    if instruction == 2 && input.flag() {
        // A random number is hardly ever a valid EPT pointer.
        let (memory, walk) = (u64::from(input.below(8)), u64::from(input.below(8)));
        operand[0] = operand[0] & !0x3f | memory | walk << 3;
    }
    let what = || {
        format!(
            "type {kind:#x}, operand {operand:#x?}, capabilities {caps:#x}, \
         57 bits {bits57}, PCIDE {pcide}, MAXPHYADDR {max_phy_addr}"
        )
    };
    match instruction {
        0 => {
            let cr4 = caps & !(1 << 17) | u64::from(pcide) << 17;
            assert_eq!(
                descriptor::invpcid(kind, operand, cr4, bits57),
                reference::descriptor::invpcid(kind, operand, pcide, bits57),
                "INVPCID, {}",
                what()
            );
            assert_eq!(
                descriptor::pcid(operand[0], cr4),
                reference::descriptor::pcid(operand[0], pcide),
                "PCID, {}",
                what()
            );
        }
        1 => {
            assert_eq!(
                descriptor::invvpid_exists(kind, caps),
                reference::descriptor::invvpid_exists(kind, caps),
                "INVVPID's type, {}",
                what()
            );
            assert_eq!(
                descriptor::invvpid(kind, operand, caps, bits57),
                reference::descriptor::invvpid(kind, operand, caps, bits57),
                "INVVPID, {}",
                what()
            );
        }
        _ => {
            assert_eq!(
                descriptor::invept_exists(kind, caps),
                reference::descriptor::invept_exists(kind, caps),
                "INVEPT's type, {}",
                what()
            );
            assert_eq!(
                descriptor::invept(kind, operand, caps, max_phy_addr),
                reference::descriptor::invept(kind, operand, caps, max_phy_addr),
                "INVEPT, {}",
                what()
            );
        }
    }
}
