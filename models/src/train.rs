//! The training loop: AdamW with warm-up, cosine decay and clipped gradients.
//!
//! The schedule depends on the number of steps alone, never on the clock, so a run can be
//! repeated. The loop knows nothing of files; who wants one is called at every evaluation.

use crate::corpus::{Stream, Window};
use crate::model::Model;
use anyhow::{Result, bail};
use candle_core::backprop::GradStore;
use candle_core::{D, DType, Device, Tensor, Var};
use candle_nn::ops::log_softmax;
use candle_nn::{AdamW, Optimizer, ParamsAdamW, loss};
use std::sync::Arc;
use std::time::Instant;

/// What decides a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Schedule {
    /// Optimiser steps.
    pub(crate) steps: usize,
    /// Tokens in a step.
    pub(crate) tokens_per_step: usize,
    /// Highest learning rate, reached after the warm-up.
    pub(crate) peak: f64,
    /// Steps of the warm-up.
    pub(crate) warm_up: usize,
    /// Steps between evaluations.
    pub(crate) evaluate_every: usize,
}

/// Length of most windows, and of every eighth batch's: long conversations are learnt, but most of the
/// time goes where a token costs less.
const SHORT: usize = 256;
const LONG: usize = 512;
/// The learning rate ends at this part of its peak.
const FLOOR: f64 = 0.03;
/// Longest gradient, over all parameters together.
const CLIP: f64 = 1.;

/// One line of the loss curve.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Progress {
    /// Steps done.
    pub(crate) step: usize,
    /// Mean training loss since the last line, in nats per token.
    pub(crate) loss: f64,
    /// Loss on the held-out windows, in nats per token.
    pub(crate) held_out: f64,
    /// Training tokens per second since the start, evaluations included.
    pub(crate) speed: f64,
}

impl Schedule {
    /// The learning rate of a step, which counts from 0.
    fn rate(&self, step: usize) -> f64 {
        if step < self.warm_up {
            return self.peak * (step + 1) as f64 / self.warm_up as f64;
        }
        let done = (step - self.warm_up) as f64 / (self.steps - self.warm_up).max(1) as f64;
        let cosine = (1. + (std::f64::consts::PI * done).cos()) / 2.;
        self.peak * (FLOOR + (1. - FLOOR) * cosine)
    }
}

/// Trains the model in place; `report` is called at every evaluation and at the end.
pub(crate) fn train(
    model: &Model,
    schedule: &Schedule,
    stream: &mut Stream<'_>,
    held_out: &[Window],
    mut report: impl FnMut(&Model, Progress) -> Result<()>,
) -> Result<()> {
    let mut optimisers = optimisers(model)?;
    let start = Instant::now();
    let (mut losses, mut count) = (0., 0);
    for step in 0..schedule.steps {
        let len = if step % 8 == 7 { LONG } else { SHORT };
        let batch =
            (0..schedule.tokens_per_step / len).map(|_| stream.window(len)).collect::<Result<Vec<_>>>()?;
        let loss = loss_of(model, &batch)?;
        let value = f64::from(loss.to_scalar::<f32>()?);
        if !value.is_finite() {
            bail!("the loss is {value} at step {step}");
        }
        let mut grads = loss.backward()?;
        clip(model, &mut grads)?;
        for optimiser in &mut optimisers {
            optimiser.set_learning_rate(schedule.rate(step));
            optimiser.step(&grads)?;
        }
        (losses, count) = (losses + value, count + 1);
        let done = step + 1;
        if done % schedule.evaluate_every == 0 || done == schedule.steps {
            let tokens = (done * schedule.tokens_per_step) as f64;
            let speed = tokens / start.elapsed().as_secs_f64();
            let loss = losses / f64::from(count);
            (losses, count) = (0., 0);
            let held_out = evaluate(model, held_out)?;
            report(model, Progress { step: done, loss, held_out, speed })?;
        }
    }
    Ok(())
}

/// Mean loss over windows of one length, in nats per token.
pub(crate) fn evaluate(model: &Model, windows: &[Window]) -> Result<f64> {
    let mut sum = 0.;
    for batch in windows.chunks(8) {
        sum += f64::from(loss_of(model, batch)?.to_scalar::<f32>()?) * batch.len() as f64;
    }
    Ok(sum / windows.len() as f64)
}

/// Mean loss of predicting each token of the windows from those before it.
fn loss_of(model: &Model, windows: &[Window]) -> Result<Tensor> {
    let len = windows.first().map_or(0, |window| window.starts.len());
    let batch = windows.len();
    let tokens = |from: usize| -> Vec<u32> {
        windows.iter().flat_map(|window| &window.tokens[from..from + len]).copied().collect()
    };
    let starts: Arc<[u32]> = windows.iter().flat_map(|window| &window.starts).copied().collect();
    let ids = Tensor::from_vec(tokens(0), (batch, len), &Device::Cpu)?;
    let targets = Tensor::from_vec(tokens(1), batch * len, &Device::Cpu)?;
    Ok(loss::nll(&log_softmax(&model.forward(&ids, &starts)?, D::Minus1)?, &targets)?)
}

/// One optimiser for the matrices, with weight decay, and one for the norms, without.
fn optimisers(model: &Model) -> Result<[AdamW; 2]> {
    let (matrices, norms): (Vec<Var>, Vec<Var>) =
        model.parameters.iter().map(|(_, value)| value.clone()).partition(|value| value.rank() == 2);
    let make = |values, weight_decay| {
        let params = ParamsAdamW { beta2: 0.98, weight_decay, ..Default::default() };
        AdamW::new(values, params)
    };
    Ok([make(matrices, 0.1)?, make(norms, 0.)?])
}

/// Shortens the gradient of all parameters together to [`CLIP`].
fn clip(model: &Model, grads: &mut GradStore) -> Result<()> {
    let mut sum = 0f64;
    for (_, value) in &model.parameters {
        if let Some(grad) = grads.get(value) {
            sum += f64::from(grad.sqr()?.sum_all()?.to_dtype(DType::F32)?.to_scalar::<f32>()?);
        }
    }
    let norm = sum.sqrt();
    if norm <= CLIP {
        return Ok(());
    }
    for (_, value) in &model.parameters {
        if let Some(grad) = grads.remove(value) {
            grads.insert(value, (grad * (CLIP / norm))?);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_rises_and_falls() {
        let schedule = Schedule { steps: 100, tokens_per_step: 1, peak: 1., warm_up: 10, evaluate_every: 1 };
        let rates: Vec<f64> = (0..100).map(|step| schedule.rate(step)).collect();
        assert!(rates[..10].is_sorted() && rates[9..].iter().rev().is_sorted());
        assert_eq!(rates[9], 1.);
        assert!(rates[99] < 2. * FLOOR);
    }
}
