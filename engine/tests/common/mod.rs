//! Where the shared test data lies, and greedy decoding.
#![allow(dead_code, reason = "not every test needs everything")]

use std::path::PathBuf;

use wafer_engine::{Batch, Model, Session, Workspace};

/// The path of a file of the shared test data. Without that folder the test is 'ignored': this says so and
/// returns `None`; on CI it fails instead.
pub(crate) fn testdata(name: &str) -> Option<PathBuf> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/testdata");
    if root.is_dir() {
        return Some(root.join(name));
    }
    assert!(std::env::var_os("CI").is_none(), "the shared test data is missing: {}", root.display());
    eprintln!("ignored: {name} is not there");
    None
}

/// Appends tokens and returns the logits of the last.
pub(crate) fn forward(
    model: &Model,
    workspace: &mut Workspace,
    session: &mut Session,
    tokens: &[u32],
) -> Vec<f32> {
    let mut batch = [Batch { session, tokens, outputs: 1 }];
    model.forward(workspace, &mut batch).expect("a forward pass").to_vec()
}

/// The likeliest token, the first of equals.
pub(crate) fn argmax(logits: &[f32]) -> u32 {
    let best =
        logits.iter().enumerate().fold(0, |best, (i, logit)| if *logit > logits[best] { i } else { best });
    best as u32
}

/// Greedy tokens after `prompt`, the prompt taken in pieces of `chunk` tokens.
pub(crate) fn greedy(
    model: &Model,
    workspace: &mut Workspace,
    prompt: &[u32],
    count: usize,
    chunk: usize,
) -> Vec<u32> {
    let mut session = model.session();
    let mut logits = Vec::new();
    for piece in prompt.chunks(chunk) {
        logits = forward(model, workspace, &mut session, piece);
    }
    let mut output = Vec::new();
    while output.len() < count {
        let token = argmax(&logits);
        output.push(token);
        if output.len() < count {
            logits = forward(model, workspace, &mut session, &[token]);
        }
    }
    output
}
