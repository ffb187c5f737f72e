//! What tests share: a small vocabulary, a model that says one sentence, a platform that stands still.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use wafer_engine::gguf::{Metadata, Value};

use crate::backend::scripted::{Record, Scripted};
use crate::platform::Platform;
use crate::service::{About, Service};
use crate::template::Template;
use crate::tokenizer::Tokenizer;

/// Token ids: the end of a text, the byte 0, and words.
pub(crate) const EOS: u32 = 2;
pub(crate) const BYTE: u32 = 3;
pub(crate) const ONCE: u32 = 259;
pub(crate) const UPON: u32 = 260;
pub(crate) const A: u32 = 261;
pub(crate) const TIME: u32 = 262;
pub(crate) const DOT: u32 = 263;
pub(crate) const VOCABULARY: usize = 264;

/// Prompt and output together.
pub(crate) const CONTEXT: usize = 300;

/// A SentencePiece vocabulary: three control tokens, all bytes, five words that prompts do not hold.
pub(crate) fn tokenizer() -> Tokenizer {
    let (unknown, control, byte, normal) = (2, 3, 6, 1);
    let mut entries = vec![("<unk>".to_owned(), unknown), ("<s>".into(), control), ("</s>".into(), control)];
    entries.extend((0..=255).map(|value: u8| (format!("<0x{value:02X}>"), byte)));
    entries.extend(["▁Once", "▁upon", "▁a", "▁time", "."].map(|piece| (piece.to_owned(), normal)));
    let strings = entries.iter().map(|(piece, _)| Value::String(piece.clone())).collect();
    let kinds = entries.iter().map(|&(_, kind)| Value::I32(kind)).collect();
    let scores = entries.iter().map(|_| Value::F32(0.0)).collect();
    let pairs = [
        ("tokenizer.ggml.model", Value::String("llama".into())),
        ("tokenizer.ggml.tokens", Value::Array(strings)),
        ("tokenizer.ggml.token_type", Value::Array(kinds)),
        ("tokenizer.ggml.scores", Value::Array(scores)),
        ("tokenizer.ggml.bos_token_id", Value::U32(1)),
        ("tokenizer.ggml.eos_token_id", Value::U32(EOS)),
        ("tokenizer.ggml.add_space_prefix", Value::Bool(false)),
    ];
    let pairs: HashMap<String, Value> =
        pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    Tokenizer::from_gguf(&Metadata::new(pairs)).expect("the fixture's vocabulary is one")
}

/// A model that says "Once upon a time." and ends.
pub(crate) fn storyteller() -> Scripted {
    Scripted::chain(VOCABULARY, CONTEXT, &[ONCE, UPON, A, TIME, DOT, EOS])
}

/// A service around a backend. Its template writes the messages' contents, one after the other.
pub(crate) fn service(backend: Scripted) -> (Service, Rc<Record>) {
    let record = Rc::clone(&backend.record);
    let source = "{% for message in messages %}{{ message.content }}{% endfor %}";
    let template = Template::new(source, "<s>", "</s>").expect("the fixture's template is one");
    let about = About { id: "tiny".into(), architecture: "llama".into(), created: 1_600_000_000 };
    let service = Service::new(about, tokenizer(), template, Box::new(backend));
    (service.expect("the fixture's parts fit"), record)
}

/// A platform whose time and random numbers are always the same, and that remembers what it was told.
#[derive(Debug, Default)]
pub(crate) struct Still {
    pub(crate) pauses: Cell<usize>,
    pub(crate) lines: RefCell<Vec<String>>,
}

impl Platform for Still {
    fn seconds(&self) -> u64 {
        1_700_000_000
    }

    fn random(&self) -> u64 {
        0xAB
    }

    fn pause(&self) {
        self.pauses.set(self.pauses.get() + 1);
    }

    fn log(&self, line: &str) {
        self.lines.borrow_mut().push(line.to_owned());
    }
}
