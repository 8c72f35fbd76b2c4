// SPDX-License-Identifier: GPL-2.0

//! What a user has switched, as the operations read it.

use crate::{
    bindings,
    flush::{
        self,
        policy::{
            Policy,
            Switches, //
        },
        Request, //
    },
    kvm::{
        asid_follow,
        check_vmcs,
        cpu,
        tlbstate, //
    }, //
};
use kernel::{
    bindings::static_key_false,
    error::from_result,
    jump_label::static_branch_unlikely,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        global_lock, //
    }, //
};

global_lock! {
    // SAFETY: `set_up()` initialises it, before there is a file in debugfs.
    unsafe(uninit) static SWITCHES: Mutex<Switches> = Switches {
        force_flush: false,
        flush_context: false,
        caps_mask: 0,
        check_vmcs: false,
    };
}

/// How many VPIDs the pool may give out; set at load, before the first import.
static MAX_VPIDS: Atomic<u32> = Atomic::new(0);

/// Sets everything as the module's parameters say; to be called once, before anything is attached.
///
/// # Errors
///
/// [`EINVAL`] when a value makes no sense; the log says which and why.
pub(crate) fn set_up(switches: Switches, max_vpids: u16) -> Result {
    // SAFETY: Once, by the contract, and nobody else has come here yet.
    unsafe { SWITCHES.init() };
    // SAFETY: As above.
    unsafe { check_vmcs::set_up() };
    if max_vpids == 0 {
        pr_err!("max_vpids=0 leaves no guest a VPID: give a number from 1 to 65535\n");
        return Err(EINVAL);
    }
    MAX_VPIDS.store(max_vpids.into(), Relaxed);
    set(|all| *all = switches)
}

/// Changes switches.
///
/// # Errors
///
/// [`EINVAL`] when the CPU could flush nothing any more; nothing is changed then.
fn set(change: impl FnOnce(&mut Switches)) -> Result {
    let mut guard = SWITCHES.lock();
    let mut switches = *guard;
    change(&mut switches);
    switches.check(cpu::caps()).map_err(|error| {
        pr_err!(
            "caps_mask={:#x} is refused: {}\n",
            switches.caps_mask,
            error
        );
        EINVAL
    })?;
    *guard = switches;
    let policy = switches.policy(cpu::caps());
    // SAFETY: A live word, which is written here alone, with the lock held.
    unsafe { (&raw mut bindings::vmx_vpid_state.policy).write_volatile(policy.into_raw()) };
    // One stands for all others: `takes_fast_path()` says the same of each.
    let not_plain = |request| !flush::takes_fast_path(request, policy);
    // SAFETY: The helper may wait, as this function may.
    unsafe {
        bindings::vmx_vpid_set_not_plain(not_plain(Request::All), not_plain(Request::Guest));
    }
    Ok(())
}

/// `struct vmx_vpid_keys` of `rust/vmx_vpid.h`.
#[repr(C)]
struct Keys {
    all_not_plain: static_key_false,
    others_not_plain: static_key_false,
}

extern "C" {
    static vmx_vpid_keys: Keys;
}

/// Whether a request cannot be answered as most are: the opposite of [`flush::takes_fast_path()`].
///
/// While it can, this is a NOP.  While a switch changes, it is as [`policy()`].
#[inline(always)]
pub(super) fn needs_slow_path(request: Request) -> bool {
    // SAFETY: The keys are defined in C, by a structure of this form.
    unsafe {
        match request {
            Request::All => static_branch_unlikely!(vmx_vpid_keys, Keys, all_not_plain),
            Request::Current | Request::Gva(_) | Request::Guest => {
                static_branch_unlikely!(vmx_vpid_keys, Keys, others_not_plain)
            }
        }
    }
}

/// Returns what a flush may be answered by now.
///
/// To be read once by each: one that runs while a switch changes goes by the old value or by the
/// new one, and either is enough.
#[inline(always)]
pub(super) fn policy() -> Policy {
    // SAFETY: A live word, of which each value is one of `set()`.
    Policy::from_raw(unsafe { (&raw const bindings::vmx_vpid_state.policy).read_volatile() })
}

/// Returns how many VPIDs the pool may give out, 1..=65535.
pub(crate) fn max_vpids() -> u16 {
    // CAST: It was one.
    MAX_VPIDS.load(Relaxed) as u16
}

/// Returns what is switched.
pub(crate) fn get() -> Switches {
    *SWITCHES.lock()
}

/// Reads a switch's file.
#[no_mangle]
extern "C" fn vmx_vpid_switch_get(which: bindings::vmx_vpid_switch) -> u64 {
    let switches = get();
    match which {
        bindings::vmx_vpid_switch_VMX_VPID_FORCE_FLUSH => switches.force_flush.into(),
        bindings::vmx_vpid_switch_VMX_VPID_FLUSH_CONTEXT => switches.flush_context.into(),
        bindings::vmx_vpid_switch_VMX_VPID_ASID_FOLLOW => asid_follow::following().into(),
        bindings::vmx_vpid_switch_VMX_VPID_ASID_TWIST => tlbstate::bug_number(),
        bindings::vmx_vpid_switch_VMX_VPID_CHECK_VMCS => switches.check_vmcs.into(),
        _ => switches.caps_mask,
    }
}

/// Writes a switch's file.
#[no_mangle]
extern "C" fn vmx_vpid_switch_set(which: bindings::vmx_vpid_switch, value: u64) -> c_int {
    let boolean = |name: &str| match value {
        0 => Ok(false),
        1 => Ok(true),
        _ => {
            pr_err!("{}={} is refused: write 0 or 1\n", name, value);
            Err(EINVAL)
        }
    };
    from_result(|| {
        match which {
            bindings::vmx_vpid_switch_VMX_VPID_FORCE_FLUSH => {
                let force_flush = boolean("force_flush")?;
                set(|all| all.force_flush = force_flush)?;
            }
            bindings::vmx_vpid_switch_VMX_VPID_FLUSH_CONTEXT => {
                let flush_context = boolean("flush_context")?;
                set(|all| all.flush_context = flush_context)?;
            }
            bindings::vmx_vpid_switch_VMX_VPID_ASID_FOLLOW => {
                asid_follow::follow(boolean("asid_follow")?)?;
            }
            bindings::vmx_vpid_switch_VMX_VPID_ASID_TWIST => tlbstate::set_bug(value)?,
            bindings::vmx_vpid_switch_VMX_VPID_CHECK_VMCS => {
                let check_vmcs = boolean("check_vmcs")?;
                set(|all| all.check_vmcs = check_vmcs)?;
            }
            _ => set(|all| all.caps_mask = value)?,
        }
        Ok(0)
    })
}
