//! Byte-pair merging: the loop that SentencePiece and byte-level BPE share.
//!
//! A text begins as one symbol per character (or byte). Of all neighbours that may be joined, the best pair
//! comes first, the leftmost among equals. Candidates wait in a heap, and one whose symbols have changed
//! since is recognised by its length and dropped, so a text of n symbols takes n·log n steps. What may be
//! joined, and how good that is, the caller says.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Marks a symbol with no neighbour on that side, and one that is no token.
pub(super) const NONE: u32 = u32::MAX;

/// A stretch of the text that is a token, or a single character that is none.
#[derive(Debug, Clone, Copy)]
pub(super) struct Symbol {
    /// First byte in the text.
    pub(super) start: u32,
    /// Length in bytes; 0 once it was joined to its left neighbour.
    pub(super) length: u32,
    /// The token's id, or [`NONE`].
    pub(super) id: u32,
    previous: u32,
    next: u32,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate<P> {
    priority: P,
    left: Reverse<u32>,
    length: u32,
    id: u32,
}

/// The working memory of one text, kept from one word to the next.
#[derive(Debug)]
pub(super) struct Merger<P> {
    symbols: Vec<Symbol>,
    heap: BinaryHeap<Candidate<P>>,
}

impl<P: Ord> Merger<P> {
    pub(super) fn new() -> Self {
        Self { symbols: Vec::new(), heap: BinaryHeap::new() }
    }

    /// Starts over with the symbols given as (length in bytes, id), in order and without gaps. Lengths have
    /// to add up to less than 4 GiB.
    pub(super) fn start(&mut self, symbols: impl Iterator<Item = (u32, u32)>) {
        self.symbols.clear();
        self.heap.clear();
        let mut start = 0;
        for (index, (length, id)) in (0_u32..).zip(symbols) {
            let previous = index.checked_sub(1).unwrap_or(NONE);
            self.symbols.push(Symbol { start, length, id, previous, next: index + 1 });
            start += length;
        }
        if let Some(last) = self.symbols.last_mut() {
            last.next = NONE;
        }
    }

    /// Joins symbols until no pair is left that may be joined. `join` gives a pair's priority (more is
    /// better) and the id of the joined token.
    pub(super) fn run(&mut self, join: impl Fn(Symbol, Symbol) -> Option<(P, u32)>) {
        for left in 0..self.symbols.len() as u32 {
            self.consider(left, &join);
        }
        while let Some(Candidate { left: Reverse(left), length, id, .. }) = self.heap.pop() {
            let Some((symbol, right)) = self.pair(left) else { continue };
            if symbol.length == 0 || symbol.length + right.length != length {
                continue;
            }
            let removed = symbol.next;
            if let Some(symbol) = self.symbols.get_mut(left as usize) {
                *symbol = Symbol { length, id, next: right.next, ..*symbol };
            }
            if let Some(symbol) = self.symbols.get_mut(removed as usize) {
                symbol.length = 0;
            }
            if let Some(after) = self.symbols.get_mut(right.next as usize) {
                after.previous = left;
            }
            self.consider(symbol.previous, &join);
            self.consider(left, &join);
        }
    }

    /// What is left, in order.
    pub(super) fn symbols(&self) -> impl Iterator<Item = Symbol> {
        self.symbols.iter().copied().filter(|symbol| symbol.length > 0)
    }

    fn pair(&self, left: u32) -> Option<(Symbol, Symbol)> {
        let symbol = *self.symbols.get(left as usize)?;
        Some((symbol, *self.symbols.get(symbol.next as usize)?))
    }

    fn consider(&mut self, left: u32, join: impl Fn(Symbol, Symbol) -> Option<(P, u32)>) {
        let Some((symbol, right)) = self.pair(left) else { return };
        if let Some((priority, id)) = join(symbol, right) {
            let length = symbol.length + right.length;
            self.heap.push(Candidate { priority, left: Reverse(left), length, id });
        }
    }
}
