//! WebAssembly kernels: 128-bit SIMD, with the relaxed dot product for 4- and 5-bit weights.
//!
//! `i16x8.relaxed_dot_i8x16_i7x16_s` is relaxed only for second operands beyond 0..=127 and for pairs that
//! overflow 16 bits; within those bounds it is exact, hence the same on every machine. Nibbles are such an
//! operand, and a whole block adds up to at most 16 · 15 · 127 = 30480, so that one 16-bit lane can hold it.
//! 8-bit weights are widened to 16 bits and take the ordinary dot product.
//!
//! Cranelift (wasmtime's compiler) emits the loads of a basic block first and its arithmetic after them, so a
//! block's groups are taken in several basic blocks, with no more loads in each than there are registers. They
//! are no loop, though: hosts that interrupt their guests look at a clock at every loop's head, which costs a
//! fifth of the speed in loops as short as these.
#![allow(clippy::needless_range_loop, reason = "parallel arrays, indexed alike")]
#![allow(unsafe_code, reason = "SIMD loads through advancing pointers")]

use std::arch::wasm32::*;

use super::activations::Activations;
use super::block::{BLOCK, GROUPS, LANES, Offset, Q4, Q8};
use super::scalar::Tile;

/// Rows of a vector: a panel is worked on in four quarters, several at a time where registers allow.
const QUARTER: usize = 4;

/// Bytes from one group of a panel's columns to the next.
const GROUP_BYTES: usize = 4 * LANES;

/// The number `N`, which no compiler knows.
#[inline(always)]
fn unknown<const N: usize>() -> usize {
    struct Number<const N: usize>;
    impl<const N: usize> Number<N> {
        const VALUE: &'static usize = &N;
    }
    // SAFETY: a reference to a constant. The read is volatile, so its result is not assumed; a `black_box` is
    // not enough, because cranelift sees what was stored there.
    unsafe { std::ptr::read_volatile(Number::<N>::VALUE) }
}

/// Runs `$body` for every value of `$round` below the constant number of rounds, which `$rounds` is too, but
/// unknown to the compiler: every round ends with a branch out that is never taken, and with it a basic block.
macro_rules! rounds {
    ($rounds:expr, $round:ident in [$($value:literal)*] $body:block) => {
        'rounds: {
            $(
                {
                    const $round: usize = $value;
                    $body
                }
                if $rounds == $value + 1 {
                    break 'rounds;
                }
            )*
        }
    };
}

/// Four halves, widened as `block::widen` does.
///
/// # Safety
/// Eight bytes must be readable.
#[inline(always)]
unsafe fn halves(from: *const u16) -> v128 {
    // SAFETY: the caller's promise.
    let bits = unsafe { i32x4_load_extend_i16x4(from.cast()) };
    // Sign extension leaves copies of the sign in bits 28 to 31; only the last stays.
    let shifted = v128_and(i32x4_shl(bits, 13), i32x4_splat(0x8fff_ffff_u32 as i32));
    f32x4_mul(shifted, f32x4_splat(f32::from_bits(0x7780_0000)))
}

/// One 32-bit value per row of the tile, each in all four lanes.
///
/// # Safety
/// `T` values must be readable.
#[inline(always)]
unsafe fn per_row<const T: usize>(from: *const u8) -> [v128; T] {
    // SAFETY: the caller's promise.
    unsafe {
        if T == 4 {
            let four = v128_load(from.cast());
            let lanes = [
                i32x4_shuffle::<0, 0, 0, 0>(four, four),
                i32x4_shuffle::<1, 1, 1, 1>(four, four),
                i32x4_shuffle::<2, 2, 2, 2>(four, four),
                i32x4_shuffle::<3, 3, 3, 3>(four, four),
            ];
            std::array::from_fn(|t| lanes[t])
        } else {
            std::array::from_fn(|t| v128_load32_splat(from.add(4 * t).cast()))
        }
    }
}

/// A group of 8-bit quants per row of the tile, each four times.
///
/// # Safety
/// 16 quants must be readable.
#[inline(always)]
unsafe fn groups_of<const T: usize>(from: *const u8) -> [v128; T] {
    // SAFETY: the caller's promise.
    unsafe { if T == 1 { [v128_load(from.cast()); T] } else { per_row::<T>(from) } }
}

/// A group of 16-bit quants per row of the tile, each twice.
///
/// # Safety
/// 8 quants must be readable, 16 for a tile.
#[inline(always)]
unsafe fn wide_groups_of<const T: usize>(from: *const i16) -> [v128; T] {
    // SAFETY: the caller's promise.
    unsafe {
        if T == 1 {
            [v128_load(from.cast()); T]
        } else {
            let (first, second) = (v128_load(from.cast()), v128_load(from.add(8).cast()));
            let lanes = [
                i64x2_shuffle::<0, 0>(first, first),
                i64x2_shuffle::<1, 1>(first, first),
                i64x2_shuffle::<0, 0>(second, second),
                i64x2_shuffle::<1, 1>(second, second),
            ];
            std::array::from_fn(|t| lanes[t])
        }
    }
}

#[inline(always)]
fn store<const T: usize>(tile: &mut Tile<T>, t: usize, vector: usize, sums: v128) {
    let to = &mut tile[t][QUARTER * vector..][..QUARTER];
    // SAFETY: the slice is four floats; the store is unaligned.
    unsafe { v128_store(to.as_mut_ptr().cast(), sums) }
}

pub(super) fn q8<const T: usize>(panel: &[Q8], x: &Activations, row: usize) -> Tile<T> {
    let mut tile = [[0.0; LANES]; T];
    match T {
        // All of a panel at once: taken in parts, memory would wait while a part is in the cache.
        1 => q8_part::<T, 4>(panel, x, row, 0, &mut tile),
        _ => (0..4).for_each(|vector| q8_part::<T, 1>(panel, x, row, vector, &mut tile)),
    }
    tile
}

/// `V` vectors of a panel from vector `first` on. A dot product takes two lanes until its block's end: columns 0
/// and 1 in one, 2 and 3 of every group in the other.
#[inline(always)]
fn q8_part<const T: usize, const V: usize>(
    panel: &[Q8],
    x: &Activations,
    row: usize,
    first: usize,
    tile: &mut Tile<T>,
) {
    let view = x.interleaved::<T>(row);
    let (mut quants, mut scales) = (view.wide.as_ptr(), view.scales.as_ptr());
    let group_quants = if T == 1 { 8 } else { 4 * T };
    let groups = unknown::<GROUPS>();
    let mut sums = [[f32x4_splat(0.0); V]; T];
    for block in panel {
        let mut dots = [[[i32x4_splat(0); 2]; V]; T];
        let weights = block.quants.as_flattened()[16 * first..].as_ptr();
        let mut round = |group: usize| {
            // SAFETY: the view has the quants of every group of the panel, and a block its groups one after
            // the other.
            unsafe {
                let four = wide_groups_of::<T>(quants.wrapping_add(group * group_quants));
                for v in 0..V {
                    for side in 0..2 {
                        let pair = weights.wrapping_add(group * GROUP_BYTES + 16 * v + 8 * side);
                        let pair = i16x8_load_extend_i8x8(pair);
                        for t in 0..T {
                            let products = i32x4_dot_i16x8(pair, four[t]);
                            dots[t][v][side] = i32x4_add(dots[t][v][side], products);
                        }
                    }
                }
            }
        };
        rounds!(groups, GROUP in [0 1 2 3 4 5 6 7] { round(GROUP) });
        quants = quants.wrapping_add(GROUPS * group_quants);
        // SAFETY: the view has `T` scales for every block.
        let row_scales = unsafe { per_row::<T>(scales.cast()) };
        scales = scales.wrapping_add(T);
        for v in 0..V {
            // SAFETY: a block has 16 scales.
            let weight_scales = unsafe { halves(block.scales[QUARTER * (first + v)..].as_ptr()) };
            for t in 0..T {
                let [left, right] = dots[t][v];
                let even = i32x4_shuffle::<0, 2, 4, 6>(left, right);
                let odd = i32x4_shuffle::<1, 3, 5, 7>(left, right);
                let scale = f32x4_mul(weight_scales, row_scales[t]);
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

/// Adds the dot products of `V` vectors of one block of nibbles with `T` rows to `pairs`, two 16-bit lanes to
/// a dot product.
///
/// # Safety
/// `weights` must point to a vector of a block's quants, `quants` to a block of a view's.
#[inline(always)]
unsafe fn nibbles<const T: usize, const V: usize>(
    weights: *const u8,
    quants: *const u8,
    groups: usize,
    pairs: &mut [[v128; V]; T],
) {
    let mask = u8x16_splat(15);
    let mut round = |group: usize| {
        // SAFETY: the caller's promise; `group` is one of a block's.
        unsafe {
            let quants = quants.add(16 * group);
            let (low, high) = (groups_of::<T>(quants), groups_of::<T>(quants.add(2 * BLOCK)));
            for v in 0..V {
                let both = v128_load(weights.add(GROUP_BYTES * group + 16 * v).cast());
                let (lower, upper) = (v128_and(both, mask), v128_and(u16x8_shr(both, 4), mask));
                for t in 0..T {
                    let sum = i16x8_add(
                        i16x8_relaxed_dot_i8x16_i7x16(low[t], lower),
                        i16x8_relaxed_dot_i8x16_i7x16(high[t], upper),
                    );
                    pairs[t][v] = i16x8_add(pairs[t][v], sum);
                }
            }
        }
    };
    rounds!(groups, GROUP in [0 1 2 3] { round(GROUP) });
}

/// As [`nibbles`] with a fifth bit, the dot products in one 32-bit lane each: two groups are all that 16 bits hold.
///
/// # Safety
/// As for [`nibbles`]; `fifths` must point to the same vector of the block's fifth bits.
#[inline(always)]
unsafe fn fives<const T: usize, const V: usize>(
    weights: *const u8,
    fifths: *const u8,
    quants: *const u8,
    groups: usize,
) -> [[v128; V]; T] {
    let (mask, fifth) = (u8x16_splat(15), u8x16_splat(16));
    let mut dots = [[i32x4_splat(0); V]; T];
    let mut round = |group: usize| {
        // SAFETY: the caller's promise; `group` is one of a block's.
        unsafe {
            let quants = quants.add(16 * group);
            let (low, high) = (groups_of::<T>(quants), groups_of::<T>(quants.add(2 * BLOCK)));
            for v in 0..V {
                let both = v128_load(weights.add(GROUP_BYTES * group + 16 * v).cast());
                let bits = v128_load(fifths.add(16 * v).cast());
                let left = v128_and(u16x8_shl(bits, 4 - group as u32), fifth);
                let right = v128_and(u16x8_shr(bits, group as u32), fifth);
                let lower = v128_or(v128_and(both, mask), left);
                let upper = v128_or(v128_and(u16x8_shr(both, 4), mask), right);
                for t in 0..T {
                    let sum = i16x8_add(
                        i16x8_relaxed_dot_i8x16_i7x16(low[t], lower),
                        i16x8_relaxed_dot_i8x16_i7x16(high[t], upper),
                    );
                    dots[t][v] = i32x4_add(dots[t][v], i32x4_extadd_pairwise_i16x8(sum));
                }
            }
        }
    };
    rounds!(groups, GROUP in [0 1 2 3] { round(GROUP) });
    dots
}

/// Runs `part(first vector)` over a panel, as many vectors at a time as keep the sums in registers.
macro_rules! panel {
    ($part:ident, $t:ident, $panel:ident, $x:ident, $row:ident) => {{
        let mut tile = [[0.0; LANES]; $t];
        match $t {
            1 => $part::<$t, 4>($panel, $x, $row, 0, &mut tile),
            _ => (0..2).for_each(|half| $part::<$t, 2>($panel, $x, $row, 2 * half, &mut tile)),
        }
        tile
    }};
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
    let view = x.interleaved::<T>(row);
    let (mut quants, mut scales, mut shifts) =
        (view.quants.as_ptr(), view.scales.as_ptr(), view.shifts.as_ptr());
    let groups = unknown::<{ GROUPS / 2 }>();
    let mut sums = [[f32x4_splat(0.0); V]; T];
    for block in panel {
        // SAFETY: the view has the quants of every block of the panel, and `T` scales and shifts for every
        // block.
        let (pairs, row_scales) = unsafe {
            // The dot products start at −8 · Σ quants, all of it in the lower of the two lanes.
            let mut pairs = [[i16x8_splat(0); V]; T];
            let start = per_row::<T>(shifts.cast());
            for t in 0..T {
                pairs[t] = [start[t]; V];
            }
            let weights = block.quants.as_flattened()[16 * first..].as_ptr();
            nibbles::<T, V>(weights, quants.cast(), groups, &mut pairs);
            (pairs, per_row::<T>(scales.cast()))
        };
        quants = quants.wrapping_add(4 * BLOCK);
        (scales, shifts) = (scales.wrapping_add(T), shifts.wrapping_add(T));
        for v in 0..V {
            // SAFETY: a block has 16 scales.
            let weight_scales = unsafe { halves(block.scales[QUARTER * (first + v)..].as_ptr()) };
            for t in 0..T {
                let scale = f32x4_mul(weight_scales, row_scales[t]);
                let dot = f32x4_convert_i32x4(i32x4_extadd_pairwise_i16x8(pairs[t][v]));
                sums[t][v] = f32x4_add(sums[t][v], f32x4_mul(dot, scale));
            }
        }
    }
    for t in 0..T {
        for v in 0..V {
            store(tile, t, first + v, sums[t][v]);
        }
    }
}

/// Four or five bits, with an offset.
pub(super) fn offset<B: Offset, const T: usize>(panel: &[B], x: &Activations, row: usize) -> Tile<T> {
    panel!(offset_part, T, panel, x, row)
}

#[inline(always)]
fn offset_part<const T: usize, const V: usize>(
    panel: &[impl Offset],
    x: &Activations,
    row: usize,
    first: usize,
    tile: &mut Tile<T>,
) {
    let view = x.interleaved::<T>(row);
    let (mut quants, mut scales, mut products) =
        (view.quants.as_ptr(), view.scales.as_ptr(), view.products.as_ptr());
    let groups = unknown::<{ GROUPS / 2 }>();
    let mut sums = [[f32x4_splat(0.0); V]; T];
    for block in panel {
        // SAFETY: the view has the quants of every block of the panel, and `T` scales and products for
        // every block.
        let (dots, row_scales, row_products) = unsafe {
            let weights = block.quants().as_flattened()[16 * first..].as_ptr();
            let dots = match block.fifths() {
                Some(fifths) => fives::<T, V>(weights, fifths[16 * first..].as_ptr(), quants.cast(), groups),
                None => {
                    let mut pairs = [[i16x8_splat(0); V]; T];
                    nibbles::<T, V>(weights, quants.cast(), groups, &mut pairs);
                    pairs.map(|pairs| pairs.map(|pair| i32x4_extadd_pairwise_i16x8(pair)))
                }
            };
            (dots, per_row::<T>(scales.cast()), per_row::<T>(products.cast()))
        };
        quants = quants.wrapping_add(4 * BLOCK);
        (scales, products) = (scales.wrapping_add(T), products.wrapping_add(T));
        for v in 0..V {
            // SAFETY: a block has 16 scales and 16 offsets.
            let (weight_scales, offsets) = unsafe {
                let at = QUARTER * (first + v);
                (halves(block.scales()[at..].as_ptr()), halves(block.offsets()[at..].as_ptr()))
            };
            for t in 0..T {
                let scale = f32x4_mul(weight_scales, row_scales[t]);
                let dot = f32x4_convert_i32x4(dots[t][v]);
                sums[t][v] = f32x4_add(sums[t][v], f32x4_mul(dot, scale));
                sums[t][v] = f32x4_add(sums[t][v], f32x4_mul(offsets, row_products[t]));
            }
        }
    }
    for t in 0..T {
        for v in 0..V {
            store(tile, t, first + v, sums[t][v]);
        }
    }
}
