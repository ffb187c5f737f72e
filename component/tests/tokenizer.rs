//! The tokenizers against llama.cpp, transformers and SentencePiece, and against files that lie.

use std::fs::{self, File};
use std::io::BufReader;
use std::path::{Path, PathBuf};

use serde_json::Value as Json;
use wafer_component::error::Error;
use wafer_component::tokenizer::Tokenizer;
use wafer_engine::gguf::{Gguf, Metadata, Value};

/// The shared test data; without it the test is skipped, except in CI.
fn testdata() -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/testdata");
    if path.is_dir() {
        return Some(path);
    }
    assert!(std::env::var_os("CI").is_none(), "CI needs the test data at {}", path.display());
    eprintln!("ignored: no test data at {}", path.display());
    None
}

fn open(path: &Path) -> Tokenizer {
    let gguf = Gguf::open(BufReader::new(File::open(path).unwrap())).unwrap();
    Tokenizer::from_gguf(gguf.metadata()).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn open_folder(path: &Path) -> Tokenizer {
    let json = fs::read(path.join("tokenizer.json")).unwrap();
    let config = fs::read(path.join("tokenizer_config.json")).unwrap();
    Tokenizer::from_json(&json, Some(&config)).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn json(path: &Path) -> Json {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn ids(json: &Json) -> Vec<u32> {
    serde_json::from_value(json.clone()).unwrap()
}

/// Encodes and compares; `what` names the case.
fn check(tokenizer: &Tokenizer, what: &str, text: &str, bos: bool, expected: &[u32]) {
    let found =
        tokenizer.encode(text, false, bos).unwrap_or_else(|error| panic!("{what}: {text:?}: {error}"));
    assert_eq!(found, expected, "{what}: {text:?}");
}

#[test]
fn the_vocabularies_of_llama_cpp() {
    let Some(data) = testdata() else { return };
    for name in ["bert-bge", "gpt-2", "llama-bpe", "llama-spm", "phi-3", "qwen2", "starcoder"] {
        let file = data.join(format!("vocab/ggml-vocab-{name}.gguf"));
        let tokenizer = open(&file);
        let texts = fs::read_to_string(file.with_extension("gguf.inp")).unwrap();
        let expected = fs::read_to_string(file.with_extension("gguf.out")).unwrap();
        let separator = "\n__ggml_vocab_test__\n";
        let texts: Vec<_> = texts.strip_suffix(separator).unwrap().split(separator).collect();
        assert_eq!(texts.len(), expected.lines().count());
        for (text, line) in texts.into_iter().zip(expected.lines()) {
            let expected: Vec<u32> = line.split_whitespace().map(|id| id.parse().unwrap()).collect();
            check(&tokenizer, name, text, false, &expected);
            // BERT's rules lose spaces, case and accents; SentencePiece puts a space before the text.
            let prefix = if matches!(name, "llama-spm" | "phi-3") && !text.is_empty() { " " } else { "" };
            if name != "bert-bge" {
                assert_eq!(tokenizer.decode(&expected), format!("{prefix}{text}"), "{name}");
            }
        }
    }
}

#[test]
fn the_ids_of_four_tokenizers() {
    let Some(data) = testdata() else { return };
    let reference = json(&data.join("reference/tokenizer_ids.json"));
    let texts: Vec<String> = serde_json::from_value(reference["texts"].clone()).unwrap();
    assert_eq!(texts.len(), 53);
    let models = data.join("models");
    let tiny_stories = open(&models.join("TinyStories-656K-f32.gguf"));
    let stories = open(&models.join("stories260K-f32.gguf"));
    let llama2 = open(&data.join("vocab/ggml-vocab-llama-spm.gguf"));
    let gpt2 = open(&data.join("vocab/ggml-vocab-gpt-2.gguf"));
    let folder = open_folder(&data.join("hf/TinyStories-656K"));
    let cases = [
        (&folder, "TinyStories-656K (HF tokenizers, tokenizer.json)"),
        (&tiny_stories, "TinyStories-656K (HF tokenizers, tokenizer.json)"),
        (&tiny_stories, "TinyStories-656K (llama.cpp, gguf/TinyStories-656K-f32.gguf)"),
        (&gpt2, "gpt2 (HF tokenizers, tiny-gpt2-MLegkovskis/tokenizer.json)"),
        (&stories, "tok512 (llama.cpp, gguf/stories260K-f32.gguf)"),
        (&llama2, "llama2 32000 (sentencepiece, tokenizers/llama2c/tokenizer.model)"),
    ];
    for (tokenizer, name) in cases {
        let expected = &reference["tokenizers"][name];
        for (index, text) in texts.iter().enumerate() {
            // llama.cpp aborted where there is no id.
            if !expected["ids"][index].is_null() {
                check(tokenizer, name, text, false, &ids(&expected["ids"][index]));
            }
            if expected["ids_with_special"].is_array() {
                check(tokenizer, name, text, true, &ids(&expected["ids_with_special"][index]));
            }
        }
    }
}

#[test]
fn the_prompts_of_every_reference_model() {
    let Some(data) = testdata() else { return };
    let mut seen = 0;
    for entry in fs::read_dir(data.join("reference/llamacpp")).unwrap() {
        let reference = json(&entry.unwrap().path());
        let file = Path::new(reference["model"].as_str().unwrap()).file_name().unwrap().to_owned();
        let tokenizer = open(&data.join("models").join(&file));
        for case in reference["greedy"].as_array().unwrap() {
            let name = file.to_str().unwrap();
            check(&tokenizer, name, case["prompt"].as_str().unwrap(), true, &ids(&case["prompt_ids"]));
            seen += 1;
        }
    }
    assert!(seen >= 100, "{seen} prompts");
}

/// A made-up file: (key without `tokenizer.ggml.`, value).
fn metadata(pairs: &[(&str, Value)]) -> Metadata {
    Metadata::new(pairs.iter().map(|(key, value)| (format!("tokenizer.ggml.{key}"), value.clone())).collect())
}

fn string(text: &str) -> Value {
    Value::String(text.to_owned())
}

fn strings(items: &[&str]) -> Value {
    Value::Array(items.iter().map(|item| string(item)).collect())
}

fn numbers(items: &[i32]) -> Value {
    Value::Array(items.iter().map(|&item| Value::I32(item)).collect())
}

fn floats(items: &[f32]) -> Value {
    Value::Array(items.iter().map(|&item| Value::F32(item)).collect())
}

/// A byte-level vocabulary of 256 bytes, then `more`.
fn byte_level(more: &[&str], kinds: &[i32], merges: &[&str], pre: &str) -> Vec<(&'static str, Value)> {
    let alphabet: Vec<String> = {
        let visible = |byte: u32| matches!(byte, 0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF);
        let mut next = 0x100..;
        (0..256)
            .map(|byte| if visible(byte) { byte } else { next.next().unwrap() })
            .map(|code| char::from_u32(code).unwrap().to_string())
            .collect()
    };
    let pieces: Vec<&str> = alphabet.iter().map(String::as_str).chain(more.iter().copied()).collect();
    let kinds: Vec<i32> = std::iter::repeat_n(1, 256).chain(kinds.iter().copied()).collect();
    vec![
        ("model", string("gpt2")),
        ("pre", string(pre)),
        ("tokens", strings(&pieces)),
        ("token_type", numbers(&kinds)),
        ("merges", strings(merges)),
    ]
}

#[test]
fn special_tokens_are_recognised_only_where_they_may_be() {
    let mut pairs = byte_level(
        &["he", "hel", "<|im_start|>", "<|im_end|>", "<tool>", "<tool>s", "[x]"],
        &[1, 1, 3, 3, 4, 4, 2],
        &["h e", "he l"],
        "gpt-2",
    );
    pairs.extend([("bos_token_id", Value::U32(258)), ("add_bos_token", Value::Bool(true))]);
    let tokenizer = Tokenizer::from_gguf(&metadata(&pairs)).unwrap();
    let byte = |byte: u8| u32::from(byte);
    let spelled: Vec<u32> = "<|im_end|>".bytes().map(byte).collect();
    assert_eq!(tokenizer.encode("<|im_end|>", false, false).unwrap(), spelled);
    assert_eq!(tokenizer.encode("<|im_end|>", true, false).unwrap(), [259]);
    assert_eq!(tokenizer.encode("hel<|im_end|>he[x]", true, true).unwrap(), [258, 257, 259, 256, 262]);
    // The longest name wins; user-defined tokens are always one.
    assert_eq!(tokenizer.encode("<tool>s<tool>", false, false).unwrap(), [261, 260]);
    // BOS is not doubled.
    assert_eq!(tokenizer.encode_chat("<|im_start|>he").unwrap(), [258, 256]);
    assert_eq!(tokenizer.encode_chat("he").unwrap(), [258, 256]);
    assert_eq!(tokenizer.encode_chat("").unwrap(), [258]);
    assert_eq!(tokenizer.encode("", true, true).unwrap(), [258]);

    assert_eq!((tokenizer.bos(), tokenizer.eos()), (Some(258), None));
    assert!(tokenizer.is_end(259) && !tokenizer.is_end(258));
    assert!(tokenizer.is_special(258) && tokenizer.is_special(262) && !tokenizer.is_special(260));
    assert_eq!(tokenizer.bytes(259), b"");
    assert_eq!(tokenizer.bytes(260), b"<tool>");
    assert_eq!(tokenizer.bytes(0xFF), [0xFF]);
    assert_eq!(
        (tokenizer.piece(257), tokenizer.id("hel"), tokenizer.vocabulary_size()),
        (Some("hel"), Some(257), 263)
    );
    assert_eq!(
        (tokenizer.piece(263), tokenizer.bytes(u32::MAX), tokenizer.id("")),
        (None, b"".as_slice(), None)
    );
    assert_eq!(tokenizer.decode(&[257, 0xE2, 0x82, 0xAC, 0xFF, 9999]), "hel€\u{FFFD}");
}

#[test]
fn end_tokens_are_known_by_name_and_by_key() {
    let Some(data) = testdata() else { return };
    let cases = [
        ("vocab/ggml-vocab-qwen2.gguf", vec!["<|endoftext|>", "<|im_end|>"], vec!["<|im_start|>", "!"]),
        ("vocab/ggml-vocab-llama-bpe.gguf", vec!["<|end_of_text|>", "<|eot_id|>"], vec!["<|begin_of_text|>"]),
        ("vocab/ggml-vocab-phi-3.gguf", vec!["<|end|>", "<|endoftext|>", "</s>"], vec!["<s>", "<|user|>"]),
        ("models/TinyStories-656K-f32.gguf", vec!["<|end_story|>"], vec!["<|start_story|>", "<unk>"]),
    ];
    for (file, ends, others) in cases {
        let tokenizer = open(&data.join(file));
        let is_end =
            |name: &&str| tokenizer.is_end(tokenizer.id(name).unwrap_or_else(|| panic!("{file}: {name}")));
        assert!(ends.iter().all(is_end), "{file}");
        assert!(!others.iter().any(is_end), "{file}");
        for name in ends {
            assert_eq!(tokenizer.bytes(tokenizer.id(name).unwrap()), b"", "{file}: {name}");
        }
    }
}

#[test]
fn unigram_takes_the_best_sum_of_scores() {
    let pieces = ["<pad>", "</s>", "<unk>", "▁", "a", "b", "▁a", "ab", "▁ab", "abc", "<extra>", "é"];
    let scores = [0.0, 0.0, 0.0, -2.0, -3.0, -3.0, -2.5, -2.0, -5.5, -1.0, 0.0, -4.0];
    let mut kinds = [1; 12];
    kinds[..3].copy_from_slice(&[3, 3, 2]);
    kinds[10] = 4;
    let mut pairs = vec![
        ("model", string("t5")),
        ("tokens", strings(&pieces)),
        ("scores", floats(&scores)),
        ("token_type", numbers(&kinds)),
        ("add_space_prefix", Value::Bool(true)),
        ("remove_extra_whitespaces", Value::Bool(true)),
    ];
    let tokenizer = Tokenizer::from_gguf(&metadata(&pairs)).unwrap();
    let cases: [(&str, &[u32]); 9] = [
        ("", &[1]),
        ("a", &[6, 1]),
        // ▁ + ab is worth −4, ▁a + b and ▁ab −5.5.
        ("ab", &[3, 7, 1]),
        ("  ab   a ", &[3, 7, 6, 1]),
        ("abc", &[3, 9, 1]),
        // A run of unknown characters is one token.
        ("xyz", &[3, 2, 1]),
        ("axa", &[6, 2, 4, 1]),
        ("a<extra>b", &[6, 10, 3, 5, 1]),
        ("</s>", &[3, 2, 1]),
    ];
    for (text, expected) in cases {
        check(&tokenizer, "unigram", text, true, expected);
    }
    assert_eq!(tokenizer.decode(&[6, 5, 8, 1]), " ab ab");

    // A charsmap with one rule, "A" to "a": the trie's root, its child for 'A', and the rule's value.
    let mut trie = vec![0_u32; 256];
    trie[0] = 1 << 10; // children at 1 ^ label
    trie[1 ^ 0x41] = 0x41 | 1 << 8 | (0x40 ^ 0x82) << 10;
    trie[0x82] = 1 << 31;
    let mut map: Vec<u8> = (trie.len() as u32 * 4).to_le_bytes().to_vec();
    map.extend(trie.iter().flat_map(|unit| unit.to_le_bytes()));
    map.extend(b"a\0");
    pairs.push(("precompiled_charsmap", Value::Array(map.into_iter().map(Value::U8).collect())));
    let tokenizer = Tokenizer::from_gguf(&metadata(&pairs)).unwrap();
    check(&tokenizer, "charsmap", "AbA", true, &[3, 7, 4, 1]);
}

#[test]
fn what_cannot_be_spelled_is_unknown_or_an_error() {
    let mut pairs = vec![("model", string("llama")), ("tokens", strings(&["▁", "a", "▁a", "<unk>"]))];
    let tokenizer = Tokenizer::from_gguf(&metadata(&pairs)).unwrap();
    // Without the key the unknown token is 0, whatever that is.
    check(&tokenizer, "no key", "aéé", false, &[2, 0]);
    pairs.push(("unknown_token_id", Value::U32(3)));
    check(&Tokenizer::from_gguf(&metadata(&pairs)).unwrap(), "with a key", "aééa", false, &[2, 3, 1]);
    pairs.pop();
    pairs.push(("unknown_token_id", Value::U32(u32::MAX)));
    let tokenizer = Tokenizer::from_gguf(&metadata(&pairs)).unwrap();
    let error = tokenizer.encode("aé", false, true).unwrap_err();
    assert!(matches!(error, Error::Invalid(_)), "{error:?}");
    assert!(error.to_string().contains("'é' (U+00E9)"), "{error}");

    let pairs = [
        ("model", string("gpt2")),
        ("tokens", strings(&["a", "Ġ", "Ã", "aa"])),
        ("merges", strings(&["a a"])),
    ];
    let tokenizer = Tokenizer::from_gguf(&metadata(&pairs)).unwrap();
    check(&tokenizer, "few bytes", "aaa a", false, &[3, 0, 1, 0]);
    let error = tokenizer.encode("aé", false, true).unwrap_err();
    assert!(error.to_string().contains("'é' (U+00E9)"), "{error}");
}

#[test]
fn files_that_lie_are_refused_by_key_and_value() {
    let good = byte_level(&["he", "hel", "<s>"], &[1, 1, 3], &["h e", "he l"], "gpt-2");
    let spm = vec![("model", string("llama")), ("tokens", strings(&["<unk>", "<s>", "</s>", "a"]))];
    Tokenizer::from_gguf(&metadata(&good)).unwrap();
    Tokenizer::from_gguf(&metadata(&spm)).unwrap();
    let long = "x".repeat(5000);
    /// The pairs to begin with, the key whose value is replaced, and what the error has to name.
    type Case<'a> = (&'a [(&'static str, Value)], &'static str, Option<Value>, &'a [&'static str]);
    let cases: Vec<Case<'_>> = vec![
        (&good, "model", None, &["tokenizer.ggml.model"]),
        (
            &good,
            "model",
            Some(string("rwkv")),
            &["tokenizer.ggml.model", "\"rwkv\"", "llama, gpt2, bert, t5"],
        ),
        (&good, "model", Some(Value::U32(1)), &["tokenizer.ggml.model"]),
        (&good, "pre", Some(string("pre-9")), &["tokenizer.ggml.pre", "\"pre-9\"", "qwen2"]),
        (&good, "tokens", None, &["tokenizer.ggml.tokens"]),
        (&good, "tokens", Some(numbers(&[1])), &["tokenizer.ggml.tokens"]),
        (&good, "tokens", Some(strings(&["a"])), &["tokenizer.ggml.token_type", "259", "1 tokens"]),
        (&good, "merges", None, &["tokenizer.ggml.merges"]),
        (&good, "merges", Some(strings(&["h e", "x qq"])), &["tokenizer.ggml.merges[1]", "\"qq\""]),
        (&good, "merges", Some(strings(&["a b"])), &["tokenizer.ggml.merges[0]", "\"ab\""]),
        (&good, "merges", Some(strings(&["ab"])), &["tokenizer.ggml.merges[0]", "\"ab\""]),
        (&good, "merges", Some(strings(&[""])), &["tokenizer.ggml.merges[0]"]),
        (&good, "merges", Some(strings(&["h "])), &["tokenizer.ggml.merges[0]"]),
        (&good, "bos_token_id", Some(Value::U32(259)), &["tokenizer.ggml.bos_token_id", "259"]),
        (&good, "eos_token_id", Some(Value::I32(-5)), &["tokenizer.ggml.eos_token_id"]),
        (&good, "eot_token_id", Some(Value::U64(1 << 40)), &["tokenizer.ggml.eot_token_id"]),
        (&good, "add_bos_token", Some(Value::Bool(true)), &["tokenizer.ggml.add_bos_token"]),
        (&good, "add_bos_token", Some(string("yes")), &["tokenizer.ggml.add_bos_token"]),
        (&spm, "scores", Some(floats(&[1.0])), &["tokenizer.ggml.scores", "1", "4 tokens"]),
        (&spm, "scores", Some(strings(&["1"])), &["tokenizer.ggml.scores"]),
        (&spm, "tokens", Some(strings(&["a", "b", "a"])), &["0 and 2", "\"a\""]),
        (&spm, "tokens", Some(strings(&[&long])), &["5000", "4096"]),
    ];
    for (pairs, key, value, named) in cases {
        let mut pairs: Vec<_> = pairs.iter().filter(|(other, _)| *other != key).cloned().collect();
        pairs.extend(value.map(|value| (key, value)));
        let error = Tokenizer::from_gguf(&metadata(&pairs)).expect_err(key);
        assert!(matches!(error, Error::Model(_)), "{key}: {error:?}");
        for part in named {
            assert!(error.to_string().contains(part), "{key}: {error}");
        }
    }
    // No key at all, and tokens without any text.
    assert!(Tokenizer::from_gguf(&metadata(&[])).is_err());
    let empty = metadata(&[("model", string("llama")), ("tokens", strings(&["", "", "a"]))]);
    assert_eq!(Tokenizer::from_gguf(&empty).unwrap().id("a"), Some(2));
}

#[test]
fn a_charsmap_may_be_anything() {
    let base = [("model", string("t5")), ("tokens", strings(&["<pad>", "</s>", "<unk>", "▁", "a"]))];
    let maps: [Vec<u8>; 6] = [
        vec![],
        vec![1, 2],
        vec![255; 40],
        [4_u32.to_le_bytes(), [255; 4], *b"abcd"].concat(),
        [0_u32.to_le_bytes(), [255; 4]].concat(),
        // Every unit is a rule for its own position that points far away.
        [vec![0, 4, 0, 0], (0..256_u32).flat_map(|n| (n | 1 << 8 | 0xFFFF << 10).to_le_bytes()).collect()]
            .concat(),
    ];
    for map in maps {
        let map = Value::Array(map.into_iter().map(Value::U8).collect());
        let pairs: Vec<_> = base.iter().cloned().chain([("precompiled_charsmap", map)]).collect();
        match Tokenizer::from_gguf(&metadata(&pairs)) {
            Ok(tokenizer) => drop(tokenizer.encode("a é\0\u{1}🦙", true, true).unwrap()),
            Err(error) => assert!(error.to_string().contains("precompiled_charsmap"), "{error}"),
        }
    }
}

/// Long texts without a break are the worst case of every model; a quadratic one would not end.
#[test]
fn long_texts_take_linear_time() {
    let bpe =
        byte_level(&["aa", "aaaa", "ĠĠ", "ĠĠĠĠ"], &[1; 4], &["a a", "aa aa", "Ġ Ġ", "ĠĠ ĠĠ"], "llama-bpe");
    let pieces = ["<unk>", "<s>", "</s>", "▁", "a", "aa", "aaaa", "▁▁", "▁▁▁▁"];
    let model = |name: &str| vec![("model", string(name)), ("tokens", strings(&pieces))];
    let cases =
        [("bpe", bpe), ("spm", model("llama")), ("unigram", model("t5")), ("wordpiece", model("bert"))];
    let texts = [
        "a".repeat(1_000_000),
        " ".repeat(1_000_000),
        "a ".repeat(500_000),
        "\n".repeat(1_000_000),
        "a1".repeat(500_000),
        "<s>".repeat(300_000),
        "🦙".repeat(250_000),
        "é\u{301}".repeat(250_000),
    ];
    for (name, mut pairs) in cases {
        for (key, id) in [("unknown_token_id", 0), ("bos_token_id", 1), ("seperator_token_id", 2)] {
            pairs.push((key, Value::U32(id)));
        }
        let tokenizer = Tokenizer::from_gguf(&metadata(&pairs)).unwrap();
        for text in &texts {
            let start = std::time::Instant::now();
            let ids = tokenizer.encode(text, true, false).unwrap();
            eprintln!(
                "{name}, {:?}…: {} tokens in {:?}",
                &text[..text.ceil_char_boundary(3)],
                ids.len(),
                start.elapsed()
            );
        }
    }
}

#[test]
fn a_folder_that_lies_is_refused() {
    let good = r#"{"version": "1.0", "added_tokens": [{"id": 3, "content": "<s>", "single_word": false, "lstrip": false,
        "rstrip": false, "normalized": false, "special": true}], "normalizer": null, "pre_tokenizer": null,
        "post_processor": null, "decoder": null, "truncation": null, "padding": null,
        "model": {"type": "WordLevel", "vocab": {"a": 0, "b": 1, "[UNK]": 2}, "unk_token": "[UNK]"}}"#;
    let config = r#"{"bos_token": {"content": "<s>"}, "eos_token": null, "add_bos_token": true}"#;
    let tokenizer = Tokenizer::from_json(good.as_bytes(), Some(config.as_bytes())).unwrap();
    check(&tokenizer, "folder", "a", true, &[3, 0]);
    assert_eq!(tokenizer.encode("<s>b", true, false).unwrap(), [3, 1]);
    assert_eq!(tokenizer.encode("<s>", false, false).unwrap(), [2]);
    assert_eq!(tokenizer.encode_chat("<s>b").unwrap(), [3, 1]);
    assert_eq!((tokenizer.bos(), tokenizer.eos()), (Some(3), None));
    let cases = [
        ("", None, "tokenizer.json"),
        ("{}", None, "tokenizer.json"),
        (good, Some("["), "tokenizer_config.json"),
        (good, Some(r#"{"eos_token": "</s>"}"#), "eos_token"),
        (&good.replace("\"b\": 1", "\"b\": 4294967290"), None, "4294967290"),
        (&good.replace("\"b\": 1", "\"b\": -1"), None, "tokenizer.json"),
    ];
    for (json, config, named) in cases {
        let error = Tokenizer::from_json(json.as_bytes(), config.map(str::as_bytes)).expect_err(named);
        assert!(matches!(&error, Error::Model(message) if message.contains(named)), "{error:?}");
    }
}

/// What building a large vocabulary costs; only printed.
#[test]
fn building_a_large_vocabulary() {
    let Some(data) = testdata() else { return };
    for name in ["qwen2", "llama-bpe", "llama-spm", "bert-bge"] {
        let path = data.join(format!("vocab/ggml-vocab-{name}.gguf"));
        let gguf = Gguf::open(BufReader::new(File::open(path).unwrap())).unwrap();
        let start = std::time::Instant::now();
        let tokenizer = Tokenizer::from_gguf(gguf.metadata()).unwrap();
        eprintln!("{name}: {} tokens in {:?}", tokenizer.vocabulary_size(), start.elapsed());
    }
}
