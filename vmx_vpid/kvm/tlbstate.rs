// SPDX-License-Identifier: GPL-2.0

//! This module reads the host's ASIDs as the kernel keeps them, and receives each event.
//!
//! `rust/tlbstate.c` reports each switch and each flush, on the CPU where it happens and with
//! interrupts off.  The data of a CPU belongs to that CPU: nothing is locked, and nothing is
//! shared.  [`super::asid_follow`] starts the check and shows the results.

use crate::{
    asid::{
        cpu::{
            Cpu,
            Slot,
            UserFlush, //
        },
        difference::Event,
        follow::{
            Bug, //
            Follower,
            MmSnapshot,
            Next,
            Observed,
        },
        shootdown::{
            Dropped,
            Flush,
            Range, //
        },
        Asid,
        ContextId,
        Features,
        Hva,
        Published,
        Root,
        TlbGen,
        SLOTS, //
    },
    bindings::{
        self,
        tlb, //
    },
    kvm::cpu,
    x86::control_regs::Cr3, //
};
use core::{
    cell::UnsafeCell,
    ptr, //
};
use kernel::{
    cpu::nr_cpu_ids,
    ffi::c_void,
    prelude::*,
    sync::atomic::{
        Atomic,
        Relaxed, //
    }, //
};

kernel::static_assert!(tlb::VMX_VPID_TLB_NR_DYN_ASIDS as usize == SLOTS);

/// The number of the injected bug; 0 for none.
static BUG: Atomic<u64> = Atomic::new(0);

/// Returns the injected bug.
pub(super) fn injected_bug() -> Bug {
    Bug::new(BUG.load(Relaxed)).unwrap_or_default()
}

/// Returns the number of the injected bug.
pub(super) fn bug_number() -> u64 {
    BUG.load(Relaxed)
}

/// Sets the injected bug by its number.
///
/// # Errors
///
/// [`EINVAL`] if no bug has the number.
pub(super) fn set_bug(number: u64) -> Result {
    if Bug::new(number).is_none() {
        pr_err!("asid_twist={} is refused: write 0 to 5\n", number);
        return Err(EINVAL);
    }
    BUG.store(number, Relaxed);
    Ok(())
}

/// The data of one CPU.
///
/// # Invariants
///
/// Only the CPU that owns it accesses it, with interrupts off; while that CPU is offline, only the
/// holder of `cpus_read_lock()`.
#[repr(align(64))]
pub(super) struct Place(pub(super) UnsafeCell<Follower>);

// SAFETY: By the type invariant no two threads access it at a time.
unsafe impl Sync for Place {}
// SAFETY: It holds plain numbers.
unsafe impl Send for Place {}

/// All CPUs, while they are followed.
pub(super) struct Followed {
    features: Features,
    /// One for each CPU that can be there, by its number.
    places: KVVec<Place>,
}

impl Followed {
    /// Makes a value for CPUs of which nothing is known yet.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`].
    pub(super) fn new(features: Features) -> Result<KBox<Self>> {
        let mut places = KVVec::new();
        for _ in 0..nr_cpu_ids() {
            // INVARIANT: Nobody else has it yet.
            places.push(Place(UnsafeCell::new(Follower::default())), GFP_KERNEL)?;
        }
        Ok(KBox::new(Self { features, places }, GFP_KERNEL)?)
    }

    /// Returns the data of a CPU.
    pub(super) fn place(&self, cpu: u32) -> Option<&Place> {
        self.places.get(usize::try_from(cpu).ok()?)
    }

    /// Calls a function with the data of this CPU.
    ///
    /// # Safety
    ///
    /// Interrupts are off, and this is not called within `work`.
    pub(super) unsafe fn here<R>(&self, work: impl FnOnce(&mut Follower) -> R) -> Option<R> {
        let place = self.place(cpu::current())?;
        // SAFETY: It is this CPU's, which does nothing else until interrupts are on again.
        Some(work(unsafe { &mut *place.0.get() }))
    }
}

/// Returns how the kernel uses PCIDs; `None` where it uses global ASIDs, which are not followed.
pub(crate) fn features() -> Option<Features> {
    let mut raw = bindings::vmx_vpid_asid_features::default();
    // SAFETY: The helper writes the whole value.
    unsafe { bindings::vmx_vpid_asid_features(&mut raw) };
    (!raw.invlpgb).then_some(Features {
        pcid: raw.pcid,
        pti: raw.pti,
        invpcid: raw.invpcid,
    })
}

/// Reads an address space.
///
/// # Safety
///
/// It is loaded, or about to be, or the kernel's own.
unsafe fn read_mm(mm: *mut bindings::mm_struct) -> Option<MmSnapshot> {
    let mut raw = bindings::vmx_vpid_mm::default();
    // SAFETY: The helper writes the whole value, and the pointer is that of a local variable.
    unsafe { bindings::vmx_vpid_read_mm(mm, &mut raw) };
    Some(MmSnapshot {
        id: ContextId::new(raw.ctx_id)?,
        tlb_gen: TlbGen::new(raw.tlb_gen),
        root: Root::new(raw.root),
    })
}

/// Returns the kernel's slots of this CPU, the state that other CPUs see of it, and the address
/// space that is loaded unless a switch is under way.
///
/// # Safety
///
/// Interrupts are off.
pub(super) unsafe fn read_cpu() -> Option<(Cpu, Published, Option<MmSnapshot>)> {
    // SAFETY: The kernel's own value for this CPU, which nothing else writes.
    let state = unsafe { ptr::read(bindings::vmx_vpid_tlb_state().cast::<tlb::tlb_state>()) };
    // SAFETY: By the safety requirements interrupts are off, so the task stays on this CPU and the
    // pointers are those of its variables.
    let lazy = unsafe {
        let shared = bindings::vmx_vpid_tlb_state_shared().cast::<tlb::tlb_state_shared>();
        (&raw const (*shared).is_lazy).read()
    };
    // CAST: An address is as good as its number.
    let loaded = if state.loaded_mm as u64 == tlb::VMX_VPID_LOADED_MM_SWITCHING {
        None
    } else {
        // SAFETY: It is loaded; the two bindings of the type are the same C type.
        unsafe { read_mm(state.loaded_mm.cast()) }
    };
    let id = loaded.map(|mm| mm.id);
    let cpu = Cpu {
        loaded: id.unwrap_or(ContextId::KERNEL),
        asid: Asid::new(state.loaded_mm_asid)?,
        lazy,
        next: state.next_asid,
        invalidate_other: state.invalidate_other,
        user_flush: UserFlush::from_raw(state.user_pcid_flush_mask),
        slots: state.ctxs.map(|context| Slot {
            id: ContextId::new(context.ctx_id),
            tlb_gen: TlbGen::new(context.tlb_gen),
        }),
    };
    Some((cpu, Published { loaded: id, lazy }, loaded))
}

/// Converts an address from C.
fn address(address: usize) -> Hva {
    // CAST: They are of one size.
    Hva::new(address as u64)
}

/// This CPU is about to switch to an address space: `switch_mm_irqs_off()` was called.
///
/// # Safety
///
/// `follower` is what was given to `vmx_vpid_asid_follow()`; interrupts are off.
#[no_mangle]
unsafe extern "C" fn vmx_vpid_asid_switching(
    follower: *mut c_void,
    next: *mut bindings::mm_struct,
) {
    // SAFETY: The contract of this function: it lives until no event comes any more.
    let followed = unsafe { &*follower.cast::<Followed>() };
    // SAFETY: By the safety requirements the pointer is that of a live `Followed`.
    let (cpu, next) = unsafe { (read_cpu(), read_mm(next)) };
    if let (Some((cpu, ..)), Some(next)) = (cpu, next) {
        // SAFETY: By the safety requirements interrupts are off, and the pointer is that of a live
        // `mm_struct`.
        unsafe {
            followed.here(|it| it.begin(cpu, Next::Switch(next), followed.features, injected_bug()))
        };
    }
}

/// This CPU is about to serve a flush: `flush_tlb_func()` was called.
///
/// # Safety
///
/// As above; `info` is what it was called with.
#[no_mangle]
unsafe extern "C" fn vmx_vpid_asid_flushing(
    follower: *mut c_void,
    info: *const bindings::flush_tlb_info,
) {
    // SAFETY: The contract of this function: it lives until no event comes any more.
    let followed = unsafe { &*follower.cast::<Followed>() };
    // SAFETY: Nobody writes it any more; the two bindings of the type are the same C type.
    let info = unsafe { &*info.cast::<tlb::flush_tlb_info>() };
    // SAFETY: By the safety requirements the pointer is that of a live `Followed`.
    let Some((cpu, _, Some(loaded))) = (unsafe { read_cpu() }) else {
        return;
    };
    // SAFETY: Who asks for the flush of an address space keeps it until all have served it.
    let space = (!info.mm.is_null()).then(|| unsafe { read_mm(info.mm.cast()) });
    let flush = Flush {
        space: space.flatten().map(|mm| mm.id),
        range: Range::new(
            address(info.start),
            address(info.end),
            info.stride_shift.into(),
        ),
        tlb_gen: TlbGen::new(info.new_tlb_gen),
    };
    let next = Next::Flush(flush, loaded);
    // SAFETY: By the safety requirements interrupts are off, and this is not called within the data
    // of this CPU.
    unsafe { followed.here(|it| it.begin(cpu, next, followed.features, injected_bug())) };
}

/// Handles the end of a switch or a flush.
///
/// # Safety
///
/// `follower` is the pointer of a live [`Followed`], and interrupts are off.
unsafe fn end(follower: *mut c_void, when: Event, cr3: u64, pages: u64) {
    // SAFETY: The contract of this function: it lives until no event comes any more.
    let followed = unsafe { &*follower.cast::<Followed>() };
    // SAFETY: By the safety requirements the pointer is that of a live `Followed`.
    let Some((cpu, shown, _)) = (unsafe { read_cpu() }) else {
        return;
    };
    let done = Observed {
        cpu,
        shown,
        cr3: Cr3::from(cr3),
        dropped: match pages {
            0 => Dropped::Nothing,
            u64::MAX => Dropped::All,
            pages => Dropped::Pages(pages),
        },
    };
    // SAFETY: By the safety requirements interrupts are off, and this is not called within the data
    // of this CPU.
    unsafe { followed.here(|it| it.end(when, done, followed.features)) };
}

/// Called from C after this CPU wrote CR3 for a switch, with the number of pages that it dropped.
///
/// # Safety
///
/// `follower` is the pointer of a live [`Followed`], and interrupts are off.
#[no_mangle]
unsafe extern "C" fn vmx_vpid_asid_switched(follower: *mut c_void, cr3: u64, pages: u64) {
    // SAFETY: By the safety requirements the pointer is that of a live `Followed`, and interrupts
    // are off.
    unsafe { end(follower, Event::Switch, cr3, pages) };
}

/// Called from C after this CPU served a flush, with the number of pages that it dropped.
///
/// # Safety
///
/// `follower` is the pointer of a live [`Followed`], and interrupts are off.
#[no_mangle]
unsafe extern "C" fn vmx_vpid_asid_flushed(follower: *mut c_void, cr3: u64, pages: u64) {
    // SAFETY: By the safety requirements the pointer is that of a live `Followed`, and interrupts
    // are off.
    unsafe { end(follower, Event::Flush, cr3, pages) };
}
