//! Each transformation by hand-computed values, then draws: their determinism and their distribution.

use super::*;

/// Logits of these probabilities.
fn logits(probabilities: &[f32]) -> Vec<f32> {
    probabilities.iter().map(|&p| libm::logf(p)).collect()
}

/// The probabilities that tokens are drawn with, for tokens that are left.
fn distribution(sampling: Sampling, logits: &[f32]) -> Vec<(u32, f64)> {
    let mut sampler = Sampler::new(sampling, &[]);
    sampler.adjust(logits);
    let best = best(&sampler.logits).unwrap();
    sampler.weigh(best.logit);
    sampler.narrow();
    let all = total(&sampler.candidates);
    sampler.candidates.iter().map(|candidate| (candidate.id, f64::from(candidate.weight) / all)).collect()
}

fn check(sampling: Sampling, probabilities: &[f32], expected: &[(u32, f64)]) {
    let found = distribution(sampling.clone(), &logits(probabilities));
    assert_eq!(found.len(), expected.len(), "{sampling:?}: {found:?}");
    for (found, expected) in found.iter().zip(expected) {
        assert_eq!(found.0, expected.0, "{sampling:?}");
        assert!((found.1 - expected.1).abs() < 1e-6, "{sampling:?}: {found:?} is not {expected:?}");
    }
}

const P: [f32; 4] = [0.125, 0.5, 0.25, 0.125];

#[test]
fn temperature_raises_probabilities_to_its_inverse() {
    let sampling = |temperature| Sampling { temperature, ..Sampling::default() };
    check(sampling(1.0), &P, &[(0, 0.125), (1, 0.5), (2, 0.25), (3, 0.125)]);
    // Squares: 1/64, 16/64, 4/64, 1/64 of a sum of 22/64.
    check(sampling(0.5), &P, &[(0, 1.0 / 22.0), (1, 16.0 / 22.0), (2, 4.0 / 22.0), (3, 1.0 / 22.0)]);
    // Square roots of 1/16, 4/16, 16/16.
    check(sampling(2.0), &[0.0625, 0.25, 1.0], &[(0, 1.0 / 7.0), (1, 2.0 / 7.0), (2, 4.0 / 7.0)]);
}

#[test]
fn top_k_keeps_the_most_likely_and_prefers_lower_ids() {
    let sampling = |top_k| Sampling { top_k, ..Sampling::default() };
    check(sampling(0), &P, &[(0, 0.125), (1, 0.5), (2, 0.25), (3, 0.125)]);
    check(sampling(1), &P, &[(1, 1.0)]);
    check(sampling(3), &P, &[(0, 1.0 / 7.0), (1, 4.0 / 7.0), (2, 2.0 / 7.0)]);
    check(sampling(4), &P, &[(0, 0.125), (1, 0.5), (2, 0.25), (3, 0.125)]);
    check(sampling(u32::MAX), &P, &[(0, 0.125), (1, 0.5), (2, 0.25), (3, 0.125)]);
}

#[test]
fn top_p_keeps_the_smallest_set_that_reaches_it() {
    let sampling = |top_p| Sampling { top_p, ..Sampling::default() };
    check(sampling(0.0), &P, &[(1, 1.0)]);
    check(sampling(0.4), &P, &[(1, 1.0)]);
    check(sampling(0.6), &P, &[(1, 2.0 / 3.0), (2, 1.0 / 3.0)]);
    check(sampling(0.8), &P, &[(0, 1.0 / 7.0), (1, 4.0 / 7.0), (2, 2.0 / 7.0)]);
    check(sampling(0.9), &P, &[(0, 0.125), (1, 0.5), (2, 0.25), (3, 0.125)]);
    // After top-k the rest has all of the probability: 4/6 is beyond 0.6.
    let both = Sampling { top_k: 2, top_p: 0.6, ..Sampling::default() };
    check(both, &P, &[(1, 1.0)]);
}

#[test]
fn min_p_is_relative_to_the_most_likely() {
    let sampling = |min_p| Sampling { min_p, ..Sampling::default() };
    check(sampling(0.2), &P, &[(0, 0.125), (1, 0.5), (2, 0.25), (3, 0.125)]);
    check(sampling(0.3), &P, &[(1, 2.0 / 3.0), (2, 1.0 / 3.0)]);
    check(sampling(1.0), &P, &[(1, 1.0)]);
}

#[test]
fn the_nucleus_of_a_large_vocabulary_is_that_of_a_full_sort() {
    for top_p in [0.0, 0.01, 0.3, 0.9, 0.999] {
        let logits: Vec<f32> =
            (0..10_000_u32).map(|id| (id.wrapping_mul(2_654_435_761) >> 20) as f32 / 512.0).collect();
        let mut all = distribution(Sampling::default(), &logits);
        all.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        let mut sum = 0.0;
        let reached = all.iter().position(|(_, p)| {
            sum += p;
            sum >= f64::from(top_p)
        });
        all.truncate(reached.unwrap() + 1);
        let mut expected: Vec<u32> = all.into_iter().map(|(id, _)| id).collect();
        expected.sort_unstable();
        let found = distribution(Sampling { top_p, ..Sampling::default() }, &logits);
        let found: Vec<u32> = found.into_iter().map(|(id, _)| id).collect();
        assert_eq!(found, expected, "top_p {top_p}");
    }
}

/// Logits as they are after bias and penalties, when `output` was drawn after `prompt`.
fn adjusted(sampling: Sampling, prompt: &[u32], output: &[u32], logits: &[f32]) -> Vec<f32> {
    let mut sampler = Sampler::new(Sampling { temperature: 0.0, ..sampling }, prompt);
    for &id in output {
        let mut sure = vec![-1000.0; logits.len()];
        sure[id as usize] = 1000.0;
        assert_eq!(sampler.sample(&sure).unwrap(), id);
    }
    sampler.adjust(logits);
    sampler.logits
}

#[test]
fn penalties_and_bias_change_the_tokens_they_name() {
    let repetition = Sampling { repetition_penalty: 2.0, ..Sampling::default() };
    assert_eq!(adjusted(repetition, &[0, 1, 1], &[2], &[3.0, -1.0, 4.0, 5.0]), [1.5, -2.0, 2.0, 5.0]);
    let presence = Sampling { presence_penalty: 0.5, ..Sampling::default() };
    assert_eq!(adjusted(presence, &[0], &[1, 1], &[1.0, 1.0, 1.0]), [1.0, 0.5, 1.0]);
    let frequency = Sampling { frequency_penalty: 0.25, ..Sampling::default() };
    assert_eq!(adjusted(frequency, &[0], &[1, 1, 2], &[1.0, 1.0, 1.0]), [1.0, 0.5, 0.75]);
    let reward = Sampling { frequency_penalty: -2.0, ..Sampling::default() };
    assert_eq!(adjusted(reward, &[], &[1, 1], &[1.0, 1.0]), [1.0, 5.0]);
    let bias = Sampling { logit_bias: vec![(0, 100.0), (2, -100.0)], ..Sampling::default() };
    assert_eq!(adjusted(bias, &[], &[], &[0.0, 1.0, 2.0]), [100.0, 1.0, -98.0]);
    // Bias first: a token that is biased above zero is divided.
    let both = Sampling { logit_bias: vec![(0, 3.0)], repetition_penalty: 2.0, ..Sampling::default() };
    assert_eq!(adjusted(both, &[0], &[], &[-1.0, 0.0]), [1.0, 0.0]);
}

#[test]
fn greedy_takes_the_first_of_the_most_likely() {
    let greedy = |logits: &[f32]| {
        Sampler::new(Sampling { temperature: 0.0, ..Sampling::default() }, &[]).sample(logits).unwrap()
    };
    assert_eq!(greedy(&[1.0, 3.0, 2.0, 3.0]), 1);
    assert_eq!(greedy(&[-3.0, -2.0, -2.0]), 1);
    assert_eq!(greedy(&[f32::NAN, 0.0, f32::NEG_INFINITY]), 1);
}

#[test]
fn logits_that_are_no_numbers_are_an_error() {
    for logits in [&[f32::NAN, f32::NAN][..], &[0.0, f32::INFINITY], &[f32::NEG_INFINITY], &[]] {
        for temperature in [0.0, 1.0] {
            let mut sampler = Sampler::new(Sampling { temperature, ..Sampling::default() }, &[]);
            assert!(matches!(sampler.sample(logits), Err(Error::Backend(_))), "{logits:?}");
        }
    }
}

/// `count` draws of independent tokens.
fn draws(seed: u64, count: usize) -> Vec<u32> {
    let mut sampler = Sampler::new(Sampling { seed, ..Sampling::default() }, &[]);
    (0..count).map(|_| sampler.sample(&logits(&P)).unwrap()).collect()
}

#[test]
fn a_seed_has_one_sequence_on_every_machine() {
    assert_eq!(draws(42, 64), draws(42, 64));
    assert_ne!(draws(42, 64), draws(43, 64));
    assert_eq!(draws(42, 16), [1, 1, 2, 1, 3, 1, 1, 1, 2, 1, 1, 3, 1, 1, 1, 0]);
}

#[test]
fn draws_follow_the_distribution() {
    let drawn = draws(7, 20_000);
    for (id, p) in (0..).zip(P) {
        let share = drawn.iter().filter(|&&drawn| drawn == id).count() as f32 / drawn.len() as f32;
        assert!((share - p).abs() < 0.01, "token {id}: {share} instead of {p}");
    }
}

#[test]
fn values_outside_their_limits_are_refused_by_name() {
    let base = Sampling::default();
    let cases = [
        (Sampling { temperature: -1.0, ..base.clone() }, "temperature is -1, limits are 0 and 2"),
        (Sampling { temperature: 2.5, ..base.clone() }, "temperature is 2.5, limits are 0 and 2"),
        (Sampling { temperature: f32::NAN, ..base.clone() }, "temperature is NaN, limits are 0 and 2"),
        (Sampling { top_p: 1.5, ..base.clone() }, "top_p is 1.5, limits are 0 and 1"),
        (Sampling { min_p: -0.5, ..base.clone() }, "min_p is -0.5, limits are 0 and 1"),
        (Sampling { presence_penalty: 3.0, ..base.clone() }, "presence_penalty is 3, limits are -2 and 2"),
        (
            Sampling { frequency_penalty: -3.0, ..base.clone() },
            "frequency_penalty is -3, limits are -2 and 2",
        ),
        (
            Sampling { repetition_penalty: 0.0, ..base.clone() },
            "repetition_penalty is 0, limits are above 0 and 100",
        ),
        (
            Sampling { repetition_penalty: f32::INFINITY, ..base.clone() },
            "repetition_penalty is inf, limits are above 0 and 100",
        ),
        (
            Sampling { logit_bias: vec![(9, 0.0)], ..base.clone() },
            "logit_bias has token 9, the vocabulary has 9 tokens",
        ),
        (
            Sampling { logit_bias: vec![(8, 101.0)], ..base.clone() },
            "logit_bias of token 8 is 101, limits are -100 and 100",
        ),
    ];
    for (sampling, expected) in cases {
        let error = sampling.check(9).unwrap_err();
        assert_eq!(error.to_string(), expected);
        assert!(matches!(error, Error::Parameter { name, .. } if expected.starts_with(name)));
    }
    base.check(9).unwrap();
}

#[test]
fn the_largest_logits_give_the_same_tokens_as_all() {
    let logits: Vec<f32> = (0..200_u32).map(|id| (id * 7919 % 101) as f32 / 9.0).collect();
    let mut ranked: Vec<(u32, f32)> = (0..).zip(logits.iter().copied()).collect();
    ranked.sort_by(|a, b| b.1.total_cmp(&a.1));
    for sampling in [
        Sampling { temperature: 0.0, ..Sampling::default() },
        Sampling { top_k: 1, ..Sampling::default() },
        Sampling { top_k: 40, temperature: 2.0, ..Sampling::default() },
        Sampling { top_k: 40, top_p: 0.7, min_p: 0.1, ..Sampling::default() },
        Sampling { top_k: 1000, ..Sampling::default() },
    ] {
        let (mut all, mut top) = (Sampler::new(sampling.clone(), &[]), Sampler::new(sampling.clone(), &[]));
        let enough = top.top().expect("some are enough").min(ranked.len());
        for _ in 0..50 {
            let expected = all.sample(&logits).expect("a token");
            assert_eq!(top.sample_top(&ranked[..enough]).expect("a token"), expected, "{sampling:?}");
        }
    }
    for sampling in [
        Sampling::default(),
        Sampling { temperature: 0.0, repetition_penalty: 1.1, ..Sampling::default() },
        Sampling { top_k: 4, presence_penalty: 0.1, ..Sampling::default() },
        Sampling { top_k: 4, frequency_penalty: 0.1, ..Sampling::default() },
        Sampling { top_k: 4, logit_bias: vec![(1, 1.0)], ..Sampling::default() },
    ] {
        assert_eq!(Sampler::new(sampling.clone(), &[]).top(), None, "{sampling:?}");
    }
}
