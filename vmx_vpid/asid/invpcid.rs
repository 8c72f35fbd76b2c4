// SPDX-License-Identifier: GPL-2.0

//! This module issues INVPCID for the host.
//!
//! [`crate::x86::invpcid`] checks the operands of a guest's INVPCID.
//! Source: the manual's instruction reference, INVPCID.

use crate::x86::{
    addr::Hva,
    invpcid::Pcid, //
};

/// The extent of one INVPCID; the type numbers come from the manual.
// vmx_vpid.ko executes no INVPCID, but follows the kernel, where it needs only type 0.
#[cfg_attr(not(CONFIG_VMX_VPID_KUNIT_TEST), expect(dead_code))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    /// Type 0: an address under a PCID, unless its page is global: `invpcid_flush_one()`.
    Address(Pcid, Hva),
    /// Type 1: a PCID without global pages: `invpcid_flush_single_context()`.
    Context(Pcid),
    /// Type 2: everything: `invpcid_flush_all()`.
    AllAndGlobals,
    /// Type 3: everything but global pages: `invpcid_flush_all_nonglobals()`.
    All,
}

/// The operand of INVPCID in memory.
#[cfg(CONFIG_VMX_VPID_KUNIT_TEST)]
#[repr(C, align(16))]
struct Descriptor {
    /// PCID in bits 11:0; bits 63:12 must be 0.
    pcid: u64,
    /// Linear address, used by type 0 only.
    address: u64,
}

#[cfg(CONFIG_VMX_VPID_KUNIT_TEST)]
kernel::static_assert!(core::mem::size_of::<Descriptor>() == 16);

/// INVPCID raised an exception, and invalidated nothing.
#[cfg(CONFIG_VMX_VPID_KUNIT_TEST)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Exception;

#[cfg(CONFIG_VMX_VPID_KUNIT_TEST)]
impl Extent {
    /// Returns the type and the operand of INVPCID for this extent.
    #[inline]
    fn encode(self) -> (u64, Descriptor) {
        let (kind, pcid, address) = match self {
            Self::Address(pcid, address) => (0, pcid, address.into_raw()),
            Self::Context(pcid) => (1, pcid, 0),
            Self::AllAndGlobals => (2, Pcid::ZERO, 0),
            Self::All => (3, Pcid::ZERO, 0),
        };
        let pcid = u64::from(pcid.into_raw());
        (kind, Descriptor { pcid, address })
    }
}

/// Issues INVPCID on this CPU: `__invpcid()`.
///
/// # Errors
///
/// [`Exception`] if the CPU lacks INVPCID, if the PCID is not 0 while CR4.PCIDE is clear, and if
/// the address is not canonical.
#[cfg(CONFIG_VMX_VPID_KUNIT_TEST)]
#[inline]
pub(crate) fn invpcid(extent: Extent) -> Result<(), Exception> {
    let (kind, descriptor) = extent.encode();
    let descriptor = &descriptor;
    'out: {
        // SAFETY: `descriptor` points to 16 bytes that live until the instruction is executed.  At
        // CPL 0, INVPCID only drops cached translations, which is always allowed; an exception
        // continues at the label below.  Without `nomem`, the asm block clobbers memory, which
        // orders INVPCID after the page-table writes that the flush has to cover.
        unsafe {
            kernel::asm!(
                include!(concat!(env!("VMX_VPID_OBJ"), "/vmx_vpid/asid/invpcid_asm.rs"));
                desc = in(reg) descriptor,
                kind = in(reg) kind,
                fault = label { break 'out Err(Exception) },
            );
        }
        Ok(())
    }
}

#[cfg(CONFIG_VMX_VPID_KUNIT_TEST)]
#[kernel::macros::kunit_tests(vmx_vpid_asid_invpcid)]
mod tests {
    use super::*;
    use crate::asid::Asid;

    #[test]
    fn extents_encode_as_the_manual_says() {
        let pcid = Pcid::from(Asid::FIRST.upcid());
        let raw = |extent: Extent| {
            let (kind, desc) = extent.encode();
            (kind, desc.pcid, desc.address)
        };
        let address = Hva::new(0x1000);
        assert_eq!(raw(Extent::Address(pcid, address)), (0, 2049, 0x1000));
        assert_eq!(raw(Extent::Context(pcid)), (1, 2049, 0));
        assert_eq!(raw(Extent::AllAndGlobals), (2, 0, 0));
        assert_eq!(raw(Extent::All), (3, 0, 0));
    }

    // This test runs on machines with INVPCID and PCIDs, with INVPCID alone, and with neither.
    #[test]
    fn each_invpcid_type_is_executed_or_its_exception_is_caught() {
        let there = invpcid(Extent::All);
        for extent in [
            Extent::AllAndGlobals,
            Extent::Context(Pcid::ZERO),
            Extent::Address(Pcid::ZERO, Hva::new(0x1000)),
        ] {
            assert_eq!(invpcid(extent), there);
        }
        let pcid = Pcid::from(Asid::FIRST.kpcid());
        let tagged = invpcid(Extent::Context(pcid));
        assert_eq!(invpcid(Extent::Address(pcid, Hva::new(0x1000))), tagged);
        assert!(there.is_ok() || tagged.is_err());
        // The address is not canonical.
        let between = Hva::new(1 << 63);
        let outcome = invpcid(Extent::Address(Pcid::ZERO, between));
        assert_eq!(outcome, Err(Exception));
    }
}
