// SPDX-License-Identifier: GPL-2.0

//! This module creates and removes the files in debugfs, and has the functions that C calls for
//! them.
//!
//! C makes the files, with the module as their owner; [`crate::debugfs::status`] prints their
//! content.  A file of the kernel crate has no owner: if the module is unloaded while the file is
//! open, closing the file runs freed code.

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

    /// Creates the directory and its files; without debugfs there are none, which is no error.
    ///
    /// Called as the last step of the module's initialisation.  A module that fails to load is
    /// freed even if a task holds one of its files open, so the files are created when the
    /// initialisation can no longer fail.
    pub(crate) fn create(&self) {
        // SAFETY: The module creates the files as the last step of its initialisation, so the state
        // that the functions below use is initialised.
        unsafe { bindings::vmx_vpid_debugfs_create() };
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        // SAFETY: Only `create()` of this value creates the directory; to remove a directory that
        // was not created is harmless.
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

/// Makes the list that `vpids` shows from one opening on; returns 0 or a negative errno.
///
/// # Safety
///
/// `list` can be written, and the caller passes the written pointer to [`vmx_vpid_list_drop()`] in
/// the end.
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
/// `list` comes from [`vmx_vpid_list_take()`], and is not used again.
#[no_mangle]
unsafe extern "C" fn vmx_vpid_list_drop(list: *mut c_void) {
    // SAFETY: By the safety requirements `list` comes from `vmx_vpid_list_take()` and is not used
    // again.
    drop(unsafe { KBox::<VpidList>::from_raw(list.cast()) });
}

/// Returns whether a list has a line with this number, counted from 0.
///
/// # Safety
///
/// `list` comes from [`vmx_vpid_list_take()`].
#[no_mangle]
unsafe extern "C" fn vmx_vpid_list_has(list: *const c_void, line: u64) -> bool {
    // SAFETY: By the safety requirements `list` comes from `vmx_vpid_list_take()`, and no code
    // writes a list.
    unsafe { &*list.cast::<VpidList>() }.has(line)
}

/// Shows a line of a list, by its number, counted from 0.
///
/// # Safety
///
/// `list` comes from [`vmx_vpid_list_take()`]; `file` is being read by this task, and by no other.
#[no_mangle]
unsafe extern "C" fn vmx_vpid_list_show(
    list: *const c_void,
    line: u64,
    file: *mut bindings::seq_file,
) {
    // SAFETY: By the safety requirements `list` comes from `vmx_vpid_list_take()`, and no code
    // writes a list.
    let list = unsafe { &*list.cast::<VpidList>() };
    // SAFETY: By the safety requirements this task alone reads `file`; both bindings of the type
    // are the same C type.
    status::show_vpid_line(list, line, unsafe { SeqFile::from_raw(file.cast()) });
}
