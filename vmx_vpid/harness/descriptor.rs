// SPDX-License-Identifier: GPL-2.0

//! This module checks the operands of a guest's INVPCID, INVVPID or INVEPT for userspace programs.

use crate::{
    ept,
    invvpid,
    x86::{
        addr::{
            LinearWidth,
            MaxPhyAddr, //
        },
        invpcid, //
    }, //
};

/// Returns the width of the linear addresses that a CPU can invalidate.
fn width(bits57: bool) -> LinearWidth {
    if bits57 {
        LinearWidth::Bits57
    } else {
        LinearWidth::Bits48
    }
}

/// Returns the type, PCID and address of an INVPCID, 0 for values that the type does not use;
/// `None` for #GP(0).
pub fn invpcid(kind: u64, operand: [u64; 2], cr4: u64, bits57: bool) -> Option<(u8, u16, u64)> {
    let descriptor = invpcid::Descriptor::new(operand);
    let request = invpcid::check(kind, descriptor, cr4.into(), width(bits57))?;
    Some(match request {
        invpcid::Request::Address(pcid, gva) => (0, pcid.into_raw(), gva.into_raw()),
        invpcid::Request::Context(pcid) => (1, pcid.into_raw(), 0),
        invpcid::Request::AllAndGlobals => (2, 0, 0),
        invpcid::Request::All => (3, 0, 0),
    })
}

/// Returns the PCID under which translations are tagged.
pub fn pcid(cr3: u64, cr4: u64) -> u16 {
    invpcid::Pcid::of(cr3.into(), cr4.into()).into_raw()
}

/// Returns whether a type of INVVPID exists, which is checked before the operand is read.
pub fn invvpid_exists(kind: u64, caps: u64) -> bool {
    invvpid::Kind::from_register(kind, caps.into()).is_ok()
}

/// Returns the type, VPID and address of an INVVPID, 0 for values that the type does not use;
/// `None` for VM-fail.
pub fn invvpid(kind: u64, operand: [u64; 2], caps: u64, bits57: bool) -> Option<(u8, u16, u64)> {
    let kind = invvpid::Kind::from_register(kind, caps.into()).ok()?;
    let descriptor = invvpid::Descriptor::from_guest(operand);
    Some(match descriptor.check(kind, width(bits57)).ok()? {
        invvpid::Request::Address(vpid, gva) => (0, vpid.into_raw(), gva.into_raw()),
        invvpid::Request::Context(vpid) => (1, vpid.into_raw(), 0),
        invvpid::Request::All => (2, 0, 0),
        invvpid::Request::ContextRetainingGlobals(vpid) => (3, vpid.into_raw(), 0),
    })
}

/// Returns whether a type of INVEPT exists, which is checked before the operand is read.
pub fn invept_exists(kind: u64, caps: u64) -> bool {
    ept::Kind::from_register(kind, caps.into()).is_ok()
}

/// Returns the type and the EP4TA of an INVEPT, 0 if the type does not use the EP4TA; `None` for
/// VM-fail.
pub fn invept(kind: u64, operand: [u64; 2], caps: u64, max_phy_addr: u32) -> Option<(u8, u64)> {
    let caps = caps.into();
    let kind = ept::Kind::from_register(kind, caps).ok()?;
    let width = MaxPhyAddr::new(max_phy_addr);
    Some(match ept::check(kind, operand, caps, width).ok()? {
        ept::Request::Context(tag) => (1, tag.into_raw()),
        ept::Request::All => (2, 0),
    })
}
