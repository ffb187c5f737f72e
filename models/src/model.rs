//! The model: a Llama-type decoder that can be differentiated.
//!
//! RMSNorm, rotary positions on adjacent pairs, grouped-query attention, SwiGLU, and the embedding
//! used as output matrix too. Parameters carry the names and layouts of GGUF's `llama`
//! architecture from the start, so writing the file needs no conversion. There is no KV cache:
//! this is for training and for a few samples.

use crate::ops::{CausalSoftmax, Normalise, Rotate};
use anyhow::{Context, Result};
use candle_core::{Device, Tensor, Var};
use candle_nn::ops::silu;
use rand::{Rng, SeedableRng};
use rand_pcg::Pcg64Mcg;
use std::sync::Arc;

/// Sizes of the model.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Config {
    /// Tokens in the vocabulary.
    pub(crate) vocabulary: usize,
    /// Longest sequence in tokens.
    pub(crate) context: usize,
    /// Width of the residual stream.
    pub(crate) width: usize,
    /// Decoder blocks.
    pub(crate) layers: usize,
    /// Query heads.
    pub(crate) heads: usize,
    /// Key and value heads.
    pub(crate) kv_heads: usize,
    /// Width inside the feed-forward network.
    pub(crate) hidden: usize,
    /// Base of the rotary frequencies.
    pub(crate) rope_base: f32,
    /// Added to the mean square in RMSNorm.
    pub(crate) epsilon: f32,
}

impl Config {
    /// Width of one head.
    pub(crate) fn head_width(&self) -> usize {
        self.width / self.heads
    }
}

/// The parameters, in the order in which they stand in the file.
pub(crate) struct Model {
    /// The sizes.
    pub(crate) config: Config,
    /// Names and values; matrices are `(outputs, inputs)`.
    pub(crate) parameters: Vec<(String, Var)>,
}

/// Parameters of one block, in the order of the file.
const BLOCK: [&str; 9] =
    ["attn_norm", "attn_q", "attn_k", "attn_v", "attn_output", "ffn_norm", "ffn_gate", "ffn_up", "ffn_down"];

impl Model {
    /// A model with random matrices; the same seed gives the same ones.
    pub(crate) fn new(config: Config, seed: u64) -> Result<Self> {
        let Config { vocabulary, width, layers, hidden, .. } = config;
        let kv_width = config.kv_heads * config.head_width();
        // Outputs into the residual stream start smaller the more there are of them.
        let output = 0.04 / (2. * layers as f64).sqrt();
        let mut rng = Pcg64Mcg::seed_from_u64(seed);
        let mut parameters = vec![matrix("token_embd.weight", (vocabulary, width), 0.04, &mut rng)?];
        for layer in 0..layers {
            for name in BLOCK {
                let full = format!("blk.{layer}.{name}.weight");
                parameters.push(match name {
                    "attn_norm" | "ffn_norm" => ones(&full, width)?,
                    "attn_q" => matrix(&full, (width, width), 0.08, &mut rng)?,
                    "attn_k" => {
                        let (_, queries) = parameters.last().context("keys follow queries")?;
                        (full, keys_like(queries, &config)?)
                    }
                    "attn_v" => matrix(&full, (kv_width, width), 0.04, &mut rng)?,
                    "attn_output" => matrix(&full, (width, width), output, &mut rng)?,
                    "ffn_down" => matrix(&full, (width, hidden), output, &mut rng)?,
                    _ => matrix(&full, (hidden, width), 0.04, &mut rng)?,
                });
            }
        }
        parameters.push(ones("output_norm.weight", width)?);
        Ok(Self { config, parameters })
    }

    /// Number of single weights.
    pub(crate) fn size(&self) -> usize {
        self.parameters.iter().map(|(_, value)| value.elem_count()).sum()
    }

    /// Logits `(batch · len, vocabulary)` after every token of `ids (batch, len)`; `starts` names the
    /// first position that each of them sees.
    pub(crate) fn forward(&self, ids: &Tensor, starts: &Arc<[u32]>) -> Result<Tensor> {
        let Config { width, epsilon, .. } = self.config;
        let (batch, len) = ids.dims2()?;
        let mut parameters = self.parameters.iter().map(|(_, value)| value.as_tensor());
        let mut next = || parameters.next().context("the model has too few parameters");
        let norm = |x: &Tensor, weight: &Tensor| -> Result<Tensor> {
            Ok(x.apply_op1(Normalise { epsilon })?.broadcast_mul(weight)?)
        };
        let embedding = next()?;
        let mut x = embedding.index_select(&ids.flatten_all()?, 0)?.reshape((batch * len, width))?;
        for _ in 0..self.config.layers {
            let h = norm(&x, next()?)?;
            let (q, k, v) = (linear(&h, next()?)?, linear(&h, next()?)?, linear(&h, next()?)?);
            let attended = self.attend([q, k, v], (batch, len), starts)?;
            x = (x + linear(&attended, next()?)?)?;
            let h = norm(&x, next()?)?;
            let gate = silu(&linear(&h, next()?)?)?;
            let h = (gate * linear(&h, next()?)?)?;
            x = (x + linear(&h, next()?)?)?;
        }
        linear(&norm(&x, next()?)?, embedding)
    }

    /// Attention of queries to keys and values, all `(batch · len, …)` as the result is.
    fn attend(
        &self,
        [q, k, v]: [Tensor; 3],
        (batch, len): (usize, usize),
        starts: &Arc<[u32]>,
    ) -> Result<Tensor> {
        let Config { width, heads, kv_heads, rope_base, .. } = self.config;
        let (head, group) = (self.config.head_width(), heads / kv_heads);
        let rotate = Rotate { base: rope_base, back: false };
        // The query heads that share a key head are put below each other: one product for all.
        let q = q
            .reshape((batch, len, heads, head))?
            .apply_op1(rotate)?
            .reshape((batch, len, kv_heads, group, head))?
            .permute((0, 2, 3, 1, 4))?
            .reshape((batch * kv_heads, group * len, head))?;
        let k = k.reshape((batch, len, kv_heads, head))?.apply_op1(rotate)?;
        let v = v.reshape((batch, len, kv_heads, head))?;
        let by_head = |x: Tensor| x.transpose(1, 2)?.reshape((batch * kv_heads, len, head));
        let (k, v) = (by_head(k)?, by_head(v)?);
        let scores = q.matmul(&k.t()?)?;
        let scale = (head as f32).sqrt().recip();
        let softmax = CausalSoftmax { scale, len, heads, starts: starts.clone() };
        let attended = scores.apply_op1(softmax)?.matmul(&v)?;
        Ok(attended
            .reshape((batch, kv_heads, group, len, head))?
            .permute((0, 3, 1, 2, 4))?
            .reshape((batch * len, width))?)
    }
}

/// `x (rows, inputs)` times the transpose of `weight (outputs, inputs)`.
fn linear(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    Ok(x.matmul(&weight.t()?)?)
}

/// A matrix of evenly distributed values with the given standard deviation.
fn matrix(name: &str, shape: (usize, usize), deviation: f64, rng: &mut Pcg64Mcg) -> Result<(String, Var)> {
    let bound = (3f64.sqrt() * deviation) as f32;
    let values: Vec<f32> = (0..shape.0 * shape.1).map(|_| rng.random_range(-bound..bound)).collect();
    let value = Tensor::from_vec(values, shape, &Device::Cpu)?;
    Ok((name.to_owned(), Var::from_tensor(&value)?))
}

/// Keys equal to the queries of each group's first head, so that a token starts by attending to its
/// like: stories repeat their names, and this makes the model find out much earlier.
fn keys_like(queries: &Var, config: &Config) -> Result<Var> {
    let Config { width, heads, kv_heads, .. } = *config;
    let head = config.head_width();
    let keys = queries
        .as_detached_tensor()
        .reshape((kv_heads, heads / kv_heads, head, width))?
        .narrow(1, 0, 1)?
        .reshape((kv_heads * head, width))?;
    Ok(Var::from_tensor(&keys.copy()?)?)
}

fn ones(name: &str, width: usize) -> Result<(String, Var)> {
    let value = Tensor::from_vec(vec![1f32; width], width, &Device::Cpu)?;
    Ok((name.to_owned(), Var::from_tensor(&value)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TINY: Config = Config {
        vocabulary: 64,
        context: 16,
        width: 32,
        layers: 2,
        heads: 4,
        kv_heads: 2,
        hidden: 64,
        rope_base: 10000.,
        epsilon: 1e-5,
    };

    #[test]
    fn a_later_token_does_not_change_earlier_logits() -> Result<()> {
        let model = Model::new(TINY, 1)?;
        let logits = |ids: &[u32]| -> Result<Vec<Vec<f32>>> {
            let ids = Tensor::new(ids, &Device::Cpu)?.unsqueeze(0)?;
            Ok(model.forward(&ids, &[0; 4].into())?.to_vec2()?)
        };
        let (first, second) = (logits(&[1, 2, 3, 4])?, logits(&[1, 2, 3, 60])?);
        assert_eq!(first[..3], second[..3]);
        assert_ne!(first[3], second[3]);
        Ok(())
    }

    #[test]
    fn every_parameter_is_used() -> Result<()> {
        let model = Model::new(TINY, 1)?;
        let ids = Tensor::new(&[[1u32, 2, 3], [4, 5, 6]], &Device::Cpu)?;
        let grads = model.forward(&ids, &[0; 6].into())?.sqr()?.sum_all()?.backward()?;
        for (name, value) in &model.parameters {
            assert!(grads.get(value).is_some(), "{name} has no gradient");
        }
        Ok(())
    }
}
