//! Requests that are refused, each with its status, parameter and message.

use super::*;

const CHAT: &str = "/v1/chat/completions";
const COMPLETIONS: &str = "/v1/completions";
const GENERATE: &str = "/generate";

/// Compares the error object of an answer.
fn check(answer: &Answer, status: u16, param: Option<&str>, message: &str) -> Value {
    assert_eq!(answer.status, status, "{}", answer.body);
    assert_eq!(answer.content_type, "application/json");
    let mut body: Value = serde_json::from_str(&answer.body).unwrap();
    let error = body["error"].take();
    assert_eq!(error["message"], message);
    assert_eq!(error["param"], json!(param), "{message}");
    error
}

fn bad(path: &str, body: &Value, param: &str, message: &str) {
    let answer = post(path, body);
    let error = check(&answer, 400, Some(param), message);
    assert_eq!(error["type"], "invalid_request_error");
    assert_eq!(answer.log, [""; 0], "the caller's mistakes are not the operator's");
}

/// A chat request with one more parameter.
fn chat(key: &str, value: Value) -> Value {
    let mut body = json!({"messages": [{"role": "user", "content": "Hi!"}]});
    body[key] = value;
    body
}

/// A text request with one more parameter.
fn text(key: &str, value: Value) -> Value {
    let mut body = json!({"prompt": "Hi!"});
    body[key] = value;
    body
}

#[test]
fn bodies_that_are_no_json_object() {
    let cases: [(&[u8], &str); 7] = [
        (b"", "the body is empty, a JSON object is expected"),
        (
            b"{\"prompt\": \"Hi\",\n oops}",
            "the body is not valid JSON: key must be a string at line 2 column 2",
        ),
        (
            b"{\"prompt\": \"Hi\"",
            "the body is not valid JSON: EOF while parsing an object at line 1 column 15",
        ),
        (b"[1]", "the body is an array, a JSON object is expected"),
        (b"{\"temperature\": NaN}", "the body is not valid JSON: expected value at line 1 column 17"),
        (b"{\"seed\": 1e999}", "the body is not valid JSON: number out of range at line 1 column 14"),
        (b"{\"prompt\": \"\xFF\"}", "the body is not UTF-8: invalid utf-8 sequence of 1 bytes from index 12"),
    ];
    for (body, message) in cases {
        for path in [CHAT, COMPLETIONS, GENERATE, "/tokenize", "/detokenize"] {
            check(&call("POST", path, body), 400, None, message);
        }
    }
    let deep = "[".repeat(100_000);
    let message = "the body is not valid JSON: recursion limit exceeded at line 1 column 128";
    check(&call("POST", CHAT, deep), 400, None, message);
}

#[test]
fn paths_methods_and_sizes() {
    let known = "/generate, /v1/chat/completions, /v1/completions, /v1/models, /v1/models/{id}, /tokenize, \
                 /detokenize, /health, /livez";
    for path in ["/", "/nope", "/v1/models/", "/generate/"] {
        let error =
            check(&call("GET", path, ""), 404, None, &format!("unknown path '{path}', known are {known}"));
        assert_eq!(error["code"], "unknown_path");
    }
    let answer = call("GET", GENERATE, "");
    check(&answer, 405, None, "/generate does not take GET, it takes POST");
    assert_eq!(answer.allow.as_deref(), Some("POST"));
    let answer = call("DELETE", "/v1/models/tiny", "");
    check(&answer, 405, None, "/v1/models/tiny does not take DELETE, it takes GET, HEAD");
    let answer = call("POST", GENERATE, vec![b' '; BODY_LIMIT + 1]);
    check(&answer, 413, None, "the body is larger than the limit of 16777216 bytes");
}

#[test]
fn values_of_the_wrong_type() {
    let number = "expected a number";
    let cases = [
        ("temperature", json!("hot"), format!("parameter 'temperature' is the string \"hot\", {number}")),
        ("top_p", json!([0.5]), format!("parameter 'top_p' is an array, {number}")),
        ("stream", json!("yes"), "parameter 'stream' is the string \"yes\", expected a boolean".into()),
        ("stream", json!(1), "parameter 'stream' is 1, expected a boolean".into()),
        (
            "max_new_tokens",
            json!(-1),
            "parameter 'max_new_tokens' is -1, expected an integer of at least 0".into(),
        ),
        ("max_length", json!(1.5), "parameter 'max_length' is 1.5, expected an integer of at least 0".into()),
        (
            "top_k",
            json!(-1),
            "parameter 'top_k' is -1, expected an integer of at least 0 (0 keeps all)".into(),
        ),
        ("seed", json!(1.5), "parameter 'seed' is 1.5, expected a 64-bit integer".into()),
        ("stop", json!([1]), "parameter 'stop' is an array, expected a string or an array of strings".into()),
        ("model", json!(7), "parameter 'model' is 7, expected a string".into()),
        ("prompt", json!({}), "parameter 'prompt' is an object, expected a string".into()),
        (
            "logit_bias",
            json!([1]),
            "parameter 'logit_bias' is an array, expected an object of token ids and numbers".into(),
        ),
    ];
    for (key, value, message) in cases {
        bad(GENERATE, &text(key, value), key, &message);
    }
    bad(
        GENERATE,
        &text("logit_bias", json!({"1": "x"})),
        "logit_bias.1",
        "parameter 'logit_bias.1' is the string \"x\", expected a number",
    );
    let message = "logit_bias has the key \"a\", which is no token id: invalid digit found in string";
    bad(GENERATE, &text("logit_bias", json!({"a": 1})), "logit_bias", message);
    let expected = "expected a string, an array of strings, or token ids";
    bad(COMPLETIONS, &text("prompt", json!(7)), "prompt", &format!("parameter 'prompt' is 7, {expected}"));
    bad(
        COMPLETIONS,
        &text("prompt", json!([-1])),
        "prompt",
        &format!("parameter 'prompt' is an array, {expected}"),
    );
    let message = "parameter 'prompt[1]' is 7, expected a string or token ids";
    bad(COMPLETIONS, &text("prompt", json!(["a", 7])), "prompt[1]", message);
    bad(
        "/detokenize",
        &json!({"tokens": ["a"]}),
        "tokens",
        "parameter 'tokens' is an array, expected an array of token ids",
    );
}

#[test]
fn values_outside_their_limits() {
    let cases = [
        ("temperature", json!(-1), "temperature is -1, limits are 0 and 2"),
        ("temperature", json!(1e300), "temperature is inf, limits are 0 and 2"),
        ("top_p", json!(2), "top_p is 2, limits are 0 and 1"),
        ("repetition_penalty", json!(0), "repetition_penalty is 0, limits are above 0 and 100"),
        ("logit_bias", json!({"264": 1}), "logit_bias has token 264, the vocabulary has 264 tokens"),
        ("logit_bias", json!({"5": -101}), "logit_bias of token 5 is -101, limits are -100 and 100"),
        ("stop", json!(""), "stop has a string of 0 bytes, limits are 1 and 256"),
        ("stop", json!(vec!["x"; 17]), "stop has 17 strings, the limit is 16"),
        ("max_tokens", json!(0), "max_tokens is 0, it must be at least 1"),
        (
            "max_tokens",
            json!(100_000),
            "max_tokens 100000 with a prompt of 4 tokens exceeds the context of 300 tokens",
        ),
        (
            "max_tokens",
            json!(u64::MAX),
            "max_tokens 18446744073709551615 with a prompt of 4 tokens exceeds the context of 300 tokens",
        ),
    ];
    for (key, value, message) in cases {
        bad(CHAT, &chat(key, value.clone()), key, message);
        bad(COMPLETIONS, &text(key, value), key, message);
    }
    bad(
        GENERATE,
        &text("max_length", json!(4)),
        "max_length",
        "max_length 4 leaves no room after a prompt of 4 tokens",
    );
    bad(
        GENERATE,
        &text("max_length", json!(301)),
        "max_length",
        "max_length 301 exceeds the context of 300 tokens",
    );
    let few = |key: &str, value: i32, low: i32| format!("{key} is {value}, limits are {low} and 128");
    for path in [CHAT, COMPLETIONS] {
        let body = |value| if path == CHAT { chat("n", value) } else { text("n", value) };
        bad(path, &body(json!(0)), "n", &few("n", 0, 1));
        bad(path, &body(json!(129)), "n", &few("n", 129, 1));
    }
    bad(COMPLETIONS, &text("logprobs", json!(6)), "logprobs", "logprobs is 6, the limit is 5");
    let body =
        json!({"messages": [{"role": "user", "content": "Hi!"}], "logprobs": true, "top_logprobs": 21});
    bad(CHAT, &body, "top_logprobs", "top_logprobs is 21, the limit is 20");
    let many = json!({"prompt": ["a", "b"], "n": 100});
    let message = "2 prompts with 100 choices each make 200 choices, the limit is 128";
    check(&post(COMPLETIONS, &many), 400, None, message);
    bad(
        "/detokenize",
        &json!({"tokens": [264]}),
        "tokens",
        "tokens has token 264, the vocabulary has 264 tokens",
    );
}

#[test]
fn prompts_that_cannot_be_continued() {
    let long = "x".repeat(5119);
    let too_long = "prompt is 5120 tokens, model limit is 300";
    for path in [COMPLETIONS, GENERATE] {
        bad(path, &json!({}), "prompt", "parameter 'prompt' is required");
        bad(path, &json!({"prompt": null}), "prompt", "parameter 'prompt' is required");
        bad(path, &json!({"prompt": ""}), "prompt", "prompt is empty");
        bad(path, &json!({"prompt": long}), "prompt", too_long);
    }
    bad(COMPLETIONS, &json!({"prompt": []}), "prompt", "prompt is empty");
    bad(COMPLETIONS, &json!({"prompt": ["Hi", ""]}), "prompt", "prompt is empty");
    bad(COMPLETIONS, &json!({"prompt": [[1], []]}), "prompt", "prompt is empty");
    bad(
        COMPLETIONS,
        &json!({"prompt": [264]}),
        "prompt",
        "prompt has token 264, the vocabulary has 264 tokens",
    );
    bad(COMPLETIONS, &json!({"prompt": vec!["a"; 65]}), "prompt", "prompt has 65 texts, the limit is 64");
    bad(CHAT, &json!({}), "messages", "parameter 'messages' is required");
    bad(CHAT, &json!({"messages": []}), "messages", "messages is empty");
    bad(CHAT, &json!({"messages": [{"role": "user", "content": long}]}), "messages", too_long);
}

#[test]
fn messages_that_are_none() {
    let cases = [
        (json!("no"), "messages", "parameter 'messages' is the string \"no\", expected an array of messages"),
        (json!(["Hi"]), "messages[0]", "parameter 'messages[0]' is the string \"Hi\", expected an object"),
        (json!([{"content": "Hi"}]), "messages[0].role", "parameter 'messages[0].role' is required"),
        (
            json!([{"role": 1, "content": "Hi"}]),
            "messages[0].role",
            "parameter 'messages[0].role' is 1, expected a string",
        ),
        (json!([{"role": "user"}]), "messages[0].content", "parameter 'messages[0].content' is required"),
        (
            json!([{"role": "user", "content": 5}]),
            "messages[0].content",
            "parameter 'messages[0].content' is 5, expected a string or an array of parts",
        ),
        (
            json!([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]),
            "messages[0].content[0].type",
            "the value 'image_url' of parameter 'messages[0].content[0].type' is not supported yet",
        ),
        (
            json!([{"role": "user", "content": [{"text": "x"}]}]),
            "messages[0].content[0].type",
            "parameter 'messages[0].content[0].type' is required",
        ),
        (
            json!([{"role": "user", "content": "Hi", "contents": 1}]),
            "messages[0].contents",
            "unknown parameter 'messages[0].contents', did you mean 'messages[0].content'?",
        ),
        (
            json!([{"role": "assistant", "content": "Hi", "audio": {"id": "x"}}]),
            "messages[0].audio",
            "parameter 'messages[0].audio' is not supported yet",
        ),
    ];
    for (messages, param, message) in cases {
        bad(CHAT, &json!({"messages": messages}), param, message);
    }
}

#[test]
fn parameters_that_are_known_but_not_supported() {
    let tool = json!([{"type": "function", "function": {"name": "f"}}]);
    let cases = [
        ("tools", tool),
        ("tool_choice", json!("required")),
        ("response_format", json!({"type": "json_object"})),
        ("modalities", json!(["text", "audio"])),
        ("store", json!(true)),
        ("reasoning_effort", json!("low")),
        ("web_search_options", json!({})),
    ];
    for (key, value) in cases {
        let answer = post(CHAT, &chat(key, value));
        let message = format!("parameter '{key}' is not supported yet");
        let error = check(&answer, 400, Some(key), &message);
        assert_eq!(error["code"], "unsupported_parameter");
        assert_eq!(error["type"], "invalid_request_error");
    }
    for (key, value) in [("best_of", json!(2)), ("suffix", json!("x"))] {
        bad(COMPLETIONS, &text(key, value), key, &format!("parameter '{key}' is not supported yet"));
    }
}

#[test]
fn parameters_that_ask_for_nothing_are_taken() {
    let body = json!({
        "messages": [{"role": "user", "content": "Hi!", "name": "me"}],
        "n": 1, "tools": [], "tool_choice": "none", "response_format": {"type": "text"}, "logprobs": false,
        "top_logprobs": null, "store": false, "user": "me", "metadata": {"a": "b"}, "modalities": ["text"],
        "parallel_tool_calls": true, "seed": -1, "stop": null, "logit_bias": null, "max_tokens": null,
        "stream": false, "stream_options": null, "service_tier": "auto", "temperature": null,
    });
    assert_eq!(post(CHAT, &body).status, 200);
}

#[test]
fn parameters_that_nobody_knows() {
    let cases = [
        ("temprature", "unknown parameter 'temprature', did you mean 'temperature'?"),
        ("repeat_penalty", "unknown parameter 'repeat_penalty', did you mean 'repetition_penalty'?"),
        ("colour", "unknown parameter 'colour'"),
    ];
    for (key, message) in cases {
        for (path, body) in
            [(CHAT, chat(key, json!(1))), (COMPLETIONS, text(key, json!(1))), (GENERATE, text(key, json!(1)))]
        {
            let error = check(&post(path, &body), 400, Some(key), message);
            assert_eq!(error["code"], "unknown_parameter");
        }
    }
    let body = json!({"prompt": "Hi!", "stream": true, "stream_options": {"usage": true}});
    let message = "unknown parameter 'stream_options.usage'";
    bad(COMPLETIONS, &body, "stream_options.usage", message);
}

#[test]
fn parameters_that_contradict_each_other() {
    let message = "max_length and max_new_tokens exclude each other";
    bad(GENERATE, &json!({"prompt": "Hi!", "max_length": 9, "max_new_tokens": 9}), "max_length", message);
    let mut body = chat("max_tokens", json!(9));
    body["max_completion_tokens"] = json!(9);
    bad(
        CHAT,
        &body,
        "max_tokens",
        "max_tokens and max_completion_tokens mean the same, only one may be given",
    );
    let message = "parameter 'top_logprobs' needs 'logprobs' to be true";
    bad(CHAT, &chat("top_logprobs", json!(2)), "top_logprobs", message);
    let message =
        "'echo' together with 'logprobs' is not supported: the prompt's tokens have no probabilities";
    bad(COMPLETIONS, &json!({"prompt": "Hi!", "echo": true, "logprobs": 0}), "echo", message);
    let message = "parameter 'stream_options' needs 'stream' to be true";
    bad(CHAT, &chat("stream_options", json!({"include_usage": true})), "stream_options", message);
}

#[test]
fn models_that_are_not_there() {
    let message = "model 'gpt-4' does not exist, available is 'tiny'";
    let answers = [
        post(CHAT, &chat("model", json!("gpt-4"))),
        post(COMPLETIONS, &text("model", json!("gpt-4"))),
        post(GENERATE, &text("model", json!("gpt-4"))),
        post("/tokenize", &json!({"text": "Hi!", "model": "gpt-4"})),
        call("GET", "/v1/models/gpt-4", ""),
    ];
    for answer in answers {
        let error = check(&answer, 404, Some("model"), message);
        assert_eq!(error["code"], "model_not_found");
    }
}

#[test]
fn the_servers_faults_are_told_to_the_operator_only() {
    let broken = || Scripted::new(VOCABULARY, CONTEXT, |_| Err(Error::Backend("secret detail".into())));
    let message = "the model failed, see the server's log for request req-00000000000000ab";
    let log = ["error: req-00000000000000ab: secret detail"];
    let answer = call_with(broken(), "POST", GENERATE, r#"{"prompt": "Hi!"}"#);
    assert_eq!(check(&answer, 500, None, message)["type"], "server_error");
    assert_eq!(answer.log, log);

    // After the stream began the status is sent; the error is the last event.
    let answer = call_with(broken(), "POST", GENERATE, r#"{"prompt": "Hi!", "stream": true}"#);
    let error = json!({"error": {"message": message, "type": "server_error", "param": null, "code": null}});
    assert_eq!((answer.status, answer.body), (200, format!("event: error\ndata: {error}\n\n")));
    assert_eq!(answer.log, log);

    // The id that the request came with is kept.
    let platform = Still::default();
    let request =
        Request::builder().uri("/v1/models").header("x-request-id", "req-7").body(Vec::new()).unwrap();
    let missing = || Err(Error::Model("cannot read /secret".into()));
    let (head, body) = handle(&request, &missing, &platform).into_parts();
    assert_eq!(head.status(), 503);
    let body = String::from_utf8(body.collect::<Vec<_>>().concat()).unwrap();
    assert!(body.contains("the model is not available") && body.contains("req-7"), "{body}");
    assert!(!body.contains("secret"), "{body}");
    assert_eq!(platform.lines.take(), ["error: req-7: cannot read /secret"]);
}
