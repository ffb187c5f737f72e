//! What a compute gives back: logits, or the best of them.

use std::cmp::Ordering;

/// What a compute gave.
#[derive(Debug, Clone, PartialEq)]
pub struct Output {
    /// The logits of the last `outputs` tokens.
    pub rows: Rows,
    /// How many of the sequence's tokens were not computed, because the prefix cache had them.
    pub cached: usize,
}

/// Logits of some positions.
#[derive(Debug, Clone, PartialEq)]
pub enum Rows {
    /// All of them, `[outputs, vocabulary]`.
    Logits(Vec<f32>),
    /// The `k` largest of each position, `[outputs, k]`: largest first, the lowest id among equals.
    Top {
        /// How many of each position.
        k: usize,
        /// Token ids.
        ids: Vec<u32>,
        /// Their logits.
        logits: Vec<f32>,
    },
}

impl Rows {
    /// Picks what was asked for from whole rows of `vocabulary` logits.
    pub(crate) fn of(logits: &[f32], vocabulary: usize, top: Option<usize>) -> Self {
        let Some(k) = top else { return Rows::Logits(logits.to_vec()) };
        let k = k.min(vocabulary);
        let outputs = logits.len() / vocabulary;
        let (mut ids, mut best) = (Vec::with_capacity(outputs * k), Vec::with_capacity(outputs * k));
        for row in logits.chunks_exact(vocabulary) {
            for (id, logit) in largest(row, k) {
                ids.push(id);
                best.push(logit);
            }
        }
        Rows::Top { k, ids, logits: best }
    }
}

/// The `k` largest of `row`, with their indices: largest first, the lowest index among equals. NaN counts as least.
fn largest(row: &[f32], k: usize) -> Vec<(u32, f32)> {
    // Candidates above a bound that rises whenever there are twice as many as wanted: one comparison for most.
    let rank = |a: &(u32, f32), b: &(u32, f32)| -> Ordering { b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)) };
    let mut candidates: Vec<(u32, f32)> = Vec::with_capacity(2 * k + 1);
    let mut bound = f32::NEG_INFINITY;
    for (id, &logit) in (0..).zip(row) {
        let logit = if logit.is_nan() { f32::NEG_INFINITY } else { logit };
        if logit > bound || candidates.len() < k {
            candidates.push((id, logit));
            if candidates.len() > 2 * k {
                candidates.select_nth_unstable_by(k - 1, rank);
                candidates.truncate(k);
                bound = candidates.iter().map(|(_, logit)| *logit).fold(f32::INFINITY, f32::min);
            }
        }
    }
    candidates.sort_unstable_by(rank);
    candidates.truncate(k);
    candidates
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_are_found_in_order() {
        let row = |seed: u32| -> Vec<f32> {
            let mut state = seed;
            (0..500)
                .map(|_| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    // Few values, so that there are equals.
                    (state >> 26) as f32 - 32.0
                })
                .collect()
        };
        for (row, k) in [
            (row(1), 1),
            (row(2), 7),
            (row(3), 64),
            (row(4), 500),
            (vec![f32::NAN, 1.0, f32::NEG_INFINITY], 3),
            (vec![0.0; 9], 4),
        ] {
            let clean = |logit: &f32| if logit.is_nan() { f32::NEG_INFINITY } else { *logit };
            let mut expected: Vec<(u32, f32)> = (0..).zip(row.iter().map(clean)).collect();
            expected.sort_by(|a, b| b.1.total_cmp(&a.1));
            expected.truncate(k);
            assert_eq!(largest(&row, k), expected, "{k} of {}", row.len());
        }
    }

    #[test]
    fn rows_are_whole_or_the_best() {
        let logits = [1.0, 3.0, 2.0, 6.0, 5.0, 4.0];
        assert_eq!(Rows::of(&logits, 3, None), Rows::Logits(logits.to_vec()));
        for (k, kept) in [(2, 2), (9, 3)] {
            let Rows::Top { k, ids, logits } = Rows::of(&logits, 3, Some(k)) else { panic!("the best") };
            assert_eq!((k, ids.len(), logits.len()), (kept, 2 * kept, 2 * kept));
            assert_eq!((ids[0], ids[kept], logits[kept]), (1, 0, 6.0));
        }
    }
}
