//! Packing: one row of a ggml type (or of floats) into its lane of a panel.
//!
//! Q4_0, Q4_1, Q5_0, Q5_1 and Q8_0 keep their quants and scales, so the packed form is the same numbers. Q4_K and
//! Q5_K keep their quants; their scales, products of two factors, are rounded to half precision. The other types
//! are widened and quantised anew to 8 bits, whose step is far below their own.

use candle_core::quantized::GgmlDType;

use super::block::{BLOCK, LANES, Q4, Q4Offset, Q5Offset, Q8, narrow, widen};
use super::ggml;

/// Packs a row of the type `dtype` into lane `lane` of a panel of 8-bit blocks.
pub(super) fn q8(dtype: GgmlDType, raw: &[u8], panel: &mut [Q8], lane: usize) {
    match dtype {
        GgmlDType::Q8_0 => {
            let (blocks, _) = raw.as_chunks::<34>();
            for (block, to) in blocks.iter().zip(panel) {
                to.scales[lane] = u16::from_le_bytes([block[0], block[1]]);
                scatter_i8(to, lane, |i| block[2 + i] as i8);
            }
        }
        _ => widened(dtype, raw, panel, |values, to| q8_floats(values, to, lane)),
    }
}

/// Packs a row of Q4_0 into lane `lane`.
pub(super) fn q4(raw: &[u8], panel: &mut [Q4], lane: usize) {
    let (blocks, _) = raw.as_chunks::<18>();
    for (block, to) in blocks.iter().zip(panel) {
        to.scales[lane] = u16::from_le_bytes([block[0], block[1]]);
        for (group, bytes) in block[2..].chunks_exact(4).enumerate() {
            to.quants[group][4 * lane..][..4].copy_from_slice(bytes);
        }
    }
}

/// Packs a row of Q4_1 or Q4_K into lane `lane`.
pub(super) fn q4_offset(dtype: GgmlDType, raw: &[u8], panel: &mut [Q4Offset], lane: usize) {
    if dtype == GgmlDType::Q4_1 {
        let (blocks, _) = raw.as_chunks::<20>();
        for (block, to) in blocks.iter().zip(panel) {
            to.scales[lane] = u16::from_le_bytes([block[0], block[1]]);
            to.offsets[lane] = u16::from_le_bytes([block[2], block[3]]);
            for (group, bytes) in block[4..].chunks_exact(4).enumerate() {
                to.quants[group][4 * lane..][..4].copy_from_slice(bytes);
            }
        }
        return;
    }
    debug_assert_eq!(dtype, GgmlDType::Q4K);
    let (blocks, _) = raw.as_chunks::<144>();
    for (block, to) in blocks.iter().zip(panel.chunks_exact_mut(ggml::SUPER / BLOCK)) {
        let (d, dmin) = (ggml::half(block, 0), ggml::half(block, 2));
        for (j, to) in to.iter_mut().enumerate() {
            let (scale, min) = ggml::scale_min(&block[4..16], j);
            to.scales[lane] = narrow(d * f32::from(scale));
            to.offsets[lane] = narrow(-dmin * f32::from(min));
            let bytes = &block[16 + j / 2 * BLOCK..][..BLOCK];
            let shift = j % 2 * 4;
            scatter_nibbles(&mut to.quants, lane, |i| bytes[i] >> shift & 15);
        }
    }
}

/// Packs a row of Q5_0, Q5_1 or Q5_K into lane `lane`.
pub(super) fn q5_offset(dtype: GgmlDType, raw: &[u8], panel: &mut [Q5Offset], lane: usize) {
    match dtype {
        GgmlDType::Q5_0 => {
            for (block, to) in raw.as_chunks::<22>().0.iter().zip(panel) {
                let scale = u16::from_le_bytes([block[0], block[1]]);
                // Sixteen times a half is one as well, if it is not beyond all halves.
                (to.scales[lane], to.offsets[lane]) = (scale, narrow(-16.0 * widen(scale)));
                five_bits(to, lane, &block[2..]);
            }
        }
        GgmlDType::Q5_1 => {
            for (block, to) in raw.as_chunks::<24>().0.iter().zip(panel) {
                to.scales[lane] = u16::from_le_bytes([block[0], block[1]]);
                to.offsets[lane] = u16::from_le_bytes([block[2], block[3]]);
                five_bits(to, lane, &block[4..]);
            }
        }
        _ => {
            debug_assert_eq!(dtype, GgmlDType::Q5K);
            let (blocks, _) = raw.as_chunks::<176>();
            for (block, to) in blocks.iter().zip(panel.chunks_exact_mut(ggml::SUPER / BLOCK)) {
                let (d, dmin) = (ggml::half(block, 0), ggml::half(block, 2));
                for (j, to) in to.iter_mut().enumerate() {
                    let (scale, min) = ggml::scale_min(&block[4..16], j);
                    to.scales[lane] = narrow(d * f32::from(scale));
                    to.offsets[lane] = narrow(-dmin * f32::from(min));
                    let (fifths, bytes) = (&block[16..48], &block[48 + j / 2 * BLOCK..][..BLOCK]);
                    let shift = j % 2 * 4;
                    let quant = |i: usize| bytes[i] >> shift & 15 | (fifths[i] >> j & 1) << 4;
                    scatter_five(to, lane, &std::array::from_fn(quant));
                }
            }
        }
    }
}

/// Quantises floats to 8 bits a block: symmetric, the largest magnitude becomes 127.
pub(super) fn q8_floats(values: &[f32; BLOCK], to: &mut Q8, lane: usize) {
    let largest = values.iter().fold(0.0_f32, |m, v| m.max(v.abs()));
    let scale = narrow(largest / 127.0);
    to.scales[lane] = scale;
    let inverse = inverse(widen(scale));
    scatter_i8(to, lane, |i| (values[i] * inverse).round_ties_even().clamp(-127.0, 127.0) as i8);
}

/// Quantises floats to 4 bits a block around 8, the largest magnitude at −8, as Q4_0 does.
pub(super) fn q4_floats(values: &[f32; BLOCK], to: &mut Q4, lane: usize) {
    let largest = values.iter().fold(0.0_f32, |m, &v| if v.abs() > m.abs() { v } else { m });
    let scale = narrow(largest / -8.0);
    to.scales[lane] = scale;
    let inverse = inverse(widen(scale));
    let quant = |i: usize| (values[i] * inverse + 8.0).round_ties_even().clamp(0.0, 15.0) as u8;
    scatter_nibbles(&mut to.quants, lane, quant);
}

/// Quantises floats to 4 bits a block between its smallest and largest value, as Q4_1 does.
pub(super) fn q4_offset_floats(values: &[f32; BLOCK], to: &mut Q4Offset, lane: usize) {
    let (low, high) = values.iter().fold((f32::MAX, f32::MIN), |(l, h), &v| (l.min(v), h.max(v)));
    let (scale, offset) = (narrow((high - low) / 15.0), narrow(low));
    to.scales[lane] = scale;
    to.offsets[lane] = offset;
    let (inverse, offset) = (inverse(widen(scale)), widen(offset));
    let quant = |i: usize| ((values[i] - offset) * inverse).round_ties_even().clamp(0.0, 15.0) as u8;
    scatter_nibbles(&mut to.quants, lane, quant);
}

/// Quantises floats to 5 bits a block between its smallest and largest value, as Q5_1 does.
pub(super) fn q5_offset_floats(values: &[f32; BLOCK], to: &mut Q5Offset, lane: usize) {
    let (low, high) = values.iter().fold((f32::MAX, f32::MIN), |(l, h), &v| (l.min(v), h.max(v)));
    let (scale, offset) = (narrow((high - low) / 31.0), narrow(low));
    (to.scales[lane], to.offsets[lane]) = (scale, offset);
    let (inverse, offset) = (inverse(widen(scale)), widen(offset));
    let quant = |i: usize| ((values[i] - offset) * inverse).round_ties_even().clamp(0.0, 31.0) as u8;
    scatter_five(to, lane, &std::array::from_fn(quant));
}

fn inverse(scale: f32) -> f32 {
    if scale == 0.0 { 0.0 } else { 1.0 / scale }
}

/// Widens a row piece by piece and hands every block of it to `pack`.
fn widened<B>(dtype: GgmlDType, raw: &[u8], panel: &mut [B], pack: impl Fn(&[f32; BLOCK], &mut B)) {
    let step = dtype.block_size().max(BLOCK);
    let bytes = step / dtype.block_size() * dtype.type_size();
    let mut values = [0.0; ggml::SUPER];
    for (raw, to) in raw.chunks_exact(bytes).zip(panel.chunks_exact_mut(step / BLOCK)) {
        ggml::dequantize(dtype, raw, &mut values[..step]);
        for (values, to) in values.as_chunks::<BLOCK>().0.iter().zip(to) {
            pack(values, to);
        }
    }
}

#[inline(always)]
fn scatter_i8(to: &mut Q8, lane: usize, quant: impl Fn(usize) -> i8) {
    for (group, row) in to.quants.iter_mut().enumerate() {
        for column in 0..4 {
            row[4 * lane + column] = quant(4 * group + column);
        }
    }
}

#[inline(always)]
fn scatter_nibbles(to: &mut [[u8; 4 * LANES]], lane: usize, quant: impl Fn(usize) -> u8) {
    for (group, row) in to.iter_mut().enumerate() {
        for column in 0..4 {
            let i = 4 * group + column;
            row[4 * lane + column] = quant(i) | quant(i + BLOCK / 2) << 4;
        }
    }
}

/// Takes over the 32 fifth bits of a Q5_0 or Q5_1 block and the 16 bytes of nibbles behind them.
#[inline(always)]
fn five_bits(to: &mut Q5Offset, lane: usize, raw: &[u8]) {
    let (fifths, nibbles) = raw.split_at(4);
    for (group, bytes) in nibbles.as_chunks::<4>().0.iter().enumerate() {
        to.quants[group][4 * lane..][..4].copy_from_slice(bytes);
    }
    let fifths = u32::from_le_bytes([fifths[0], fifths[1], fifths[2], fifths[3]]);
    for column in 0..4 {
        // Every fourth bit, brought together in pairs, fours and eights.
        let bits = fifths >> column & 0x1111_1111;
        let bits = (bits | bits >> 3) & 0x0303_0303;
        let bits = (bits | bits >> 6) & 0x000f_000f;
        to.fifths[4 * lane + column] = (bits | bits >> 12) as u8;
    }
}

#[inline(always)]
fn scatter_five(to: &mut Q5Offset, lane: usize, quants: &[u8; BLOCK]) {
    scatter_nibbles(&mut to.quants, lane, |i| quants[i] & 15);
    let mut fifths = [0; 4];
    for (group, quants) in quants.as_chunks::<4>().0.iter().enumerate() {
        for column in 0..4 {
            fifths[column] |= quants[column] >> 4 << group;
        }
    }
    to.fifths[4 * lane..][..4].copy_from_slice(&fifths);
}
