// SPDX-License-Identifier: GPL-2.0

//! The memory of the record of where VPIDs were flushed.
//!
//! Most flushes look into it.  So it is a static, published before the first operation can be
//! called and withdrawn after the last.

use crate::{
    bindings,
    kvm::percpu,
    vpid::{
        flushed_cpus::{
            FlushedCpus,
            FlushedOnCpu,
            Plane,
            Word, //
        },
        Vpid, //
    }, //
};
use core::{
    ptr,
    slice, //
};
use kernel::{
    cpu::nr_cpu_ids,
    prelude::*,
    sync::atomic::{
        Atomic,
        Relaxed, //
    }, //
};

/// A word of the record.
///
/// An atomic, but for the accesses that every flush and every VPID that is taken make: the kernel
/// crate calls a function for each.
#[repr(transparent)]
pub(super) struct SharedWord(Atomic<u64>);

impl Word for SharedWord {
    #[inline(always)]
    fn read(&self) -> u64 {
        // SAFETY: An aligned live word.  One load of all of it: what a relaxed one is.
        unsafe { self.0.as_ptr().read_volatile() }
    }

    #[inline(always)]
    fn clear(&self) {
        // SAFETY: An aligned live word.  One store of all of it: what a relaxed one is.
        unsafe { self.0.as_ptr().write_volatile(0) };
    }

    fn exchange(&self, old: u64, new: u64) -> Result<(), u64> {
        self.0.cmpxchg(old, new, Relaxed).map(|_| ())
    }
}

/// The record; dropping it withdraws it.
///
/// # Invariants
///
/// `vmx_vpid_state` has its words, those of every CPU and VPID, and each `vmx_vpid_flushed_on_cpu` those of
/// its CPU; nobody else writes these.
pub(super) struct FlushedCpusMemory {
    _words: KVVec<SharedWord>,
}

impl FlushedCpusMemory {
    /// Makes the record of this machine: 512 KiB for every 64 CPUs.
    ///
    /// To be called once at a time, before an operation can be called.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`].
    pub(super) fn new() -> Result<Self> {
        let planes = FlushedCpus::<SharedWord>::planes(nr_cpu_ids());
        let count = planes * Vpid::COUNT;
        let mut words = KVVec::with_capacity(count, GFP_KERNEL)?;
        for place in 0..count {
            let word = Atomic::new(FlushedCpus::<SharedWord>::initially(place));
            words.push(SharedWord(word), GFP_KERNEL)?;
        }
        Self::publish(words.as_mut_ptr().cast(), planes - 1);
        // INVARIANT: Pointer and number are the vector's, which does not grow from here on.
        let record = Self { _words: words };
        // SAFETY: The record lives, and what is returned is given up before it is.
        let flushed = unsafe { flushed() };
        for cpu in 0..nr_cpu_ids() {
            if let Some(on_cpu) = flushed.on_cpu(cpu) {
                let (plane, bit) = on_cpu.parts();
                Self::publish_on_cpu(cpu, plane.as_ptr().cast_mut().cast(), bit);
            }
        }
        Ok(record)
    }

    /// Tells the operations where the words are.
    fn publish(words: *mut u64, rest: usize) {
        // SAFETY: No operation can be called, and one value lives at a time: nobody else accesses
        // these.
        unsafe {
            bindings::vmx_vpid_state.flushed = words;
            bindings::vmx_vpid_state.flushed_rest = rest;
        }
    }

    /// Tells a CPU where its words are, and which bit it has in them.
    fn publish_on_cpu(cpu: u32, words: *mut u64, bit: u64) {
        // SAFETY: As above; the helper writes what is that CPU's, if the machine can have it.
        unsafe { bindings::vmx_vpid_set_flushed_on_cpu(cpu, words, bit) };
    }
}

impl Drop for FlushedCpusMemory {
    fn drop(&mut self) {
        Self::publish(ptr::null_mut(), 0);
        for cpu in 0..nr_cpu_ids() {
            Self::publish_on_cpu(cpu, ptr::null_mut(), 0);
        }
    }
}

/// Returns the part of the record that is about the CPU that runs this code, which may be another
/// one right after.
///
/// If the task moves in between, it is a part of neither CPU: the words of the one, and the bit
/// that the other has in its own.
///
/// # Safety
///
/// As that of [`flushed()`].
#[inline(always)]
pub(super) unsafe fn on_this_cpu() -> FlushedOnCpu<'static, SharedWord> {
    // SAFETY: By the contract a `FlushedCpusMemory` lives, which wrote these for each CPU that there can be:
    // each plane is one of its own, whose words are initialised and are accessed atomically only.
    unsafe {
        let plane: *const Plane<SharedWord> =
            percpu::this_cpu_word!(vmx_vpid_flushed_on_cpu) as *const _;
        FlushedOnCpu::new(&*plane, percpu::this_cpu_word!(vmx_vpid_flushed_on_cpu, 8))
    }
}

/// Returns the record.
///
/// # Safety
///
/// A [`FlushedCpusMemory`] lives, and does as long as what is returned.  It does within an operation of the
/// backend, livepatch's callback, and a reading of debugfs.
#[inline]
pub(super) unsafe fn flushed() -> FlushedCpus<'static, SharedWord> {
    // SAFETY: By the contract a `FlushedCpusMemory` lives, and is dropped only after the value was given up;
    // these are its planes, which are initialised and are accessed atomically only.
    unsafe {
        let first: *const Plane<SharedWord> = bindings::vmx_vpid_state.flushed.cast();
        let rest = slice::from_raw_parts(first.add(1), bindings::vmx_vpid_state.flushed_rest);
        FlushedCpus::new(&*first, rest)
    }
}
