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

/// The initial room for roots; a VM has one or two for each role.
const FEW: usize = 16;

/// A VM, as it is known again.
pub(crate) type Vm = bindings::vmx_vpid_vm;

/// The root of an EPT, and how the CPU uses it.
#[derive(Clone, Copy)]
pub(crate) struct Root(bindings::vmx_vpid_vm_root);

impl Root {
    /// Returns what KVM says of it.
    pub(crate) fn facts(&self) -> &bindings::vmx_vpid_vm_root {
        &self.0
    }

    /// Returns whether the CPU keeps accessed and dirty flags in the tables.
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

/// Lists what C knows, with as much room as it takes.
///
/// `list` writes as many as there is room for and returns how many there are, or none if what
/// they are of is no more.
fn listed<T: Copy>(list: impl Fn(&mut KVVec<T>) -> Option<usize>) -> Result<Option<KVVec<T>>> {
    let mut room = FEW;
    loop {
        // The memory is allocated in advance, because nothing may be allocated with KVM's locks
        // held.
        let mut all = KVVec::with_capacity(room, GFP_KERNEL)?;
        match list(&mut all) {
            None => return Ok(None),
            Some(count) if count > all.capacity() => room = count.saturating_add(count / 4),
            Some(count) => {
                // SAFETY: There was room for all, and so many were written.
                unsafe { all.inc_len(count) };
                return Ok(Some(all));
            }
        }
    }
}

/// Returns the VMs there are.
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
        // SAFETY: By the contract; the vector has the room.
        Some(unsafe { bindings::vmx_vpid_vms(all.as_mut_ptr(), all.capacity()) })
    })?;
    Ok(vms.unwrap_or_default())
}

/// Returns the roots of a VM's EPTs, `None` if the VM is no more.
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
        // SAFETY: By the contract; the vector has the room.
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

/// The tables of an EPT, as long as they stay.
///
/// # Invariants
///
/// A value lives within [`vmx_vpid_look()`].
pub(crate) struct Live(());

impl Entries for Live {
    fn read(&mut self, at: Hpa) -> u64 {
        // SAFETY: By the contract of the trait, `holds()` found that the address is in a table of
        // KVM's; by the type invariant the table lives as long as this value.
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
        // SAFETY: The helper takes any address, and reads nothing there before it is known.
        unsafe { bindings::vmx_vpid_is_table(table.into_raw(), number) }
    }
}

/// A function that is called while tables may be read.
type Look<'a> = &'a mut dyn FnMut(&mut Live);

/// Calls a function with the tables of an EPT at hand; returns whether VM and root are still
/// there.
///
/// The function must not sleep, and others wait until it returns.
///
/// # Safety
///
/// kvm_intel's symbols are resolved until this returns.
pub(crate) unsafe fn look_at(vm: &Vm, root: &Root, mut look: impl FnMut(&mut Live)) -> bool {
    let mut look: Look<'_> = &mut look;
    // SAFETY: By the safety requirements of this callback `vmx_vpid_look()` passes on the pointer
    // that it was given.
    unsafe { bindings::vmx_vpid_look_at(vm, &root.0, (&raw mut look).cast()) }
}

/// Looks at tables, with locks held that keep them.
///
/// # Safety
///
/// `look` is that of [`look_at()`], which is running.
#[no_mangle]
unsafe extern "C" fn vmx_vpid_look(look: *mut c_void) {
    // SAFETY: By the safety requirements the symbols are resolved, and the pointers live until the
    // call returns.
    let look = unsafe { &mut *look.cast::<Look<'_>>() };
    // INVARIANT: The value is dropped before this function returns.
    look(&mut Live(()));
}
