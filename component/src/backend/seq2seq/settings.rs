//! The configuration of T5 and its relatives, checked.

use candle_nn::Activation;
use candle_transformers::models::t5;
use serde::Deserialize;
use serde_json::Value;

use crate::error::{Error, Result};

/// The families, by transformers' `model_type`.
pub(crate) const FAMILIES: [&str; 2] = ["t5", "mt5"];

/// The part of config.json that decides the computation.
#[derive(Debug, Deserialize)]
pub(super) struct Settings {
    pub(super) vocab_size: usize,
    /// Length of a token's vector.
    pub(super) d_model: usize,
    /// Length of a head.
    pub(super) d_kv: usize,
    /// Length of the layer between the two matrices of an MLP.
    pub(super) d_ff: usize,
    /// Layers of the encoder.
    pub(super) num_layers: usize,
    /// Layers of the decoder; as many as the encoder has if none.
    num_decoder_layers: Option<usize>,
    pub(super) num_heads: usize,
    #[serde(default = "buckets")]
    pub(super) relative_attention_num_buckets: usize,
    #[serde(default = "distance")]
    pub(super) relative_attention_max_distance: usize,
    #[serde(default = "epsilon")]
    pub(super) layer_norm_epsilon: f64,
    #[serde(default = "relu")]
    feed_forward_proj: String,
    tie_word_embeddings: Option<bool>,
    scale_decoder_outputs: Option<bool>,
    #[serde(default)]
    pad_token_id: u32,
    decoder_start_token_id: Option<u32>,
}

fn buckets() -> usize {
    32
}

fn distance() -> usize {
    128
}

fn epsilon() -> f64 {
    1e-6
}

fn relu() -> String {
    "relu".into()
}

impl Settings {
    /// Reads and checks config.json. Whether the numbers fit the tensors shows when those are read.
    pub(super) fn read(config: &Value) -> Result<Self> {
        let settings = Self::deserialize(config)
            .map_err(|error| Error::Model(format!("config.json cannot be used: {error}")))?;
        let wrong = |text: String| Err(Error::Model(format!("config.json: {text}")));
        for (name, size) in [
            ("vocab_size", settings.vocab_size),
            ("d_model", settings.d_model),
            ("d_kv", settings.d_kv),
            ("d_ff", settings.d_ff),
            ("num_layers", settings.num_layers),
            ("num_decoder_layers", settings.decoder_layers()),
            ("num_heads", settings.num_heads),
        ] {
            if size == 0 {
                return wrong(format!("{name} is 0, it must be at least 1"));
            }
        }
        if settings.num_heads.checked_mul(settings.d_kv).is_none() {
            return wrong(format!("{} heads of length {}", settings.num_heads, settings.d_kv));
        }
        let (buckets, distance) =
            (settings.relative_attention_num_buckets, settings.relative_attention_max_distance);
        // Half of them for each direction, and half of those for exact distances.
        if !(4..=1 << 16).contains(&buckets) || !buckets.is_multiple_of(4) {
            return wrong(format!(
                "relative_attention_num_buckets is {buckets}, it must be a multiple of 4 up to 65536"
            ));
        }
        if !(buckets..=1 << 24).contains(&distance) {
            return wrong(format!(
                "relative_attention_max_distance is {distance}, it must be from {buckets} buckets to {}",
                1 << 24
            ));
        }
        if !(settings.layer_norm_epsilon.is_finite() && settings.layer_norm_epsilon >= 0.0) {
            return wrong(format!("layer_norm_epsilon is {}", settings.layer_norm_epsilon));
        }
        settings.mlp()?;
        let start = settings.start();
        if start as usize >= settings.vocab_size {
            let size = settings.vocab_size;
            return wrong(format!("decoder_start_token_id is {start}, the vocabulary has {size} tokens"));
        }
        Ok(settings)
    }

    pub(super) fn decoder_layers(&self) -> usize {
        self.num_decoder_layers.unwrap_or(self.num_layers)
    }

    /// The token that every output begins with, which is not part of it.
    pub(super) fn start(&self) -> u32 {
        self.decoder_start_token_id.unwrap_or(self.pad_token_id)
    }

    /// Whether the last vector is scaled by `1/sqrt(d_model)`. In older files that hangs on another setting.
    pub(super) fn scaled(&self) -> bool {
        self.scale_decoder_outputs.or(self.tie_word_embeddings).unwrap_or(true)
    }

    /// The MLP's activation, and whether it is gated.
    pub(super) fn mlp(&self) -> Result<(Activation, bool)> {
        match self.feed_forward_proj.as_str() {
            "relu" => Ok((Activation::Relu, false)),
            // The name means the approximation by tanh.
            "gated-gelu" => Ok((Activation::NewGelu, true)),
            "gated-silu" => Ok((Activation::Silu, true)),
            other => {
                let text = format!("feed_forward_proj {other:?}, known are relu, gated-gelu, gated-silu");
                Err(Error::Model(text))
            }
        }
    }

    /// candle's configuration of the encoder.
    pub(super) fn encoder(&self) -> Result<t5::Config> {
        let (activation, gated) = self.mlp()?;
        Ok(t5::Config {
            vocab_size: self.vocab_size,
            d_model: self.d_model,
            d_kv: self.d_kv,
            d_ff: self.d_ff,
            num_layers: self.num_layers,
            num_decoder_layers: None,
            num_heads: self.num_heads,
            relative_attention_num_buckets: self.relative_attention_num_buckets,
            relative_attention_max_distance: self.relative_attention_max_distance,
            layer_norm_epsilon: self.layer_norm_epsilon,
            feed_forward_proj: t5::ActivationWithOptionalGating { gated, activation },
            is_decoder: false,
            is_encoder_decoder: false,
            use_cache: false,
            ..t5::Config::default()
        })
    }
}
