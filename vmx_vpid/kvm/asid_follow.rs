// SPDX-License-Identifier: GPL-2.0

//! This module starts and stops the lockstep check of the host's ASIDs, and collects its results.

use crate::{
    asid::{
        cpu::Cpu,
        follow::Follower, //
    },
    bindings,
    kvm::{
        compat,
        tlbstate::{
            features,
            read_cpu,
            Followed, //
        }, //
    }, //
};
use core::cell::Cell;
use kernel::{
    cpu::nr_cpu_ids,
    error::to_result,
    ffi::c_void,
    prelude::*,
    sync::{
        global_lock, //
    }, //
};

global_lock! {
    // SAFETY: `Asids::new()` initialises the lock, before a file in debugfs exists: only those
    // files, and the drop of `Asids`, lead to the other functions.
    unsafe(uninit) static FOLLOWED: Mutex<Option<KBox<Followed>>> = None;
}

/// Returns whether the module follows the CPUs.
pub(crate) fn following() -> bool {
    FOLLOWED.lock().is_some()
}

/// Starts or stops to follow the CPUs; a start while the module follows the CPUs clears the
/// results.
///
/// # Errors
///
/// [`EOPNOTSUPP`] if the kernel uses global ASIDs; [`ENOMEM`]; the errors of ftrace and of the
/// tracepoint.
pub(super) fn follow(on: bool) -> Result {
    let mut guard = FOLLOWED.lock();
    match (on, guard.take()) {
        (true, None) => {
            let features = features().ok_or_else(|| {
                pr_err!("this CPU flushes others by INVLPGB: its ASIDs are not followed\n");
                compat::not_supported()
            })?;
            let mut followed = Followed::new(features)?;
            let receiver: *mut Followed = &mut *followed;
            // SAFETY: `receiver` points to `followed`, which lives until `vmx_vpid_asid_unfollow()`
            // has returned.  If this call fails, C reports no event.
            to_result(unsafe { bindings::vmx_vpid_asid_follow(receiver.cast()) }).inspect_err(
                |error| {
                    pr_err!(
                        "switch_mm_irqs_off() or flush_tlb_func() cannot be traced: {:?}\n",
                        error
                    );
                },
            )?;
            *guard = Some(followed);
        }
        (true, Some(followed)) => {
            let followed = guard.insert(followed);
            ask_each(Some(followed), true, |_, _| {});
        }
        (false, Some(followed)) => {
            // SAFETY: `guard` had a value, so `vmx_vpid_asid_follow()` succeeded, and this is the
            // only `vmx_vpid_asid_unfollow()` since then.
            unsafe { bindings::vmx_vpid_asid_unfollow() };
            drop(followed);
        }
        (false, None) => {}
    }
    Ok(())
}

/// The state of a CPU, for debugfs.
#[derive(Clone, Copy)]
pub(crate) struct View {
    /// The kernel's slots of the CPU; `None` while it is offline.
    pub(crate) cpu: Option<Cpu>,
    /// The results of the check of the CPU; `None` while the module does not follow the CPUs.
    pub(crate) follower: Option<Follower>,
}

/// A request for the state of a CPU, and the CPU's answer.
struct Question<'a> {
    followed: Option<&'a Followed>,
    /// Whether the CPU clears its results.
    forget: bool,
    answer: Cell<View>,
}

impl Question<'_> {
    /// Returns the results of a CPU; clears them first if `forget` is set.
    fn take(&self, follower: &mut Follower) -> Follower {
        if self.forget {
            *follower = Follower::default();
        }
        *follower
    }
}

/// Answers a [`Question`], on the CPU that the question is for.
///
/// # Safety
///
/// `question` points to a [`Question`] that no other code uses until this returns; interrupts are
/// off.
unsafe extern "C" fn answer(question: *mut c_void) {
    // SAFETY: By the safety requirements `question` points to a `Question` that no other code uses
    // until this function returns.
    let question = unsafe { &*question.cast::<Question<'_>>() };
    // SAFETY: By the safety requirements interrupts are off.
    let cpu = unsafe { read_cpu() }.map(|(cpu, ..)| cpu);
    // SAFETY: By the safety requirements interrupts are off; `take()` does not call `here()`.
    let take = |followed: &Followed| unsafe { followed.here(|it| question.take(it)) };
    let follower = question.followed.and_then(take);
    question.answer.set(View { cpu, follower });
}

/// Calls a function with the number and the state of each possible CPU.  The caller holds
/// `FOLLOWED`.
fn ask_each(followed: Option<&Followed>, forget: bool, mut function: impl FnMut(u32, View)) {
    // SAFETY: This task may sleep, and the call of `cpus_read_unlock()` below undoes this call.
    unsafe { kernel::bindings::cpus_read_lock() };
    for number in 0..nr_cpu_ids() {
        let question = Question {
            followed,
            forget,
            answer: Cell::new(View {
                cpu: None,
                follower: None,
            }),
        };
        let data = (&raw const question).cast_mut().cast();
        // CAST: C has the number of a CPU as an `int` here.
        // SAFETY: The helper calls `answer()` with interrupts off, or not at all, and waits until
        // `answer()` has returned.  No other code uses `question` until then.
        let there = unsafe { bindings::vmx_vpid_call_on_cpu(number as c_int, Some(answer), data) };
        let mut view = question.answer.get();
        if there != 0 {
            let place = followed.and_then(|followed| followed.place(number));
            // SAFETY: The call failed, so the CPU is offline, and stays offline while
            // `cpus_read_lock()` is held.  The caller holds `FOLLOWED`, so no other task accesses
            // `place`.
            view.follower = place.map(|place| question.take(unsafe { &mut *place.0.get() }));
        }
        function(number, view);
    }
    // SAFETY: This task holds `cpus_read_lock()`, by the call above.
    unsafe { kernel::bindings::cpus_read_unlock() };
}

/// Calls a function with the number and the state of each possible CPU.
pub(crate) fn for_each(function: impl FnMut(u32, View)) {
    ask_each(FOLLOWED.lock().as_deref(), false, function);
}

/// The lockstep check of the host's ASIDs; dropping the value stops the check.
pub(crate) struct Asids(());

impl Asids {
    /// Initialises the check, which follows no CPU yet.
    ///
    /// The module calls this function once, when it is loaded.
    pub(crate) fn new() -> Self {
        // SAFETY: The module calls this function once, when it is loaded, and no other code has
        // used the lock yet.
        unsafe { FOLLOWED.init() };
        Self(())
    }
}

impl Drop for Asids {
    fn drop(&mut self) {
        // A stop cannot fail.
        let _ = follow(false);
    }
}
