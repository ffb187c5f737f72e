//! `wafer serve` as its users meet it: answers, streams, seeds, crowds, hang-ups, signals.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

use serde_json::{Value, json};
use wafer_tests::{Server, run};

/// The JSON payloads of a stream of server-sent events; the last line must be `[DONE]`.
fn events(text: &str) -> Vec<Value> {
    let mut lines: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
    assert_eq!(lines.pop(), Some("[DONE]"), "{text}");
    lines.iter().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[test]
fn every_path_answers() {
    let server = Server::start(&[]);
    let models = server.request("GET", "/v1/models", None).1;
    let id = models["data"][0]["id"].as_str().expect("a model").to_owned();
    let prompt = "Once upon a time";

    let answer = server.post("/generate", &json!({"prompt": prompt, "max_length": 40}));
    assert!(answer["generated_text"].as_str().is_some_and(|text| text.len() > 20), "{answer}");
    let total = answer["usage"]["total_tokens"].as_u64().expect("usage");
    assert!(total <= 40, "{answer}");

    let messages = json!([{"role": "user", "content": "Tell me a story"}]);
    let chat = json!({"model": id, "messages": messages, "temperature": 0, "max_tokens": 30});
    let whole = server.post("/v1/chat/completions", &chat);
    let text = whole["choices"][0]["message"]["content"].as_str().expect("a text").to_owned();
    assert_eq!(whole["object"], "chat.completion");

    let mut streamed = chat.clone();
    streamed["stream"] = json!(true);
    streamed["stream_options"] = json!({"include_usage": true});
    let (status, stream) = server.text("POST", "/v1/chat/completions", Some(streamed.to_string().as_bytes()));
    assert_eq!(status, 200, "{stream}");
    let events = events(&stream);
    let pieces = events.iter().filter_map(|event| event["choices"][0]["delta"]["content"].as_str());
    assert_eq!(pieces.collect::<String>(), text);
    let usage = events.last().expect("events");
    assert_eq!(usage["choices"], json!([]));
    assert_eq!(usage["usage"]["total_tokens"], whole["usage"]["total_tokens"]);
    assert_eq!(usage["usage"]["completion_tokens"], whole["usage"]["completion_tokens"]);

    let tokens = server.post("/tokenize", &json!({"text": prompt, "bos": false}));
    assert_eq!(server.post("/detokenize", &json!({"tokens": tokens["tokens"]}))["text"], prompt);
    let (status, health) = server.request("GET", "/health", None);
    assert_eq!((status, &health["status"]), (200, &json!("Healthy")));
    assert_eq!(server.text("GET", "/livez", None).0, 200);
    assert_eq!(run(&["health", &server.url]).status.code(), Some(0));
}

#[test]
fn seeds_decide_the_text() {
    let server = Server::start(&[]);
    let text = |seed: u64| {
        let body = json!({"prompt": "One day", "max_tokens": 24, "temperature": 1.2, "seed": seed});
        server.post("/v1/completions", &body)["choices"][0]["text"].as_str().expect("a text").to_owned()
    };
    assert_eq!(text(1), text(1));
    let different: std::collections::HashSet<String> = (1..=4).map(text).collect();
    assert!(different.len() > 1, "four seeds gave one text: {different:?}");
}

#[test]
fn a_crowd_is_answered_right() {
    let server = Server::start(&[]);
    let body =
        |i: usize| json!({"prompt": format!("Once upon a time {i}"), "max_tokens": 12, "temperature": 0});
    let text = |i| server.post("/v1/completions", &body(i))["choices"][0]["text"].clone();
    let alone: Vec<Value> = (0..20).map(text).collect();
    let together: Vec<Value> = thread::scope(|scope| {
        let running: Vec<_> = (0..20).map(|i| scope.spawn(move || text(i))).collect();
        running.into_iter().map(|request| request.join().expect("an answer")).collect()
    });
    assert_eq!(alone, together);
}

#[test]
fn a_client_that_hangs_up_stops_its_generation() {
    let mut server = Server::start(&["--max-concurrency", "1"]);
    let body = json!({"prompt": "Once upon a time", "max_tokens": 450, "stream": true, "logit_bias": {}});
    let mut stream = TcpStream::connect(server.address()).expect("a connection");
    let body = body.to_string();
    write!(
        stream,
        "POST /v1/completions HTTP/1.1\r\nHost: wafer\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .expect("the request is sent");
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    while !line.starts_with("data: ") {
        line.clear();
        assert!(reader.read_line(&mut line).expect("the stream goes on") > 0);
    }
    drop(reader);
    server.wait_for("generation cancelled");
    // The only place is free again.
    let answer = server.post("/generate", &json!({"prompt": "Once", "max_new_tokens": 1}));
    assert_eq!(answer["usage"]["completion_tokens"], 1);
}

#[test]
fn signals_end_it_gracefully() {
    for signal in ["-TERM", "-INT"] {
        let server = Server::start(&[]);
        server.post("/generate", &json!({"prompt": "Once", "max_new_tokens": 1}));
        assert_eq!(server.stop(signal).code(), Some(0), "{signal}");
    }
}

#[test]
fn a_running_request_is_finished_before_the_end() {
    let server = Server::start(&[]);
    let body =
        json!({"prompt": "Once upon a time", "max_tokens": 60, "stream": true, "temperature": 0}).to_string();
    let mut stream = TcpStream::connect(server.address()).expect("a connection");
    write!(
        stream,
        "POST /v1/completions HTTP/1.1\r\nHost: wafer\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .expect("the request is sent");
    let mut first = [0; 16];
    stream.read_exact(&mut first).expect("the head of the answer");
    let rest = thread::spawn(move || {
        let mut rest = String::new();
        stream.read_to_string(&mut rest).map(|_| rest)
    });
    assert_eq!(server.stop("-TERM").code(), Some(0));
    let rest = rest.join().expect("a reader").expect("the whole answer");
    assert!(rest.contains("data: [DONE]"), "{rest}");
}

#[test]
fn a_port_in_use_is_said() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("its address").to_string();
    let output = run(&["serve", "--listen", &address]);
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains(&address) && error.contains("hint: "), "{error}");
}

#[test]
fn usage_errors_have_their_own_code() {
    for arguments in [&["serve", "--nonsense"][..], &["fly"], &["serve", "--listen", "here"]] {
        assert_eq!(run(arguments).status.code(), Some(2), "{arguments:?}");
    }
    assert_eq!(run(&["health", "http://127.0.0.1:1/health"]).status.code(), Some(1));
}
