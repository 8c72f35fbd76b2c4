// SPDX-License-Identifier: GPL-2.0

//! The files in debugfs, as long as the module lives.
//!
//! They are made in C, with the module as their owner, and what they show is in
//! [`crate::debugfs`].  The kernel crate's own files have no owner, so that one left open would be
//! closed by code that is gone.

use crate::{
    bindings,
    debugfs, //
};
use kernel::seq_file::SeqFile;

/// The directory; dropping it removes the files and waits for their readers.
pub(crate) struct Files(());

impl Files {
    /// Creates the directory; without debugfs there is none, and that is no error.
    pub(crate) fn new() -> Self {
        // SAFETY: What the files show is initialised: it is static.
        unsafe { bindings::vmx_vpid_debugfs_create() };
        Self(())
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        // SAFETY: They were created with the value.
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
    debugfs::show_stats(unsafe { SeqFile::from_raw(file.cast()) });
}

/// Shows `status`.
///
/// # Safety
///
/// `file` is being read by this task, and by no other.
#[no_mangle]
unsafe extern "C" fn vmx_vpid_show_status(file: *mut bindings::seq_file) {
    // SAFETY: The contract of this function; the two bindings of the type are the same C type.
    debugfs::show_status(unsafe { SeqFile::from_raw(file.cast()) });
}
