// SPDX-License-Identifier: GPL-2.0

//! This module reads the host's ASIDs as the kernel keeps them, and receives each event.
//!
//! `rust/tlbstate.c` reports each switch and each flush, on the CPU that switches or flushes and
//! with interrupts off.  Only the CPU itself accesses its data, so the events take no lock.
//! [`super::asid_follow`] starts the lockstep check and collects its results.

use crate::{
    asid::{
        cpu::{
            Cpu,
            Slot,
            UserFlush, //
        },
        difference::Event,
        follow::{
            Bug,
            Follower,
            MmSnapshot,
            Next,
            Observed, //
        },
        shootdown::{
            Dropped,
            Flush,
            Range, //
        },
        Asid,
        ContextId,
        Features,
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
    x86::{
        addr::Hva,
        control_regs::Cr3, //
    }, //
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

/// The number of the injected bug; 0 if no bug is injected.
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
/// Only the CPU that owns the data accesses the content, with interrupts off.  While that CPU is
/// offline, only a task that holds `cpus_read_lock()` and the mutex of [`super::asid_follow`] does.
#[repr(align(64))]
pub(super) struct Place(pub(super) UnsafeCell<Follower>);

// SAFETY: By the type invariant at most one CPU or task accesses the content at a time.
unsafe impl Sync for Place {}
// SAFETY: `Follower` consists of plain numbers, which do not belong to a thread.
unsafe impl Send for Place {}

/// The data of all CPUs, while the module follows the kernel's switches and flushes.
pub(super) struct Followed {
    features: Features,
    /// The data of each CPU, by the CPU's number: `nr_cpu_ids` of them.
    places: KVVec<Place>,
}

impl Followed {
    /// Makes a value in which no CPU has a prediction yet.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`].
    pub(super) fn new(features: Features) -> Result<KBox<Self>> {
        let mut places = KVVec::new();
        for _ in 0..nr_cpu_ids() {
            // INVARIANT: No CPU can reach the value before `vmx_vpid_asid_follow()` gets its
            // address.
            places.push(Place(UnsafeCell::new(Follower::default())), GFP_KERNEL)?;
        }
        Ok(KBox::new(Self { features, places }, GFP_KERNEL)?)
    }

    /// Returns the data of a CPU; `None` if the number is not below `nr_cpu_ids`.
    pub(super) fn place(&self, cpu: u32) -> Option<&Place> {
        self.places.get(usize::try_from(cpu).ok()?)
    }

    /// Calls a function with the data of this CPU, and returns the function's result.
    ///
    /// # Safety
    ///
    /// Interrupts are off, and `work` does not call this function.
    pub(super) unsafe fn here<R>(&self, work: impl FnOnce(&mut Follower) -> R) -> Option<R> {
        let place = self.place(cpu::current())?;
        // SAFETY: By the safety requirements interrupts are off, so this CPU runs no other code
        // that accesses `place`, and `work` does not get a second reference.  By the type invariant
        // of `Place` no other CPU accesses `place`.
        Some(work(unsafe { &mut *place.0.get() }))
    }
}

/// Returns how the kernel uses PCIDs; `None` if the kernel uses global ASIDs, which this module
/// does not follow.
pub(crate) fn features() -> Option<Features> {
    let mut raw = bindings::vmx_vpid_asid_features::default();
    // SAFETY: The helper writes all of `raw`, a local variable.
    unsafe { bindings::vmx_vpid_asid_features(&mut raw) };
    (!raw.invlpgb).then_some(Features {
        pcid: raw.pcid,
        pti: raw.pti,
        invpcid: raw.invpcid,
    })
}

/// Reads the context id, the tlb_gen and the root of an address space; `None` if the context id is
/// 0.
///
/// # Safety
///
/// `mm` points to an address space that lives until this function returns.
unsafe fn read_mm(mm: *mut bindings::mm_struct) -> Option<MmSnapshot> {
    let mut raw = bindings::vmx_vpid_mm::default();
    // SAFETY: By the safety requirements `mm` is live; the helper writes all of `raw`, a local
    // variable.
    unsafe { bindings::vmx_vpid_read_mm(mm, &mut raw) };
    Some(MmSnapshot {
        id: ContextId::new(raw.ctx_id)?,
        tlb_gen: TlbGen::new(raw.tlb_gen),
        root: Root::new(raw.root),
    })
}

/// Returns the kernel's slots of this CPU, the state that the CPU publishes to other CPUs, and the
/// loaded address space, which is `None` while a switch is under way.
///
/// Returns `None` if the kernel's ASID is out of range.
///
/// # Safety
///
/// Interrupts are off.
pub(super) unsafe fn read_cpu() -> Option<(Cpu, Published, Option<MmSnapshot>)> {
    // SAFETY: By the safety requirements interrupts are off, so the pointer is that of this CPU's
    // `cpu_tlbstate` and no code of this CPU writes the variable now.  No other CPU ever writes the
    // variable.
    let state = unsafe { ptr::read(bindings::vmx_vpid_tlb_state().cast::<tlb::tlb_state>()) };
    // SAFETY: By the safety requirements interrupts are off, so the pointer is that of this CPU's
    // `cpu_tlbstate_shared`.  Only this CPU writes `is_lazy`.
    let lazy = unsafe {
        let shared = bindings::vmx_vpid_tlb_state_shared().cast::<tlb::tlb_state_shared>();
        (&raw const (*shared).is_lazy).read()
    };
    // CAST: Only the address is compared.
    let loaded = if state.loaded_mm as u64 == tlb::VMX_VPID_LOADED_MM_SWITCHING {
        None
    } else {
        // SAFETY: `loaded_mm` is not the mark of a switch, so it points to the address space that
        // is loaded on this CPU, and that stays loaded while interrupts are off.  Both bindings of
        // the type are the same C type.
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
    // CAST: `unsigned long` has 64 bits.
    Hva::new(address as u64)
}

/// Handles the begin of a switch: C calls this function when the kernel calls
/// `switch_mm_irqs_off()` for `next` on this CPU.
///
/// # Safety
///
/// `follower` points to a live [`Followed`], `next` points to a live address space, and interrupts
/// are off.
#[no_mangle]
unsafe extern "C" fn vmx_vpid_asid_switching(
    follower: *mut c_void,
    next: *mut bindings::mm_struct,
) {
    // SAFETY: By the safety requirements `follower` points to a live `Followed`.
    let followed = unsafe { &*follower.cast::<Followed>() };
    // SAFETY: By the safety requirements interrupts are off and `next` points to a live address
    // space.
    let (cpu, next) = unsafe { (read_cpu(), read_mm(next)) };
    if let (Some((cpu, ..)), Some(next)) = (cpu, next) {
        // SAFETY: By the safety requirements interrupts are off; `begin()` does not call `here()`.
        unsafe {
            followed.here(|it| it.begin(cpu, Next::Switch(next), followed.features, injected_bug()))
        };
    }
}

/// Handles the begin of a flush: C calls this function when the kernel calls `flush_tlb_func()`
/// with `info` on this CPU.
///
/// # Safety
///
/// `follower` points to a live [`Followed`], `info` points to the argument of `flush_tlb_func()`,
/// and interrupts are off.
#[no_mangle]
unsafe extern "C" fn vmx_vpid_asid_flushing(
    follower: *mut c_void,
    info: *const bindings::flush_tlb_info,
) {
    // SAFETY: By the safety requirements `follower` points to a live `Followed`.
    let followed = unsafe { &*follower.cast::<Followed>() };
    // SAFETY: By the safety requirements `info` points to the argument of `flush_tlb_func()`, which
    // no code writes before each CPU has served the flush.  Both bindings of the type are the same
    // C type.
    let info = unsafe { &*info.cast::<tlb::flush_tlb_info>() };
    // SAFETY: By the safety requirements interrupts are off.
    let Some((cpu, _, Some(loaded))) = (unsafe { read_cpu() }) else {
        return;
    };
    // SAFETY: `info.mm` is not null, so it points to the address space that the flush is for.  The
    // task that requested the flush keeps the address space until each CPU has served the flush.
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
    // SAFETY: By the safety requirements interrupts are off; `begin()` does not call `here()`.
    unsafe { followed.here(|it| it.begin(cpu, next, followed.features, injected_bug())) };
}

/// Handles the end of a switch or a flush.
///
/// # Safety
///
/// `follower` points to a live [`Followed`], and interrupts are off.
unsafe fn end(follower: *mut c_void, when: Event, cr3: u64, pages: u64) {
    // SAFETY: By the safety requirements `follower` points to a live `Followed`.
    let followed = unsafe { &*follower.cast::<Followed>() };
    // SAFETY: By the safety requirements interrupts are off.
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
    // SAFETY: By the safety requirements interrupts are off; `end()` does not call `here()`.
    unsafe { followed.here(|it| it.end(when, done, followed.features)) };
}

/// Handles the end of a switch: C calls this function after the kernel wrote CR3 on this CPU.
///
/// `pages` is 0 if the CPU kept its translations, and all ones if the CPU dropped them.
///
/// # Safety
///
/// `follower` points to a live [`Followed`], and interrupts are off.
#[no_mangle]
unsafe extern "C" fn vmx_vpid_asid_switched(follower: *mut c_void, cr3: u64, pages: u64) {
    // SAFETY: By the safety requirements `follower` points to a live `Followed`, and interrupts are
    // off.
    unsafe { end(follower, Event::Switch, cr3, pages) };
}

/// Handles the end of a flush: C calls this function after the kernel served a flush on this CPU.
///
/// `pages` is the number of pages whose translations the CPU dropped; all ones stands for all.
///
/// # Safety
///
/// `follower` points to a live [`Followed`], and interrupts are off.
#[no_mangle]
unsafe extern "C" fn vmx_vpid_asid_flushed(follower: *mut c_void, cr3: u64, pages: u64) {
    // SAFETY: By the safety requirements `follower` points to a live `Followed`, and interrupts are
    // off.
    unsafe { end(follower, Event::Flush, cr3, pages) };
}
