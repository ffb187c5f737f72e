//! The model file: GGUF version 3 as llama.cpp defines it for the architecture `llama`.
//!
//! Matrices are Q8_0, norms F32. Metadata and tensors stand in a fixed order, so the same model
//! gives the same bytes. Reading here is only for this project's own files, to measure what was
//! written; the engine has the reader that trusts nothing.

use crate::model::{Config, Model};
use crate::tokenizer::{END_OF_TURN, SEPARATOR, SPECIALS, Vocabulary};
use anyhow::{Context, Result, ensure};
use candle_core::quantized::gguf_file::{self, Content, Value};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Var};
use std::io::{Cursor, Read, Seek};

/// A conversation in ChatML. A plain story needs no template.
pub(crate) const CHAT_TEMPLATE: &str = "\
{%- for message in messages -%}\
{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] | trim + '<|im_end|>\\n' }}\
{%- endfor -%}\
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}";

/// llama.cpp's number of the file type "mostly Q8_0".
const MOSTLY_Q8_0: u32 = 7;
/// llama.cpp's token types.
const NORMAL: i32 = 1;
const CONTROL: i32 = 3;

/// The bytes of the file.
pub(crate) fn write(model: &Model, vocabulary: &Vocabulary) -> Result<Vec<u8>> {
    let metadata = metadata(&model.config, vocabulary)?;
    let metadata: Vec<(&str, &Value)> = metadata.iter().map(|(key, value)| (*key, value)).collect();
    let tensors = model
        .parameters
        .iter()
        .map(|(name, value)| {
            let kind = if value.rank() == 2 { GgmlDType::Q8_0 } else { GgmlDType::F32 };
            let tensor = QTensor::quantize(value.as_tensor(), kind)
                .with_context(|| format!("quantising {name} {:?}", value.shape()))?;
            Ok((name.as_str(), tensor))
        })
        .collect::<Result<Vec<_>>>()?;
    let tensors: Vec<(&str, &QTensor)> = tensors.iter().map(|(name, tensor)| (*name, tensor)).collect();
    let mut file = Cursor::new(Vec::new());
    gguf_file::write(&mut file, &metadata, &tensors)?;
    let mut bytes = file.into_inner();
    // candle writes version 2. Version 3 differs from it only in allowing big-endian files.
    bytes[4..8].copy_from_slice(&3u32.to_le_bytes());
    Ok(bytes)
}

/// Everything but the tensors, in the order of the file.
fn metadata(config: &Config, vocabulary: &Vocabulary) -> Result<Vec<(&'static str, Value)>> {
    let text = |text: &str| Value::String(text.to_owned());
    let number = |number: usize| Value::U32(number as u32);
    let texts = |texts: &[String]| Value::Array(texts.iter().map(|item| text(item)).collect());
    let types = vocabulary
        .tokens
        .iter()
        .map(|token| Value::I32(if SPECIALS.contains(&token.as_str()) { CONTROL } else { NORMAL }));
    Ok(vec![
        ("general.architecture", text("llama")),
        ("general.name", text("wafer demo")),
        ("general.description", text("Writes little stories. Trained on generated text.")),
        ("general.license", text("apache-2.0")),
        ("general.file_type", Value::U32(MOSTLY_Q8_0)),
        ("general.quantization_version", Value::U32(2)),
        ("llama.vocab_size", number(config.vocabulary)),
        ("llama.context_length", number(config.context)),
        ("llama.embedding_length", number(config.width)),
        ("llama.block_count", number(config.layers)),
        ("llama.feed_forward_length", number(config.hidden)),
        ("llama.attention.head_count", number(config.heads)),
        ("llama.attention.head_count_kv", number(config.kv_heads)),
        ("llama.attention.layer_norm_rms_epsilon", Value::F32(config.epsilon)),
        ("llama.rope.dimension_count", number(config.head_width())),
        ("llama.rope.freq_base", Value::F32(config.rope_base)),
        ("tokenizer.ggml.model", text("gpt2")),
        ("tokenizer.ggml.pre", text("gpt-2")),
        ("tokenizer.ggml.tokens", texts(&vocabulary.tokens)),
        ("tokenizer.ggml.token_type", Value::Array(types.collect())),
        ("tokenizer.ggml.merges", texts(&vocabulary.merges)),
        ("tokenizer.ggml.bos_token_id", Value::U32(vocabulary.special(SEPARATOR)?)),
        ("tokenizer.ggml.eos_token_id", Value::U32(vocabulary.special(END_OF_TURN)?)),
        ("tokenizer.ggml.add_bos_token", Value::Bool(false)),
        ("tokenizer.ggml.add_eos_token", Value::Bool(false)),
        ("tokenizer.chat_template", text(CHAT_TEMPLATE)),
    ])
}

/// The model of a file that [`write`] made for `like`, with the values that the file holds.
pub(crate) fn read(file: &mut (impl Read + Seek), like: &Model) -> Result<Model> {
    let content = Content::read(file)?;
    let parameters = like
        .parameters
        .iter()
        .map(|(name, value)| {
            let tensor = content.tensor(file, name, &Device::Cpu)?.dequantize(&Device::Cpu)?;
            ensure!(tensor.shape() == value.shape(), "{name} is {:?}", tensor.shape());
            Ok((name.clone(), Var::from_tensor(&tensor)?))
        })
        .collect::<Result<_>>()?;
    Ok(Model { config: like.config, parameters })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TINY: Config = Config {
        vocabulary: 320,
        context: 16,
        width: 32,
        layers: 2,
        heads: 4,
        kv_heads: 2,
        hidden: 64,
        rope_base: 10000.,
        epsilon: 1e-5,
    };

    fn file() -> Result<(Model, Vec<u8>)> {
        let vocabulary = Vocabulary::train(["once upon a time"].into_iter())?;
        let model = Model::new(TINY, 1)?;
        let bytes = write(&model, &vocabulary)?;
        Ok((model, bytes))
    }

    #[test]
    fn the_same_model_gives_the_same_bytes() -> Result<()> {
        assert_eq!(file()?.1, file()?.1);
        Ok(())
    }

    #[test]
    fn the_file_says_what_it_is() -> Result<()> {
        let (_, bytes) = file()?;
        assert_eq!(bytes[..8], *b"GGUF\x03\0\0\0");
        let content = Content::read(&mut Cursor::new(&bytes))?;
        let number = |key: &str| content.metadata[key].to_u32();
        for (key, value) in [
            ("llama.block_count", 2),
            ("llama.attention.head_count_kv", 2),
            ("llama.rope.dimension_count", 8),
            ("llama.feed_forward_length", 64),
            ("tokenizer.ggml.bos_token_id", 0),
            ("tokenizer.ggml.eos_token_id", 2),
        ] {
            assert_eq!(number(key)?, value, "{key}");
        }
        let tokens = content.metadata["tokenizer.ggml.tokens"].to_vec()?.len();
        assert_eq!(content.metadata["tokenizer.ggml.token_type"].to_vec()?.len(), tokens);
        // Three marks and 256 bytes, and each merge makes one token.
        assert_eq!(content.metadata["tokenizer.ggml.merges"].to_vec()?.len(), tokens - 259);
        Ok(())
    }

    #[test]
    fn values_survive_within_the_quantisation() -> Result<()> {
        let (model, bytes) = file()?;
        let read = read(&mut Cursor::new(&bytes), &model)?;
        for ((name, written), (_, read)) in model.parameters.iter().zip(&read.parameters) {
            let difference = (written.as_tensor() - read.as_tensor())?.abs()?.max_all()?;
            // A block's step is its largest value / 127, and rounding errs by half of it; the
            // block's factor is itself rounded, to half precision.
            let limit = written.abs()?.max_all()?.to_scalar::<f32>()? / 127. * 0.6;
            assert!(difference.to_scalar::<f32>()? <= limit, "{name}: {difference}");
        }
        Ok(())
    }
}
