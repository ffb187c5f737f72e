//! The families that are BERT underneath, and what they call things.
//!
//! RoBERTa is BERT whose positions begin after that of padding; DistilBERT is BERT without token types and under other
//! names. So there is one computation, and what differs is data.

use serde::Deserialize;
use serde_json::Value;

use crate::error::{Error, Result};
use crate::weights::Names;

/// A family's differences from BERT.
#[derive(Debug)]
pub(crate) struct Family {
    /// transformers' `model_type`.
    pub(crate) name: &'static str,
    pub(super) names: Names,
    /// Positions are counted from the one after `pad_token_id`.
    pub(super) positions_after_padding: bool,
    pub(super) token_types: bool,
    /// Layers between the first token's vector and the labels.
    pub(super) head: Head,
}

/// Names and activation of a classifier.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) dense: &'static str,
    pub(super) activation: Activation,
    pub(super) out: &'static str,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Activation {
    Tanh,
    Relu,
}

const ROBERTA: Names = Names { prefixes: &["", "roberta."], parts: &[] };
const ROBERTA_HEAD: Head =
    Head { dense: "classifier.dense", activation: Activation::Tanh, out: "classifier.out_proj" };

static FAMILIES: [Family; 5] = [
    Family {
        name: "bert",
        names: Names { prefixes: &["", "bert."], parts: &[] },
        positions_after_padding: false,
        token_types: true,
        head: Head { dense: "pooler.dense", activation: Activation::Tanh, out: "classifier" },
    },
    Family {
        name: "distilbert",
        names: Names {
            prefixes: &["", "distilbert."],
            parts: &[
                ("encoder.layer.", "transformer.layer."),
                (".attention.self.query.", ".attention.q_lin."),
                (".attention.self.key.", ".attention.k_lin."),
                (".attention.self.value.", ".attention.v_lin."),
                (".attention.output.dense.", ".attention.out_lin."),
                (".attention.output.LayerNorm.", ".sa_layer_norm."),
                (".intermediate.dense.", ".ffn.lin1."),
                (".output.dense.", ".ffn.lin2."),
                (".output.LayerNorm.", ".output_layer_norm."),
            ],
        },
        positions_after_padding: false,
        token_types: false,
        head: Head { dense: "pre_classifier", activation: Activation::Relu, out: "classifier" },
    },
    Family {
        name: "roberta",
        names: ROBERTA,
        positions_after_padding: true,
        token_types: true,
        head: ROBERTA_HEAD,
    },
    Family {
        name: "xlm-roberta",
        names: ROBERTA,
        positions_after_padding: true,
        token_types: true,
        head: ROBERTA_HEAD,
    },
    Family {
        name: "camembert",
        names: ROBERTA,
        positions_after_padding: true,
        token_types: true,
        head: ROBERTA_HEAD,
    },
];

/// The family of that name.
pub(crate) fn find(name: &str) -> Option<&'static Family> {
    FAMILIES.iter().find(|family| family.name == name)
}

/// The names of all families.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    FAMILIES.iter().map(|family| family.name)
}

/// The part of config.json that decides the computation, under BERT's names and DistilBERT's.
#[derive(Debug, Deserialize)]
pub(super) struct Settings {
    pub(super) vocab_size: usize,
    #[serde(alias = "dim")]
    pub(super) hidden_size: usize,
    #[serde(alias = "n_layers")]
    pub(super) num_hidden_layers: usize,
    #[serde(alias = "n_heads")]
    pub(super) num_attention_heads: usize,
    #[serde(alias = "hidden_dim")]
    pub(super) intermediate_size: usize,
    #[serde(alias = "activation", default = "gelu")]
    pub(super) hidden_act: String,
    pub(super) max_position_embeddings: usize,
    #[serde(default)]
    pub(super) type_vocab_size: Option<usize>,
    #[serde(default = "epsilon")]
    pub(super) layer_norm_eps: f64,
    #[serde(default)]
    pub(super) pad_token_id: Option<usize>,
    #[serde(default)]
    position_embedding_type: Option<String>,
    #[serde(default)]
    is_decoder: bool,
}

fn gelu() -> String {
    "gelu".into()
}

/// What DistilBERT has, whose configuration does not say.
fn epsilon() -> f64 {
    1e-12
}

impl Settings {
    /// Reads and checks config.json. Whether the numbers fit the tensors shows when those are read.
    pub(super) fn read(config: &Value) -> Result<Self> {
        let settings = Self::deserialize(config)
            .map_err(|error| Error::Model(format!("config.json cannot be used: {error}")))?;
        let wrong = |text: String| Err(Error::Model(format!("config.json: {text}")));
        let (dim, heads) = (settings.hidden_size, settings.num_attention_heads);
        for (name, size) in [
            ("vocab_size", settings.vocab_size),
            ("hidden_size", dim),
            ("num_hidden_layers", settings.num_hidden_layers),
            ("num_attention_heads", heads),
            ("intermediate_size", settings.intermediate_size),
            ("max_position_embeddings", settings.max_position_embeddings),
            ("type_vocab_size", settings.type_vocab_size.unwrap_or(1)),
        ] {
            if size == 0 {
                return wrong(format!("{name} is 0, it must be at least 1"));
            }
        }
        if !dim.is_multiple_of(heads) {
            return wrong(format!("{heads} heads do not divide a hidden size of {dim}"));
        }
        if !(settings.layer_norm_eps.is_finite() && settings.layer_norm_eps >= 0.0) {
            return wrong(format!("layer_norm_eps is {}", settings.layer_norm_eps));
        }
        match settings.position_embedding_type.as_deref() {
            None | Some("absolute") => {}
            Some(other) => return wrong(format!("position_embedding_type {other:?}, known is absolute")),
        }
        if settings.is_decoder {
            return wrong("is_decoder is true, only encoders are supported".into());
        }
        Ok(settings)
    }
}
