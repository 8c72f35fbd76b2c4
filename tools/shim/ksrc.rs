// SPDX-License-Identifier: GPL-2.0

//! This module finds the kernel's sources for build scripts, and makes a module of some sources.

use std::{
    env,
    error::Error,
    fs,
    path::{
        Path,
        PathBuf, //
    },
    process::Command, //
};

/// Returns the kernel's source tree: `KSRC` of the environment, or the tree that the testbed
/// unpacked.
fn source_tree() -> Result<PathBuf, Box<dyn Error>> {
    println!("cargo::rerun-if-env-changed=KSRC");
    if let Some(named) = env::var_os("KSRC").filter(|named| !named.is_empty()) {
        return Ok(named.into());
    }
    let program = Path::new(&env::var("CARGO_MANIFEST_DIR")?).join("../../../testbed/kernel");
    let output = Command::new(program).args(["--print", "KSRC"]).output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into());
    }
    Ok(String::from_utf8(output.stdout)?.trim_end().into())
}

/// Writes `sources.rs` to the build's folder: `mod source`, which has some of the kernel's own
/// modules, from a folder of the kernel's tree.
///
/// `#[path]` names a folder, not a file, so that modules within those modules are found.
pub(crate) fn module_of(folder: &str, modules: &[&str]) -> Result<(), Box<dyn Error>> {
    let folder = source_tree()?.join(folder);
    let mut text = format!("#[path = {folder:?}]\nmod source {{\n");
    for module in modules {
        let file = folder.join(module).with_extension("rs");
        if !file.is_file() {
            return Err(format!("no {}: run \"make kernel-source\"", file.display()).into());
        }
        println!("cargo::rerun-if-changed={}", file.display());
        text += &format!("    pub mod {module};\n");
    }
    text += "}\n";
    fs::write(Path::new(&env::var("OUT_DIR")?).join("sources.rs"), text)?;
    Ok(())
}
