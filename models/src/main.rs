//! Makes the demo model: text, vocabulary, training, and the GGUF that `wafer` carries.
//!
//! Everything follows from the seed and the number of steps. The file is written anew at every
//! evaluation, so a run that is interrupted leaves a model that works. Progress goes to standard
//! output as a Markdown table, which is the loss curve in `models/README.md`.
#![allow(clippy::print_stdout, reason = "a command whose result is what it prints")]

mod chat;
mod corpus;
mod gguf;
mod model;
mod ops;
mod sample;
mod story;
mod tokenizer;
mod train;

use anyhow::{Context, Result, bail};
use corpus::{HeldOut, Stream};
use model::{Config, Model};
use rand::SeedableRng;
use rand_pcg::Pcg64Mcg;
use std::fs::File;
use std::path::PathBuf;
use tokenizer::{END_OF_TURN, Vocabulary};
use train::{Schedule, evaluate, train};

const USAGE: &str = "usage: wafer-demo-model [--out FILE] [--steps N] [--seed N]";

/// Documents kept for measuring, and the length of their windows.
const HELD_OUT_DOCUMENTS: usize = 400;
const HELD_OUT_WINDOW: usize = 256;
/// Windows measured at each evaluation; the final one takes all.
const EVALUATED: usize = 24;

/// What the command line says.
struct Arguments {
    out: PathBuf,
    steps: usize,
    seed: u64,
}

impl Arguments {
    fn parse(mut words: impl Iterator<Item = String>) -> Result<Self> {
        let mut arguments = Self { out: "models/demo.gguf".into(), steps: 3000, seed: 1 };
        while let Some(flag) = words.next() {
            let value = words.next().with_context(|| format!("{flag} needs a value; {USAGE}"))?;
            let number = || value.parse::<u64>().with_context(|| format!("{flag} {value}"));
            match flag.as_str() {
                "--out" => arguments.out = value.into(),
                "--steps" => arguments.steps = number()?.try_into()?,
                "--seed" => arguments.seed = number()?,
                _ => bail!("unknown flag {flag}; {USAGE}"),
            }
        }
        Ok(arguments)
    }
}

fn main() -> Result<()> {
    let Arguments { out, steps, seed } = Arguments::parse(std::env::args().skip(1))?;
    let vocabulary = corpus::vocabulary(seed)?;
    let held_out = HeldOut::draw(seed, HELD_OUT_DOCUMENTS);
    let windows = held_out.windows(&vocabulary, HELD_OUT_WINDOW)?;
    let config = Config {
        vocabulary: vocabulary.tokens.len(),
        context: 512,
        width: 128,
        layers: 6,
        heads: 4,
        kv_heads: 2,
        hidden: 352,
        rope_base: 10000.,
        epsilon: 1e-5,
    };
    let schedule = Schedule { steps, tokens_per_step: 1024, peak: 2.5e-3, warm_up: 100, evaluate_every: 100 };
    let model = Model::new(config, seed)?;
    println!("{} parameters, {config:?}, {schedule:?}, seed {seed}\n", model.size());
    println!("| step | training loss | held-out loss | tokens/s |\n|---:|---:|---:|---:|");
    let mut stream = Stream::new(seed, &vocabulary, &held_out)?;
    train(&model, &schedule, &mut stream, &windows[..EVALUATED.min(windows.len())], |model, p| {
        println!("| {} | {:.4} | {:.4} | {:.0} |", p.step, p.loss, p.held_out, p.speed);
        let file = gguf::write(model, &vocabulary)?;
        std::fs::write(&out, file).with_context(|| format!("writing {}", out.display()))
    })?;
    println!(
        "\n{} training documents, {} passed over for one of {} held-out stories",
        stream.used,
        stream.passed_over,
        held_out.stories()
    );
    let mut file = File::open(&out).with_context(|| format!("reading {}", out.display()))?;
    let written = gguf::read(&mut file, &model)?;
    println!("held-out perplexity: {:.4} as trained", evaluate(&model, &windows)?.exp());
    println!("held-out perplexity: {:.4} as written (Q8_0)", evaluate(&written, &windows)?.exp());
    samples(&written, &vocabulary, seed)
}

/// Prints three texts of the model, as they come.
fn samples(model: &Model, vocabulary: &Vocabulary, seed: u64) -> Result<()> {
    let end = vocabulary.special(END_OF_TURN)?;
    let ask = |request| format!("<|im_start|>user\n{request}<|im_end|>\n<|im_start|>assistant\n");
    let prompts = ["Once upon a time".to_owned(), ask("Tell me a story"), ask("Tell me a story about a cat")];
    let mut rng = Pcg64Mcg::seed_from_u64(seed);
    for prompt in prompts {
        let ids = vocabulary.encode(&prompt)?;
        let text = sample::continuation(model, &ids, end, 0.8, &mut rng)?;
        println!("\n{prompt:?}, temperature 0.8:\n{}", vocabulary.decode(&text)?);
    }
    Ok(())
}
