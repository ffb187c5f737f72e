//! The blueprint of a decoder: sizes, and the few places where model families differ, as data.
//!
//! One decoder serves every family; [`gguf`](Config::from_gguf) reads the blueprint from a file's metadata,
//! `hf` from a config.json. A family whose difference does not fit here is refused by name.

mod gguf;
mod hf;
mod rope;

pub use rope::{Rope, RopePairs};

use crate::error::{Error, Result};

/// Everything about a decoder but its weights.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Config {
    /// The family's name as GGUF spells it: `llama`, `qwen2`, …
    pub architecture: String,
    /// Number of decoder layers.
    pub layers: usize,
    /// Length of a hidden state.
    pub dim: usize,
    /// Length of the feed-forward network's inner state.
    pub hidden: usize,
    /// Number of query heads.
    pub heads: usize,
    /// Number of key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Length of a head.
    pub head_dim: usize,
    /// Number of token ids.
    pub vocabulary: usize,
    /// Longest sequence that the model was made for.
    pub context: usize,
    /// Which norm, with which epsilon.
    pub norm: Norm,
    /// Rotary positions; none for models with learned ones.
    pub rope: Option<Rope>,
    /// The feed-forward network's form.
    pub mlp: Mlp,
    /// Scores are multiplied by this: `1 / sqrt(head_dim)` for most.
    pub attention_scale: f32,
    /// Scores are soft-capped to this.
    pub attention_softcap: Option<f32>,
    /// Sliding windows: how far back a position sees, and in which layers.
    pub window: Option<Window>,
    /// Embeddings are multiplied by this.
    pub embedding_scale: f32,
    /// Logits are soft-capped to this.
    pub logit_softcap: Option<f32>,
    /// Attention and feed-forward network both read the layer's input and are added at once.
    pub parallel_residual: bool,
}

/// A normalisation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Norm {
    /// Root mean square, with its epsilon.
    Rms(f32),
    /// Mean and variance, with its epsilon.
    Layer(f32),
}

impl Norm {
    /// The value added before the square root.
    pub fn epsilon(self) -> f32 {
        match self {
            Self::Rms(epsilon) | Self::Layer(epsilon) => epsilon,
        }
    }
}

/// The feed-forward network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mlp {
    /// `down(act(gate(x)) · up(x))` rather than `down(act(up(x)))`.
    pub gated: bool,
    /// The activation function.
    pub activation: Activation,
}

/// An activation function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `x · sigmoid(x)`.
    Silu,
    /// GELU by its tanh approximation.
    Gelu,
    /// GELU by the error function.
    GeluErf,
}

/// A sliding window over the positions that attention sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// Positions seen, the own one included.
    pub length: usize,
    /// Which layers have it, `[layers]`; the others see all positions.
    pub sliding: Vec<bool>,
}

impl Config {
    /// The window of layer `layer`, if it has one.
    pub fn window_of(&self, layer: usize) -> Option<usize> {
        let window = self.window.as_ref()?;
        window.sliding.get(layer)?.then_some(window.length)
    }

    /// Length of all query heads together.
    pub fn query_dim(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Length of all key heads together, which is that of all value heads.
    pub fn kv_dim(&self) -> usize {
        self.kv_heads * self.head_dim
    }

    /// Refuses sizes that no model has, so that later arithmetic cannot overflow.
    pub(crate) fn check(self) -> Result<Self> {
        let bounds = [
            ("layers", self.layers, limits::LAYERS),
            ("embedding length", self.dim, limits::DIM),
            ("feed-forward length", self.hidden, limits::HIDDEN),
            ("attention heads", self.heads, limits::HEADS),
            ("key and value heads", self.kv_heads, self.heads),
            ("head length", self.head_dim, limits::HEAD_DIM),
            ("vocabulary", self.vocabulary, limits::VOCABULARY),
            ("context length", self.context, limits::CONTEXT),
        ];
        for (what, value, limit) in bounds {
            if value == 0 || value > limit {
                return Err(Error::format(format!("{what} is {value}, it must be 1 to {limit}")));
            }
        }
        if !self.heads.is_multiple_of(self.kv_heads) {
            return Err(Error::format(format!(
                "{} attention heads are not a multiple of {} key and value heads",
                self.heads, self.kv_heads
            )));
        }
        let epsilon = self.norm.epsilon();
        if !(epsilon.is_finite() && epsilon >= 0.0) {
            return Err(Error::format(format!("norm epsilon is {epsilon}")));
        }
        Ok(self)
    }
}

/// The largest sizes that are believed; each is several times that of any known model.
mod limits {
    pub(super) const LAYERS: usize = 1024;
    pub(super) const DIM: usize = 1 << 16;
    pub(super) const HIDDEN: usize = 1 << 19;
    pub(super) const HEADS: usize = 1024;
    pub(super) const HEAD_DIM: usize = crate::kernels::MAX_HEAD;
    pub(super) const VOCABULARY: usize = 1 << 22;
    pub(super) const CONTEXT: usize = 1 << 27;
}
