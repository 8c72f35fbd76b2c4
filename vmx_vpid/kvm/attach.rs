// SPDX-License-Identifier: GPL-2.0

//! This module attaches and detaches the backend: it has the callbacks of livepatch, and their
//! state.
//!
//! Lock order: livepatch's mutex, then [`static@ATTACH`], then kvm_intel's `vmx_vpid_lock` or the
//! locks of a static call's update.  The module notifier and readers of debugfs do not hold
//! livepatch's mutex.

use crate::{
    backend::{
        Backend,
        Registry, //
    },
    bindings,
    kvm::{
        compat,
        exit_handlers,
        flushed_cpus::{
            self,
            FlushedCpusMemory, //
        },
        mmus::{
            self,
            Lines, //
        },
        ops,
        static_calls,
        switches,
        symbols,
        trace,
        vcpu::Vcpu,
        vpid_holders::{
            self,
            VpidList, //
        },
        vpid_lock::Vpids, //
    },
    phase::{
        Callback,
        Phase,
        Transfer, //
    },
    vpid::allocator::VpidLock, //
};
use core::marker::PhantomData;
use kernel::{
    error::{
        from_result,
        to_result, //
    },
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        global_lock, //
    }, //
};

/// The state of attach and detach.
///
/// Livepatch and the module notifier report from different tasks whether kvm_intel is live; the
/// mutex gives their reports an order.
///
/// # Invariants
///
/// - The symbols of kvm_intel are resolved in every phase but [`Phase::Detached`].
/// - `static_calls` and `exits` are 0 unless the phase is [`Phase::Attached`] and `ops` is set.
struct Attach {
    registry: Registry,
    ops: Option<bindings::vmx_vpid_ops>,
    phase: Phase,
    /// The number of static calls that lead to the backend.
    static_calls: usize,
    /// The number of exits that lead to the backend, by KVM's table or by livepatch alone.
    exits: usize,
    /// Whether kvm_intel is past its own initialisation, and does not go away.
    live: bool,
}

global_lock! {
    // SAFETY: `Attachment::new()` initialises the lock, before livepatch and the notifier can call
    // back and before a file in debugfs exists.
    unsafe(uninit) static ATTACH: Mutex<Attach> = Attach {
        registry: Registry::new(),
        ops: None,
        phase: Phase::Detached,
        static_calls: 0,
        exits: 0,
        live: false,
    };
}

/// Whether [`static@ATTACH`] is initialised.
static INITIALISED: Atomic<bool> = Atomic::new(false);

impl Attach {
    /// Handles a callback of livepatch; `live` is true if kvm_intel is known to be live.
    ///
    /// # Safety
    ///
    /// A callback of livepatch calls this function, so that kvm_intel's symbols are resolved until
    /// the function returns.
    unsafe fn step(&mut self, callback: Callback, live: bool) {
        let (phase, transfer) = self.phase.on(callback);
        if phase != Phase::Attached {
            // SAFETY: By the safety requirements the symbols are resolved, and a callback of
            // livepatch runs, which may sleep.
            unsafe { self.disarm() };
        }
        if transfer != Transfer::None {
            // SAFETY: By the safety requirements a callback of livepatch runs, and the symbols are
            // resolved.
            let vpids = unsafe { Vpids::new() };
            let max = switches::max_vpids();
            let moved =
                vpids.locked(|mut allocators| allocators.transfer(transfer, max, &vpids.flushed()));
            match transfer {
                Transfer::Import => trace::attach(moved.count),
                _ => trace::detach(moved.count),
            }
            if moved.freed_by_c != 0 {
                pr_warn!(
                    "C freed {} VPIDs unseen: does another livepatch replace vmx_vcpu_free()?\n",
                    moved.freed_by_c
                );
            }
        }
        if phase != self.phase {
            pr_info!("{}\n", phase.name());
        }
        // INVARIANT: Livepatch resolves the symbols before the first callback, which leads out of
        // `Detached`, and clears them after the last callback, which leads to `Detached`.
        // `disarm()` has set both counts to 0 if the next phase is not `Attached`.
        self.phase = phase;
        self.registry.set_serving(phase != Phase::Detached);
        self.live |= live;
        if self.live {
            // SAFETY: By the safety requirements the symbols are resolved.  kvm_intel was reported
            // live, so its initialisation is over.  If kvm_intel is unloaded, livepatch calls back
            // before the module is freed, and that callback waits for the mutex and disarms.
            unsafe { self.arm() };
        }
    }

    /// Points KVM's static calls and exit table at the backend, if every task runs the backend.
    ///
    /// # Safety
    ///
    /// kvm_intel is past its own initialisation, and is not freed before [`Self::disarm()`].
    unsafe fn arm(&mut self) {
        if let (Phase::Attached, Some(ops)) = (self.phase, &self.ops) {
            // SAFETY: The phase is `Attached`, so the symbols are resolved.
            if unsafe { bindings::vmx_vpid_evmcs_in_use() } {
                pr_warn!(
                    "KVM runs on Hyper-V's enlightened VMCS, which is not supported: detach\n"
                );
                return;
            }
            // SAFETY: By the safety requirements kvm_intel is live.  The phase is `Attached`, so
            // the symbols are resolved and the functions livepatched by those in `ops`.  `self` is
            // borrowed from the mutex, which serialises the calls of `arm()` and `disarm()`.
            // INVARIANT: The phase is `Attached` and `ops` is set.
            self.static_calls = unsafe { static_calls::arm(ops) };
            // SAFETY: By the safety requirements kvm_intel is live.  The phase is `Attached`, so
            // the symbols are resolved and the functions livepatched by those in `ops`.  `self` is
            // borrowed from the mutex, which serialises the calls of `arm()` and `disarm()`.
            // INVARIANT: The phase is `Attached` and `ops` is set.
            self.exits = unsafe { exit_handlers::arm(ops) };
            pr_info!(
                "{} of {} flushes by static call, {} of {} exits\n",
                self.static_calls,
                static_calls::SITES,
                self.exits,
                exit_handlers::EXITS
            );
        }
    }

    /// Points KVM's static calls and exit table back at kvm_intel's functions.
    ///
    /// # Safety
    ///
    /// If `static_calls` or `exits` is not 0, kvm_intel's symbols are resolved and this task may
    /// sleep.
    unsafe fn disarm(&mut self) {
        let Some(ops) = &self.ops else { return };
        if self.static_calls != 0 {
            // SAFETY: `static_calls` is not 0, so by the safety requirements the symbols are
            // resolved.  `self` is borrowed from the mutex, which serialises the calls of `arm()`
            // and `disarm()`.
            unsafe { static_calls::disarm(ops) };
            self.static_calls = 0;
        }
        if self.exits != 0 {
            // SAFETY: `exits` is not 0, so by the safety requirements the symbols are resolved and
            // this task may sleep.  `self` is borrowed from the mutex, which serialises the calls
            // of `arm()` and `disarm()`.
            unsafe { exit_handlers::disarm(ops) };
            self.exits = 0;
        }
    }
}

/// Livepatch callback: kvm_intel's functions are about to lead to the backend.
///
/// If kvm_intel is being loaded, an error would keep it from loading.
///
/// # Safety
///
/// `object` is the object that livepatch called back for.
#[no_mangle]
unsafe extern "C" fn vmx_vpid_pre_patch(object: *const bindings::klp_object) -> c_int {
    from_result(|| {
        let mut attach = ATTACH.lock();
        // SAFETY: By the safety requirements `object` is livepatch's, and valid during the
        // callback.
        let live = unsafe { bindings::vmx_vpid_object_live(object) };
        // SAFETY: This is a callback of livepatch, so the symbols are resolved.
        if live && unsafe { bindings::vmx_vpid_evmcs_in_use() } {
            pr_err!("KVM runs on Hyper-V's enlightened VMCS: not supported\n");
            return Err(compat::not_supported());
        }
        // SAFETY: This is a callback of livepatch, so the symbols are resolved.
        unsafe { attach.step(Callback::PrePatch, live) };
        Ok(0)
    })
}

/// Livepatch callback: every task runs the backend.
///
/// # Safety
///
/// `object` is the object that livepatch called back for.
#[no_mangle]
unsafe extern "C" fn vmx_vpid_post_patch(object: *const bindings::klp_object) {
    let mut attach = ATTACH.lock();
    // The mutex is held: if kvm_intel goes away after this read, the notifier reports that after
    // this callback.
    // SAFETY: By the safety requirements `object` is livepatch's, and valid during the callback.
    let live = unsafe { bindings::vmx_vpid_object_live(object) };
    // SAFETY: This is a callback of livepatch, so the symbols are resolved.
    unsafe { attach.step(Callback::PostPatch, live) };
}

/// Livepatch callback: kvm_intel's functions are about to lead back to C.
#[no_mangle]
extern "C" fn vmx_vpid_pre_unpatch() {
    // SAFETY: This is a callback of livepatch, so the symbols are resolved.
    unsafe { ATTACH.lock().step(Callback::PreUnpatch, false) };
}

/// Livepatch callback: every task runs C again, or kvm_intel goes away.
#[no_mangle]
extern "C" fn vmx_vpid_post_unpatch() {
    // SAFETY: This is a callback of livepatch, and livepatch clears the symbols only after the
    // callback.
    unsafe { ATTACH.lock().step(Callback::PostUnpatch, false) };
}

/// Module notifier: kvm_intel is live, and its own initialisation has written KVM's static calls;
/// or, if `live` is false, kvm_intel goes away.
#[no_mangle]
extern "C" fn vmx_vpid_kvm_intel_state(live: bool) {
    let mut attach = ATTACH.lock();
    attach.live = live;
    if live {
        // SAFETY: The notifier reports that kvm_intel is live, so its initialisation is over.
        // kvm_intel is not unloaded before the notifier returns; a later unload calls livepatch's
        // callback, which waits for the mutex and disarms.
        unsafe { attach.arm() };
    }
}

/// The state of attach and detach, for debugfs.
pub(crate) struct Status {
    /// The label of the registered backend.
    pub(crate) backend: &'static str,
    /// The phase.
    pub(crate) phase: Phase,
    /// Whether kvm_intel is loaded, attached or not.
    pub(crate) live: bool,
    /// The number of static calls that lead to the backend, and of all that can.
    pub(crate) static_calls: (usize, usize),
    /// The number of exits that lead to the backend, by KVM's table or by livepatch alone, and of
    /// all that can.
    pub(crate) exits: (usize, usize),
    /// The number of VPIDs in use, and the largest number since the last attach; `None` when
    /// detached.
    pub(crate) vpids: Option<(u32, u32)>,
}

/// Returns the state of attach and detach.
pub(crate) fn status() -> Status {
    let attach = ATTACH.lock();
    Status {
        backend: attach.registry.label().unwrap_or("none"),
        phase: attach.phase,
        live: attach.live,
        static_calls: (attach.static_calls, static_calls::SITES),
        exits: (attach.exits, exit_handlers::EXITS),
        vpids: (attach.phase != Phase::Detached).then(|| {
            // SAFETY: The phase is not `Detached`, so by the type invariant of `Attach` the symbols
            // are resolved.  The symbols stay resolved while the mutex is held: livepatch clears
            // them after its last callback, which waits for the mutex.  A reader of debugfs calls
            // this function.
            unsafe { Vpids::new() }.locked(|allocators| allocators.usage())
        }),
    }
}

/// Returns the VPIDs in use and the vCPUs that hold them.
///
/// # Errors
///
/// [`ENOMEM`].
pub(crate) fn vpid_list() -> Result<VpidList> {
    let attach = ATTACH.lock();
    if attach.phase == Phase::Detached {
        return Ok(VpidList::unknown(attach.live));
    }
    // SAFETY: The phase is not `Detached` and the mutex is held, so the symbols are resolved until
    // this function returns, which serves a read of debugfs.
    let lines = unsafe { vpid_holders::lines() }?;
    // SAFETY: A reader of debugfs calls this function, and the files are removed before the memory
    // of FlushedCpus is freed.
    let flushed = unsafe { flushed_cpus::flushed() };
    VpidList::new(lines, |vpid| flushed.cpus(vpid))
}

/// Returns the MMU and the roots of each vCPU; if the backend is detached, whether kvm_intel is
/// loaded.
///
/// # Errors
///
/// [`ENOMEM`].
pub(crate) fn mmus() -> Result<Result<Lines, bool>> {
    let attach = ATTACH.lock();
    if attach.phase == Phase::Detached {
        return Ok(Err(attach.live));
    }
    // SAFETY: The phase is not `Detached` and the mutex is held, so the symbols are resolved until
    // this function returns.
    unsafe { mmus::lines() }.map(Ok)
}

/// Calls a function while kvm_intel's symbols are resolved.
///
/// Attach and detach wait for the function.
///
/// # Errors
///
/// A message for the user if the backend is detached; the function is not called then.
pub(crate) fn with_kvm_symbols<R>(function: impl FnOnce() -> R) -> Result<R, &'static str> {
    let attach = ATTACH.lock();
    if attach.phase == Phase::Detached {
        return Err(symbols::absence(attach.live));
    }
    // By the type invariant of `Attach` the symbols are resolved, and they stay resolved while the
    // mutex is held.
    Ok(function())
}

/// A registered backend, with the module notifier.
///
/// Livepatch pins the module while the patch is enabled, so a value is dropped only after C serves
/// again.
pub(crate) struct Attachment<B: Backend<Vcpu = Vcpu>> {
    _flushed: FlushedCpusMemory,
    _backend: PhantomData<B>,
}

impl<B: Backend<Vcpu = Vcpu>> Attachment<B> {
    /// Registers a backend, which serves from [`Self::enable()`] on.
    ///
    /// # Errors
    ///
    /// The errors of [`Registry::register()`] and of the module notifier; [`ENOMEM`]; [`EEXIST`]
    /// when called a second time in the life of the module.
    pub(crate) fn new() -> Result<Self> {
        if INITIALISED.xchg(true, Relaxed) {
            return Err(EEXIST);
        }
        let flushed = FlushedCpusMemory::new()?;
        // SAFETY: `INITIALISED` was false, so this is the first and only call, and no other code
        // has used the lock yet.
        unsafe { ATTACH.init() };
        {
            let mut attach = ATTACH.lock();
            attach.registry.register::<B>()?;
            attach.ops = Some(ops::table::<B>());
        }
        // From here on, dropping the value undoes every step.
        let this = Self {
            _flushed: flushed,
            _backend: PhantomData,
        };
        // SAFETY: `ATTACH`, which the notifier's callback locks, is initialised.
        to_result(unsafe { bindings::vmx_vpid_notifier_register() })?;
        Ok(this)
    }

    /// Attaches the backend, now or when kvm_intel is loaded.
    ///
    /// # Errors
    ///
    /// The errors of livepatch; the log names a symbol that could not be resolved.
    pub(crate) fn enable(&self) -> Result {
        // Livepatch looks for the functions of this table, and no others, on every stack, so the
        // static calls use the same table.
        let ops = ATTACH.lock().ops.ok_or(EINVAL)?;
        // SAFETY: `new()` refused an incomplete table.  The module calls this function once, as the
        // last step of its initialisation that can fail.
        to_result(unsafe { bindings::vmx_vpid_klp_enable(&ops) }).inspect_err(|error| {
            // A callback of this module has named the reason of any other error.
            let hint = if *error == EBUSY {
                ": another livepatch is in transition, try again later"
            } else {
                ""
            };
            pr_err!("livepatch refused to attach ({:?}){}\n", error, hint);
        })?;
        if ATTACH.lock().phase == Phase::Detached {
            pr_info!("waiting for kvm_intel; should that fail to load, unload vmx_vpid first\n");
        }
        Ok(())
    }
}

impl<B: Backend<Vcpu = Vcpu>> Drop for Attachment<B> {
    fn drop(&mut self) {
        // SAFETY: Removing a notifier that is not registered is harmless.
        unsafe { bindings::vmx_vpid_notifier_unregister() };
        let mut attach = ATTACH.lock();
        // The registry refuses, with a line in the log, if livepatch released the module while the
        // backend serves.
        if attach.registry.unregister().is_ok() {
            attach.ops = None;
        }
    }
}
