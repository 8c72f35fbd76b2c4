// SPDX-License-Identifier: GPL-2.0

//! This module keeps the host's ASIDs: the address spaces that a CPU has cached, and their PCIDs.
//!
//! Each CPU has six slots, one for each of six address spaces.  A switch to an address space that
//! has a slot keeps the cached translations of the address space, unless its tables changed since,
//! which the tlb_gen shows.  The rules come from `arch/x86/mm/tlb.c`,
//! `arch/x86/include/asm/tlbflush.h` and `arch/x86/entry/calling.h`, and each function names its C
//! equivalent.
//!
//! Documentation/host-asids.rst explains the terms.
//!
//! This code runs on a model that keeps every translation for ever (`model/host_mm/`), and predicts
//! the kernel's behaviour, which [`crate::kvm`] observes switch by switch.
//!
//! Nothing here is atomic.  [`Hardware::publish()`] makes the state of a CPU visible to other CPUs,
//! and [`Mm::tlb_gen()`] reads the counter that other CPUs increment, in the same order as C.

pub(crate) mod cpu;
pub(crate) mod difference;
pub(crate) mod follow;
pub(crate) mod invpcid;
pub(crate) mod shootdown;
pub(crate) mod switch;

#[cfg(CONFIG_VMX_VPID_KUNIT_TEST)]
mod follow_tests;
#[cfg(CONFIG_VMX_VPID_KUNIT_TEST)]
pub(crate) mod mock;

use crate::x86::{
    addr::Hva,
    control_regs::Cr3,
    invpcid::Pcid, //
};
use core::num::NonZeroU64;
use kernel::bits::bit_u64;

/// The number of slots of a CPU. Equivalent of `TLB_NR_DYN_ASIDS`.
pub(crate) const SLOTS: usize = 6;

/// The number of an address space on a CPU.
///
/// # Invariants
///
/// At most [`Self::LAST`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct Asid(u16);

impl Asid {
    /// The first slot, and the only slot in use as long as PCIDs are off.
    pub(crate) const FIRST: Self = Self(0);

    /// The last ASID: PCIDs have 12 bits, of which one distinguishes user from kernel, and PCID 0
    /// is left out.
    ///
    /// One less than `MAX_ASID_AVAILABLE`.  A kernel without page-table isolation has twice as many
    /// ASIDs, and uses these only with INVLPGB.
    pub(crate) const LAST: u16 = (1 << 11) - 3;

    /// Returns the ASID with a number; `None` above [`Self::LAST`].
    #[inline]
    pub(crate) const fn new(asid: u16) -> Option<Self> {
        // INVARIANT: The condition ensures that `asid` is at most [`Self::LAST`].
        if asid <= Self::LAST {
            Some(Self(asid))
        } else {
            None
        }
    }

    /// Returns the number.
    #[inline]
    pub(crate) const fn into_raw(self) -> u16 {
        self.0
    }

    /// Returns the slot of the ASID; `None` for a global ASID.
    ///
    /// Equivalent of `is_dyn_asid()`.
    #[inline]
    pub(crate) fn slot(self) -> Option<usize> {
        let slot = usize::from(self.0);
        (slot < SLOTS).then_some(slot)
    }

    /// Returns the PCID in CR3 in kernel mode: `kern_pcid()`.
    #[inline]
    pub(crate) const fn kpcid(self) -> Kpcid {
        // INVARIANT: An ASID is at most 2045, so the kPCID is 1 to 2046: bit 11 is clear.
        Kpcid(self.0 + 1)
    }

    /// Returns the PCID in CR3 in user mode, under page-table isolation: `user_pcid()`.
    #[inline]
    pub(crate) const fn upcid(self) -> Upcid {
        // INVARIANT: The number is a kPCID with bit 11 set.
        Upcid(self.kpcid().0 | Upcid::BIT)
    }
}

/// The PCID of an address space in kernel mode; without page-table isolation in user mode as well.
///
/// # Invariants
///
/// The number is not 0, and bit 11 is clear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct Kpcid(u16);

impl Kpcid {
    /// Returns the number, 1 to 2046.
    #[inline]
    pub(crate) const fn into_raw(self) -> u16 {
        self.0
    }
}

impl From<Kpcid> for Pcid {
    #[inline]
    fn from(kpcid: Kpcid) -> Self {
        Self::from_low_bits(kpcid.0)
    }
}

/// The PCID of an address space in user mode, under page-table isolation.
///
/// # Invariants
///
/// The number is a kPCID with bit 11 set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct Upcid(u16);

impl Upcid {
    /// The bit that distinguishes a uPCID from its kPCID: `X86_CR3_PTI_PCID_USER_BIT`.
    pub(crate) const BIT: u16 = 1 << 11;

    /// Returns the number, 2049 to 4094.
    #[inline]
    pub(crate) const fn into_raw(self) -> u16 {
        self.0
    }
}

impl From<Upcid> for Pcid {
    #[inline]
    fn from(upcid: Upcid) -> Self {
        Self::from_low_bits(upcid.0)
    }
}

/// The unique id of an address space: `mm->context.ctx_id`.  An id is never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct ContextId(NonZeroU64);

impl ContextId {
    /// The context id of the kernel's own address space, `init_mm`.
    pub(crate) const KERNEL: Self = Self(NonZeroU64::MIN);

    /// Returns the context id with a number; `None` for 0.
    #[inline]
    pub(crate) const fn new(id: u64) -> Option<Self> {
        match NonZeroU64::new(id) {
            Some(id) => Some(Self(id)),
            None => None,
        }
    }

    /// Returns the number.
    #[inline]
    pub(crate) const fn into_raw(self) -> u64 {
        self.0.get()
    }
}

/// The number of changes of an address space's tables: `mm->context.tlb_gen`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(transparent)]
pub(crate) struct TlbGen(u64);

impl TlbGen {
    /// The tlb_gen of a new address space.  In a request, the value stands for no tlb_gen
    /// (`TLB_GENERATION_INVALID`).
    pub(crate) const ZERO: Self = Self(0);

    /// Returns the tlb_gen with a number.
    #[inline]
    pub(crate) const fn new(tlb_gen: u64) -> Self {
        Self(tlb_gen)
    }

    /// Returns the number.
    #[inline]
    pub(crate) const fn into_raw(self) -> u64 {
        self.0
    }

    /// Returns the tlb_gen after this one.
    #[inline]
    pub(crate) const fn next(self) -> Self {
        Self(self.0.wrapping_add(1))
    }
}

/// The part of CR3 besides the PCID: the address of the tables, and the LAM bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct Root(u64);

impl Root {
    /// Makes a root from a value for CR3, without the PCID and bit 63.
    #[inline]
    pub(crate) const fn new(cr3: u64) -> Self {
        Self(cr3 & !NOFLUSH & !0xfff)
    }

    /// Returns the value for CR3 in kernel mode that drops the translations cached under the PCID.
    ///
    /// Equivalent of `build_cr3()`.
    #[inline]
    pub(crate) fn cr3(self, asid: Asid, features: Features) -> Cr3 {
        let pcid = if features.pcid { asid.kpcid().0 } else { 0 };
        Cr3::from(self.0 | u64::from(pcid))
    }
}

/// Bit 63 of a value that is written to CR3: the CPU keeps the translations cached under the PCID.
///
/// The bit reads as 0.  Source: the manual's chapter on paging, "Operations that Invalidate TLBs
/// and Paging-Structure Caches"; `CR3_NOFLUSH` in C.
pub(crate) const NOFLUSH: u64 = bit_u64(63);

/// Returns the value for CR3 that keeps the translations cached under the PCID.
///
/// Equivalent of `build_cr3_noflush()`.
#[inline]
pub(crate) fn keeping(cr3: Cr3) -> Cr3 {
    Cr3::from(cr3.into_raw() | NOFLUSH)
}

/// The features of the kernel on a CPU, as `cpu_feature_enabled()` returns them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Features {
    /// The kernel uses PCIDs: `X86_FEATURE_PCID`.  The kernel uses PCIDs only if the CPU has global
    /// pages.
    pub(crate) pcid: bool,
    /// Page-table isolation: user mode has tables of its own, and the kernel has no global pages:
    /// `X86_FEATURE_PTI`.
    pub(crate) pti: bool,
    /// `X86_FEATURE_INVPCID`.
    pub(crate) invpcid: bool,
}

/// An address space, as far as a CPU needs it to switch to the address space or to flush it.
pub(crate) trait Mm {
    /// Returns the context id.
    fn id(&self) -> ContextId;
    /// Returns the root of the tables.
    fn root(&self) -> Root;
    /// Returns the current tlb_gen.  Each call reads the tlb_gen behind a full barrier, after other
    /// CPUs see everything that this CPU published before.
    fn tlb_gen(&self) -> TlbGen;
    /// Returns the global ASID, if the address space has one: `mm_global_asid()`.
    fn global_asid(&self) -> Option<Asid>;
    /// Sets this CPU's bit in `mm_cpumask()`: from then on, other CPUs notify this CPU of changes.
    fn join(&self);
}

/// The state of a CPU that other CPUs see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Published {
    /// `cpu_tlbstate.loaded_mm`; `None` in the middle of a switch (`LOADED_MM_SWITCHING`).
    pub(crate) loaded: Option<ContextId>,
    /// `cpu_tlbstate_shared.is_lazy`.
    pub(crate) lazy: bool,
}

/// The operations of a CPU that the bookkeeping uses.
pub(crate) trait Hardware {
    /// Returns the features of the kernel.
    fn features(&self) -> Features;
    /// Makes a new state visible to other CPUs, before any later access.
    fn publish(&self, shown: Published);
    /// Writes CR3.
    fn write_cr3(&self, cr3: Cr3);
    /// Clears this CPU's bit in an address space's `mm_cpumask()`.
    fn leave(&self, space: ContextId);
    /// Executes INVLPG: drops an address under the PCID in CR3, and as a global page.
    fn invlpg(&self, address: Hva);
    /// Executes INVPCID, which the CPU must have.
    fn invpcid(&self, extent: invpcid::Extent);
}

#[cfg(CONFIG_VMX_VPID_KUNIT_TEST)]
#[kernel::macros::kunit_tests(vmx_vpid_asid)]
mod tests {
    use super::*;

    /// Returns features with or without PCIDs.
    fn features(pcid: bool) -> Features {
        Features {
            pcid,
            pti: true,
            invpcid: true,
        }
    }

    #[test]
    fn the_first_and_the_last_asid_have_valid_pcids() {
        assert_eq!(Asid::FIRST.kpcid().into_raw(), 1);
        assert_eq!(Asid::FIRST.upcid().into_raw(), 2049);
        assert!(Asid::new(Asid::LAST + 1).is_none());
        let last = Asid::new(Asid::LAST).map(|last| (last.kpcid(), last.upcid()));
        assert_eq!(last, Some((Kpcid(2046), Upcid(4094))));
    }

    #[test]
    fn all_asids_have_distinct_pcids_other_than_0() {
        let all = || (0..=Asid::LAST).filter_map(Asid::new);
        assert_eq!(all().count(), 2046);
        for (number, asid) in (1..).zip(all()) {
            assert_eq!(asid.kpcid().into_raw(), number);
            assert_eq!(asid.upcid().into_raw(), number + 2048);
            assert!(asid.upcid().into_raw() < 4096);
        }
    }

    #[test]
    fn six_asids_are_slots() {
        assert_eq!(Asid(5).slot(), Some(5));
        assert_eq!(Asid(6).slot(), None);
    }

    #[test]
    fn cr3_has_root_pcid_and_noflush_bit() {
        let root = Root::new(0x8000_0000_1234_5fff);
        let cr3 = |pcid| root.cr3(Asid(2), features(pcid)).into_raw();
        assert_eq!(cr3(true), 0x1234_5003);
        assert_eq!(cr3(false), 0x1234_5000);
        let kept = keeping(root.cr3(Asid(2), features(true)));
        assert_eq!(kept.into_raw(), 0x8000_0000_1234_5003);
        // LAM bits belong to the root, not to the PCID.
        assert_eq!(
            Root::new(3 << 61).cr3(Asid(0), features(true)).into_raw(),
            3 << 61 | 1
        );
    }

    #[test]
    fn context_id_0_is_none() {
        assert!(ContextId::new(0).is_none());
        assert_eq!(ContextId::new(1), Some(ContextId::KERNEL));
        assert!(TlbGen::ZERO < TlbGen::ZERO.next());
    }
}
