//! The right-hand side of a matrix product: rows of activations, and their 8-bit form.

use super::block::BLOCK;
use super::isa::multiversion;
use crate::pool::{Pool, Shared};

/// Rows of activations `[rows, columns]`: floats, and on demand 8-bit quants with a scale per block.
///
/// The buffers only grow, so that decoding allocates nothing after its first token.
#[derive(Debug, Default)]
pub struct Activations {
    rows: usize,
    columns: usize,
    floats: Vec<f32>,
    quants: Vec<i8>,
    #[cfg(target_arch = "wasm32")]
    interleaved: super::interleave::Interleaved,
    scales: Vec<f32>,
    sums: Vec<i32>,
}

impl Activations {
    /// Sets the shape and returns the floats `[rows, columns]` to write to. Their content is what was left.
    pub fn reshape(&mut self, rows: usize, columns: usize) -> &mut [f32] {
        (self.rows, self.columns) = (rows, columns);
        if self.floats.len() < rows * columns {
            self.floats.resize(rows * columns, 0.0);
        }
        &mut self.floats[..rows * columns]
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Elements of a row.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Row `row` as floats.
    pub fn row(&self, row: usize) -> &[f32] {
        &self.floats[row * self.columns..][..self.columns]
    }

    /// Quantises all rows; needed before a product with a quantised matrix.
    ///
    /// Per block of 32: `scale = max|x| / 127`, `q = round(x / scale)` to nearest even, and the sum of the q,
    /// which products with offset weights need.
    pub fn quantize(&mut self, pool: &Pool) {
        let elements = self.rows * self.columns;
        let blocks = elements / BLOCK;
        if self.quants.len() < elements {
            self.quants.resize(elements, 0);
            self.scales.resize(blocks, 0.0);
            self.sums.resize(blocks, 0);
        }
        /// Rows of a task: enough work to hand over.
        const ROWS: usize = 8;
        let (rows, width) = (self.rows, self.columns);
        let (quants, scales, sums) =
            (Shared::new(&mut self.quants), Shared::new(&mut self.scales), Shared::new(&mut self.sums));
        let floats = &self.floats;
        pool.run(rows.div_ceil(ROWS), &|task| {
            let (start, count) = (task * ROWS * width, ROWS.min(rows - task * ROWS) * width);
            let (block, blocks) = (start / BLOCK, count / BLOCK);
            // SAFETY: every task has rows of its own.
            #[allow(unsafe_code, reason = "tasks write disjoint rows")]
            let (quants, scales, sums) = unsafe {
                (quants.slice(start, count), scales.slice(block, blocks), sums.slice(block, blocks))
            };
            quantize(&floats[start..start + count], quants, scales, sums);
        });
        #[cfg(target_arch = "wasm32")]
        self.interleaved.fill(width, &self.quants[..elements], &self.scales[..blocks], &self.sums[..blocks]);
    }

    /// The quantised rows `row..row + T` side by side.
    #[cfg(target_arch = "wasm32")]
    #[inline(always)]
    pub(super) fn interleaved<const T: usize>(&self, row: usize) -> super::interleave::View<'_> {
        self.interleaved.tile::<T>(row)
    }

    /// Quants of row `row`, `[columns]`.
    #[inline(always)]
    pub(super) fn quants(&self, row: usize) -> &[i8] {
        &self.quants[row * self.columns..][..self.columns]
    }

    /// Scales of row `row`, `[columns / 32]`.
    #[inline(always)]
    pub(super) fn scales(&self, row: usize) -> &[f32] {
        let blocks = self.columns / BLOCK;
        &self.scales[row * blocks..][..blocks]
    }

    /// Sums of the quants of row `row`, `[columns / 32]`.
    #[inline(always)]
    pub(super) fn sums(&self, row: usize) -> &[i32] {
        let blocks = self.columns / BLOCK;
        &self.sums[row * blocks..][..blocks]
    }
}

multiversion! {
    fn quantize(floats: &[f32], quants: &mut [i8], scales: &mut [f32], sums: &mut [i32]) {
        let blocks = floats.as_chunks::<BLOCK>().0.iter().zip(quants.as_chunks_mut::<BLOCK>().0);
        for ((x, q), (scale, sum)) in blocks.zip(scales.iter_mut().zip(sums)) {
            let mut lanes = [0.0_f32; 8];
            for x in x.as_chunks::<8>().0 {
                for i in 0..8 {
                    let magnitude = x[i].abs();
                    lanes[i] = if magnitude > lanes[i] { magnitude } else { lanes[i] };
                }
            }
            let largest = lanes.iter().fold(0.0_f32, |m, &l| if l > m { l } else { m });
            let inverse = if largest > 0.0 { 127.0 / largest } else { 0.0 };
            *scale = largest / 127.0;
            let mut total = 0;
            for (x, q) in x.iter().zip(q) {
                // Adding 1.5 · 2^23 leaves the value, rounded to nearest even, in the low bits.
                let rounded = (x * inverse + 12_582_912.0).to_bits() as i32 - 0x4b40_0000;
                *q = rounded as i8;
                total += i32::from(*q);
            }
            *sum = total;
        }
    }
}
