//! Whatever comes over the network or from a file: a clear error, and the server goes on.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use wafer_tests::{Server, run, testdata};

/// One request that must fail: how it is sent, and what the answer has to name.
struct Case {
    method: &'static str,
    path: &'static str,
    body: Vec<u8>,
    status: u16,
    names: &'static [&'static str],
}

fn case(path: &'static str, body: &Value, status: u16, names: &'static [&'static str]) -> Case {
    Case { method: "POST", path, body: body.to_string().into_bytes(), status, names }
}

fn raw(path: &'static str, body: &[u8], status: u16, names: &'static [&'static str]) -> Case {
    Case { method: "POST", path, body: body.to_vec(), status, names }
}

fn check(server: &Server, case: &Case) {
    let body = (case.method == "POST").then_some(&case.body[..]);
    let (status, answer) = server.request(case.method, case.path, body);
    let shown = String::from_utf8_lossy(&case.body[..case.body.len().min(200)]).into_owned();
    assert_eq!(status, case.status, "{} {} {shown}: {answer}", case.method, case.path);
    let message = answer["error"]["message"].as_str().unwrap_or_else(|| panic!("no error object: {answer}"));
    for name in case.names {
        assert!(message.contains(name), "{} {shown}: {name:?} is not in {message:?}", case.path);
    }
    assert!(answer["error"]["type"].is_string(), "{answer}");
}

#[test]
fn bad_requests_get_a_clear_error_and_the_server_goes_on() {
    const CHAT: &str = "/v1/chat/completions";
    let hello = json!([{"role": "user", "content": "Hello"}]);
    let with = |name: &str, value: Value| {
        let mut body = json!({"messages": hello, "max_tokens": 4});
        body[name] = value;
        body
    };
    let cases = [
        raw("/generate", b"", 400, &["empty"]),
        raw("/generate", b"{\"prompt\": \"a\"", 400, &["line 1"]),
        raw("/generate", b"\xff\xfe", 400, &[]),
        raw("/generate", b"[1, 2]", 400, &["object"]),
        case("/generate", &json!({}), 400, &["prompt"]),
        case("/generate", &json!({"prompt": 7}), 400, &["prompt", "string"]),
        case("/generate", &json!({"prompt": "a", "max_length": "many"}), 400, &["max_length"]),
        case("/generate", &json!({"prompt": "a", "max_length": -1}), 400, &["max_length", "-1"]),
        case("/generate", &json!({"prompt": "a", "colour": "red"}), 400, &["colour"]),
        case("/generate", &json!({"prompt": "word ".repeat(2000)}), 400, &["512"]),
        case("/v1/completions", &json!({"prompt": "a", "max_tokens": 0}), 400, &["max_tokens", "0"]),
        case("/v1/completions", &json!({"prompt": "a", "max_tokens": 1_000_000}), 400, &["1000000", "512"]),
        case("/v1/completions", &json!({"prompt": "a", "max_tokens": 1e300}), 400, &["max_tokens"]),
        case("/v1/completions", &json!({"prompt": "a", "suffix": "b"}), 400, &["suffix"]),
        case(CHAT, &json!({"messages": []}), 400, &["messages"]),
        case(CHAT, &json!({"messages": "hello"}), 400, &["messages"]),
        case(CHAT, &with("temperature", json!(-1)), 400, &["temperature", "-1"]),
        case(CHAT, &with("temperature", json!("NaN")), 400, &["temperature"]),
        case(CHAT, &with("top_p", json!(1.5)), 400, &["top_p", "1.5"]),
        case(CHAT, &with("tools", json!([{"type": "function"}])), 400, &["tools"]),
        case(CHAT, &with("model", json!("gpt-9")), 404, &["gpt-9"]),
        case(CHAT, &with("logit_bias", json!({"99999999": 1})), 400, &["99999999"]),
        case(CHAT, &with("stop", json!([""])), 400, &["stop"]),
        raw(
            CHAT,
            b"{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}], \"temperature\": NaN}",
            400,
            &["line 1"],
        ),
        raw("/generate", &vec![b'x'; 20 << 20], 413, &["16"]),
        Case { method: "GET", path: "/nowhere", body: Vec::new(), status: 404, names: &["/nowhere"] },
        Case { method: "GET", path: "/generate", body: Vec::new(), status: 405, names: &["GET", "POST"] },
        Case { method: "POST", path: "/health", body: b"{}".to_vec(), status: 405, names: &["POST"] },
    ];
    let server = Server::start(&[]);
    for case in &cases {
        check(&server, case);
    }
    let answer = server.post("/generate", &json!({"prompt": "Once upon a time", "max_new_tokens": 4}));
    assert_eq!(answer["usage"]["completion_tokens"], 4, "{answer}");
}

/// Changes a copy of a good file.
fn damaged(name: &str, folder: &Path, change: impl Fn(&mut Vec<u8>)) -> String {
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/demo.gguf");
    let mut bytes = fs::read(demo).expect("the demo model");
    change(&mut bytes);
    let path = folder.join(name);
    fs::write(&path, bytes).expect("a file is written");
    path.to_str().expect("a path").to_owned()
}

#[test]
fn broken_files_are_refused_at_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let text = folder.join("text.gguf");
    fs::write(&text, "Dear reader, this is not a model.").expect("a file is written");
    let cases = [
        (damaged("cut.gguf", folder, |b| b.truncate(b.len() / 2)), "outside the file"),
        (damaged("head.gguf", folder, |b| b.truncate(100)), "left in the file"),
        (damaged("empty.gguf", folder, Vec::clear), "left in the file"),
        (
            damaged("tensors.gguf", folder, |b| b[8..16].copy_from_slice(&(1_u64 << 40).to_le_bytes())),
            "1099511627776 tensors",
        ),
        (
            damaged("entries.gguf", folder, |b| b[16..24].copy_from_slice(&u64::MAX.to_le_bytes())),
            "18446744073709551615",
        ),
        (damaged("version.gguf", folder, |b| b[4] = 9), "version 9"),
        (damaged("far.gguf", folder, |b| far_tensor(b)), "outside the file"),
        (text.to_str().expect("a path").to_owned(), "not a GGUF file"),
        (folder.join("missing.gguf").to_str().expect("a path").to_owned(), "missing.gguf"),
    ];
    for (path, expected) in &cases {
        for command in
            [&["serve", path, "--listen", "127.0.0.1:0"][..], &["run", path, "Hello"], &["inspect", path]]
        {
            let output = run(command);
            let error = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{command:?}: {error}");
            assert!(error.contains("error: ") && error.contains(expected), "{command:?}: {error}");
            assert!(!error.contains("panicked"), "{command:?}: {error}");
            assert!(
                output.stdout.is_empty(),
                "{command:?} printed {:?}",
                String::from_utf8_lossy(&output.stdout)
            );
        }
    }
}

/// Moves the first tensor of the table to an offset beyond the file.
fn far_tensor(bytes: &mut [u8]) {
    let name = b"token_embd.weight";
    let at = bytes.windows(name.len()).rposition(|window| window == name).expect("the tensor's entry");
    // Behind the name: the number of dimensions, two dimensions, the type, the offset.
    let offset = at + name.len() + 4 + 16 + 4;
    bytes[offset..offset + 8].copy_from_slice(&(1_u64 << 40).to_le_bytes());
}

#[test]
fn a_model_that_cannot_spell_a_character_answers_all_the_same() {
    let Some(path) = testdata("models/TinyStories-656K-f32.gguf") else { return };
    let server = Server::start(&[path.to_str().expect("a path")]);
    let body = json!({"prompt": "A { in a story \u{1f600}", "max_new_tokens": 3}).to_string();
    let (status, answer) = server.request("POST", "/generate", Some(body.as_bytes()));
    assert!(status == 200 || status == 400, "{status} {answer}");
    let answer = server.post("/generate", &json!({"prompt": "Once upon a time", "max_new_tokens": 3}));
    assert_eq!(answer["usage"]["completion_tokens"], 3, "{answer}");
}
