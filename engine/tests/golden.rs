//! The demo model's goldens: greedy tokens, and a digest of the logits that they were chosen from.
//!
//! The digest is equal only where every bit of every logit is. It has to be so with every family of kernels, on
//! every processor (this test also runs on emulated aarch64 and inside WebAssembly), however a prompt is cut into
//! passes, and whatever other sequences are decoded beside it. `models/demo.golden.json` says what is expected; the
//! end-to-end tests compare the component on several runtimes with the same file.

mod common;

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use common::argmax;
use serde::Deserialize;
use wafer_engine::kernels::Isa;
use wafer_engine::{Batch, Gguf, Model, Session, Workspace};
use xxhash_rust::xxh3::Xxh3;

#[derive(Deserialize)]
struct Golden {
    prompt_ids: Vec<u32>,
    output_ids: Vec<u32>,
    /// XXH3 (64 bits) of the logits' bits, in hexadecimal digits.
    logits_digest: String,
}

fn models() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../models")
}

fn demo() -> Model {
    let file = BufReader::new(File::open(models().join("demo.gguf")).expect("the demo model"));
    Model::load(&mut Gguf::open(file).expect("a GGUF header")).expect("a model")
}

fn goldens() -> Vec<Golden> {
    let text = std::fs::read_to_string(models().join("demo.golden.json")).expect("the goldens");
    let goldens: Vec<Golden> = serde_json::from_str(&text).expect("the goldens' format");
    assert!(goldens.len() > 2);
    goldens
}

/// A sequence on its way.
struct Running<'g> {
    golden: &'g Golden,
    session: Session,
    /// Prompt tokens computed.
    done: usize,
    output: Vec<u32>,
    digest: Xxh3,
}

impl<'g> Running<'g> {
    fn new(model: &Model, golden: &'g Golden) -> Self {
        Self { golden, session: model.session(), done: 0, output: Vec::new(), digest: Xxh3::new() }
    }

    /// What the next pass takes in, and whether its logits are wanted.
    fn input(&self, chunk: usize) -> (Vec<u32>, usize) {
        let rest = &self.golden.prompt_ids[self.done..];
        match self.output.last() {
            Some(&last) => (vec![last], 1),
            None if rest.len() > chunk => (rest[..chunk].to_vec(), 0),
            None => (rest.to_vec(), 1),
        }
    }

    fn is_over(&self) -> bool {
        self.output.len() == self.golden.output_ids.len()
    }

    /// Takes the logits of the next token in; none while the prompt goes on.
    fn take(&mut self, tokens: usize, logits: &[f32]) {
        if logits.is_empty() {
            self.done += tokens;
            return;
        }
        logits.iter().for_each(|logit| self.digest.update(&logit.to_le_bytes()));
        self.output.push(argmax(logits));
    }
}

/// Decodes all goldens, `beside` of them at a time, prompts in pieces of `chunk` tokens.
fn check(model: &Model, workspace: &mut Workspace, beside: usize, chunk: usize, what: &str) {
    let goldens = goldens();
    let mut waiting = goldens.iter();
    let mut running: Vec<Running<'_>> = Vec::new();
    let vocabulary = model.config().vocabulary;
    loop {
        running.retain(|one| !one.is_over());
        running
            .extend(waiting.by_ref().take(beside - running.len()).map(|golden| Running::new(model, golden)));
        if running.is_empty() {
            return;
        }
        let inputs: Vec<_> = running.iter().map(|one| one.input(chunk)).collect();
        let mut batch: Vec<Batch<'_>> = running
            .iter_mut()
            .zip(&inputs)
            .map(|(one, (tokens, outputs))| Batch { session: &mut one.session, tokens, outputs: *outputs })
            .collect();
        let mut logits = model.forward(workspace, &mut batch).expect("a forward pass");
        for (one, (tokens, outputs)) in running.iter_mut().zip(&inputs) {
            let (own, rest) = logits.split_at(outputs * vocabulary);
            logits = rest;
            one.take(tokens.len(), own);
            if one.is_over() {
                assert_eq!(one.output, one.golden.output_ids, "{what}");
                let digest = format!("{:016x}", one.digest.digest());
                assert_eq!(digest, one.golden.logits_digest, "{what}");
            }
        }
    }
}

#[test]
fn every_family_of_kernels_gives_the_bits() {
    let model = demo();
    for isa in Isa::available() {
        for threads in [1, 2] {
            let mut workspace = Workspace::with_isa(threads, isa);
            check(&model, &mut workspace, 1, usize::MAX, &format!("{isa:?}, {threads} threads"));
        }
    }
}

#[test]
fn the_cut_of_a_prompt_does_not_matter() {
    let model = demo();
    let mut workspace = Workspace::new(1);
    for chunk in [1, 5, 32] {
        check(&model, &mut workspace, 1, chunk, &format!("by {chunk}"));
    }
}

#[test]
fn other_sequences_do_not_matter() {
    let model = demo();
    for isa in Isa::available() {
        let mut workspace = Workspace::with_isa(2, isa);
        for (beside, chunk) in [(2, 3), (3, usize::MAX), (8, 2)] {
            check(&model, &mut workspace, beside, chunk, &format!("{isa:?}, {beside} at a time, by {chunk}"));
        }
    }
}
