//! Arithmetic on floats: norms, activations, attention.
//!
//! Written as plain loops over fixed groups of lanes, so that the order of every sum is the same whatever the
//! vectors' width: the results have one value on every machine. `exp` is our own for the same reason.

use super::block::{BLOCK, Half, LANES, narrow, widen};
use super::isa::multiversion;

/// Positions of a KV cache page, and of a step of the attention's running softmax.
pub(crate) const PAGE: usize = 32;

/// The longest attention head, `[elements]`: what the buffers on the stack hold.
pub(crate) const MAX_HEAD: usize = 256;

/// Elements that a head of the KV cache takes: rounded up to whole groups of lanes, zeros at the end.
pub(crate) fn head_stride(head: usize) -> usize {
    head.next_multiple_of(LANES)
}

/// Adds up lanes in halves: 8 and 8, 4 and 4, 2 and 2, 1 and 1.
#[inline(always)]
fn reduce(mut lanes: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// Sums `f(x)` over a slice, in lanes; the tail that fills no group goes to the first lanes.
#[inline(always)]
fn sum(x: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let (groups, tail) = x.as_chunks::<LANES>();
    let mut lanes = [0.0; LANES];
    for group in groups {
        for i in 0..LANES {
            lanes[i] += f(group[i]);
        }
    }
    for (lane, &x) in lanes.iter_mut().zip(tail) {
        *lane += f(x);
    }
    reduce(lanes)
}

/// Dot product of slices whose length is a multiple of 16.
#[inline(always)]
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0; LANES];
    for (a, b) in a.as_chunks::<LANES>().0.iter().zip(b.as_chunks::<LANES>().0) {
        for i in 0..LANES {
            lanes[i] += a[i] * b[i];
        }
    }
    reduce(lanes)
}

/// `e^x`, within 2 units in the last place; results below 1e-38 become about 1e-38, and above 1e38 about 1e38.
///
/// The method of Cephes' `expf`: `2^n · e^r` with `|r| ≤ ln 2 / 2` and a polynomial of degree 7.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    // A NaN becomes the lower bound: comparisons with it are false.
    let x = if x > -87.0 { x } else { -87.0 };
    let x = if x < 88.0 { x } else { 88.0 };
    // Adding 1.5 · 2^23 rounds to the nearest integer, and leaves it in the low bits.
    let shifted = x * std::f32::consts::LOG2_E + 12_582_912.0;
    let n = shifted - 12_582_912.0;
    let r = x - n * 0.693_359_4 + n * 2.121_944_4e-4;
    let mut p = 1.987_569_1e-4;
    for c in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        p = p * r + c;
    }
    let power = f32::from_bits(shifted.to_bits().wrapping_add(127) << 23);
    (p * (r * r) + r + 1.0) * power
}

multiversion! {
    /// Root mean square norm: `x / sqrt(mean(x²) + epsilon) · weight` (Zhang and Sennrich, 2019).
    pub fn rms_norm(x: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) {
        let scale = 1.0 / (sum(x, |x| x * x) / x.len() as f32 + epsilon).sqrt();
        for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
            *out = x * scale * weight;
        }
    }
}

multiversion! {
    /// Layer norm: `(x − mean) / sqrt(variance + epsilon) · weight + bias` (Ba et al., 2016). An empty `bias` is
    /// none.
    pub fn layer_norm(x: &[f32], weight: &[f32], bias: &[f32], epsilon: f32, out: &mut [f32]) {
        let mean = sum(x, |x| x) / x.len() as f32;
        let variance = sum(x, |x| (x - mean) * (x - mean)) / x.len() as f32;
        let scale = 1.0 / (variance + epsilon).sqrt();
        for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
            *out = (x - mean) * scale * weight;
        }
        for (out, bias) in out.iter_mut().zip(bias) {
            *out += bias;
        }
    }
}

multiversion! {
    /// `x := x · sigmoid(x)`.
    pub fn silu(x: &mut [f32]) {
        for x in x {
            *x /= 1.0 + exp(-*x);
        }
    }
}

multiversion! {
    /// The Gaussian error linear unit by its tanh approximation (Hendrycks and Gimpel, 2016), in place.
    pub fn gelu(x: &mut [f32]) {
        for x in x {
            let inner = 0.797_884_6 * (*x + 0.044_715 * *x * *x * *x);
            // (1 + tanh u) / 2 = 1 / (1 + e^(−2u))
            *x /= 1.0 + exp(-2.0 * inner);
        }
    }
}

/// The Gaussian error linear unit by the error function, in place.
pub fn gelu_erf(x: &mut [f32]) {
    for x in x {
        *x = 0.5 * *x * (1.0 + libm::erff(*x * std::f32::consts::FRAC_1_SQRT_2));
    }
}

/// `limit · tanh(x / limit)`: soft-capping, as Gemma 2 does with logits and scores.
#[inline(always)]
pub(crate) fn softcap(x: f32, limit: f32) -> f32 {
    let t = exp(-2.0 * (x / limit).abs());
    let tanh = (1.0 - t) / (1.0 + t);
    limit * if x < 0.0 { -tanh } else { tanh }
}

multiversion! {
    /// Rounds a row to half precision, as the KV cache keeps it.
    pub fn half_row(x: &[f32], out: &mut [u16]) {
        for (out, &x) in out.iter_mut().zip(x) {
            *out = narrow(x);
        }
    }
}

/// One query of an attention head: a row of the batch and a head of its group.
#[derive(Debug)]
pub struct Query<'a> {
    /// Index of the query's token in its sequence: it sees keys 0 to this one.
    pub position: usize,
    /// The query vector, `[stride]`, zeros beyond the head's length.
    pub query: &'a [f32],
    /// Takes the weighted sum of the values, `[stride]`.
    pub out: &'a mut [f32],
    /// Largest score so far, and the sum of the weights relative to it.
    running: (f32, f32),
}

impl<'a> Query<'a> {
    /// A query whose result goes to `out`; both `[stride]`.
    pub fn new(position: usize, query: &'a [f32], out: &'a mut [f32]) -> Self {
        Self { position, query, out, running: (f32::NEG_INFINITY, 0.0) }
    }
}

/// Gives keys and values of a page, `[32, stride]` each; none beyond the last.
pub type Pages<'a> = &'a dyn Fn(usize) -> Option<(&'a [Half], &'a [Half])>;

/// What all queries of an attention call share.
#[derive(Debug, Clone, Copy)]
pub struct Attention {
    /// Elements of a head in the cache and in queries: a multiple of 16, at most 256.
    pub stride: usize,
    /// Scores are multiplied by this.
    pub scale: f32,
    /// Scores are soft-capped to this.
    pub softcap: Option<f32>,
    /// A query sees this many positions at most, its own included.
    pub window: Option<usize>,
}

/// Attention of several queries over one head of a KV cache, page by page, with a running softmax
/// (Milakov and Gimelshein, 2018). `pages(i)` holds keys and values of positions `32 i` to `32 i + 31`, each
/// `[32, stride]` in half precision. A page is widened once for all queries. Steps follow the pages, so
/// the result does not depend on how the prompt was cut into batches.
pub fn attend(shape: Attention, queries: &mut [Query<'_>], pages: Pages<'_>) {
    attend_pages(shape, queries, pages);
}

multiversion! {
    fn attend_pages(shape: Attention, queries: &mut [Query<'_>], pages: Pages<'_>) {
        let stride = shape.stride;
        let mut buffer = [[0.0_f32; PAGE * MAX_HEAD]; 2];
        let [keys, values] = &mut buffer;
        for query in &mut *queries {
            query.out.fill(0.0);
            query.running = (f32::NEG_INFINITY, 0.0);
        }
        let first_seen = |position: usize| shape.window.map_or(0, |window| (position + 1).saturating_sub(window));
        let first = queries.iter().map(|q| first_seen(q.position)).min().unwrap_or(0) / PAGE;
        let last = queries.iter().map(|q| q.position).max().unwrap_or(0);
        for page in first..=last / PAGE {
            let Some((page_keys, page_values)) = pages(page) else { break };
            let base = page * PAGE;
            let filled = PAGE.min(last + 1 - base) * stride;
            for (to, &from) in keys[..filled].iter_mut().zip(page_keys) {
                *to = widen(from);
            }
            for (to, &from) in values[..filled].iter_mut().zip(page_values) {
                *to = widen(from);
            }
            for query in &mut *queries {
                let begin = first_seen(query.position).saturating_sub(base);
                let end = PAGE.min((query.position + 1).saturating_sub(base));
                if begin < end {
                    step(&shape, query, begin..end, keys, values);
                }
            }
        }
        for query in queries {
            let total = 1.0 / query.running.1;
            for out in &mut *query.out {
                *out *= total;
            }
        }
    }
}

/// Takes positions `range` of one page into a query's running softmax.
#[inline(always)]
fn step(
    shape: &Attention,
    query: &mut Query<'_>,
    range: std::ops::Range<usize>,
    keys: &[f32],
    values: &[f32],
) {
    let stride = shape.stride;
    let mut scores = [f32::NEG_INFINITY; PAGE];
    let (mut largest, mut total) = query.running;
    for i in range.clone() {
        let score = dot(query.query, &keys[i * stride..][..stride]) * shape.scale;
        scores[i] = shape.softcap.map_or(score, |limit| softcap(score, limit));
        largest = if scores[i] > largest { scores[i] } else { largest };
    }
    let shrink = exp(query.running.0 - largest);
    for score in &mut scores {
        *score = exp(*score - largest);
    }
    total *= shrink;
    for out in &mut *query.out {
        *out *= shrink;
    }
    for i in range {
        let weight = scores[i];
        total += weight;
        let out = query.out.as_chunks_mut::<LANES>().0.iter_mut();
        for (out, value) in out.zip(values[i * stride..][..stride].as_chunks::<LANES>().0) {
            for lane in 0..LANES {
                out[lane] += weight * value[lane];
            }
        }
    }
    query.running = (largest, total);
}

const _: () = assert!(PAGE == BLOCK && MAX_HEAD.is_multiple_of(LANES));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_close_to_the_true_value() {
        for step in -8700..8800 {
            let x = step as f32 / 100.0;
            let expected = f64::from(x).exp();
            let error = (f64::from(exp(x)) - expected).abs() / expected;
            assert!(error < 2.4e-7, "exp({x}) is off by {error:e}");
        }
        assert!(exp(f32::NEG_INFINITY) < 2e-38 && exp(1000.0).is_finite() && exp(f32::NAN).is_finite());
    }

    #[test]
    fn activations_have_their_defined_values() {
        let check = |f: fn(&mut [f32]), defined: fn(f64) -> f64, limit: f64| {
            let mut x: Vec<f32> = (-80..=80).map(|i| i as f32 / 10.0).collect();
            let expected: Vec<f64> = x.iter().map(|&x| defined(x.into())).collect();
            f(&mut x);
            for (got, expected) in x.iter().zip(expected) {
                assert!((f64::from(*got) - expected).abs() < limit, "{got} instead of {expected}");
            }
        };
        check(silu, |x| x / (1.0 + (-x).exp()), 1e-6);
        check(gelu, |x| 0.5 * x * (1.0 + (0.7978845608 * (x + 0.044715 * x.powi(3))).tanh()), 1e-6);
        check(gelu_erf, |x| 0.5 * x * (1.0 + libm::erf(x / 2.0_f64.sqrt())), 1e-6);
    }

    /// The running softmax equals attention written as its definition.
    #[test]
    fn attention_equals_its_definition() {
        let mut seed = 1_u32;
        let mut random = || {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        for (positions, window) in
            [(1_usize, None), (31, None), (32, None), (33, None), (100, None), (100, Some(40))]
        {
            let stride = 32;
            let length = 2 * positions.next_multiple_of(PAGE) * stride;
            let cache: Vec<Half> = (0..length).map(|_| narrow(random())).collect();
            let (keys, values) = cache.split_at(length / 2);
            let pages: Vec<_> = keys.chunks(PAGE * stride).zip(values.chunks(PAGE * stride)).collect();
            let query: Vec<f32> = (0..stride).map(|_| 4.0 * random()).collect();
            let mut out = vec![f32::NAN; stride];
            let shape = Attention { stride, scale: 0.2, softcap: Some(5.0), window };
            let queries = &mut [Query::new(positions - 1, &query, &mut out)];
            attend(shape, queries, &|page| pages.get(page).copied());

            let start = window.map_or(0, |w| positions - w);
            let scores: Vec<f64> = (start..positions)
                .map(|p| {
                    (0..stride).map(|i| f64::from(query[i]) * f64::from(widen(keys[p * stride + i]))).sum()
                })
                .map(|score: f64| (5.0 * (score * 0.2 / 5.0).tanh()).exp())
                .collect();
            let total: f64 = scores.iter().sum();
            for i in 0..stride {
                let value = |p: usize| f64::from(widen(values[(start + p) * stride + i]));
                let expected: f64 = scores.iter().enumerate().map(|(p, s)| s / total * value(p)).sum();
                assert!(
                    (f64::from(out[i]) - expected).abs() < 1e-5,
                    "{positions} positions: {} {expected}",
                    out[i]
                );
            }
        }
    }
}
