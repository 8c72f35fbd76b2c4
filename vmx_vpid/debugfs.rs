// SPDX-License-Identifier: GPL-2.0

//! The files in debugfs, as long as the module lives.
//!
//! They are made in C, with the module as their owner, and what they show is in
//! [`crate::debugfs::status`].  The kernel crate's own files have no owner, so that one left open would be
//! closed by code that is gone.

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

    /// Creates the directory; without debugfs there is none, and that is no error.
    ///
    /// To be the last step of the module's initialisation.  A module that fails to load is freed
    /// whoever holds a file of it open: so there must be no file before it cannot fail any more.
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
    // SAFETY: The contract of this function; the two bindings of the type are the same C type.
    status::show_stats(unsafe { SeqFile::from_raw(file.cast()) });
}

/// Shows `status`.
///
/// # Safety
///
/// `file` is being read by this task, and by no other.
#[no_mangle]
unsafe extern "C" fn vmx_vpid_show_status(file: *mut bindings::seq_file) {
    // SAFETY: The contract of this function; the two bindings of the type are the same C type.
    status::show_status(unsafe { SeqFile::from_raw(file.cast()) });
}

/// Shows `asid`.
///
/// # Safety
///
/// `file` is being read by this task, and by no other.
#[no_mangle]
unsafe extern "C" fn vmx_vpid_show_asid(file: *mut bindings::seq_file) {
    // SAFETY: The contract of this function; the two bindings of the type are the same C type.
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
        // SAFETY: The contract of this function; the two bindings of the type are the same C type.
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
    // SAFETY: The contract of this function; the two bindings of the type are the same C type.
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
        // SAFETY: The contract of this function.
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
    // SAFETY: The contract of this function.
    drop(unsafe { KBox::<VpidList>::from_raw(list.cast()) });
}

/// Whether a list has a line of this number, the first being 0.
///
/// # Safety
///
/// It is one of [`vmx_vpid_list_take()`].
#[no_mangle]
unsafe extern "C" fn vmx_vpid_list_has(list: *const c_void, line: u64) -> bool {
    // SAFETY: The contract of this function; no one writes a list.
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
    // SAFETY: The contract of this function; no one writes a list.
    let list = unsafe { &*list.cast::<VpidList>() };
    // SAFETY: The contract of this function; the two bindings of the type are the same C type.
    status::show_vpid_line(list, line, unsafe { SeqFile::from_raw(file.cast()) });
}
