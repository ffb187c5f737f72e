//! The kernels' specification, in plain Rust.
//!
//! A kernel multiplies one panel (16 rows of weights) with `T` rows of activations, from row `row` on, and
//! returns `[T][16]` sums. Per block: an integer dot product, then `sum += dot · (weight scale · activation
//! scale)`, each operation rounded to single precision, blocks in order. Every other kernel gives these bits.

use super::activations::Activations;
use super::block::{BLOCK, LANES, Nibbles, Offset, Q4, Q8, widen};

/// What a kernel returns: `[T][16]`.
pub(super) type Tile<const T: usize> = [[f32; LANES]; T];

pub(super) fn q8<const T: usize>(panel: &[Q8], x: &Activations, row: usize) -> Tile<T> {
    quantized::<T>(panel.len(), x, row, |b, lane, q, _, scale| {
        let block = &panel[b];
        let dot: i32 =
            (0..BLOCK).map(|i| i32::from(block.quants[i / 4][4 * lane + i % 4]) * i32::from(q[i])).sum();
        [dot as f32 * (widen(block.scales[lane]) * scale), 0.0]
    })
}

pub(super) fn q4<const T: usize>(panel: &[Q4], x: &Activations, row: usize) -> Tile<T> {
    quantized::<T>(panel.len(), x, row, |b, lane, q, sum, scale| {
        let block = &panel[b];
        let dot = nibbles(&block.quants, lane, q) - 8 * sum;
        [dot as f32 * (widen(block.scales[lane]) * scale), 0.0]
    })
}

/// Four or five bits, with an offset.
pub(super) fn offset<B: Offset, const T: usize>(panel: &[B], x: &Activations, row: usize) -> Tile<T> {
    quantized::<T>(panel.len(), x, row, |b, lane, q, sum, scale| {
        let block = &panel[b];
        let dot: i32 = (0..BLOCK).map(|i| i32::from(block.quant(lane, i)) * i32::from(q[i])).sum();
        let product = dot as f32 * (widen(block.scales()[lane]) * scale);
        [product, widen(block.offsets()[lane]) * (scale * sum as f32)]
    })
}

fn nibbles(quants: &Nibbles, lane: usize, q: &[i8]) -> i32 {
    let nibble = |i: usize| quants[i % 16 / 4][4 * lane + i % 4] >> (i / 16 * 4) & 15;
    (0..BLOCK).map(|i| i32::from(nibble(i)) * i32::from(q[i])).sum()
}

/// Runs `term(block, lane, quants, sum, scale)` over all blocks and adds its two values in turn.
#[inline(always)]
fn quantized<const T: usize>(
    blocks: usize,
    x: &Activations,
    row: usize,
    term: impl Fn(usize, usize, &[i8], i32, f32) -> [f32; 2],
) -> Tile<T> {
    std::array::from_fn(|t| {
        let (quants, scales, sums) = (x.quants(row + t), x.scales(row + t), x.sums(row + t));
        std::array::from_fn(|lane| {
            (0..blocks).fold(0.0, |sum, b| {
                let [product, offset] = term(b, lane, &quants[b * BLOCK..][..BLOCK], sums[b], scales[b]);
                (sum + product) + offset
            })
        })
    })
}

/// Rows kept as floats of some width: `sum += w · x`, columns in order. Fast enough as it is: the compiler
/// turns the lanes into vectors.
#[inline(always)]
pub(super) fn float<W: Copy, const T: usize>(
    panel: &[[W; LANES]],
    widen: impl Fn(W) -> f32,
    x: &Activations,
    row: usize,
) -> Tile<T> {
    let rows: [&[f32]; T] = std::array::from_fn(|t| &x.row(row + t)[..panel.len()]);
    let mut sums = [[0.0_f32; LANES]; T];
    for (column, weights) in panel.iter().enumerate() {
        let weights: [f32; LANES] = std::array::from_fn(|lane| widen(weights[lane]));
        for t in 0..T {
            let x = rows[t][column];
            for lane in 0..LANES {
                sums[t][lane] += weights[lane] * x;
            }
        }
    }
    sums
}
