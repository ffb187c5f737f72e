//! Rotary position embeddings (Su et al., 2021): angles and their scalings.

use std::f64::consts::PI;

use crate::error::{Error, Result};
use crate::kernels::MAX_HEAD;

/// Which elements of a head are rotated together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RopePairs {
    /// Elements 2i and 2i + 1: the original, and GGUF's layout of llama files.
    Adjacent,
    /// Elements i and i + dims / 2: GPT-NeoX's, and that of Hugging Face's checkpoints.
    Halves,
}

/// Rotary positions: pair `i` at position `p` is rotated by `p · frequencies[i]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Rope {
    /// Which elements form a pair.
    pub pairs: RopePairs,
    /// Leading elements of a head that are rotated; even.
    pub dims: usize,
    /// Angle per position of each pair, `[dims / 2]`.
    pub frequencies: Vec<f64>,
    /// The same for layers with a sliding window, where they differ (Gemma 3).
    pub window_frequencies: Option<Vec<f64>>,
    /// Sines and cosines are multiplied by this (YaRN's attention factor).
    pub magnitude: f32,
    /// Every n-th layer has no rotary positions (SmolLM 3); 0: all have them.
    pub skip_period: usize,
}

/// How frequencies are stretched beyond the context that a model was trained on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Scaling {
    /// As trained.
    None,
    /// All frequencies divided by a factor (Chen et al., 2023).
    Linear(f64),
    /// Llama 3: low frequencies divided by a factor, high ones kept, a ramp between.
    Llama3 {
        /// What low frequencies are divided by.
        factor: f64,
        /// Wavelengths longer than `original / low` are low frequencies.
        low: f64,
        /// Wavelengths shorter than `original / high` are high frequencies.
        high: f64,
        /// Context length of the original training.
        original: f64,
    },
    /// YaRN (Peng et al., 2023).
    Yarn {
        /// What low frequencies are divided by.
        factor: f64,
        /// Rotations over the original context above which a frequency is kept.
        fast: f64,
        /// Rotations below which it is divided.
        slow: f64,
        /// Context length of the original training.
        original: f64,
    },
}

impl Rope {
    /// Frequencies `base^(−2i / dims)`, scaled; `factors` divide them one by one where given.
    pub fn new(
        pairs: RopePairs,
        dims: usize,
        base: f64,
        scaling: Scaling,
        factors: Option<&[f32]>,
    ) -> Result<Self> {
        if !(base.is_finite() && base > 0.0) {
            return Err(Error::format(format!("rope base is {base}, it must be positive")));
        }
        if dims == 0 || dims > MAX_HEAD || !dims.is_multiple_of(2) {
            return Err(Error::format(format!(
                "{dims} rotary elements in a head, an even number to {MAX_HEAD} is wanted"
            )));
        }
        let count = dims / 2;
        if let Some(factors) =
            factors.filter(|f| f.len() != count || f.iter().any(|f| !(*f > 0.0 && f.is_finite())))
        {
            return Err(Error::format(format!(
                "{} rope factors, {count} positive ones are wanted",
                factors.len()
            )));
        }
        let frequency = |i: usize| {
            let plain = libm::pow(base, -2.0 * i as f64 / dims as f64);
            let factor = factors.map_or(1.0, |f| f64::from(f[i]));
            scaling.apply(plain / factor, i, dims, base)
        };
        let frequencies: Vec<f64> = (0..count).map(frequency).collect();
        if frequencies.iter().any(|f| !f.is_finite()) {
            return Err(Error::format("rope frequencies are not finite"));
        }
        Ok(Self {
            pairs,
            dims,
            frequencies,
            window_frequencies: None,
            magnitude: scaling.magnitude(),
            skip_period: 0,
        })
    }
}

impl Scaling {
    fn apply(self, frequency: f64, index: usize, dims: usize, base: f64) -> f64 {
        match self {
            Self::None => frequency,
            Self::Linear(factor) => frequency / factor,
            Self::Llama3 { factor, low, high, original } => {
                let rotations = original * frequency / (2.0 * PI);
                let ramp = ((rotations - low) / (high - low)).clamp(0.0, 1.0);
                frequency * (ramp + (1.0 - ramp) / factor)
            }
            Self::Yarn { factor, fast, slow, original } => {
                // The pair that makes `rotations` turns over the original context.
                let pair = |rotations: f64| {
                    dims as f64 * libm::log(original / (rotations * 2.0 * PI)) / (2.0 * libm::log(base))
                };
                let (start, end) = (pair(fast).floor().max(0.0), pair(slow).ceil().min(dims as f64 - 1.0));
                let ramp = ((index as f64 - start) / (end - start).max(0.001)).clamp(0.0, 1.0);
                frequency * ((1.0 - ramp) + ramp / factor)
            }
        }
    }

    fn magnitude(self) -> f32 {
        match self {
            Self::Yarn { factor, .. } if factor > 1.0 => (0.1 * libm::log(factor) + 1.0) as f32,
            _ => 1.0,
        }
    }
}
