// SPDX-License-Identifier: GPL-2.0

//! This module finds the EPTs of running VMs, and reads their tables.

use crate::{
    bindings,
    ept::{
        cursor::{
            Entries,
            Tree, //
        },
        dump::Flags,
        entry::{
            Level,
            Rules, //
        },
        Levels, //
    },
    kvm::cpu,
    x86::addr::Hpa, //
};
use kernel::{
    ffi::c_void,
    prelude::*, //
};

/// The number of elements that a list has room for at first; a VM has one or two roots for each
/// role.
const FEW: usize = 16;

/// A VM, by the address and the PID with which C finds the VM again.
pub(crate) type Vm = bindings::vmx_vpid_vm;

/// The root of an EPT, and the properties of the EPT.
#[derive(Clone, Copy)]
pub(crate) struct Root(bindings::vmx_vpid_vm_root);

impl Root {
    /// Returns the properties, as C read them from KVM.
    pub(crate) fn facts(&self) -> &bindings::vmx_vpid_vm_root {
        &self.0
    }

    /// Returns whether the CPU sets accessed and dirty flags in the tables.
    pub(crate) fn flags(&self) -> Flags {
        if self.0.ad {
            Flags::Kept
        } else {
            Flags::Ignored
        }
    }

    /// Returns the tables as the CPU uses them.
    pub(crate) fn tree(&self) -> Tree {
        Tree {
            rules: Rules::new(cpu::caps(), cpu::physical_width(), self.0.mbec),
            root: Hpa::new(self.0.table),
            levels: if self.0.levels == 5 {
                Levels::Five
            } else {
                Levels::Four
            },
        }
    }
}

/// Returns a list that C writes, with as much room as the list needs.
///
/// `list` writes as many elements as the vector has room for, and returns the number of all
/// elements; `None` if the VM of the elements no longer exists.
///
/// # Errors
///
/// [`ENOMEM`].
fn listed<T: Copy>(list: impl Fn(&mut KVVec<T>) -> Option<usize>) -> Result<Option<KVVec<T>>> {
    let mut room = FEW;
    loop {
        // `list` allocates nothing, since it holds KVM's locks while it writes: the vector has its
        // room before the call.
        let mut all = KVVec::with_capacity(room, GFP_KERNEL)?;
        match list(&mut all) {
            None => return Ok(None),
            Some(count) if count > all.capacity() => room = count.saturating_add(count / 4),
            Some(count) => {
                // SAFETY: `count` is at most the capacity, so `list` wrote `count` elements.
                unsafe { all.inc_len(count) };
                return Ok(Some(all));
            }
        }
    }
}

/// Returns the VMs, without trust domains.
///
/// # Errors
///
/// [`ENOMEM`].
///
/// # Safety
///
/// kvm_intel's symbols are resolved until this returns.
pub(crate) unsafe fn vms() -> Result<KVVec<Vm>> {
    let vms = listed(|all: &mut KVVec<Vm>| {
        // SAFETY: By the safety requirements the symbols are resolved; `all` has room for as many
        // elements as its capacity.
        Some(unsafe { bindings::vmx_vpid_vms(all.as_mut_ptr(), all.capacity()) })
    })?;
    Ok(vms.unwrap_or_default())
}

/// Returns the roots of a VM's EPTs; `None` if the VM no longer exists.
///
/// # Errors
///
/// [`ENOMEM`].
///
/// # Safety
///
/// kvm_intel's symbols are resolved until this returns, and EPT is on.
pub(crate) unsafe fn roots(vm: &Vm) -> Result<Option<KVec<Root>>> {
    let Some(facts) = listed(|all: &mut KVVec<bindings::vmx_vpid_vm_root>| {
        // SAFETY: By the safety requirements the symbols are resolved and EPT is on; `all` has room
        // for as many elements as its capacity.
        let count = unsafe { bindings::vmx_vpid_roots(vm, all.as_mut_ptr(), all.capacity()) };
        usize::try_from(count).ok()
    })?
    else {
        return Ok(None);
    };
    let mut roots = KVec::with_capacity(facts.len(), GFP_KERNEL)?;
    for &root in &facts {
        roots.push(Root(root), GFP_KERNEL)?;
    }
    Ok(Some(roots))
}

/// Access to the tables of an EPT, while C holds the locks that keep the tables.
///
/// # Invariants
///
/// A value lives within [`vmx_vpid_look()`].
pub(crate) struct Live(());

impl Entries for Live {
    fn read(&mut self, at: Hpa) -> u64 {
        // SAFETY: Only `ept::cursor` calls this function, with an address in the root table or in a
        // table for which `holds()` returned true.  By the type invariant C holds the locks that
        // keep the table.
        unsafe { bindings::vmx_vpid_read_entry(at.into_raw()) }
    }

    fn holds(&mut self, table: Hpa, level: Level) -> bool {
        let number = match level {
            Level::Pt => 1,
            Level::Pd => 2,
            Level::Pdpt => 3,
            Level::Pml4 => 4,
            Level::Pml5 => 5,
        };
        // SAFETY: The helper accepts any address: it looks up KVM's page of that address without
        // faulting, and reads nothing at the address itself.
        unsafe { bindings::vmx_vpid_is_table(table.into_raw(), number) }
    }
}

/// The function that [`look_at()`] passes to [`vmx_vpid_look()`].
type Look<'a> = &'a mut dyn FnMut(&mut Live);

/// Calls a function that may read the tables of an EPT; returns false, without that call, if the VM
/// or the root no longer exists.
///
/// `look` must not sleep, and other tasks wait for KVM's locks until `look` returns.
///
/// # Safety
///
/// kvm_intel's symbols are resolved until this returns.
pub(crate) unsafe fn look_at(vm: &Vm, root: &Root, mut look: impl FnMut(&mut Live)) -> bool {
    let mut look: Look<'_> = &mut look;
    // SAFETY: By the safety requirements the symbols are resolved.  `vmx_vpid_look_at()` passes the
    // pointer to `vmx_vpid_look()` only, and `look` lives until that call has returned.
    unsafe { bindings::vmx_vpid_look_at(vm, &root.0, (&raw mut look).cast()) }
}

/// Calls the function of [`look_at()`]; C calls this with the locks held that keep the tables.
///
/// # Safety
///
/// `look` is the pointer that [`look_at()`] passed to C, and `look_at()` has not returned.
#[no_mangle]
unsafe extern "C" fn vmx_vpid_look(look: *mut c_void) {
    // SAFETY: By the safety requirements `look` points to a variable of `look_at()`, which lives,
    // and which no other code uses until `look_at()` returns.
    let look = unsafe { &mut *look.cast::<Look<'_>>() };
    // INVARIANT: The value does not outlive this function.
    look(&mut Live(()));
}
