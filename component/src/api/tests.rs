//! The API as a client sees it: whole responses and whole streams as text, and every way to be refused.
//!
//! The model says "Once upon a time." and ends, the clock stands still, every random number is the same.

mod choices;
mod refusals;

use http::Request;
use serde_json::{Value, json};

use super::*;
use crate::backend::scripted::Scripted;
use crate::fixture::{CONTEXT, ONCE, Still, VOCABULARY, service, storyteller};

/// Status, headers and body of an answer, and what was logged.
struct Answer {
    status: u16,
    allow: Option<String>,
    content_type: String,
    body: String,
    log: Vec<String>,
}

fn call_with(backend: Scripted, method: &str, path: &str, body: impl Into<Vec<u8>>) -> Answer {
    let (service, record) = service(backend);
    let platform = Still::default();
    let request = Request::builder().method(method).uri(path).body(body.into()).unwrap();
    let (head, pieces) = handle(&request, &|| Ok(&service), &platform).into_parts();
    let pieces: Vec<Vec<u8>> = pieces.collect();
    assert_eq!(record.alive.get(), 0, "every KV cache is freed");
    let header = |name| head.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
    Answer {
        status: head.status().as_u16(),
        allow: header(header::ALLOW),
        content_type: header(header::CONTENT_TYPE).unwrap_or_default(),
        body: String::from_utf8(pieces.concat()).unwrap(),
        log: platform.lines.take(),
    }
}

fn call(method: &str, path: &str, body: impl Into<Vec<u8>>) -> Answer {
    call_with(storyteller(), method, path, body)
}

fn post(path: &str, body: &Value) -> Answer {
    call("POST", path, body.to_string())
}

/// The name of this build and the tiny model.
fn fingerprint() -> String {
    format!("fp_{}_{:016x}", env!("WAFER_SOURCES"), service(storyteller()).0.digest().unwrap())
}

/// Compares a whole JSON response.
fn check(answer: &Answer, expected: &Value) {
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(answer.content_type, "application/json");
    assert_eq!(answer.body, expected.to_string());
    assert_eq!(answer.log, [""; 0]);
}

/// Compares a whole stream, event by event.
fn check_stream(answer: &Answer, expected: &[&str]) {
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(answer.content_type, "text/event-stream");
    let body = answer.body.strip_suffix("\n\n").unwrap();
    assert_eq!(body.split("\n\n").collect::<Vec<_>>(), expected);
}

#[test]
fn generate_answers_with_the_new_text() {
    let answer = post("/generate", &json!({"prompt": "Hi!", "max_length": 8}));
    check(
        &answer,
        &json!({
            "generated_text": " Once upon a time",
            "model": "tiny",
            "finish_reason": "length",
            "usage": {"prompt_tokens": 4, "completion_tokens": 4, "total_tokens": 8},
        }),
    );
    let answer =
        post("/generate", &json!({"prompt": "Hi!", "max_new_tokens": 9, "stop": [" time"], "model": "tiny"}));
    check(
        &answer,
        &json!({
            "generated_text": " Once upon a",
            "model": "tiny",
            "finish_reason": "stop",
            "usage": {"prompt_tokens": 4, "completion_tokens": 4, "total_tokens": 8},
        }),
    );
}

#[test]
fn generate_streams_text_and_then_the_whole_answer() {
    let answer = post("/generate", &json!({"prompt": "Hi!", "max_length": 6, "stream": true}));
    check_stream(
        &answer,
        &[
            r#"data: {"text":" Once"}"#,
            r#"data: {"text":" upon"}"#,
            r#"data: {"generated_text":" Once upon","model":"tiny","finish_reason":"length","usage":{"prompt_tokens":4,"completion_tokens":2,"total_tokens":6}}"#,
            "data: [DONE]",
        ],
    );
}

#[test]
fn chat_completions_have_openais_shape() {
    let messages = json!([{"role": "system", "content": "H"}, {"role": "user", "content": [{"type": "text", "text": "i!"}]}]);
    let answer =
        post("/v1/chat/completions", &json!({"messages": messages, "n": 1, "tools": [], "user": "me"}));
    check(
        &answer,
        &json!({
            "id": "chatcmpl-00000000000000ab",
            "object": "chat.completion",
            "created": 1_700_000_000,
            "model": "tiny",
            "system_fingerprint": fingerprint(),
            "choices": [{
                "index": 0,
                "message": {"role": "assistant", "content": " Once upon a time.", "refusal": null},
                "logprobs": null,
                "finish_reason": "stop",
            }],
            "usage": {"prompt_tokens": 4, "completion_tokens": 6, "total_tokens": 10},
        }),
    );
}

#[test]
fn chat_streams_the_role_the_text_the_reason_and_the_usage() {
    let body = json!({
        "messages": [{"role": "user", "content": "Hi!"}],
        "max_completion_tokens": 2,
        "stream": true,
        "stream_options": {"include_usage": true},
    });
    let start = format!(
        r#"data: {{"id":"chatcmpl-00000000000000ab","object":"chat.completion.chunk","created":1700000000,"model":"tiny","system_fingerprint":"{}","choices":["#,
        fingerprint()
    );
    let choice = |delta: &str, reason: &str| {
        format!(
            r#"{start}{{"index":0,"delta":{delta},"logprobs":null,"finish_reason":{reason}}}],"usage":null}}"#
        )
    };
    let expected = [
        choice(r#"{"role":"assistant","content":""}"#, "null"),
        choice(r#"{"content":" Once"}"#, "null"),
        choice(r#"{"content":" upon"}"#, "null"),
        choice("{}", r#""length""#),
        format!(r#"{start}],"usage":{{"prompt_tokens":4,"completion_tokens":2,"total_tokens":6}}}}"#),
        "data: [DONE]".into(),
    ];
    check_stream(&post("/v1/chat/completions", &body), &expected.each_ref().map(String::as_str));
    let body = json!({"messages": [{"role": "user", "content": "Hi!"}], "max_tokens": 1, "stream": true});
    assert!(!post("/v1/chat/completions", &body).body.contains("usage"), "usage is sent on request only");
}

#[test]
fn completions_answer_every_prompt() {
    let object = |choices: Value, usage: Value| {
        json!({
            "id": "cmpl-00000000000000ab",
            "object": "text_completion",
            "created": 1_700_000_000,
            "model": "tiny",
            "system_fingerprint": fingerprint(),
            "choices": choices,
            "usage": usage,
        })
    };
    let choice = |index: usize, text: &str| json!({"index": index, "text": text, "logprobs": null, "finish_reason": "length"});
    check(
        &post("/v1/completions", &json!({"prompt": ["Hi", "Ho!"], "max_tokens": 2, "temperature": 0})),
        &object(
            json!([choice(0, " Once upon"), choice(1, " Once upon")]),
            json!({"prompt_tokens": 7, "completion_tokens": 4, "total_tokens": 11}),
        ),
    );
    check(
        &post("/v1/completions", &json!({"prompt": [1, 75, ONCE], "max_tokens": 2})),
        &object(
            json!([choice(0, " upon a")]),
            json!({"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}),
        ),
    );
    let answer = post("/v1/completions", &json!({"prompt": [[1, 75], [1]], "max_tokens": 1}));
    assert_eq!(serde_json::from_str::<Value>(&answer.body).unwrap()["usage"]["prompt_tokens"], 3);
}

#[test]
fn completions_stream_one_prompt_after_the_other() {
    let body = json!({"prompt": ["Hi", "Ho"], "max_tokens": 1, "stream": true, "stream_options": {"include_usage": true}});
    let start = format!(
        r#"data: {{"id":"cmpl-00000000000000ab","object":"text_completion","created":1700000000,"model":"tiny","system_fingerprint":"{}","choices":["#,
        fingerprint()
    );
    let choice = |index: usize, text: &str, reason: &str| {
        format!(
            r#"{start}{{"index":{index},"text":"{text}","logprobs":null,"finish_reason":{reason}}}],"usage":null}}"#
        )
    };
    let expected = [
        choice(0, " Once", "null"),
        choice(0, "", r#""length""#),
        choice(1, " Once", "null"),
        choice(1, "", r#""length""#),
        format!(r#"{start}],"usage":{{"prompt_tokens":6,"completion_tokens":2,"total_tokens":8}}}}"#),
        "data: [DONE]".into(),
    ];
    check_stream(&post("/v1/completions", &body), &expected.each_ref().map(String::as_str));
}

#[test]
fn a_long_prompt_shows_its_progress_in_comments() {
    let answer = post("/generate", &json!({"prompt": "x".repeat(260), "max_new_tokens": 1, "stream": true}));
    let expected = [": prefill 128/261", ": prefill 256/261", r#"data: {"text":" Once"}"#];
    check_stream_start(&answer, &expected);
}

fn check_stream_start(answer: &Answer, expected: &[&str]) {
    let events: Vec<&str> = answer.body.split("\n\n").take(expected.len()).collect();
    assert_eq!(events, expected);
}

#[test]
fn to_stop_reading_a_stream_is_to_cancel() {
    let (service, record) = service(storyteller());
    let platform = Still::default();
    let body = json!({"prompt": "Hi!", "stream": true}).to_string().into_bytes();
    let request = Request::builder().method("POST").uri("/generate").body(body).unwrap();
    let (_, mut pieces) = handle(&request, &|| Ok(&service), &platform).into_parts();
    pieces.next().unwrap();
    assert_eq!(record.alive.get(), 1);
    drop(pieces);
    assert_eq!(record.alive.get(), 0);
    assert_eq!(record.forwards.borrow().len(), 1, "nothing is computed ahead of the reader");
}

#[test]
fn others_may_run_before_every_step() {
    let (service, record) = service(storyteller());
    for stream in [false, true] {
        let platform = Still::default();
        record.forwards.borrow_mut().clear();
        let body = json!({"prompt": "x".repeat(200), "max_new_tokens": 3, "stream": stream}).to_string();
        let request = Request::builder().method("POST").uri("/generate").body(body.into_bytes()).unwrap();
        let (_, pieces) = handle(&request, &|| Ok(&service), &platform).into_parts();
        pieces.for_each(drop);
        assert!(platform.pauses.get() >= record.forwards.borrow().len(), "stream {stream}");
    }
}

#[test]
fn tokens_and_pieces_go_both_ways() {
    check(
        &post("/tokenize", &json!({"text": "H."})),
        &json!({"tokens": [1, 75, 263], "pieces": ["<s>", "<0x48>", "."], "count": 3}),
    );
    check(
        &post("/tokenize", &json!({"text": "</s>", "special": false, "bos": false})),
        &json!({
            "tokens": [63, 50, 118, 65],
            "pieces": ["<0x3C>", "<0x2F>", "<0x73>", "<0x3E>"],
            "count": 4,
        }),
    );
    check(&post("/tokenize", &json!({"text": ""})), &json!({"tokens": [1], "pieces": ["<s>"], "count": 1}));
    check(&post("/detokenize", &json!({"tokens": [1, 75, 263]})), &json!({"text": "H."}));
    check(&post("/detokenize", &json!({"tokens": [200]})), &json!({"text": "\u{FFFD}"}));
}

#[test]
fn the_model_is_listed() {
    let model = json!({"id": "tiny", "object": "model", "created": 1_600_000_000, "owned_by": "wafer"});
    check(&call("GET", "/v1/models", ""), &json!({"object": "list", "data": [model]}));
    check(&call("GET", "/v1/models/tiny", ""), &model);
    check(&call("GET", "/v1/models/t%69ny?x=y", ""), &model);
    let head = call("HEAD", "/v1/models", "");
    assert_eq!((head.status, head.body.as_str()), (200, ""));
}

#[test]
fn health_is_that_of_the_model() {
    check(&call("GET", "/livez", ""), &json!({"status": "Alive"}));
    check(
        &call("GET", "/health", ""),
        &json!({
            "status": "Healthy",
            "model": "tiny",
            "architecture": "llama",
            "context_length": CONTEXT,
            "vocabulary_size": VOCABULARY,
            "version": env!("CARGO_PKG_VERSION"),
        }),
    );
    let broken = Scripted::new(VOCABULARY, CONTEXT, |_| Err(Error::Backend("out of order".into())));
    let answer = call_with(broken, "GET", "/health", "");
    assert_eq!(answer.status, 503);
    assert_eq!(answer.body, r#"{"status":"Unhealthy","reason":"out of order"}"#);
    assert_eq!(answer.log, ["error: req-00000000000000ab: unhealthy: out of order"]);
}
