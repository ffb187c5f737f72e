//! How many prompt tokens go along with the steps of running sequences.
//!
//! A forward pass serves all that take part in it, so a long prompt in it makes everybody's next token late. The
//! more of a prompt goes along, the later; none would let the prompt starve. What a token of a prompt costs
//! depends on model and machine, so it is learned: passes with prompt tokens should take about as long as
//! [`SLOWDOWN`] passes without.

use std::time::Duration;

/// How much longer a pass may take for the prompts in it.
const SLOWDOWN: f64 = 2.0;
/// The part that a new measurement has in an average.
const WEIGHT: f64 = 0.2;
/// Prompt tokens beside others at least: a prompt that is long must come to its end.
const LEAST: usize = 8;

/// Learns from the passes how many prompt tokens the next one can take along.
#[derive(Debug)]
pub(crate) struct Pace {
    /// Prompt tokens of a pass that nobody else waits for.
    most: usize,
    /// Seconds of a pass without prompts, averaged.
    alone: Option<f64>,
    /// Prompt tokens beside others.
    beside: f64,
}

impl Pace {
    /// `most` is the number of prompt tokens in a pass that nobody else waits for.
    pub(crate) fn new(most: usize) -> Self {
        Self { most, alone: None, beside: (most / 8).max(LEAST) as f64 }
    }

    /// Prompt tokens that the next pass takes, with or without steps of running sequences.
    pub(crate) fn prompt_tokens(&self, others: bool) -> usize {
        if others { (self.beside as usize).min(self.most) } else { self.most }
    }

    /// A pass took so long, with so many tokens of prompts, and of running sequences.
    pub(crate) fn record(&mut self, prompts: usize, running: usize, time: Duration) {
        let time = time.as_secs_f64();
        match (prompts, running, self.alone) {
            (0, 1.., None) => self.alone = Some(time),
            (0, 1.., Some(alone)) => self.alone = Some(alone + WEIGHT * (time - alone)),
            (1.., 1.., Some(alone)) if time > 0.0 => {
                // As if time were in proportion to tokens; where it is not, the next measurement says so.
                let wanted = self.beside * (SLOWDOWN * alone / time).clamp(0.5, 2.0);
                let beside = self.beside + WEIGHT * (wanted - self.beside);
                self.beside = beside.clamp(LEAST as f64, self.most as f64);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Prompt tokens beside others after many passes on a machine where a pass costs `fixed` and each of its
    /// tokens `each`, microseconds.
    fn learned(fixed: u64, each: u64, running: usize) -> usize {
        let mut pace = Pace::new(512);
        let time = |tokens: usize| Duration::from_micros(fixed + each * tokens as u64);
        for _ in 0..200 {
            pace.record(0, running, time(running));
            let prompts = pace.prompt_tokens(true);
            pace.record(prompts, running, time(prompts + running));
        }
        pace.prompt_tokens(true)
    }

    #[test]
    fn prompts_slow_others_down_by_the_promised_factor() {
        // The fixed part pays for 100 tokens; there is none, so each costs; tokens cost nothing; tokens cost a lot.
        for (fixed, each, running, expected) in [
            (10_000, 100, 0, 512),
            (10_000, 100, 1, 101),
            (0, 1000, 16, 16),
            (1000, 0, 4, 512),
            (0, 1000, 1, LEAST),
        ] {
            let found = if running == 0 {
                Pace::new(512).prompt_tokens(false)
            } else {
                learned(fixed, each, running)
            };
            assert!(found.abs_diff(expected) <= 1 + expected / 20, "{fixed} {each} {running}: {found}");
        }
    }
}
