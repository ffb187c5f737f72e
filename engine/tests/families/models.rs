//! The table of little models: what files of every family may say, one model for each thing that can go wrong.
//!
//! Sizes of embeddings are chosen so that rounding stays small: the cache holds 16 bits, and a deep model makes much of
//! them.

use candle_core::quantized::GgmlDType;

use crate::file::Entry::{Flag, Flags, Number, Size, Text};
use crate::file::{Network, Tiny};

/// What the others differ from.
pub(crate) const LLAMA: Tiny = Tiny {
    name: "llama",
    architecture: "llama",
    layers: 3,
    dim: 64,
    heads: 4,
    kv_heads: 2,
    head_dim: 16,
    hidden: 96,
    network: Network::Gated,
    fused_qkv: false,
    layer_norm: false,
    head_norms: false,
    post_norms: false,
    output: true,
    positions: false,
    embedding: 0.5,
    dtype: GgmlDType::F32,
    entries: &[],
    vectors: &[],
};

/// Heads whose length is not the embedding's share.
const QWEN3: Tiny = Tiny {
    name: "qwen3",
    architecture: "qwen3",
    head_dim: 24,
    head_norms: true,
    entries: &[
        ("attention.key_length", Size(24)),
        ("attention.value_length", Size(24)),
        ("rope.freq_base", Number(1e6)),
    ],
    ..LLAMA
};

const GEMMA2: Tiny = Tiny {
    name: "gemma2",
    architecture: "gemma2",
    layers: 4,
    head_dim: 32,
    post_norms: true,
    output: false,
    embedding: 0.1,
    entries: &[
        ("attention.key_length", Size(32)),
        ("attention.value_length", Size(32)),
        ("attention.sliding_window", Size(8)),
        ("attn_logit_softcapping", Number(5.0)),
        ("final_logit_softcapping", Number(3.0)),
    ],
    ..LLAMA
};

pub(crate) const GEMMA3: Tiny = Tiny {
    name: "gemma3",
    architecture: "gemma3",
    layers: 7,
    head_dim: 32,
    head_norms: true,
    post_norms: true,
    output: false,
    embedding: 0.1,
    entries: &[
        ("attention.key_length", Size(32)),
        ("attention.value_length", Size(32)),
        ("attention.sliding_window", Size(8)),
        ("rope.freq_base", Number(1e6)),
        ("rope.scaling.type", Text("linear")),
        ("rope.scaling.factor", Number(8.0)),
    ],
    ..LLAMA
};

const PHI3: Tiny = Tiny {
    name: "phi3",
    architecture: "phi3",
    network: Network::FusedGate,
    fused_qkv: true,
    entries: &[
        ("rope.dimension_count", Size(12)),
        ("rope.scaling.original_context_length", Size(256)),
        ("rope.scaling.attn_factor", Number(1.19)),
        // Present in real files, and without an effect.
        ("attention.sliding_window", Size(8)),
    ],
    vectors: &[
        ("rope_factors_long.weight", &[1.0, 1.5, 4.0, 9.0, 20.0, 45.0]),
        ("rope_factors_short.weight", &[1.0, 1.05, 1.1, 1.5, 2.0, 2.5]),
    ],
    ..LLAMA
};

const GPT2: Tiny = Tiny {
    name: "gpt2",
    architecture: "gpt2",
    kv_heads: 4,
    network: Network::Plain,
    fused_qkv: true,
    layer_norm: true,
    output: false,
    positions: true,
    embedding: 0.5,
    ..LLAMA
};

/// llama.cpp computes GELU by tanh here, and the models were trained by the error function, as it is done here: the
/// difference is below the limit.
const GPTNEOX: Tiny = Tiny {
    name: "gptneox",
    architecture: "gptneox",
    kv_heads: 4,
    network: Network::Plain,
    fused_qkv: true,
    layer_norm: true,
    embedding: 1.5,
    entries: &[("rope.dimension_count", Size(4)), ("use_parallel_residual", Flag(true))],
    ..LLAMA
};

pub(crate) const SMOLLM3: Tiny = Tiny {
    name: "smollm3",
    architecture: "smollm3",
    layers: 5,
    output: false,
    embedding: 0.1,
    entries: &[("rope.freq_base", Number(5e4)), ("rope.dimension_count", Size(16))],
    ..LLAMA
};

/// Rows of 72 are not whole blocks: those matrices are stored as halves.
pub(crate) const PHI3_Q8: Tiny = Tiny { name: "phi3-q8_0", hidden: 72, dtype: GgmlDType::Q8_0, ..PHI3 };

/// All models.
pub(crate) const MODELS: &[Tiny] = &[
    LLAMA,
    Tiny {
        name: "llama-3-factors",
        entries: &[("rope.freq_base", Number(5e5)), ("rope.dimension_count", Size(16))],
        vectors: &[("rope_freqs.weight", &[1.0, 1.0, 1.0, 2.0, 4.0, 8.0, 8.0, 8.0])],
        ..LLAMA
    },
    // A factor without a type is linear.
    Tiny { name: "llama-linear", entries: &[("rope.scaling.factor", Number(4.0))], ..LLAMA },
    Tiny { name: "llama-scale-linear", entries: &[("rope.scale_linear", Number(4.0))], ..LLAMA },
    Tiny {
        name: "llama-unscaled",
        entries: &[("rope.scaling.type", Text("none")), ("rope.scaling.factor", Number(4.0))],
        ..LLAMA
    },
    Tiny {
        name: "llama-yarn",
        entries: &[
            ("rope.scaling.type", Text("yarn")),
            ("rope.scaling.factor", Number(8.0)),
            ("rope.scaling.original_context_length", Size(32)),
        ],
        ..LLAMA
    },
    QWEN3,
    GEMMA2,
    // The largest Gemma 2 and Gemma 3 are known by their number of layers, and scale scores differently.
    Tiny { name: "gemma2-27b", layers: 46, embedding: 0.25, ..GEMMA2 },
    // Old files lack the caps and the window, which is 4096 then.
    Tiny {
        name: "gemma2-defaults",
        entries: &[("attention.key_length", Size(32)), ("attention.value_length", Size(32))],
        ..GEMMA2
    },
    GEMMA3,
    Tiny { name: "gemma3-27b", layers: 62, embedding: 0.25, ..GEMMA3 },
    Tiny {
        name: "gemma3-no-window",
        layers: 3,
        entries: &[
            ("attention.key_length", Size(32)),
            ("attention.value_length", Size(32)),
            ("rope.freq_base", Number(1e6)),
        ],
        ..GEMMA3
    },
    Tiny {
        name: "gemma3-period",
        entries: &[
            ("attention.key_length", Size(32)),
            ("attention.value_length", Size(32)),
            ("attention.sliding_window", Size(8)),
            ("attention.sliding_window_pattern", Size(3)),
            ("rope.freq_base", Number(1e6)),
            ("rope.freq_base_swa", Number(500.0)),
            ("final_logit_softcapping", Number(3.0)),
        ],
        ..GEMMA3
    },
    Tiny {
        name: "gemma3-pattern",
        layers: 4,
        entries: &[
            ("attention.key_length", Size(32)),
            ("attention.value_length", Size(32)),
            ("attention.sliding_window", Size(8)),
            ("attention.sliding_window_pattern", Flags(&[false, true, true, false])),
            ("rope.freq_base", Number(1e6)),
        ],
        ..GEMMA3
    },
    PHI3,
    Tiny {
        name: "phi3-plain",
        entries: &[("rope.dimension_count", Size(16)), ("rope.scaling.original_context_length", Size(256))],
        vectors: &[],
        ..PHI3
    },
    GPT2,
    GPTNEOX,
    Tiny {
        name: "gptneox-sequential",
        layers: 2,
        entries: &[("rope.dimension_count", Size(4)), ("use_parallel_residual", Flag(false))],
        ..GPTNEOX
    },
    SMOLLM3,
    PHI3_Q8,
    Tiny { name: "gemma3-q4_0", hidden: 72, dtype: GgmlDType::Q4_0, ..GEMMA3 },
];
