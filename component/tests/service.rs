//! Real models through the whole logic, natively: prompt ids and greedy tokens are llama.cpp's, and a seed
//! decides what is drawn. The same through WebAssembly and HTTP is tested end to end.

use std::path::{Path, PathBuf};

use serde_json::Value;
use wafer_component::generate::{Event, MaxTokens, Request};
use wafer_component::sampler::Sampling;
use wafer_component::service::{Prompt, Service};

/// A file of the shared test data; none, and a line that says so, where that is not there.
fn testdata(name: &str) -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/testdata");
    if root.is_dir() {
        return Some(root.join(name));
    }
    assert!(std::env::var_os("CI").is_none(), "the shared test data is missing: {}", root.display());
    eprintln!("ignored: {name} is not there");
    None
}

fn load(model: &str) -> Option<Service> {
    let path = testdata(&format!("models/{model}.gguf"))?;
    Some(Service::load(&path, None, None).expect("the model is loaded"))
}

fn ids(value: &Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).expect("token ids")
}

/// The tokens that follow a prompt.
fn tokens(service: &Service, prompt: Vec<u32>, count: usize, sampling: Sampling) -> Vec<u32> {
    let limit = MaxTokens { name: "max_tokens", tokens: count as u64, with_prompt: false, strict: true };
    let request = Request { prompt, max_tokens: Some(limit), sampling, ..Request::default() };
    let generation = service.generate(request).expect("the request is within the limits");
    let token = |event| match event {
        Event::Token { id, .. } => Some(id),
        Event::Prefill { .. } | Event::Finished(_) => None,
    };
    generation.filter_map(|event| token(event.expect("the model works"))).collect()
}

fn reference(name: &str) -> Option<Value> {
    let text = std::fs::read_to_string(testdata(&format!("reference/{name}.json"))?);
    Some(serde_json::from_str(&text.expect("the reference can be read")).expect("the reference is JSON"))
}

/// Compares with the reference for each of its prompts.
fn check(model: &str, service: &Service, cases: &Value) {
    let cases = cases.as_array().expect("a list of prompts");
    assert!(!cases.is_empty());
    for case in cases {
        let text = case["prompt"].as_str().expect("a prompt");
        let prompt = service.encode(&Prompt::Text(text.into())).expect("the prompt can be spelled");
        assert_eq!(prompt, ids(&case["prompt_ids"]), "{model}: {text:?}");
        let expected = ids(&case["output_ids"]);
        let greedy = Sampling { temperature: 0.0, ..Sampling::default() };
        assert_eq!(tokens(service, prompt, expected.len(), greedy), expected, "{model}: {text:?}");
    }
}

#[test]
fn greedy_tokens_are_those_of_llama_cpp() {
    for model in ["stories260K-f32", "stories260K-F16", "TinyStories-656K-f32"] {
        let (Some(service), Some(reference)) = (load(model), reference(&format!("llamacpp/{model}"))) else {
            return;
        };
        check(model, &service, &reference["greedy"]);
    }
}

#[test]
fn folders_write_what_transformers_writes() {
    let Some(reference) = reference("hf_transformers") else { return };
    for (model, folder) in [("stories260K", "stories260K-hf"), ("TinyStories-656K", "TinyStories-656K")] {
        let Some(path) = testdata(&format!("hf/{folder}")) else { return };
        let service = Service::load(&path, None, None).expect("the model is loaded");
        assert_eq!(service.about().id, folder);
        check(model, &service, &reference["models"][model]["greedy"]);
        let quantize = Some("q8_0".parse().expect("a known name"));
        assert!(Service::load(&path, None, quantize).expect("the model is loaded").probe().is_ok());
    }
}

#[test]
fn a_seed_decides_what_is_drawn() {
    let Some(service) = load("stories260K-f32") else { return };
    let drawn = |seed| tokens(&service, vec![1, 403, 407], 32, Sampling { seed, ..Sampling::default() });
    assert_eq!(drawn(1), drawn(1));
    assert_ne!(drawn(1), drawn(2));
}
