// SPDX-License-Identifier: GPL-2.0

//! This module attaches and detaches the backend: it has the callbacks of livepatch, and their
//! state.
//!
//! Lock order: livepatch's mutex, then [`static@ATTACH`], then kvm_intel's `vmx_vpid_lock` or the
//! locks of a static call's update.  The notifier of a module that goes live, and readers of
//! debugfs, come without livepatch's mutex.

use crate::{
    backend::{
        Backend,
        Registry, //
    },
    bindings,
    kvm::{
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
/// # Invariants
///
/// - The symbols of kvm_intel are resolved in every phase but [`Phase::Detached`].
/// - `static_calls` and `exits` are not 0 only in [`Phase::Attached`], and with `ops` set.
///
/// `live` says whether kvm_intel is past its own initialisation.  Livepatch and the notifier report
/// that from different tasks, and only the mutex gives their reports an order.
struct Attach {
    registry: Registry,
    ops: Option<bindings::vmx_vpid_ops>,
    phase: Phase,
    static_calls: usize,
    exits: usize,
    live: bool,
}

global_lock! {
    // SAFETY: `Attachment::new()` initialises it, before livepatch or the notifier know of the
    // callbacks and before there is a file in debugfs.
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
    /// Takes the step that a callback demands.
    ///
    /// # Safety
    ///
    /// Livepatch called back, so that the symbols of kvm_intel are resolved until this returns.
    unsafe fn step(&mut self, callback: Callback, live: bool) {
        let (phase, transfer) = self.phase.on(callback);
        if phase != Phase::Attached {
            // SAFETY: By the safety requirements the symbols are resolved.
            unsafe { self.disarm() };
        }
        if transfer != Transfer::None {
            // SAFETY: By the safety requirements the symbols are resolved.
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
                    "C freed {} VPIDs unseen: is free_vpid() inlined? See 'make check-kernel'\n",
                    moved.freed_by_c
                );
            }
        }
        if phase != self.phase {
            pr_info!("{}\n", phase.name());
        }
        // INVARIANT: Livepatch resolves the symbols before the first callback, which leads out of
        // `Detached`, and clears them after the last, which leads there.
        self.phase = phase;
        self.registry.set_serving(phase != Phase::Detached);
        self.live |= live;
        if self.live {
            // SAFETY: By the safety requirements the symbols are resolved, and kvm_intel was live.
            // If kvm_intel goes away, livepatch calls back before it frees the module, waits for
            // the mutex, and that callback disarms.
            unsafe { self.arm() };
        }
    }

    /// Points KVM's static calls and exits at the backend, if every task runs it.
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
            // SAFETY: The phase is `Attached`, so the symbols are resolved and the functions
            // livepatched; `self` is borrowed from the mutex, which serialises this.  INVARIANT:
            // The phase is `Attached` and `ops` is set.
            self.static_calls = unsafe { static_calls::arm(ops) };
            // SAFETY: The phase is `Attached`, so the symbols are resolved and the functions
            // livepatched; `self` is borrowed from the mutex, which serialises this.  INVARIANT:
            // The phase is `Attached` and `ops` is set.
            self.exits = unsafe { exit_handlers::arm(ops) };
            pr_info!(
                "{} of {} flushes by static call, {} of {} exits by KVM's table\n",
                self.static_calls,
                static_calls::SITES,
                self.exits,
                exit_handlers::EXITS
            );
        }
    }

    /// Points KVM's static calls and exits back to C.
    ///
    /// # Safety
    ///
    /// If any is armed, the symbols of kvm_intel are resolved.
    unsafe fn disarm(&mut self) {
        let Some(ops) = &self.ops else { return };
        if self.static_calls != 0 {
            // SAFETY: By the safety requirements the symbols are resolved; the mutex serialises
            // this.
            unsafe { static_calls::disarm(ops) };
            self.static_calls = 0;
        }
        if self.exits != 0 {
            // SAFETY: By the safety requirements the symbols are resolved; the mutex serialises
            // this, and livepatch's callbacks may sleep.
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
            return Err(EOPNOTSUPP);
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
    // SAFETY: By the safety requirements `object` is livepatch's, and valid during the callback.
    // The mutex is held: the notifier reports that kvm_intel goes away either after this, or after
    // it was no longer live.
    let live = unsafe { bindings::vmx_vpid_object_live(object) };
    // SAFETY: This is a callback of livepatch, so the symbols are resolved.
    unsafe { attach.step(Callback::PostPatch, live) };
}

/// Livepatch callback: the functions are about to lead back to C.
#[no_mangle]
extern "C" fn vmx_vpid_pre_unpatch() {
    // SAFETY: This is a callback of livepatch, so the symbols are resolved.
    unsafe { ATTACH.lock().step(Callback::PreUnpatch, false) };
}

/// Livepatch callback: every task runs C again, or kvm_intel goes away.
#[no_mangle]
extern "C" fn vmx_vpid_post_unpatch() {
    // SAFETY: This is a callback of livepatch, which clears the symbols only after it.
    unsafe { ATTACH.lock().step(Callback::PostUnpatch, false) };
}

/// Notifier: kvm_intel went live, after its own initialisation wrote KVM's static calls, or goes
/// away.
#[no_mangle]
extern "C" fn vmx_vpid_kvm_intel_state(live: bool) {
    let mut attach = ATTACH.lock();
    attach.live = live;
    if live {
        // SAFETY: The notifier runs before the loading of kvm_intel ends, so kvm_intel is live and
        // stays.  If it is unloaded later, livepatch's callbacks wait for the mutex, and find the
        // calls armed or the phase changed.
        unsafe { attach.arm() };
    }
}

/// The state of attach and detach, for debugfs.
pub(crate) struct Status {
    /// The registered backend.
    pub(crate) backend: &'static str,
    /// The phase.
    pub(crate) phase: Phase,
    /// Whether kvm_intel is loaded, attached or not.
    pub(crate) live: bool,
    /// The number of flushes that go by static call, and of all that could.
    pub(crate) static_calls: (usize, usize),
    /// The number of exits that go by KVM's table, and of all that could.
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
            // SAFETY: The phase is not `Detached`, so by the invariant the symbols are resolved.
            // They stay so while the mutex is held: livepatch's last callback waits for it, and
            // livepatch clears them after that.
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
    // this returns.
    let lines = unsafe { vpid_holders::lines() }?;
    // SAFETY: A reader of debugfs calls this, and the files are removed before the record of
    // flushed CPUs is freed.
    let flushed = unsafe { flushed_cpus::flushed() };
    VpidList::new(lines, |vpid| flushed.cpus(vpid))
}

/// Returns the MMU and the roots of each vCPU; if detached, whether kvm_intel is loaded.
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
    // this returns.
    unsafe { mmus::lines() }.map(Ok)
}

/// Calls a function while kvm_intel's symbols are resolved.
///
/// Attach and detach wait for the function.
///
/// # Errors
///
/// A message for the user if kvm_intel is not attached; the function was not called.
pub(crate) fn with_kvm_symbols<R>(function: impl FnOnce() -> R) -> Result<R, &'static str> {
    let attach = ATTACH.lock();
    if attach.phase == Phase::Detached {
        return Err(symbols::absence(attach.live));
    }
    // By the invariant the symbols are resolved, and they stay so while the mutex is held.
    Ok(function())
}

/// A registered backend, with its notifier.
///
/// Livepatch pins the module while it is enabled, so this is dropped only when C serves again.
pub(crate) struct Attachment<B: Backend<Vcpu = Vcpu>> {
    _record: FlushedCpusMemory,
    _backend: PhantomData<B>,
}

impl<B: Backend<Vcpu = Vcpu>> Attachment<B> {
    /// Registers a backend; it serves from [`Self::enable()`] on.
    ///
    /// # Errors
    ///
    /// The errors of [`Registry::register()`] and of the module notifier; [`ENOMEM`]; [`EEXIST`]
    /// when called a second time in the life of the module.
    pub(crate) fn new() -> Result<Self> {
        if INITIALISED.xchg(true, Relaxed) {
            return Err(EEXIST);
        }
        let record = FlushedCpusMemory::new()?;
        // SAFETY: The flag lets one caller get here, once.
        unsafe { ATTACH.init() };
        {
            let mut attach = ATTACH.lock();
            attach.registry.register::<B>()?;
            attach.ops = Some(ops::table::<B>());
        }
        // From here on, dropping the value undoes every step.
        let this = Self {
            _record: record,
            _backend: PhantomData,
        };
        // SAFETY: The state that the callback uses is initialised.
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
        // SAFETY: `new()` refused an incomplete table, and this is the last step of the module's
        // initialisation.
        to_result(unsafe { bindings::vmx_vpid_klp_enable(&ops) }).inspect_err(|error| {
            pr_err!(
                "livepatch refused to attach ({:?}): is another transition pending?\n",
                error
            )
        })
    }
}

impl<B: Backend<Vcpu = Vcpu>> Drop for Attachment<B> {
    fn drop(&mut self) {
        // SAFETY: `new()` registered the notifier; removing one that is not registered is harmless.
        unsafe { bindings::vmx_vpid_notifier_unregister() };
        let mut attach = ATTACH.lock();
        // The registry refuses, with a line in the log, if livepatch released the module while the
        // backend serves.
        if attach.registry.unregister().is_ok() {
            attach.ops = None;
        }
    }
}
