//! The binary's manners: exit codes, what goes to which stream, errors with hints. Nothing here starts
//! a guest; what the guests answer is tested end to end in the crate `wafer-tests`.

use std::fs;
use std::process::{Command, Output};

/// Runs `wafer ARGUMENTS` without the variables that change its defaults.
fn wafer(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_wafer"))
        .args(arguments)
        .env_remove("PORT")
        .env_remove("MODEL_PATH")
        .env_remove("RUST_BACKTRACE")
        .output()
        .expect("the binary can be started")
}

/// Checks exit code and what the two streams contain; an empty text stands for an empty stream.
fn check(arguments: &[&str], code: i32, stdout: &str, stderr: &str) {
    let output = wafer(arguments);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {output:?}");
    for (stream, found, expected) in [("stdout", output.stdout, stdout), ("stderr", output.stderr, stderr)] {
        let found = String::from_utf8_lossy(&found);
        assert_eq!(found.is_empty(), expected.is_empty(), "{arguments:?} {stream}: {found}");
        assert!(found.contains(expected), "{arguments:?} {stream}: {found}");
    }
}

#[test]
fn help_and_version_are_data() {
    check(&["--help"], 0, "Usage: wafer", "");
    check(&["serve", "--help"], 0, "WAFER_LISTEN", "");
    check(&["--version"], 0, env!("CARGO_PKG_VERSION"), "");
}

#[test]
fn wrong_arguments_exit_with_2() {
    check(&[], 2, "", "Usage: wafer");
    check(&["serve", "--listen", "here"], 2, "", "--listen");
    check(&["run", "a prompt", "--system", "be kind"], 2, "", "--system");
    check(&["serve", "--log-level", "wafer=loudly"], 2, "", "log level");
    check(&["bake"], 2, "", "bake");
}

#[test]
fn what_cannot_be_done_exits_with_1_and_says_why() {
    check(&["serve", "missing.gguf"], 1, "", "error: cannot open the model missing.gguf");
    check(&["run", "missing.gguf"], 1, "", "\nhint: ");
    check(&["inspect", "missing.wasm"], 1, "", "error: cannot open missing.wasm");
    check(&["health", "ftp://localhost"], 1, "", "does not start with http://");
}

#[test]
fn a_used_port_is_named() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = listener.local_addr().expect("it has an address").to_string();
    check(&["serve", "--listen", &address], 1, "", &format!("error: cannot listen on {address}"));
}

#[test]
fn nobody_there_is_not_healthy() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = listener.local_addr().expect("it has an address").to_string();
    drop(listener);
    check(&["health", &format!("http://{address}")], 1, "", "error: no answer from");
}

#[test]
fn files_are_recognised_by_their_content() {
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    for (name, content, code, stdout, stderr) in [
        ("empty.wasm", b"\0asm\x0d\0\x01\0".as_slice(), 0, "exports", ""),
        ("module.wasm", b"\0asm\x01\0\0\0", 1, "", "a WebAssembly module, not a component"),
        ("cut.wasm", b"\0asm\x0d\0\x01\0\x01\xff", 1, "", "error: cannot inspect"),
        ("text.gguf", b"once upon a time", 1, "", "not a GGUF file"),
        ("short.gguf", b"GG", 1, "", "\nhint: "),
        ("header.gguf", b"GGUF\x03\0\0\0", 1, "", "error: cannot inspect"),
    ] {
        let path = directory.path().join(name);
        fs::write(&path, content).expect("it can be written");
        let path = path.to_str().expect("temporary paths are UTF-8");
        check(&["inspect", path], code, stdout, stderr);
    }
}

#[test]
fn the_demo_model_can_be_inspected_as_json() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/demo.gguf");
    let output = wafer(&["inspect", "--json", path]);
    assert!(output.status.success(), "{output:?}");
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).expect("it is JSON");
    assert_eq!(found["kind"], "model");
    assert_eq!(found["architecture"], "llama");
    assert!(found["parameters"].as_u64() > Some(0), "{found}");
}
