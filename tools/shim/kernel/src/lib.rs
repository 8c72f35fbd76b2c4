// SPDX-License-Identifier: GPL-2.0

//! This crate has the part of the kernel's crate that the pure files of vmx_vpid use.
//!
//! Bitfields, bounded integers and bits are the kernel's own files.  The other modules replace code
//! that needs a kernel: names and signatures are the kernel's, and the implementation uses `std`.

extern crate self as kernel;

// The kernel's own files: the kernel's build lints these.
#[allow(clippy::all, missing_docs, unreachable_pub)]
mod sources {
    include!(concat!(env!("OUT_DIR"), "/sources.rs"));
    pub use source::{
        bitfield,
        bits,
        num, //
    };
}

pub mod alloc;
pub mod build_assert;
pub mod error;
pub mod prelude;
pub mod print;

mod insn;

pub use core::fmt;
pub use insn::faults;
pub use macros;
pub use sources::{
    bitfield,
    bits,
    num, //
};

/// The kernel's handle of a module; userspace has no such handle.
pub struct ThisModule(());

/// A module that can be loaded.
pub trait Module: Sized + Send + Sync {
    /// Called when the module is loaded.
    fn init(module: &'static ThisModule) -> error::Result<Self>;
}

/// Mocks the declaration of a module: checks only that the type implements [`Module`].
#[macro_export]
macro_rules! module {
    (type: $type:ty, $($rest:tt)*) => {
        const _: () = {
            const fn is_module<T: $crate::Module>() {}
            is_module::<$type>();
        };
    };
}
