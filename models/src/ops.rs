//! Three row-wise operations with their derivatives, each fused into one pass.
//!
//! Written with candle's tensor operations they would take about half of the training time on a
//! CPU, because every intermediate goes through memory. They work on contiguous f32 rows.

use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Tensor, bail};
use std::ops::Range;
use std::sync::Arc;

/// The contiguous f32 data of a tensor on the CPU.
fn data<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&storage.as_slice::<f32>()?[start..end]),
        None => bail!("a row-wise operation needs contiguous data"),
    }
}

/// Applies `f(row number, row, output row)` to every row of the last dimension.
fn rows(
    storage: &CpuStorage,
    layout: &Layout,
    f: impl Fn(usize, &[f32], &mut [f32]),
) -> Result<(CpuStorage, Shape)> {
    let x = data(storage, layout)?;
    let width = layout.shape().dims().last().copied().unwrap_or(1);
    let mut out = vec![0f32; x.len()];
    for (n, (row, out)) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)).enumerate() {
        f(n, row, out);
    }
    Ok((CpuStorage::F32(out), layout.shape().clone()))
}

/// As [`rows`], with the rows of two tensors of the same shape.
fn row_pairs(
    (a, a_layout): (&CpuStorage, &Layout),
    (b, b_layout): (&CpuStorage, &Layout),
    f: impl Fn(usize, &[f32], &[f32], &mut [f32]),
) -> Result<(CpuStorage, Shape)> {
    if a_layout.shape() != b_layout.shape() {
        bail!("shapes differ: {:?} and {:?}", a_layout.shape(), b_layout.shape());
    }
    let b = data(b, b_layout)?;
    let width = a_layout.shape().dims().last().copied().unwrap_or(1);
    rows(a, a_layout, |n, a, out| f(n, a, &b[n * width..(n + 1) * width], out))
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    // Eight sums side by side, which the compiler turns into vector instructions.
    let mut sums = [0f32; 8];
    let (a8, b8) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest: f32 = a8.remainder().iter().zip(b8.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in a8.zip(b8) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += a * b;
        }
    }
    sums.iter().sum::<f32>() + rest
}

/// Each row divided by its root mean square: RMSNorm without its weight.
#[derive(Clone, Copy)]
pub(crate) struct Normalise {
    /// Added to the mean square.
    pub(crate) epsilon: f32,
}

impl Normalise {
    fn scale(self, row: &[f32]) -> f32 {
        (dot(row, row) / row.len() as f32 + self.epsilon).sqrt().recip()
    }
}

impl CustomOp1 for Normalise {
    fn name(&self) -> &'static str {
        "normalise"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        rows(storage, layout, |_, row, out| {
            let scale = self.scale(row);
            out.iter_mut().zip(row).for_each(|(out, x)| *out = x * scale);
        })
    }

    fn bwd(&self, arg: &Tensor, _res: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        struct Backward(Normalise);
        impl CustomOp2 for Backward {
            fn name(&self) -> &'static str {
                "normalise-backward"
            }
            fn cpu_fwd(
                &self,
                x: &CpuStorage,
                x_layout: &Layout,
                grad: &CpuStorage,
                grad_layout: &Layout,
            ) -> Result<(CpuStorage, Shape)> {
                row_pairs((x, x_layout), (grad, grad_layout), |_, x, grad, out| {
                    let scale = self.0.scale(x);
                    let along = dot(x, grad) * scale * scale / x.len() as f32;
                    for ((out, x), grad) in out.iter_mut().zip(x).zip(grad) {
                        *out = scale * (grad - x * along);
                    }
                })
            }
        }
        arg.apply_op2_no_bwd(&grad.contiguous()?, &Backward(*self)).map(Some)
    }
}

/// Softmax of scaled scores `(batch · heads, len, len)` over the positions that a query may see: from
/// where its document starts to its own. The others become 0.
///
/// Rows are queries: those of a sequence in the order of positions, again for every head of the
/// sequence, then the next sequence.
#[derive(Clone)]
pub(crate) struct CausalSoftmax {
    /// Factor of the scores.
    pub(crate) scale: f32,
    /// Positions in a sequence.
    pub(crate) len: usize,
    /// Heads of a sequence.
    pub(crate) heads: usize,
    /// The first position that each position of each sequence sees, `batch · len`.
    pub(crate) starts: Arc<[u32]>,
}

impl CausalSoftmax {
    /// The positions that row `n` sees.
    fn seen(&self, n: usize) -> Range<usize> {
        let (sequence, position) = (n / (self.heads * self.len), n % self.len);
        self.starts[sequence * self.len + position] as usize..position + 1
    }
}

impl CustomOp1 for CausalSoftmax {
    fn name(&self) -> &'static str {
        "causal-softmax"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        rows(storage, layout, |n, row, out| {
            let seen = self.seen(n);
            let (row, out) = (&row[seen.clone()], &mut out[seen]);
            let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let mut sum = 0.;
            for (out, x) in out.iter_mut().zip(row) {
                *out = (self.scale * (x - max)).exp();
                sum += *out;
            }
            out.iter_mut().for_each(|out| *out /= sum);
        })
    }

    fn bwd(&self, _arg: &Tensor, res: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        struct Backward<'a>(&'a CausalSoftmax);
        impl CustomOp2 for Backward<'_> {
            fn name(&self) -> &'static str {
                "causal-softmax-backward"
            }
            fn cpu_fwd(
                &self,
                res: &CpuStorage,
                res_layout: &Layout,
                grad: &CpuStorage,
                grad_layout: &Layout,
            ) -> Result<(CpuStorage, Shape)> {
                row_pairs((res, res_layout), (grad, grad_layout), |n, p, grad, out| {
                    let seen = self.0.seen(n);
                    let (p, grad) = (&p[seen.clone()], &grad[seen.clone()]);
                    let mean = dot(p, grad);
                    for ((out, p), grad) in out[seen].iter_mut().zip(p).zip(grad) {
                        *out = self.0.scale * p * (grad - mean);
                    }
                })
            }
        }
        res.apply_op2_no_bwd(&grad.contiguous()?, &Backward(self)).map(Some)
    }
}

/// Rotary position embedding of `(batch, position, head, width)` on adjacent pairs, the layout of
/// GGUF's `llama` files.
#[derive(Clone, Copy)]
pub(crate) struct Rotate {
    /// Base of the frequencies.
    pub(crate) base: f32,
    /// Turns back instead of forth: the derivative of a rotation.
    pub(crate) back: bool,
}

impl CustomOp1 for Rotate {
    fn name(&self) -> &'static str {
        "rotate"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (_, len, heads, width) = layout.shape().dims4()?;
        let sign = if self.back { -1. } else { 1. };
        let turns: Vec<(f32, f32)> = (0..len)
            .flat_map(|position| (0..width / 2).map(move |pair| (position, pair)))
            .map(|(position, pair)| {
                let frequency = self.base.powf(-2. * pair as f32 / width as f32);
                let (sin, cos) = (position as f32 * frequency).sin_cos();
                (cos, sign * sin)
            })
            .collect();
        rows(storage, layout, |n, row, out| {
            let position = n / heads % len;
            let turns = &turns[position * width / 2..];
            for ((out, x), (cos, sin)) in out.chunks_exact_mut(2).zip(row.chunks_exact(2)).zip(turns) {
                out[0] = x[0] * cos - x[1] * sin;
                out[1] = x[0] * sin + x[1] * cos;
            }
        })
    }

    fn bwd(&self, _arg: &Tensor, _res: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let back = Self { back: !self.back, ..*self };
        grad.contiguous()?.apply_op1_no_bwd(&back).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Var};

    /// The derivative that `bwd` gives agrees with the slope of the function.
    fn check(shape: &[usize], f: impl Fn(&Tensor) -> Result<Tensor>) {
        let run = || -> Result<()> {
            let count: usize = shape.iter().product();
            let values: Vec<f32> = (0..count).map(|n| (n as f32 * 0.7).sin() + 0.1).collect();
            let weights: Vec<f32> = (0..count).map(|n| (n as f32 * 1.3).cos()).collect();
            let weights = Tensor::from_vec(weights, shape, &Device::Cpu)?;
            let loss = |x: &Tensor| (f(x)? * &weights)?.sum_all();
            let x = Var::from_tensor(&Tensor::from_vec(values.clone(), shape, &Device::Cpu)?)?;
            let grads = loss(&x)?.backward()?;
            let grad = grads.get(&x).expect("x has a gradient").flatten_all()?.to_vec1::<f32>()?;
            for n in 0..count {
                let at = |delta: f32| -> Result<f32> {
                    let mut values = values.clone();
                    values[n] += delta;
                    loss(&Tensor::from_vec(values, shape, &Device::Cpu)?)?.to_scalar()
                };
                let slope = (at(1e-2)? - at(-1e-2)?) / 2e-2;
                assert!((slope - grad[n]).abs() < 2e-3, "at {n}: {slope} and {}", grad[n]);
            }
            Ok(())
        };
        run().expect("the operation runs");
    }

    #[test]
    fn derivatives_agree_with_slopes() {
        check(&[3, 16], |x| x.apply_op1(Normalise { epsilon: 1e-5 }));
        check(&[2, 4, 4], |x| x.apply_op1(softmax(0.5, &[0, 0, 1, 1])));
        check(&[1, 3, 2, 4], |x| x.apply_op1(Rotate { base: 100., back: false }));
    }

    fn softmax(scale: f32, starts: &[u32]) -> CausalSoftmax {
        CausalSoftmax { scale, len: 4, heads: 2, starts: starts.into() }
    }

    #[test]
    fn neither_later_positions_nor_other_documents_are_seen() -> Result<()> {
        let scores = Tensor::zeros((2, 4, 4), candle_core::DType::F32, &Device::Cpu)?;
        let rows = scores.apply_op1_no_bwd(&softmax(1., &[0, 0, 2, 2]))?.to_vec3::<f32>()?;
        let head = [[1., 0., 0., 0.], [0.5, 0.5, 0., 0.], [0., 0., 1., 0.], [0., 0., 0.5, 0.5]];
        assert_eq!(rows, [head, head]);
        Ok(())
    }
}
