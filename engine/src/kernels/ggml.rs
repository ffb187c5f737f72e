//! Reading ggml's storage formats: blocks of bytes to floats.
//!
//! The formats are defined by ggml's `ggml-common.h` (block layouts) and `ggml-quants.c` (their meaning);
//! `dequant_vectors.json` of the test data pins every one of them.

use candle_core::quantized::GgmlDType;

use super::block::{BLOCK, widen};

/// Elements of a super-block of the K types.
pub(super) const SUPER: usize = 256;

/// Widens whole blocks of a ggml type: `raw` holds `out.len()` elements.
///
/// # Panics
/// If the lengths do not fit each other or the type's block; sizes are checked when a file is opened.
pub fn dequantize(dtype: GgmlDType, raw: &[u8], out: &mut [f32]) {
    assert_eq!(raw.len() * dtype.block_size(), out.len() * dtype.type_size(), "{dtype:?}: sizes differ");
    match dtype {
        GgmlDType::F32 => each(raw, out, |b: &[u8; 4], y: &mut [f32; 1]| y[0] = f32::from_le_bytes(*b)),
        // Not `widen`, which hides infinities and NaN: who loads a model looks for them here.
        GgmlDType::F16 => {
            each(raw, out, |b: &[u8; 2], y: &mut [f32; 1]| y[0] = half::f16::from_le_bytes(*b).to_f32())
        }
        GgmlDType::BF16 => {
            each(raw, out, |b: &[u8; 2], y: &mut [f32; 1]| y[0] = brain(u16::from_le_bytes(*b)))
        }
        GgmlDType::Q4_0 => each(raw, out, q4_0),
        GgmlDType::Q4_1 => each(raw, out, q4_1),
        GgmlDType::Q5_0 => each(raw, out, q5_0),
        GgmlDType::Q5_1 => each(raw, out, q5_1),
        GgmlDType::Q8_0 => each(raw, out, q8_0),
        GgmlDType::Q8_1 => each(raw, out, q8_1),
        GgmlDType::Q2K => each(raw, out, q2_k),
        GgmlDType::Q3K => each(raw, out, q3_k),
        GgmlDType::Q4K => each(raw, out, q4_k),
        GgmlDType::Q5K => each(raw, out, q5_k),
        GgmlDType::Q6K => each(raw, out, q6_k),
        GgmlDType::Q8K => each(raw, out, q8_k),
    }
}

/// Widens a bfloat16: the upper half of a float.
#[inline(always)]
pub(super) fn brain(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// A half-precision float at byte `at`.
#[inline(always)]
pub(super) fn half(block: &[u8], at: usize) -> f32 {
    widen(u16::from_le_bytes([block[at], block[at + 1]]))
}

fn each<const BYTES: usize, const N: usize>(
    raw: &[u8],
    out: &mut [f32],
    f: impl Fn(&[u8; BYTES], &mut [f32; N]),
) {
    let (blocks, _) = raw.as_chunks::<BYTES>();
    let (outs, _) = out.as_chunks_mut::<N>();
    for (block, y) in blocks.iter().zip(outs) {
        f(block, y);
    }
}

fn q4_0(b: &[u8; 18], y: &mut [f32; BLOCK]) {
    let d = half(b, 0);
    for i in 0..16 {
        y[i] = d * (f32::from(b[2 + i] & 15) - 8.0);
        y[i + 16] = d * (f32::from(b[2 + i] >> 4) - 8.0);
    }
}

fn q4_1(b: &[u8; 20], y: &mut [f32; BLOCK]) {
    let (d, m) = (half(b, 0), half(b, 2));
    for i in 0..16 {
        y[i] = d * f32::from(b[4 + i] & 15) + m;
        y[i + 16] = d * f32::from(b[4 + i] >> 4) + m;
    }
}

/// The 32 five-bit quants of a Q5_0 or Q5_1 block: fifth bits at `b[at..at + 4]`, nibbles behind them.
#[inline(always)]
pub(super) fn five_bits(b: &[u8], at: usize) -> [u8; BLOCK] {
    let high = u32::from_le_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]]);
    std::array::from_fn(|i| {
        let byte = b[at + 4 + i % 16];
        let low = if i < 16 { byte & 15 } else { byte >> 4 };
        low | ((high >> i) as u8 & 1) << 4
    })
}

fn q5_0(b: &[u8; 22], y: &mut [f32; BLOCK]) {
    let d = half(b, 0);
    for (y, q) in y.iter_mut().zip(five_bits(b, 2)) {
        *y = d * (f32::from(q) - 16.0);
    }
}

fn q5_1(b: &[u8; 24], y: &mut [f32; BLOCK]) {
    let (d, m) = (half(b, 0), half(b, 2));
    for (y, q) in y.iter_mut().zip(five_bits(b, 4)) {
        *y = d * f32::from(q) + m;
    }
}

fn q8_0(b: &[u8; 34], y: &mut [f32; BLOCK]) {
    let d = half(b, 0);
    for i in 0..BLOCK {
        y[i] = d * f32::from(b[2 + i] as i8);
    }
}

fn q8_1(b: &[u8; 36], y: &mut [f32; BLOCK]) {
    let d = half(b, 0);
    for i in 0..BLOCK {
        y[i] = d * f32::from(b[4 + i] as i8);
    }
}

/// Layout: 16 × (scale, min) of 4 bits, 64 bytes of 2-bit quants, d, dmin.
fn q2_k(b: &[u8; 84], y: &mut [f32; SUPER]) {
    let (d, dmin) = (half(b, 80), half(b, 82));
    for (part, y) in y.chunks_exact_mut(16).enumerate() {
        let (scale, min) = (d * f32::from(b[part] & 15), dmin * f32::from(b[part] >> 4));
        // 128 elements share 32 bytes, two bits at a time.
        let (start, shift) = (16 + part / 8 * 32 + part % 2 * 16, part % 8 / 2 * 2);
        for (y, q) in y.iter_mut().zip(&b[start..start + 16]) {
            *y = scale * f32::from(q >> shift & 3) - min;
        }
    }
}

/// Layout: 32 bytes of third bits, 64 bytes of lower two bits, 16 scales of 6 bits in 12 bytes, d.
fn q3_k(b: &[u8; 110], y: &mut [f32; SUPER]) {
    let d = half(b, 108);
    let scales = &b[96..108];
    for (part, y) in y.chunks_exact_mut(16).enumerate() {
        let low = if part < 8 { scales[part] & 15 } else { scales[part - 8] >> 4 };
        let high = scales[8 + part % 4] >> (part / 4 * 2) & 3;
        let scale = d * (f32::from(low | high << 4) - 32.0);
        let (start, shift) = (32 + part / 8 * 32 + part % 2 * 16, part % 8 / 2 * 2);
        let mask = 1 << (part / 2);
        for i in 0..16 {
            let third = if b[part % 2 * 16 + i] & mask == 0 { 4.0 } else { 0.0 };
            y[i] = scale * (f32::from(b[start + i] >> shift & 3) - third);
        }
    }
}

/// Scale and min (6 bits each) of sub-block `j` of a Q4_K or Q5_K block, from its 12 packed bytes.
#[inline(always)]
pub(super) fn scale_min(packed: &[u8], j: usize) -> (u8, u8) {
    if j < 4 {
        (packed[j] & 63, packed[j + 4] & 63)
    } else {
        (packed[j + 4] & 15 | packed[j - 4] >> 6 << 4, packed[j + 4] >> 4 | packed[j] >> 6 << 4)
    }
}

/// Layout: d, dmin, 8 × (scale, min) in 12 bytes, 128 bytes of nibbles (64 elements share 32 bytes).
fn q4_k(b: &[u8; 144], y: &mut [f32; SUPER]) {
    let (d, dmin) = (half(b, 0), half(b, 2));
    for (j, y) in y.chunks_exact_mut(BLOCK).enumerate() {
        let (scale, min) = scale_min(&b[4..16], j);
        let (scale, min) = (d * f32::from(scale), dmin * f32::from(min));
        let start = 16 + j / 2 * BLOCK;
        for (y, q) in y.iter_mut().zip(&b[start..start + BLOCK]) {
            *y = scale * f32::from(q >> (j % 2 * 4) & 15) - min;
        }
    }
}

/// As Q4_K, with 32 bytes of fifth bits before the nibbles.
fn q5_k(b: &[u8; 176], y: &mut [f32; SUPER]) {
    let (d, dmin) = (half(b, 0), half(b, 2));
    for (j, y) in y.chunks_exact_mut(BLOCK).enumerate() {
        let (scale, min) = scale_min(&b[4..16], j);
        let (scale, min) = (d * f32::from(scale), dmin * f32::from(min));
        let start = 48 + j / 2 * BLOCK;
        for i in 0..BLOCK {
            let q = b[start + i] >> (j % 2 * 4) & 15 | (b[16 + i] >> j & 1) << 4;
            y[i] = scale * f32::from(q) - min;
        }
    }
}

/// Layout: 128 bytes of lower nibbles, 64 bytes of upper two bits, 16 scales of 8 bits, d.
fn q6_k(b: &[u8; 210], y: &mut [f32; SUPER]) {
    let d = half(b, 208);
    for (part, y) in y.chunks_exact_mut(BLOCK).enumerate() {
        let (outer, inner) = (part / 4, part % 4);
        let low = outer * 64 + inner % 2 * 32;
        for i in 0..BLOCK {
            let nibble = b[low + i] >> (inner / 2 * 4) & 15;
            let upper = b[128 + outer * 32 + i] >> (inner * 2) & 3;
            let scale = d * f32::from(b[192 + outer * 8 + inner * 2 + i / 16] as i8);
            y[i] = scale * (f32::from(nibble | upper << 4) - 32.0);
        }
    }
}

/// Layout: d as a 32-bit float, 256 quants of 8 bits, 16 sums of 16 bits.
fn q8_k(b: &[u8; 292], y: &mut [f32; SUPER]) {
    let d = f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
    for i in 0..SUPER {
        y[i] = d * f32::from(b[4 + i] as i8);
    }
}
