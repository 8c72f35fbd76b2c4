// SPDX-License-Identifier: GPL-2.0

//! This crate has the part of the kernel's crate that the pure files of vmx_vpid use.
//!
//! Bitfields, bounded integers and bits are the kernel's own files.  The rest replaces code that
//! needs a kernel: names and signatures are the kernel's, `std` does the work.

extern crate self as kernel;

// The kernel's own files, which clippy has seen there.
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

/// The module as the kernel knows it; here there is none.
pub struct ThisModule(());

/// What a module does when it is loaded.
pub trait Module: Sized + Send + Sync {
    /// Called when the module is loaded.
    fn init(module: &'static ThisModule) -> error::Result<Self>;
}

/// Stands in for the declaration of a module: wants only that its type is one.
#[macro_export]
macro_rules! module {
    (type: $type:ty, $($rest:tt)*) => {
        const _: () = {
            const fn is_module<T: $crate::Module>() {}
            is_module::<$type>();
        };
    };
}
