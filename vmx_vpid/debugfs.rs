// SPDX-License-Identifier: GPL-2.0

//! This module creates and removes the files in debugfs, and has the functions that C calls for
//! them.
//!
//! C makes the files, with the module as their owner; [`crate::debugfs::status`] prints their
//! content.  Files of the kernel crate have no owner, so an open one would call freed code when it
//! is closed after the module was unloaded.

pub(crate) mod asid;
pub(crate) mod ept;
pub(crate) mod status;

use crate::{
    bindings,
    kvm::{
        attach,
        vpid_holders::VpidList, //
    }, //
};
use kernel::{
    error::from_result,
    ffi::c_void,
    prelude::*,
    seq_file::SeqFile, //
};

/// The directory; dropping it removes the files and waits for their readers.
pub(crate) struct Files(());

impl Files {
    /// Makes a value that has no files yet.
    pub(crate) fn new() -> Self {
        Self(())
    }

    /// Creates the directory; without debugfs there is none, which is no error.
    ///
    /// Called as the last step of the module's initialisation.  A module that fails to load is
    /// freed even if a task holds one of its files open, so there is no file before the module can
    /// no longer fail.
    pub(crate) fn create(&self) {
        // SAFETY: What the files show is initialised: it is static.
        unsafe { bindings::vmx_vpid_debugfs_create() };
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        // SAFETY: Those that were created are this value's; to remove none is harmless.
        unsafe { bindings::vmx_vpid_debugfs_remove() };
    }
}

/// Shows `stats`.
///
/// # Safety
///
/// `file` is being read by this task, and by no other.
#[no_mangle]
unsafe extern "C" fn vmx_vpid_show_stats(file: *mut bindings::seq_file) {
    // SAFETY: By the safety requirements this task alone reads `file`; both bindings of the type
    // are the same C type.
    status::show_stats(unsafe { SeqFile::from_raw(file.cast()) });
}

/// Shows `status`.
///
/// # Safety
///
/// `file` is being read by this task, and by no other.
#[no_mangle]
unsafe extern "C" fn vmx_vpid_show_status(file: *mut bindings::seq_file) {
    // SAFETY: By the safety requirements this task alone reads `file`; both bindings of the type
    // are the same C type.
    status::show_status(unsafe { SeqFile::from_raw(file.cast()) });
}

/// Shows `asid`.
///
/// # Safety
///
/// `file` is being read by this task, and by no other.
#[no_mangle]
unsafe extern "C" fn vmx_vpid_show_asid(file: *mut bindings::seq_file) {
    // SAFETY: By the safety requirements this task alone reads `file`; both bindings of the type
    // are the same C type.
    asid::show(unsafe { SeqFile::from_raw(file.cast()) });
}

/// Shows `roots`.
///
/// # Safety
///
/// `file` is being read by this task, and by no other.
#[no_mangle]
unsafe extern "C" fn vmx_vpid_show_roots(file: *mut bindings::seq_file) -> c_int {
    from_result(|| {
        // SAFETY: By the safety requirements this task alone reads `file`; both bindings of the
        // type are the same C type.
        status::show_roots(unsafe { SeqFile::from_raw(file.cast()) })?;
        Ok(0)
    })
}

/// Shows `vmcs`.
///
/// # Safety
///
/// `file` is being read by this task, and by no other.
#[no_mangle]
unsafe extern "C" fn vmx_vpid_show_vmcs(file: *mut bindings::seq_file) {
    // SAFETY: By the safety requirements this task alone reads `file`; both bindings of the type
    // are the same C type.
    status::show_vmcs(unsafe { SeqFile::from_raw(file.cast()) });
}

/// Makes the list that one opening of `vpids` shows.
///
/// # Safety
///
/// `list` can be written; what it gets is given to [`vmx_vpid_list_drop()`] in the end.
#[no_mangle]
unsafe extern "C" fn vmx_vpid_list_take(list: *mut *mut c_void) -> c_int {
    from_result(|| {
        let new = KBox::new(attach::vpid_list()?, GFP_KERNEL)?;
        // SAFETY: By the safety requirements `list` can be written.
        unsafe { list.write(KBox::into_raw(new).cast()) };
        Ok(0)
    })
}

/// Frees a list.
///
/// # Safety
///
/// It is one of [`vmx_vpid_list_take()`], and is not used again.
#[no_mangle]
unsafe extern "C" fn vmx_vpid_list_drop(list: *mut c_void) {
    // SAFETY: By the safety requirements the list is one of `vmx_vpid_list_take()` and is not used
    // again.
    drop(unsafe { KBox::<VpidList>::from_raw(list.cast()) });
}

/// Returns whether a list has a line of this number, the first being 0.
///
/// # Safety
///
/// `list` is one of [`vmx_vpid_list_take()`].
#[no_mangle]
unsafe extern "C" fn vmx_vpid_list_has(list: *const c_void, line: u64) -> bool {
    // SAFETY: By the safety requirements this is a list of `vmx_vpid_list_take()`, and no code
    // writes a list.
    unsafe { &*list.cast::<VpidList>() }.has(line)
}

/// Shows a line of a list.
///
/// # Safety
///
/// It is one of [`vmx_vpid_list_take()`]; `file` is being read by this task, and by no other.
#[no_mangle]
unsafe extern "C" fn vmx_vpid_list_show(
    list: *const c_void,
    line: u64,
    file: *mut bindings::seq_file,
) {
    // SAFETY: By the safety requirements this is a list of `vmx_vpid_list_take()`, and no code
    // writes a list.
    let list = unsafe { &*list.cast::<VpidList>() };
    // SAFETY: By the safety requirements this task alone reads `file`; both bindings of the type
    // are the same C type.
    status::show_vpid_line(list, line, unsafe { SeqFile::from_raw(file.cast()) });
}
