//! The real thing: both components under `spin up`, where a `spin` binary is on the PATH.
//!
//! Without one the test is ignored; the same behaviour is then checked by the host crate's test `spin`, under a host
//! with Spin's settings.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

use serde_json::json;
use tempfile::TempDir;
use wafer_tests::{Server, wafer};

const PROMPT: &str = "Once upon a time";
/// What the demo model makes of it, greedily, in 16 tokens.
const DEMO_TEXT: &str = ", there was a little boy named Milo. Milo was very";

/// Whether there is a Spin that has WASI 0.3; says so if not.
fn spin_exists() -> bool {
    let version = Command::new("spin").arg("--version").output();
    let version = version.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    match version {
        Ok(version) if version.starts_with("spin 4.0") => eprintln!("ignored: {version} has no WASI 0.3"),
        Ok(version) if version.starts_with("spin ") => return true,
        Ok(other) => eprintln!("ignored: 'spin' is something else: {other}"),
        Err(error) => eprintln!("ignored: there is no spin binary: {error}"),
    }
    false
}

/// One of the manifests at the top level, started in a folder of its own with a component of `world`, baked or with
/// the model among the app's files.
fn start(folder: &Path, manifest: &str, world: &str, bake: bool) -> Server {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().expect("the workspace");
    let text = fs::read_to_string(root.join(manifest)).expect("the manifest");
    let source = text.lines().find(|line| line.starts_with("source = ")).expect("a source");
    let (component, files) = if bake {
        let component = folder.join(format!("{world}.wasm"));
        let mut bake = wafer();
        bake.args(["bake", "--world", world, "-o"]).arg(&component);
        let done =
            bake.env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR")).output().expect("the binary starts");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        (component, String::new())
    } else {
        let models = root.join("models");
        let files = format!(
            "files = [{{ source = {models:?}, destination = \"/models\" }}]\n\
             environment = {{ MODEL_PATH = \"/models/demo.gguf\" }}\n"
        );
        (root.join(format!("target/components/wafer-{world}.wasm")), files)
    };
    let path = folder.join(format!("{world}-{bake}.toml"));
    let text = text.replace(source, &format!("source = {component:?}\n{files}"));
    fs::write(&path, text).expect("it can be written");
    let mut command = Command::new("spin");
    command.arg("up").arg("-f").arg(&path).args(["--listen", "127.0.0.1:0"]).current_dir(folder);
    command.env("SPIN_VARIABLE_CACHE", "default");
    Server::started(command, "Serving http://")
}

/// A stream's lines. Dropping it hangs up.
fn stream(server: &Server, tokens: usize) -> impl Iterator<Item = String> {
    let body = json!({"prompt": PROMPT, "max_tokens": tokens, "temperature": 0, "stream": true}).to_string();
    let mut socket = TcpStream::connect(server.address()).expect("a connection");
    let head =
        format!("POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n", body.len());
    socket.write_all(head.as_bytes()).and_then(|()| socket.write_all(body.as_bytes())).expect("it is sent");
    BufReader::new(socket).lines().map_while(Result::ok)
}

#[test]
fn both_manifests_run_under_spin() {
    if !spin_exists() {
        return;
    }
    let folder = TempDir::new().expect("a temporary directory");
    for (manifest, world) in [("spin.toml", "portable"), ("spin-async.toml", "spin")] {
        for bake in [true, false] {
            let server = start(folder.path(), manifest, world, bake);
            let body = json!({"prompt": PROMPT, "max_tokens": 16, "temperature": 0});
            for _ in 0..2 {
                let answer = server.post("/v1/completions", &body);
                assert_eq!(answer["choices"][0]["text"], DEMO_TEXT, "{manifest}, baked: {bake}");
            }
            // Three clients in the middle of a stream; one leaves. Others are answered meanwhile.
            let mut streams: Vec<_> = (0..3).map(|_| stream(&server, 200)).collect();
            for stream in &mut streams {
                assert!(stream.any(|line| line.contains("data: ")), "{manifest}, baked: {bake}");
            }
            streams.pop();
            assert_eq!(server.request("GET", "/health", None).0, 200);
            for stream in streams {
                assert!(stream.collect::<String>().contains("[DONE]"), "{manifest}, baked: {bake}");
            }
        }
    }
}
