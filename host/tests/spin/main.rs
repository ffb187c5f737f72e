//! The components under a host with Spin's settings: an instance per request for WASI 0.2, one for many requests at
//! once for WASI 0.3.
//!
//! A real Spin is driven by the crate `wafer-tests`, where there is one.

mod host;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use std::sync::atomic::Ordering;

use futures_util::future::join_all;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use wasmtime::component::Component;
use wasmtime_wasi_http::handler::Response;

use host::{App, Server, compile};

const PROMPT: &str = "Once upon a time";
/// What the demo model makes of it, greedily, in 16 tokens.
const DEMO_TEXT: &str = ", there was a little boy named Milo. Milo was very";

fn workspace(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// The component of a world, without a model.
fn component(world: &str) -> Component {
    let path = workspace(&format!("target/components/wafer-{world}.wasm"));
    let bytes = std::fs::read(&path).unwrap_or_else(|error| {
        panic!("{} is missing: run `make components` first: {error}", path.display())
    });
    compile(&bytes)
}

/// The component of world `spin` with the demo model, made once.
fn demo() -> &'static Component {
    static DEMO: LazyLock<Component> = LazyLock::new(|| baked("spin", None));
    &DEMO
}

/// The component of a world with a model baked into it, the demo model if none is named.
fn baked(world: &str, model: Option<&Path>) -> Component {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let output = folder.path().join("app.wasm");
    let mut bake = Command::new(env!("CARGO_BIN_EXE_wafer"));
    bake.args(["bake", "--check", "--world", world, "-o"]).arg(&output).args(model);
    let result = bake.env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR")).output().expect("the binary starts");
    assert!(result.status.success(), "{}", String::from_utf8_lossy(&result.stderr));
    compile(&std::fs::read(output).expect("it was written"))
}

/// A file of the shared test data; none, and a line that says so, where that is not there.
fn testdata(name: &str) -> Option<PathBuf> {
    let root = workspace("../shared/testdata");
    if root.is_dir() {
        return Some(root.join(name));
    }
    assert!(std::env::var_os("CI").is_none(), "the shared test data is missing: {}", root.display());
    eprintln!("ignored: {name} is not there");
    None
}

/// An app that finds the demo model among its files.
fn unbaked() -> App {
    App { models: Some(workspace("models")), ..App::default() }
}

fn completion(prompt: &str, tokens: usize) -> String {
    json!({"prompt": prompt, "max_tokens": tokens, "temperature": 0}).to_string()
}

fn stream(prompt: &str, tokens: usize) -> String {
    json!({"prompt": prompt, "max_tokens": tokens, "temperature": 0, "stream": true}).to_string()
}

async fn text(response: Response) -> (u16, String) {
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.expect("a whole body").to_bytes();
    (status, String::from_utf8(body.to_vec()).expect("UTF-8"))
}

async fn complete(server: &Server, body: String) -> Value {
    let (status, text) = text(server.send("/v1/completions", &[], Some(body)).await).await;
    assert_eq!(status, 200, "{text}");
    serde_json::from_str(&text).expect("JSON")
}

/// The text that a stream's events make.
fn joined(events: &str) -> String {
    assert!(events.ends_with("data: [DONE]\n\n"), "{events}");
    let event = |line: &str| serde_json::from_str(line.strip_prefix("data: ")?).ok();
    let events = events.lines().filter_map(event);
    events.filter_map(|event: Value| event["choices"][0]["text"].as_str().map(str::to_owned)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_flavour_says_the_same() {
    for world in ["portable", "spin"] {
        let baked = baked(world, None);
        for server in [Server::start(&component(world), unbaked()), Server::start(&baked, App::default())] {
            let answer = complete(&server, completion(PROMPT, 16)).await;
            assert_eq!(answer["choices"][0]["text"], DEMO_TEXT, "{world}");
            let (_, events) = text(server.send("/v1/completions", &[], Some(stream(PROMPT, 16))).await).await;
            assert_eq!(joined(&events), DEMO_TEXT, "{world}");
            let (status, health) = text(server.send("/health", &[], None).await).await;
            assert_eq!(status, 200, "{world}: {health}");
            let instances = server.app.instances.load(Ordering::Relaxed);
            assert_eq!(instances, if world == "spin" { 1 } else { 3 }, "{world}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tokens_are_those_of_llama_cpp() {
    let Some(reference) = testdata("reference/llamacpp/stories260K-f32.json") else { return };
    let Some(model) = testdata("models/stories260K-f32.gguf") else { return };
    let reference = std::fs::read_to_string(reference).expect("the reference can be read");
    let reference: Value = serde_json::from_str(&reference).expect("the reference is JSON");
    let cases = reference["greedy"].as_array().expect("a list of prompts");
    for world in ["portable", "spin"] {
        let server = Server::start(&baked(world, Some(&model)), App::default());
        let answers = cases.iter().map(|case| {
            let count = case["output_ids"].as_array().expect("ids").len();
            complete(&server, completion(case["prompt"].as_str().expect("a prompt"), count))
        });
        for (case, answer) in cases.iter().zip(join_all(answers).await) {
            let ids = json!({"tokens": case["output_ids"]}).to_string();
            let (_, expected) = text(server.send("/detokenize", &[], Some(ids)).await).await;
            let expected: Value = serde_json::from_str(&expected).expect("JSON");
            assert_eq!(answer["choices"][0]["text"], expected["text"], "{world}: {}", case["prompt"]);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sixteen_at_once_get_what_one_gets() {
    let server = Server::start(demo(), App::default());
    let long = "The fox and the owl were friends. ".repeat(30);
    let prompts: Vec<&str> =
        (0..16).map(|index| [PROMPT, "A dog", "Tom and Mia", long.as_str()][index % 4]).collect();
    let mut alone = Vec::new();
    for prompt in &prompts[..4] {
        alone.push(complete(&server, completion(prompt, 32)).await["choices"][0]["text"].clone());
    }
    let together = join_all(prompts.iter().map(|prompt| complete(&server, completion(prompt, 32)))).await;
    for (index, answer) in together.iter().enumerate() {
        assert_eq!(answer["choices"][0]["text"], alone[index % 4], "{}", prompts[index]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_client_and_one_that_leaves_hold_nobody_up() {
    let server = Server::start(demo(), App::default());
    // A head without a reader for the body; a reader that leaves after the first piece.
    let slow = server.send("/v1/completions", &[], Some(stream(PROMPT, 300))).await;
    let mut leaving = server.send("/v1/completions", &[], Some(stream(PROMPT, 300))).await;
    assert!(leaving.body_mut().frame().await.is_some());
    drop(leaving);
    let answer = complete(&server, completion(PROMPT, 16)).await;
    assert_eq!(answer["choices"][0]["text"], DEMO_TEXT);
    // The slow one still gets everything, as soon as it reads.
    let expected = complete(&server, completion(PROMPT, 300)).await;
    assert_eq!(joined(&text(slow).await.1), expected["choices"][0]["text"].as_str().expect("a text"));
}

#[tokio::test(flavor = "multi_thread")]
async fn variables_set_defaults_and_a_key() {
    let variables = [("defaults", "max_tokens=5,temperature=0"), ("api_key", "open sesame")];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let server = Server::start(demo(), App { variables, ..App::default() });
    let body = || Some(json!({"prompt": PROMPT}).to_string());
    for (key, expected) in [
        (None, 401),
        (Some("Bearer open"), 401),
        (Some("Bearer open sesame and more"), 401),
        (Some("Basic open sesame"), 401),
        (Some("open sesame"), 401),
        (Some("bearer open sesame"), 200),
    ] {
        let headers: Vec<_> = key.map(|key| ("authorization", key)).into_iter().collect();
        let response = server.send("/v1/completions", &headers, body()).await;
        assert_eq!(response.headers().contains_key("www-authenticate"), expected == 401);
        let (status, text) = text(response).await;
        assert_eq!(status, expected, "{key:?}: {text}");
        let answer: Value = serde_json::from_str(&text).expect("JSON");
        match status {
            200 => assert_eq!(answer["usage"]["completion_tokens"], 5),
            _ => assert_eq!(answer["error"]["code"], "invalid_api_key"),
        }
    }
    assert_eq!(server.send("/health", &[], None).await.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_kept_if_nothing_was_drawn() {
    let variables = [("cache".to_owned(), "default".to_owned())].into();
    let server = Server::start(demo(), App { variables, ..App::default() });
    let kept = |server: &Server| server.app.store.lock().expect("no panic").len();
    for (body, hit) in [
        (json!({"prompt": PROMPT, "max_tokens": 8, "temperature": 0}), false),
        (json!({"prompt": PROMPT, "max_tokens": 8, "temperature": 0}), true),
        (json!({"max_tokens": 8, "temperature": 0, "prompt": PROMPT}), true),
        (json!({"prompt": PROMPT, "max_tokens": 9, "temperature": 0}), false),
        (json!({"prompt": PROMPT, "max_tokens": 8, "temperature": 1, "seed": 3}), false),
        (json!({"prompt": PROMPT, "max_tokens": 8, "temperature": 1, "seed": 3}), true),
        (json!({"prompt": PROMPT, "max_tokens": 8, "temperature": 1}), false),
        (json!({"prompt": PROMPT, "max_tokens": 8, "temperature": 0, "stream": true}), false),
    ] {
        let response = server.send("/v1/completions", &[], Some(body.to_string())).await;
        assert_eq!(response.headers().contains_key("x-wafer-cache"), hit, "{body}");
        assert_eq!(text(response).await.0, 200, "{body}");
    }
    assert_eq!(kept(&server), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_setting_that_makes_no_sense_is_not_ignored() {
    for (name, value) in [("defaults", "temprature=1"), ("cache", "no such store")] {
        let variables = [(name.to_owned(), value.to_owned())].into();
        let server = Server::start(demo(), App { variables, ..App::default() });
        for path in ["/health", "/v1/models"] {
            assert_eq!(server.send(path, &[], None).await.status(), 503, "{name} {path}");
        }
    }
}
