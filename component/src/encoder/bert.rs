//! The encoders that are BERT underneath, computed by candle in 32-bit floats.
//!
//! What the families that share it call things, their pooling and their classifiers are modules of their own. A text is
//! computed alone, without padding, so what stands beside it in a request cannot
//! change its result. Files are checked here before candle sees them: it trusts what it is given.

use candle_core::{DType, Device, IndexOp, Shape, Tensor};
use candle_nn::Init;
use candle_nn::var_builder::SimpleBackend;
use candle_transformers::models::bert::{BertModel, Config, HiddenAct, PositionEmbeddingType};
use serde_json::Value;
use wafer_engine::Folder;

use super::family::{Family, Settings};
use super::head::Classifier;
use super::pooling::{self, Mode, Pooling};
use super::{Answer, Encoder, Files, Task};
use crate::error::{Error, Result};
use crate::weights::{self, Weights, attention_limit, broken, failed};

/// A loaded encoder.
pub(crate) struct Bert {
    model: BertModel,
    output: Output,
    vocabulary: usize,
    context: usize,
}

/// What comes after the last layer.
enum Output {
    Vector(Pooling),
    Labels(Classifier),
}

impl Bert {
    /// Loads the model of a Hugging Face folder; `files` reads the other files in it.
    ///
    /// # Errors
    /// [`Error::Model`] for what is broken, missing, or not supported.
    pub(crate) fn load(folder: &mut Folder, family: &'static Family, files: Files<'_>) -> Result<Self> {
        let config = folder.config().clone();
        let settings = Settings::read(&config)?;
        // RoBERTa's first position is the one after that of padding.
        let skip = match (family.positions_after_padding, settings.pad_token_id) {
            (true, padding) => padding.unwrap_or(1).saturating_add(1),
            (false, _) => 0,
        };
        let Some(positions) = settings.max_position_embeddings.checked_sub(skip).filter(|&rest| rest > 0)
        else {
            return Err(Error::Model(format!(
                "config.json: max_position_embeddings {} leaves none after pad_token_id {}",
                settings.max_position_embeddings,
                skip.saturating_sub(1)
            )));
        };
        let weights = Weights::new(folder, family.names);
        let source = Source { weights: &weights, family, skip };
        let vocabulary = settings.vocab_size;
        let model = BertModel::load(weights::builder(source), &blueprint(&settings, family, positions)?);
        let model = model.map_err(broken)?;
        let output = match task(&config)? {
            Task::Embed => Output::Vector(Pooling::read(files)?),
            Task::Classify => {
                Output::Labels(Classifier::load(&weights, family, &config, settings.hidden_size)?)
            }
        };
        let own = pooling::limit(files)?.unwrap_or(positions);
        let context = positions.min(own).min(attention_limit(settings.num_attention_heads));
        if context == 0 {
            return Err(Error::Model("the model has a limit of 0 tokens".into()));
        }
        Ok(Self { model, output, vocabulary, context })
    }

    /// The vectors of the last layer, `[tokens, dim]`.
    fn hidden(&self, tokens: &[u32]) -> candle_core::Result<Tensor> {
        let ids = Tensor::new(tokens, &Device::Cpu)?.unsqueeze(0)?;
        self.model.forward(&ids, &ids.zeros_like()?, None)?.squeeze(0)
    }
}

impl Encoder for Bert {
    fn task(&self) -> Task {
        match self.output {
            Output::Vector(_) => Task::Embed,
            Output::Labels(_) => Task::Classify,
        }
    }

    fn vocabulary_size(&self) -> usize {
        self.vocabulary
    }

    fn context_length(&self) -> usize {
        self.context
    }

    fn answer(&self, tokens: &[u32]) -> Result<Answer> {
        self.check(tokens)?;
        let hidden = self.hidden(tokens).map_err(failed)?;
        let answer = match &self.output {
            Output::Vector(pooling) => pooled(&hidden, *pooling).map(Answer::Vector),
            Output::Labels(classifier) => {
                hidden.i(..1).and_then(|first| classifier.labels(&first)).map(Answer::Labels)
            }
        };
        let answer = answer.map_err(failed)?;
        let finite = match &answer {
            Answer::Vector(vector) => vector.iter().all(|value| value.is_finite()),
            Answer::Labels(labels) => labels.iter().all(|label| label.score.is_finite()),
        };
        if finite { Ok(answer) } else { Err(Error::Backend("the model's result is not finite".into())) }
    }

    fn check(&self, tokens: &[u32]) -> Result<()> {
        if tokens.is_empty() {
            return Err(Error::parameter("input", "input has no tokens"));
        }
        if tokens.len() > self.context {
            let text = format!("input is {} tokens, model limit is {}", tokens.len(), self.context);
            return Err(Error::parameter("input", text));
        }
        match tokens.iter().find(|&&id| id as usize >= self.vocabulary) {
            Some(id) => {
                let text = format!("input has token {id}, the vocabulary has {} tokens", self.vocabulary);
                Err(Error::parameter("input", text))
            }
            None => Ok(()),
        }
    }
}

/// One vector from those of all tokens, `[tokens, dim]`.
fn pooled(hidden: &Tensor, pooling: Pooling) -> candle_core::Result<Vec<f32>> {
    let pooled = match pooling.mode {
        Mode::Mean => hidden.mean(0)?,
        Mode::Cls => hidden.i(0)?,
    };
    let mut vector: Vec<f32> = pooled.to_vec1()?;
    if pooling.normalize {
        let length = vector.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>().sqrt();
        // The smallest divisor is torch's, for a vector of zeros.
        vector.iter_mut().for_each(|value| *value = (f64::from(*value) / length.max(1e-12)) as f32);
    }
    Ok(vector)
}

/// What the folder's architecture is for, by the name of its class in transformers.
fn task(config: &Value) -> Result<Task> {
    let Some(class) = config.get("architectures").and_then(|list| list.get(0)?.as_str()) else {
        return Ok(Task::Embed);
    };
    if class.ends_with("ForSequenceClassification") {
        return Ok(Task::Classify);
    }
    // The heads of pre-training are left aside, as sentence-transformers does.
    if ["Model", "ForMaskedLM", "ForPreTraining"].iter().any(|end| class.ends_with(end)) {
        return Ok(Task::Embed);
    }
    let text =
        format!("architecture {class}, known are encoders without a head and ForSequenceClassification");
    Err(Error::Model(text))
}

/// candle's configuration.
fn blueprint(settings: &Settings, family: &Family, positions: usize) -> Result<Config> {
    let hidden_act = match settings.hidden_act.as_str() {
        "gelu" => HiddenAct::Gelu,
        "gelu_new" | "gelu_pytorch_tanh" => HiddenAct::GeluApproximate,
        "relu" => HiddenAct::Relu,
        other => {
            let text = format!("activation {other:?}, known are gelu, gelu_new, gelu_pytorch_tanh, relu");
            return Err(Error::Model(text));
        }
    };
    Ok(Config {
        vocab_size: settings.vocab_size,
        hidden_size: settings.hidden_size,
        num_hidden_layers: settings.num_hidden_layers,
        num_attention_heads: settings.num_attention_heads,
        intermediate_size: settings.intermediate_size,
        hidden_act,
        hidden_dropout_prob: 0.0,
        max_position_embeddings: positions,
        // A family without them gets one, of zeros.
        type_vocab_size: settings.type_vocab_size.filter(|_| family.token_types).unwrap_or(1),
        initializer_range: 0.0,
        layer_norm_eps: settings.layer_norm_eps,
        pad_token_id: 0,
        position_embedding_type: PositionEmbeddingType::Absolute,
        use_cache: false,
        classifier_dropout: None,
        // With a name here candle would look in a second place and report what is missing in the first.
        model_type: None,
    })
}

/// A folder's tensors, with what makes its family BERT.
struct Source<'w, 'f> {
    weights: &'w Weights<'f>,
    family: &'static Family,
    /// Rows of the position table that no token has.
    skip: usize,
}

impl SimpleBackend for Source<'_, '_> {
    fn get(
        &self,
        shape: Shape,
        name: &str,
        init: Init,
        dtype: DType,
        device: &Device,
    ) -> candle_core::Result<Tensor> {
        match (name, shape.dims()) {
            ("embeddings.token_type_embeddings.weight", _) if !self.family.token_types => {
                Tensor::zeros(shape, dtype, device)
            }
            ("embeddings.position_embeddings.weight", &[rows, dim]) if self.skip > 0 => {
                let table = self.weights.tensor(name, &[rows.saturating_add(self.skip), dim])?;
                table.narrow(0, self.skip, rows)
            }
            _ => self.weights.get(shape, name, init, dtype, device),
        }
    }

    fn get_unchecked(&self, name: &str, dtype: DType, device: &Device) -> candle_core::Result<Tensor> {
        self.weights.get_unchecked(name, dtype, device)
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.weights.contains_tensor(name)
    }
}
