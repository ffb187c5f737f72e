//! Contracts: what the components ask for is what hosts offer, and what hosts call is there.
//!
//! The hosts' worlds are in wit/hosts. That a component fits is decided by the component model's own rules.

use std::fs;
use std::path::{Path, PathBuf};

use wit_component::targets;
use wit_parser::Resolve;

fn workspace(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// Whether the component in `file` of target/components runs where `world` is offered; the reason if not.
fn check(file: &str, world: &str) -> Result<(), String> {
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_dir(workspace("wit/hosts")).expect("the folder holds WIT");
    let world = resolve.select_world(&[package], Some(world)).expect("the world is there");
    let component = workspace("target/components").join(file);
    let component = fs::read(&component).unwrap_or_else(|error| {
        panic!("{} is missing: run `make components` first: {error}", component.display())
    });
    targets(&resolve, world, &component).map_err(|error| format!("{error:#}"))
}

#[test]
fn components_are_of_their_worlds_and_fit_their_hosts() {
    for (file, worlds) in [
        ("wafer-portable.wasm", &["wafer:inference/portable@0.1.0", "spin-4"][..]),
        ("wafer-accelerated.wasm", &["wafer:inference/accelerated@0.1.0"]),
        ("wafer-spin.wasm", &["spin", "spin-4-1"]),
    ] {
        for world in worlds {
            check(file, world).unwrap_or_else(|error| panic!("{file}, {world}: {error}"));
        }
    }
}

#[test]
fn a_component_of_another_world_does_not_fit() {
    for (file, world) in [
        ("wafer-portable.wasm", "spin-4-1"),
        // Only hosts with wasi-nn run it.
        ("wafer-accelerated.wasm", "spin-4"),
        ("wafer-accelerated.wasm", "wafer:inference/portable@0.1.0"),
        ("wafer-spin.wasm", "spin-4"),
        ("wafer-spin.wasm", "wafer:inference/portable@0.1.0"),
    ] {
        let error = check(file, world).expect_err("it does not fit");
        assert!(error.contains("missing"), "{file}, {world}: {error}");
    }
}
