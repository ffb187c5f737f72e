//! `wafer bench`: how fast a model is on this machine.
//!
//! All get the same prompt and the same number of new tokens. `native` and `wasm` are the component as it serves
//! requests, sampling and detokenizing included, with the engine behind wasi-nn or inside; `direct` is the engine's
//! forward pass alone, so that the price of the sandbox can be told. Every figure
//! is the median of several rounds, after one that is not counted; peak memory is the whole process'.

mod cold;

use anyhow::{Context, ensure};
use serde::Serialize;
use std::fs::File;
use std::io::{BufReader, Write};
use std::time::Instant;
use wafer_engine::kernels::Isa;
use wafer_engine::{Batch, Gguf, Model, Workspace};

use crate::cli::{Measured, Sampling};
use crate::config::{self, Bench, Setup};
use crate::embedded;
use crate::load::{self, Progress};
use crate::model::Mount;
use crate::runtime::bindings::generator::{Event, Prompt};
use crate::runtime::{Guest, Runtime, executor};

/// Measures and prints.
pub(crate) fn bench(config: &Bench) -> anyhow::Result<()> {
    if config.cold {
        let report = executor("bench")?.block_on(cold::cold(config))?;
        return print(&report, &report.to_text(), config.json);
    }
    let mount = Mount::new(&config.model)?;
    let name = mount.name.clone();
    let progress = Progress::start(&mount);
    let (load_seconds, rounds) = match config.engine {
        Measured::Direct => direct(&mount, config)?,
        Measured::Native => executor("guest")?.block_on(native(mount, config))?,
        Measured::Wasm => executor("guest")?.block_on(wasm(mount, config))?,
    };
    drop(progress);
    let report = Report {
        model: name,
        engine: config.engine.name(),
        kernels: match config.engine {
            Measured::Native | Measured::Direct => Isa::current().name(),
            Measured::Wasm => "wasm-simd",
        },
        threads: config.native.threads.get(),
        prefill_tokens: config.prefill.get(),
        decode_tokens: config.decode.get(),
        rounds: rounds.len(),
        load_seconds,
        prefill_tokens_per_second: median(rounds.iter().map(|round| round.prefill).collect()),
        decode_tokens_per_second: median(rounds.iter().filter_map(|round| round.decode).collect()),
        peak_rss_bytes: peak_rss(),
    };
    print(&report, &report.to_text(), config.json)
}

/// As one JSON object, or as text.
fn print(report: &impl Serialize, text: &str, json: bool) -> anyhow::Result<()> {
    let json = json.then(|| serde_json::to_string_pretty(report)).transpose()?;
    writeln!(std::io::stdout().lock(), "{}", json.as_deref().unwrap_or(text))
        .context("cannot write to stdout")
}

/// What is printed; the names are a contract with scripts.
#[derive(Debug, Serialize)]
struct Report {
    model: String,
    engine: &'static str,
    /// The family of kernels in use.
    kernels: &'static str,
    threads: usize,
    prefill_tokens: usize,
    decode_tokens: usize,
    rounds: usize,
    /// From the start of reading the file to a model that can be used; compiling the component is not in it.
    load_seconds: f64,
    prefill_tokens_per_second: Option<f64>,
    /// Absent if the model ended its text at the first token, every time.
    decode_tokens_per_second: Option<f64>,
    /// The most memory that the process had at once.
    peak_rss_bytes: Option<u64>,
}

impl Report {
    fn to_text(&self) -> String {
        let speed = |speed: Option<f64>| speed.map_or("-".to_owned(), |speed| format!("{speed:.1} tokens/s"));
        let plural = if self.threads == 1 { "" } else { "s" };
        let memory =
            self.peak_rss_bytes.map_or("-".to_owned(), |bytes| bytesize::ByteSize(bytes).to_string());
        [
            ("model", self.model.clone()),
            ("engine", format!("{} ({}, {} thread{plural})", self.engine, self.kernels, self.threads)),
            ("load", format!("{:.3} s", self.load_seconds)),
            (
                "prefill",
                format!("{} ({} tokens)", speed(self.prefill_tokens_per_second), self.prefill_tokens),
            ),
            ("decode", format!("{} ({} tokens)", speed(self.decode_tokens_per_second), self.decode_tokens)),
            ("peak memory", memory),
        ]
        .map(|(name, value)| format!("{name:<13}{value}"))
        .join("\n")
    }
}

/// Speeds of one round, tokens/s.
struct Round {
    prefill: f64,
    /// Of the tokens after the first; none if there was no second.
    decode: Option<f64>,
}

/// The engine called directly.
fn direct(mount: &Mount, config: &Bench) -> anyhow::Result<(f64, Vec<Round>)> {
    let path = mount.file().with_context(|| format!("{} is a directory, name the file in it", mount.name))?;
    let started = Instant::now();
    let file = File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
    let model = Gguf::open(BufReader::new(file))
        .and_then(|mut gguf| Model::load(&mut gguf))
        .with_context(|| format!("cannot load {}", mount.name))?;
    let load_seconds = started.elapsed().as_secs_f64();
    check_context(config, model.config().context)?;

    let vocabulary = model.config().vocabulary;
    let prompt = prompt(config.prefill.get(), vocabulary, 0);
    let mut workspace = Workspace::new(config.native.threads.get());
    let mut rounds = Vec::new();
    for _ in 0..=config.rounds.get() {
        let mut session = model.session();
        let mut step = |tokens: &[u32]| -> anyhow::Result<u32> {
            let batch = &mut [Batch { session: &mut session, tokens, outputs: 1 }];
            Ok(likeliest(model.forward(&mut workspace, batch)?))
        };
        let started = Instant::now();
        let mut token = step(&prompt)?;
        let first = started.elapsed();
        for _ in 0..config.decode.get() {
            token = step(&[token])?;
        }
        let decode = (started.elapsed() - first).as_secs_f64();
        rounds.push(Round {
            prefill: config.prefill.get() as f64 / first.as_secs_f64(),
            decode: Some(config.decode.get() as f64 / decode),
        });
    }
    // The first warms up: buffers grow, pages are touched.
    rounds.remove(0);
    Ok((load_seconds, rounds))
}

/// The component in an instance of its own, with the engine behind wasi-nn.
async fn native(mount: Mount, config: &Bench) -> anyhow::Result<(f64, Vec<Round>)> {
    let started = Instant::now();
    // The component names the model as its host does: after its file.
    let (_, models) = load::models(&mount, &Setup::default(), config.native).await?;
    let load_seconds = started.elapsed().as_secs_f64();
    let runtime = Runtime::new(embedded::ACCELERATED, mount, config.instance_memory)?.with_models(models);
    let (more, rounds) = measured(&runtime, config).await?;
    Ok((load_seconds + more, rounds))
}

/// The component in an instance of its own, with the engine inside.
async fn wasm(mount: Mount, config: &Bench) -> anyhow::Result<(f64, Vec<Round>)> {
    let runtime = Runtime::new(mount.component(), mount, config.instance_memory)?;
    measured(&runtime, config).await
}

async fn measured(runtime: &Runtime, config: &Bench) -> anyhow::Result<(f64, Vec<Round>)> {
    let mut guest = runtime.instantiate(&"bench").await?;
    let started = Instant::now();
    let model = guest.model().await.context("cannot load the model")?;
    let load_seconds = started.elapsed().as_secs_f64();
    check_context(config, model.context_length as usize)?;
    let mut rounds = Vec::new();
    for number in 0..=config.rounds.get() {
        let prompt = prompt(config.prefill.get(), model.vocabulary_size as usize, number);
        rounds.push(round(&mut guest, &Prompt::Tokens(prompt), config).await?);
    }
    // The first warms up: buffers grow, pages are touched.
    rounds.remove(0);
    Ok((load_seconds, rounds))
}

async fn round(guest: &mut Guest, prompt: &Prompt, config: &Bench) -> anyhow::Result<Round> {
    let options = config::options(Sampling {
        max_tokens: Some(u32::try_from(config.decode.get() + 1)?),
        temperature: Some(0.0),
        ..Sampling::default()
    });
    let started = Instant::now();
    let mut first = None;
    let mut tokens = 0;
    let generation = guest.start(prompt, &options).await?;
    while let Some(event) = guest.next(generation).await? {
        if matches!(event, Event::Token(_)) {
            tokens += 1;
            first.get_or_insert_with(|| started.elapsed());
        }
    }
    let total = started.elapsed();
    guest.end(generation).await?;
    let first = first.context("the model gave no token")?;
    let decode = (total - first).as_secs_f64();
    Ok(Round {
        prefill: config.prefill.get() as f64 / first.as_secs_f64(),
        decode: (tokens > 1).then(|| f64::from(tokens - 1) / decode),
    })
}

/// Token ids spread over the vocabulary; which ones makes no difference to the time. No round has the same, as
/// prefixes that were computed once need not be computed again.
fn prompt(length: usize, vocabulary: usize, round: usize) -> Vec<u32> {
    (0..length).map(|i| ((i + round + 1) * 97 % vocabulary) as u32).collect()
}

fn likeliest(logits: &[f32]) -> u32 {
    let best = logits.iter().enumerate().max_by(|(_, a), (_, b)| a.total_cmp(b));
    best.map_or(0, |(id, _)| id as u32)
}

fn check_context(config: &Bench, context: usize) -> anyhow::Result<()> {
    let wanted = config.prefill.get() + config.decode.get() + 1;
    ensure!(
        wanted <= context,
        "--prefill {} and --decode {} need {wanted} tokens, the model's context is {context}",
        config.prefill,
        config.decode
    );
    Ok(())
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        length if length % 2 == 1 => Some(values[middle]),
        _ => Some(f64::midpoint(values[middle - 1], values[middle])),
    }
}

/// Bytes; none where the system does not say.
fn peak_rss() -> Option<u64> {
    use nix::sys::resource::{UsageWho, getrusage};
    let peak = u64::try_from(getrusage(UsageWho::RUSAGE_SELF).ok()?.max_rss()).ok()?;
    // Linux and the BSDs count in KiB, macOS in bytes.
    Some(if cfg!(target_os = "macos") { peak } else { peak * 1024 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        for (values, expected) in [
            (vec![], None),
            (vec![3.0], Some(3.0)),
            (vec![9.0, 1.0], Some(5.0)),
            (vec![5.0, 100.0, 1.0], Some(5.0)),
        ] {
            assert_eq!(median(values.clone()), expected, "{values:?}");
        }
    }
}
