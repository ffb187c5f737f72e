//! Finds what the binary carries: the components and the demo model.
//!
//! It builds none of them. They are handed to `src/embedded.rs` as paths in the compiler's environment;
//! a missing one is an error here, with the command that makes it, instead of one inside a macro.

use std::env;
use std::path::{Path, PathBuf};
use std::process::exit;

fn main() {
    // Asked when this runs: a target directory may serve several checkouts.
    let manifest = env::var_os("CARGO_MANIFEST_DIR").map_or_else(PathBuf::new, PathBuf::from);
    let workspace = manifest.parent().unwrap_or(Path::new("."));
    let components = overridden("WAFER_COMPONENTS", workspace.join("target/components"));
    let demo = overridden("WAFER_DEMO_MODEL", workspace.join("models/demo.gguf"));
    embed("WAFER_PORTABLE_WASM", &components.join("wafer-portable.wasm"), "make components");
    embed("WAFER_ACCELERATED_WASM", &components.join("wafer-accelerated.wasm"), "make components");
    embed("WAFER_SPIN_WASM", &components.join("wafer-spin.wasm"), "make components");
    embed("WAFER_ENCODERS_WASM", &components.join("wafer-encoders.wasm"), "make components");
    embed("WAFER_DEMO_GGUF", &demo, "make demo-model");
    println!("cargo::rerun-if-changed=../wit");
}

/// The path that an environment variable names, or the default.
fn overridden(variable: &str, default: PathBuf) -> PathBuf {
    println!("cargo::rerun-if-env-changed={variable}");
    env::var_os(variable).map_or(default, PathBuf::from)
}

/// Tells the compiler where the file is, or ends the build with a hint.
fn embed(variable: &str, file: &Path, command: &str) {
    println!("cargo::rerun-if-changed={}", file.display());
    match file.canonicalize() {
        Ok(path) => println!("cargo::rustc-env={variable}={}", path.display()),
        Err(error) => {
            println!(
                "cargo::error={} is needed to build the binary: {error}; hint: run `{command}`",
                file.display()
            );
            exit(1);
        }
    }
}
