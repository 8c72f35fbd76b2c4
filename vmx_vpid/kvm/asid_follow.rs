// SPDX-License-Identifier: GPL-2.0

//! This module starts and stops the lockstep check of the host's ASIDs, and collects its results.

use crate::{
    asid::{
        cpu::Cpu,
        follow::Follower, //
    },
    bindings,
    kvm::tlbstate::{
        features,
        read_cpu,
        Followed, //
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
    // SAFETY: `Asids::new()` initialises it, before there is a file in debugfs.
    unsafe(uninit) static FOLLOWED: Mutex<Option<KBox<Followed>>> = None;
}

/// Returns whether the CPUs are followed.
pub(crate) fn following() -> bool {
    FOLLOWED.lock().is_some()
}

/// Starts or stops following the CPUs; starting again while they are followed clears the counts.
///
/// # Errors
///
/// [`EOPNOTSUPP`] where the CPU uses global ASIDs; [`ENOMEM`]; the errors of ftrace and of the
/// tracepoint.
pub(super) fn follow(on: bool) -> Result {
    let mut guard = FOLLOWED.lock();
    match (on, guard.take()) {
        (true, None) => {
            let features = features().ok_or_else(|| {
                pr_err!("this CPU flushes others by INVLPGB: its ASIDs are not followed\n");
                EOPNOTSUPP
            })?;
            let mut followed = Followed::new(features)?;
            let told: *mut Followed = &mut *followed;
            // SAFETY: It is alive until `vmx_vpid_asid_unfollow()` has returned, below.
            to_result(unsafe { bindings::vmx_vpid_asid_follow(told.cast()) }).inspect_err(
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
            // SAFETY: There was a call that begins it.
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
    /// The results of following the CPU.
    pub(crate) follower: Option<Follower>,
}

/// A question to a CPU, and its answer.
struct Question<'a> {
    followed: Option<&'a Followed>,
    /// Whether the results of the CPU are cleared.
    forget: bool,
    answer: Cell<View>,
}

impl Question<'_> {
    /// Reads the results of a CPU, and clears them if the question says so.
    fn take(&self, follower: &mut Follower) -> Follower {
        if self.forget {
            *follower = Follower::default();
        }
        *follower
    }
}

/// Answers, on the CPU that is asked.
///
/// # Safety
///
/// `question` points to a [`Question`] that nobody else uses; interrupts are off.
unsafe extern "C" fn answer(question: *mut c_void) {
    // SAFETY: By the safety requirements the pointer is that of a question, which lives until this
    // returns.
    let question = unsafe { &*question.cast::<Question<'_>>() };
    // SAFETY: By the safety requirements interrupts are off on the CPU.
    let cpu = unsafe { read_cpu() }.map(|(cpu, ..)| cpu);
    // SAFETY: By the safety requirements interrupts are off on the CPU.
    let take = |followed: &Followed| unsafe { followed.here(|it| question.take(it)) };
    let follower = question.followed.and_then(take);
    question.answer.set(View { cpu, follower });
}

/// Asks each possible CPU, and calls a function with the CPU's number and its state.
fn ask_each(followed: Option<&Followed>, forget: bool, mut function: impl FnMut(u32, View)) {
    // SAFETY: Undone below; this task may sleep.
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
        // CAST: C has these numbers as `int` here.
        // SAFETY: `answer()` is called with interrupts off or not at all, and has returned when
        // this does; until then nobody else uses the question.
        let there = unsafe {
            kernel::bindings::smp_call_function_single(number as c_int, Some(answer), data, true)
        };
        let mut view = question.answer.get();
        if there != 0 {
            let place = followed.and_then(|followed| followed.place(number));
            // SAFETY: The CPU is off, and does not come up as long as the lock is held.
            view.follower = place.map(|place| question.take(unsafe { &mut *place.0.get() }));
        }
        function(number, view);
    }
    // SAFETY: Observed above.
    unsafe { kernel::bindings::cpus_read_unlock() };
}

/// Calls a function for each possible CPU, with its number and its state.
pub(crate) fn for_each(function: impl FnMut(u32, View)) {
    ask_each(FOLLOWED.lock().as_deref(), false, function);
}

/// That CPUs can be followed, as long as the module lives.
pub(crate) struct Asids(());

impl Asids {
    /// Makes a value that follows nothing.
    ///
    /// To be called once, when the module is loaded.
    pub(crate) fn new() -> Self {
        // SAFETY: Once, by the contract, and nobody else has come here yet.
        unsafe { FOLLOWED.init() };
        Self(())
    }
}

impl Drop for Asids {
    fn drop(&mut self) {
        // To end it cannot fail.
        let _ = follow(false);
    }
}
