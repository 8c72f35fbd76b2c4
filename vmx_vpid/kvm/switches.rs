// SPDX-License-Identifier: GPL-2.0

//! This module holds the user's switches, in the form that operations read.

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
    // SAFETY: `set_up()` initialises the lock, before a file in debugfs exists.
    unsafe(uninit) static SWITCHES: Mutex<Switches> = Switches {
        force_flush: false,
        flush_context: false,
        caps_mask: 0,
        check_vmcs: false,
    };
}

/// The number of VPIDs that the pool may allocate; set at load, before the first import.
static MAX_VPIDS: Atomic<u32> = Atomic::new(0);

/// Sets the switches from the module's parameters.  Called once, before the backend is attached.
///
/// # Errors
///
/// [`EINVAL`] for a value that is out of range; the log names the value and the reason.
pub(crate) fn set_up(switches: Switches, max_vpids: u16) -> Result {
    // SAFETY: This function is called once, and no other code uses the lock before it returns.
    unsafe { SWITCHES.init() };
    // SAFETY: This function is called once, and no other code uses the record before it returns.
    unsafe { check_vmcs::set_up() };
    if max_vpids == 0 {
        pr_err!("max_vpids=0 leaves no guest a VPID: give a number from 1 to 65535\n");
        return Err(EINVAL);
    }
    MAX_VPIDS.store(max_vpids.into(), Relaxed);
    set(|all| *all = switches)
}

/// Changes switches, and the policy that follows from them.
///
/// # Errors
///
/// [`EINVAL`] if the switches leave the CPU no instruction to flush with; nothing changes then.
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
    // SAFETY: The word is static, and only this function writes it, with the lock held.
    unsafe { (&raw mut bindings::vmx_vpid_state.policy).write_volatile(policy.into_raw()) };
    // `Request::Guest` stands for all kinds but `All`, which `takes_fast_path()` treats alike.
    let slow = |request| !flush::takes_fast_path(request, policy);
    // SAFETY: The helper may sleep, and so may this task, which loads the module or writes a file
    // in debugfs.
    unsafe {
        bindings::vmx_vpid_set_slow_path(slow(Request::All), slow(Request::Guest));
    }
    Ok(())
}

/// The layout of `struct vmx_vpid_keys` in `rust/vmx_vpid.h`.
#[repr(C)]
struct Keys {
    all_need_slow_path: static_key_false,
    others_need_slow_path: static_key_false,
}

extern "C" {
    static vmx_vpid_keys: Keys;
}

/// Returns whether a request needs the slow path: the opposite of [`flush::takes_fast_path()`].
///
/// The test is a NOP as long as no switch is set.  While a switch changes, the result may be the
/// old or the new one, as for [`policy()`].
#[inline(always)]
pub(super) fn needs_slow_path(request: Request) -> bool {
    // SAFETY: C defines `vmx_vpid_keys`, with the layout of `Keys`.
    unsafe {
        match request {
            Request::All => static_branch_unlikely!(vmx_vpid_keys, Keys, all_need_slow_path),
            Request::Current | Request::Gva(_) | Request::Guest => {
                static_branch_unlikely!(vmx_vpid_keys, Keys, others_need_slow_path)
            }
        }
    }
}

/// Returns the policy of flushes.
///
/// A flush reads the policy once.  A flush that runs while a switch changes uses the old policy or
/// the new one, and either is enough.
#[inline(always)]
pub(super) fn policy() -> Policy {
    // SAFETY: The word is static.  `set()` wrote each of its values, the first before an operation
    // can be called.
    Policy::from_raw(unsafe { (&raw const bindings::vmx_vpid_state.policy).read_volatile() })
}

/// Returns the number of VPIDs that the pool may allocate, 1..=65535.
pub(crate) fn max_vpids() -> u16 {
    // CAST: Only u16 values are ever stored.
    MAX_VPIDS.load(Relaxed) as u16
}

/// Returns the switches.
pub(crate) fn get() -> Switches {
    *SWITCHES.lock()
}

/// Returns the value of a switch, for a read of its file in debugfs.
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

/// Sets a switch to the value that was written to its file in debugfs.
///
/// Returns 0, or a negative errno if the value is refused.
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
