//! How likely a token was, and which others were likely: natural logarithms of the model's own probabilities.
//!
//! The model's own means: before biases, penalties, temperature and grammar, so that the numbers tell of the model and
//! not of the request. Exponentials are `libm`'s and sums run in the order of ids, so the bits are the same on every
//! machine. Tokens as text are known elsewhere.

use std::cmp::Ordering;

/// The probabilities around one token.
#[derive(Debug, Clone, PartialEq)]
pub struct Logprobs {
    /// That of the token which was chosen.
    pub chosen: f32,
    /// Ids and probabilities of the most likely tokens, the most likely first, the lower id first among equals.
    pub top: Vec<(u32, f32)>,
}

impl Logprobs {
    /// Reads them from a row of logits; `top` is how many of the most likely tokens are wanted.
    pub fn new(logits: &[f32], chosen: u32, top: usize) -> Self {
        let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = logits.iter().map(|&logit| f64::from(libm::expf(logit - largest))).sum();
        let total = f64::from(largest) + libm::log(sum);
        let logprob = |logit: f32| (f64::from(logit) - total) as f32;
        let chosen = logits.get(chosen as usize).map_or(f32::NEG_INFINITY, |&logit| logprob(logit));
        let mut ranked: Vec<(u32, f32)> =
            if top == 0 { Vec::new() } else { (0..).zip(logits.iter().copied()).collect() };
        if top < ranked.len() {
            ranked.select_nth_unstable_by(top, rank);
            ranked.truncate(top);
        }
        ranked.sort_unstable_by(rank);
        Self { chosen, top: ranked.into_iter().map(|(id, logit)| (id, logprob(logit))).collect() }
    }
}

/// The larger logit first, then the lower id: no two are equal.
fn rank(a: &(u32, f32), b: &(u32, f32)) -> Ordering {
    b.1.total_cmp(&a.1).then(a.0.cmp(&b.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(logits: &[f32], chosen: u32, top: usize, expected: (f32, &[(u32, f32)])) {
        let close = |a: f32, b: f32| a == b || (a - b).abs() < 1e-6;
        let found = Logprobs::new(logits, chosen, top);
        assert!(close(found.chosen, expected.0), "{found:?}");
        assert_eq!(found.top.len(), expected.1.len(), "{found:?}");
        for (found, expected) in found.top.iter().zip(expected.1) {
            assert!(found.0 == expected.0 && close(found.1, expected.1), "{found:?} {expected:?}");
        }
    }

    #[test]
    fn probabilities_are_those_of_the_softmax() {
        let half = 0.5_f32.ln();
        check(&[0.0, 0.0], 1, 0, (half, &[]));
        check(&[3.0, 3.0], 1, 5, (half, &[(0, half), (1, half)]));
        let (a, b) = (0.25_f32, 0.75_f32);
        check(&[0.0, 3.0_f32.ln()], 0, 1, (a.ln(), &[(1, b.ln())]));
        check(&[1000.0, 0.0, f32::NEG_INFINITY], 0, 2, (0.0, &[(0, 0.0), (1, -1000.0)]));
        check(&[0.0, f32::NEG_INFINITY], 1, 0, (f32::NEG_INFINITY, &[]));
    }
}
