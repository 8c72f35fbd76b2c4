// SPDX-License-Identifier: GPL-2.0

//! This build script sets the options of the kernel's build, and the options of userspace.

fn main() -> Result<(), std::env::VarError> {
    let loom = std::env::var("CARGO_PKG_NAME")?.ends_with("loom");
    for (name, set) in [
        ("CONFIG_VMX_VPID_KUNIT_TEST", true),
        ("vmx_vpid_userspace", true),
        ("vmx_vpid_cold_path", true),
        ("vmx_vpid_loom", loom),
    ] {
        println!("cargo::rustc-check-cfg=cfg({name})");
        if set {
            println!("cargo::rustc-cfg={name}");
        }
    }
    // The options depend on nothing else.
    println!("cargo::rerun-if-env-changed=CARGO_PKG_NAME");
    Ok(())
}
