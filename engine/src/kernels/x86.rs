//! x86-64 kernels: AVX2, and AVX-512 with VNNI.
//!
//! AVX2 has no 8-bit dot product, so pairs are multiplied and added into 16 bits first. That cannot saturate:
//! 4-bit weights give at most 16 · 15 · 127 = 30480 over a whole block, 5-bit ones 8 · 31 · 127 = 31496 over half
//! of one, and 8-bit ones are fed as |w| and
//! x · sign(w), at most 2 · 128 · 127 = 32512 a pair. VNNI adds four products straight into 32 bits; it wants
//! one unsigned operand, so 8-bit weights are shifted by 128 and the shift is taken out again with the sums.
#![allow(clippy::needless_range_loop, reason = "parallel arrays, indexed alike")]
#![allow(unsafe_code, reason = "SIMD intrinsics")]

use std::arch::x86_64::*;

use super::activations::Activations;
use super::block::{BLOCK, Bits, GROUPS, LANES, Nibbles, Offset, Q4, Q8};
use super::ggml::brain;
use super::scalar::{Tile, float};

/// Lanes of an AVX2 vector: a panel is worked on in two halves.
const HALF: usize = LANES / 2;

/// Four quants, as the 32 bits that a vector of lanes is filled with.
#[inline(always)]
fn four(quants: &[i8], at: usize) -> i32 {
    debug_assert!(at + 4 <= quants.len());
    // SAFETY: callers stay within a block of the row: `at + 4 <= quants.len()`; the read is unaligned.
    unsafe { quants.as_ptr().add(at).cast::<i32>().read_unaligned() }
}

/// Eight halves, widened.
#[target_feature(enable = "avx2,f16c")]
#[inline]
fn halves(scales: &[u16; LANES], half: usize) -> __m256 {
    // SAFETY: `half` is 0 or 1, so 8 halves lie at `8 · half`.
    _mm256_cvtph_ps(unsafe { _mm_loadu_si128(scales.as_ptr().add(half * HALF).cast()) })
}

/// 32 bytes: four columns of eight rows.
#[target_feature(enable = "avx2")]
#[inline]
fn octet<T>(quants: &[T; 4 * LANES], half: usize) -> __m256i {
    const { assert!(size_of::<T>() == 1) };
    // SAFETY: `half` is 0 or 1 and the array is 64 bytes long.
    unsafe { _mm256_loadu_si256(quants.as_ptr().cast::<u8>().add(half * 32).cast()) }
}

#[target_feature(enable = "avx2")]
#[inline]
fn store<const T: usize>(tile: &mut Tile<T>, t: usize, half: usize, sums: __m256) {
    // SAFETY: `half` is 0 or 1, so 8 floats lie at `8 · half`.
    unsafe { _mm256_storeu_ps(tile[t].as_mut_ptr().add(half * HALF), sums) }
}

/// Runs `part(first half)` over a panel: both halves at once for one row, which then share its activations; one
/// after the other for several rows, whose sums would not fit the registers otherwise.
macro_rules! panel {
    ($part:ident, $t:ident, $panel:ident, $x:ident, $row:ident) => {{
        let mut tile = [[0.0; LANES]; $t];
        if $t == 1 {
            $part::<$t, 2>($panel, $x, $row, 0, &mut tile);
        } else {
            $part::<$t, 1>($panel, $x, $row, 0, &mut tile);
            $part::<$t, 1>($panel, $x, $row, 1, &mut tile);
        }
        tile
    }};
}

/// Fetches the block some way ahead: the processor's own prefetching stops at every page.
#[inline(always)]
fn fetch<B>(panel: &[B], b: usize) {
    /// Blocks ahead: about 2 KiB.
    const AHEAD: usize = 8;
    let block = panel.as_ptr().wrapping_add(b + AHEAD).cast::<i8>();
    for line in 0..size_of::<B>().div_ceil(64) {
        // SAFETY: a prefetch reads nothing, and any address may be named.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(block.wrapping_add(64 * line)) }
    }
}

#[target_feature(enable = "avx2,f16c")]
pub(super) fn q8_avx2<const T: usize>(panel: &[Q8], x: &Activations, row: usize) -> Tile<T> {
    panel!(q8_part, T, panel, x, row)
}

#[target_feature(enable = "avx2,f16c")]
#[inline]
fn q8_part<const T: usize, const H: usize>(
    panel: &[Q8],
    x: &Activations,
    row: usize,
    first: usize,
    tile: &mut Tile<T>,
) {
    let quants: [&[i8]; T] = std::array::from_fn(|t| x.quants(row + t));
    let scales: [&[f32]; T] = std::array::from_fn(|t| x.scales(row + t));
    let ones = _mm256_set1_epi16(1);
    let mut sums = [[_mm256_setzero_ps(); H]; T];
    for (b, block) in panel.iter().enumerate() {
        fetch(panel, b);
        let mut dots = [[_mm256_setzero_si256(); H]; T];
        for group in 0..GROUPS {
            for h in 0..H {
                let weights = octet(&block.quants[group], first + h);
                let magnitudes = _mm256_abs_epi8(weights);
                for t in 0..T {
                    let four = _mm256_set1_epi32(four(quants[t], b * BLOCK + 4 * group));
                    let pairs = _mm256_maddubs_epi16(magnitudes, _mm256_sign_epi8(four, weights));
                    dots[t][h] = _mm256_add_epi32(dots[t][h], _mm256_madd_epi16(pairs, ones));
                }
            }
        }
        for h in 0..H {
            let weight_scales = halves(&block.scales, first + h);
            for t in 0..T {
                let scale = _mm256_mul_ps(weight_scales, _mm256_set1_ps(scales[t][b]));
                sums[t][h] = _mm256_add_ps(sums[t][h], _mm256_mul_ps(_mm256_cvtepi32_ps(dots[t][h]), scale));
            }
        }
    }
    for t in 0..T {
        for h in 0..H {
            store(tile, t, first + h, sums[t][h]);
        }
    }
}

/// The dot products of one block of 4-bit quants (5-bit ones with `fifths`) with `T` rows.
#[target_feature(enable = "avx2")]
#[inline]
fn nibbles_avx2<const T: usize, const H: usize>(
    block: &Nibbles,
    fifths: Option<&Bits>,
    first: usize,
    quants: &[&[i8]; T],
    at: usize,
) -> [[__m256i; H]; T] {
    let (mask, fifth) = (_mm256_set1_epi8(15), _mm256_set1_epi8(16));
    let ones = _mm256_set1_epi16(1);
    let mut dots = [[_mm256_setzero_si256(); H]; T];
    let mut pairs = dots;
    for (group, row) in block.iter().enumerate() {
        for h in 0..H {
            let bytes = octet(row, first + h);
            let mut low = _mm256_and_si256(bytes, mask);
            let mut high = _mm256_and_si256(_mm256_srli_epi16(bytes, 4), mask);
            if let Some(bits) = fifths {
                let bits = octet(bits, first + h);
                let [left, right] = [4 - group, group].map(|by| _mm_cvtsi32_si128(by as i32));
                low = _mm256_or_si256(low, _mm256_and_si256(_mm256_sll_epi16(bits, left), fifth));
                high = _mm256_or_si256(high, _mm256_and_si256(_mm256_srl_epi16(bits, right), fifth));
            }
            for t in 0..T {
                let lower = _mm256_set1_epi32(four(quants[t], at + 4 * group));
                let upper = _mm256_set1_epi32(four(quants[t], at + BLOCK / 2 + 4 * group));
                let both =
                    _mm256_add_epi16(_mm256_maddubs_epi16(low, lower), _mm256_maddubs_epi16(high, upper));
                pairs[t][h] = _mm256_add_epi16(pairs[t][h], both);
            }
        }
        if group + 1 == GROUPS / 2 || fifths.is_some() && group + 1 == GROUPS / 4 {
            for (dot, pair) in dots.as_flattened_mut().iter_mut().zip(pairs.as_flattened_mut()) {
                *dot = _mm256_add_epi32(*dot, _mm256_madd_epi16(*pair, ones));
                *pair = _mm256_setzero_si256();
            }
        }
    }
    dots
}

#[target_feature(enable = "avx2,f16c")]
pub(super) fn q4_avx2<const T: usize>(panel: &[Q4], x: &Activations, row: usize) -> Tile<T> {
    panel!(q4_part, T, panel, x, row)
}

#[target_feature(enable = "avx2,f16c")]
#[inline]
fn q4_part<const T: usize, const H: usize>(
    panel: &[Q4],
    x: &Activations,
    row: usize,
    first: usize,
    tile: &mut Tile<T>,
) {
    let quants: [&[i8]; T] = std::array::from_fn(|t| x.quants(row + t));
    let scales: [&[f32]; T] = std::array::from_fn(|t| x.scales(row + t));
    let totals: [&[i32]; T] = std::array::from_fn(|t| x.sums(row + t));
    let mut sums = [[_mm256_setzero_ps(); H]; T];
    for (b, block) in panel.iter().enumerate() {
        fetch(panel, b);
        let dots = nibbles_avx2::<T, H>(&block.quants, None, first, &quants, b * BLOCK);
        for h in 0..H {
            let weight_scales = halves(&block.scales, first + h);
            for t in 0..T {
                let dot = _mm256_sub_epi32(dots[t][h], _mm256_set1_epi32(8 * totals[t][b]));
                let scale = _mm256_mul_ps(weight_scales, _mm256_set1_ps(scales[t][b]));
                sums[t][h] = _mm256_add_ps(sums[t][h], _mm256_mul_ps(_mm256_cvtepi32_ps(dot), scale));
            }
        }
    }
    for t in 0..T {
        for h in 0..H {
            store(tile, t, first + h, sums[t][h]);
        }
    }
}

#[target_feature(enable = "avx2,f16c")]
pub(super) fn offset_avx2<B: Offset, const T: usize>(panel: &[B], x: &Activations, row: usize) -> Tile<T> {
    panel!(offset_part, T, panel, x, row)
}

#[target_feature(enable = "avx2,f16c")]
#[inline]
fn offset_part<const T: usize, const H: usize>(
    panel: &[impl Offset],
    x: &Activations,
    row: usize,
    first: usize,
    tile: &mut Tile<T>,
) {
    let quants: [&[i8]; T] = std::array::from_fn(|t| x.quants(row + t));
    let scales: [&[f32]; T] = std::array::from_fn(|t| x.scales(row + t));
    let totals: [&[i32]; T] = std::array::from_fn(|t| x.sums(row + t));
    let mut sums = [[_mm256_setzero_ps(); H]; T];
    for (b, block) in panel.iter().enumerate() {
        fetch(panel, b);
        let dots = nibbles_avx2::<T, H>(block.quants(), block.fifths(), first, &quants, b * BLOCK);
        for h in 0..H {
            let weight_scales = halves(block.scales(), first + h);
            let offsets = halves(block.offsets(), first + h);
            for t in 0..T {
                let scale = _mm256_mul_ps(weight_scales, _mm256_set1_ps(scales[t][b]));
                let product = _mm256_mul_ps(_mm256_cvtepi32_ps(dots[t][h]), scale);
                let offset = _mm256_mul_ps(offsets, _mm256_set1_ps(scales[t][b] * totals[t][b] as f32));
                sums[t][h] = _mm256_add_ps(_mm256_add_ps(sums[t][h], product), offset);
            }
        }
    }
    for t in 0..T {
        for h in 0..H {
            store(tile, t, first + h, sums[t][h]);
        }
    }
}

#[target_feature(enable = "avx2")]
pub(super) fn f32_avx2<const T: usize>(panel: &[[f32; LANES]], x: &Activations, row: usize) -> Tile<T> {
    float(panel, |w| w, x, row)
}

#[target_feature(enable = "avx2")]
pub(super) fn bf16_avx2<const T: usize>(panel: &[[u16; LANES]], x: &Activations, row: usize) -> Tile<T> {
    float(panel, brain, x, row)
}

#[target_feature(enable = "avx2,f16c")]
pub(super) fn f16_avx2<const T: usize>(panel: &[[u16; LANES]], x: &Activations, row: usize) -> Tile<T> {
    let rows: [&[f32]; T] = std::array::from_fn(|t| &x.row(row + t)[..panel.len()]);
    let mut sums = [[_mm256_setzero_ps(); 2]; T];
    for (column, weights) in panel.iter().enumerate() {
        let weights = [halves(weights, 0), halves(weights, 1)];
        for t in 0..T {
            let x = _mm256_set1_ps(rows[t][column]);
            for half in 0..2 {
                sums[t][half] = _mm256_add_ps(sums[t][half], _mm256_mul_ps(weights[half], x));
            }
        }
    }
    let mut tile = [[0.0; LANES]; T];
    for t in 0..T {
        for half in 0..2 {
            store(&mut tile, t, half, sums[t][half]);
        }
    }
    tile
}

/// 64 bytes: four columns of sixteen rows.
#[target_feature(enable = "avx512f")]
#[inline]
fn full<T>(quants: &[T; 4 * LANES]) -> __m512i {
    const { assert!(size_of::<T>() == 1) };
    // SAFETY: the array is 64 bytes long; the load is unaligned.
    unsafe { _mm512_loadu_si512(quants.as_ptr().cast()) }
}

#[target_feature(enable = "avx512f")]
#[inline]
fn sixteen(scales: &[u16; LANES]) -> __m512 {
    // SAFETY: 16 halves are 32 bytes; the load is unaligned.
    _mm512_cvtph_ps(unsafe { _mm256_loadu_si256(scales.as_ptr().cast()) })
}

#[target_feature(enable = "avx512f")]
#[inline]
fn stored<const T: usize>(sums: [__m512; T]) -> Tile<T> {
    let mut tile = [[0.0; LANES]; T];
    for (to, sums) in tile.iter_mut().zip(sums) {
        // SAFETY: a row of the tile is 16 floats; the store is unaligned.
        unsafe { _mm512_storeu_ps(to.as_mut_ptr(), sums) }
    }
    tile
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(super) fn q8_avx512<const T: usize>(panel: &[Q8], x: &Activations, row: usize) -> Tile<T> {
    let quants: [&[i8]; T] = std::array::from_fn(|t| x.quants(row + t));
    let scales: [&[f32]; T] = std::array::from_fn(|t| x.scales(row + t));
    let totals: [&[i32]; T] = std::array::from_fn(|t| x.sums(row + t));
    let shift = _mm512_set1_epi8(-128);
    let mut sums = [_mm512_setzero_ps(); T];
    for (b, block) in panel.iter().enumerate() {
        fetch(panel, b);
        let mut dots = [_mm512_setzero_si512(); T];
        for t in 0..T {
            dots[t] = _mm512_set1_epi32(-128 * totals[t][b]);
        }
        for group in 0..GROUPS {
            let weights = _mm512_xor_si512(full(&block.quants[group]), shift);
            for t in 0..T {
                let four = _mm512_set1_epi32(four(quants[t], b * BLOCK + 4 * group));
                dots[t] = _mm512_dpbusd_epi32(dots[t], weights, four);
            }
        }
        let weight_scales = sixteen(&block.scales);
        for t in 0..T {
            let scale = _mm512_mul_ps(weight_scales, _mm512_set1_ps(scales[t][b]));
            sums[t] = _mm512_add_ps(sums[t], _mm512_mul_ps(_mm512_cvtepi32_ps(dots[t]), scale));
        }
    }
    stored(sums)
}

/// The dot products of one block of 4-bit quants (5-bit ones with `fifths`) with `T` rows, added to `dots`.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
#[inline]
fn nibbles_avx512<const T: usize>(
    block: &Nibbles,
    fifths: Option<&Bits>,
    quants: &[&[i8]; T],
    at: usize,
    dots: &mut [__m512i; T],
) {
    let (mask, fifth) = (_mm512_set1_epi8(15), _mm512_set1_epi8(16));
    for (group, bytes) in block.iter().enumerate() {
        let bytes = full(bytes);
        let mut low = _mm512_and_si512(bytes, mask);
        let mut high = _mm512_and_si512(_mm512_srli_epi16(bytes, 4), mask);
        if let Some(bits) = fifths {
            let bits = full(bits);
            let [left, right] = [4 - group, group].map(|by| _mm_cvtsi32_si128(by as i32));
            low = _mm512_or_si512(low, _mm512_and_si512(_mm512_sll_epi16(bits, left), fifth));
            high = _mm512_or_si512(high, _mm512_and_si512(_mm512_srl_epi16(bits, right), fifth));
        }
        for t in 0..T {
            let first = _mm512_set1_epi32(four(quants[t], at + 4 * group));
            let second = _mm512_set1_epi32(four(quants[t], at + 16 + 4 * group));
            dots[t] = _mm512_dpbusd_epi32(_mm512_dpbusd_epi32(dots[t], low, first), high, second);
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(super) fn q4_avx512<const T: usize>(panel: &[Q4], x: &Activations, row: usize) -> Tile<T> {
    let quants: [&[i8]; T] = std::array::from_fn(|t| x.quants(row + t));
    let scales: [&[f32]; T] = std::array::from_fn(|t| x.scales(row + t));
    let totals: [&[i32]; T] = std::array::from_fn(|t| x.sums(row + t));
    let mut sums = [_mm512_setzero_ps(); T];
    for (b, block) in panel.iter().enumerate() {
        fetch(panel, b);
        let mut dots = [_mm512_setzero_si512(); T];
        for t in 0..T {
            dots[t] = _mm512_set1_epi32(-8 * totals[t][b]);
        }
        nibbles_avx512(&block.quants, None, &quants, b * BLOCK, &mut dots);
        let weight_scales = sixteen(&block.scales);
        for t in 0..T {
            let scale = _mm512_mul_ps(weight_scales, _mm512_set1_ps(scales[t][b]));
            sums[t] = _mm512_add_ps(sums[t], _mm512_mul_ps(_mm512_cvtepi32_ps(dots[t]), scale));
        }
    }
    stored(sums)
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(super) fn offset_avx512<B: Offset, const T: usize>(panel: &[B], x: &Activations, row: usize) -> Tile<T> {
    let quants: [&[i8]; T] = std::array::from_fn(|t| x.quants(row + t));
    let scales: [&[f32]; T] = std::array::from_fn(|t| x.scales(row + t));
    let totals: [&[i32]; T] = std::array::from_fn(|t| x.sums(row + t));
    let mut sums = [_mm512_setzero_ps(); T];
    for (b, block) in panel.iter().enumerate() {
        fetch(panel, b);
        let mut dots = [_mm512_setzero_si512(); T];
        nibbles_avx512(block.quants(), block.fifths(), &quants, b * BLOCK, &mut dots);
        let (weight_scales, offsets) = (sixteen(block.scales()), sixteen(block.offsets()));
        for t in 0..T {
            let scale = _mm512_mul_ps(weight_scales, _mm512_set1_ps(scales[t][b]));
            let product = _mm512_mul_ps(_mm512_cvtepi32_ps(dots[t]), scale);
            let offset = _mm512_mul_ps(offsets, _mm512_set1_ps(scales[t][b] * totals[t][b] as f32));
            sums[t] = _mm512_add_ps(_mm512_add_ps(sums[t], product), offset);
        }
    }
    stored(sums)
}
