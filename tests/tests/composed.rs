//! Components of others, composed with a baked model: one component that knows the model by its interface alone.
//!
//! The storyteller of `examples/composed` imports `wafer:inference/generator`. It is plugged together with the
//! demo model as `wac plug` does it, and run as a WASI command. `make test` builds it, and the runner.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use wac_graph::types::Package;
use wac_graph::{CompositionGraph, EncodeOptions, PackageId, plug};
use wafer_tests::{built, run};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// `wac plug SOCKET --plug APP -o OUTPUT`.
fn plugged(socket: &Path, app: &Path, output: &Path) {
    let mut graph = CompositionGraph::new();
    let mut package = |name: &str, file: &Path| -> PackageId {
        let package = Package::from_file(name, None, file, graph.types_mut());
        let package = package.unwrap_or_else(|error| panic!("{}: {error:#}", file.display()));
        graph.register_package(package).expect("the names differ")
    };
    let (app, socket) = (package("wafer:app", app), package("example:storyteller", socket));
    plug(&mut graph, vec![app], socket).expect("they fit");
    let bytes = graph.encode(EncodeOptions::default()).expect("it can be written down");
    fs::write(output, bytes).expect("it can be written");
}

#[test]
fn a_storyteller_gives_the_text() {
    let storyteller = repository().join("target/components/storyteller.wasm");
    assert!(storyteller.is_file(), "{} is missing: run `make components` first", storyteller.display());
    let folder = tempfile::tempdir().expect("a temporary directory can be made");
    let [app, story] = ["app.wasm", "story.wasm"].map(|name| folder.path().join(name));
    let output = run(&["bake", "-o", app.to_str().expect("a path")]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    plugged(&storyteller, &app, &story);

    let goldens = fs::read(repository().join("models/demo.golden.json")).expect("the goldens");
    let goldens: Vec<Value> = serde_json::from_slice(&goldens).expect("the goldens' format");
    let beginnings: Vec<&str> = goldens.iter().filter_map(|golden| golden["prompt"].as_str()).collect();
    let mut command =
        Command::new(built("examples/run-command", "cargo build --release -p wafer --examples"));
    let mut command =
        command.arg(&story).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts");
    let mut stdin = command.stdin.take().expect("a pipe");
    stdin.write_all(beginnings.join("\n").as_bytes()).expect("it reads");
    drop(stdin);
    let output = command.wait_with_output().expect("it ends");
    assert!(output.status.success());
    let stories = String::from_utf8(output.stdout).expect("UTF-8");
    assert_eq!(stories.lines().count(), goldens.len(), "{stories}");
    for ((story, beginning), golden) in stories.lines().zip(beginnings).zip(&goldens) {
        let text = golden["output_text"].as_str().expect("a text");
        // Some goldens end earlier than the storyteller.
        assert!(story.starts_with(&format!("{beginning}{text}")), "{story}");
    }
}
