//! The options that all generating endpoints share, as they are named on the wire.
//!
//! Names and limits are OpenAI's, plus `top_k`, `min_p` and `repetition_penalty`, which open models are
//! commonly run with. Limits are checked by the modules that the values are for.

use serde_json::{Map, Number, Value, json};

use super::error::Refusal;
use super::fields::{Fields, wrong};
use super::run::MAX_CHOICES;
use crate::preset::Preset;
use crate::sampler::Sampling;

/// What the body said about how to continue.
#[derive(Debug)]
pub(super) struct Options {
    pub(super) model: Option<String>,
    sampling: Sampling,
    seed: Option<u64>,
    pub(super) stop: Vec<String>,
    pub(super) stream: bool,
    /// Answers are shared only among requests with the same salt.
    pub(super) cache_salt: Option<String>,
    /// Choices per prompt.
    pub(super) choices: usize,
    /// Whether probabilities are wanted, and of how many alternatives.
    pub(super) logprobs: Option<usize>,
}

impl Options {
    /// Takes the shared options from the body; what it does not say is preset.
    pub(super) fn read(body: &mut Fields, preset: &Preset) -> Result<Self, Refusal> {
        let model = body.string("model")?;
        let default = &preset.sampling;
        let sampling = Sampling {
            temperature: body.number("temperature")?.unwrap_or(default.temperature),
            top_k: body.optional("top_k", "an integer of at least 0 (0 keeps all)")?.unwrap_or(default.top_k),
            top_p: body.number("top_p")?.unwrap_or(default.top_p),
            min_p: body.number("min_p")?.unwrap_or(default.min_p),
            repetition_penalty: body.number("repetition_penalty")?.unwrap_or(default.repetition_penalty),
            presence_penalty: body.number("presence_penalty")?.unwrap_or(default.presence_penalty),
            frequency_penalty: body.number("frequency_penalty")?.unwrap_or(default.frequency_penalty),
            logit_bias: logit_bias(body)?,
            seed: default.seed,
        };
        let (seed, stop, stream) = (seed(body)?, stop(body)?, body.flag("stream")?);
        let cache_salt = body.string("cache_salt")?;
        Ok(Self { model, sampling, seed, stop, stream, cache_salt, choices: 1, logprobs: None })
    }

    /// Takes the number of choices per prompt, under the endpoint's name for it.
    pub(super) fn read_choices(&mut self, body: &mut Fields, name: &'static str) -> Result<(), Refusal> {
        let Some(count) = body.count(name)? else { return Ok(()) };
        self.choices = match usize::try_from(count) {
            Ok(count) if (1..=MAX_CHOICES).contains(&count) => count,
            _ => {
                let message = format!("{name} is {count}, limits are 1 and {MAX_CHOICES}");
                return Err(Refusal::parameter(name, message));
            }
        };
        Ok(())
    }

    /// Whether the same request gets the same answer again: nothing is drawn, or from a seed that it names.
    pub(super) fn is_deterministic(&self) -> bool {
        self.sampling.temperature == 0.0 || self.seed.is_some()
    }

    /// The sampling for choice `index`; a request without a seed gets `random`.
    pub(super) fn sampling(&self, index: usize, random: u64) -> Sampling {
        let seed = self.seed.unwrap_or(random).wrapping_add(index as u64);
        Sampling { seed, ..self.sampling.clone() }
    }
}

/// `logit_bias`: an object of token ids (as strings, being keys) and what is added to their logits.
fn logit_bias(body: &mut Fields) -> Result<Vec<(u32, f32)>, Refusal> {
    let expected = "an object of token ids and numbers";
    let biases: Map<String, Value> = body.optional("logit_bias", expected)?.unwrap_or_default();
    let bias = |(key, value): (&String, &Value)| {
        let id = key.parse().map_err(|error| {
            Refusal::parameter(
                "logit_bias",
                format!("logit_bias has the key {key:?}, which is no token id: {error}"),
            )
        })?;
        let bias = value.as_f64().ok_or_else(|| wrong(&format!("logit_bias.{key}"), value, "a number"))?;
        Ok((id, bias as f32))
    };
    biases.iter().map(bias).collect()
}

/// `seed`: any 64-bit integer, with or without a sign.
fn seed(body: &mut Fields) -> Result<Option<u64>, Refusal> {
    let expected = "a 64-bit integer";
    let Some(number) = body.optional::<Number>("seed", expected)? else { return Ok(None) };
    let seed = number.as_u64().or_else(|| number.as_i64().map(i64::cast_unsigned));
    seed.map(Some).ok_or_else(|| wrong("seed", &Value::Number(number), expected))
}

/// `stop`: a string, or an array of strings.
fn stop(body: &mut Fields) -> Result<Vec<String>, Refusal> {
    match body.take("stop") {
        None => Ok(Vec::new()),
        Some(value) => {
            strings(&value).ok_or_else(|| wrong("stop", &value, "a string or an array of strings"))
        }
    }
}

fn strings(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::String(text) => Some(vec![text.clone()]),
        Value::Array(values) => values.iter().map(|value| value.as_str().map(str::to_owned)).collect(),
        _ => None,
    }
}

/// `stream_options`: whether usage is sent as the last chunk. Only streams may have it.
pub(super) fn include_usage(body: &mut Fields, stream: bool) -> Result<bool, Refusal> {
    let Some(value) = body.take("stream_options") else { return Ok(false) };
    if !stream {
        let message = "parameter 'stream_options' needs 'stream' to be true";
        return Err(Refusal::parameter("stream_options", message));
    }
    let mut options = Fields::nested(value, "stream_options")?;
    let include = options.flag("include_usage")?;
    options.unsupported("include_obfuscation", &json!([false]))?;
    options.finish()?;
    Ok(include)
}

/// Parameters that tell OpenAI who asks, where to store and what to bill: they do not change the answer, so
/// they are taken and have no effect.
pub(super) fn bookkeeping(body: &mut Fields) -> Result<(), Refusal> {
    for key in ["user", "safety_identifier", "prompt_cache_key", "prompt_cache_retention"] {
        body.string(key)?;
    }
    for key in ["metadata", "prompt_cache_options"] {
        body.optional::<Map<String, Value>>(key, "an object")?;
    }
    Ok(())
}
