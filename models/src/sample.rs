//! Text from the model, to see what it has learnt. Slow and simple: every token computes the whole
//! sequence anew; serving is the engine's work.

use crate::model::Model;
use anyhow::{Context, Result};
use candle_core::{Device, Tensor};
use rand::Rng;
use rand::distr::{Distribution, weighted::WeightedIndex};

/// Continues `prompt` until `end` or until the context is full; 0 as temperature is greedy.
pub(crate) fn continuation(
    model: &Model,
    prompt: &[u32],
    end: u32,
    temperature: f32,
    rng: &mut impl Rng,
) -> Result<Vec<u32>> {
    let mut ids = prompt.to_vec();
    while ids.len() < model.config.context {
        let input = Tensor::new(ids.as_slice(), &Device::Cpu)?.unsqueeze(0)?;
        let logits =
            model.forward(&input, &vec![0; ids.len()].into())?.get(ids.len() - 1)?.to_vec1::<f32>()?;
        let id = choose(&logits, temperature, rng)?;
        if id == end {
            break;
        }
        ids.push(id);
    }
    Ok(ids.split_off(prompt.len()))
}

/// Draws an id from the softmax of the logits.
fn choose(logits: &[f32], temperature: f32, rng: &mut impl Rng) -> Result<u32> {
    let (best, max) = logits
        .iter()
        .copied()
        .enumerate()
        .max_by(|(_, a), (_, b)| a.total_cmp(b))
        .context("there are no logits to choose from")?;
    if temperature == 0. {
        return Ok(best as u32);
    }
    let weights = logits.iter().map(|logit| ((logit - max) / temperature).exp());
    Ok(WeightedIndex::new(weights)?.sample(rng) as u32)
}
