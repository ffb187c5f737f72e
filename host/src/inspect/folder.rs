//! What a Hugging Face folder says of its model, in the words that GGUF files are described with.
//!
//! Families name the same number differently; all their names are tried. Nothing but headers and JSON is read.

use anyhow::Context;
use serde_json::Value;
use std::fs;
use std::path::Path;
use wafer_engine::Folder;

use super::{Model, quantisation};

/// Reads config.json, the headers of the weights, and what kind of tokenizer there is.
pub(super) fn model(path: &Path) -> anyhow::Result<Model> {
    let folder = Folder::open(path)?;
    let config = folder.config();
    // Models that also see keep their text model's settings apart.
    let settings = config.get("text_config").unwrap_or(config);
    let number = |names: &[&str]| names.iter().find_map(|name| settings.get(name)?.as_u64());
    let heads = number(&["num_attention_heads", "n_head", "n_heads", "num_heads"]);
    let quantisation = quantisation(folder.shapes().map(|(_, dtype, shape)| (dtype, shape)));
    let tokenizer = json(&path.join("tokenizer.json"))?;
    let own_template = json(&path.join("tokenizer_config.json"))?
        .is_some_and(|settings| settings.get("chat_template").is_some_and(|template| !template.is_null()));
    Ok(Model {
        architecture: folder.architecture().map(str::to_owned),
        name: path.file_name().map(|name| name.to_string_lossy().into_owned()),
        parameters: quantisation.values().sum(),
        quantisation,
        context_length: number(&["max_position_embeddings", "n_positions"]),
        layers: number(&["num_hidden_layers", "n_layer", "n_layers", "num_layers"]),
        heads,
        kv_heads: number(&["num_key_value_heads"]).or(heads),
        embedding_length: number(&["hidden_size", "n_embd", "dim", "d_model"]),
        vocabulary_size: number(&["vocab_size"]),
        tokenizer: tokenizer
            .and_then(|tokenizer| Some(tokenizer.get("model")?.get("type")?.as_str()?.into())),
        chat_template: own_template || path.join("chat_template.jinja").is_file(),
        tensors: folder.shapes().count(),
        size: size(path)?,
    })
}

/// A JSON file; none if there is none.
fn json(path: &Path) -> anyhow::Result<Option<Value>> {
    if !path.is_file() {
        return Ok(None);
    }
    let unreadable = || format!("cannot read {}", path.display());
    let text = fs::read(path).with_context(unreadable)?;
    serde_json::from_slice(&text).map(Some).with_context(unreadable)
}

/// Bytes of the folder's weights.
fn size(path: &Path) -> anyhow::Result<u64> {
    let mut sum = 0;
    for entry in path.read_dir()? {
        let entry = entry?;
        if entry.path().extension().is_some_and(|extension| extension == "safetensors") {
            // Followed where it is a link, as caches of downloads have them.
            sum += fs::metadata(entry.path())?.len();
        }
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_described_whatever_their_family_calls_things() {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../component/tests/fixtures");
        for (name, architecture, context, heads, tokenizer) in [
            ("bert-mean", "bert", Some(320), 2, "WordPiece"),
            ("distilbert-sst2", "distilbert", Some(320), 4, "WordPiece"),
            ("roberta-toxic", "roberta", Some(320), 2, "BPE"),
            ("t5-tied", "t5", None, 2, "Unigram"),
        ] {
            let model = model(&fixtures.join(name)).expect("it is a folder with a model");
            assert_eq!(model.architecture.as_deref(), Some(architecture));
            assert_eq!((model.context_length, model.heads), (context, Some(heads)), "{name}");
            assert_eq!((model.layers, model.embedding_length), (Some(2), Some(16)), "{name}");
            assert_eq!(model.tokenizer.as_deref(), Some(tokenizer));
            assert_eq!(model.parameters, model.quantisation.values().sum::<u64>());
            assert!(model.size > 2 * model.parameters && !model.chat_template, "{name}");
        }
        assert!(model(&fixtures).is_err());
    }
}
