// SPDX-License-Identifier: GPL-2.0

//! Attach and detach: the callbacks of livepatch, and the state they keep.
//!
//! Lock order: livepatch's mutex, then [`ATTACH`], then kvm_intel's `vmx_vpid_lock` or what a
//! static call's update takes.  The notifier of a module going live and readers of debugfs come
//! without livepatch's mutex.

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

/// The state of the attach.
///
/// # Invariants
///
/// - The symbols of kvm_intel are resolved in every phase but [`Phase::Detached`].
/// - `static_calls` and `exits` are not 0 only in [`Phase::Attached`], and with `ops` set.
///
/// `live` tells whether kvm_intel is past its own initialisation.  It is kept here, since livepatch
/// and the notifier tell of it from different tasks, and only under the mutex is their order known.
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

/// Whether [`ATTACH`] is initialised.
static INITIALISED: Atomic<bool> = Atomic::new(false);

impl Attach {
    /// Takes the step that a callback asks for.
    ///
    /// # Safety
    ///
    /// Livepatch called back, so that the symbols of kvm_intel are resolved until this returns.
    unsafe fn step(&mut self, callback: Callback, live: bool) {
        let (phase, transfer) = self.phase.on(callback);
        if phase != Phase::Attached {
            // SAFETY: The symbols are resolved by the contract.
            unsafe { self.disarm() };
        }
        if transfer != Transfer::None {
            // SAFETY: The symbols are resolved by the contract.
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
            // SAFETY: As above, and kvm_intel was live.  If it goes away, livepatch calls back
            // before it is freed, and not before this returns: that disarms.
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
            // SAFETY: Attached, so the symbols are resolved.
            if unsafe { bindings::vmx_vpid_evmcs_in_use() } {
                pr_warn!(
                    "KVM runs on Hyper-V's enlightened VMCS, which is not supported: detach\n"
                );
                return;
            }
            // SAFETY: Attached, so the symbols are resolved and the functions livepatched; `self`
            // is borrowed from the mutex, which serialises this.
            // INVARIANT: The phase is `Attached` and `ops` is set.
            self.static_calls = unsafe { static_calls::arm(ops) };
            // SAFETY: As above.
            // INVARIANT: As above.
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

    /// Points KVM's static calls and exits back.
    ///
    /// # Safety
    ///
    /// If any is armed, the symbols of kvm_intel are resolved.
    unsafe fn disarm(&mut self) {
        let Some(ops) = &self.ops else { return };
        if self.static_calls != 0 {
            // SAFETY: The symbols are resolved by the contract; the mutex serialises this.
            unsafe { static_calls::disarm(ops) };
            self.static_calls = 0;
        }
        if self.exits != 0 {
            // SAFETY: As above; livepatch's callbacks may sleep.
            unsafe { exit_handlers::disarm(ops) };
            self.exits = 0;
        }
    }
}

/// Livepatch is about to lead kvm_intel's functions to the backend.
///
/// If kvm_intel does not run yet, this is part of its being loaded, and refusing would keep it from
/// loading.
///
/// # Safety
///
/// `object` is what livepatch called back for.
#[no_mangle]
unsafe extern "C" fn vmx_vpid_pre_patch(object: *const bindings::klp_object) -> c_int {
    from_result(|| {
        let mut attach = ATTACH.lock();
        // SAFETY: The contract of this function.
        let live = unsafe { bindings::vmx_vpid_object_live(object) };
        // SAFETY: The symbols are resolved: this is livepatch's callback.
        if live && unsafe { bindings::vmx_vpid_evmcs_in_use() } {
            pr_err!("KVM runs on Hyper-V's enlightened VMCS: not supported\n");
            return Err(EOPNOTSUPP);
        }
        // SAFETY: As above.
        unsafe { attach.step(Callback::PrePatch, live) };
        Ok(0)
    })
}

/// Livepatch has led every task to the backend.
///
/// # Safety
///
/// `object` is what livepatch called back for.
#[no_mangle]
unsafe extern "C" fn vmx_vpid_post_patch(object: *const bindings::klp_object) {
    let mut attach = ATTACH.lock();
    // SAFETY: The contract of this function.  Looked at under the mutex: the notifier's news that
    // it goes away come either after this, or after it was no longer live.
    let live = unsafe { bindings::vmx_vpid_object_live(object) };
    // SAFETY: The symbols are resolved: this is livepatch's callback.
    unsafe { attach.step(Callback::PostPatch, live) };
}

/// Livepatch is about to lead the functions back to C.
#[no_mangle]
extern "C" fn vmx_vpid_pre_unpatch() {
    // SAFETY: The symbols are resolved: this is livepatch's callback.
    unsafe { ATTACH.lock().step(Callback::PreUnpatch, false) };
}

/// Livepatch has led every task back to C, or kvm_intel goes away.
#[no_mangle]
extern "C" fn vmx_vpid_post_unpatch() {
    // SAFETY: The symbols are still resolved: this is livepatch's callback.
    unsafe { ATTACH.lock().step(Callback::PostUnpatch, false) };
}

/// kvm_intel has gone live, after its own initialisation wrote KVM's static calls, or goes away.
#[no_mangle]
extern "C" fn vmx_vpid_kvm_intel_state(live: bool) {
    let mut attach = ATTACH.lock();
    attach.live = live;
    if live {
        // SAFETY: The notifier runs before the loading of kvm_intel ends, so it is live and stays.
        // Were it unloaded all the same, livepatch's callbacks would wait for the mutex, and find
        // the calls armed or the phase changed.
        unsafe { attach.arm() };
    }
}

/// What the handover looks like, for debugfs.
pub(crate) struct Status {
    /// The registered backend.
    pub(crate) backend: &'static str,
    /// The phase.
    pub(crate) phase: Phase,
    /// Whether kvm_intel is there, attached or not.
    pub(crate) live: bool,
    /// How many flushes go by static call, and how many could.
    pub(crate) static_calls: (usize, usize),
    /// How many exits go by KVM's table, and how many could.
    pub(crate) exits: (usize, usize),
    /// How many VPIDs are in use, and the most that were since the last attach; `None` when
    /// detached: there is nothing to ask.
    pub(crate) vpids: Option<(u32, u32)>,
}

/// Returns what the handover looks like now.
pub(crate) fn status() -> Status {
    let attach = ATTACH.lock();
    Status {
        backend: attach.registry.label().unwrap_or("none"),
        phase: attach.phase,
        live: attach.live,
        static_calls: (attach.static_calls, static_calls::SITES),
        exits: (attach.exits, exit_handlers::EXITS),
        vpids: (attach.phase != Phase::Detached).then(|| {
            // SAFETY: By the invariant the symbols are resolved, and they stay so while the mutex
            // is held: livepatch's last callback waits for it, and they are cleared after that.
            unsafe { Vpids::new() }.locked(|allocators| allocators.usage())
        }),
    }
}

/// Returns which VPIDs are in use now, and who holds them.
///
/// # Errors
///
/// [`ENOMEM`].
pub(crate) fn vpid_list() -> Result<VpidList> {
    let attach = ATTACH.lock();
    if attach.phase == Phase::Detached {
        return Ok(VpidList::unknown(attach.live));
    }
    // SAFETY: As in `status()`.
    let lines = unsafe { vpid_holders::lines() }?;
    // SAFETY: This is a reading of debugfs, whose files are gone before the record is.
    let flushed = unsafe { flushed_cpus::flushed() };
    VpidList::new(lines, |vpid| flushed.cpus(vpid))
}

/// Returns what KVM translates each vCPU's addresses by now; when there is no KVM to be asked,
/// whether kvm_intel is there in its place.
///
/// # Errors
///
/// [`ENOMEM`].
pub(crate) fn mmus() -> Result<Result<Lines, bool>> {
    let attach = ATTACH.lock();
    if attach.phase == Phase::Detached {
        return Ok(Err(attach.live));
    }
    // SAFETY: As in `status()`.
    unsafe { mmus::lines() }.map(Ok)
}

/// Calls a function while kvm_intel's symbols are resolved.
///
/// Attach and detach wait for it.
///
/// # Errors
///
/// What is said of kvm_intel if they are not; nothing was called then.
pub(crate) fn with_kvm_symbols<R>(function: impl FnOnce() -> R) -> Result<R, &'static str> {
    let attach = ATTACH.lock();
    if attach.phase == Phase::Detached {
        return Err(symbols::absence(attach.live));
    }
    // By the invariant the symbols are resolved, and they stay so as in `status()`.
    Ok(function())
}

/// A registered backend, and the notifier that goes with it.
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
    /// Those of [`Registry::register()`] and of the module notifier; [`ENOMEM`]; [`EEXIST`] when
    /// called a second time in the life of the module.
    pub(crate) fn new() -> Result<Self> {
        if INITIALISED.xchg(true, Relaxed) {
            return Err(EEXIST);
        }
        let record = FlushedCpusMemory::new()?;
        // SAFETY: The flag lets one caller come here, once.
        unsafe { ATTACH.init() };
        {
            let mut attach = ATTACH.lock();
            attach.registry.register::<B>()?;
            attach.ops = Some(ops::table::<B>());
        }
        // From here on, dropping the value undoes all.
        let this = Self {
            _record: record,
            _backend: PhantomData,
        };
        // SAFETY: The callback is ready to be called.
        to_result(unsafe { bindings::vmx_vpid_notifier_register() })?;
        Ok(this)
    }

    /// Attaches the backend, now or when kvm_intel is loaded.
    ///
    /// # Errors
    ///
    /// Those of livepatch; the log names a symbol that could not be resolved.
    pub(crate) fn enable(&self) -> Result {
        // The very table that the static calls are pointed at: livepatch looks for its functions,
        // and no others, on every stack.
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
        // SAFETY: Registered in `new()`; to take out what is not there is harmless.
        unsafe { bindings::vmx_vpid_notifier_unregister() };
        let mut attach = ATTACH.lock();
        // Refused, with a line in the log, if livepatch let the module go while it serves.
        if attach.registry.unregister().is_ok() {
            attach.ops = None;
        }
    }
}
