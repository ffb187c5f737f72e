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

    /// Bytes of a page.
    pub(crate) fn bytes(self) -> usize {
        self.elements() * size_of::<u16>()
    }

    /// Where keys (`side` 0) or values (`side` 1) of a head begin.
    fn start(self, layer: usize, side: usize, head: usize) -> usize {
        ((layer * 2 + side) * self.kv_heads + head) * PAGE * self.stride
    }
}

/// A page of a cache, shared. What it holds depends on the model and on all tokens up to its end.
#[derive(Debug, Clone)]
pub struct Page(Arc<Vec<u16>>);

impl Page {
    /// Positions in a page.
    pub const POSITIONS: usize = PAGE;

    /// Whether both are the same memory.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// The state of one sequence. Cloning shares the cache's pages.
#[derive(Debug, Clone)]
pub struct Session {
    shape: PageShape,
    pages: Vec<Page>,
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
        self.pages.len() * self.shape.bytes()
    }

    /// The page with positions `32 · index` to `32 · index + 31`, if the cache reaches into it.
    pub fn share(&self, index: usize) -> Option<Page> {
        self.pages.get(index).cloned()
    }

    /// Continues with the first `positions` of a page that another sequence of the same model computed after the
    /// same tokens. Nothing changes, and the answer is false, unless this one ends where a page does, and `positions`
    /// are 1 to 32 of a page of the same shape.
    pub fn attach(&mut self, page: Page, positions: usize) -> bool {
        let fits = self.position.is_multiple_of(PAGE)
            && (1..=PAGE).contains(&positions)
            && page.0.len() == self.shape.elements();
        if fits {
            self.pages.push(page);
            self.position += positions;
        }
        fits
    }

    /// Puts a page that holds the same in the place of one that is full, so that its memory is needed once. Nothing
    /// changes where there is no such page.
    pub fn replace(&mut self, index: usize, page: Page) {
        let is_full = (index + 1) * PAGE <= self.position;
        if let (true, Some(place)) =
            (is_full && page.0.len() == self.shape.elements(), self.pages.get_mut(index))
        {
            *place = page;
        }
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
        self.pages.resize_with((self.position + count).div_ceil(PAGE), || {
            Page(Arc::new(vec![0; self.shape.elements()]))
        });
        // A shared page is copied here once, not at every write.
        self.pages.iter_mut().skip(first).for_each(|page| {
            Arc::make_mut(&mut page.0);
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
        let page = Arc::make_mut(&mut self.pages[position / PAGE].0);
        let (before, from_values) = page.split_at_mut(values);
        [&mut before[keys..keys + length], &mut from_values[..length]]
    }

    /// Keys `[stride][32]` and values `[32][stride]` of one head in page `page`.
    pub(crate) fn page(&self, page: usize, layer: usize, head: usize) -> Option<(&[u16], &[u16])> {
        let length = PAGE * self.shape.stride;
        let (keys, values) = (self.shape.start(layer, 0, head), self.shape.start(layer, 1, head));
        let page = &self.pages.get(page)?.0;
        Some((&page[keys..keys + length], &page[values..values + length]))
    }
}
