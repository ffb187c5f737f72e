//! Quantised activations as the WebAssembly kernels read them.
//!
//! A group is four columns. A tile of four rows keeps a group of each row side by side, so that one load
//! brings all four and a shuffle spreads one over a vector. A row that fills no tile stands alone, with every
//! group repeated as often as a vector holds it: there a load brings it spread.

use std::ops::Range;

use super::block::BLOCK;
use super::matmul::TILE;

/// Columns of a group.
const GROUP: usize = 4;

/// Copies of a group in a vector of 8-bit quants, and of 16-bit ones.
const COPIES: usize = 4;
const WIDE_COPIES: usize = 2;

/// All rows of a quantised matrix of activations. The buffers only grow.
#[derive(Debug, Default)]
pub(super) struct Interleaved {
    rows: usize,
    columns: usize,
    quants: Vec<i8>,
    /// The quants in 16 bits.
    wide: Vec<i16>,
    /// Per block.
    scales: Vec<f32>,
    /// Per block, where dot products with nibbles start: −8 · Σ quants, as the lower 16 bits of a lane.
    shifts: Vec<u32>,
    /// Per block: scale · Σ quants.
    products: Vec<f32>,
}

/// A tile of four rows, or a single one: `[columns / 4][16]` quants; wide ones `[columns / 4][4][4]` of a
/// tile, `[columns / 4][8]` of a row; the others `[blocks][rows]`.
pub(super) struct View<'a> {
    pub(super) quants: &'a [i8],
    pub(super) wide: &'a [i16],
    pub(super) scales: &'a [f32],
    pub(super) shifts: &'a [u32],
    pub(super) products: &'a [f32],
}

impl Interleaved {
    /// Takes over the quants `[rows, columns]`, and scales and sums per block.
    pub(super) fn fill(&mut self, columns: usize, quants: &[i8], scales: &[f32], sums: &[i32]) {
        (self.rows, self.columns) = (quants.len() / columns, columns);
        let lengths = [COPIES, WIDE_COPIES].map(|copies| self.range(self.rows, copies, 0).end);
        grow(&mut self.quants, lengths[0]);
        grow(&mut self.wide, lengths[1]);
        grow(&mut self.scales, scales.len());
        grow(&mut self.shifts, scales.len());
        grow(&mut self.products, scales.len());
        let blocks = columns / BLOCK;
        for (row, quants) in quants.chunks_exact(columns).enumerate() {
            let first = self.first(row);
            let (t, tile) = (row - first, if first + TILE <= self.rows { TILE } else { 1 });
            let (narrow, wide) = (self.range(first, COPIES, tile), self.range(first, WIDE_COPIES, tile));
            if tile == TILE {
                spread::<_, 1>(quants, &mut self.quants[narrow], t, TILE, |q| q);
                spread::<_, 1>(quants, &mut self.wide[wide], t, TILE, i16::from);
            } else {
                spread::<_, COPIES>(quants, &mut self.quants[narrow], 0, COPIES, |q| q);
                spread::<_, WIDE_COPIES>(quants, &mut self.wide[wide], 0, WIDE_COPIES, i16::from);
            }
            for block in 0..blocks {
                let (from, to) = (row * blocks + block, first * blocks + block * tile + t);
                self.scales[to] = scales[from];
                self.shifts[to] = (-8 * sums[from]) as u32 & 0xffff;
                self.products[to] = scales[from] * sums[from] as f32;
            }
        }
    }

    /// The first row of the tile that `row` belongs to; a row that fills no tile is its own.
    fn first(&self, row: usize) -> usize {
        if row < self.rows / TILE * TILE { row / TILE * TILE } else { row }
    }

    /// Where `rows` rows from row `first` on are in a buffer that keeps `copies` of single rows.
    #[inline(always)]
    fn range(&self, first: usize, copies: usize, rows: usize) -> Range<usize> {
        let tiled = self.rows / TILE * TILE;
        let start = (first.min(tiled) + copies * (first - first.min(tiled))) * self.columns;
        let copies = if first < tiled { 1 } else { copies };
        start..start + copies * rows * self.columns
    }

    /// The tile of `T` rows that begins at `row`.
    #[inline(always)]
    pub(super) fn tile<const T: usize>(&self, row: usize) -> View<'_> {
        let blocks = row * self.columns / BLOCK..(row + T) * self.columns / BLOCK;
        View {
            quants: &self.quants[self.range(row, COPIES, T)],
            wide: &self.wide[self.range(row, WIDE_COPIES, T)],
            scales: &self.scales[blocks.clone()],
            shifts: &self.shifts[blocks.clone()],
            products: &self.products[blocks],
        }
    }
}

/// Makes a buffer at least `length` long.
fn grow<T: Copy + Default>(buffer: &mut Vec<T>, length: usize) {
    if buffer.len() < length {
        buffer.resize(length, T::default());
    }
}

/// Writes `N` copies of every group to its places: group `g` goes to `to[g * step + t..]`, counted in groups.
#[inline(always)]
fn spread<T: Copy, const N: usize>(
    quants: &[i8],
    to: &mut [T],
    t: usize,
    step: usize,
    convert: impl Fn(i8) -> T,
) {
    let to = to.as_chunks_mut::<GROUP>().0.chunks_exact_mut(step);
    for (from, to) in quants.as_chunks::<GROUP>().0.iter().zip(to) {
        for copy in 0..N {
            to[t + copy] = from.map(&convert);
        }
    }
}
