//! Sequences of a real model, computed together, against the engine alone.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use wafer_engine::{Batch, Gguf, Model, Workspace};
use wafer_nn::{Context, Error, Graph, Limits, Options, Output, Rows, Step};

fn demo() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/demo.gguf")
}

fn graph(kv_bytes: u64, patience: Duration) -> Graph {
    let limits = Limits { kv_bytes, patience, queue: 100 };
    let options = Options { threads: 2, quantize: None, limits };
    Graph::load(&demo(), &options, &mut |_, _| {}).expect("the demo model is there")
}

/// A prompt of ordinary tokens that has its first `shared` tokens in common with the others.
fn prompt(length: u32, shared: u32, seed: u32) -> Vec<u32> {
    (0..length).map(|index| 300 + (index * 7 + if index < shared { 0 } else { seed }) % 400).collect()
}

fn likeliest(logits: &[f32]) -> u32 {
    let mut best = 0;
    for (id, logit) in logits.iter().enumerate() {
        if *logit > logits[best] {
            best = id;
        }
    }
    best as u32
}

/// Greedy tokens, and the logits that the last was chosen from, of the engine alone.
fn alone(model: &Model, prompt: &[u32], count: usize) -> (Vec<u32>, Vec<f32>) {
    let (mut workspace, mut session) = (Workspace::new(1), model.session());
    let (mut input, mut tokens) = (prompt.to_vec(), Vec::new());
    loop {
        let batch = &mut [Batch { session: &mut session, tokens: &input, outputs: 1 }];
        let logits = model.forward(&mut workspace, batch).expect("logits").to_vec();
        tokens.push(likeliest(&logits));
        if tokens.len() == count {
            return (tokens, logits);
        }
        input = vec![likeliest(&logits)];
    }
}

fn step(context: &mut Context, tokens: &[u32], position: usize, top: Option<usize>) -> Output {
    let step = Step { tokens: tokens.to_vec(), position, outputs: 1, top };
    context.compute_blocking(step).expect("an output")
}

/// The same from a sequence among others: all but the last token by the best logit alone.
fn together(graph: &Graph, prompt: &[u32], count: usize) -> (Vec<u32>, Vec<f32>) {
    let mut context = graph.context(0);
    let (mut input, mut position, mut tokens) = (prompt.to_vec(), 0, Vec::new());
    loop {
        let top = (tokens.len() + 1 < count).then_some(1);
        match step(&mut context, &input, position, top).rows {
            Rows::Top { ids, .. } => tokens.push(ids[0]),
            Rows::Logits(logits) => {
                tokens.push(likeliest(&logits));
                return (tokens, logits);
            }
        }
        position += input.len();
        input = tokens[tokens.len() - 1..].to_vec();
    }
}

#[test]
fn sequences_give_the_bits_of_each_alone() {
    let model = File::open(demo()).map(BufReader::new).expect("it is there");
    let model = Gguf::open(model).and_then(|mut gguf| Model::load(&mut gguf)).expect("a model");
    // With much memory, and with so little that sequences lose theirs to others.
    for kv_bytes in [1 << 30, graph(1 << 30, Duration::ZERO).shape().page_bytes as u64 * 20] {
        let graph = graph(kv_bytes, Duration::from_secs(60));
        thread::scope(|scope| {
            for seed in 0..16 {
                let (graph, model) = (&graph, &model);
                scope.spawn(move || {
                    let prompt = prompt(1 + seed * 23, 40, seed);
                    let found = together(graph, &prompt, 24);
                    assert!(found == alone(model, &prompt, 24), "sequence {seed} with {kv_bytes} bytes");
                });
            }
        });
    }
}

#[test]
fn a_conversation_is_computed_once() {
    let graph = graph(1 << 30, Duration::ZERO);
    let first = prompt(100, 0, 1);
    assert_eq!(step(&mut graph.context(7), &first, 0, None).cached, 0);
    let second = [&first[..], &prompt(30, 0, 2)].concat();
    assert_eq!(step(&mut graph.context(7), &second, 0, None).cached, 100);
    assert_eq!(step(&mut graph.context(8), &second, 0, None).cached, 0, "another tenant's");
}

#[tokio::test]
async fn what_is_dropped_is_freed() {
    let graph = graph(1 << 24, Duration::ZERO);
    for round in 0..2000 {
        let mut context = graph.context(0);
        let tokens = prompt(3 + round % 5, 0, round);
        let compute = context.compute(Step { tokens, position: 0, outputs: 1, top: Some(1) });
        if round % 3 == 0 {
            // Given up before it is computed.
            drop(tokio::time::timeout(Duration::ZERO, compute).await);
        } else {
            compute.await.expect("an output");
        }
    }
    let stats = graph.stats().await.expect("it runs");
    assert_eq!((stats.running, stats.waiting, stats.pages), (0, 0, stats.prefix_pages));
    assert!(stats.pages <= stats.most_pages, "{stats:?}");
}

#[test]
fn what_cannot_be_loaded_is_named() {
    let limits = Limits { kv_bytes: 1000, patience: Duration::ZERO, queue: 0 };
    let options = Options { threads: 1, quantize: None, limits };
    let load = |path: &str| Graph::load(Path::new(path), &options, &mut |_, _| {}).expect_err("an error");
    let error = load(demo().to_str().expect("a path"));
    assert!(matches!(&error, Error::Invalid(text) if text.contains("may have 1000 bytes")), "{error}");
    assert!(load("no/such.gguf").to_string().starts_with("no/such.gguf: "));
    assert!(load(env!("CARGO_MANIFEST_DIR")).to_string().starts_with(env!("CARGO_MANIFEST_DIR")));
}
