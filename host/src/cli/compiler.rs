//! Commands of a program that has a compiler.

use bytesize::ByteSize;
use clap::{Args, Subcommand};
use std::num::NonZeroUsize;
use std::path::PathBuf;

use super::{Code, Instance, Setup};

#[derive(Debug, Args)]
pub(crate) struct Bake {
    /// GGUF file, or a directory with one in it [default: $WAFER_MODEL, $MODEL_PATH, the built-in demo model]
    #[arg(value_name = "MODEL")]
    pub(crate) model: Option<PathBuf>,

    /// The file to write
    #[arg(short, long, env = "WAFER_OUTPUT", value_name = "APP.wasm")]
    pub(crate) output: PathBuf,

    #[command(flatten)]
    pub(crate) setup: Setup,

    /// The hosts that the result is for
    #[arg(long, env = "WAFER_WORLD", value_enum, default_value = "portable", value_name = "WORLD")]
    pub(crate) world: World,

    /// Compile it too, to APP.cwasm: for this processor, or to APP.TRIPLE.cwasm for another
    #[arg(
        long,
        env = "WAFER_COMPILE",
        value_name = "TRIPLE",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = ""
    )]
    pub(crate) compile: Option<String>,

    /// Generate a token with the result before it gets its name
    #[arg(long, env = "WAFER_CHECK")]
    pub(crate) check: bool,

    #[command(flatten)]
    pub(crate) instance: Instance,
}

/// The worlds of wit/ that a component can be of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum World {
    /// Every host of WASI 0.2 HTTP components, Spin among them
    Portable,
    /// Spin 4.1 and newer, which keeps it warm: WASI 0.3
    Spin,
    /// The host's own maths
    Accelerated,
}

/// Where the model's maths is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Engine {
    /// In this process, with all cores
    Native,
    /// Inside the WebAssembly component, on one thread
    Wasm,
}

/// How the model's maths is done.
#[derive(Debug, Args)]
#[command(next_help_heading = "Engine")]
pub(crate) struct Compute {
    /// Where the model's maths is done [default: native, where the engine knows the model]
    #[arg(long, env = "WAFER_ENGINE", value_enum, value_name = "ENGINE")]
    pub(crate) engine: Option<Engine>,

    /// Threads of the native engine [default: one per core]
    #[arg(long, env = "WAFER_THREADS", value_name = "N")]
    pub(crate) threads: Option<NonZeroUsize>,

    /// KV cache of all requests together on the native engine, prefixes that are kept included
    #[arg(long, env = "WAFER_KV_MEMORY", value_name = "SIZE", default_value = "2GiB")]
    pub(crate) kv_memory: ByteSize,
}

/// What `wafer bench` measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Measured {
    /// What `serve --engine native` does: the component, and the engine behind wasi-nn
    Native,
    /// What `serve --engine wasm` does: the component with the engine inside
    Wasm,
    /// The engine's forward pass alone, in this process
    Direct,
}

impl Measured {
    /// The name on the command line and in reports.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Wasm => "wasm",
            Self::Direct => "direct",
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct Bench {
    /// GGUF file [default: $WAFER_MODEL, $MODEL_PATH, the built-in demo model]
    #[arg(value_name = "MODEL")]
    pub(crate) model: Option<PathBuf>,

    /// What is measured
    #[arg(long, env = "WAFER_ENGINE", value_enum, default_value = "native", value_name = "ENGINE")]
    pub(crate) engine: Measured,

    /// Threads of the native engine [default: one per core]
    #[arg(long, env = "WAFER_THREADS", value_name = "N")]
    pub(crate) threads: Option<NonZeroUsize>,

    /// Tokens of the prompt
    #[arg(long, value_name = "N", default_value = "128")]
    pub(crate) prefill: NonZeroUsize,

    /// Tokens to generate after the first
    #[arg(long, value_name = "N", default_value = "64")]
    pub(crate) decode: NonZeroUsize,

    /// Times to measure; the median is printed
    #[arg(long, value_name = "N", default_value = "5")]
    pub(crate) rounds: NonZeroUsize,

    /// Measure a server's start, what a request costs beside its generation, and memory
    #[arg(long, conflicts_with_all = ["engine", "threads", "prefill", "decode", "rounds"])]
    pub(crate) cold: bool,

    /// Print one JSON object
    #[arg(long, env = "WAFER_JSON")]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) code: Code,

    #[command(flatten)]
    pub(crate) instance: Instance,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Cache {
    /// List the entries, the last used first
    Ls {
        /// Print one JSON object
        #[arg(long, env = "WAFER_JSON")]
        json: bool,
    },
    /// Delete all entries
    Clear,
}
