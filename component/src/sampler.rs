//! Chooses the next token from the logits: seeded, and bit-exact on every machine.
//!
//! The order is that of Hugging Face's `generate`: logit bias, repetition penalty, presence and frequency
//! penalty, temperature, top-k, top-p, min-p, draw. Temperature 0 is greedy: the most likely token after the
//! penalties, the lowest id among equals. Bit-exact means: `libm`'s exponential instead of the platform's,
//! sums in a fixed order, ties broken by id, and a random generator with a published algorithm (PCG).
//! Nothing here knows tokens as text.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use rand::{Rng, SeedableRng};
use rand_pcg::Pcg64;

use crate::error::{Error, Result};

/// How tokens are chosen. The default is the model's own distribution, unchanged.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampling {
    /// Divides the logits, 0 to 2; 0 is greedy.
    pub temperature: f32,
    /// Keeps the k most likely tokens; 0 keeps all.
    pub top_k: u32,
    /// Keeps the smallest set of most likely tokens whose probabilities add up to this, 0 to 1; always one.
    pub top_p: f32,
    /// Drops tokens less likely than this fraction of the most likely one, 0 to 1.
    pub min_p: f32,
    /// Divides positive and multiplies negative logits of tokens seen in prompt and output, above 0 to 100.
    pub repetition_penalty: f32,
    /// Subtracted from the logits of tokens seen in the output, −2 to 2.
    pub presence_penalty: f32,
    /// Subtracted per occurrence in the output, −2 to 2.
    pub frequency_penalty: f32,
    /// Added to the logits of single tokens, −100 to 100.
    pub logit_bias: Vec<(u32, f32)>,
    /// The same seed, prompt and options give the same tokens.
    pub seed: u64,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            logit_bias: Vec::new(),
            seed: 0,
        }
    }
}

impl Sampling {
    /// Checks every value against its limits, for a vocabulary of `vocabulary` tokens.
    ///
    /// # Errors
    /// [`Error::Parameter`] for the first value that is outside (NaN is).
    pub fn check(&self, vocabulary: usize) -> Result<()> {
        let ranges = [
            ("temperature", self.temperature, 0.0, 2.0),
            ("top_p", self.top_p, 0.0, 1.0),
            ("min_p", self.min_p, 0.0, 1.0),
            ("presence_penalty", self.presence_penalty, -2.0, 2.0),
            ("frequency_penalty", self.frequency_penalty, -2.0, 2.0),
        ];
        for (name, value, low, high) in ranges {
            if !(low..=high).contains(&value) {
                return Err(Error::parameter(
                    name,
                    format!("{name} is {value}, limits are {low} and {high}"),
                ));
            }
        }
        let penalty = self.repetition_penalty;
        if !(penalty > 0.0 && penalty <= 100.0) {
            let text = format!("repetition_penalty is {penalty}, limits are above 0 and 100");
            return Err(Error::parameter("repetition_penalty", text));
        }
        for &(id, bias) in &self.logit_bias {
            if id as usize >= vocabulary {
                let text = format!("logit_bias has token {id}, the vocabulary has {vocabulary} tokens");
                return Err(Error::parameter("logit_bias", text));
            }
            if !(-100.0..=100.0).contains(&bias) {
                let text = format!("logit_bias of token {id} is {bias}, limits are -100 and 100");
                return Err(Error::parameter("logit_bias", text));
            }
        }
        Ok(())
    }
}

/// A token that may still be drawn.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    id: u32,
    logit: f32,
    /// Probability times a factor that all candidates share: the most likely one has 1.
    weight: f32,
}

impl Candidate {
    /// Most likely first, then by id: no two candidates are equal, so every selection has one result.
    fn rank(&self, other: &Self) -> Ordering {
        other.logit.total_cmp(&self.logit).then(self.id.cmp(&other.id))
    }
}

/// The state of sampling for one sequence: what was seen, and the random generator.
#[derive(Debug)]
pub struct Sampler {
    sampling: Sampling,
    /// Occurrences in the output of every token seen in prompt or output.
    seen: BTreeMap<u32, u32>,
    random: Pcg64,
    logits: Vec<f32>,
    candidates: Vec<Candidate>,
}

impl Sampler {
    /// A sampler for a sequence that starts with `prompt`. The options have passed [`Sampling::check`].
    pub fn new(sampling: Sampling, prompt: &[u32]) -> Self {
        let seen = prompt.iter().map(|&id| (id, 0)).collect();
        let random = Pcg64::seed_from_u64(sampling.seed);
        Self { sampling, seen, random, logits: Vec::new(), candidates: Vec::new() }
    }

    /// How many of the largest logits are enough to draw from; none if all are needed.
    pub fn top(&self) -> Option<usize> {
        let Sampling { temperature, top_k, repetition_penalty, presence_penalty, frequency_penalty, .. } =
            self.sampling;
        let adjusts = repetition_penalty != 1.0 || presence_penalty != 0.0 || frequency_penalty != 0.0;
        match top_k {
            _ if adjusts || !self.sampling.logit_bias.is_empty() => None,
            _ if temperature == 0.0 => Some(1),
            0 => None,
            top_k => Some(top_k as usize),
        }
    }

    /// As [`sample`](Self::sample), from as many of the largest logits as [`top`](Self::top) says, with their ids:
    /// largest first, the lowest id among equals. The token is the one that all logits would give.
    ///
    /// # Errors
    /// As [`sample`](Self::sample).
    pub fn sample_top(&mut self, best: &[(u32, f32)]) -> Result<u32> {
        let &(id, logit) = best.first().ok_or_else(|| Error::Backend("there are no logits".into()))?;
        if !logit.is_finite() {
            return Err(Error::Backend(format!("the largest of the logits is {logit}")));
        }
        let mut drawn = id;
        if self.sampling.temperature != 0.0 {
            let temperature = self.sampling.temperature;
            self.candidates.clear();
            self.candidates.extend(best.iter().filter(|(_, logit)| logit.is_finite()).map(|&(id, own)| {
                Candidate { id, logit: own, weight: libm::expf((own - logit) / temperature) }
            }));
            self.candidates.sort_unstable_by_key(|candidate| candidate.id);
            self.narrow();
            drawn = self.draw().unwrap_or(id);
        }
        *self.seen.entry(drawn).or_default() += 1;
        Ok(drawn)
    }

    /// Draws a token from `logits` (one per token of the vocabulary) and remembers it.
    ///
    /// # Errors
    /// [`Error::Backend`] if no logit is finite or one is infinite: the model is broken.
    pub fn sample(&mut self, logits: &[f32]) -> Result<u32> {
        self.adjust(logits);
        let best = best(&self.logits)?;
        let id = if self.sampling.temperature == 0.0 {
            best.id
        } else {
            self.weigh(best.logit);
            self.narrow();
            self.draw().unwrap_or(best.id)
        };
        *self.seen.entry(id).or_default() += 1;
        Ok(id)
    }

    /// Copies the logits, with bias and penalties.
    fn adjust(&mut self, logits: &[f32]) {
        let Sampling { repetition_penalty, presence_penalty, frequency_penalty, .. } = self.sampling;
        self.logits.clear();
        self.logits.extend_from_slice(logits);
        for &(id, bias) in &self.sampling.logit_bias {
            if let Some(logit) = self.logits.get_mut(id as usize) {
                *logit += bias;
            }
        }
        for (&id, &count) in &self.seen {
            let Some(logit) = self.logits.get_mut(id as usize) else { continue };
            if *logit > 0.0 {
                *logit /= repetition_penalty;
            } else {
                *logit *= repetition_penalty;
            }
            if count > 0 {
                *logit -= presence_penalty + frequency_penalty * count as f32;
            }
        }
    }

    /// Fills the candidates, in the order of their ids.
    fn weigh(&mut self, best: f32) {
        let temperature = self.sampling.temperature;
        self.candidates.clear();
        self.candidates.extend(
            self.logits.iter().zip(0..).filter(|(logit, _)| logit.is_finite()).map(|(&logit, id)| {
                Candidate { id, logit, weight: libm::expf((logit - best) / temperature) }
            }),
        );
    }

    /// Drops candidates by top-k, top-p and min-p. The order of those that remain is that of their ids.
    fn narrow(&mut self) {
        let Sampling { top_k, top_p, min_p, .. } = self.sampling;
        let top_k = top_k as usize;
        if top_k > 0 && top_k < self.candidates.len() {
            self.candidates.select_nth_unstable_by(top_k - 1, Candidate::rank);
            self.candidates.truncate(top_k);
            self.candidates.sort_unstable_by_key(|candidate| candidate.id);
        }
        if top_p < 1.0 {
            let nucleus = nucleus(&mut self.candidates, top_p);
            self.candidates.truncate(nucleus);
            self.candidates.sort_unstable_by_key(|candidate| candidate.id);
        }
        if min_p > 0.0 {
            self.candidates.retain(|candidate| candidate.weight >= min_p);
        }
    }

    /// Draws from the candidates by their weights.
    fn draw(&mut self) -> Option<u32> {
        let mut left = self.random.random::<f64>() * total(&self.candidates);
        for candidate in &self.candidates {
            left -= f64::from(candidate.weight);
            if left < 0.0 {
                return Some(candidate.id);
            }
        }
        // Rounding can leave a last crumb.
        self.candidates.iter().rev().find(|candidate| candidate.weight > 0.0).map(|candidate| candidate.id)
    }
}

/// The most likely token, the one with the lowest id among equals.
fn best(logits: &[f32]) -> Result<Candidate> {
    let mut best = Candidate { id: 0, logit: f32::NEG_INFINITY, weight: 1.0 };
    for (&logit, id) in logits.iter().zip(0..) {
        if logit > best.logit {
            best = Candidate { id, logit, weight: 1.0 };
        }
    }
    if best.logit.is_finite() {
        Ok(best)
    } else {
        Err(Error::Backend(format!("the largest of {} logits is {}", logits.len(), best.logit)))
    }
}

/// Sum of the weights, in the order of the candidates.
fn total(candidates: &[Candidate]) -> f64 {
    candidates.iter().map(|candidate| f64::from(candidate.weight)).sum()
}

/// Moves the smallest set of most likely candidates whose share of the weight reaches `top_p` to the front,
/// ranked, and returns its size. Ranks only as many as needed: mostly some dozens of a vocabulary of 150000.
fn nucleus(candidates: &mut [Candidate], top_p: f32) -> usize {
    let enough = f64::from(top_p) * total(candidates);
    let (mut ranked, mut sum) = (0, 0.0);
    while ranked < candidates.len() {
        let rest = &mut candidates[ranked..];
        let more = (ranked * 4).max(64).min(rest.len());
        rest.select_nth_unstable_by(more - 1, Candidate::rank);
        rest[..more].sort_unstable_by(Candidate::rank);
        for candidate in &rest[..more] {
            ranked += 1;
            sum += f64::from(candidate.weight);
            if sum >= enough {
                return ranked;
            }
        }
    }
    ranked
}

#[cfg(test)]
mod tests;
