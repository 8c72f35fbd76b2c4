// SPDX-License-Identifier: GPL-2.0

//! This module increments counters, of which each CPU has its own copy, so that a flush touches no
//! shared cache line.
//!
//! The kernel crate has no per-CPU variables, so `rust/helpers.c` defines the array.  This module
//! increments an element as `this_cpu_inc()` does in C: by one instruction, which neither an
//! interrupt nor a migration can split.

use crate::{
    bindings,
    stats::Counter, //
};

kernel::static_assert!(Counter::COUNT <= bindings::VMX_VPID_NR_COUNTERS as usize);

/// Increments counter number `N`; use [`count!`](crate::kvm::percpu::count).
#[inline(always)]
pub(super) fn increment<const N: usize>() {
    const { assert!(N < Counter::COUNT) };
    // SAFETY: The array has `VMX_VPID_NR_COUNTERS` elements of 8 bytes on each CPU, and `N` is less
    // than that.  Only one element and the arithmetic flags change.
    unsafe {
        kernel::asm!(
            "incq %gs:{counters}+{offset}(%rip)";
            counters = sym bindings::vmx_vpid_counters,
            offset = const N * 8,
            options(nostack),
        );
    }
}

/// Increments a counter that is chosen at run time.
#[inline]
pub(super) fn increment_by_value(counter: Counter) {
    // SAFETY: The array has `VMX_VPID_NR_COUNTERS` elements of 8 bytes on each CPU, and a counter
    // is less than `Counter::COUNT`, which is at most that.  Only one element and the arithmetic
    // flags change.
    unsafe {
        kernel::asm!(
            "incq %gs:{counters}(,{index},8)";
            counters = sym bindings::vmx_vpid_counters,
            index = in(reg) counter as usize,
            options(nostack),
        );
    }
}

/// Increments a counter, named as in [`Counter`], on this CPU.
macro_rules! count {
    ($name:ident) => {
        $crate::kvm::percpu::increment::<{ $crate::stats::Counter::$name as usize }>()
    };
}
pub(super) use count;

/// Returns a counter's sum over all CPUs.
pub(crate) fn sum(counter: Counter) -> u64 {
    // CAST: There are fewer than 64 counters.
    let index = counter as u32;
    // SAFETY: The helper checks the index and only reads.
    unsafe { bindings::vmx_vpid_counter_sum(index) }
}

/// Reads a word of this CPU's variable `vmx_vpid_*` of `rust/helpers.c`, at an offset in bytes.
///
/// # Safety
///
/// The variable has a word at the offset, and no code writes the word at the same time.
macro_rules! this_cpu_word {
    ($variable:ident $(, $offset:literal)?) => {{
        let word: u64;
        kernel::asm!(
            "movq %gs:{variable}+{offset}(%rip), {word}";
            variable = sym $crate::bindings::$variable,
            offset = const 0 $(+ $offset)?,
            word = out(reg) word,
            options(nostack, preserves_flags, readonly),
        );
        word
    }};
}
pub(super) use this_cpu_word;
