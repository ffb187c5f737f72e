//! aarch64 kernels: plain NEON, the dot product (`sdot`), and the matrix product (`smmla`).
//!
//! All of them compute the dot products of one vector (four rows of a panel) and one block with `T` rows of
//! activations as integers, and share the arithmetic on floats around that, without fused multiply-add. Four
//! passes over a panel, one per vector, read it from memory once and from the first cache three times.
#![allow(clippy::needless_range_loop, reason = "parallel arrays, indexed alike")]
#![allow(unsafe_code, reason = "SIMD intrinsics and two instructions that have none yet")]

use std::arch::aarch64::*;
use std::arch::asm;

use super::activations::Activations;
use super::block::{BLOCK, Bits, GROUPS, LANES, Nibbles, Offset, Q4, Q8, widen};
use super::scalar::Tile;

/// Rows of a vector.
const QUARTER: usize = 4;

/// Dot products of a vector's four rows, for each of `T` rows of activations.
type Dots<const T: usize> = [int32x4_t; T];

/// 16 quants of a row of activations.
#[inline(always)]
fn sixteen(quants: &[i8], at: usize) -> int8x16_t {
    let quants = &quants[at..at + 16];
    // SAFETY: the slice is 16 bytes long, and NEON is part of every aarch64 processor.
    unsafe { vld1q_s8(quants.as_ptr()) }
}

/// 16 bytes of a panel: four columns of four rows.
#[inline(always)]
fn bytes<T>(group: &[T; 4 * LANES], vector: usize) -> uint8x16_t {
    const { assert!(size_of::<T>() == 1) };
    let group = &group[16 * vector..16 * vector + 16];
    // SAFETY: the slice is 16 bytes long.
    unsafe { vld1q_u8(group.as_ptr().cast()) }
}

/// Four halves, widened.
#[inline(always)]
fn halves(halves: &[u16; LANES], vector: usize) -> float32x4_t {
    let floats: [f32; QUARTER] = std::array::from_fn(|i| widen(halves[QUARTER * vector + i]));
    // SAFETY: four floats.
    unsafe { vld1q_f32(floats.as_ptr()) }
}

/// Every lane of `weights` times the four quants in lane `LANE` of `quants`, added to `sums`.
#[target_feature(enable = "dotprod")]
#[inline]
fn sdot<const LANE: i32>(mut sums: int32x4_t, weights: int8x16_t, quants: int8x16_t) -> int32x4_t {
    // SAFETY: one instruction on registers.
    unsafe {
        asm!(
            "sdot {sums:v}.4s, {weights:v}.16b, {quants:v}.4b[{lane}]",
            sums = inout(vreg) sums, weights = in(vreg) weights, quants = in(vreg) quants,
            lane = const LANE,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sums
}

/// Two rows of eight weights times two rows of eight quants, added to `sums`: `[w0 x0, w0 x1, w1 x0, w1 x1]`.
#[target_feature(enable = "i8mm")]
#[inline]
fn smmla(mut sums: int32x4_t, weights: int8x16_t, quants: int8x16_t) -> int32x4_t {
    // SAFETY: one instruction on registers.
    unsafe {
        asm!(
            "smmla {sums:v}.4s, {weights:v}.16b, {quants:v}.16b",
            sums = inout(vreg) sums, weights = in(vreg) weights, quants = in(vreg) quants,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sums
}

/// Both halves of a vector of quants, columns `4 g` and columns `16 + 4 g` for group `g`, with their fifth bits if
/// they have any.
#[inline(always)]
fn split(block: &Nibbles, fifths: Option<&Bits>, group: usize, vector: usize) -> [int8x16_t; 2] {
    let nibbles = bytes(&block[group], vector);
    // SAFETY: NEON is part of every aarch64 processor.
    unsafe {
        let mut halves = [vandq_u8(nibbles, vdupq_n_u8(15)), vshrq_n_u8::<4>(nibbles)];
        if let Some(bits) = fifths {
            let (bits, fifth) = (bytes(bits, vector), vdupq_n_u8(16));
            // A shift by a negative number is one to the right.
            for (half, by) in halves.iter_mut().zip([4 - group as i8, -(group as i8)]) {
                *half = vorrq_u8(*half, vandq_u8(vshlq_u8(bits, vdupq_n_s8(by)), fifth));
            }
        }
        halves.map(|half| vreinterpretq_s8_u8(half))
    }
}

/// Group `GROUP` of 16 quants, four times.
macro_rules! spread {
    ($quants:expr, $group:literal) => {
        vreinterpretq_s8_s32(vdupq_laneq_s32::<$group>(vreinterpretq_s32_s8($quants)))
    };
}

/// Plain NEON: products in 16 bits, added in pairs to 32.
mod plain {
    use super::*;

    #[inline]
    pub(super) fn eight<const T: usize>(
        block: &Q8,
        vector: usize,
        quants: &[&[i8]; T],
        at: usize,
    ) -> Dots<T> {
        std::array::from_fn(|t| {
            // SAFETY: NEON is part of every aarch64 processor.
            unsafe {
                // Two lanes to a row: columns 0 and 1, columns 2 and 3 of every group.
                let mut pairs = [vdupq_n_s32(0); 2];
                for half in 0..2 {
                    let four = sixteen(quants[t], at + 16 * half);
                    let spread = [spread!(four, 0), spread!(four, 1), spread!(four, 2), spread!(four, 3)];
                    for group in 0..4 {
                        let weights = vreinterpretq_s8_u8(bytes(&block.quants[4 * half + group], vector));
                        let x = spread[group];
                        let low = vmull_s8(vget_low_s8(weights), vget_low_s8(x));
                        pairs[0] = vpadalq_s16(pairs[0], low);
                        pairs[1] = vpadalq_s16(pairs[1], vmull_high_s8(weights, x));
                    }
                }
                vpaddq_s32(pairs[0], pairs[1])
            }
        })
    }

    #[inline]
    pub(super) fn nibbles<const T: usize>(
        block: &Nibbles,
        fifths: Option<&Bits>,
        vector: usize,
        quants: &[&[i8]; T],
        at: usize,
    ) -> Dots<T> {
        std::array::from_fn(|t| {
            // SAFETY: NEON is part of every aarch64 processor.
            unsafe {
                // A lane adds up eight products of at most 31 · 127: they fit 16 bits.
                let mut products = [vdupq_n_s16(0); 2];
                let x = [sixteen(quants[t], at), sixteen(quants[t], at + 16)];
                let x = x.map(|x| [spread!(x, 0), spread!(x, 1), spread!(x, 2), spread!(x, 3)]);
                for group in 0..GROUPS / 2 {
                    let weights = split(block, fifths, group, vector);
                    for half in 0..2 {
                        let (weights, x) = (weights[half], x[half][group]);
                        products[0] = vmlal_s8(products[0], vget_low_s8(weights), vget_low_s8(x));
                        products[1] = vmlal_high_s8(products[1], weights, x);
                    }
                }
                vpaddq_s32(vpaddlq_s16(products[0]), vpaddlq_s16(products[1]))
            }
        })
    }
}

/// `sdot`: four products a lane, straight into 32 bits.
mod dotprod {
    use super::*;

    #[target_feature(enable = "dotprod")]
    #[inline]
    pub(super) fn eight<const T: usize>(
        block: &Q8,
        vector: usize,
        quants: &[&[i8]; T],
        at: usize,
    ) -> Dots<T> {
        let mut dots = [vdupq_n_s32(0); T];
        for half in 0..2 {
            let weights: [int8x16_t; 4] = std::array::from_fn(|group| {
                vreinterpretq_s8_u8(bytes(&block.quants[4 * half + group], vector))
            });
            for t in 0..T {
                dots[t] = four(dots[t], weights, sixteen(quants[t], at + 16 * half));
            }
        }
        dots
    }

    #[target_feature(enable = "dotprod")]
    #[inline]
    pub(super) fn nibbles<const T: usize>(
        block: &Nibbles,
        fifths: Option<&Bits>,
        vector: usize,
        quants: &[&[i8]; T],
        at: usize,
    ) -> Dots<T> {
        let mut dots = [vdupq_n_s32(0); T];
        let weights: [[int8x16_t; 2]; 4] = std::array::from_fn(|group| split(block, fifths, group, vector));
        for half in 0..2 {
            let weights = weights.map(|both| both[half]);
            for t in 0..T {
                dots[t] = four(dots[t], weights, sixteen(quants[t], at + 16 * half));
            }
        }
        dots
    }

    /// Four groups of columns.
    #[target_feature(enable = "dotprod")]
    #[inline]
    fn four(sums: int32x4_t, weights: [int8x16_t; 4], quants: int8x16_t) -> int32x4_t {
        let sums = sdot::<0>(sums, weights[0], quants);
        let sums = sdot::<1>(sums, weights[1], quants);
        let sums = sdot::<2>(sums, weights[2], quants);
        sdot::<3>(sums, weights[3], quants)
    }
}

/// `smmla` where there are rows of activations to pair, `sdot` for single ones.
mod i8mm {
    use super::*;

    #[target_feature(enable = "dotprod,i8mm")]
    #[inline]
    pub(super) fn eight<const T: usize>(
        block: &Q8,
        vector: usize,
        quants: &[&[i8]; T],
        at: usize,
    ) -> Dots<T> {
        if T == 1 {
            return dotprod::eight(block, vector, quants, at);
        }
        let group = |group: usize| vreinterpretq_s8_u8(bytes(&block.quants[group], vector));
        products(std::array::from_fn(|pair| [group(2 * pair), group(2 * pair + 1)]), quants, at)
    }

    #[target_feature(enable = "dotprod,i8mm")]
    #[inline]
    pub(super) fn nibbles<const T: usize>(
        block: &Nibbles,
        fifths: Option<&Bits>,
        vector: usize,
        quants: &[&[i8]; T],
        at: usize,
    ) -> Dots<T> {
        if T == 1 {
            return dotprod::nibbles(block, fifths, vector, quants, at);
        }
        let weights: [[int8x16_t; 2]; 4] = std::array::from_fn(|group| split(block, fifths, group, vector));
        let pair = |pair: usize| {
            let (half, first) = (pair / 2, pair % 2 * 2);
            [weights[first][half], weights[first + 1][half]]
        };
        products(std::array::from_fn(pair), quants, at)
    }

    /// A block as four pairs of groups, eight columns each.
    #[target_feature(enable = "i8mm")]
    #[inline]
    fn products<const T: usize>(pairs: [[int8x16_t; 2]; 4], quants: &[&[i8]; T], at: usize) -> Dots<T> {
        // SAFETY: NEON is part of every aarch64 processor, and rows of activations have the block's 32 quants.
        unsafe {
            let zero = vdupq_n_s32(0);
            // For two rows of activations: rows 0 and 1 of the vector, rows 2 and 3.
            let mut sums = [[zero; 2]; T];
            for (pair, weights) in pairs.iter().enumerate() {
                let weights = weights.map(|weights| vreinterpretq_s32_s8(weights));
                let first = vreinterpretq_s8_s32(vzip1q_s32(weights[0], weights[1]));
                let second = vreinterpretq_s8_s32(vzip2q_s32(weights[0], weights[1]));
                for t in (0..T).step_by(2) {
                    let row = |t: usize| {
                        let quants = &quants[t][at + 8 * pair..][..8];
                        vld1_s8(quants.as_ptr())
                    };
                    let x = vcombine_s8(row(t), row(t + 1));
                    sums[t][0] = smmla(sums[t][0], first, x);
                    sums[t][1] = smmla(sums[t][1], second, x);
                }
            }
            let mut dots = [zero; T];
            for t in (0..T).step_by(2) {
                dots[t] = vuzp1q_s32(sums[t][0], sums[t][1]);
                dots[t + 1] = vuzp2q_s32(sums[t][0], sums[t][1]);
            }
            dots
        }
    }
}

/// The loops around a block's arithmetic: vectors of a panel, blocks of a row.
macro_rules! kernel {
    (
        $panel:ident, $x:ident, $row:ident, $t:ident,
        |$block:ident, $vector:ident, $quants:ident, $b:ident, $sums:ident, $scales:ident, $totals:ident| $body:block
    ) => {{
        let $quants: &[&[i8]; $t] = &std::array::from_fn(|t| $x.quants($row + t));
        let $scales: [&[f32]; $t] = std::array::from_fn(|t| $x.scales($row + t));
        let $totals: [&[i32]; $t] = std::array::from_fn(|t| $x.sums($row + t));
        let mut tile = [[0.0; LANES]; $t];
        for $vector in 0..LANES / QUARTER {
            // SAFETY: NEON is part of every aarch64 processor; a tile's rows have 16 floats.
            unsafe {
                let mut $sums = [vdupq_n_f32(0.0); $t];
                for ($b, $block) in $panel.iter().enumerate() $body
                for t in 0..$t {
                    vst1q_f32(tile[t][QUARTER * $vector..][..QUARTER].as_mut_ptr(), $sums[t]);
                }
            }
        }
        tile
    }};
}

/// The kernels of a family, for every form, compiled for its instructions.
macro_rules! family {
    ($family:ident, $features:literal, $q8:ident, $q4:ident, $offset:ident) => {
        #[target_feature(enable = $features)]
        pub(super) fn $q8<const T: usize>(panel: &[Q8], x: &Activations, row: usize) -> Tile<T> {
            kernel!(panel, x, row, T, |block, vector, quants, b, sums, scales, totals| {
                let dots = $family::eight(block, vector, quants, b * BLOCK);
                let weight_scales = halves(&block.scales, vector);
                for t in 0..T {
                    sums[t] = add(sums[t], dots[t], weight_scales, scales[t][b]);
                }
                let _ = totals;
            })
        }

        #[target_feature(enable = $features)]
        pub(super) fn $q4<const T: usize>(panel: &[Q4], x: &Activations, row: usize) -> Tile<T> {
            kernel!(panel, x, row, T, |block, vector, quants, b, sums, scales, totals| {
                let dots = $family::nibbles(&block.quants, None, vector, quants, b * BLOCK);
                let weight_scales = halves(&block.scales, vector);
                for t in 0..T {
                    let dot = vsubq_s32(dots[t], vdupq_n_s32(8 * totals[t][b]));
                    sums[t] = add(sums[t], dot, weight_scales, scales[t][b]);
                }
            })
        }

        #[target_feature(enable = $features)]
        pub(super) fn $offset<B: Offset, const T: usize>(
            panel: &[B],
            x: &Activations,
            row: usize,
        ) -> Tile<T> {
            kernel!(panel, x, row, T, |block, vector, quants, b, sums, scales, totals| {
                let dots = $family::nibbles(block.quants(), block.fifths(), vector, quants, b * BLOCK);
                let (weight_scales, offsets) =
                    (halves(block.scales(), vector), halves(block.offsets(), vector));
                for t in 0..T {
                    sums[t] = add(sums[t], dots[t], weight_scales, scales[t][b]);
                    let product = vdupq_n_f32(scales[t][b] * totals[t][b] as f32);
                    sums[t] = vaddq_f32(sums[t], vmulq_f32(offsets, product));
                }
            })
        }
    };
}

/// `sums + dots · (weight scales · scale)`, every operation rounded.
#[inline(always)]
fn add(sums: float32x4_t, dots: int32x4_t, weight_scales: float32x4_t, scale: f32) -> float32x4_t {
    // SAFETY: NEON is part of every aarch64 processor.
    unsafe {
        let scale = vmulq_f32(weight_scales, vdupq_n_f32(scale));
        vaddq_f32(sums, vmulq_f32(vcvtq_f32_s32(dots), scale))
    }
}

family!(plain, "neon", q8_neon, q4_neon, offset_neon);
family!(dotprod, "dotprod", q8_dotprod, q4_dotprod, offset_dotprod);
family!(i8mm, "dotprod,i8mm", q8_i8mm, q4_i8mm, offset_i8mm);
