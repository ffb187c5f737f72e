//! Token windows for training, and held-out ones that training never sees.
//!
//! The held-out documents are drawn first; the training stream passes over every document that
//! tells one of their stories, so no held-out story is ever trained on. Training text is made as
//! it is needed and never repeats itself, so there is nothing to store.

use crate::chat::{Document, document};
use crate::tokenizer::{END_OF_TURN, SEPARATOR, START_OF_TURN, Vocabulary};
use anyhow::Result;
use rand::SeedableRng;
use rand_pcg::Pcg64Mcg;
use std::collections::HashSet;

/// Added to the seed for each purpose, so that the streams differ.
const HELD_OUT: u64 = 1 << 32;
const VOCABULARY_SAMPLE: u64 = 2 << 32;
/// Documents from which the vocabulary is learnt.
const VOCABULARY_DOCUMENTS: usize = 6000;

/// Learns the vocabulary from documents of their own stream.
pub(crate) fn vocabulary(seed: u64) -> Result<Vocabulary> {
    let mut rng = Pcg64Mcg::seed_from_u64(seed + VOCABULARY_SAMPLE);
    let texts: Vec<String> = (0..VOCABULARY_DOCUMENTS)
        .map(|_| document(&mut rng).text.replace(START_OF_TURN, "").replace(END_OF_TURN, ""))
        .collect();
    Vocabulary::train(texts.iter().map(String::as_str))
}

/// Documents packed one after the other, each closed by the separator.
#[derive(Default)]
pub(crate) struct Window {
    /// `len + 1` tokens: the inputs, and shifted by one, what is to be predicted.
    pub(crate) tokens: Vec<u32>,
    /// For each token, the position where its document starts: a document sees no other one, as a
    /// prompt sees none.
    pub(crate) starts: Vec<u32>,
}

impl Window {
    fn push(&mut self, document: &[u32], separator: u32) {
        let start = self.tokens.len() as u32;
        self.tokens.extend(document);
        self.starts.extend(document.iter().map(|_| start));
        self.starts.push(self.tokens.len() as u32);
        self.tokens.push(separator);
    }

    /// Whether there is a target for each of `len` tokens.
    fn is_full(&self, len: usize) -> bool {
        self.tokens.len() > len
    }

    /// Cuts the last document off at the window's end.
    fn cut(mut self, len: usize) -> Self {
        self.tokens.truncate(len + 1);
        self.starts.truncate(len);
        self
    }
}

/// Documents that are kept from training.
pub(crate) struct HeldOut {
    documents: Vec<Document>,
    stories: HashSet<String>,
}

impl HeldOut {
    /// Draws documents until there are `count`.
    pub(crate) fn draw(seed: u64, count: usize) -> Self {
        let mut rng = Pcg64Mcg::seed_from_u64(seed + HELD_OUT);
        let documents: Vec<Document> = (0..count).map(|_| document(&mut rng)).collect();
        let stories = documents.iter().flat_map(|document| document.stories.clone()).collect();
        Self { documents, stories }
    }

    /// How many different stories there are.
    pub(crate) fn stories(&self) -> usize {
        self.stories.len()
    }

    /// Windows of `len` tokens over the documents.
    pub(crate) fn windows(&self, vocabulary: &Vocabulary, len: usize) -> Result<Vec<Window>> {
        let separator = vocabulary.special(SEPARATOR)?;
        let mut windows = Vec::new();
        let mut window = Window::default();
        for document in &self.documents {
            window.push(&vocabulary.encode(&document.text)?, separator);
            if window.is_full(len) {
                windows.push(std::mem::take(&mut window).cut(len));
            }
        }
        Ok(windows)
    }
}

/// The endless stream of training windows.
pub(crate) struct Stream<'a> {
    rng: Pcg64Mcg,
    vocabulary: &'a Vocabulary,
    separator: u32,
    held_out: &'a HeldOut,
    /// Documents passed over because a story of theirs is held out.
    pub(crate) passed_over: usize,
    /// Documents used.
    pub(crate) used: usize,
}

impl<'a> Stream<'a> {
    /// Starts the stream of a seed.
    pub(crate) fn new(seed: u64, vocabulary: &'a Vocabulary, held_out: &'a HeldOut) -> Result<Self> {
        Ok(Self {
            rng: Pcg64Mcg::seed_from_u64(seed),
            separator: vocabulary.special(SEPARATOR)?,
            vocabulary,
            held_out,
            passed_over: 0,
            used: 0,
        })
    }

    /// A window of `len` tokens: whole documents from its start, and the last one cut off.
    pub(crate) fn window(&mut self, len: usize) -> Result<Window> {
        let mut window = Window::default();
        while !window.is_full(len) {
            let document = document(&mut self.rng);
            if document.stories.iter().any(|story| self.held_out.stories.contains(story)) {
                self.passed_over += 1;
                continue;
            }
            self.used += 1;
            window.push(&self.vocabulary.encode(&document.text)?, self.separator);
        }
        Ok(window.cut(len))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_documents_that_start_where_they_say() -> Result<()> {
        let vocabulary = vocabulary(1)?;
        let held_out = HeldOut::draw(1, 20);
        let mut stream = Stream::new(1, &vocabulary, &held_out)?;
        let mut windows = held_out.windows(&vocabulary, 256)?;
        windows.push(stream.window(256)?);
        for Window { tokens, starts } in windows {
            assert_eq!((tokens.len(), starts.len()), (257, 256));
            for (at, start) in starts.iter().map(|start| *start as usize).enumerate() {
                assert!(start == 0 || start == at || tokens[start - 1] == 0, "{start} of {at}");
                assert!(!tokens[start..at].contains(&0), "{start} of {at} is not its document's");
            }
        }
        Ok(())
    }

    #[test]
    fn held_out_stories_are_passed_over() -> Result<()> {
        let vocabulary = vocabulary(1)?;
        // Held out from the very stream that is trained on: everything must be passed over.
        let held_out = HeldOut::draw(1, 50);
        let mut stream = Stream::new(1 + HELD_OUT, &vocabulary, &held_out)?;
        stream.window(256)?;
        assert!(stream.passed_over > 40, "{} passed over", stream.passed_over);
        Ok(())
    }
}
