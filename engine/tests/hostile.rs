//! Damaged files: whatever the bytes are, loading ends in a model or an error.

use std::io::Cursor;
use std::path::Path;

use wafer_engine::{Batch, Gguf, Model, Workspace};

fn demo() -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/demo.gguf")).expect("the demo model")
}

/// Loads a file and, if that works, takes one token through the model. A panic fails the test.
fn load(bytes: &[u8]) -> bool {
    let model = Gguf::open(Cursor::new(bytes)).and_then(|mut gguf| Model::load(&mut gguf));
    let Ok(model) = model else { return false };
    let mut session = model.session();
    let mut batch = [Batch { session: &mut session, tokens: &[1], outputs: 1 }];
    model.forward(&mut Workspace::new(1), &mut batch).is_ok()
}

#[test]
fn a_file_may_end_anywhere() {
    let bytes = demo();
    assert!(load(&bytes));
    let ends = (0..400).chain((400..bytes.len()).step_by(9973));
    for end in ends {
        assert!(!load(&bytes[..end]), "a file of {end} bytes");
    }
}

/// Flips bytes of the header, where every one means something: the fields before the vocabulary, and the table of
/// tensors behind it.
#[test]
fn any_byte_may_be_any_other() {
    let good = demo();
    let find = |name: &[u8], from: usize| {
        from + good[from..].windows(name.len()).position(|window| window == name).expect("an entry")
    };
    let fields = find(b"tokenizer.ggml.tokens", 0);
    let table =
        good.len() - good.windows(18).rev().position(|w| w == b"output_norm.weight").expect("an entry") - 18;
    let mut seed = 1_u32;
    for position in (0..fields).chain(table.saturating_sub(600)..table + 64) {
        let mut bytes = good.clone();
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        bytes[position] ^= (seed >> 24) as u8 | 1;
        load(&bytes);
        bytes[position] = 0xff;
        load(&bytes);
    }
}
