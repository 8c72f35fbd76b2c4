// SPDX-License-Identifier: GPL-2.0

//! Sets what the kernel's build sets, and what only this build has.

fn main() {
    for name in ["CONFIG_VMX_VPID_KUNIT_TEST", "vmx_vpid_host"] {
        println!("cargo::rustc-cfg={name}");
        println!("cargo::rustc-check-cfg=cfg({name})");
    }
    // Nothing but the manifest, the compiler and this file has a say in that.
    println!("cargo::rerun-if-changed=build.rs");
}
