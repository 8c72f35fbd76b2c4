// SPDX-License-Identifier: GPL-2.0

//! This module owns the memory of FlushedCpus.
//!
//! Most flushes read FlushedCpus.  The pointers to its words are thus static variables, which are
//! set before KVM can call the first operation and cleared after the last.

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

/// A word of FlushedCpus: an atomic.
///
/// Every flush reads the word by one plain load, and every allocation clears the word by one plain
/// store, because the kernel crate calls a function for each access of an atomic.
#[repr(transparent)]
pub(super) struct SharedWord(Atomic<u64>);

impl Word for SharedWord {
    #[inline(always)]
    fn read(&self) -> u64 {
        // SAFETY: The pointer is aligned and the word is live.  One load of the whole word is a
        // relaxed load.
        unsafe { self.0.as_ptr().read_volatile() }
    }

    #[inline(always)]
    fn clear(&self) {
        // SAFETY: The pointer is aligned and the word is live.  One store of the whole word is a
        // relaxed store.
        unsafe { self.0.as_ptr().write_volatile(0) };
    }

    fn exchange(&self, old: u64, new: u64) -> Result<(), u64> {
        self.0.cmpxchg(old, new, Relaxed).map(|_| ())
    }
}

/// The memory of FlushedCpus; dropping the memory withdraws FlushedCpus.
///
/// # Invariants
///
/// `vmx_vpid_state` has the words of every CPU and VPID, and each `vmx_vpid_flushed_on_cpu` the
/// words of its CPU; nothing else writes these variables.
pub(super) struct FlushedCpusMemory {
    _words: KVVec<SharedWord>,
}

impl FlushedCpusMemory {
    /// Makes FlushedCpus of this machine: 512 KiB for every 64 CPUs.
    ///
    /// Called before KVM can call an operation, and not while another value lives.
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
        // INVARIANT: The published pointer and number are those of the vector, which does not grow
        // from here on.  The loop below publishes the words of each CPU.
        let memory = Self { _words: words };
        // SAFETY: `memory` lives, and outlives `flushed`.
        let flushed = unsafe { flushed() };
        for cpu in 0..nr_cpu_ids() {
            if let Some(on_cpu) = flushed.on_cpu(cpu) {
                let (plane, bit) = on_cpu.parts();
                Self::publish_on_cpu(cpu, plane.as_ptr().cast_mut().cast(), bit);
            }
        }
        Ok(memory)
    }

    /// Publishes the words for the operations.
    fn publish(words: *mut u64, rest: usize) {
        // SAFETY: KVM can call no operation, and one value lives at a time: no other code accesses
        // these variables.
        unsafe {
            bindings::vmx_vpid_state.flushed = words;
            bindings::vmx_vpid_state.flushed_rest = rest;
        }
    }

    /// Publishes the words of a CPU, and the bit that it has in them.
    fn publish_on_cpu(cpu: u32, words: *mut u64, bit: u64) {
        // SAFETY: KVM can call no operation, and one value lives at a time.  The helper writes the
        // variable of that CPU, if the machine can have the CPU.
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

/// Returns the part of FlushedCpus of the CPU that runs this code.  The task may move to another
/// CPU right after.
///
/// If the task moves while this function reads, the result pairs one CPU's array with the other
/// CPU's bit and must not be used.
///
/// # Safety
///
/// A [`FlushedCpusMemory`] lives, and outlives the returned value.
#[inline(always)]
pub(super) unsafe fn on_this_cpu() -> FlushedOnCpu<'static, SharedWord> {
    // SAFETY: By the safety requirements a `FlushedCpusMemory` lives, which wrote these variables
    // for each possible CPU.  The pointer of each CPU leads to a plane whose words are initialised
    // and accessed atomically only.
    unsafe {
        let plane: *const Plane<SharedWord> =
            percpu::this_cpu_word!(vmx_vpid_flushed_on_cpu) as *const _;
        FlushedOnCpu::new(&*plane, percpu::this_cpu_word!(vmx_vpid_flushed_on_cpu, 8))
    }
}

/// Returns FlushedCpus.
///
/// # Safety
///
/// A [`FlushedCpusMemory`] lives, and outlives the returned value.  A `FlushedCpusMemory` lives
/// during an operation of the backend, a callback of livepatch and a read of debugfs.
#[inline]
pub(super) unsafe fn flushed() -> FlushedCpus<'static, SharedWord> {
    // SAFETY: By the safety requirements a `FlushedCpusMemory` lives and outlives the value.  The
    // pointer and the number are those of its planes, whose words are initialised and accessed
    // atomically only.
    unsafe {
        let first: *const Plane<SharedWord> = bindings::vmx_vpid_state.flushed.cast();
        let rest = slice::from_raw_parts(first.add(1), bindings::vmx_vpid_state.flushed_rest);
        FlushedCpus::new(&*first, rest)
    }
}
