//! The same bits on every runtime: the demo model's goldens, by text, and by the digest of all logits.
//!
//! Here it is wasmtime on this processor (a model, a baked component, a compiled one), wasmtime on an emulated
//! aarch64, V8, and `wasmtime serve`. The native kernels of all processors are compared with the same goldens by the
//! engine's own tests.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Deserialize;
use serde_json::{Value, json};
use tempfile::TempDir;
use wafer_tests::{installed, post, wafer};

/// `--experimental-wasm-relaxed-simd` is what Node 20 needs, and later ones still understand.
const NODE: [&str; 2] = ["node", "--experimental-wasm-relaxed-simd"];

#[derive(Debug, Deserialize)]
struct Golden {
    prompt: String,
    output_ids: Vec<u32>,
    output_text: String,
    logits_digest: String,
}

fn goldens_file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/demo.golden.json")
}

fn goldens() -> Vec<Golden> {
    let text = fs::read_to_string(goldens_file()).expect("the goldens");
    let goldens: Vec<Golden> = serde_json::from_str(&text).expect("the goldens' format");
    assert!(goldens.len() > 2);
    goldens
}

/// The demo model, baked; `options` are further ones of `wafer bake`.
fn baked(folder: &TempDir, options: &[&str]) -> String {
    let app = folder.path().join("app.wasm").to_str().expect("a path").to_owned();
    let output = wafer().args(["bake", "-o", &app]).args(options).output().expect("the binary starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    app
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("a temporary directory can be made")
}

/// Text and digest that `command run SOURCE… PROMPT` gives for each golden.
fn check(command: impl Fn() -> Command, source: &[&str]) {
    for Golden { prompt, output_ids, output_text, logits_digest } in goldens() {
        let count = output_ids.len().to_string();
        let output = command()
            .env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR"))
            .arg("run")
            .args(source)
            .args([&prompt, "--temperature", "0", "--digest", "--max-tokens", &count])
            .output()
            .expect("the binary starts");
        let log = String::from_utf8(output.stderr).expect("UTF-8");
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        assert_eq!(text.strip_suffix('\n'), Some(output_text.as_str()), "{source:?} {prompt:?}: {log}");
        assert!(log.contains(&format!("logits {logits_digest}")), "{source:?} {prompt:?}: {log}");
    }
}

#[test]
fn wasmtime_gives_the_bits() {
    let folder = folder();
    let app = baked(&folder, &["--compile"]);
    let code = folder.path().join("app.cwasm").to_str().expect("a path").to_owned();
    check(wafer, &["--engine", "native"]);
    check(wafer, &["--engine", "wasm"]);
    check(wafer, &[&app]);
    check(wafer, &[&code, "--trust"]);
}

/// WAFER_TEST_ARM64 is a command that runs `wafer` for aarch64, set by `make test-arm64`.
#[test]
fn wasmtime_on_aarch64_gives_the_bits() {
    let Some(emulated) = std::env::var("WAFER_TEST_ARM64").ok().filter(|command| !command.is_empty()) else {
        return eprintln!("ignored: `make test-arm64` runs this");
    };
    let folder = folder();
    let triple = "aarch64-unknown-linux-gnu";
    let app = baked(&folder, &[&format!("--compile={triple}")]);
    let code = app.replace("app.wasm", &format!("app.{triple}.cwasm"));
    let words: Vec<&str> = emulated.split_whitespace().collect();
    let command = || {
        let mut command = Command::new(words[0]);
        command.args(&words[1..]);
        command
    };
    check(command, &[&code, "--trust"]);
}

#[test]
fn v8_gives_the_bits() {
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("node");
    if !installed(
        "node",
        20,
        scripts.join("node_modules").is_dir(),
        "run `npm install --no-save` in tests/node",
    ) {
        return;
    }
    let folder = folder();
    let app = baked(&folder, &[]);
    // Beside the packages, where Node looks for them.
    let out = tempfile::Builder::new().prefix("out-").tempdir_in(&scripts).expect("a directory");
    let output = Command::new(NODE[0])
        .args(&NODE[1..])
        .arg(scripts.join("generate.mjs"))
        .args([Path::new(&app), &goldens_file(), out.path()])
        .output()
        .expect("node starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let results: Vec<Value> = serde_json::from_slice(&output.stdout).expect("a list");
    let goldens = goldens();
    assert_eq!(results.len(), goldens.len());
    for (result, golden) in results.iter().zip(goldens) {
        let Golden { prompt, output_ids, output_text, logits_digest } = golden;
        let expected = json!({
            "output_ids": output_ids,
            "output_text": output_text,
            "logits_digest": logits_digest,
        });
        assert_eq!(*result, expected, "{prompt:?}");
    }
}

#[test]
fn wasmtime_serve_gives_the_text() {
    if !installed("wasmtime", 38, true, "cargo install wasmtime-cli") {
        return;
    }
    let folder = folder();
    let app = baked(&folder, &[]);
    let mut server = Command::new("wasmtime")
        .args(["serve", "--addr", "127.0.0.1:0", "-S", "cli", &app])
        .stderr(Stdio::piped())
        .spawn()
        .expect("wasmtime starts");
    let log = BufReader::new(server.stderr.take().expect("a pipe")).lines().map_while(Result::ok);
    let url =
        log.into_iter().find_map(|line| Some(line[line.find("http://")?..].trim_end_matches('/').to_owned()));
    let url = url.expect("wasmtime says where it listens");
    for Golden { prompt, output_ids, output_text, .. } in goldens() {
        let body = json!({"prompt": prompt, "max_tokens": output_ids.len(), "temperature": 0});
        let completion = post(&url, "/v1/completions", &body);
        assert_eq!(completion["choices"][0]["text"], output_text, "{prompt:?}");
    }
    server.kill().expect("it runs");
    server.wait().expect("it can be waited for");
}
