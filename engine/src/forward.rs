//! The decoder: tokens of several sequences in, logits out.
//!
//! [`Model::forward`] is one straight line from embeddings to logits, for a batch of sequences at once: all
//! their tokens are rows of the same matrix products, and only attention looks at sequences one by one. Every
//! row's arithmetic is the same whatever else is in the batch.

mod attention;

use crate::config::{Activation, Config};
use crate::error::{Error, Result};
use crate::kernels::{self, Activations, Isa, Part, matmul};
use crate::model::{Linear, Model, NormWeights};
use crate::pool::{Pool, Shared};
use crate::session::{PageShape, Session};

/// What one sequence contributes to a forward pass.
#[derive(Debug)]
pub struct Batch<'a> {
    /// The sequence; its position advances by the number of tokens.
    pub session: &'a mut Session,
    /// The tokens to append, at least one.
    pub tokens: &'a [u32],
    /// How many of the last tokens want logits.
    pub outputs: usize,
}

/// Threads and buffers of a forward pass, reused from one to the next. The buffers only grow.
#[derive(Debug)]
pub struct Workspace {
    pool: Pool,
    isa: Isa,
    /// Input of the next product `[rows, inputs]`.
    x: Activations,
    /// Hidden states `[rows, dim]`.
    hidden: Vec<f32>,
    /// Queries, keys and values `[rows, query_dim + 2 kv_dim]`.
    qkv: Vec<f32>,
    /// Output of attention's or the network's last product `[rows, dim]`.
    delta: Vec<f32>,
    /// The same after a norm, where a layer has one `[rows, dim]`.
    normed: Vec<f32>,
    /// Inner states of the network `[rows, hidden or 2 hidden]`.
    inner: Vec<f32>,
    attention: attention::Buffers,
    /// Logits `[outputs, vocabulary]`.
    logits: Vec<f32>,
}

impl Workspace {
    /// Buffers and a pool of `threads` threads (in WebAssembly: one).
    pub fn new(threads: usize) -> Self {
        Self::with_isa(threads, Isa::current())
    }

    /// As [`new`](Self::new), with a chosen family of kernels from [`Isa::available`].
    pub fn with_isa(threads: usize, isa: Isa) -> Self {
        Self {
            pool: Pool::new(threads),
            isa,
            x: Activations::default(),
            hidden: Vec::new(),
            qkv: Vec::new(),
            delta: Vec::new(),
            normed: Vec::new(),
            inner: Vec::new(),
            attention: attention::Buffers::default(),
            logits: Vec::new(),
        }
    }

    /// `out = W·x + b` for all `linears`, side by side; `self.x` is the input.
    fn linear(pool: &Pool, isa: Isa, x: &mut Activations, linears: &[Linear], out: &mut Vec<f32>) {
        let mut parts = arrayvec::ArrayVec::<Part<'_>, 3>::new();
        let mut column = 0;
        for Linear { matrix, bias } in linears {
            parts.push(Part { matrix, bias: bias.as_deref(), column });
            column += matrix.rows();
        }
        if linears.iter().any(|linear| linear.matrix.form().is_quantized()) {
            x.quantize(pool);
        }
        grow(out, x.rows() * column);
        matmul(pool, isa, x, &parts, out, column);
    }
}

/// Makes a buffer at least `length` long.
fn grow(buffer: &mut Vec<f32>, length: usize) {
    if buffer.len() < length {
        buffer.resize(length, 0.0);
    }
}

/// Calls `f(row, out)` for every row of `out` (`[rows, length]`), shared out to the pool.
fn each_row(pool: &Pool, out: &mut [f32], length: usize, f: impl Fn(usize, &mut [f32]) + Sync) {
    /// Rows of a task: enough work to hand over.
    const ROWS: usize = 8;
    let rows = out.len() / length;
    let out = Shared::new(out);
    pool.run(rows.div_ceil(ROWS), &|task| {
        for row in task * ROWS..rows.min((task + 1) * ROWS) {
            // SAFETY: every row belongs to one task.
            #[allow(unsafe_code, reason = "tasks write disjoint rows")]
            f(row, unsafe { out.slice(row * length, length) });
        }
    });
}

impl Model {
    /// Appends tokens to sequences and returns the logits of their last `outputs` tokens, `[Σ outputs,
    /// vocabulary]`, in the batch's order.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an empty batch, a token id outside the vocabulary, a sequence beyond the
    /// context, or a session of another model. No session has changed then.
    pub fn forward<'w>(&self, workspace: &'w mut Workspace, batch: &mut [Batch<'_>]) -> Result<&'w [f32]> {
        self.check(batch)?;
        let config = &self.config;
        let Workspace { pool, isa, x, hidden, qkv, delta, normed, inner, attention, logits } = workspace;
        let (pool, isa) = (&*pool, *isa);
        let rows: usize = batch.iter().map(|part| part.tokens.len()).sum();
        let dim = config.dim;

        grow(hidden, rows * dim);
        let hidden = &mut hidden[..rows * dim];
        self.embed(batch, hidden);
        batch.iter_mut().for_each(|part| part.session.reserve(part.tokens.len()));
        attention.prepare(config, batch);

        for (index, layer) in self.layers.iter().enumerate() {
            each_row(pool, x.reshape(rows, dim), dim, |row, out| {
                layer.attention_norm.apply(&hidden[row * dim..][..dim], out);
            });
            Workspace::linear(pool, isa, x, &layer.qkv, qkv);
            attention.run(pool, config, layer, index, qkv, batch, x);
            Workspace::linear(pool, isa, x, std::slice::from_ref(&layer.attention_out), delta);
            // With parallel residuals the network reads the layer's input, not what attention made of it.
            if config.parallel_residual {
                each_row(pool, x.reshape(rows, dim), dim, |row, out| {
                    layer.mlp_norm.apply(&hidden[row * dim..][..dim], out);
                });
            }
            add(pool, hidden, delta, dim, layer.attention_post_norm.as_ref(), normed);
            if !config.parallel_residual {
                each_row(pool, x.reshape(rows, dim), dim, |row, out| {
                    layer.mlp_norm.apply(&hidden[row * dim..][..dim], out);
                });
            }
            Workspace::linear(pool, isa, x, &layer.up, inner);
            activate(pool, config, inner, x.reshape(rows, config.hidden));
            Workspace::linear(pool, isa, x, std::slice::from_ref(&layer.down), delta);
            add(pool, hidden, delta, dim, layer.mlp_post_norm.as_ref(), normed);
        }

        batch.iter_mut().for_each(|part| part.session.advance(part.tokens.len()));
        let outputs: usize = batch.iter().map(|part| part.outputs).sum();
        let out = x.reshape(outputs, dim);
        let (mut end, mut to) = (0, 0);
        for part in batch.iter() {
            end += part.tokens.len();
            for row in end - part.outputs..end {
                self.norm.apply(&hidden[row * dim..][..dim], &mut out[to * dim..][..dim]);
                to += 1;
            }
        }
        grow(logits, outputs * config.vocabulary);
        let logits = &mut logits[..outputs * config.vocabulary];
        if outputs > 0 {
            self.logits(pool, isa, x, logits);
        }
        Ok(logits)
    }

    fn check(&self, batch: &[Batch<'_>]) -> Result<()> {
        if batch.is_empty() {
            return Err(Error::Invalid("an empty batch".to_owned()));
        }
        let (vocabulary, context) = (self.config.vocabulary, self.config.context);
        for Batch { session, tokens, outputs } in batch {
            if tokens.is_empty() || *outputs > tokens.len() {
                return Err(Error::Invalid(format!("{outputs} outputs of {} tokens", tokens.len())));
            }
            if let Some(id) = tokens.iter().find(|&&id| id as usize >= vocabulary) {
                return Err(Error::Invalid(format!(
                    "token id {id}, the vocabulary has {vocabulary} entries"
                )));
            }
            let end = session.position() + tokens.len();
            if end > context {
                return Err(Error::Invalid(format!("{end} tokens, the model's context is {context}")));
            }
            if !session.fits(PageShape::new(&self.config)) {
                return Err(Error::Invalid("the session was started by another model".to_owned()));
            }
        }
        Ok(())
    }

    /// Hidden states of all tokens before the first layer.
    fn embed(&self, batch: &[Batch<'_>], hidden: &mut [f32]) {
        let dim = self.config.dim;
        let mut learned = vec![0.0; if self.positions.is_some() { dim } else { 0 }];
        let mut rows = hidden.chunks_exact_mut(dim);
        for part in batch {
            for (offset, (&token, row)) in part.tokens.iter().zip(&mut rows).enumerate() {
                self.embedding.row(token as usize, row);
                if self.config.embedding_scale != 1.0 {
                    row.iter_mut().for_each(|value| *value *= self.config.embedding_scale);
                }
                if let Some(positions) = &self.positions {
                    positions.row(part.session.position() + offset, &mut learned);
                    row.iter_mut().zip(&learned).for_each(|(value, position)| *value += position);
                }
            }
        }
    }

    fn logits(&self, pool: &Pool, isa: Isa, x: &mut Activations, logits: &mut [f32]) {
        let (matrix, bias) = match &self.output {
            Some(Linear { matrix, bias }) => (matrix, bias.as_deref()),
            None => (&self.embedding, None),
        };
        if matrix.form().is_quantized() {
            x.quantize(pool);
        }
        matmul(pool, isa, x, &[Part { matrix, bias, column: 0 }], logits, self.config.vocabulary);
        if let Some(limit) = self.config.logit_softcap {
            logits.iter_mut().for_each(|logit| *logit = kernels::softcap(*logit, limit));
        }
    }
}

/// `hidden += norm(delta)`, row by row; `normed` is room for the norm's result.
fn add(
    pool: &Pool,
    hidden: &mut [f32],
    delta: &[f32],
    dim: usize,
    norm: Option<&NormWeights>,
    normed: &mut Vec<f32>,
) {
    let delta = match norm {
        None => delta,
        Some(norm) => {
            grow(normed, hidden.len());
            let rows = &mut normed[..hidden.len()];
            each_row(pool, rows, dim, |row, out| norm.apply(&delta[row * dim..][..dim], out));
            normed
        }
    };
    each_row(pool, hidden, dim, |row, out| {
        out.iter_mut().zip(&delta[row * dim..][..dim]).for_each(|(out, delta)| *out += delta);
    });
}

/// The network's activation: `out = act(gate) · up`, or `act(up)`.
fn activate(pool: &Pool, config: &Config, inner: &[f32], out: &mut [f32]) {
    let hidden = config.hidden;
    let width = if config.mlp.gated { 2 * hidden } else { hidden };
    each_row(pool, out, hidden, |row, out| {
        let (first, second) = inner[row * width..][..width].split_at(hidden);
        out.copy_from_slice(first);
        match config.mlp.activation {
            Activation::Silu => kernels::silu(out),
            Activation::Gelu => kernels::gelu(out),
            Activation::GeluErf => kernels::gelu_erf(out),
        }
        out.iter_mut().zip(second).for_each(|(out, up)| *out *= up);
    });
}
