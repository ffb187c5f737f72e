//! How large a baked model will be, from the header of its file.
//!
//! A core module, weights included, may have 1 GiB: wasmtime, V8 and others refuse more. It is better
//! to hear that before the weights are read than after.

use anyhow::{Context, bail};
use bytesize::ByteSize;
use std::fs::File;
use std::io::BufReader;
use wafer_engine::Gguf;
use wafer_engine::kernels::Form;

use crate::model::Mount;
use crate::report::WithHint;

/// Bytes that a core module may have.
const LARGEST_MODULE: u64 = 1 << 30;

/// Bytes of the model's weights in the form that the engine keeps them in; none where the model is not
/// a single GGUF file.
pub(super) fn weights(mount: &Mount) -> anyhow::Result<Option<u64>> {
    let Some(path) = mount.file() else { return Ok(None) };
    let file = File::open(&path).with_context(|| format!("cannot open {}", mount.name))?;
    let gguf = Gguf::open(BufReader::new(file)).with_context(|| format!("cannot read {}", mount.name))?;
    let packed = gguf.tensors().values().try_fold(0_u64, |sum, tensor| {
        sum.checked_add(match tensor.shape.len() {
            // Norms and biases are widened.
            0 | 1 => 4 * tensor.columns() as u64,
            _ => Form::of(tensor.dtype).bytes(tensor.rows(), tensor.columns())?,
        })
    });
    Ok(packed)
}

/// Refuses what cannot fit beside `code`, the component's own bytes.
pub(super) fn check(weights: u64, code: u64) -> anyhow::Result<()> {
    let total = weights.saturating_add(code);
    if total <= LARGEST_MODULE {
        return Ok(());
    }
    refuse(total)
}

/// Refuses a component that became too large all the same.
pub(super) fn check_baked(bytes: usize) -> anyhow::Result<()> {
    if bytes as u64 <= LARGEST_MODULE { Ok(()) } else { refuse(bytes as u64) }
}

fn refuse(bytes: u64) -> anyhow::Result<()> {
    let refused = || -> anyhow::Result<()> {
        bail!(
            "baked, the model would have {}, a WebAssembly module may have {}",
            ByteSize(bytes),
            ByteSize(LARGEST_MODULE)
        )
    };
    refused().hint("choose a smaller or more strongly quantised model, or --engine native, which reads the file as it is")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_fit_is_refused_with_its_size() {
        for (weights, fits) in
            [(0, true), (LARGEST_MODULE - 10, true), (LARGEST_MODULE, false), (u64::MAX, false)]
        {
            let checked = check(weights, 10);
            assert_eq!(checked.is_ok(), fits, "{weights}");
            if let Err(error) = checked {
                assert!(error.to_string().contains("1.0 GiB"), "{error}");
            }
        }
    }
}
