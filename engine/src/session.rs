//! The mutable state of one sequence: its KV cache.
//!
//! The cache is made of pages of 32 positions, each with the keys and values of all layers in half precision,
//! contiguous per head. A page is shared by reference until somebody writes to it, so a clone of a session
//! (the same prompt continued twice, a baked system prompt) costs its last page.

use std::sync::Arc;

use crate::config::Config;
use crate::kernels::{PAGE, head_stride};

/// The sizes of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PageShape {
    layers: usize,
    kv_heads: usize,
    /// Elements of a head, rounded up to whole groups of lanes.
    pub(crate) stride: usize,
}

impl PageShape {
    pub(crate) fn new(config: &Config) -> Self {
        Self { layers: config.layers, kv_heads: config.kv_heads, stride: head_stride(config.head_dim) }
    }

    fn elements(self) -> usize {
        self.layers * 2 * self.kv_heads * PAGE * self.stride
    }

    /// Where keys (`side` 0) or values (`side` 1) of a head begin.
    fn start(self, layer: usize, side: usize, head: usize) -> usize {
        ((layer * 2 + side) * self.kv_heads + head) * PAGE * self.stride
    }
}

/// The state of one sequence. Cloning shares the cache's pages.
#[derive(Debug, Clone)]
pub struct Session {
    shape: PageShape,
    pages: Vec<Arc<Vec<u16>>>,
    position: usize,
}

impl Session {
    pub(crate) fn new(shape: PageShape) -> Self {
        Self { shape, pages: Vec::new(), position: 0 }
    }

    /// Number of tokens in the cache.
    pub fn position(&self) -> usize {
        self.position
    }

    /// Bytes of the cache, pages shared with other sessions included.
    pub fn bytes(&self) -> usize {
        self.pages.len() * self.shape.elements() * size_of::<u16>()
    }

    /// Cuts the cache to its first `position` tokens; longer than the cache is no change.
    pub fn truncate(&mut self, position: usize) {
        self.position = self.position.min(position);
        self.pages.truncate(self.position.div_ceil(PAGE));
    }

    /// True if the session was started by a model of this shape.
    pub(crate) fn fits(&self, shape: PageShape) -> bool {
        self.shape == shape
    }

    /// Makes room for `count` more positions, which [`advance`](Self::advance) then counts.
    pub(crate) fn reserve(&mut self, count: usize) {
        let first = self.position / PAGE;
        self.pages
            .resize_with((self.position + count).div_ceil(PAGE), || Arc::new(vec![0; self.shape.elements()]));
        // A shared page is copied here once, not at every write.
        self.pages.iter_mut().skip(first).for_each(|page| {
            Arc::make_mut(page);
        });
    }

    /// Counts `count` positions as filled.
    pub(crate) fn advance(&mut self, count: usize) {
        self.position += count;
    }

    /// Keys `[stride][32]` and values `[32][stride]` of one head in the page of a position that was reserved.
    pub(crate) fn page_mut(&mut self, position: usize, layer: usize, head: usize) -> [&mut [u16]; 2] {
        let length = PAGE * self.shape.stride;
        let (keys, values) = (self.shape.start(layer, 0, head), self.shape.start(layer, 1, head));
        let page = Arc::make_mut(&mut self.pages[position / PAGE]);
        let (before, from_values) = page.split_at_mut(values);
        [&mut before[keys..keys + length], &mut from_values[..length]]
    }

    /// Keys `[stride][32]` and values `[32][stride]` of one head in page `page`.
    pub(crate) fn page(&self, page: usize, layer: usize, head: usize) -> Option<(&[u16], &[u16])> {
        let length = PAGE * self.shape.stride;
        let (keys, values) = (self.shape.start(layer, 0, head), self.shape.start(layer, 1, head));
        let page = self.pages.get(page)?;
        Some((&page[keys..keys + length], &page[values..values + length]))
    }
}
