//! Stop reasons, usage, limits, prefill and cancellation, with a backend that is sure of every token.

use super::*;
use crate::backend::scripted::Scripted;
use crate::fixture::{A, BYTE, CONTEXT, DOT, EOS, ONCE, TIME, UPON, VOCABULARY, storyteller, tokenizer};

/// A prompt of `length` tokens.
fn prompt(length: usize) -> Vec<u32> {
    vec![BYTE + u32::from(b'x'); length]
}

fn max(tokens: u64) -> Option<MaxTokens> {
    Some(MaxTokens { name: "max_tokens", tokens, with_prompt: false, strict: true })
}

/// The text and the end of a generation.
fn run(backend: &Scripted, request: Request) -> Result<(String, Ending)> {
    let tokenizer = tokenizer();
    let mut generation = Generation::new(backend, &tokenizer, request)?;
    let mut text = String::new();
    for event in &mut generation {
        match event? {
            Event::Prefill { .. } => {}
            Event::Token { text: released, .. } => text.push_str(&released),
            Event::Finished(ending) => {
                assert_eq!(backend.record.alive.get(), 0, "the KV cache is freed with the last token");
                assert!(generation.next().is_none(), "nothing follows the end");
                return Ok((text, ending));
            }
        }
    }
    panic!("a generation ended without saying why")
}

fn check(chain: &[u32], request: Request, text: &str, reason: Reason, completion_tokens: usize) {
    let prompt_tokens = request.prompt.len();
    let backend = Scripted::chain(VOCABULARY, CONTEXT, chain);
    let usage = Usage { prompt_tokens, completion_tokens };
    let ending = Ending { reason, usage, logits_digest: None };
    assert_eq!(run(&backend, request.clone()).unwrap(), (text.to_owned(), ending), "{request:?}");
}

#[test]
fn every_way_to_end_is_told() {
    let story = [ONCE, UPON, A, TIME, DOT, EOS];
    let request = Request { prompt: prompt(3), ..Request::default() };
    check(&story, request.clone(), " Once upon a time.", Reason::End, 6);
    check(
        &story,
        Request { max_tokens: max(4), ..request.clone() },
        " Once upon a time",
        Reason::MaxTokens,
        4,
    );
    check(&story, Request { max_tokens: max(6), ..request.clone() }, " Once upon a time.", Reason::End, 6);
    let stop = |stop: &str| Request { stop: vec![stop.into()], ..request.clone() };
    check(&story, stop("on a"), " Once up", Reason::Stop("on a".into()), 3);
    check(&story, stop(" Once"), "", Reason::Stop(" Once".into()), 1);
    check(&story, stop("time. The end"), " Once upon a time.", Reason::End, 6);
    // A stop string wins over the limit that the same token reaches.
    check(&story, Request { max_tokens: max(2), ..stop("upon") }, " Once ", Reason::Stop("upon".into()), 2);
    // The limit releases what a stop string held back.
    check(&story, Request { max_tokens: max(2), ..stop("upon it") }, " Once upon", Reason::MaxTokens, 2);
    let full = Request { prompt: prompt(CONTEXT - 2), ..Request::default() };
    check(&story, full, " Once upon", Reason::Context, 2);
    let total = MaxTokens { name: "max_length", tokens: 5, with_prompt: true, strict: true };
    check(&story, Request { max_tokens: Some(total), ..request }, " Once upon", Reason::MaxTokens, 2);
}

#[test]
fn characters_that_span_tokens_come_whole() {
    let bytes: Vec<u32> = "😀!".bytes().map(|byte| BYTE + u32::from(byte)).chain([EOS]).collect();
    let request = Request { prompt: vec![1], ..Request::default() };
    let backend = Scripted::chain(VOCABULARY, CONTEXT, &bytes);
    let tokenizer = tokenizer();
    let events: Result<Vec<Event>> =
        Generation::new(&backend, &tokenizer, request.clone()).unwrap().collect();
    let texts: Vec<String> = events
        .unwrap()
        .into_iter()
        .filter_map(|event| if let Event::Token { text, .. } = event { Some(text) } else { None })
        .collect();
    assert_eq!(texts, ["", "", "", "😀", "!", ""]);
    // Cut in the middle of a character.
    check(&bytes, Request { max_tokens: max(2), ..request }, "\u{FFFD}", Reason::MaxTokens, 2);
}

#[test]
fn a_long_prompt_is_computed_in_chunks_without_logits() {
    let backend = storyteller();
    let tokenizer = tokenizer();
    let request = Request { prompt: prompt(2 * CHUNK + 1), max_tokens: max(2), ..Request::default() };
    let events: Result<Vec<Event>> = Generation::new(&backend, &tokenizer, request).unwrap().collect();
    let total = 2 * CHUNK + 1;
    let usage = Usage { prompt_tokens: total, completion_tokens: 2 };
    let expected = [
        Event::Prefill { done: CHUNK, total },
        Event::Prefill { done: 2 * CHUNK, total },
        Event::Token { id: ONCE, text: " Once".into(), logprobs: None },
        Event::Token { id: UPON, text: " upon".into(), logprobs: None },
        Event::Finished(Ending { reason: Reason::MaxTokens, usage, logits_digest: None }),
    ];
    assert_eq!(events.unwrap(), expected);
    assert_eq!(*backend.record.forwards.borrow(), [(CHUNK, 0), (CHUNK, 0), (1, 1), (1, 1)]);
}

#[test]
fn to_drop_a_generation_is_to_cancel_it() {
    let backend = storyteller();
    let tokenizer = tokenizer();
    let request = Request { prompt: prompt(3), ..Request::default() };
    let mut generation = Generation::new(&backend, &tokenizer, request).unwrap();
    assert_eq!(backend.record.alive.get(), 0, "an unused generation has no KV cache");
    generation.next().unwrap().unwrap();
    assert_eq!(backend.record.alive.get(), 1);
    drop(generation);
    assert_eq!(backend.record.alive.get(), 0);
    assert_eq!(backend.record.forwards.borrow().len(), 1);
}

#[test]
fn an_error_of_the_backend_ends_the_generation() {
    let backend = Scripted::new(VOCABULARY, CONTEXT, |before| match before.len() {
        4 => Err(Error::Backend("out of order".into())),
        _ => Ok((0..VOCABULARY).map(|id| if id == ONCE as usize { 9.0 } else { 0.0 }).collect()),
    });
    let tokenizer = tokenizer();
    let request = Request { prompt: prompt(3), ..Request::default() };
    let mut generation = Generation::new(&backend, &tokenizer, request).unwrap();
    assert!(matches!(generation.next(), Some(Ok(Event::Token { .. }))));
    assert!(matches!(generation.next(), Some(Err(Error::Backend(_)))));
    assert!(generation.next().is_none());
    assert_eq!(backend.record.alive.get(), 0);
}

#[test]
fn requests_outside_the_limits_are_refused_by_name() {
    let request = Request { prompt: prompt(12), ..Request::default() };
    let limit = |tokens, with_prompt| Request {
        max_tokens: Some(MaxTokens { name: "max_x", tokens, with_prompt, strict: true }),
        ..request.clone()
    };
    let cases = [
        (Request::default(), "prompt is empty"),
        (
            Request { prompt: prompt(CONTEXT + 1), ..Request::default() },
            "prompt is 301 tokens, model limit is 300",
        ),
        (
            Request { prompt: prompt(CONTEXT), ..Request::default() },
            "prompt is 300 tokens, model limit is 300, which leaves no room for output",
        ),
        (
            Request { prompt: vec![1, 264], ..Request::default() },
            "prompt has token 264, the vocabulary has 264 tokens",
        ),
        (limit(0, false), "max_x is 0, it must be at least 1"),
        (limit(0, true), "max_x is 0, it must be at least 1"),
        (limit(289, false), "max_x 289 with a prompt of 12 tokens exceeds the context of 300 tokens"),
        (
            limit(u64::MAX, false),
            "max_x 18446744073709551615 with a prompt of 12 tokens exceeds the context of 300 tokens",
        ),
        (limit(301, true), "max_x 301 exceeds the context of 300 tokens"),
        (limit(12, true), "max_x 12 leaves no room after a prompt of 12 tokens"),
        (Request { stop: vec!["x".into(); 17], ..request.clone() }, "stop has 17 strings, the limit is 16"),
        (
            Request { stop: vec![String::new()], ..request.clone() },
            "stop has a string of 0 bytes, limits are 1 and 256",
        ),
        (
            Request { stop: vec!["x".repeat(257)], ..request.clone() },
            "stop has a string of 257 bytes, limits are 1 and 256",
        ),
        (
            Request { sampling: Sampling { temperature: 3.0, ..Sampling::default() }, ..request.clone() },
            "temperature is 3, limits are 0 and 2",
        ),
    ];
    for (request, expected) in cases {
        let error = run(&storyteller(), request).unwrap_err();
        assert_eq!(error.to_string(), expected);
        assert!(matches!(error, Error::Parameter { name, .. } if expected.starts_with(name)));
    }
}

#[test]
fn a_limit_of_the_service_gives_way_to_the_context() {
    let limit = MaxTokens { name: "max_tokens", tokens: 256, with_prompt: false, strict: false };
    let request = Request { prompt: prompt(CONTEXT - 2), max_tokens: Some(limit), ..Request::default() };
    let (_, ending) = run(&storyteller(), request).unwrap();
    assert_eq!(ending.reason, Reason::Context);
}
