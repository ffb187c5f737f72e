//! A blueprint from GGUF metadata: one entry per family, naming only what differs.

use super::hf::every;
use super::rope::Scaling;
use super::{Activation, Config, Mlp, Norm, Rope, RopePairs, Window};
use crate::error::{Error, Result};
use crate::gguf::{Metadata, Value};

/// The families that can be loaded, by GGUF's names.
pub(crate) const ARCHITECTURES: &[&str] =
    &["llama", "qwen2", "qwen3", "gemma2", "gemma3", "phi3", "gpt2", "gptneox", "smollm3"];

/// What a family does differently from Llama.
struct Family {
    layer_norm: bool,
    pairs: RopePairs,
    mlp: Mlp,
    /// Sliding windows: all layers but every n-th have one, and its length where a file does not say; 0: none then.
    windows: Option<(usize, usize)>,
    /// Soft caps of scores and of logits where a file does not say.
    caps: [Option<f32>; 2],
    /// Layers of the family's largest model, which scales scores by the embedding's share of a head. Files do not
    /// say so.
    largest: Option<usize>,
    embedding_scale: f32,
}

impl Family {
    fn of(architecture: &str, dim: usize) -> Result<Self> {
        let llama = Self {
            layer_norm: false,
            pairs: RopePairs::Adjacent,
            mlp: Mlp { gated: true, activation: Activation::Silu },
            windows: None,
            caps: [None; 2],
            largest: None,
            embedding_scale: 1.0,
        };
        let gelu = Mlp { gated: true, activation: Activation::Gelu };
        let embedding_scale = (dim as f32).sqrt();
        let gemma = Self { pairs: RopePairs::Halves, mlp: gelu, embedding_scale, ..llama };
        Ok(match architecture {
            "llama" | "smollm3" => llama,
            "qwen2" | "qwen3" | "phi3" => Self { pairs: RopePairs::Halves, ..llama },
            "gemma2" => {
                Self { windows: Some((2, 4096)), caps: [Some(50.0), Some(30.0)], largest: Some(46), ..gemma }
            }
            "gemma3" => Self { windows: Some((6, 0)), largest: Some(62), ..gemma },
            "gpt2" => Self { layer_norm: true, mlp: Mlp { gated: false, ..gelu }, ..llama },
            "gptneox" => {
                let mlp = Mlp { gated: false, activation: Activation::GeluErf };
                Self { layer_norm: true, pairs: RopePairs::Halves, mlp, ..llama }
            }
            other => {
                return Err(Error::unsupported(format!(
                    "architecture {other:?}, known are {}",
                    ARCHITECTURES.join(", ")
                )));
            }
        })
    }

    fn attention_scale(&self, layers: usize, dim: usize, heads: usize, head_dim: usize) -> f32 {
        let is_largest = self.largest == Some(layers);
        let length = if is_largest { dim.checked_div(heads).unwrap_or(0) } else { head_dim };
        1.0 / (length as f32).sqrt()
    }
}

impl Config {
    /// Reads the blueprint. `vocabulary` is the number of rows of the embedding; `rope_factors` the file's
    /// `rope_freqs` tensor, if it has one.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for an unknown architecture, [`Error::Format`] for missing or senseless values.
    pub fn from_gguf(metadata: &Metadata, vocabulary: usize, rope_factors: Option<&[f32]>) -> Result<Self> {
        let architecture = metadata.architecture()?;
        let key = |name: &str| format!("{architecture}.{name}");
        let size = |name: &str| Ok::<_, Error>(metadata.u32(&key(name))? as usize);
        let option = |name: &str| Ok::<_, Error>(metadata.opt_u32(&key(name))?.map(|value| value as usize));

        // An unknown architecture is reported before anything that its files lack.
        Family::of(architecture, 1)?;
        let dim = size("embedding_length")?;
        let family = Family::of(architecture, dim)?;
        let heads = size("attention.head_count")?;
        let kv_heads = option("attention.head_count_kv")?.unwrap_or(heads);
        let head_dim = match option("attention.key_length")? {
            Some(length) => length,
            None if heads > 0 && dim.is_multiple_of(heads) => dim / heads,
            None => return Err(Error::format(format!("{heads} heads do not divide an embedding of {dim}"))),
        };
        if let Some(length) = option("attention.value_length")?.filter(|&length| length != head_dim) {
            return Err(Error::unsupported(format!(
                "values of length {length} with keys of length {head_dim}"
            )));
        }
        if let Some(experts) = option("expert_count")?.filter(|&experts| experts > 0) {
            return Err(Error::unsupported(format!("a mixture of {experts} experts")));
        }
        let norm = match family.layer_norm {
            true => Norm::Layer(metadata.f32(&key("attention.layer_norm_epsilon"))?),
            false => Norm::Rms(metadata.f32(&key("attention.layer_norm_rms_epsilon"))?),
        };
        let layers = size("block_count")?;
        let cap = |name: &str, default: Option<f32>| {
            let cap = metadata.opt_f32(&key(name))?.or(default);
            Ok::<_, Error>(cap.filter(|&cap| cap > 0.0))
        };
        let config = Self {
            architecture: architecture.to_owned(),
            layers,
            dim,
            hidden: size("feed_forward_length")?,
            heads,
            kv_heads,
            head_dim,
            vocabulary,
            context: size("context_length")?,
            norm,
            rope: None,
            mlp: family.mlp,
            attention_scale: family.attention_scale(layers, dim, heads, head_dim),
            attention_softcap: cap("attn_logit_softcapping", family.caps[0])?,
            window: None,
            embedding_scale: family.embedding_scale,
            logit_softcap: cap("final_logit_softcapping", family.caps[1])?,
            parallel_residual: metadata.opt_bool(&key("use_parallel_residual"))?.unwrap_or(false),
        }
        .check()?;
        // After the check: lists are made for a believable number of layers and heads of a believable length.
        let window = window(metadata, &family, layers)?;
        let rope = match architecture {
            "gpt2" => None,
            _ => Some(rope(metadata, &family, head_dim, rope_factors)?),
        };
        let context = trained_context(metadata, config.context)?;
        Ok(Self { rope, window, context, ..config })
    }
}

/// Phi-3 has two sets of factors; those for its original context are the ones that are loaded.
fn trained_context(metadata: &Metadata, context: usize) -> Result<usize> {
    if metadata.architecture()? != "phi3" {
        return Ok(context);
    }
    let original = metadata.opt_u32("phi3.rope.scaling.original_context_length")?;
    Ok(original.filter(|&original| original > 0).map_or(context, |original| context.min(original as usize)))
}

/// The layers' windows: a period or a list says which have one.
fn window(metadata: &Metadata, family: &Family, layers: usize) -> Result<Option<Window>> {
    let Some((period, length)) = family.windows else { return Ok(None) };
    let architecture = metadata.architecture()?;
    let key = |name: &str| format!("{architecture}.attention.{name}");
    let length = metadata.opt_u32(&key("sliding_window"))?.map_or(length, |length| length as usize);
    if length == 0 {
        return Ok(None);
    }
    let pattern = key("sliding_window_pattern");
    let sliding = match metadata.get(&pattern) {
        Some(Value::Array(_)) => metadata.opt_bools(&pattern)?.unwrap_or_default(),
        _ => every(layers, metadata.opt_u32(&pattern)?.map_or(period, |period| period as usize)),
    };
    if sliding.len() != layers {
        return Err(Error::format(format!("{} windows in {pattern} for {layers} layers", sliding.len())));
    }
    Ok(Some(Window { length, sliding }))
}

fn rope(metadata: &Metadata, family: &Family, head_dim: usize, factors: Option<&[f32]>) -> Result<Rope> {
    let architecture = metadata.architecture()?;
    let key = |name: &str| format!("{architecture}.rope.{name}");
    let number = |name: &str| Ok::<_, Error>(metadata.opt_f32(&key(name))?.map(f64::from));
    let dims = metadata.opt_u32(&key("dimension_count"))?.map_or(head_dim, |dims| dims as usize);
    let base = number("freq_base")?.unwrap_or(10_000.0);
    // Older converters name the factor alone.
    let factor = number("scaling.factor")?.or(number("scale_linear")?).filter(|&factor| factor > 0.0);
    let original = metadata.opt_u32(&key("scaling.original_context_length"))?.map(f64::from);
    let scaling = match (metadata.opt_str(&key("scaling.type"))?.unwrap_or("linear"), factor) {
        ("none", _) | ("linear" | "yarn", None) => Scaling::None,
        ("linear", Some(factor)) => Scaling::Linear(factor),
        ("yarn", Some(factor)) => {
            let original = original.ok_or_else(|| {
                Error::format(format!("metadata {} is missing", key("scaling.original_context_length")))
            })?;
            let fast = number("scaling.yarn_beta_fast")?.unwrap_or(32.0);
            let slow = number("scaling.yarn_beta_slow")?.unwrap_or(1.0);
            Scaling::Yarn { factor, fast, slow, original }
        }
        // phi3's long contexts come with factors per pair, which the loader passes.
        ("longrope", _) => Scaling::None,
        (other, _) => return Err(Error::unsupported(format!("rope scaling {other:?}"))),
    };
    if dims > head_dim {
        return Err(Error::format(format!("{dims} rotary elements in heads of {head_dim}")));
    }
    let mut rope = Rope::new(family.pairs, dims, base, scaling, factors)?;
    if let Some(magnitude) = metadata.opt_f32(&key("scaling.attn_factor"))? {
        rope.magnitude *= magnitude;
    }
    if architecture == "gemma3" {
        let base = number("freq_base_swa")?.unwrap_or(10_000.0);
        let local = Rope::new(family.pairs, dims, base, Scaling::None, None)?;
        rope.window_frequencies = Some(local.frequencies);
    }
    if architecture == "smollm3" {
        rope.skip_period = 4;
    }
    Ok(rope)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn read(changes: &[(&str, Value)]) -> Result<Config> {
        let mut pairs: HashMap<String, Value> = [
            ("general.architecture", Value::String("llama".to_owned())),
            ("llama.block_count", Value::U32(2)),
            ("llama.context_length", Value::U32(128)),
            ("llama.embedding_length", Value::U32(64)),
            ("llama.feed_forward_length", Value::U32(96)),
            ("llama.attention.head_count", Value::U32(4)),
            ("llama.attention.head_count_kv", Value::U32(2)),
            ("llama.attention.layer_norm_rms_epsilon", Value::F32(1e-5)),
        ]
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value))
        .collect();
        pairs.extend(changes.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
        Config::from_gguf(&Metadata::new(pairs), 100, None)
    }

    fn check(changes: &[(&str, Value)], expected: &str) {
        let error = read(changes).expect_err(expected).to_string();
        assert!(error.contains(expected), "{changes:?}: {error}");
    }

    #[test]
    fn senseless_sizes_are_refused() {
        let config = read(&[]).expect("a blueprint");
        assert_eq!((config.head_dim, config.query_dim(), config.kv_dim()), (16, 64, 32));
        let max = Value::U32(u32::MAX);
        let zero = Value::U32(0);
        check(&[("general.architecture", Value::String("rwkv".to_owned()))], "known are llama");
        check(&[("general.architecture", Value::U32(1))], "general.architecture");
        check(&[("llama.block_count", max.clone())], "layers is 4294967295");
        check(&[("llama.embedding_length", zero.clone())], "embedding length is 0");
        check(&[("llama.attention.head_count", zero.clone())], "0 heads");
        check(&[("llama.attention.head_count", Value::U32(7))], "7 heads");
        check(&[("llama.attention.head_count_kv", Value::U32(3))], "3 key and value heads");
        check(&[("llama.attention.key_length", max.clone())], "4294967295");
        check(
            &[("llama.attention.key_length", Value::U32(8)), ("llama.attention.head_count", zero)],
            "heads is 0",
        );
        check(&[("llama.rope.dimension_count", max)], "4294967295 rotary elements");
        check(&[("llama.rope.dimension_count", Value::U32(5))], "5 rotary elements");
        check(&[("llama.rope.freq_base", Value::F32(-1.0))], "rope base is -1");
        check(&[("llama.rope.freq_base", Value::F32(f32::NAN))], "rope base is NaN");
        check(&[("llama.attention.layer_norm_rms_epsilon", Value::F32(f32::INFINITY))], "epsilon is inf");
        check(&[("llama.expert_count", Value::U32(8))], "8 experts");
        check(&[("llama.context_length", Value::U32(0))], "context length is 0");
    }
}
