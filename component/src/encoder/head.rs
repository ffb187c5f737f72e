//! From a text's first vector to labels with scores, as the pipelines of transformers answer.

use candle_core::Tensor;
use candle_nn::{Linear, Module};
use serde_json::Value;

use super::Label;
use super::family::{self, Activation, Family};
use crate::error::{Error, Result};
use crate::weights::{Weights, broken};

/// The layers behind the encoder.
#[derive(Debug)]
pub(super) struct Classifier {
    dense: Linear,
    activation: Activation,
    out: Linear,
    labels: Vec<String>,
    /// Labels do not exclude each other: each has a probability of its own.
    independent: bool,
}

impl Classifier {
    pub(super) fn load(weights: &Weights<'_>, family: &Family, config: &Value, dim: usize) -> Result<Self> {
        let family::Head { dense, activation, out } = &family.head;
        let rows = weights.shape(&format!("{out}.weight")).and_then(|shape| shape.first().copied());
        let Some(count) = rows.filter(|&count| count > 0) else {
            return Err(Error::Model(format!(
                "tensor {out}.weight, which makes labels, is missing or empty"
            )));
        };
        let labels = labels(config, count)?;
        let independent = match config.get("problem_type").and_then(Value::as_str) {
            Some("multi_label_classification") => true,
            None | Some("single_label_classification") => count == 1,
            Some(other) => {
                let text = format!(
                    "problem_type {other:?}, known are single_label_classification and multi_label_classification"
                );
                return Err(Error::Model(text));
            }
        };
        Ok(Self {
            dense: weights.linear(dense, dim, dim).map_err(broken)?,
            activation: *activation,
            out: weights.linear(out, dim, count).map_err(broken)?,
            labels,
            independent,
        })
    }

    /// Labels of a text whose first vector is `first` (`[1, dim]`), the surest first.
    pub(super) fn labels(&self, first: &Tensor) -> candle_core::Result<Vec<Label>> {
        let hidden = self.dense.forward(first)?;
        let hidden = match self.activation {
            Activation::Tanh => hidden.tanh()?,
            Activation::Relu => hidden.relu()?,
        };
        let logits: Vec<f32> = self.out.forward(&hidden)?.squeeze(0)?.to_vec1()?;
        let scores = if self.independent { sigmoid(&logits) } else { softmax(&logits) };
        let label = |(label, score): (&String, f32)| Label { label: label.clone(), score };
        let mut labels: Vec<Label> = self.labels.iter().zip(scores).map(label).collect();
        labels.sort_by(|a, b| b.score.total_cmp(&a.score));
        Ok(labels)
    }
}

/// The names of `count` labels, in the order of the matrix's rows.
fn labels(config: &Value, count: usize) -> Result<Vec<String>> {
    let Some(names) = config.get("id2label").filter(|names| !names.is_null()) else {
        return Ok((0..count).map(|id| format!("LABEL_{id}")).collect());
    };
    let given = names.as_object().map_or(0, serde_json::Map::len);
    if given != count {
        return Err(Error::Model(format!("id2label has {given} names, the model {count} labels")));
    }
    let name = |id: usize| names.get(id.to_string())?.as_str().map(str::to_owned);
    let named = |id| name(id).ok_or_else(|| Error::Model(format!("id2label has no name for {id}")));
    (0..count).map(named).collect()
}

fn sigmoid(logits: &[f32]) -> Vec<f32> {
    logits.iter().map(|&logit| (1.0 / (1.0 + libm::exp(-f64::from(logit)))) as f32).collect()
}

fn softmax(logits: &[f32]) -> Vec<f32> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers: Vec<f64> = logits.iter().map(|&logit| libm::exp(f64::from(logit - largest))).collect();
    let sum: f64 = powers.iter().sum();
    powers.iter().map(|power| (power / sum) as f32).collect()
}
