// SPDX-License-Identifier: GPL-2.0

//! This module checks the operands of INVPCID, INVVPID and INVEPT by the manual's pages on these
//! instructions.

use super::{
    bit,
    bits,
    is_canonical, //
};

/// Returns whether an address can be invalidated.
fn is_address(address: u64, bits57: bool) -> bool {
    is_canonical(address, if bits57 { 57 } else { 48 })
}

/// Returns the type, PCID and address of an INVPCID, 0 for values that the type does not use;
/// `None` for #GP(0).
pub fn invpcid(
    kind: u64,
    [first, address]: [u64; 2],
    pcide: bool,
    bits57: bool,
) -> Option<(u8, u16, u64)> {
    let pcid = bits(first, 11, 0) as u16;
    if (12..64).any(|number| bit(first, number)) {
        return None;
    }
    match kind {
        0 if pcid != 0 && !pcide => None,
        0 if !is_address(address, bits57) => None,
        0 => Some((0, pcid, address)),
        1 if pcid != 0 && !pcide => None,
        1 => Some((1, pcid, 0)),
        2 => Some((2, 0, 0)),
        3 => Some((3, 0, 0)),
        _ => None,
    }
}

/// Returns the PCID under which translations are cached.
pub fn pcid(cr3: u64, pcide: bool) -> u16 {
    if pcide {
        bits(cr3, 11, 0) as u16
    } else {
        0
    }
}

/// Returns whether a type of INVVPID exists.
pub fn invvpid_exists(kind: u64, caps: u64) -> bool {
    match kind {
        0 => bit(caps, 40),
        1 => bit(caps, 41),
        2 => bit(caps, 42),
        3 => bit(caps, 43),
        _ => false,
    }
}

/// Returns the type, VPID and address of an INVVPID, 0 for values that the type does not use;
/// `None` for VM-fail.
pub fn invvpid(
    kind: u64,
    [first, address]: [u64; 2],
    caps: u64,
    bits57: bool,
) -> Option<(u8, u16, u64)> {
    let vpid = bits(first, 15, 0) as u16;
    if !invvpid_exists(kind, caps) || (16..64).any(|number| bit(first, number)) {
        return None;
    }
    match kind {
        2 => Some((2, 0, 0)),
        _ if vpid == 0 => None,
        0 if !is_address(address, bits57) => None,
        0 => Some((0, vpid, address)),
        1 => Some((1, vpid, 0)),
        _ => Some((3, vpid, 0)),
    }
}

/// Returns whether a type of INVEPT exists.
pub fn invept_exists(kind: u64, caps: u64) -> bool {
    kind == 1 && bit(caps, 25) || kind == 2 && bit(caps, 26)
}

/// Returns the type and the EP4TA of an INVEPT, 0 if the type does not use the EP4TA; `None` for
/// VM-fail.
pub fn invept(
    kind: u64,
    [pointer, _]: [u64; 2],
    caps: u64,
    max_phy_addr: u32,
) -> Option<(u8, u64)> {
    if !invept_exists(kind, caps) {
        return None;
    }
    if kind == 2 {
        return Some((2, 0));
    }
    let memory = match bits(pointer, 2, 0) {
        0 => bit(caps, 8),
        6 => bit(caps, 14),
        _ => false,
    };
    let walk = match bits(pointer, 5, 3) {
        3 => bit(caps, 6),
        4 => bit(caps, 7),
        _ => false,
    };
    let flags = (!bit(pointer, 6) || bit(caps, 21)) && (!bit(pointer, 7) || bit(caps, 23));
    let reserved = (8..12).chain(max_phy_addr..64);
    let clear = !reserved.into_iter().any(|number| bit(pointer, number));
    (memory && walk && flags && clear).then(|| (1, bits(pointer, 51, 12) * 4096))
}
