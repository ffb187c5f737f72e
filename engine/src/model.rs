//! A model: its blueprint and its weights, immutable once loaded.

use std::io::{Read, Seek};

use crate::config::{Config, Norm};
use crate::error::{Error, Result};
use crate::gguf::Gguf;
use crate::hf::{Folder, FolderSource};
use crate::kernels::{self, Matrix};
use crate::load::{GgufSource, Progress, Quantize, Source};
use crate::session::{PageShape, Session};

/// A linear layer: `y = W·x + b`.
#[derive(Debug)]
pub(crate) struct Linear {
    /// `[outputs, inputs]`.
    pub(crate) matrix: Matrix,
    /// `[outputs]`.
    pub(crate) bias: Option<Vec<f32>>,
}

/// The weights of a norm.
#[derive(Debug)]
pub(crate) struct NormWeights {
    kind: Norm,
    weight: Vec<f32>,
    /// Empty if there is none.
    bias: Vec<f32>,
}

impl NormWeights {
    /// `out = norm(x)`, both `[dim]`.
    pub(crate) fn apply(&self, x: &[f32], out: &mut [f32]) {
        match self.kind {
            Norm::Rms(epsilon) => kernels::rms_norm(x, &self.weight, epsilon, out),
            Norm::Layer(epsilon) => kernels::layer_norm(x, &self.weight, &self.bias, epsilon, out),
        }
    }
}

/// The weights of a decoder layer. Absent parts are `None`.
#[derive(Debug)]
pub(crate) struct Layer {
    pub(crate) attention_norm: NormWeights,
    /// Queries, keys and values: three matrices, or one with the rows of all three.
    pub(crate) qkv: Vec<Linear>,
    /// Norms of single heads, `[head_dim]`.
    pub(crate) query_norm: Option<NormWeights>,
    pub(crate) key_norm: Option<NormWeights>,
    pub(crate) attention_out: Linear,
    pub(crate) attention_post_norm: Option<NormWeights>,
    pub(crate) mlp_norm: NormWeights,
    /// Gate and up (one matrix each, or one with the rows of both), or up alone.
    pub(crate) up: Vec<Linear>,
    pub(crate) down: Linear,
    pub(crate) mlp_post_norm: Option<NormWeights>,
}

/// A loaded model. Sessions are started from it and taken through it; it never changes.
#[derive(Debug)]
pub struct Model {
    pub(crate) config: Config,
    pub(crate) embedding: Matrix,
    /// Learned positions `[context, dim]`.
    pub(crate) positions: Option<Matrix>,
    pub(crate) layers: Vec<Layer>,
    pub(crate) norm: NormWeights,
    /// `None`: the embedding is the output matrix too.
    pub(crate) output: Option<Linear>,
}

impl<R: Read + Seek> Gguf<R> {
    /// The blueprint of the file's model.
    ///
    /// # Errors
    /// As [`Gguf::open`]'s, and [`Error::Unsupported`] for an architecture that is not known.
    pub fn config(&mut self) -> Result<Config> {
        let vocabulary = self.tensors().get("token_embd.weight").map(|tensor| tensor.rows());
        let vocabulary = vocabulary.ok_or_else(|| missing("token_embd.weight"))?;
        let factors = ["rope_freqs.weight", "rope_factors_short.weight"].iter().find_map(|name| {
            let length = self.tensors().get(*name)?.columns();
            Some((*name, length))
        });
        let mut quiet = |_, _| {};
        let factors = match factors {
            Some((name, length)) => GgufSource::new(self, None, &mut quiet).vector(name, length)?,
            None => None,
        };
        Config::from_gguf(self.metadata(), vocabulary, factors.as_deref())
    }
}

impl Folder {
    /// The blueprint of the folder's model.
    ///
    /// # Errors
    /// As [`Folder::open`]'s, and [`Error::Unsupported`] for an architecture that is not known.
    pub fn blueprint(&mut self) -> Result<Config> {
        let (mut config, tied) = Config::from_hf(self.config())?;
        config.vocabulary = FolderSource::new(self, &config, tied, None, &mut |_, _| {}).vocabulary()?;
        config.check()
    }
}

impl Model {
    /// Loads the model of a GGUF file.
    ///
    /// # Errors
    /// As [`Gguf::open`]'s, and [`Error::Unsupported`] for an architecture that is not known.
    pub fn load<R: Read + Seek>(gguf: &mut Gguf<R>) -> Result<Self> {
        Self::load_with(gguf, None, &mut |_, _| {})
    }

    /// Loads the model of a GGUF file, quantises its floats if that is wanted, and reports progress: bytes
    /// read, and bytes in all.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_with<R: Read + Seek>(
        gguf: &mut Gguf<R>,
        quantize: Option<Quantize>,
        progress: Progress<'_>,
    ) -> Result<Self> {
        let config = gguf.config()?;
        Self::from_source(config, &mut GgufSource::new(gguf, quantize, progress))
    }

    /// Loads the model of a Hugging Face folder, with the same choices as
    /// [`load_with`](Self::load_with).
    ///
    /// # Errors
    /// As [`Folder::open`]'s, and [`Error::Unsupported`] for an architecture that is not known.
    pub fn load_folder(
        folder: &mut Folder,
        quantize: Option<Quantize>,
        progress: Progress<'_>,
    ) -> Result<Self> {
        let (mut config, tied) = Config::from_hf(folder.config())?;
        let mut source = FolderSource::new(folder, &config, tied, quantize, progress);
        config.vocabulary = source.vocabulary()?;
        Self::from_source(config.check()?, &mut source)
    }

    /// The model's blueprint.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// A new sequence, empty.
    pub fn session(&self) -> Session {
        Session::new(PageShape::new(&self.config))
    }

    /// Bytes of a page of KV cache, see [`Page`](crate::Page).
    pub fn page_bytes(&self) -> usize {
        PageShape::new(&self.config).bytes()
    }

    /// Bytes of all matrices in their packed form.
    pub fn bytes(&self) -> u64 {
        let layer = |layer: &Layer| {
            let linears = layer.qkv.iter().chain(&layer.up).chain([&layer.attention_out, &layer.down]);
            linears.map(|linear| linear.matrix.bytes()).sum::<u64>()
        };
        let outer = [Some(&self.embedding), self.positions.as_ref(), self.output.as_ref().map(|o| &o.matrix)];
        outer.into_iter().flatten().map(Matrix::bytes).sum::<u64>()
            + self.layers.iter().map(layer).sum::<u64>()
    }

    fn from_source(config: Config, source: &mut dyn Source) -> Result<Self> {
        let mut tensors = Tensors { source, norm: config.norm };
        let embedding = tensors.matrix("token_embd.weight", config.vocabulary, config.dim)?;
        let positions = match config.rope {
            Some(_) => None,
            None => Some(tensors.matrix("position_embd.weight", config.context, config.dim)?),
        };
        let layers = (0..config.layers).map(|index| tensors.layer(&config, index)).collect::<Result<_>>()?;
        let norm = tensors.norm("output_norm", config.dim)?;
        let output = tensors.opt_linear("output", config.vocabulary, config.dim)?;
        Ok(Self { config, embedding, positions, layers, norm, output })
    }
}

fn missing(name: &str) -> Error {
    Error::format(format!("tensor {name} is missing"))
}

/// Puts layers together from single tensors.
struct Tensors<'a> {
    source: &'a mut dyn Source,
    norm: Norm,
}

impl Tensors<'_> {
    fn matrix(&mut self, name: &str, rows: usize, columns: usize) -> Result<Matrix> {
        self.source.matrix(name, rows, columns)?.ok_or_else(|| missing(name))
    }

    /// The layer `name`, with a bias if the file has one.
    fn opt_linear(&mut self, name: &str, rows: usize, columns: usize) -> Result<Option<Linear>> {
        let Some(matrix) = self.source.matrix(&format!("{name}.weight"), rows, columns)? else {
            return Ok(None);
        };
        let bias = self.source.vector(&format!("{name}.bias"), rows)?;
        Ok(Some(Linear { matrix, bias }))
    }

    fn linear(&mut self, name: &str, rows: usize, columns: usize) -> Result<Linear> {
        self.opt_linear(name, rows, columns)?.ok_or_else(|| missing(&format!("{name}.weight")))
    }

    fn opt_norm(&mut self, name: &str, length: usize) -> Result<Option<NormWeights>> {
        let Some(weight) = self.source.vector(&format!("{name}.weight"), length)? else { return Ok(None) };
        let bias = self.source.vector(&format!("{name}.bias"), length)?.unwrap_or_default();
        Ok(Some(NormWeights { kind: self.norm, weight, bias }))
    }

    fn norm(&mut self, name: &str, length: usize) -> Result<NormWeights> {
        self.opt_norm(name, length)?.ok_or_else(|| missing(&format!("{name}.weight")))
    }

    fn layer(&mut self, config: &Config, index: usize) -> Result<Layer> {
        let name = |part: &str| format!("blk.{index}.{part}");
        let (dim, hidden) = (config.dim, config.hidden);
        let (queries, keys) = (config.query_dim(), config.kv_dim());
        let qkv = match self.opt_linear(&name("attn_qkv"), queries + 2 * keys, dim)? {
            Some(fused) => vec![fused],
            None => vec![
                self.linear(&name("attn_q"), queries, dim)?,
                self.linear(&name("attn_k"), keys, dim)?,
                self.linear(&name("attn_v"), keys, dim)?,
            ],
        };
        let up = match (config.mlp.gated, self.opt_linear(&name("ffn_gate"), hidden, dim)?) {
            (true, Some(gate)) => vec![gate, self.linear(&name("ffn_up"), hidden, dim)?],
            (true, None) => vec![self.linear(&name("ffn_up"), 2 * hidden, dim)?],
            (false, _) => vec![self.linear(&name("ffn_up"), hidden, dim)?],
        };
        Ok(Layer {
            attention_norm: self.norm(&name("attn_norm"), dim)?,
            qkv,
            query_norm: self.opt_norm(&name("attn_q_norm"), config.head_dim)?,
            key_norm: self.opt_norm(&name("attn_k_norm"), config.head_dim)?,
            attention_out: self.linear(&name("attn_output"), dim, queries)?,
            attention_post_norm: self.opt_norm(&name("post_attention_norm"), dim)?,
            mlp_norm: self.norm(&name("ffn_norm"), dim)?,
            up,
            down: self.linear(&name("ffn_down"), dim, hidden)?,
            mlp_post_norm: self.opt_norm(&name("post_ffw_norm"), dim)?,
        })
    }
}
