// SPDX-License-Identifier: GPL-2.0

//! This build script takes modules from the kernel's own crate.

#[path = "../ksrc.rs"]
mod ksrc;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    ksrc::module_of("rust/macros", &["paste"])
}
