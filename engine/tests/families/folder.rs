//! The little models as Hugging Face folders, for the families of which there is no folder made by transformers.
//!
//! Names and layouts are those of transformers' code, written down here independently of what the engine makes of
//! them: Gemma's norms are differences from one, and heads are rotated by halves.

use std::collections::HashMap;
use std::path::Path;

use candle_core::Tensor;
use serde_json::Value;

use crate::file::Tiny;

/// Transformers' names of a layer's parts, by GGUF's.
const PARTS: &[(&str, &str)] = &[
    ("attn_norm", "input_layernorm"),
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_q_norm", "self_attn.q_norm"),
    ("attn_k_norm", "self_attn.k_norm"),
    ("attn_output", "self_attn.o_proj"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_down", "mlp.down_proj"),
];

/// The norms around the network, which are Gemma's alone but for one.
fn norm(part: &str, gemma: bool) -> Option<&'static str> {
    Some(match (part, gemma) {
        ("post_attention_norm", true) | ("ffn_norm", false) => "post_attention_layernorm",
        ("ffn_norm", true) => "pre_feedforward_layernorm",
        ("post_ffw_norm", true) => "post_feedforward_layernorm",
        _ => return None,
    })
}

/// Writes config.json and model.safetensors.
pub(crate) fn write(tiny: &Tiny, config: &Value, folder: &Path) {
    let tensors: HashMap<String, Tensor> =
        tiny.floats().into_iter().map(|(name, tensor)| translate(tiny, &name, tensor)).collect();
    candle_core::safetensors::save(&tensors, folder.join("model.safetensors")).expect("a file");
    std::fs::write(folder.join("config.json"), config.to_string()).expect("a file");
}

fn translate(tiny: &Tiny, name: &str, tensor: Tensor) -> (String, Tensor) {
    let gemma = tiny.architecture.starts_with("gemma");
    let stem = name.strip_suffix(".weight").expect("no biases");
    let part = stem.rsplit('.').next().unwrap_or(stem);
    let tensor = match part {
        "attn_q" | "attn_k" if tiny.architecture == "smollm3" => halves(&tensor, tiny.head_dim),
        _ if gemma && part.ends_with("norm") => (tensor - 1.0).expect("a difference"),
        _ => tensor,
    };
    let name = match stem.strip_prefix("blk.").and_then(|rest| rest.split_once('.')) {
        Some((layer, part)) => {
            let known = PARTS.iter().find(|(gguf, _)| *gguf == part).map(|(_, name)| *name);
            let found = known.or(norm(part, gemma)).expect("a known part");
            format!("model.layers.{layer}.{found}.weight")
        }
        None if stem == "token_embd" => "model.embed_tokens.weight".to_owned(),
        None => "model.norm.weight".to_owned(),
    };
    (name, tensor)
}

/// Rows 2i and 2i + 1 of a head become rows i and i + half: GGUF's layout of Llama's relatives, undone.
fn halves(tensor: &Tensor, head_dim: usize) -> Tensor {
    let (rows, columns) = tensor.dims2().expect("a matrix");
    let pairs = tensor.reshape((rows / head_dim, head_dim / 2, 2, columns)).expect("pairs of rows");
    let halves = pairs.transpose(1, 2).and_then(|halves| halves.contiguous()).expect("halves of heads");
    halves.reshape((rows, columns)).expect("a matrix")
}
