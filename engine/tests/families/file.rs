//! GGUF files of little models with drawn weights, one for each way in which families differ.
//!
//! Weights come from a generator of integers that is seeded by a tensor's name, so the same file can be written
//! again anywhere and none is kept. They are drawn so that every layer adds about as much as the embedding brings
//! and attention is uneven: a wrong position, window or scale then changes the logits by far more than rounding.

use std::io::Cursor;

use candle_core::quantized::gguf_file::{self, Value};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};

/// Number of token ids.
pub(crate) const VOCABULARY: usize = 96;
/// Longest sequence, and the rows of learned positions.
const CONTEXT: usize = 256;

/// A metadata value; the key goes without the architecture's name in front.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Entry {
    Size(u32),
    Number(f32),
    Text(&'static str),
    Flag(bool),
    Flags(&'static [bool]),
}

/// The tensors of the feed-forward network.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Network {
    /// `ffn_gate` and `ffn_up`.
    Gated,
    /// `ffn_up` with the gate's rows first.
    FusedGate,
    /// `ffn_up` alone.
    Plain,
}

/// A little model.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tiny {
    pub(crate) name: &'static str,
    pub(crate) architecture: &'static str,
    pub(crate) layers: usize,
    pub(crate) dim: usize,
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) head_dim: usize,
    pub(crate) hidden: usize,
    pub(crate) network: Network,
    /// Queries, keys and values in one tensor.
    pub(crate) fused_qkv: bool,
    /// Norms by mean and variance, and biases everywhere.
    pub(crate) layer_norm: bool,
    pub(crate) head_norms: bool,
    pub(crate) post_norms: bool,
    /// An output matrix of its own.
    pub(crate) output: bool,
    pub(crate) positions: bool,
    /// Root mean square of the embedding's elements.
    pub(crate) embedding: f32,
    /// Type of the matrices; rows that do not fit its blocks are stored as halves.
    pub(crate) dtype: GgmlDType,
    pub(crate) entries: &'static [(&'static str, Entry)],
    /// Tensors outside the layers.
    pub(crate) vectors: &'static [(&'static str, &'static [f32])],
}

/// How a tensor's elements are drawn.
#[derive(Debug, Clone, Copy)]
enum Draw {
    /// Around 0, with this root mean square.
    Around(f32),
    /// Between three and five quarters of this, as the weights of norms.
    Norm(f32),
}

impl Tiny {
    /// The bytes of the model's file.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let metadata = self.metadata();
        let metadata: Vec<(&str, &Value)> = metadata.iter().map(|(key, value)| (&**key, value)).collect();
        let tensors = self.tensors();
        let tensors: Vec<(&str, &QTensor)> = tensors.iter().map(|(name, tensor)| (&**name, tensor)).collect();
        let mut file = Cursor::new(Vec::new());
        gguf_file::write(&mut file, &metadata, &tensors).expect("a file in memory");
        let mut bytes = file.into_inner();
        // candle writes version 2. Version 3 differs from it only in allowing big-endian files.
        bytes[4..8].copy_from_slice(&3_u32.to_le_bytes());
        bytes
    }

    /// The tensors by GGUF's names, as floats.
    pub(crate) fn floats(&self) -> Vec<(String, Tensor)> {
        let float = |tensor: QTensor| tensor.dequantize(&Device::Cpu).expect("a tensor in memory");
        self.tensors().into_iter().map(|(name, tensor)| (name, float(tensor))).collect()
    }

    fn metadata(&self) -> Vec<(String, Value)> {
        let epsilon = match self.layer_norm {
            true => "attention.layer_norm_epsilon",
            false => "attention.layer_norm_rms_epsilon",
        };
        let sizes = [
            ("vocab_size", VOCABULARY),
            ("context_length", CONTEXT),
            ("block_count", self.layers),
            ("embedding_length", self.dim),
            ("feed_forward_length", self.hidden),
            ("attention.head_count", self.heads),
            ("attention.head_count_kv", self.kv_heads),
        ]
        .map(|(key, size)| (key, Entry::Size(size as u32)));
        let own = self.entries.iter().copied();
        let entries =
            sizes.into_iter().chain([(epsilon, Entry::Number(1e-5))]).chain(own).map(|(key, entry)| {
                let value = match entry {
                    Entry::Size(size) => Value::U32(size),
                    Entry::Number(number) => Value::F32(number),
                    Entry::Text(text) => Value::String(text.to_owned()),
                    Entry::Flag(flag) => Value::Bool(flag),
                    Entry::Flags(flags) => Value::Array(flags.iter().copied().map(Value::Bool).collect()),
                };
                (format!("{}.{key}", self.architecture), value)
            });
        let text = |text: &str| Value::String(text.to_owned());
        let general = [("general.architecture", self.architecture), ("tokenizer.ggml.model", "no_vocab")];
        general.into_iter().map(|(key, value)| (key.to_owned(), text(value))).chain(entries).collect()
    }

    fn tensors(&self) -> Vec<(String, QTensor)> {
        let embedding = Draw::Around(self.embedding);
        let mut tensors = vec![self.tensor("token_embd.weight", &[VOCABULARY, self.dim], embedding)];
        if self.positions {
            tensors.push(self.tensor("position_embd.weight", &[CONTEXT, self.dim], embedding));
        }
        for &(name, values) in self.vectors {
            tensors.push((name.to_owned(), stored(values.to_vec(), &[values.len()], GgmlDType::F32)));
        }
        (0..self.layers).for_each(|layer| self.layer(layer, &mut tensors));
        self.norm("output_norm", self.dim, 1.0, &mut tensors);
        if self.output {
            tensors.push(self.tensor("output.weight", &[VOCABULARY, self.dim], around(self.dim, 1.0)));
        }
        tensors
    }

    fn layer(&self, layer: usize, tensors: &mut Vec<(String, QTensor)>) {
        let name = |part: &str| format!("blk.{layer}.{part}");
        let (queries, keys) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        let qkv: &[(&str, usize)] = match self.fused_qkv {
            true => &[("attn_qkv", queries + 2 * keys)],
            false => &[("attn_q", queries), ("attn_k", keys), ("attn_v", keys)],
        };
        let up: &[(&str, usize)] = match self.network {
            Network::Gated => &[("ffn_gate", self.hidden), ("ffn_up", self.hidden)],
            Network::FusedGate => &[("ffn_up", 2 * self.hidden)],
            Network::Plain => &[("ffn_up", self.hidden)],
        };
        let inner = qkv.iter().chain(up).map(|&(part, rows)| (part, rows, self.dim, 1.0));
        // Averages over positions and products with gates are small, which larger weights make up for.
        let outer = [("attn_output", self.dim, queries, 1.5), ("ffn_down", self.dim, self.hidden, 1.5)];
        for (part, rows, columns, gain) in inner.chain(outer) {
            tensors.push(self.tensor(
                &name(&format!("{part}.weight")),
                &[rows, columns],
                around(columns, gain),
            ));
            if self.layer_norm {
                tensors.push(self.tensor(&name(&format!("{part}.bias")), &[rows], Draw::Around(0.2)));
            }
        }
        self.norm(&name("attn_norm"), self.dim, 1.0, tensors);
        self.norm(&name("ffn_norm"), self.dim, 1.0, tensors);
        if self.head_norms {
            self.norm(&name("attn_q_norm"), self.head_dim, 1.0, tensors);
            self.norm(&name("attn_k_norm"), self.head_dim, 1.0, tensors);
        }
        if self.post_norms {
            // All layers together add the same, however many they are.
            let size = 5.0 / (self.layers as f32).sqrt();
            self.norm(&name("post_attention_norm"), self.dim, size, tensors);
            self.norm(&name("post_ffw_norm"), self.dim, size, tensors);
        }
    }

    fn norm(&self, name: &str, length: usize, size: f32, tensors: &mut Vec<(String, QTensor)>) {
        tensors.push(self.tensor(&format!("{name}.weight"), &[length], Draw::Norm(size)));
        if self.layer_norm {
            tensors.push(self.tensor(&format!("{name}.bias"), &[length], Draw::Around(0.2)));
        }
    }

    fn tensor(&self, name: &str, shape: &[usize], draw: Draw) -> (String, QTensor) {
        let values = draw.values(name, shape.iter().product());
        let dtype = match shape {
            [_, columns] if columns.is_multiple_of(self.dtype.block_size()) => self.dtype,
            [_, _] => GgmlDType::F16,
            _ => GgmlDType::F32,
        };
        (name.to_owned(), stored(values, shape, dtype))
    }
}

/// Products with inputs around 1 come out around `gain`.
fn around(columns: usize, gain: f32) -> Draw {
    Draw::Around(gain / (columns as f32).sqrt())
}

fn stored(values: Vec<f32>, shape: &[usize], dtype: GgmlDType) -> QTensor {
    let tensor = Tensor::from_vec(values, shape, &Device::Cpu).expect("a tensor of this shape");
    QTensor::quantize(&tensor, dtype).expect("rows of whole blocks")
}

impl Draw {
    /// `count` numbers, always the same for a name.
    fn values(self, name: &str, count: usize) -> Vec<f32> {
        // FNV-1a of the name, then Knuth's generator modulo 2^64, of which the upper bits are good.
        let mut state = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let uniform = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((state >> 40) as f32 - 8_388_608.0) / 8_388_608.0
        };
        let numbers = std::iter::repeat_with(uniform).take(count);
        match self {
            Self::Around(size) => numbers.map(|number| number * (size * 3.0_f32.sqrt())).collect(),
            Self::Norm(size) => numbers.map(|number| size * (1.0 + number / 4.0)).collect(),
        }
    }
}
