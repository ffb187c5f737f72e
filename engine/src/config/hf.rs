//! A blueprint from a Hugging Face config.json.
//!
//! Values that a family's transformers code fills in by default are filled in here too; whatever would change
//! the computation and is not supported is refused by name.

use serde_json::Value;

use super::rope::Scaling;
use super::{Activation, Config, Mlp, Norm, Rope, RopePairs, Window};
use crate::error::{Error, Result};

/// The families that can be loaded, by transformers' `model_type` and by GGUF's name.
const FAMILIES: &[(&str, &str)] = &[
    ("llama", "llama"),
    ("mistral", "llama"),
    ("qwen2", "qwen2"),
    ("qwen3", "qwen3"),
    ("gemma2", "gemma2"),
    ("gemma3_text", "gemma3"),
    ("gemma3", "gemma3"),
    ("phi3", "phi3"),
    ("gpt2", "gpt2"),
    ("gpt_neox", "gptneox"),
    ("smollm3", "smollm3"),
];

/// Typed access to a JSON object; `null` is as good as absent.
#[derive(Clone, Copy)]
struct Fields<'a>(&'a Value);

impl<'a> Fields<'a> {
    fn get(self, key: &str) -> Option<&'a Value> {
        self.0.get(key).filter(|value| !value.is_null())
    }

    fn typed<T>(self, key: &str, what: &str, read: impl Fn(&'a Value) -> Option<T>) -> Result<Option<T>> {
        let wrong = |value: &Value| Error::format(format!("{key} is {value}, it must be {what}"));
        self.get(key).map(|value| read(value).ok_or_else(|| wrong(value))).transpose()
    }

    fn size(self, key: &str) -> Result<Option<usize>> {
        self.typed(key, "a size", |value| usize::try_from(value.as_u64()?).ok())
    }

    fn number(self, key: &str) -> Result<Option<f64>> {
        self.typed(key, "a number", Value::as_f64)
    }

    fn flag(self, key: &str) -> Result<Option<bool>> {
        self.typed(key, "true or false", Value::as_bool)
    }

    fn text(self, key: &str) -> Result<Option<&'a str>> {
        self.typed(key, "a text", Value::as_str)
    }

    fn list(self, key: &str) -> Result<Option<&'a Vec<Value>>> {
        self.typed(key, "a list", Value::as_array)
    }

    fn object(self, key: &str) -> Option<Fields<'a>> {
        self.get(key).filter(|value| value.is_object()).map(Fields)
    }

    /// A size under one of several names, the families' own.
    fn needed(self, keys: &[&str]) -> Result<usize> {
        for key in keys {
            if let Some(size) = self.size(key)? {
                return Ok(size);
            }
        }
        Err(Error::format(format!("config.json has no {}", keys.join(" or "))))
    }

    /// Refuses a setting that is switched on.
    fn refuse(self, key: &str) -> Result<()> {
        match self.flag(key)? {
            Some(true) => Err(Error::unsupported(format!("{key} in config.json"))),
            _ => Ok(()),
        }
    }
}

impl Config {
    /// The families of Hugging Face folders that can be loaded, by transformers' `model_type`.
    pub fn families() -> impl Iterator<Item = &'static str> {
        FAMILIES.iter().map(|(family, _)| *family)
    }

    /// Reads the blueprint, all but the size of the vocabulary, which is 1 for now: only the weights know how
    /// far it is padded. Also tells whether the embedding is the output matrix too.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for an unknown architecture or setting, [`Error::Format`] for missing or
    /// senseless values.
    pub(crate) fn from_hf(json: &Value) -> Result<(Self, bool)> {
        let outer = Fields(json);
        let kind = outer.text("model_type")?.ok_or_else(|| Error::format("config.json has no model_type"))?;
        let Some((_, architecture)) = FAMILIES.iter().find(|(known, _)| *known == kind) else {
            let known: Vec<&str> = Self::families().collect();
            return Err(Error::unsupported(format!("architecture {kind:?}, known are {}", known.join(", "))));
        };
        // Models that also see keep their text model's settings apart.
        let fields = outer.object("text_config").unwrap_or(outer);
        for key in ["scale_attn_by_inverse_layer_idx", "reorder_and_upcast_attn", "use_qk_norm"] {
            fields.refuse(key)?;
        }

        let dim = fields.needed(&["hidden_size", "n_embd"])?;
        let heads = fields.needed(&["num_attention_heads", "n_head"])?;
        let head_dim = match fields.size("head_dim")? {
            Some(length) => length,
            None if heads > 0 && dim.is_multiple_of(heads) => dim / heads,
            None => return Err(Error::format(format!("{heads} heads do not divide a hidden size of {dim}"))),
        };
        let gemma = architecture.starts_with("gemma");
        let layer_norm = matches!(*architecture, "gpt2" | "gptneox");
        let scale_length = match fields.number("query_pre_attn_scalar")? {
            Some(length) if gemma && length > 0.0 => length,
            _ => head_dim as f64,
        };
        let hidden = match *architecture {
            "gpt2" => fields.size("n_inner")?.unwrap_or(dim.saturating_mul(4)),
            _ => fields.needed(&["intermediate_size"])?,
        };
        let softcap =
            |key: &str| Ok::<_, Error>(fields.number(key)?.filter(|&cap| cap > 0.0).map(|cap| cap as f32));
        let config = Self {
            architecture: (*architecture).to_owned(),
            layers: fields.needed(&["num_hidden_layers", "n_layer"])?,
            dim,
            hidden,
            heads,
            kv_heads: fields.size("num_key_value_heads")?.unwrap_or(heads),
            head_dim,
            vocabulary: 1,
            context: fields.needed(&["max_position_embeddings", "n_positions"])?,
            norm: norm(fields, layer_norm)?,
            rope: None,
            mlp: Mlp { gated: !layer_norm, activation: activation(fields, gemma)? },
            attention_scale: (1.0 / scale_length.sqrt()) as f32,
            attention_softcap: if gemma { softcap("attn_logit_softcapping")? } else { None },
            window: None,
            embedding_scale: if gemma { (dim as f32).sqrt() } else { 1.0 },
            logit_softcap: if gemma { softcap("final_logit_softcapping")? } else { None },
            // GPT-NeoX's default; no other family has the setting.
            parallel_residual: *architecture == "gptneox"
                && fields.flag("use_parallel_residual")?.unwrap_or(true),
        }
        .check()?;
        let tied = fields.flag("tie_word_embeddings")?.or(outer.flag("tie_word_embeddings")?);
        let tied = tied.unwrap_or(gemma || matches!(*architecture, "gpt2" | "smollm3"));
        let window = window(fields, kind, config.layers)?;
        let (rope, context) = match *architecture {
            "gpt2" => (None, config.context),
            _ => rope(fields, &config).map(|(rope, context)| (Some(rope), context))?,
        };
        Ok((Self { window, rope, context, ..config }, tied))
    }
}

fn norm(fields: Fields<'_>, layer_norm: bool) -> Result<Norm> {
    if layer_norm {
        let epsilon = fields.number("layer_norm_epsilon")?.or(fields.number("layer_norm_eps")?);
        return Ok(Norm::Layer(epsilon.unwrap_or(1e-5) as f32));
    }
    Ok(Norm::Rms(fields.number("rms_norm_eps")?.unwrap_or(1e-6) as f32))
}

fn activation(fields: Fields<'_>, gemma: bool) -> Result<Activation> {
    let name = match (fields.text("hidden_activation")?, fields.text("hidden_act")?) {
        (Some(name), _) => name,
        // Gemma's checkpoints said "gelu" and meant its approximation.
        (None, _) if gemma => "gelu_pytorch_tanh",
        (None, Some(name)) => name,
        (None, None) => fields.text("activation_function")?.unwrap_or("silu"),
    };
    match name {
        "silu" | "swish" => Ok(Activation::Silu),
        "gelu" => Ok(Activation::GeluErf),
        "gelu_new" | "gelu_fast" | "gelu_pytorch_tanh" => Ok(Activation::Gelu),
        other => Err(Error::unsupported(format!(
            "activation {other:?}, known are silu, gelu, gelu_new, gelu_fast and gelu_pytorch_tanh"
        ))),
    }
}

/// Which layers see how far: by `layer_types`, or by the older settings that it replaced.
fn window(fields: Fields<'_>, kind: &str, layers: usize) -> Result<Option<Window>> {
    let switched_off = fields.flag("use_sliding_window")? == Some(false);
    let Some(length) = fields.size("sliding_window")?.filter(|&length| length > 0 && !switched_off) else {
        return Ok(None);
    };
    let sliding = match (fields.list("layer_types")?, kind) {
        (Some(types), _) => {
            if types.len() != layers {
                return Err(Error::format(format!("{} layer_types for {layers} layers", types.len())));
            }
            let one = |kind: &Value| match kind.as_str() {
                Some("sliding_attention") => Ok(true),
                Some("full_attention") => Ok(false),
                _ => Err(Error::unsupported(format!("layer type {kind}"))),
            };
            types.iter().map(one).collect::<Result<_>>()?
        }
        (None, "gemma2") => every(layers, 2),
        (None, "gemma3" | "gemma3_text") => {
            every(layers, fields.size("sliding_window_pattern")?.unwrap_or(6))
        }
        (None, "qwen2" | "qwen3") => {
            let first = fields.size("max_window_layers")?.unwrap_or(0);
            (0..layers).map(|layer| layer >= first).collect()
        }
        (None, "mistral" | "phi3") => vec![true; layers],
        (None, _) => return Ok(None),
    };
    Ok(Some(Window { length, sliding }))
}

/// All layers but every `period`-th.
pub(super) fn every(layers: usize, period: usize) -> Vec<bool> {
    (1..=layers).map(|layer| period == 0 || !layer.is_multiple_of(period)).collect()
}

/// Rotary positions, and the context that they are good for.
fn rope(fields: Fields<'_>, config: &Config) -> Result<(Rope, usize)> {
    let (head_dim, context) = (config.head_dim, config.context);
    let mut parameters = fields.object("rope_parameters").or(fields.object("rope_scaling"));
    // Newer files of Gemma 3 have one set for layers with a window and one for the others.
    let local = parameters.and_then(|both| both.object("sliding_attention"));
    parameters = parameters.and_then(|both| both.object("full_attention")).or(parameters);
    let either = |key: &str| match parameters.map(|fields| fields.number(key)).transpose()?.flatten() {
        Some(number) => Ok::<_, Error>(Some(number)),
        None => fields.number(key),
    };
    let partial = either("partial_rotary_factor")?.or(fields.number("rotary_pct")?);
    let default = if config.architecture == "gptneox" { 0.25 } else { 1.0 };
    let dims = (head_dim as f64 * partial.unwrap_or(default)) as usize;
    let base = either("rope_theta")?.or(fields.number("rotary_emb_base")?).unwrap_or(10_000.0);

    let long = long_rope(fields, parameters, dims, context)?;
    let (scaling, factors) = match &long {
        Some(long) => (Scaling::None, Some(long.factors.as_slice())),
        None => {
            (parameters.map(|fields| scaling(fields, context)).transpose()?.unwrap_or(Scaling::None), None)
        }
    };
    let mut rope = Rope::new(RopePairs::Halves, dims, base, scaling, factors)?;
    let attention = parameters.map(|fields| fields.number("attention_factor")).transpose()?.flatten();
    if let Some(magnitude) = attention.or(long.as_ref().map(|long| long.magnitude)) {
        rope.magnitude = magnitude as f32;
    }
    if config.architecture == "gemma3" {
        let base = match local {
            Some(local) => local.number("rope_theta")?,
            None => fields.number("rope_local_base_freq")?,
        };
        let window = Rope::new(RopePairs::Halves, dims, base.unwrap_or(10_000.0), Scaling::None, None)?;
        rope.window_frequencies = Some(window.frequencies);
    }
    if config.architecture == "smollm3" {
        rope.skip_period = skip_period(fields, config.layers)?;
    }
    Ok((rope, long.map_or(context, |long| long.context)))
}

/// Phi-3's frequencies for short contexts, which are those that it has been trained on.
struct LongRope {
    factors: Vec<f32>,
    magnitude: f64,
    context: usize,
}

fn long_rope(
    fields: Fields<'_>,
    parameters: Option<Fields<'_>>,
    dims: usize,
    context: usize,
) -> Result<Option<LongRope>> {
    let Some(parameters) = parameters.filter(|p| matches!(kind_of(*p), Ok("longrope" | "su"))) else {
        return Ok(None);
    };
    let key = "original_max_position_embeddings";
    let original = match parameters.size(key)? {
        Some(original) => Some(original),
        None => fields.size(key)?,
    };
    let original = original.filter(|&original| original > 1 && original <= context).unwrap_or(context);
    let list = parameters.list("short_factor")?;
    let list = list.ok_or_else(|| Error::format("rope_scaling has no short_factor"))?;
    if list.len() != dims / 2 {
        return Err(Error::format(format!(
            "{} factors in short_factor, {} are wanted",
            list.len(),
            dims / 2
        )));
    }
    let factor = |value: &Value| {
        let number = value.as_f64().map(|number| number as f32);
        number.ok_or_else(|| Error::format(format!("short_factor holds {value}")))
    };
    let factors = list.iter().map(factor).collect::<Result<_>>()?;
    let stretch = context as f64 / original as f64;
    let magnitude = (1.0 + libm::log(stretch) / libm::log(original as f64)).sqrt();
    Ok(Some(LongRope { factors, magnitude, context: original }))
}

fn kind_of<'a>(parameters: Fields<'a>) -> Result<&'a str> {
    Ok(parameters.text("rope_type")?.or(parameters.text("type")?).unwrap_or("default"))
}

fn scaling(parameters: Fields<'_>, context: usize) -> Result<Scaling> {
    let positive = |key: &str, default: Option<f64>| {
        let number = parameters.number(key)?.or(default);
        number
            .filter(|number| number.is_finite() && *number > 0.0)
            .ok_or_else(|| Error::format(format!("rope_scaling needs a positive {key}")))
    };
    let original = |default| positive("original_max_position_embeddings", default);
    Ok(match kind_of(parameters)? {
        // Dynamic scaling begins beyond the context, which we do not leave.
        "default" | "dynamic" => Scaling::None,
        "linear" => Scaling::Linear(positive("factor", None)?),
        "llama3" => Scaling::Llama3 {
            factor: positive("factor", None)?,
            low: positive("low_freq_factor", None)?,
            high: positive("high_freq_factor", None)?,
            original: original(None)?,
        },
        "yarn" => Scaling::Yarn {
            factor: positive("factor", None)?,
            fast: positive("beta_fast", Some(32.0))?,
            slow: positive("beta_slow", Some(1.0))?,
            original: original(Some(context as f64))?,
        },
        other => return Err(Error::unsupported(format!("rope scaling {other:?}"))),
    })
}

/// SmolLM 3: which layers go without positions, as a period.
fn skip_period(fields: Fields<'_>, layers: usize) -> Result<usize> {
    let period = fields.size("no_rope_layer_interval")?.unwrap_or(4);
    let Some(list) = fields.list("no_rope_layers")? else { return Ok(period) };
    // The list says 1 where there are positions.
    let with = |layer: usize| list.get(layer).and_then(Value::as_u64) == Some(1);
    if (0..layers).all(with) {
        return Ok(0);
    }
    let fits = (0..layers).all(|layer| with(layer) == (period == 0 || !(layer + 1).is_multiple_of(period)));
    if fits { Ok(period) } else { Err(Error::unsupported("layers without positions in an irregular order")) }
}
