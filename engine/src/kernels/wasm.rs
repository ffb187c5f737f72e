//! WebAssembly kernels: 128-bit SIMD, with the relaxed dot product for 4-bit weights.
//!
//! `i16x8.relaxed_dot_i8x16_i7x16_s` is relaxed only for second operands beyond 0..=127 and for pairs that
//! overflow 16 bits; within those bounds it is exact, hence the same on every machine. Nibbles are such an
//! operand, and a whole block adds up to at most 16 · 15 · 127 = 30480, so that one 16-bit lane can hold it.
//! 8-bit weights are widened to 16 bits and take the ordinary dot product.
#![allow(clippy::needless_range_loop, reason = "parallel arrays, indexed alike")]
#![allow(unsafe_code, reason = "SIMD loads")]

use std::arch::wasm32::*;

use super::activations::Activations;
use super::block::{BLOCK, GROUPS, LANES, Q4, Q4Offset, Q8};
use super::scalar::Tile;

/// Rows of a vector: a panel is worked on in four quarters, several at a time where registers allow.
const QUARTER: usize = 4;

/// Four 8-bit quants in every lane.
#[inline(always)]
fn splat(quants: &[i8], at: usize) -> v128 {
    debug_assert!(at + 4 <= quants.len());
    // SAFETY: callers stay within a block of the row: `at + 4 <= quants.len()`; the load is unaligned.
    unsafe { v128_load32_splat(quants.as_ptr().add(at).cast()) }
}

/// Four 16-bit quants in both halves.
#[inline(always)]
fn splat_wide(quants: &[i16], at: usize) -> v128 {
    debug_assert!(at + 4 <= quants.len());
    // SAFETY: as in `splat`.
    unsafe { v128_load64_splat(quants.as_ptr().add(at).cast()) }
}

/// 16 bytes: four columns of four rows.
#[inline(always)]
fn bytes(quants: &[u8; 4 * LANES], vector: usize) -> v128 {
    debug_assert!(vector < LANES / QUARTER);
    // SAFETY: `vector` is below 4 and the array is 64 bytes long.
    unsafe { v128_load(quants.as_ptr().add(16 * vector).cast()) }
}

/// Four columns of two rows, widened to 16 bits: rows `2 · pair` and `2 · pair + 1`.
#[inline(always)]
fn widened(quants: &[i8; 4 * LANES], pair: usize) -> v128 {
    debug_assert!(pair < LANES / 2);
    // SAFETY: `pair` is below 8 and the array is 64 bytes long.
    unsafe { i16x8_load_extend_i8x8(quants.as_ptr().add(8 * pair)) }
}

/// Four halves, widened as `block::widen` does.
#[inline(always)]
fn halves(halves: &[u16; LANES], vector: usize) -> v128 {
    debug_assert!(vector < LANES / QUARTER);
    // SAFETY: `vector` is below 4 and four halves are 8 bytes.
    let bits = unsafe { i32x4_load_extend_i16x4(halves.as_ptr().add(QUARTER * vector).cast()) };
    // Sign extension leaves copies of the sign in bits 28 to 31; only the last stays.
    let shifted = v128_and(i32x4_shl(bits, 13), i32x4_splat(0x8fff_ffff_u32 as i32));
    f32x4_mul(shifted, f32x4_splat(f32::from_bits(0x7780_0000)))
}

#[inline(always)]
fn store<const T: usize>(tile: &mut Tile<T>, t: usize, vector: usize, sums: v128) {
    let to = &mut tile[t][QUARTER * vector..][..QUARTER];
    // SAFETY: the slice is four floats; the store is unaligned.
    unsafe { v128_store(to.as_mut_ptr().cast(), sums) }
}

/// Runs `part(first vector)` over a panel, as many vectors at a time as keep the sums in registers.
macro_rules! panel {
    ($part:ident, $t:ident, $panel:ident, $x:ident, $row:ident) => {{
        let mut tile = [[0.0; LANES]; $t];
        match $t {
            1 => $part::<$t, 4>($panel, $x, $row, 0, &mut tile),
            _ => (0..4).for_each(|vector| $part::<$t, 1>($panel, $x, $row, vector, &mut tile)),
        }
        tile
    }};
}

pub(super) fn q8<const T: usize>(panel: &[Q8], x: &Activations, row: usize) -> Tile<T> {
    panel!(q8_part, T, panel, x, row)
}

#[inline(always)]
fn q8_part<const T: usize, const V: usize>(
    panel: &[Q8],
    x: &Activations,
    row: usize,
    first: usize,
    tile: &mut Tile<T>,
) {
    let quants: [&[i16]; T] = std::array::from_fn(|t| x.wide(row + t));
    let scales: [&[f32]; T] = std::array::from_fn(|t| x.scales(row + t));
    let mut sums = [[f32x4_splat(0.0); V]; T];
    for (b, block) in panel.iter().enumerate() {
        // Two lanes to a row: columns 0 and 1, columns 2 and 3 of every group.
        let mut dots = [[[i32x4_splat(0); 2]; V]; T];
        for group in 0..GROUPS {
            let four: [v128; T] = std::array::from_fn(|t| splat_wide(quants[t], b * BLOCK + 4 * group));
            for v in 0..V {
                for side in 0..2 {
                    let weights = widened(&block.quants[group], 2 * (first + v) + side);
                    for t in 0..T {
                        dots[t][v][side] = i32x4_add(dots[t][v][side], i32x4_dot_i16x8(weights, four[t]));
                    }
                }
            }
        }
        for v in 0..V {
            let weight_scales = halves(&block.scales, first + v);
            for t in 0..T {
                let [left, right] = dots[t][v];
                let even = i32x4_shuffle::<0, 2, 4, 6>(left, right);
                let odd = i32x4_shuffle::<1, 3, 5, 7>(left, right);
                let scale = f32x4_mul(weight_scales, f32x4_splat(scales[t][b]));
                let product = f32x4_mul(f32x4_convert_i32x4(i32x4_add(even, odd)), scale);
                sums[t][v] = f32x4_add(sums[t][v], product);
            }
        }
    }
    for t in 0..T {
        for v in 0..V {
            store(tile, t, first + v, sums[t][v]);
        }
    }
}

/// The dot products of `V` vectors of one block of nibbles with `T` rows, not yet shifted by 8.
#[inline(always)]
fn nibbles<const T: usize, const V: usize>(
    block: &[[u8; 4 * LANES]; GROUPS / 2],
    first: usize,
    quants: &[&[i8]; T],
    at: usize,
) -> [[v128; V]; T] {
    let mask = u8x16_splat(15);
    let mut pairs = [[i16x8_splat(0); V]; T];
    for (group, row) in block.iter().enumerate() {
        let low: [v128; T] = std::array::from_fn(|t| splat(quants[t], at + 4 * group));
        let high: [v128; T] = std::array::from_fn(|t| splat(quants[t], at + BLOCK / 2 + 4 * group));
        for v in 0..V {
            let nibbles = bytes(row, first + v);
            let lower = v128_and(nibbles, mask);
            let upper = v128_and(u16x8_shr(nibbles, 4), mask);
            for t in 0..T {
                let both = i16x8_add(
                    i16x8_relaxed_dot_i8x16_i7x16(low[t], lower),
                    i16x8_relaxed_dot_i8x16_i7x16(high[t], upper),
                );
                pairs[t][v] = i16x8_add(pairs[t][v], both);
            }
        }
    }
    pairs.map(|pairs| pairs.map(|pair| i32x4_extadd_pairwise_i16x8(pair)))
}

pub(super) fn q4<const T: usize>(panel: &[Q4], x: &Activations, row: usize) -> Tile<T> {
    panel!(q4_part, T, panel, x, row)
}

#[inline(always)]
fn q4_part<const T: usize, const V: usize>(
    panel: &[Q4],
    x: &Activations,
    row: usize,
    first: usize,
    tile: &mut Tile<T>,
) {
    let quants: [&[i8]; T] = std::array::from_fn(|t| x.quants(row + t));
    let scales: [&[f32]; T] = std::array::from_fn(|t| x.scales(row + t));
    let totals: [&[i32]; T] = std::array::from_fn(|t| x.sums(row + t));
    let mut sums = [[f32x4_splat(0.0); V]; T];
    for (b, block) in panel.iter().enumerate() {
        let dots = nibbles::<T, V>(&block.quants, first, &quants, b * BLOCK);
        for v in 0..V {
            let weight_scales = halves(&block.scales, first + v);
            for t in 0..T {
                let dot = i32x4_sub(dots[t][v], i32x4_splat(8 * totals[t][b]));
                let scale = f32x4_mul(weight_scales, f32x4_splat(scales[t][b]));
                sums[t][v] = f32x4_add(sums[t][v], f32x4_mul(f32x4_convert_i32x4(dot), scale));
            }
        }
    }
    for t in 0..T {
        for v in 0..V {
            store(tile, t, first + v, sums[t][v]);
        }
    }
}

pub(super) fn q4_offset<const T: usize>(panel: &[Q4Offset], x: &Activations, row: usize) -> Tile<T> {
    panel!(q4_offset_part, T, panel, x, row)
}

#[inline(always)]
fn q4_offset_part<const T: usize, const V: usize>(
    panel: &[Q4Offset],
    x: &Activations,
    row: usize,
    first: usize,
    tile: &mut Tile<T>,
) {
    let quants: [&[i8]; T] = std::array::from_fn(|t| x.quants(row + t));
    let scales: [&[f32]; T] = std::array::from_fn(|t| x.scales(row + t));
    let totals: [&[i32]; T] = std::array::from_fn(|t| x.sums(row + t));
    let mut sums = [[f32x4_splat(0.0); V]; T];
    for (b, block) in panel.iter().enumerate() {
        let dots = nibbles::<T, V>(&block.quants, first, &quants, b * BLOCK);
        for v in 0..V {
            let (weight_scales, offsets) =
                (halves(&block.scales, first + v), halves(&block.offsets, first + v));
            for t in 0..T {
                let scale = f32x4_mul(weight_scales, f32x4_splat(scales[t][b]));
                let product = f32x4_mul(f32x4_convert_i32x4(dots[t][v]), scale);
                let offset = f32x4_mul(offsets, f32x4_splat(scales[t][b] * totals[t][b] as f32));
                sums[t][v] = f32x4_add(f32x4_add(sums[t][v], product), offset);
            }
        }
    }
    for t in 0..T {
        for v in 0..V {
            store(tile, t, first + v, sums[t][v]);
        }
    }
}
