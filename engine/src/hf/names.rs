//! What the tensors of Hugging Face's families are called, by their names in GGUF files.

/// Where a tensor is, and how it lies there.
#[derive(Debug, PartialEq)]
pub(super) struct Place {
    /// The name in the folder.
    pub(super) name: String,
    pub(super) layout: Layout,
    /// One is added to every element: Gemma's norms are stored as differences from one.
    pub(super) plus_one: bool,
}

/// How the rows of a matrix lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// `[outputs, inputs]`.
    Rows,
    /// `[inputs, outputs]`: GPT-2's.
    Transposed,
    /// Query, key and value of the first head, then those of the second: GPT-NeoX's.
    HeadByHead,
}

/// The place of the tensor `name` in folders of the family `architecture`, both by GGUF's names. `None` if the
/// family has none.
pub(super) fn place(architecture: &str, name: &str) -> Option<Place> {
    let (stem, kind) = name.rsplit_once('.')?;
    let (layer, part) = match stem.strip_prefix("blk.") {
        Some(rest) => rest.split_once('.').map(|(layer, part)| (Some(layer), part))?,
        None => (None, stem),
    };
    let (layers, (found, layout)) = match architecture {
        "gpt2" => ("h", gpt2(part)?),
        "gptneox" => ("gpt_neox.layers", gpt_neox(part)?),
        _ => ("model.layers", (llama(architecture, part)?, Layout::Rows)),
    };
    let name = match layer {
        Some(layer) => format!("{layers}.{layer}.{found}.{kind}"),
        None => format!("{found}.{kind}"),
    };
    let plus_one = architecture.starts_with("gemma") && part.ends_with("norm");
    Some(Place { name, layout, plus_one })
}

/// Llama and all who kept its names.
fn llama(architecture: &str, part: &str) -> Option<&'static str> {
    let gemma = architecture.starts_with("gemma");
    Some(match part {
        "token_embd" => "model.embed_tokens",
        "output_norm" => "model.norm",
        "output" => "lm_head",
        "attn_norm" => "input_layernorm",
        "attn_q" => "self_attn.q_proj",
        "attn_k" => "self_attn.k_proj",
        "attn_v" => "self_attn.v_proj",
        "attn_qkv" => "self_attn.qkv_proj",
        "attn_q_norm" => "self_attn.q_norm",
        "attn_k_norm" => "self_attn.k_norm",
        "attn_output" => "self_attn.o_proj",
        // Gemma has norms before and after, and Llama's name for the first means the second there.
        "ffn_norm" if gemma => "pre_feedforward_layernorm",
        "ffn_norm" => "post_attention_layernorm",
        "post_attention_norm" if gemma => "post_attention_layernorm",
        "post_ffw_norm" if gemma => "post_feedforward_layernorm",
        "ffn_up" if architecture == "phi3" => "mlp.gate_up_proj",
        "ffn_gate" => "mlp.gate_proj",
        "ffn_up" => "mlp.up_proj",
        "ffn_down" => "mlp.down_proj",
        _ => return None,
    })
}

fn gpt2(part: &str) -> Option<(&'static str, Layout)> {
    Some(match part {
        "token_embd" => ("wte", Layout::Rows),
        "position_embd" => ("wpe", Layout::Rows),
        "output_norm" => ("ln_f", Layout::Rows),
        "output" => ("lm_head", Layout::Rows),
        "attn_norm" => ("ln_1", Layout::Rows),
        "attn_qkv" => ("attn.c_attn", Layout::Transposed),
        "attn_output" => ("attn.c_proj", Layout::Transposed),
        "ffn_norm" => ("ln_2", Layout::Rows),
        "ffn_up" => ("mlp.c_fc", Layout::Transposed),
        "ffn_down" => ("mlp.c_proj", Layout::Transposed),
        _ => return None,
    })
}

fn gpt_neox(part: &str) -> Option<(&'static str, Layout)> {
    Some(match part {
        "token_embd" => ("gpt_neox.embed_in", Layout::Rows),
        "output_norm" => ("gpt_neox.final_layer_norm", Layout::Rows),
        "output" => ("embed_out", Layout::Rows),
        "attn_norm" => ("input_layernorm", Layout::Rows),
        "attn_qkv" => ("attention.query_key_value", Layout::HeadByHead),
        "attn_output" => ("attention.dense", Layout::Rows),
        "ffn_norm" => ("post_attention_layernorm", Layout::Rows),
        "ffn_up" => ("mlp.dense_h_to_4h", Layout::Rows),
        "ffn_down" => ("mlp.dense_4h_to_h", Layout::Rows),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_have_their_names() {
        let check = |architecture: &str, name: &str, expected: Option<(&str, Layout, bool)>| {
            let expected =
                expected.map(|(name, layout, plus_one)| Place { name: name.to_owned(), layout, plus_one });
            assert_eq!(place(architecture, name), expected, "{architecture} {name}");
        };
        use Layout::{HeadByHead, Rows, Transposed};
        check("llama", "token_embd.weight", Some(("model.embed_tokens.weight", Rows, false)));
        let norm = "model.layers.3.post_attention_layernorm.weight";
        check("llama", "blk.3.ffn_norm.weight", Some((norm, Rows, false)));
        check("llama", "blk.3.post_ffw_norm.weight", None);
        check("gemma2", "blk.3.post_attention_norm.weight", Some((norm, Rows, true)));
        check(
            "gemma3",
            "blk.0.attn_k_norm.weight",
            Some(("model.layers.0.self_attn.k_norm.weight", Rows, true)),
        );
        check("phi3", "blk.0.ffn_up.weight", Some(("model.layers.0.mlp.gate_up_proj.weight", Rows, false)));
        check("gpt2", "blk.11.attn_qkv.bias", Some(("h.11.attn.c_attn.bias", Transposed, false)));
        check("gpt2", "blk.11.attn_q.weight", None);
        let fused = "gpt_neox.layers.1.attention.query_key_value.weight";
        check("gptneox", "blk.1.attn_qkv.weight", Some((fused, HeadByHead, false)));
        check("gptneox", "rope_freqs.weight", None);
    }
}
