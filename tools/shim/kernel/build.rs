// SPDX-License-Identifier: GPL-2.0

//! This build script takes modules from the kernel's own crate.

#[path = "../ksrc.rs"]
mod ksrc;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rustc-cfg=CONFIG_64BIT");
    for name in ["CONFIG_64BIT", "CONFIG_RUST_BITFIELD_KUNIT_TEST"] {
        println!("cargo::rustc-check-cfg=cfg({name})");
    }
    ksrc::module_of("rust/kernel", &["bitfield", "bits", "num"])
}
