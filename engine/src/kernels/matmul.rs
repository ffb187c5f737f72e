//! The matrix product: which panel meets which rows, on which thread.

use arrayvec::ArrayVec;

use super::activations::Activations;
use super::block::{BLOCK, LANES, widen};
use super::ggml::brain;
use super::isa::Isa;
use super::matrix::{Data, Matrix};
use super::scalar::{self, Tile};
use crate::pool::{Pool, Shared};

/// Rows of activations that meet a panel at once: as many as leave the sums in registers.
pub(super) const TILE: usize = 4;

/// Bytes of weights that a task takes, about: small enough to balance threads, large enough to be worth a
/// hand-over.
const TASK_BYTES: usize = 32 << 10;

/// Matrices that one call takes at most: queries, keys and values.
const MAX_PARTS: usize = 3;

/// One of the matrices that are multiplied with the same activations.
#[derive(Debug, Clone, Copy)]
pub struct Part<'a> {
    /// The weights `[outputs, inputs]`.
    pub matrix: &'a Matrix,
    /// Added to the products, `[outputs]`.
    pub bias: Option<&'a [f32]>,
    /// Where in a row of the output the products start.
    pub column: usize,
}

/// For every row of `x` and every part: `out[row][column..] = matrix · x + bias`. `out` is `[rows, stride]`.
/// All parts are shared out to the pool at once. `x` must be quantised if any matrix is.
///
/// # Panics
/// If a part does not fit `x` or `out`.
pub fn matmul(pool: &Pool, isa: Isa, x: &Activations, parts: &[Part<'_>], out: &mut [f32], stride: usize) {
    let rows = x.rows();
    assert!(out.len() >= rows * stride, "output of {} floats for {rows} rows of {stride}", out.len());
    let mut tasks = ArrayVec::<_, MAX_PARTS>::new();
    let mut count = 0;
    for part in parts {
        assert_eq!(part.matrix.columns(), x.columns(), "columns of {:?}", part.matrix);
        assert!(part.column + part.matrix.rows() <= stride, "{:?} at column {}", part.matrix, part.column);
        let panels = part.matrix.rows().div_ceil(LANES);
        let panel_bytes = (part.matrix.bytes() as usize / panels.max(1)).max(1);
        // With many rows a panel is work enough.
        let size = (TASK_BYTES / panel_bytes / rows.max(1)).clamp(1, panels.max(1));
        tasks.push((count, size, part));
        count += panels.div_ceil(size);
    }
    let out = Shared::new(out);
    pool.run(count, &|task| {
        let index = tasks.partition_point(|(first, ..)| *first <= task) - 1;
        let (first, size, part) = tasks[index];
        let start = (task - first) * size;
        let end = (start + size).min(part.matrix.rows().div_ceil(LANES));
        for panel in start..end {
            let mut row = 0;
            while row < rows {
                if rows - row >= TILE {
                    emit(part, panel, row, tile::<TILE>(isa, part.matrix, panel, x, row), &out, stride);
                    row += TILE;
                } else {
                    emit(part, panel, row, tile::<1>(isa, part.matrix, panel, x, row), &out, stride);
                    row += 1;
                }
            }
        }
    });
}

/// Adds the bias and writes a tile where it belongs.
fn emit<const T: usize>(
    part: &Part<'_>,
    panel: usize,
    row: usize,
    tile: Tile<T>,
    out: &Shared<'_, f32>,
    stride: usize,
) {
    let lanes = LANES.min(part.matrix.rows() - panel * LANES);
    for (t, sums) in tile.iter().enumerate() {
        let start = (row + t) * stride + part.column + panel * LANES;
        // SAFETY: a panel of a part belongs to one task, and its columns of a row to that panel alone.
        #[allow(unsafe_code, reason = "tasks write disjoint columns of one buffer")]
        let to = unsafe { out.slice(start, lanes) };
        match part.bias {
            None => to.copy_from_slice(&sums[..lanes]),
            Some(bias) => {
                let bias = &bias[panel * LANES..][..lanes];
                to.iter_mut().zip(sums.iter().zip(bias)).for_each(|(to, (sum, bias))| *to = sum + bias);
            }
        }
    }
}

/// One panel times `T` rows, by the kernel for the matrix' form and the processor's family.
#[inline(always)]
fn tile<const T: usize>(isa: Isa, matrix: &Matrix, panel: usize, x: &Activations, row: usize) -> Tile<T> {
    let columns = panel * matrix.columns()..(panel + 1) * matrix.columns();
    let blocks = columns.start / BLOCK..columns.end / BLOCK;
    #[cfg(target_arch = "x86_64")]
    {
        use super::x86;
        #[allow(unsafe_code, reason = "calling code compiled for detected instructions")]
        // SAFETY: `isa` comes from `Isa::available`, which asked the processor.
        unsafe {
            match (&matrix.data, isa) {
                (Data::F32(data), Isa::Avx2 | Isa::Avx512) => return x86::f32_avx2(&data[columns], x, row),
                (Data::F16(data), Isa::Avx2 | Isa::Avx512) => return x86::f16_avx2(&data[columns], x, row),
                (Data::Bf16(data), Isa::Avx2 | Isa::Avx512) => return x86::bf16_avx2(&data[columns], x, row),
                (Data::Q8(data), Isa::Avx2) => return x86::q8_avx2(&data[blocks], x, row),
                (Data::Q4(data), Isa::Avx2) => return x86::q4_avx2(&data[blocks], x, row),
                (Data::Q4Offset(data), Isa::Avx2) => return x86::offset_avx2(&data[blocks], x, row),
                (Data::Q5Offset(data), Isa::Avx2) => return x86::offset_avx2(&data[blocks], x, row),
                (Data::Q8(data), Isa::Avx512) => return x86::q8_avx512(&data[blocks], x, row),
                (Data::Q4(data), Isa::Avx512) => return x86::q4_avx512(&data[blocks], x, row),
                (Data::Q4Offset(data), Isa::Avx512) => return x86::offset_avx512(&data[blocks], x, row),
                (Data::Q5Offset(data), Isa::Avx512) => return x86::offset_avx512(&data[blocks], x, row),
                _ => {}
            }
        }
    }
    #[cfg(target_arch = "aarch64")]
    {
        use super::neon;
        #[allow(unsafe_code, reason = "calling code compiled for detected instructions")]
        // SAFETY: `isa` comes from `Isa::available`, which asked the processor.
        unsafe {
            match (&matrix.data, isa) {
                (Data::Q8(data), Isa::Neon) => return neon::q8_neon(&data[blocks], x, row),
                (Data::Q4(data), Isa::Neon) => return neon::q4_neon(&data[blocks], x, row),
                (Data::Q4Offset(data), Isa::Neon) => return neon::offset_neon(&data[blocks], x, row),
                (Data::Q5Offset(data), Isa::Neon) => return neon::offset_neon(&data[blocks], x, row),
                (Data::Q8(data), Isa::Dotprod) => return neon::q8_dotprod(&data[blocks], x, row),
                (Data::Q4(data), Isa::Dotprod) => return neon::q4_dotprod(&data[blocks], x, row),
                (Data::Q4Offset(data), Isa::Dotprod) => return neon::offset_dotprod(&data[blocks], x, row),
                (Data::Q5Offset(data), Isa::Dotprod) => return neon::offset_dotprod(&data[blocks], x, row),
                (Data::Q8(data), Isa::I8mm) => return neon::q8_i8mm(&data[blocks], x, row),
                (Data::Q4(data), Isa::I8mm) => return neon::q4_i8mm(&data[blocks], x, row),
                (Data::Q4Offset(data), Isa::I8mm) => return neon::offset_i8mm(&data[blocks], x, row),
                (Data::Q5Offset(data), Isa::I8mm) => return neon::offset_i8mm(&data[blocks], x, row),
                _ => {}
            }
        }
    }
    #[cfg(target_arch = "wasm32")]
    {
        use super::wasm;
        match (&matrix.data, isa) {
            (Data::Q8(data), Isa::Wasm) => return wasm::q8(&data[blocks], x, row),
            (Data::Q4(data), Isa::Wasm) => return wasm::q4(&data[blocks], x, row),
            (Data::Q4Offset(data), Isa::Wasm) => return wasm::offset(&data[blocks], x, row),
            (Data::Q5Offset(data), Isa::Wasm) => return wasm::offset(&data[blocks], x, row),
            _ => {}
        }
    }
    let _ = isa;
    match &matrix.data {
        Data::F32(data) => scalar::float(&data[columns], |w| w, x, row),
        Data::F16(data) => scalar::float(&data[columns], widen, x, row),
        Data::Bf16(data) => scalar::float(&data[columns], brain, x, row),
        Data::Q8(data) => scalar::q8(&data[blocks], x, row),
        Data::Q4(data) => scalar::q4(&data[blocks], x, row),
        Data::Q4Offset(data) => scalar::offset(&data[blocks], x, row),
        Data::Q5Offset(data) => scalar::offset(&data[blocks], x, row),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::kernels::Form;

    /// Every family of kernels gives the specification's bits, for whole panels and tails, tiles and single rows.
    fn check(form: Form, rows: usize, columns: usize, inputs: usize, weights: &[f32], values: &[f32]) {
        let mut matrix = Matrix::new(form, rows, columns).expect("a matrix");
        let mut cycle = weights.iter().copied().cycle();
        for _ in 0..rows {
            matrix.push_floats(&cycle.by_ref().take(columns).collect::<Vec<_>>());
        }
        let mut x = Activations::default();
        let mut cycle = values.iter().copied().cycle();
        x.reshape(inputs, columns).fill_with(|| cycle.next().expect("values"));
        x.quantize(&Pool::new(1));
        let product = |isa| {
            let mut out = vec![f32::NAN; inputs * (rows + 3)];
            let parts = [Part { matrix: &matrix, bias: None, column: 2 }];
            matmul(&Pool::new(1), isa, &x, &parts, &mut out, rows + 3);
            out.iter().map(|v| v.to_bits()).collect::<Vec<_>>()
        };
        let expected = product(Isa::Scalar);
        for isa in Isa::available() {
            assert!(
                product(isa) == expected,
                "{form:?} {rows} x {columns} with {inputs} rows: {isa:?} differs"
            );
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn kernels_give_the_specified_bits(
            rows in 1_usize..50,
            blocks in 1_usize..6,
            inputs in 1_usize..7,
            weights in prop::collection::vec(-3.0_f32..3.0, 97),
            values in prop::collection::vec(-20.0_f32..20.0, 89),
        ) {
            for form in [Form::F32, Form::F16, Form::Bf16, Form::Q8, Form::Q4, Form::Q4Offset, Form::Q5Offset] {
                check(form, rows, blocks * BLOCK, inputs, &weights, &values);
            }
        }
    }

    #[test]
    fn extremes_do_not_saturate() {
        for form in [Form::Q8, Form::Q4, Form::Q4Offset, Form::Q5Offset] {
            for (weights, values) in [
                (vec![1.0], vec![1.0]),
                (vec![-1.0], vec![1.0]),
                (vec![1.0, -1.0], vec![-1.0, 1.0]),
                (vec![0.0], vec![0.0]),
                (vec![60000.0, -60000.0], vec![1e30, -1e30]),
                (vec![1e-7], vec![1e-30]),
            ] {
                check(form, 17, 64, 5, &weights, &values);
            }
        }
    }
}
