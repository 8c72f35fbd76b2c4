// SPDX-License-Identifier: GPL-2.0

//! The host's own tags: which address spaces a CPU has cached, and under which PCIDs.
//!
//! Six address spaces have a place on each CPU at a time.  A switch to one that has a place there
//! keeps what is cached of it, unless its tables changed meanwhile; generations tell.  The rules
//! are those of `arch/x86/mm/tlb.c`, `arch/x86/include/asm/tlbflush.h` and
//! `arch/x86/entry/calling.h` of the kernel, and each function names the one that it answers to.
//!
//! Words, most of them tlb.c's:
//!
//! - *Address space*: what C has a `struct mm_struct` for.  Its *context id* is its name, and is
//!   never used again; its *tlb_gen* counts how often its tables were changed.
//! - *ASID*: the number by which a CPU knows an address space.  The first six are *slots*, and each
//!   CPU has slots of its own; the others are the same on every CPU, where the CPU can invalidate
//!   on others (INVLPGB, AMD only).
//! - *kPCID*: what CR3 has in kernel mode, ASID + 1: PCID 0 is left to code that knows of none.
//! - *uPCID*: what it has in user mode under page-table isolation, with other tables: the kPCID
//!   with bit 11.
//! - *Lazy*: a CPU runs a kernel thread and has left CR3 as it was.
//!
//! Two things do the same work: this code on a model that keeps every translation for ever
//! ([`crate::model`]), and the kernel, which [`crate::kvm`] follows switch by switch.
//!
//! Nothing here is atomic.  What other CPUs see of a CPU goes out by [`Hardware::publish()`], and what
//! they change comes in by [`Mm::tlb_gen()`], in the order that C has.

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
    control_regs::Cr3,
    invpcid::Pcid, //
};
use core::num::NonZeroU64;
use kernel::bits::bit_u64;

/// How many slots a CPU has: `TLB_NR_DYN_ASIDS`.
pub(crate) const SLOTS: usize = 6;

/// The number by which a CPU knows an address space.
///
/// # Invariants
///
/// At most [`Self::LAST`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct Asid(u16);

impl Asid {
    /// The first slot, and the only one as long as PCIDs are off.
    pub(crate) const FIRST: Self = Self(0);

    /// The last one: PCIDs have 12 bits, of which one tells user from kernel, and 0 is left out.
    ///
    /// Answers to `MAX_ASID_AVAILABLE`, which is one more.  A kernel that is built without
    /// page-table isolation has twice as many; they are of no use without INVLPGB.
    pub(crate) const LAST: u16 = (1 << 11) - 3;

    /// Takes a number, if it is one of an ASID.
    #[inline]
    pub(crate) const fn new(asid: u16) -> Option<Self> {
        // INVARIANT: Checked.
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

    /// Returns the slot that it stands for; `None` for one that is the same on every CPU.
    ///
    /// Answers to `is_dyn_asid()`.
    #[inline]
    pub(crate) fn slot(self) -> Option<usize> {
        let slot = usize::from(self.0);
        (slot < SLOTS).then_some(slot)
    }

    /// Returns what CR3 has in kernel mode: `kern_pcid()`.
    #[inline]
    pub(crate) const fn kpcid(self) -> Kpcid {
        // INVARIANT: 1..=LAST + 1.
        Kpcid(self.0 + 1)
    }

    /// Returns what CR3 has in user mode, under page-table isolation: `user_pcid()`.
    #[inline]
    pub(crate) const fn upcid(self) -> Upcid {
        // INVARIANT: By the type invariant of `Kpcid`.
        Upcid(self.kpcid().0 | Upcid::BIT)
    }
}

/// The PCID of an address space in kernel mode; without page-table isolation in user mode as well.
///
/// # Invariants
///
/// Neither 0 nor does it have bit 11.
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
/// A kPCID with bit 11.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct Upcid(u16);

impl Upcid {
    /// What tells it from the kPCID: `X86_CR3_PTI_PCID_USER_BIT`.
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

/// The name of an address space: `mm->context.ctx_id`.  None is ever used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct ContextId(NonZeroU64);

impl ContextId {
    /// That of the kernel's own address space, `init_mm`.
    pub(crate) const KERNEL: Self = Self(NonZeroU64::MIN);

    /// Takes a number; 0 names none.
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

/// How often the tables of an address space were changed: `mm->context.tlb_gen`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(transparent)]
pub(crate) struct TlbGen(u64);

impl TlbGen {
    /// That of a new address space; of a request: no tlb_gen is meant
    /// (`TLB_GENERATION_INVALID`).
    pub(crate) const ZERO: Self = Self(0);

    /// Takes a number.
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

/// An address of the host's, linear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct Hva(u64);

impl Hva {
    /// Takes an address; every 64-bit value is one.
    #[inline]
    pub(crate) const fn new(address: u64) -> Self {
        Self(address)
    }

    /// Returns the address as a number.
    #[inline]
    pub(crate) const fn into_raw(self) -> u64 {
        self.0
    }
}

/// What CR3 has of an address space besides the PCID: where its tables are, and its LAM bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct Root(u64);

impl Root {
    /// Takes what is to be written to CR3, and leaves out the PCID and bit 63.
    #[inline]
    pub(crate) const fn new(cr3: u64) -> Self {
        Self(cr3 & !NOFLUSH & !0xfff)
    }

    /// Returns the value of CR3 in kernel mode that drops what the CPU has cached under its PCID.
    ///
    /// Answers to `build_cr3()`.
    #[inline]
    pub(crate) fn cr3(self, asid: Asid, features: Features) -> Cr3 {
        let pcid = if features.pcid { asid.kpcid().0 } else { 0 };
        Cr3::from(self.0 | u64::from(pcid))
    }
}

/// Bit 63 of a value that is written to CR3: what is cached under its PCID is kept.
///
/// It reads as 0.  The manual's chapter on paging, "Operations that Invalidate TLBs and
/// Paging-Structure Caches"; `CR3_NOFLUSH` in C.
pub(crate) const NOFLUSH: u64 = bit_u64(63);

/// Returns the value of CR3 that keeps what the CPU has cached under its PCID.
///
/// Answers to `build_cr3_noflush()`.
#[inline]
pub(crate) fn keeping(cr3: Cr3) -> Cr3 {
    Cr3::from(cr3.into_raw() | NOFLUSH)
}

/// How the kernel uses a CPU: what `cpu_feature_enabled()` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Features {
    /// Translations are tagged: `X86_FEATURE_PCID`.  The kernel sets it only beside global pages.
    pub(crate) pcid: bool,
    /// Page-table isolation: user mode has tables of its own, and the kernel no global pages:
    /// `X86_FEATURE_PTI`.
    pub(crate) pti: bool,
    /// `X86_FEATURE_INVPCID`.
    pub(crate) invpcid: bool,
}

/// An address space, as much of it as a CPU has to know that switches to it or flushes it.
pub(crate) trait Mm {
    /// Its name.
    fn id(&self) -> ContextId;
    /// Its tables.
    fn root(&self) -> Root;
    /// The tlb_gen of its tables, read anew at each call, when others see all that this CPU
    /// showed before: behind a full barrier.
    fn tlb_gen(&self) -> TlbGen;
    /// Its ASID if that is the same on every CPU: `mm_global_asid()`.
    fn global_asid(&self) -> Option<Asid>;
    /// Lets this CPU be told of changes from now on: sets its bit in `mm_cpumask()`.
    fn join(&self);
}

/// What others see of a CPU: whose tables it uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Published {
    /// `cpu_tlbstate.loaded_mm`; `None` on the way from one to another (`LOADED_MM_SWITCHING`).
    pub(crate) loaded: Option<ContextId>,
    /// `cpu_tlbstate_shared.is_lazy`.
    pub(crate) lazy: bool,
}

/// A CPU, as the bookkeeping works on it.
pub(crate) trait Hardware {
    /// How the kernel uses it.
    fn features(&self) -> Features;
    /// Lets the others see what changed, before anything that follows.
    fn publish(&self, shown: Published);
    /// Writes CR3.
    fn write_cr3(&self, cr3: Cr3);
    /// Takes this CPU out of an address space's `mm_cpumask()`.
    fn leave(&self, space: ContextId);
    /// Drops an address under the PCID in CR3, and as a global page.
    fn invlpg(&self, address: Hva);
    /// Issues INVPCID, which the CPU has.
    fn invpcid(&self, extent: invpcid::Extent);
}

#[cfg(CONFIG_VMX_VPID_KUNIT_TEST)]
#[kernel::macros::kunit_tests(vmx_vpid_asid)]
mod tests {
    use super::*;

    /// With PCIDs, or without.
    fn features(pcid: bool) -> Features {
        Features {
            pcid,
            pti: true,
            invpcid: true,
        }
    }

    #[test]
    fn pcids_of_the_first_and_the_last() {
        assert_eq!(Asid::FIRST.kpcid().into_raw(), 1);
        assert_eq!(Asid::FIRST.upcid().into_raw(), 2049);
        assert!(Asid::new(Asid::LAST + 1).is_none());
        let last = Asid::new(Asid::LAST).map(|last| (last.kpcid(), last.upcid()));
        assert_eq!(last, Some((Kpcid(2046), Upcid(4094))));
    }

    #[test]
    fn no_two_asids_share_a_pcid_nor_take_0() {
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
    fn the_value_of_cr3() {
        let root = Root::new(0x8000_0000_1234_5fff);
        let cr3 = |pcid| root.cr3(Asid(2), features(pcid)).into_raw();
        assert_eq!(cr3(true), 0x1234_5003);
        assert_eq!(cr3(false), 0x1234_5000);
        let kept = keeping(root.cr3(Asid(2), features(true)));
        assert_eq!(kept.into_raw(), 0x8000_0000_1234_5003);
        // LAM bits are not the PCID's.
        assert_eq!(
            Root::new(3 << 61).cr3(Asid(0), features(true)).into_raw(),
            3 << 61 | 1
        );
    }

    #[test]
    fn no_address_space_is_called_0() {
        assert!(ContextId::new(0).is_none());
        assert_eq!(ContextId::new(1), Some(ContextId::KERNEL));
        assert!(TlbGen::ZERO < TlbGen::ZERO.next());
    }
}
