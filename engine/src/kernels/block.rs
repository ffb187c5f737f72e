//! The packed forms of quantised weights: 16 rows by 32 columns to a block.
//!
//! Within a block, a group `g` holds columns `4g..4g+4` of every row, row after row: a 32-bit lane is four
//! columns of one row. All sizes are multiples of 32 bytes, so that aligned blocks keep vectors aligned.

/// Rows of a panel: one lane each, in one vector of 512 bits, two of 256 or four of 128.
pub const LANES: usize = 16;

/// Columns of a block: those that share a scale.
pub const BLOCK: usize = 32;

/// Groups of four columns in a block.
pub(super) const GROUPS: usize = BLOCK / 4;

/// A half-precision float's bits. ggml stores scales so, and widening them is exact.
pub(super) type Half = u16;

/// Four bits of every quant: low nibbles are group `g`, high nibbles group `g + 4`.
pub(super) type Nibbles = [[u8; 4 * LANES]; GROUPS / 2];

/// One bit of every quant: bit `g` of byte `i` belongs to byte `i` of group `g`.
pub(super) type Bits = [u8; 4 * LANES];

/// 8-bit weights: `w = scale · q`, q in −128..=127. 8.5 bits a weight.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C, align(32))]
pub(super) struct Q8 {
    pub(super) scales: [Half; LANES],
    /// `[group][row · 4 + column in group]`.
    pub(super) quants: [[i8; 4 * LANES]; GROUPS],
}

/// 4-bit weights around 8: `w = scale · (q − 8)`, q in 0..=15. 4.5 bits a weight.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C, align(32))]
pub(super) struct Q4 {
    pub(super) scales: [Half; LANES],
    pub(super) quants: Nibbles,
}

/// 4-bit weights with an offset: `w = scale · q + offset`, q in 0..=15. 5 bits a weight.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C, align(32))]
pub(super) struct Q4Offset {
    pub(super) scales: [Half; LANES],
    pub(super) offsets: [Half; LANES],
    pub(super) quants: Nibbles,
}

/// 5-bit weights with an offset: `w = scale · q + offset`, q in 0..=31. 6 bits a weight.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C, align(32))]
pub(super) struct Q5Offset {
    pub(super) scales: [Half; LANES],
    pub(super) offsets: [Half; LANES],
    /// The lower four bits.
    pub(super) quants: Nibbles,
    /// The fifth bit.
    pub(super) fifths: Bits,
}

/// What the forms with an offset have in common, so that they share their kernels.
pub(super) trait Offset {
    /// The scale of every row.
    fn scales(&self) -> &[Half; LANES];
    /// What is added to the scaled quants of every row.
    fn offsets(&self) -> &[Half; LANES];
    /// The lower four bits of the quants.
    fn quants(&self) -> &Nibbles;
    /// The fifth bit, where there is one.
    fn fifths(&self) -> Option<&Bits>;

    /// The quant of column `i` in row `lane`.
    #[inline(always)]
    fn quant(&self, lane: usize, i: usize) -> u8 {
        let (byte, group) = (4 * lane + i % 4, i / 4);
        let low = self.quants()[group % (GROUPS / 2)][byte] >> (i / 16 * 4) & 15;
        low | self.fifths().map_or(0, |bits| (bits[byte] >> group & 1) << 4)
    }
}

impl Offset for Q4Offset {
    #[inline(always)]
    fn scales(&self) -> &[Half; LANES] {
        &self.scales
    }

    #[inline(always)]
    fn offsets(&self) -> &[Half; LANES] {
        &self.offsets
    }

    #[inline(always)]
    fn quants(&self) -> &Nibbles {
        &self.quants
    }

    #[inline(always)]
    fn fifths(&self) -> Option<&Bits> {
        None
    }
}

impl Offset for Q5Offset {
    #[inline(always)]
    fn scales(&self) -> &[Half; LANES] {
        &self.scales
    }

    #[inline(always)]
    fn offsets(&self) -> &[Half; LANES] {
        &self.offsets
    }

    #[inline(always)]
    fn quants(&self) -> &Nibbles {
        &self.quants
    }

    #[inline(always)]
    fn fifths(&self) -> Option<&Bits> {
        Some(&self.fifths)
    }
}

impl Q8 {
    pub(super) const ZERO: Self = Self { scales: [0; LANES], quants: [[0; 4 * LANES]; GROUPS] };
}

impl Q4 {
    pub(super) const ZERO: Self = Self { scales: [0; LANES], quants: [[0; 4 * LANES]; GROUPS / 2] };
}

impl Q4Offset {
    pub(super) const ZERO: Self =
        Self { scales: [0; LANES], offsets: [0; LANES], quants: [[0; 4 * LANES]; GROUPS / 2] };
}

impl Q5Offset {
    pub(super) const ZERO: Self = Self {
        scales: [0; LANES],
        offsets: [0; LANES],
        quants: [[0; 4 * LANES]; GROUPS / 2],
        fifths: [0; 4 * LANES],
    };
}

/// Widens a half-precision float without a conversion instruction: finite values exactly; infinities and
/// NaN, which no weight or cache entry holds, become finite.
#[inline(always)]
pub(super) fn widen(half: Half) -> f32 {
    // Exponent and mantissa moved into place are the value times 2^-112, subnormals included. Sign extension
    // leaves copies of the sign in bits 28 to 31; only the last stays.
    let bits = (i32::from(half.cast_signed()) << 13).cast_unsigned() & 0x8fff_ffff;
    f32::from_bits(bits) * f32::from_bits(0x7780_0000)
}

/// Widens a slice, `N` values in a round.
#[allow(clippy::needless_range_loop, reason = "parallel arrays, indexed alike")]
#[inline(always)]
pub(super) fn widen_all<const N: usize>(from: &[Half], to: &mut [f32]) {
    for (from, to) in from.as_chunks::<N>().0.iter().zip(to.as_chunks_mut::<N>().0) {
        for i in 0..N {
            to[i] = widen(from[i]);
        }
    }
}

/// Rounds to half precision, to nearest even; values beyond its range become its largest.
#[inline(always)]
pub(super) fn narrow(value: f32) -> Half {
    let sign = (value.to_bits() >> 16) & 0x8000;
    let magnitude = f32::from_bits(value.to_bits() & 0x7fff_ffff);
    // NaN compares false and takes the largest value too: nothing downstream has to expect one.
    let magnitude = if magnitude < 65504.0 { magnitude } else { 65504.0 };
    let bits = if magnitude < f32::from_bits(0x3880_0000) {
        // Subnormal: adding 0.5 aligns the mantissa so that one unit is 2^-24.
        (magnitude + 0.5).to_bits() - 0x3f00_0000
    } else {
        let bits = magnitude.to_bits();
        (bits + 0xfff + ((bits >> 13) & 1) - (112 << 23)) >> 13
    };
    (sign | bits) as Half
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_agree_with_the_half_crate() {
        for bits in 0..=u16::MAX {
            let expected = half::f16::from_bits(bits);
            if expected.is_finite() {
                assert_eq!(widen(bits).to_bits(), expected.to_f32().to_bits(), "{bits:#06x}");
                assert_eq!(narrow(expected.to_f32()), bits, "{bits:#06x}");
            }
        }
        for step in 0..200_000_u32 {
            let value = f32::from_bits(step.wrapping_mul(0x9e37_79b9));
            if value.is_finite() {
                let clamped = value.clamp(-65504.0, 65504.0);
                assert_eq!(narrow(value), half::f16::from_f32(clamped).to_bits(), "{value:e}");
            }
        }
    }
}
