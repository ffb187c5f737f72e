//! The decoder of T5, one token at a time.
//!
//! candle has one too, which serves to decode up to eight tokens: it sorts distances into buckets as an encoder
//! does, scales the logits of tied matrices up instead of down, and computes keys and values of the whole prompt
//! again for every token. Here they are computed once per prompt. After Raffel et al., "Exploring the limits of
//! transfer learning with a unified text-to-text transformer"; shapes are `[heads, tokens, head]` unless said
//! otherwise.

use candle_core::{Device, Module, Result, Tensor};
use candle_nn::ops::{rms_norm, softmax_last_dim};
use candle_nn::{Activation, Linear};

use super::settings::Settings;
use crate::weights::Weights;

/// The decoder's weights.
pub(super) struct Decoder {
    layers: Vec<Layer>,
    norm: Tensor,
    /// The token embeddings, `[vocabulary, dim]`; the encoder's too.
    tokens: Tensor,
    output: Linear,
    /// `[buckets, heads]`.
    bias: Tensor,
    distance: usize,
    epsilon: f32,
    /// What the last vector is multiplied with.
    scale: f64,
}

struct Layer {
    own: Attention,
    prompt: Attention,
    mlp: Mlp,
}

/// An attention with the norm in front of it.
struct Attention {
    norm: Tensor,
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    heads: usize,
}

struct Mlp {
    norm: Tensor,
    gate: Option<Linear>,
    up: Linear,
    down: Linear,
    activation: Activation,
}

/// Keys and values of some tokens.
#[derive(Clone)]
struct Kv {
    keys: Tensor,
    values: Tensor,
}

/// What a sequence has computed. Cloning it copies references.
#[derive(Clone)]
pub(super) struct State {
    /// Per layer: those of the prompt, and those of the output. There may be more of the latter than `length` says,
    /// of tokens that were taken back.
    layers: Vec<(Kv, Option<Kv>)>,
    /// Tokens that were decoded, the one at the start included. Can be lowered.
    pub(super) length: usize,
}

impl Decoder {
    pub(super) fn load(weights: &Weights<'_>, settings: &Settings, tokens: Tensor) -> Result<Self> {
        let (dim, heads) = (settings.d_model, settings.num_heads);
        let layers = (0..settings.decoder_layers()).map(|layer| Layer::load(weights, settings, layer));
        let layers = layers.collect::<Result<Vec<_>>>()?;
        let buckets = settings.relative_attention_num_buckets;
        let bias = "decoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight";
        // Without a matrix of its own, the output's is that of the embeddings.
        let output = match weights.shape("lm_head.weight") {
            Some(_) => weights.tensor("lm_head.weight", &[settings.vocab_size, dim])?,
            None => tokens.clone(),
        };
        Ok(Self {
            layers,
            norm: weights.tensor("decoder.final_layer_norm.weight", &[dim])?,
            tokens,
            output: Linear::new(output, None),
            bias: weights.tensor(bias, &[buckets, heads])?,
            distance: settings.relative_attention_max_distance,
            epsilon: settings.layer_norm_epsilon as f32,
            scale: if settings.scaled() { (dim as f64).powf(-0.5) } else { 1.0 },
        })
    }

    /// The state before the first token, for a prompt whose encoding is `encoded`, `[tokens, dim]`.
    pub(super) fn start(&self, encoded: &Tensor) -> Result<State> {
        let kv = |layer: &Layer| Ok((layer.prompt.kv(encoded)?, None));
        let layers = self.layers.iter().map(kv).collect::<Result<_>>()?;
        Ok(State { layers, length: 0 })
    }

    /// Takes a token in; returns the last layer's vector, `[1, dim]`.
    pub(super) fn step(&self, state: &mut State, token: u32) -> Result<Tensor> {
        let mut hidden = self.tokens.index_select(&Tensor::new(&[token], &Device::Cpu)?, 0)?;
        let bias = self.bias(state.length)?;
        for (layer, (prompt, own)) in self.layers.iter().zip(&mut state.layers) {
            let normed = rms_norm(&hidden, &layer.own.norm, self.epsilon)?;
            let all = layer.own.kv(&normed)?.after(own.take(), state.length)?;
            hidden = (hidden + layer.own.attend(&normed, &all, Some(&bias))?)?;
            *own = Some(all);
            let normed = rms_norm(&hidden, &layer.prompt.norm, self.epsilon)?;
            hidden = (hidden + layer.prompt.attend(&normed, prompt, None)?)?;
            let normed = rms_norm(&hidden, &layer.mlp.norm, self.epsilon)?;
            hidden = (hidden + layer.mlp.forward(&normed)?)?;
        }
        state.length += 1;
        Ok(hidden)
    }

    /// Logits after a token whose last vector is `hidden`.
    pub(super) fn logits(&self, hidden: &Tensor) -> Result<Vec<f32>> {
        let normed = (rms_norm(hidden, &self.norm, self.epsilon)? * self.scale)?;
        self.output.forward(&normed)?.squeeze(0)?.to_vec1()
    }

    /// What attention adds for the distance of each token so far from the one at `position`, `[heads, 1, tokens]`.
    fn bias(&self, position: usize) -> Result<Tensor> {
        let buckets = self.bias.dim(0)?;
        let bucket = |distance| bucket(distance, buckets, self.distance);
        let indices: Vec<u32> = (0..=position).rev().map(bucket).collect();
        let indices = Tensor::new(indices, &Device::Cpu)?;
        self.bias.index_select(&indices, 0)?.t()?.contiguous()?.unsqueeze(1)
    }
}

/// The bucket of a distance backwards: half of the buckets for one distance each, the others ever wider, the last for
/// all from `farthest` on. In the single precision of the original, which decides at the borders.
fn bucket(distance: usize, buckets: usize, farthest: usize) -> u32 {
    let exact = buckets / 2;
    let bucket = if distance < exact {
        distance
    } else {
        let (distance, exact, farthest) = (distance as f32, exact as f32, farthest as f32);
        let part = libm::logf(distance / exact) / libm::logf(farthest / exact);
        (exact + (part * (buckets as f32 - exact)).floor()) as usize
    };
    bucket.min(buckets - 1) as u32
}

impl Layer {
    fn load(weights: &Weights<'_>, settings: &Settings, layer: usize) -> Result<Self> {
        let block = format!("decoder.block.{layer}.layer");
        let attention = |part: usize, name: &str| Attention::load(weights, settings, &block, part, name);
        Ok(Self {
            own: attention(0, "SelfAttention")?,
            prompt: attention(1, "EncDecAttention")?,
            mlp: Mlp::load(weights, settings, &block)?,
        })
    }
}

/// A matrix without a bias.
fn matrix(weights: &Weights<'_>, name: &str, inputs: usize, outputs: usize) -> Result<Linear> {
    let weight = weights.tensor(&format!("{name}.weight"), &[outputs, inputs])?;
    Ok(Linear::new(weight, None))
}

impl Attention {
    fn load(
        weights: &Weights<'_>,
        settings: &Settings,
        block: &str,
        part: usize,
        name: &str,
    ) -> Result<Self> {
        let (dim, inner) = (settings.d_model, settings.num_heads * settings.d_kv);
        let matrix = |letter: &str, inputs, outputs| {
            matrix(weights, &format!("{block}.{part}.{name}.{letter}"), inputs, outputs)
        };
        let norm = weights.tensor(&format!("{block}.{part}.layer_norm.weight"), &[dim])?;
        Ok(Self {
            norm,
            query: matrix("q", dim, inner)?,
            key: matrix("k", dim, inner)?,
            value: matrix("v", dim, inner)?,
            output: matrix("o", inner, dim)?,
            heads: settings.num_heads,
        })
    }

    /// `[tokens, heads · head]` by heads.
    fn split(&self, all: &Tensor) -> Result<Tensor> {
        let (tokens, _) = all.dims2()?;
        all.reshape((tokens, self.heads, ()))?.transpose(0, 1)?.contiguous()
    }

    /// Keys and values of tokens, `[tokens, dim]`.
    fn kv(&self, tokens: &Tensor) -> Result<Kv> {
        let keys = self.split(&self.key.forward(tokens)?)?;
        let values = self.split(&self.value.forward(tokens)?)?;
        Ok(Kv { keys, values })
    }

    /// What the token `[1, dim]` finds. T5 does not scale its scores: its weights are made for that.
    fn attend(&self, token: &Tensor, among: &Kv, bias: Option<&Tensor>) -> Result<Tensor> {
        let query = self.split(&self.query.forward(token)?)?;
        let scores = query.matmul(&among.keys.transpose(1, 2)?)?;
        let scores = match bias {
            Some(bias) => (scores + bias)?,
            None => scores,
        };
        let found = softmax_last_dim(&scores)?.matmul(&among.values)?;
        self.output.forward(&found.transpose(0, 1)?.contiguous()?.flatten_from(1)?)
    }
}

impl Mlp {
    fn load(weights: &Weights<'_>, settings: &Settings, block: &str) -> Result<Self> {
        let (activation, gated) = settings.mlp().map_err(candle_core::Error::msg)?;
        let (dim, hidden) = (settings.d_model, settings.d_ff);
        let name = |name: &str| format!("{block}.2.DenseReluDense.{name}");
        let (gate, up) =
            if gated { (Some(matrix(weights, &name("wi_0"), dim, hidden)?), "wi_1") } else { (None, "wi") };
        Ok(Self {
            norm: weights.tensor(&format!("{block}.2.layer_norm.weight"), &[dim])?,
            gate,
            up: matrix(weights, &name(up), dim, hidden)?,
            down: matrix(weights, &name("wo"), hidden, dim)?,
            activation,
        })
    }

    fn forward(&self, token: &Tensor) -> Result<Tensor> {
        let up = self.up.forward(token)?;
        let hidden = match &self.gate {
            Some(gate) => (self.activation.forward(&gate.forward(token)?)? * up)?,
            None => self.activation.forward(&up)?,
        };
        self.down.forward(&hidden)
    }
}

impl Kv {
    /// These behind the first `length` of `before`.
    fn after(self, before: Option<Kv>, length: usize) -> Result<Kv> {
        let Some(before) = before else { return Ok(self) };
        let join = |before: &Tensor, new: &Tensor| Tensor::cat(&[&before.narrow(1, 0, length)?, new], 1);
        Ok(Kv { keys: join(&before.keys, &self.keys)?, values: join(&before.values, &self.values)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_sorted_as_by_transformers() {
        // T5Attention._relative_position_bucket with bidirectional=False.
        for (distance, buckets, farthest, expected) in [
            (0, 32, 128, 0),
            (8, 32, 128, 8),
            (15, 32, 128, 15),
            (16, 32, 128, 16),
            (18, 32, 128, 16),
            (19, 32, 128, 17),
            (32, 32, 128, 21),
            (64, 32, 128, 26),
            (113, 32, 128, 31),
            (127, 32, 128, 31),
            (128, 32, 128, 31),
            (100_000, 32, 128, 31),
            (3, 4, 4, 3),
        ] {
            assert_eq!(bucket(distance, buckets, farthest), expected, "{distance} of {farthest}");
        }
    }
}
