//! Encoders and encoder-decoders against what transformers and sentence-transformers compute: the models in
//! `fixtures/`, which are part of the repository (`fixtures/make.py` writes them), and the shared test data.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;
use wafer_component::encoder::Task;
use wafer_component::error::Error;
use wafer_component::generate::{Event, MaxTokens, Request};
use wafer_component::sampler::Sampling;
use wafer_component::service::{Embedding, Input, Prompt, Service, TooLong};

/// How far a value may be off, in parts of the largest one.
const TOLERANCE: f64 = 1e-5;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn json_of(path: &Path) -> Value {
    let text = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_slice(&text).expect("JSON")
}

fn load(path: &Path) -> Service {
    Service::load(path, None, None).unwrap_or_else(|error| panic!("{error}"))
}

fn floats(value: &Value) -> Vec<f64> {
    serde_json::from_value(value.clone()).expect("numbers")
}

fn texts(expected: &Value) -> Vec<&str> {
    expected["texts"].as_array().expect("texts").iter().filter_map(Value::as_str).collect()
}

/// Vectors and numbers of tokens of some inputs, or why there are none.
fn embedded(service: &Service, inputs: &[Input<'_>], too_long: TooLong) -> Result<Vec<Embedding>, Error> {
    service.embed(inputs, too_long)?.collect()
}

/// Compares vectors.
fn check(what: &str, found: &[f32], expected: &[f64]) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let largest = expected.iter().fold(0.0_f64, |largest, value| largest.max(value.abs()));
    let off = found.iter().zip(expected).map(|(&a, b)| (f64::from(a) - b).abs()).fold(0.0, f64::max);
    assert!(off <= TOLERANCE * largest, "{what}: off by {off}, largest value {largest}");
}

#[test]
fn vectors_are_those_of_sentence_transformers() {
    for name in ["bert-mean", "bert-cls", "xlm-roberta-mean"] {
        let (service, expected) = (load(&fixture(name)), json_of(&fixture(name).join("expected.json")));
        assert_eq!(service.task(), Some(Task::Embed));
        let texts = texts(&expected);
        let inputs: Vec<Input> = texts.iter().map(|text| Input::Text(text)).collect();
        let found = embedded(&service, &inputs, TooLong::Refuse).expect("texts within the limit");
        assert_eq!(found.len(), texts.len());
        for (index, embedding) in found.iter().enumerate() {
            let what = format!("{name}: {:?}", texts[index]);
            check(&what, &embedding.vector, &floats(&expected["embeddings"][index]));
            assert_eq!(Some(embedding.tokens), expected["ids"][index].as_array().map(Vec::len), "{what}");
        }
    }
}

#[test]
fn labels_are_those_of_a_pipeline() {
    for name in ["distilbert-sst2", "bert-topics", "roberta-toxic"] {
        let (service, expected) = (load(&fixture(name)), json_of(&fixture(name).join("expected.json")));
        assert_eq!(service.task(), Some(Task::Classify));
        let texts = texts(&expected);
        let inputs: Vec<Input> = texts.iter().map(|text| Input::Text(text)).collect();
        let found = service.classify(&inputs, TooLong::Refuse).expect("texts within the limit");
        for (index, answer) in found.enumerate() {
            let answer = json!(answer.expect("the model works").labels);
            let (answer, expected) = (answer.as_array(), expected["labels"][index].as_array());
            let part = |labels: Option<&Vec<Value>>, key: &str| -> Vec<Value> {
                labels.expect("labels").iter().map(|label| label[key].clone()).collect()
            };
            assert_eq!(part(answer, "label"), part(expected, "label"), "{name}: {:?}", texts[index]);
            let scores = floats(&json!(part(answer, "score")));
            let scores: Vec<f32> = scores.iter().map(|&score| score as f32).collect();
            check(name, &scores, &floats(&json!(part(expected, "score"))));
        }
    }
}

/// Tokens and text that follow a prompt.
fn generated(service: &Service, prompt: Vec<u32>, count: u64) -> (Vec<u32>, String) {
    let limit = MaxTokens { name: "max_tokens", tokens: count, with_prompt: false, strict: true };
    let sampling = Sampling { temperature: 0.0, ..Sampling::default() };
    let request = Request { prompt, max_tokens: Some(limit), sampling, ..Request::default() };
    let (mut ids, mut text) = (Vec::new(), String::new());
    for event in service.generate(request).expect("the request is within the limits") {
        if let Event::Token { id, text: released, .. } = event.expect("the model works") {
            ids.push(id);
            text.push_str(&released);
        }
    }
    (ids, text)
}

#[test]
fn t5_writes_what_transformers_writes() {
    for name in ["t5-tied", "t5-gated"] {
        let (service, expected) = (load(&fixture(name)), json_of(&fixture(name).join("expected.json")));
        let outputs = expected["outputs"].as_array().expect("outputs");
        for (text, output) in texts(&expected).into_iter().zip(outputs) {
            let prompt = service.encode(&Prompt::Text(text.into())).expect("a prompt");
            assert_eq!(json!(prompt), output["prompt_ids"], "{name}: {text:?}");
            let (ids, written) = generated(&service, prompt, 40);
            assert_eq!(json!(ids), output["ids"], "{name}: {text:?}");
            assert_eq!(json!(written), output["text"], "{name}: {text:?}");
        }
    }
}

#[test]
fn hidden_states_are_those_of_torch() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/testdata/hf/tiny-random");
    if !root.is_dir() {
        assert!(std::env::var_os("CI").is_none(), "the shared test data is missing: {}", root.display());
        eprintln!("ignored: {} is not there", root.display());
        return;
    }
    let ids: Vec<u32> =
        serde_json::from_value(json_of(&root.join("expected.json"))["input_ids"].clone()).unwrap();
    for name in ["bert", "distilbert"] {
        let file = fs::read(root.join(name).join("expected.npy")).expect("the reference can be read");
        // A header of text, then rows of f32: version 1 of the format.
        let start = 10 + usize::from(u16::from_le_bytes([file[8], file[9]]));
        let values = file[start..].chunks_exact(4);
        let values: Vec<f64> =
            values.map(|b| f64::from(f32::from_le_bytes([b[0], b[1], b[2], b[3]]))).collect();
        let width = values.len() / ids.len();
        let mean = |column: usize| values.iter().skip(column).step_by(width).sum::<f64>() / ids.len() as f64;
        let service = load(&root.join(name));
        let found = embedded(&service, &[Input::Tokens(&ids)], TooLong::Refuse).expect("the model works");
        check(name, &found[0].vector, &(0..width).map(mean).collect::<Vec<_>>());
        let error =
            embedded(&service, &[Input::Tokens(&[2048])], TooLong::Refuse).expect_err("no such token");
        assert_eq!(error.to_string(), "input has token 2048, the vocabulary has 2048 tokens");
    }
}

#[test]
fn long_texts_are_refused_or_cut() {
    let service = load(&fixture("bert-mean"));
    let (limit, long) = (service.context_length(), "cat ".repeat(1000));
    let error = embedded(&service, &[Input::Text("ok"), Input::Text(&long)], TooLong::Refuse);
    let error = error.expect_err("it is too long");
    assert!(matches!(error, Error::Parameter { .. }), "{error:?}");
    assert_eq!(error.to_string(), "input is 1002 tokens, model limit is 320");
    let cut = embedded(&service, &[Input::Text(&long)], TooLong::Truncate).expect("it is cut");
    let fits = "cat ".repeat(limit - 2);
    assert_eq!(cut, embedded(&service, &[Input::Text(&fits)], TooLong::Refuse).expect("it fits"));
    let error = embedded(&service, &[Input::Tokens(&[])], TooLong::Truncate).expect_err("there is nothing");
    assert_eq!(error.to_string(), "input has no tokens");
}

#[test]
fn what_a_model_cannot_do_is_said() {
    let invalid = |error: Option<Error>, expected: &str| {
        let error = error.expect("it cannot do that");
        assert!(matches!(error, Error::Invalid(_)), "{error:?}");
        assert_eq!(error.to_string(), expected);
    };
    let (vectors, labels, text) =
        (load(&fixture("bert-cls")), load(&fixture("distilbert-sst2")), load(&fixture("t5-tied")));
    let (input, refuse) = (&[Input::Text("a")], TooLong::Refuse);
    let prompt = Request { prompt: vec![1], ..Request::default() };
    invalid(vectors.generate(prompt.clone()).err(), "architecture bert makes vectors, it generates no text");
    invalid(labels.generate(prompt).err(), "architecture distilbert makes labels, it generates no text");
    invalid(
        labels.embed(input, refuse).err(),
        "this model of architecture distilbert makes labels, not vectors",
    );
    invalid(
        vectors.classify(input, refuse).err(),
        "this model of architecture bert makes vectors, not labels",
    );
    invalid(text.embed(input, refuse).err(), "architecture t5 generates text, it makes no vectors");
    assert_eq!(text.task(), None);
    for service in [vectors, labels, text] {
        assert!(service.probe().is_ok());
    }
    let quantize = Some("q8_0".parse().expect("a known name"));
    for name in ["bert-cls", "t5-tied"] {
        let error = Service::load(&fixture(name), None, quantize).err().expect("it is refused").to_string();
        assert!(error.contains("cannot be quantised"), "{error}");
    }
}

/// A copy of a fixture with other settings in its config.json.
fn changed(name: &str, settings: &Value) -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary directory");
    for file in fs::read_dir(fixture(name)).expect("the fixture").flatten() {
        if file.path().is_file() {
            fs::copy(file.path(), folder.path().join(file.file_name())).expect("a copy");
        }
    }
    let path = folder.path().join("config.json");
    let mut config = json_of(&path);
    for (key, value) in settings.as_object().expect("an object") {
        config[key] = value.clone();
    }
    fs::write(path, config.to_string()).expect("it is written");
    folder
}

fn check_refused(what: &str, folder: &Path, expected: &str) {
    let error = Service::load(folder, None, None).err().unwrap_or_else(|| panic!("{what} was loaded"));
    assert!(matches!(error, Error::Model(_)), "{what}: {error:?}");
    assert!(error.to_string().contains(expected), "{what}: {expected:?} is not in {error}");
}

#[test]
fn senseless_settings_are_refused() {
    let large = u64::from(u32::MAX - 1);
    for (model, settings, expected) in [
        ("bert-mean", json!({"num_attention_heads": 0}), "num_attention_heads is 0"),
        ("bert-mean", json!({"num_attention_heads": 3}), "3 heads do not divide a hidden size of 16"),
        ("bert-mean", json!({"num_attention_heads": large}), "do not divide"),
        ("bert-mean", json!({"hidden_size": large}), "has the shape [96, 16]"),
        ("bert-mean", json!({"hidden_size": "16"}), "config.json cannot be used"),
        ("bert-mean", json!({"num_hidden_layers": large}), "tensor encoder.layer.2."),
        ("bert-mean", json!({"vocab_size": 95}), "the model's sizes call for [95, 16]"),
        ("bert-mean", json!({"max_position_embeddings": 512}), "call for [512, 16]"),
        ("bert-mean", json!({"type_vocab_size": 0}), "type_vocab_size is 0"),
        ("bert-mean", json!({"intermediate_size": 25}), "call for [25, 16]"),
        ("bert-mean", json!({"layer_norm_eps": -1}), "layer_norm_eps is -1"),
        ("bert-mean", json!({"hidden_act": "swish"}), "activation \"swish\""),
        ("bert-mean", json!({"position_embedding_type": "relative_key"}), "relative_key"),
        ("bert-mean", json!({"is_decoder": true}), "is_decoder"),
        ("bert-mean", json!({"architectures": ["BertForTokenClassification"]}), "BertForTokenClassification"),
        ("bert-mean", json!({"model_type": "mamba"}), "architecture \"mamba\", known are llama"),
        ("xlm-roberta-mean", json!({"pad_token_id": 319}), "leaves none after pad_token_id 319"),
        ("xlm-roberta-mean", json!({"pad_token_id": u64::MAX}), "max_position_embeddings 320"),
        ("distilbert-sst2", json!({"n_heads": 5}), "5 heads"),
        ("distilbert-sst2", json!({"id2label": {"0": "A"}}), "1 names, the model 2 labels"),
        ("distilbert-sst2", json!({"id2label": {"0": "A", "2": "B"}}), "no name for 1"),
        ("distilbert-sst2", json!({"problem_type": "regression"}), "regression"),
        ("t5-tied", json!({"d_kv": u64::MAX}), "heads of length"),
        ("t5-tied", json!({"d_kv": 0}), "d_kv is 0"),
        ("t5-tied", json!({"num_decoder_layers": 3}), "tensor decoder.block.2."),
        ("t5-tied", json!({"num_layers": large}), "tensor encoder.block.2."),
        ("t5-tied", json!({"relative_attention_num_buckets": 2}), "relative_attention_num_buckets is 2"),
        ("t5-tied", json!({"relative_attention_num_buckets": 64}), "has the shape [32, 2]"),
        ("t5-tied", json!({"relative_attention_max_distance": 8}), "relative_attention_max_distance is 8"),
        ("t5-tied", json!({"feed_forward_proj": "gated-relu"}), "gated-relu"),
        ("t5-tied", json!({"feed_forward_proj": "gated-gelu"}), "wi_0.weight is missing"),
        ("t5-tied", json!({"decoder_start_token_id": 500}), "decoder_start_token_id is 500"),
    ] {
        check_refused(&format!("{model} with {settings}"), changed(model, &settings).path(), expected);
    }
}

#[test]
fn broken_tensors_are_refused() {
    for model in ["bert-mean", "distilbert-sst2", "t5-gated"] {
        let folder = changed(model, &json!({}));
        let path = folder.path().join("model.safetensors");
        let whole = fs::read(&path).expect("the weights");
        let header = 8 + u64::from_le_bytes(whole[..8].try_into().expect("eight bytes")) as usize;
        let cut = |length: usize| whole[..length].to_vec();
        // The first tensor's first element becomes a NaN, in bf16 as in f16.
        let nan = [&whole[..header], &[0xff, 0x7f], &whole[header + 2..]].concat();
        // Names of the same length, so that the header's length stays.
        let text = String::from_utf8_lossy(&whole[8..header]).replace("LayerNorm", "LayerNorn");
        let text = text.replace("layer_norm", "layer_norn");
        let renamed = [&whole[..8], text.as_bytes(), &whole[header..]].concat();
        for (what, bytes, expected) in [
            ("truncated data", cut(whole.len() - 1), "bytes of tensors, the file has"),
            ("truncated header", cut(header - 1), "header"),
            ("no header", cut(4), "model.safetensors"),
            ("nothing", Vec::new(), "model.safetensors"),
            ("a NaN", nan, "holds NaN at 0"),
            ("missing tensors", renamed, "is missing"),
        ] {
            fs::write(&path, bytes).expect("it is written");
            check_refused(&format!("{model} with {what}"), folder.path(), expected);
        }
    }
}
