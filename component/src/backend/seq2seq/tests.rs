//! Logits against those of transformers, and the seam's promises, with the models in `tests/fixtures`.

use std::path::Path;

use serde_json::Value;

use super::*;

/// A fixture's model, and what transformers computed with it.
fn fixture(name: &str) -> (Seq2Seq, Vec<Value>) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name);
    let mut folder = Folder::open(&path).expect("the fixture can be opened");
    let expected = std::fs::read(path.join("expected.json")).expect("the fixture has its results");
    let mut expected: Value = serde_json::from_slice(&expected).expect("they are JSON");
    let outputs = expected["outputs"].take().as_array().expect("a list").clone();
    (Seq2Seq::load(&mut folder).expect("the fixture is a model"), outputs)
}

fn ids(value: &Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).expect("token ids")
}

/// `tolerance` is in parts of the largest logit.
fn check(what: &str, found: &[f32], expected: &Value, tolerance: f32) {
    let expected: Vec<f32> = serde_json::from_value(expected.clone()).expect("logits");
    assert_eq!(found.len(), expected.len(), "{what}");
    let largest = expected.iter().fold(0.0_f32, |largest, logit| largest.max(logit.abs()));
    let off = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(off <= tolerance * largest, "{what}: off by {off}, largest logit {largest}");
}

#[test]
fn logits_are_those_of_transformers() {
    for name in ["t5-tied", "t5-gated"] {
        let (model, outputs) = fixture(name);
        for output in &outputs {
            let (prompt, tokens) = (ids(&output["prompt_ids"]), ids(&output["ids"]));
            let mut sequence = model.start(&prompt).expect("a sequence");
            let first = sequence.forward(&prompt, 1).expect("logits");
            check(&format!("{name}: first"), first, &output["first_logits"], 1e-5);
            // All of the output but its last token, which nothing follows.
            for &token in &tokens[..tokens.len() - 1] {
                sequence.forward(&[token], 1).expect("logits");
            }
            assert_eq!(sequence.position(), prompt.len() + tokens.len() - 1);
            let last = sequence.forward(&[], 0).map(<[f32]>::to_vec).expect("nothing to do");
            assert!(last.is_empty());
            sequence.truncate(sequence.position() - 1);
            let last = sequence.forward(&tokens[tokens.len() - 2..tokens.len() - 1], 1).expect("logits");
            // Rounding adds up over the tokens in between.
            check(&format!("{name}: last"), last, &output["last_logits"], 1e-4);
        }
    }
}

#[test]
fn a_sequence_can_be_fed_and_cut_anywhere() {
    let (model, outputs) = fixture("t5-gated");
    let (prompt, tokens) = (ids(&outputs[0]["prompt_ids"]), ids(&outputs[0]["ids"]));
    let all: Vec<u32> = prompt.iter().chain(&tokens[..5]).copied().collect();
    let mut sequence = model.start(&prompt).expect("a sequence");
    let whole = sequence.forward(&all, 6).expect("logits").to_vec();
    let row = |position: usize| &whole[(position - prompt.len()) * model.vocabulary..][..model.vocabulary];
    for cut in [0, 1, prompt.len() - 1, prompt.len(), prompt.len() + 1, all.len() - 1, all.len(), 1000] {
        sequence.truncate(cut);
        let position = sequence.position();
        assert_eq!(position, cut.min(all.len()));
        for &token in &all[position..] {
            let inside = sequence.position() + 1 < prompt.len();
            let found = sequence.forward(&[token], usize::from(!inside)).expect("logits").to_vec();
            if !inside {
                assert_eq!(found, row(sequence.position()), "cut at {cut}, now {}", sequence.position());
            }
        }
    }
    sequence.truncate(0);
    assert!(sequence.forward(&prompt, 2).is_err(), "there are no logits inside a prompt");
    assert_eq!(sequence.position(), 0, "a failed pass changes nothing");
}

#[test]
fn a_prompts_beginning_cannot_be_kept() {
    let (mut model, _) = fixture("t5-tied");
    assert!(model.keep(&[1, 2]).is_err());
    assert!(!model.is_continuation());
}
