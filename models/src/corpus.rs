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

    /// Windows of `len + 1` tokens over the documents.
    pub(crate) fn windows(&self, vocabulary: &Vocabulary, len: usize) -> Result<Vec<Vec<u32>>> {
        let separator = vocabulary.special(SEPARATOR)?;
        let mut windows = Vec::new();
        let mut window = Vec::new();
        for document in &self.documents {
            window.extend(vocabulary.encode(&document.text)?);
            window.push(separator);
            if window.len() > len {
                window.truncate(len + 1);
                windows.push(std::mem::take(&mut window));
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

    /// A window of `len + 1` tokens: whole documents from its start, and the last one cut off.
    ///
    /// Every window starts with a document, as every prompt does.
    pub(crate) fn window(&mut self, len: usize) -> Result<Vec<u32>> {
        let mut window = Vec::with_capacity(len + 1);
        while window.len() <= len {
            let document = document(&mut self.rng);
            if document.stories.iter().any(|story| self.held_out.stories.contains(story)) {
                self.passed_over += 1;
                continue;
            }
            self.used += 1;
            window.extend(self.vocabulary.encode(&document.text)?);
            window.push(self.separator);
        }
        window.truncate(len + 1);
        Ok(window)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_start_with_documents_and_have_their_length() -> Result<()> {
        let vocabulary = vocabulary(1)?;
        let held_out = HeldOut::draw(1, 20);
        let mut stream = Stream::new(1, &vocabulary, &held_out)?;
        let opening = vocabulary.special(START_OF_TURN)?;
        for len in [64, 256, 512] {
            let window = stream.window(len)?;
            assert_eq!(window.len(), len + 1);
            let text = vocabulary.decode(&window)?;
            assert!(window[0] == opening || text.starts_with(char::is_uppercase), "{text}");
        }
        assert!(held_out.windows(&vocabulary, 256)?.iter().all(|window| window.len() == 257));
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
