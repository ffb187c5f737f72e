//! A weight matrix, packed.

use std::fmt;

use candle_core::quantized::GgmlDType;

use super::block::{self, BLOCK, LANES, Offset, Q4, Q4Offset, Q5Offset, Q8};
use super::{ggml, pack};
use crate::error::{Error, Result};

/// How a matrix is kept in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// 32-bit floats.
    F32,
    /// Half-precision floats.
    F16,
    /// bfloat16: the upper halves of floats.
    Bf16,
    /// 8 bits and a scale per 32.
    Q8,
    /// 4 bits around a zero point of 8, and a scale per 32.
    Q4,
    /// 4 bits, a scale and an offset per 32.
    Q4Offset,
    /// 5 bits, a scale and an offset per 32.
    Q5Offset,
}

impl Form {
    /// The form that holds a ggml type with nothing, or next to nothing, lost.
    pub fn of(dtype: GgmlDType) -> Self {
        match dtype {
            GgmlDType::F32 => Self::F32,
            GgmlDType::F16 => Self::F16,
            GgmlDType::BF16 => Self::Bf16,
            GgmlDType::Q4_0 => Self::Q4,
            GgmlDType::Q4_1 | GgmlDType::Q4K => Self::Q4Offset,
            GgmlDType::Q5_0 | GgmlDType::Q5_1 | GgmlDType::Q5K => Self::Q5Offset,
            _ => Self::Q8,
        }
    }

    /// True if activations are quantised before they meet a matrix of this form.
    pub fn is_quantized(self) -> bool {
        matches!(self, Self::Q8 | Self::Q4 | Self::Q4Offset | Self::Q5Offset)
    }

    /// Bytes of a packed matrix, its last panel padded with empty rows; `None` if beyond 64 bits.
    pub fn bytes(self, rows: usize, columns: usize) -> Option<u64> {
        let blocks = (rows.div_ceil(LANES) as u64).checked_mul(columns as u64)?;
        let (columns_per_unit, unit) = match self {
            Self::F32 => (1, 4 * LANES),
            Self::F16 | Self::Bf16 => (1, 2 * LANES),
            Self::Q8 => (BLOCK as u64, size_of::<Q8>()),
            Self::Q4 => (BLOCK as u64, size_of::<Q4>()),
            Self::Q4Offset => (BLOCK as u64, size_of::<Q4Offset>()),
            Self::Q5Offset => (BLOCK as u64, size_of::<Q5Offset>()),
        };
        (blocks / columns_per_unit).checked_mul(unit as u64)
    }
}

/// The panels, one after the other: `[panel][column or block]`.
pub(super) enum Data {
    F32(Vec<[f32; LANES]>),
    F16(Vec<[u16; LANES]>),
    Bf16(Vec<[u16; LANES]>),
    Q8(Vec<Q8>),
    Q4(Vec<Q4>),
    Q4Offset(Vec<Q4Offset>),
    Q5Offset(Vec<Q5Offset>),
}

/// A weight matrix `[rows, columns]`, packed in panels of 16 rows. A linear layer computes `y = W·x`.
pub struct Matrix {
    rows: usize,
    columns: usize,
    /// Rows written so far; equal to `rows` once loaded.
    filled: usize,
    pub(super) data: Data,
}

impl fmt::Debug for Matrix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Matrix({} x {}, {:?})", self.rows, self.columns, self.form())
    }
}

impl Matrix {
    /// A matrix of zeros, to be filled row by row with [`push`](Self::push) or
    /// [`push_floats`](Self::push_floats).
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a quantised form whose rows are not a multiple of 32.
    pub fn new(form: Form, rows: usize, columns: usize) -> Result<Self> {
        if form.is_quantized() && !columns.is_multiple_of(BLOCK) {
            return Err(Error::unsupported(format!(
                "{form:?} with rows of {columns} elements, they must be a multiple of {BLOCK}"
            )));
        }
        let panels = rows.div_ceil(LANES);
        let blocks = panels * (columns / BLOCK);
        let data = match form {
            Form::F32 => Data::F32(vec![[0.0; LANES]; panels * columns]),
            Form::F16 => Data::F16(vec![[0; LANES]; panels * columns]),
            Form::Bf16 => Data::Bf16(vec![[0; LANES]; panels * columns]),
            Form::Q8 => Data::Q8(vec![Q8::ZERO; blocks]),
            Form::Q4 => Data::Q4(vec![Q4::ZERO; blocks]),
            Form::Q4Offset => Data::Q4Offset(vec![Q4Offset::ZERO; blocks]),
            Form::Q5Offset => Data::Q5Offset(vec![Q5Offset::ZERO; blocks]),
        };
        Ok(Self { rows, columns, filled: 0, data })
    }

    /// Number of rows: the outputs of a linear layer.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns: the inputs of a linear layer.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// How the matrix is kept.
    pub fn form(&self) -> Form {
        match self.data {
            Data::F32(_) => Form::F32,
            Data::F16(_) => Form::F16,
            Data::Bf16(_) => Form::Bf16,
            Data::Q8(_) => Form::Q8,
            Data::Q4(_) => Form::Q4,
            Data::Q4Offset(_) => Form::Q4Offset,
            Data::Q5Offset(_) => Form::Q5Offset,
        }
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> u64 {
        self.form().bytes(self.rows, self.columns).unwrap_or(u64::MAX)
    }

    /// Appends a row stored as the ggml type `dtype`. The matrix must have been made in the type's own
    /// [`Form`], or in [`Form::Q8`] for any quantised type.
    ///
    /// # Panics
    /// If the matrix is full, or the row's length is not that of `columns` elements.
    pub fn push(&mut self, dtype: GgmlDType, raw: &[u8]) {
        assert_eq!(
            raw.len(),
            self.columns / dtype.block_size() * dtype.type_size(),
            "length of a {dtype:?} row"
        );
        if self.form() != Form::of(dtype) && self.form() != Form::Q8 {
            let mut values = vec![0.0; self.columns];
            ggml::dequantize(dtype, raw, &mut values);
            return self.push_floats(&values);
        }
        let (panel, lane) = self.next_row();
        let columns = self.columns;
        let width = panel * columns..(panel + 1) * columns;
        let blocks = panel * (columns / BLOCK)..(panel + 1) * (columns / BLOCK);
        match &mut self.data {
            Data::F32(data) => {
                for (value, to) in raw.as_chunks::<4>().0.iter().zip(&mut data[width]) {
                    to[lane] = f32::from_le_bytes(*value);
                }
            }
            Data::F16(data) | Data::Bf16(data) => {
                for (value, to) in raw.as_chunks::<2>().0.iter().zip(&mut data[width]) {
                    to[lane] = u16::from_le_bytes(*value);
                }
            }
            Data::Q8(data) => pack::q8(dtype, raw, &mut data[blocks], lane),
            Data::Q4(data) => pack::q4(raw, &mut data[blocks], lane),
            Data::Q4Offset(data) => pack::q4_offset(dtype, raw, &mut data[blocks], lane),
            Data::Q5Offset(data) => pack::q5_offset(dtype, raw, &mut data[blocks], lane),
        }
    }

    /// Appends a row of floats, rounded or quantised to the matrix's form.
    ///
    /// # Panics
    /// If the matrix is full, or `values` is not `columns` long.
    pub fn push_floats(&mut self, values: &[f32]) {
        assert_eq!(values.len(), self.columns, "length of a row");
        let (panel, lane) = self.next_row();
        let columns = self.columns;
        let width = panel * columns..(panel + 1) * columns;
        let blocks = panel * (columns / BLOCK)..(panel + 1) * (columns / BLOCK);
        let chunks = values.as_chunks::<BLOCK>().0;
        match &mut self.data {
            Data::F32(data) => data[width].iter_mut().zip(values).for_each(|(to, &v)| to[lane] = v),
            Data::F16(data) => {
                data[width].iter_mut().zip(values).for_each(|(to, &v)| to[lane] = block::narrow(v))
            }
            Data::Bf16(data) => {
                let round = |v: f32| half::bf16::from_f32(v).to_bits();
                data[width].iter_mut().zip(values).for_each(|(to, &v)| to[lane] = round(v));
            }
            Data::Q8(data) => {
                data[blocks].iter_mut().zip(chunks).for_each(|(to, v)| pack::q8_floats(v, to, lane))
            }
            Data::Q4(data) => {
                data[blocks].iter_mut().zip(chunks).for_each(|(to, v)| pack::q4_floats(v, to, lane))
            }
            Data::Q4Offset(data) => {
                data[blocks].iter_mut().zip(chunks).for_each(|(to, v)| pack::q4_offset_floats(v, to, lane));
            }
            Data::Q5Offset(data) => {
                data[blocks].iter_mut().zip(chunks).for_each(|(to, v)| pack::q5_offset_floats(v, to, lane));
            }
        }
    }

    /// Panel and lane of the row that is written next.
    fn next_row(&mut self) -> (usize, usize) {
        let row = self.filled;
        assert!(row < self.rows, "row {row} of a matrix of {} rows", self.rows);
        self.filled += 1;
        (row / LANES, row % LANES)
    }

    /// Widens row `row` into `out` (`columns` long): an embedding lookup.
    ///
    /// # Panics
    /// If `row` is outside the matrix or `out` has another length.
    pub fn row(&self, row: usize, out: &mut [f32]) {
        assert!(row < self.rows && out.len() == self.columns, "row {row} of {self:?} into {}", out.len());
        let (panel, lane) = (row / LANES, row % LANES);
        let width = panel * self.columns..(panel + 1) * self.columns;
        let blocks = panel * (self.columns / BLOCK)..(panel + 1) * (self.columns / BLOCK);
        let chunks = out.as_chunks_mut::<BLOCK>().0;
        let nibble = |quants: &[[u8; 4 * LANES]], i: usize| {
            f32::from(quants[i % 16 / 4][4 * lane + i % 4] >> (i / 16 * 4) & 15)
        };
        match &self.data {
            Data::F32(data) => out.iter_mut().zip(&data[width]).for_each(|(y, x)| *y = x[lane]),
            Data::F16(data) => out.iter_mut().zip(&data[width]).for_each(|(y, x)| *y = block::widen(x[lane])),
            Data::Bf16(data) => out.iter_mut().zip(&data[width]).for_each(|(y, x)| *y = ggml::brain(x[lane])),
            Data::Q8(data) => {
                for (block, y) in data[blocks].iter().zip(chunks) {
                    let scale = block::widen(block.scales[lane]);
                    *y = std::array::from_fn(|i| scale * f32::from(block.quants[i / 4][4 * lane + i % 4]));
                }
            }
            Data::Q4(data) => {
                for (block, y) in data[blocks].iter().zip(chunks) {
                    let scale = block::widen(block.scales[lane]);
                    *y = std::array::from_fn(|i| scale * (nibble(&block.quants, i) - 8.0));
                }
            }
            Data::Q4Offset(data) => offset_row(&data[blocks], lane, chunks),
            Data::Q5Offset(data) => offset_row(&data[blocks], lane, chunks),
        }
    }
}

/// Widens a row of a form with an offset.
fn offset_row<B: Offset>(blocks: &[B], lane: usize, out: &mut [[f32; BLOCK]]) {
    for (block, y) in blocks.iter().zip(out) {
        let (scale, offset) = (block::widen(block.scales()[lane]), block::widen(block.offsets()[lane]));
        *y = std::array::from_fn(|i| scale * f32::from(block.quant(lane, i)) + offset);
    }
}
