//! Attention of a batch: rotary positions, the KV cache, and the softmax over it.

use arrayvec::ArrayVec;

use super::{Batch, grow};
use crate::config::{Config, Rope, RopePairs};
use crate::kernels::{self, Activations, Attention, MAX_HEAD, MAX_QUERIES, PAGE, Query, head_stride};
use crate::model::Layer;
use crate::pool::{Pool, Shared};

/// Buffers of attention, for all rows of a batch.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    /// Cosine and sine of every row's angles, `[rows, dims / 2]`, and those for layers with windows.
    angles: Vec<(f32, f32)>,
    window_angles: Vec<(f32, f32)>,
    /// Rotated queries `[rows, heads, stride]`.
    queries: Vec<f32>,
    /// Weighted sums of values `[rows, heads, stride]`.
    sums: Vec<f32>,
}

impl Buffers {
    /// Computes the angles of all rows. The sessions' positions are those before the batch.
    pub(super) fn prepare(&mut self, config: &Config, batch: &[Batch<'_>]) {
        self.angles.clear();
        self.window_angles.clear();
        let Some(rope) = &config.rope else { return };
        let positions = batch.iter().flat_map(|part| {
            let first = part.session.position();
            first..first + part.tokens.len()
        });
        for position in positions {
            let angle = |frequency: &f64| {
                let (sin, cos) = libm::sincos(position as f64 * frequency);
                (cos as f32 * rope.magnitude, sin as f32 * rope.magnitude)
            };
            self.angles.extend(rope.frequencies.iter().map(angle));
            self.window_angles.extend(rope.window_frequencies.iter().flatten().map(angle));
        }
    }

    /// One layer's attention: `qkv` is `[rows, query_dim + 2 kv_dim]`; the result goes to `x`, `[rows,
    /// query_dim]`. Keys and values are written to the sessions, which must have reserved room.
    #[allow(clippy::too_many_arguments, reason = "the state of one layer's step, named one by one")]
    pub(super) fn run(
        &mut self,
        pool: &Pool,
        config: &Config,
        layer: &Layer,
        index: usize,
        qkv: &mut [f32],
        batch: &mut [Batch<'_>],
        x: &mut Activations,
    ) {
        let rows: usize = batch.iter().map(|part| part.tokens.len()).sum();
        let (head_dim, stride) = (config.head_dim, head_stride(config.head_dim));
        grow(&mut self.queries, rows * config.heads * stride);
        grow(&mut self.sums, rows * config.heads * stride);

        let mut row = 0;
        for part in batch.iter_mut() {
            for offset in 0..part.tokens.len() {
                self.place(config, layer, index, row, qkv, part, part.session.position() + offset);
                row += 1;
            }
        }
        self.attend(pool, config, index, batch);
        let out = x.reshape(rows, config.query_dim()).chunks_exact_mut(head_dim);
        for (out, sums) in out.zip(self.sums.chunks_exact(stride)) {
            out.copy_from_slice(&sums[..head_dim]);
        }
    }

    /// Norms and rotates one row's queries and keys, and writes keys and values to the cache.
    #[allow(clippy::too_many_arguments, reason = "the state of one layer's step, named one by one")]
    fn place(
        &mut self,
        config: &Config,
        layer: &Layer,
        index: usize,
        row: usize,
        qkv: &mut [f32],
        part: &mut Batch<'_>,
        position: usize,
    ) {
        let (head_dim, stride) = (config.head_dim, head_stride(config.head_dim));
        let width = config.query_dim() + 2 * config.kv_dim();
        let qkv = &mut qkv[row * width..][..width];
        let (mut normed, mut half) = ([0.0; MAX_HEAD], [0; MAX_HEAD]);
        for head in 0..config.heads + config.kv_heads {
            let is_query = head < config.heads;
            let from = &mut qkv[head * head_dim..][..head_dim];
            let norm = if is_query { &layer.query_norm } else { &layer.key_norm };
            if let Some(norm) = norm {
                norm.apply(from, &mut normed[..head_dim]);
                from.copy_from_slice(&normed[..head_dim]);
            }
            if let Some(rope) = config.rope.as_ref().filter(|rope| !skips(rope, index)) {
                let windowed = rope.window_frequencies.is_some() && config.window_of(index).is_some();
                let angles = if windowed { &self.window_angles } else { &self.angles };
                rotate(from, rope.pairs, &angles[row * rope.dims / 2..][..rope.dims / 2]);
            }
            if is_query {
                let to = &mut self.queries[(row * config.heads + head) * stride..][..stride];
                to[..head_dim].copy_from_slice(from);
                to[head_dim..].fill(0.0);
            } else {
                let key = &mut half[..head_dim];
                kernels::half_row(from, key);
                let [keys, _] = part.session.page_mut(position, index, head - config.heads);
                for (column, &key) in keys.as_chunks_mut::<PAGE>().0.iter_mut().zip(&*key) {
                    column[position % PAGE] = key;
                }
            }
        }
        let values = &qkv[config.query_dim() + config.kv_dim()..];
        for (head, from) in values.chunks_exact(head_dim).enumerate() {
            let [_, values] = part.session.page_mut(position, index, head);
            kernels::half_row(from, &mut values[position % PAGE * stride..][..head_dim]);
        }
    }

    /// All queries over the sessions' caches; tasks are groups of queries of one key head.
    fn attend(&mut self, pool: &Pool, config: &Config, index: usize, batch: &[Batch<'_>]) {
        let stride = head_stride(config.head_dim);
        let group = config.heads / config.kv_heads;
        let shape = Attention {
            stride,
            scale: config.attention_scale,
            softcap: config.attention_softcap,
            window: config.window_of(index),
        };
        let queries = &self.queries;
        let sums = Shared::new(&mut self.sums);
        let mut first_row = 0;
        for part in batch {
            let count = part.tokens.len() * group;
            let chunks = count.div_ceil(MAX_QUERIES);
            pool.run(chunks * config.kv_heads, &|task| {
                let (kv_head, chunk) = (task / chunks, task % chunks);
                let mut tile = ArrayVec::<Query<'_>, MAX_QUERIES>::new();
                for query in chunk * MAX_QUERIES..count.min((chunk + 1) * MAX_QUERIES) {
                    let (offset, head) = (query / group, kv_head * group + query % group);
                    let start = ((first_row + offset) * config.heads + head) * stride;
                    // SAFETY: a head of a row belongs to one query, and a query to one task.
                    #[allow(unsafe_code, reason = "tasks write disjoint heads")]
                    let out = unsafe { sums.slice(start, stride) };
                    let position = part.session.position() + offset;
                    tile.push(Query::new(position, &queries[start..][..stride], out));
                }
                kernels::attend(shape, &mut tile, &|page| part.session.page(page, index, kv_head));
            });
            first_row += part.tokens.len();
        }
    }
}

/// True if layer `index` has no rotary positions.
fn skips(rope: &Rope, index: usize) -> bool {
    rope.skip_period > 0 && (index + 1).is_multiple_of(rope.skip_period)
}

/// Rotates the leading elements of a head by `(cos, sin)` of each pair.
fn rotate(head: &mut [f32], pairs: RopePairs, angles: &[(f32, f32)]) {
    let half = angles.len();
    for (i, &(cos, sin)) in angles.iter().enumerate() {
        let (a, b) = match pairs {
            RopePairs::Adjacent => (2 * i, 2 * i + 1),
            RopePairs::Halves => (i, i + half),
        };
        let (first, second) = (head[a], head[b]);
        head[a] = first * cos - second * sin;
        head[b] = first * sin + second * cos;
    }
}
