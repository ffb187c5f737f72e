//! Several choices, probabilities, echoes, salts.
//!
//! The storyteller is sure: the next word's logit is 100, that of all others 0.

use super::*;

/// The choices of an answer.
fn choices(path: &str, body: &Value) -> Value {
    let answer = post(path, body);
    assert_eq!(answer.status, 200, "{}", answer.body);
    serde_json::from_str::<Value>(&answer.body).unwrap()["choices"].take()
}

#[test]
fn n_choices_are_one_after_the_other_and_the_prompt_is_computed_once() {
    for (path, prompts, total) in [
        ("/v1/completions", json!({"prompt": "x".repeat(149)}), 3),
        ("/v1/completions", json!({"prompt": ["x".repeat(149), "y".repeat(149)]}), 6),
        ("/v1/chat/completions", json!({"messages": [{"role": "user", "content": "x".repeat(149)}]}), 3),
    ] {
        for stream in [false, true] {
            let mut body = prompts.clone();
            (body["n"], body["max_tokens"], body["stream"]) = (json!(3), json!(2), json!(stream));
            if stream {
                body["stream_options"] = json!({"include_usage": true});
            }
            let (service, record) = service(storyteller());
            service.digest().unwrap();
            record.forwards.borrow_mut().clear();
            let platform = Still::default();
            let request =
                Request::builder().method("POST").uri(path).body(body.to_string().into_bytes()).unwrap();
            let (_, pieces) = handle(&request, &|| Ok(&service), &platform).into_parts();
            let text = String::from_utf8(pieces.collect::<Vec<_>>().concat()).unwrap();
            let prompt = total / 3;
            let usage = json!({
                "prompt_tokens": 150 * prompt, "completion_tokens": 2 * total, "total_tokens": 150 * prompt + 2 * total,
            });
            assert!(text.contains(&format!(r#""usage":{usage}"#)), "{text}");
            for index in 0..total {
                assert!(text.contains(&format!(r#"{{"index":{index},"#)), "{text}");
            }
            let once = [(128, 0), (22, 1), (1, 1), (1, 1), (1, 1), (1, 1), (1, 1)];
            assert_eq!(*record.forwards.borrow(), once.repeat(prompt), "{path} {stream}");
            assert_eq!(record.alive.get(), 0, "every KV cache is freed");
        }
    }
}

#[test]
fn choices_are_drawn_from_seeds_of_their_own() {
    let flat = || Scripted::new(VOCABULARY, CONTEXT, |_| Ok(vec![0.0; VOCABULARY]));
    let texts = |body: Value| {
        let answer = call_with(flat(), "POST", "/v1/completions", body.to_string());
        let body: Value = serde_json::from_str(&answer.body).unwrap();
        let texts = body["choices"].as_array().unwrap().iter().map(|choice| choice["text"].to_string());
        texts.collect::<Vec<_>>()
    };
    let three = texts(json!({"prompt": "Hi", "n": 3, "seed": 5}));
    assert_eq!(three, texts(json!({"prompt": "Hi", "n": 3, "seed": 5})));
    assert!(three[0] != three[1] && three[1] != three[2], "{three:?}");
    assert_eq!(three[1..2], texts(json!({"prompt": "Hi", "n": 1, "seed": 6})));
}

#[test]
fn probabilities_of_a_chat() {
    let body = json!({
        "messages": [{"role": "user", "content": "Hi!"}], "logprobs": true, "top_logprobs": 1, "stop": [" a t"],
    });
    let entry = |text: &str| {
        let one = json!({"token": text, "logprob": 0.0, "bytes": text.as_bytes()});
        let mut entry = one.clone();
        entry["top_logprobs"] = json!([one]);
        entry
    };
    let expected = json!({"content": ([" Once", " upon", " a", " time"].map(entry)), "refusal": null});
    let whole = choices("/v1/chat/completions", &body);
    assert_eq!(whole[0]["logprobs"], expected);
    assert_eq!(whole[0]["message"]["content"], " Once upon");

    // As a stream: with the text they made certain, none of them twice and none lost.
    let mut streamed = body;
    streamed["stream"] = json!(true);
    let answer = post("/v1/chat/completions", &streamed);
    let events = answer.body.lines().filter_map(|line| line.strip_prefix("data: {"));
    let events = events.map(|event| serde_json::from_str::<Value>(&format!("{{{event}")).unwrap());
    let tokens: Vec<Value> = events
        .filter_map(|event| event["choices"][0]["logprobs"]["content"].as_array().cloned())
        .flatten()
        .collect();
    assert_eq!(json!(tokens), expected["content"]);

    let without =
        json!({"messages": [{"role": "user", "content": "Hi!"}], "logprobs": false, "max_tokens": 1});
    assert_eq!(choices("/v1/chat/completions", &without)[0]["logprobs"], Value::Null);
}

#[test]
fn probabilities_of_a_completion() {
    let body = json!({"prompt": "Hi!", "logprobs": 1, "max_tokens": 3});
    let expected = json!({
        "tokens": [" Once", " upon", " a"],
        "token_logprobs": [0.0, 0.0, 0.0],
        "top_logprobs": [{" Once": 0.0}, {" upon": 0.0}, {" a": 0.0}],
        "text_offset": [0, 5, 10],
    });
    assert_eq!(choices("/v1/completions", &body)[0]["logprobs"], expected);
    let body = json!({"prompt": "Hi!", "logprobs": 0});
    let zero = choices("/v1/completions", &body)[0]["logprobs"].take();
    assert_eq!(zero["top_logprobs"], json!([{}, {}, {}, {}, {}]), "the end of the text is not listed");
}

#[test]
fn probabilities_are_the_models_own() {
    let body = json!({"prompt": "Hi!", "logprobs": 2, "max_tokens": 1, "temperature": 0, "logit_bias": {"263": 100, "259": -100}});
    let logprobs = choices("/v1/completions", &body)[0]["logprobs"].take();
    assert_eq!(logprobs["tokens"], json!(["."]), "the bias decides");
    assert_eq!(logprobs["token_logprobs"], json!([-100.0]), "and is not in the numbers");
    assert_eq!(logprobs["top_logprobs"], json!([{" Once": 0.0, "<unk>": -100.0}]));
}

#[test]
fn echoes_stand_before_the_text() {
    let body = json!({"prompt": ["Hi!", [75]], "echo": true, "max_tokens": 1, "n": 2});
    let texts: Vec<Value> = choices("/v1/completions", &body)
        .as_array()
        .unwrap()
        .iter()
        .map(|choice| choice["text"].clone())
        .collect();
    assert_eq!(texts, ["Hi! Once", "Hi! Once", "H Once", "H Once"]);
    let answer =
        post("/v1/completions", &json!({"prompt": "Hi!", "echo": true, "max_tokens": 1, "stream": true}));
    let texts = answer
        .body
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line.strip_prefix("data: ")?).ok());
    let texts: Vec<Value> = texts.map(|event| event["choices"][0]["text"].clone()).collect();
    assert_eq!(texts, ["Hi!", " Once", ""]);
}

#[test]
fn an_answers_identity_is_all_that_decides_it() {
    let identity = |path: &str, body: &Value| {
        let (service, _) = service(storyteller());
        let platform = Still::default();
        let request =
            Request::builder().method("POST").uri(path).body(body.to_string().into_bytes()).unwrap();
        match handle(&request, &|| Ok(&service), &platform) {
            Reply::Whole(whole) => whole.identity(),
            _ => panic!("{body} is not answered as a whole"),
        }
    };
    let text = |key: &str, value: Value| {
        let mut body = json!({"prompt": "Hi!", "temperature": 0});
        body[key] = value;
        identity("/v1/completions", &body)
    };
    let plain = text("n", json!(1));
    assert!(plain.is_some());
    assert_eq!(plain, text("seed", json!(7)), "nothing is drawn");
    assert_eq!(plain, text("user", json!("me")));
    for (key, value) in [
        ("echo", json!(true)),
        ("cache_salt", json!("a")),
        ("n", json!(2)),
        ("logprobs", json!(0)),
        ("temperature", json!(1)),
    ] {
        assert_ne!(plain, text(key, value), "{key}");
    }
}
