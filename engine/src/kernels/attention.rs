//! Attention over the pages of a KV cache.
//!
//! A page holds 32 positions: keys transposed, `[stride][32]`, so that a lane is a position and no sum crosses
//! lanes; values as they are, `[32][stride]`. Pages are taken in order with a running softmax (Milakov and
//! Gimelshein, 2018), so a result does not depend on how a prompt was cut into batches, nor on the queries
//! that are worked on at the same time.

use std::ops::Range;

use super::block::{Half, LANES, widen_all};
use super::float::{exp, reduce, softcap};
use super::isa::multiversion;

/// Positions of a page, and of a step of the running softmax.
pub(crate) const PAGE: usize = 32;

/// The longest attention head, `[elements]`: what the buffers on the stack hold.
pub(crate) const MAX_HEAD: usize = 256;

/// Queries of one call at most.
pub(crate) const MAX_QUERIES: usize = 16;

/// Queries that meet a page's keys and values at once: as many as leave the sums in registers.
const TILE: usize = if cfg!(target_arch = "wasm32") { 2 } else { 4 };

/// Elements or positions that a round of the inner loops takes: short loops are mostly overhead where a host
/// can interrupt its guests.
const STEP: usize = 2;

/// Elements that a head of the KV cache takes: rounded up to whole groups of lanes, zeros at the end.
pub(crate) fn head_stride(head: usize) -> usize {
    head.next_multiple_of(LANES)
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

/// Gives keys and values of a page; none beyond the last.
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

impl Attention {
    /// The positions of page `page` that a query at `position` sees, counted from the page's first.
    #[inline(always)]
    fn seen(&self, position: usize, page: usize) -> Range<usize> {
        let first = self.window.map_or(0, |window| (position + 1).saturating_sub(window));
        first.saturating_sub(page * PAGE)..PAGE.min((position + 1).saturating_sub(page * PAGE))
    }
}

/// Attention of up to [`MAX_QUERIES`] queries over one head of a KV cache. `pages(i)` holds keys
/// `[stride][32]` and values `[32][stride]` of positions `32 i` to `32 i + 31`, in half precision. A page is
/// widened once for all queries.
pub fn attend(shape: Attention, queries: &mut [Query<'_>], pages: Pages<'_>) {
    attend_sized(shape, queries, pages);
}

multiversion! {
    fn attend_sized(shape: Attention, queries: &mut [Query<'_>], pages: Pages<'_>) {
        // The buffers are cleared at every call: short heads get short ones.
        match shape.stride {
            ..=64 => attend_pages::<64>(shape, queries, pages),
            65..=128 => attend_pages::<128>(shape, queries, pages),
            _ => attend_pages::<MAX_HEAD>(shape, queries, pages),
        }
    }
}

#[inline(always)]
fn attend_pages<const HEAD: usize>(shape: Attention, queries: &mut [Query<'_>], pages: Pages<'_>) {
    let stride = shape.stride;
    let (mut keys, mut values) = ([[0.0_f32; PAGE]; HEAD], [[0.0_f32; HEAD]; PAGE]);
    let values = &mut values.as_flattened_mut()[..PAGE * stride];
    let mut weights = [[0.0_f32; PAGE]; MAX_QUERIES];
    for query in &mut *queries {
        query.out.fill(0.0);
        query.running = (f32::NEG_INFINITY, 0.0);
    }
    let last = queries.iter().map(|query| query.position).max().unwrap_or(0) / PAGE;
    let first = queries.iter().map(|query| query.position).min().unwrap_or(0);
    let first = shape.window.map_or(0, |window| (first + 1).saturating_sub(window)) / PAGE;
    for page in first..=last {
        let Some((page_keys, page_values)) = pages(page) else { break };
        widen_all::<PAGE>(page_keys, keys.as_flattened_mut());
        widen_all::<PAGE>(page_values, values);
        for (tile, weights) in queries.chunks_mut(TILE).zip(weights.chunks_mut(TILE)) {
            // A tile that is not full runs query by query: the results are the same.
            if tile.len() == TILE {
                step::<TILE>(&shape, page, tile, weights, &keys[..stride], values);
            } else {
                for (query, weights) in tile.chunks_mut(1).zip(weights.chunks_mut(1)) {
                    step::<1>(&shape, page, query, weights, &keys[..stride], values);
                }
            }
        }
    }
    for query in queries {
        let total = 1.0 / query.running.1;
        query.out.iter_mut().for_each(|out| *out *= total);
    }
}

/// Takes one page into the running softmax of `T` queries.
#[inline(always)]
fn step<const T: usize>(
    shape: &Attention,
    page: usize,
    queries: &mut [Query<'_>],
    weights: &mut [[f32; PAGE]],
    keys: &[[f32; PAGE]],
    values: &[f32],
) {
    let rows: [&[f32]; T] = std::array::from_fn(|t| &queries[t].query[..keys.len()]);
    for half in 0..PAGE / LANES {
        let mut sums = [[0.0_f32; LANES]; T];
        for (pair, keys) in keys.as_chunks::<STEP>().0.iter().enumerate() {
            for step in 0..STEP {
                let keys = &keys[step].as_chunks::<LANES>().0[half];
                for t in 0..T {
                    let query = rows[t].as_chunks::<STEP>().0[pair][step];
                    for lane in 0..LANES {
                        sums[t][lane] += query * keys[lane];
                    }
                }
            }
        }
        for t in 0..T {
            weights[t].as_chunks_mut::<LANES>().0[half] = sums[t];
        }
    }
    let mut end = 0;
    for t in 0..T {
        let seen = shape.seen(queries[t].position, page);
        end = end.max(seen.end);
        soften(shape, seen, &mut queries[t], &mut weights[t]);
    }
    for chunk in 0..shape.stride / LANES {
        let mut sums = [[0.0_f32; LANES]; T];
        for t in 0..T {
            sums[t] = queries[t].out.as_chunks::<LANES>().0[chunk];
        }
        // What a query does not see has no weight, and adding nothing changes nothing.
        let values = values.chunks_exact(STEP * shape.stride).take(end.div_ceil(STEP));
        for (pair, values) in (0..PAGE / STEP).zip(values) {
            for step in 0..STEP {
                let values = &values[step * shape.stride..].as_chunks::<LANES>().0[chunk];
                for t in 0..T {
                    let weight = weights[t].as_chunks::<STEP>().0[pair][step];
                    for lane in 0..LANES {
                        sums[t][lane] += weight * values[lane];
                    }
                }
            }
        }
        for t in 0..T {
            queries[t].out.as_chunks_mut::<LANES>().0[chunk] = sums[t];
        }
    }
}

/// Turns a query's scores of one page into weights relative to the largest score so far; what was summed up
/// before is rescaled to it. Positions outside `seen` get no weight.
#[inline(always)]
fn soften(shape: &Attention, seen: Range<usize>, query: &mut Query<'_>, scores: &mut [f32; PAGE]) {
    if seen.is_empty() {
        *scores = [0.0; PAGE];
        return;
    }
    let mut lanes = [f32::NEG_INFINITY; LANES];
    for (i, score) in scores.iter_mut().enumerate() {
        let scaled = *score * shape.scale;
        let capped = shape.softcap.map_or(scaled, |limit| softcap(scaled, limit));
        *score = if i >= seen.start && i < seen.end { capped } else { f32::NEG_INFINITY };
        let lane = &mut lanes[i % LANES];
        *lane = if *score > *lane { *score } else { *lane };
    }
    let (before, total) = query.running;
    let largest = lanes.iter().fold(before, |largest, &lane| if lane > largest { lane } else { largest });
    let shrink = exp(before - largest);
    let mut sums = [0.0; LANES];
    for (i, score) in scores.iter_mut().enumerate() {
        let weight = exp(*score - largest);
        *score = if i >= seen.start && i < seen.end { weight } else { 0.0 };
        sums[i % LANES] += *score;
    }
    query.out.iter_mut().for_each(|out| *out *= shrink);
    query.running = (largest, total * shrink + reduce(sums));
}

const _: () = assert!(PAGE.is_multiple_of(LANES) && MAX_HEAD.is_multiple_of(LANES));

#[cfg(test)]
mod tests {
    use super::super::block::{narrow, widen};
    use super::*;

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
            let transposed: Vec<Half> = (0..keys.len())
                .map(|i| {
                    let (page, element, position) = (i / (PAGE * stride), i / PAGE % stride, i % PAGE);
                    keys[(page * PAGE + position) * stride + element]
                })
                .collect();
            let pages: Vec<_> = transposed.chunks(PAGE * stride).zip(values.chunks(PAGE * stride)).collect();
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
