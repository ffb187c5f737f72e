//! The native engine behind wasi-nn: crowds, conversations, limits.

use std::thread;

use serde_json::{Value, json};
use wafer_tests::{Server, run};

fn text(server: &Server, body: &Value) -> Value {
    server.post("/v1/completions", body)["choices"][0]["text"].clone()
}

#[test]
fn both_engines_give_the_same_texts_alone_and_together() {
    let (native, wasm) = (Server::start(&["--engine", "native"]), Server::start(&["--engine", "wasm"]));
    let body = |index: usize| {
        let prompt = "The little dog ".repeat(1 + index * 2) + "went home";
        let mut body = json!({"prompt": prompt, "max_tokens": 20, "seed": index, "temperature": index % 3});
        if index % 4 == 1 {
            body["top_k"] = json!(20);
            body["top_p"] = json!(0.9);
        }
        if index % 5 == 1 {
            body["repetition_penalty"] = json!(1.2);
        }
        body
    };
    let expected: Vec<Value> = (0..16).map(|index| text(&wasm, &body(index))).collect();
    let (native, body) = (&native, &body);
    let together: Vec<Value> = thread::scope(|scope| {
        let running: Vec<_> = (0..16).map(|index| scope.spawn(move || text(native, &body(index)))).collect();
        running.into_iter().map(|request| request.join().expect("an answer")).collect()
    });
    assert_eq!(together, expected);
}

#[test]
fn the_next_turn_of_a_conversation_computes_only_what_is_new() {
    let server = Server::start(&[]);
    let mut messages = vec![json!({"role": "user", "content": "Tell me a story about a dog and a tree"})];
    let turn = |messages: &[Value]| {
        let body = json!({"messages": messages, "temperature": 0, "max_tokens": 30});
        server.post("/v1/chat/completions", &body)
    };
    let first = turn(&messages);
    assert!(first["usage"].get("prompt_tokens_details").is_none(), "{first}");
    messages.push(first["choices"][0]["message"].clone());
    messages.push(json!({"role": "user", "content": "And then?"}));
    let second = turn(&messages);
    let cached = second["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().expect("some are cached");
    let before = first["usage"]["prompt_tokens"].as_u64().expect("usage");
    assert!(cached >= before, "{cached} of {second}");
}

#[test]
fn a_cache_that_is_too_small_is_said_at_the_start() {
    let output = run(&["serve", "--listen", "127.0.0.1:0", "--kv-memory", "10KiB"]);
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains("the KV cache may have 10240 bytes") && error.contains("--kv-memory"), "{error}");
}
