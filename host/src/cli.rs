//! The command line, exactly as typed. What the program needs of it is made in `config`.
//!
//! Every flag has an environment variable `WAFER_…`; the flag wins. Defaults stand here, and only
//! here. What wafer cannot do yet is not offered.

#[cfg(feature = "compiler")]
mod compiler;

use bytesize::ByteSize;
use clap::{Args, CommandFactory, Parser, Subcommand, error::ErrorKind};
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use crate::logs;

#[cfg(feature = "compiler")]
pub(crate) use compiler::{Bake, Bench, Cache, Compute, Engine, Measured, World};

/// Serve, run and inspect language models inside WebAssembly components.
#[derive(Debug, Parser)]
#[command(name = "wafer", version, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) logging: Logging,

    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve a model over HTTP
    Serve(Serve),
    /// Print a completion, or chat in the terminal when no prompt is given
    Run(Run),
    /// Ask a server whether it can generate; exit code 0 or 1
    Health(Health),
    /// Make one file of a model and the component: it starts with the model in memory
    #[cfg(feature = "compiler")]
    Bake(Bake),
    /// Measure how fast a model is on this machine
    #[cfg(feature = "compiler")]
    Bench(Bench),
    /// Show what is in a model (.gguf) or a component (.wasm)
    Inspect(Inspect),
    /// Look at what was baked and compiled before, or delete it
    #[command(subcommand)]
    #[cfg(feature = "compiler")]
    Cache(Cache),
}

#[derive(Debug, Args)]
pub(crate) struct Logging {
    /// What to log: error, warn, info, debug, or RUST_LOG's syntax [default: info when serving, otherwise warn]
    #[arg(long, global = true, env = "WAFER_LOG_LEVEL", value_name = "FILTER")]
    pub(crate) log_level: Option<String>,

    /// How a log line looks
    #[arg(
        long,
        global = true,
        env = "WAFER_LOG_FORMAT",
        value_enum,
        default_value = "human",
        value_name = "FORMAT"
    )]
    pub(crate) log_format: logs::Format,

    /// Say more on stderr: statistics of a run, WebAssembly backtraces
    #[arg(short, long, global = true, env = "WAFER_VERBOSE")]
    pub(crate) verbose: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// GGUF file, a directory with one in it, or a baked component (.wasm, .cwasm) [default: $WAFER_MODEL, $MODEL_PATH, the built-in demo model]
    #[arg(value_name = "MODEL")]
    pub(crate) model: Option<PathBuf>,

    /// Address to listen on; port 0 takes a free one [default: 127.0.0.1:$PORT, then 127.0.0.1:8080]
    #[arg(long, env = "WAFER_LISTEN", value_name = "ADDRESS:PORT")]
    pub(crate) listen: Option<SocketAddr>,

    /// Generations that run at once; further requests wait in order [default: 64 on the native engine, one per core
    /// otherwise]
    #[arg(long, env = "WAFER_MAX_CONCURRENCY", value_name = "N")]
    pub(crate) max_concurrency: Option<NonZeroUsize>,

    /// A request that takes longer is ended
    #[arg(long, env = "WAFER_REQUEST_TIMEOUT", value_name = "SECONDS", default_value_t = 600)]
    pub(crate) request_timeout: u64,

    /// How long running requests may take to finish after SIGTERM or Ctrl-C
    #[arg(long, env = "WAFER_DRAIN_SECONDS", value_name = "SECONDS", default_value_t = 30)]
    pub(crate) drain_seconds: u64,

    #[cfg(feature = "compiler")]
    #[command(flatten)]
    pub(crate) compute: Compute,

    #[command(flatten)]
    pub(crate) setup: Setup,

    #[command(flatten)]
    pub(crate) code: Code,

    #[command(flatten)]
    pub(crate) instance: Instance,
}

/// Where code comes from that was compiled before.
#[derive(Debug, Args)]
pub(crate) struct Code {
    /// Load compiled code (.cwasm) from outside the cache; it can do whatever this program can
    #[arg(long, env = "WAFER_TRUST")]
    pub(crate) trust: bool,

    /// What baked and compiled models may take of the disk; those not used for longest go first
    #[cfg(feature = "compiler")]
    #[arg(long, env = "WAFER_CACHE_SIZE", value_name = "SIZE", default_value = "8GiB")]
    pub(crate) cache_size: ByteSize,
}

/// Limits of one guest.
#[derive(Debug, Args)]
pub(crate) struct Instance {
    /// Memory that one instance may use, at most 4GiB
    #[arg(
        long,
        env = "WAFER_INSTANCE_MEMORY",
        value_name = "SIZE",
        default_value = "4GiB",
        value_parser = instance_memory
    )]
    pub(crate) instance_memory: ByteSize,
}

#[derive(Debug, Args)]
pub(crate) struct Run {
    /// GGUF file, a directory with one in it, or a baked component (.wasm, .cwasm) [default: $WAFER_MODEL, $MODEL_PATH, the built-in demo model]
    ///
    /// The first argument is the model when it names an existing path or ends in .gguf, .wasm or .cwasm; otherwise it
    /// is the prompt.
    #[arg(value_name = "MODEL")]
    pub(crate) model: Option<String>,

    /// Text to continue; without it, a chat
    #[arg(value_name = "PROMPT")]
    pub(crate) prompt: Option<String>,

    /// System message of the chat
    #[arg(long, env = "WAFER_SYSTEM", value_name = "TEXT")]
    pub(crate) system: Option<String>,

    #[command(flatten)]
    pub(crate) sampling: Sampling,

    /// Print a digest of the logits to stderr; the same model and request give the same one on every machine
    #[arg(long, env = "WAFER_DIGEST")]
    pub(crate) digest: bool,

    #[cfg(feature = "compiler")]
    #[command(flatten)]
    pub(crate) compute: Compute,

    #[command(flatten)]
    pub(crate) weights: Weights,

    #[command(flatten)]
    pub(crate) code: Code,

    #[command(flatten)]
    pub(crate) instance: Instance,
}

/// How to continue. What is not given takes the model's default; values are checked by the component.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Sampling")]
pub(crate) struct Sampling {
    /// New tokens at most
    #[arg(long, env = "WAFER_MAX_TOKENS", value_name = "N")]
    pub(crate) max_tokens: Option<u32>,

    /// 0 always takes the most likely token
    #[arg(long, env = "WAFER_TEMPERATURE", value_name = "X", allow_negative_numbers = true)]
    pub(crate) temperature: Option<f32>,

    /// Choose among the K most likely tokens; 0 is all
    #[arg(long, env = "WAFER_TOP_K", value_name = "K")]
    pub(crate) top_k: Option<u32>,

    /// Choose among the likeliest tokens whose probabilities add up to P
    #[arg(long, env = "WAFER_TOP_P", value_name = "P", allow_negative_numbers = true)]
    pub(crate) top_p: Option<f32>,

    /// Drop tokens less likely than P times the most likely one
    #[arg(long, env = "WAFER_MIN_P", value_name = "P", allow_negative_numbers = true)]
    pub(crate) min_p: Option<f32>,

    /// Make tokens of prompt and output less likely by this factor; 1 is off
    #[arg(long, env = "WAFER_REPETITION_PENALTY", value_name = "X", allow_negative_numbers = true)]
    pub(crate) repetition_penalty: Option<f32>,

    /// Make tokens of the output less likely by a constant, -2 to 2
    #[arg(long, env = "WAFER_PRESENCE_PENALTY", value_name = "X", allow_negative_numbers = true)]
    pub(crate) presence_penalty: Option<f32>,

    /// Make tokens of the output less likely by how often they occur, -2 to 2
    #[arg(long, env = "WAFER_FREQUENCY_PENALTY", value_name = "X", allow_negative_numbers = true)]
    pub(crate) frequency_penalty: Option<f32>,

    /// The same seed gives the same text
    #[arg(long, env = "WAFER_SEED", value_name = "N")]
    pub(crate) seed: Option<u64>,

    /// End before this text; may be given several times
    #[arg(long, env = "WAFER_STOP", value_name = "TEXT")]
    pub(crate) stop: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Health {
    /// Server to ask [default: the one that `wafer serve` starts in this environment]
    #[arg(value_name = "URL", env = "WAFER_HEALTH_URL")]
    pub(crate) url: Option<String>,
}

/// What a model is set up with when it is baked, or served for the first time.
#[derive(Debug, Args)]
pub(crate) struct Setup {
    /// The id that requests name the model by [default: the file's name]
    #[arg(long, env = "WAFER_NAME", value_name = "ID")]
    pub(crate) name: Option<String>,

    /// What requests get that do not say otherwise, as in temperature=0.7,max_tokens=200
    #[arg(long, env = "WAFER_DEFAULTS", value_name = "NAME=VALUE,…")]
    pub(crate) defaults: Option<String>,

    /// System message of chats that bring none; its part of every prompt is computed now
    #[arg(long, env = "WAFER_SYSTEM", value_name = "TEXT")]
    pub(crate) system: Option<String>,

    #[command(flatten)]
    pub(crate) weights: Weights,
}

/// What is made of a model's weights.
#[derive(Debug, Args)]
pub(crate) struct Weights {
    /// Quantise the weights of a Hugging Face folder: q8_0, q4_0 or q4_k
    #[arg(long, env = "WAFER_QUANTIZE", value_name = "TYPE")]
    pub(crate) quantize: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Inspect {
    /// A model (.gguf) or a component (.wasm)
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,

    /// Print one JSON object
    #[arg(long, env = "WAFER_JSON")]
    pub(crate) json: bool,
}

/// Ends the process as clap does for arguments it cannot use: message, usage, exit code 2.
pub(crate) fn usage_error(message: impl std::fmt::Display) -> ! {
    Cli::command().error(ErrorKind::ValueValidation, message).exit()
}

/// A memory is 32-bit: more than 4 GiB cannot be addressed, and a page is the least.
fn instance_memory(text: &str) -> Result<ByteSize, String> {
    let size: ByteSize = text.parse()?;
    if (ByteSize::kib(64)..=ByteSize::gib(4)).contains(&size) {
        Ok(size)
    } else {
        Err(format!("{size} is not between 64KiB and 4GiB"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Parses `wafer ARGS`; the error is clap's kind.
    fn parse(arguments: &str) -> Result<Cli, ErrorKind> {
        Cli::try_parse_from(std::iter::once("wafer").chain(arguments.split_whitespace()))
            .map_err(|error| error.kind())
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn what_is_accepted() {
        for arguments in [
            "serve",
            "serve --engine native --threads 2 --kv-memory 1GiB",
            "serve model.gguf --listen [::1]:0 --drain-seconds 0 --max-concurrency 3",
            "serve --instance-memory 512MiB --log-format json",
            "--log-level debug serve",
            "run",
            "run a b --temperature -1 --stop x --stop y --seed 18446744073709551615 -v",
            "health",
            "health http://127.0.0.1:1/health",
            "inspect x.gguf --json",
            "serve m.gguf --name n --defaults temperature=0 --system s",
            "run folder prompt --quantize q8_0",
            "serve app.cwasm --trust --cache-size 1GiB",
            "cache ls --json",
            "cache clear",
            "bench app.cwasm --cold --trust",
            "bake -o a.wasm",
            "bake m.gguf -o a.wasm --name n --defaults temperature=0 --system s --compile --check",
            "bake m.gguf -o a.wasm --compile=aarch64-unknown-linux-gnu",
            "bench",
            "bench x.gguf --engine native --threads 2 --prefill 1 --decode 1 --rounds 1 --json",
        ] {
            assert!(parse(arguments).is_ok(), "{arguments}");
        }
    }

    #[test]
    fn what_is_refused() {
        for (arguments, kind) in [
            ("serve --listen localhost", ErrorKind::ValueValidation),
            ("serve --listen 127.0.0.1", ErrorKind::ValueValidation),
            ("serve --max-concurrency 0", ErrorKind::ValueValidation),
            ("serve --instance-memory 5GiB", ErrorKind::ValueValidation),
            ("serve --instance-memory 1", ErrorKind::ValueValidation),
            ("serve --instance-memory much", ErrorKind::ValueValidation),
            ("serve --engine gpu", ErrorKind::InvalidValue),
            ("serve --threads 0", ErrorKind::ValueValidation),
            ("serve a b", ErrorKind::UnknownArgument),
            ("run a b c", ErrorKind::UnknownArgument),
            ("run --temperature warm", ErrorKind::ValueValidation),
            ("run --max-tokens -1", ErrorKind::UnknownArgument),
            ("bench --engine gpu", ErrorKind::InvalidValue),
            ("bench --rounds 0", ErrorKind::ValueValidation),
            ("inspect", ErrorKind::MissingRequiredArgument),
            ("bake x", ErrorKind::MissingRequiredArgument),
        ] {
            assert_eq!(parse(arguments).err(), Some(kind), "{arguments}");
        }
    }
}
