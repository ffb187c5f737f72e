//! Speed of the engine alone: `cargo bench -p wafer-engine -- MODEL.gguf [THREADS]`.
//!
//! Prints seconds to load, tokens/s of prefill (128 tokens at once) and of decode (64 tokens after them), the
//! best of several rounds as other work on the machine only ever slows a round down.
#![allow(clippy::print_stdout, reason = "a benchmark's results are its output")]

use std::fs::File;
use std::io::BufReader;
use std::time::Instant;

use wafer_engine::kernels::Isa;
use wafer_engine::{Batch, Error, Gguf, Model, Session, Workspace};

const PREFILL: usize = 128;
const DECODE: usize = 64;
const ROUNDS: usize = 5;

fn main() -> Result<(), Error> {
    // `cargo bench` adds `--bench`.
    let mut arguments = std::env::args().skip(1).filter(|argument| !argument.starts_with("--"));
    let Some(path) = arguments.next() else {
        println!("usage: cargo bench -p wafer-engine -- MODEL.gguf [THREADS]");
        return Ok(());
    };
    let threads = arguments.next().and_then(|threads| threads.parse().ok()).unwrap_or(1);

    let start = Instant::now();
    let model = Model::load(&mut Gguf::open(BufReader::new(File::open(&path)?))?)?;
    let load = start.elapsed().as_secs_f64();
    let mut workspace = Workspace::new(threads);
    let vocabulary = model.config().vocabulary as u32;
    let prompt: Vec<u32> = (0..PREFILL as u32).map(|i| i * 97 % vocabulary).collect();
    let (mut prefill, mut decode) = (0.0_f64, 0.0_f64);
    for _ in 0..ROUNDS {
        let mut session = model.session();
        let start = Instant::now();
        step(&model, &mut workspace, &mut session, &prompt)?;
        prefill = prefill.max(PREFILL as f64 / start.elapsed().as_secs_f64());
        let start = Instant::now();
        for i in 0..DECODE as u32 {
            step(&model, &mut workspace, &mut session, &[i * 89 % vocabulary])?;
        }
        decode = decode.max(DECODE as f64 / start.elapsed().as_secs_f64());
    }
    let megabytes = model.bytes() / (1 << 20);
    let isa = Isa::current().name();
    println!(
        "{path}: {isa}, {threads} threads, {megabytes} MiB, load {load:.3} s, prefill {prefill:.1} tokens/s, decode {decode:.1} tokens/s"
    );
    Ok(())
}

fn step(
    model: &Model,
    workspace: &mut Workspace,
    session: &mut Session,
    tokens: &[u32],
) -> Result<(), Error> {
    model.forward(workspace, &mut [Batch { session, tokens, outputs: 1 }]).map(|_| ())
}
