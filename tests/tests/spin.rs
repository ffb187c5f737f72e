//! The real thing: both components under `spin up`, where a `spin` binary is on the PATH.
//!
//! Without one the test is ignored; the same behaviour is then checked by the host crate's test `spin`, under a host
//! with Spin's settings.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;
use wafer_tests::{Server, greedy_reference, ids, testdata, wafer};

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

/// A model, and what it makes of a prompt, greedily.
struct Story {
    /// None is the demo model.
    model: Option<PathBuf>,
    prompt: String,
    text: String,
    tokens: usize,
}

/// What is known of the demo model, and of stories260K where it is.
fn stories() -> Vec<Story> {
    let demo = Story { model: None, prompt: PROMPT.into(), text: DEMO_TEXT.into(), tokens: 16 };
    let (Some(model), Some(cases)) =
        (testdata("models/stories260K-f32.gguf"), greedy_reference("stories260K-f32"))
    else {
        return vec![demo];
    };
    let text = |key: &str| cases[0][key].as_str().expect("a text").to_owned();
    let (prompt, text, tokens) = (text("prompt"), text("output_text"), ids(&cases[0]["output_ids"]).len());
    vec![demo, Story { model: Some(model), prompt, text, tokens }]
}

/// An app of `world` with the manifest at the top level, in a folder of its own.
struct App<'f> {
    folder: &'f Path,
    world: &'static str,
    manifest: &'static str,
}

impl App<'_> {
    /// Starts it, with the model baked into the component or among the app's files, and Spin's variables.
    fn start(&self, model: Option<&Path>, bake: bool, variables: &[(&str, &str)]) -> Server {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().expect("the workspace");
        let text = fs::read_to_string(root.join(self.manifest)).expect("the manifest");
        let source = text.lines().find(|line| line.starts_with("source = ")).expect("a source");
        let replaced = if bake {
            format!("source = {:?}", self.bake(model))
        } else {
            let demo = root.join("models/demo.gguf");
            let model = model.unwrap_or(&demo);
            let (directory, file) =
                (model.parent().expect("a directory"), model.file_name().expect("a file"));
            let file = file.to_str().expect("UTF-8");
            let component = root.join(format!("target/components/wafer-{}.wasm", self.world));
            format!(
                "source = {component:?}\n\
                 files = [{{ source = {directory:?}, destination = \"/models\" }}]\n\
                 environment = {{ MODEL_PATH = \"/models/{file}\" }}\n"
            )
        };
        let path = self.folder.join("spin.toml");
        fs::write(&path, text.replace(source, &replaced)).expect("it can be written");
        let mut command = Command::new("spin");
        command.arg("up").arg("-f").arg(&path).args(["--listen", "127.0.0.1:0"]).current_dir(self.folder);
        for (name, value) in variables {
            command.env(format!("SPIN_VARIABLE_{name}"), value);
        }
        Server::started(command, "Serving http://")
    }

    fn bake(&self, model: Option<&Path>) -> PathBuf {
        let component = self.folder.join("app.wasm");
        let mut bake = wafer();
        bake.args(["bake", "--world", self.world, "-o"]).arg(&component).args(model);
        let done = bake.env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR")).output().expect("it starts");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        component
    }
}

/// Both flavours.
fn apps(folder: &Path) -> [App<'_>; 2] {
    [("portable", "spin.toml"), ("spin", "spin-async.toml")].map(|(world, manifest)| App {
        folder,
        world,
        manifest,
    })
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

/// A request with a key in its head; status, head and body as they came.
fn ask(server: &Server, key: &str, body: &Value) -> String {
    let body = body.to_string();
    let mut socket = TcpStream::connect(server.address()).expect("a connection");
    let head = format!(
        "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
         authorization: Bearer {key}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    socket.write_all(head.as_bytes()).and_then(|()| socket.write_all(body.as_bytes())).expect("it is sent");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).expect("an answer");
    answer.to_ascii_lowercase()
}

#[test]
fn every_flavour_says_the_same() {
    if !spin_exists() {
        return;
    }
    let folder = TempDir::new().expect("a temporary directory");
    for app in apps(folder.path()) {
        for story in stories() {
            let body = json!({"prompt": story.prompt, "max_tokens": story.tokens, "temperature": 0});
            for bake in [true, false] {
                let server = app.start(story.model.as_deref(), bake, &[]);
                for _ in 0..2 {
                    let answer = server.post("/v1/completions", &body);
                    assert_eq!(answer["choices"][0]["text"], story.text, "{}, baked: {bake}", app.manifest);
                }
            }
        }
    }
}

#[test]
fn a_client_that_leaves_holds_nobody_up() {
    if !spin_exists() {
        return;
    }
    let folder = TempDir::new().expect("a temporary directory");
    for app in apps(folder.path()) {
        let server = app.start(None, true, &[]);
        // Three clients in the middle of a stream; one leaves. Others are answered meanwhile.
        let mut streams: Vec<_> = (0..3).map(|_| stream(&server, 200)).collect();
        for stream in &mut streams {
            assert!(stream.any(|line| line.contains("data: ")), "{}", app.manifest);
        }
        streams.pop();
        assert_eq!(server.request("GET", "/health", None).0, 200);
        for stream in streams {
            assert!(stream.collect::<String>().contains("[DONE]"), "{}", app.manifest);
        }
    }
}

#[test]
fn sixteen_at_once_get_what_one_gets() {
    if !spin_exists() {
        return;
    }
    let folder = TempDir::new().expect("a temporary directory");
    for app in apps(folder.path()) {
        let server = app.start(None, true, &[]);
        let body = json!({"prompt": PROMPT, "max_tokens": 16, "temperature": 0});
        std::thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| {
                    let answer = server.post("/v1/completions", &body);
                    assert_eq!(answer["choices"][0]["text"], DEMO_TEXT, "{}", app.manifest);
                });
            }
        });
    }
}

#[test]
fn variables_set_a_key_defaults_and_a_cache() {
    if !spin_exists() {
        return;
    }
    let folder = TempDir::new().expect("a temporary directory");
    let [_, app] = apps(folder.path());
    let variables =
        [("API_KEY", "open sesame"), ("DEFAULTS", "max_tokens=5,temperature=0"), ("CACHE", "default")];
    let server = app.start(None, true, &variables);
    let body = json!({"prompt": PROMPT});
    for (key, expected) in [
        ("open", &["http/1.1 401", "invalid_api_key"][..]),
        ("open sesame", &["http/1.1 200", "\"completion_tokens\":5"]),
        ("open sesame", &["http/1.1 200", "x-wafer-cache: hit"]),
    ] {
        let answer = ask(&server, key, &body);
        for part in expected {
            assert!(answer.contains(part), "{key}: {part:?} is not in {answer}");
        }
    }
}
