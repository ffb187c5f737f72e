//! How large a model will be in memory, from the headers of its files.
//!
//! The tensors' data are not read and nothing is allocated for them, so that a model that cannot fit is refused
//! before minutes are spent on it. Norms and biases are widened to 32 bits, matrices are packed in panels.

use std::io::{Read, Seek};

use crate::gguf::{GgmlDType, Gguf};
use crate::hf::Folder;
use crate::kernels::Form;
use crate::load::Quantize;

impl<R: Read + Seek> Gguf<R> {
    /// Bytes of the weights once they are loaded, quantised as wanted; `None` if beyond 64 bits.
    pub fn packed_bytes(&self, quantize: Option<Quantize>) -> Option<u64> {
        sum(self.tensors().iter().map(|(name, tensor)| {
            let rows = (tensor.shape.len() > 1).then(|| tensor.rows());
            packed(name, tensor.dtype, rows, tensor.columns(), quantize)
        }))
    }
}

impl Folder {
    /// As [`Gguf::packed_bytes`]. Tensors that the family has no use for are counted as well. A family that this
    /// engine does not compute is one that somebody else keeps in 32 bits.
    pub fn packed_bytes(&self, quantize: Option<Quantize>) -> Option<u64> {
        if !self.is_decoder() {
            return sum(self.shapes().map(|(.., shape)| widened(shape)));
        }
        let tied = self.config().get("tie_word_embeddings").and_then(serde_json::Value::as_bool);
        sum(self.shapes().filter_map(|(name, dtype, shape)| {
            let name = gguf_name(name);
            if name == "output" && tied == Some(true) {
                return None;
            }
            let columns = shape.last().copied().unwrap_or(1);
            let rows = (shape.len() > 1).then(|| shape.iter().rev().skip(1).product());
            Some(packed(name, dtype, rows, columns, quantize))
        }))
    }
}

/// What [`Quantize`] calls a tensor of a folder: three of them are not treated as the others are.
fn gguf_name(name: &str) -> &str {
    let stem = name.strip_suffix(".weight").unwrap_or(name);
    match stem.rsplit('.').next() {
        Some("embed_tokens" | "wte" | "embed_in") => "token_embd",
        Some("lm_head" | "embed_out") => "output",
        Some("wpe") => "position_embd",
        _ => name,
    }
}

/// Bytes of a matrix, or of a vector if there are no rows.
fn packed(
    name: &str,
    dtype: GgmlDType,
    rows: Option<usize>,
    columns: usize,
    quantize: Option<Quantize>,
) -> Option<u64> {
    match rows {
        None => (columns as u64).checked_mul(4),
        Some(rows) => Quantize::form(quantize, Form::of(dtype), name, columns).bytes(rows, columns),
    }
}

/// Bytes of a tensor's elements in 32 bits.
fn widened(shape: &[usize]) -> Option<u64> {
    shape.iter().try_fold(4_u64, |bytes, &length| bytes.checked_mul(length as u64))
}

fn sum(mut sizes: impl Iterator<Item = Option<u64>>) -> Option<u64> {
    sizes.try_fold(0_u64, |sum, size| sum.checked_add(size?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matrices_are_packed_and_vectors_are_widened() {
        let q4 = Some(Quantize::Q4_0);
        for (name, dtype, rows, columns, quantize, expected) in [
            ("output_norm.weight", GgmlDType::F16, None, 100, q4, 400),
            ("blk.0.ffn_up.weight", GgmlDType::F16, Some(17), 64, None, 32 * 64 * 2),
            ("blk.0.ffn_up.weight", GgmlDType::F16, Some(16), 64, q4, 2 * 16 * (16 + 2)),
            ("token_embd.weight", GgmlDType::F16, Some(16), 64, q4, 2 * 16 * (32 + 2)),
            ("blk.0.ffn_up.weight", GgmlDType::Q8_0, Some(16), 64, q4, 2 * 16 * (32 + 2)),
        ] {
            let found = packed(name, dtype, rows, columns, quantize);
            assert_eq!(found, Some(expected), "{name} {dtype:?} {rows:?} {columns}");
        }
        assert_eq!(packed("a", GgmlDType::F32, Some(usize::MAX), usize::MAX, None), None);
        assert_eq!((widened(&[3, 5]), widened(&[usize::MAX, usize::MAX])), (Some(60), None));
    }

    #[test]
    fn a_folders_special_tensors_are_known() {
        for (name, expected) in [
            ("model.embed_tokens.weight", "token_embd"),
            ("lm_head.weight", "output"),
            ("transformer.wpe.weight", "position_embd"),
            ("model.norm.weight", "model.norm.weight"),
        ] {
            assert_eq!(gguf_name(name), expected);
        }
    }
}
