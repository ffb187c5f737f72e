//! Arithmetic on floats: norms and activations.
//!
//! Written as plain loops over fixed groups of lanes, so that the order of every sum is the same whatever the
//! vectors' width: the results have one value on every machine. `exp` is our own for the same reason.

use super::block::{LANES, narrow};
use super::isa::multiversion;

/// Adds up lanes in halves: 8 and 8, 4 and 4, 2 and 2, 1 and 1.
#[inline(always)]
pub(super) fn reduce(mut lanes: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// Sums `f(x)` over a slice, in lanes; the tail that fills no group goes to the first lanes.
#[inline(always)]
fn sum(x: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let (groups, tail) = x.as_chunks::<LANES>();
    let mut lanes = [0.0; LANES];
    for group in groups {
        for i in 0..LANES {
            lanes[i] += f(group[i]);
        }
    }
    for (lane, &x) in lanes.iter_mut().zip(tail) {
        *lane += f(x);
    }
    reduce(lanes)
}

/// `e^x`, within 2 units in the last place; results below 1e-38 become about 1e-38, and above 1e38 about 1e38.
///
/// The method of Cephes' `expf`: `2^n · e^r` with `|r| ≤ ln 2 / 2` and a polynomial of degree 7.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    // A NaN becomes the lower bound: comparisons with it are false.
    let x = if x > -87.0 { x } else { -87.0 };
    let x = if x < 88.0 { x } else { 88.0 };
    // Adding 1.5 · 2^23 rounds to the nearest integer, and leaves it in the low bits.
    let shifted = x * std::f32::consts::LOG2_E + 12_582_912.0;
    let n = shifted - 12_582_912.0;
    let r = x - n * 0.693_359_4 + n * 2.121_944_4e-4;
    let mut p = 1.987_569_1e-4;
    for c in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        p = p * r + c;
    }
    let power = f32::from_bits(shifted.to_bits().wrapping_add(127) << 23);
    (p * (r * r) + r + 1.0) * power
}

multiversion! {
    /// Root mean square norm: `x / sqrt(mean(x²) + epsilon) · weight` (Zhang and Sennrich, 2019).
    pub fn rms_norm(x: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) {
        let scale = 1.0 / (sum(x, |x| x * x) / x.len() as f32 + epsilon).sqrt();
        for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
            *out = x * scale * weight;
        }
    }
}

multiversion! {
    /// Layer norm: `(x − mean) / sqrt(variance + epsilon) · weight + bias` (Ba et al., 2016). An empty `bias` is
    /// none.
    pub fn layer_norm(x: &[f32], weight: &[f32], bias: &[f32], epsilon: f32, out: &mut [f32]) {
        let mean = sum(x, |x| x) / x.len() as f32;
        let variance = sum(x, |x| (x - mean) * (x - mean)) / x.len() as f32;
        let scale = 1.0 / (variance + epsilon).sqrt();
        for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
            *out = (x - mean) * scale * weight;
        }
        for (out, bias) in out.iter_mut().zip(bias) {
            *out += bias;
        }
    }
}

multiversion! {
    /// `x := x · sigmoid(x)`.
    pub fn silu(x: &mut [f32]) {
        for x in x {
            *x /= 1.0 + exp(-*x);
        }
    }
}

multiversion! {
    /// The Gaussian error linear unit by its tanh approximation (Hendrycks and Gimpel, 2016), in place.
    pub fn gelu(x: &mut [f32]) {
        for x in x {
            let inner = 0.797_884_6 * (*x + 0.044_715 * *x * *x * *x);
            // (1 + tanh u) / 2 = 1 / (1 + e^(−2u))
            *x /= 1.0 + exp(-2.0 * inner);
        }
    }
}

/// The Gaussian error linear unit by the error function, in place.
pub fn gelu_erf(x: &mut [f32]) {
    for x in x {
        *x = 0.5 * *x * (1.0 + libm::erff(*x * std::f32::consts::FRAC_1_SQRT_2));
    }
}

/// `limit · tanh(x / limit)`: soft-capping, as Gemma 2 does with logits and scores.
#[inline(always)]
pub(crate) fn softcap(x: f32, limit: f32) -> f32 {
    let t = exp(-2.0 * (x / limit).abs());
    let tanh = (1.0 - t) / (1.0 + t);
    limit * if x < 0.0 { -tanh } else { tanh }
}

multiversion! {
    /// Rounds a row to half precision, as the KV cache keeps it.
    pub fn half_row(x: &[f32], out: &mut [u16]) {
        for (out, &x) in out.iter_mut().zip(x) {
            *out = narrow(x);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_close_to_the_true_value() {
        for step in -8700..8800 {
            let x = step as f32 / 100.0;
            let expected = f64::from(x).exp();
            let error = (f64::from(exp(x)) - expected).abs() / expected;
            assert!(error < 2.4e-7, "exp({x}) is off by {error:e}");
        }
        assert!(exp(f32::NEG_INFINITY) < 2e-38 && exp(1000.0).is_finite() && exp(f32::NAN).is_finite());
    }

    #[test]
    fn activations_have_their_defined_values() {
        let check = |f: fn(&mut [f32]), defined: fn(f64) -> f64, limit: f64| {
            let mut x: Vec<f32> = (-80..=80).map(|i| i as f32 / 10.0).collect();
            let expected: Vec<f64> = x.iter().map(|&x| defined(x.into())).collect();
            f(&mut x);
            for (got, expected) in x.iter().zip(expected) {
                assert!((f64::from(*got) - expected).abs() < limit, "{got} instead of {expected}");
            }
        };
        check(silu, |x| x / (1.0 + (-x).exp()), 1e-6);
        check(gelu, |x| 0.5 * x * (1.0 + (0.7978845608 * (x + 0.044715 * x.powi(3))).tanh()), 1e-6);
        check(gelu_erf, |x| 0.5 * x * (1.0 + libm::erf(x / 2.0_f64.sqrt())), 1e-6);
    }
}
