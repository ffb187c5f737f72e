//! Which pieces a text begins with: a trie as a sorted list of ids.
//!
//! Pieces that share a prefix are neighbours in the list. Following a text byte by byte narrows the range,
//! and ends as soon as no piece is left, so the cost does not depend on how long the longest piece is.

use super::vocabulary::Vocabulary;

/// The ids of some pieces of a vocabulary, sorted by their text.
#[derive(Debug)]
pub(super) struct Prefixes(Vec<u32>);

impl Prefixes {
    /// The pieces that text may become.
    pub(super) fn new(vocabulary: &Vocabulary) -> Self {
        let mut ids: Vec<u32> = (0..vocabulary.len() as u32)
            .filter(|&id| vocabulary.is_text(id) && !vocabulary.raw(id).is_empty())
            .collect();
        ids.sort_unstable_by_key(|&id| vocabulary.raw(id));
        Self(ids)
    }

    /// Hands length and id of every piece that `text` begins with to `each`, the shortest first.
    pub(super) fn of(&self, vocabulary: &Vocabulary, text: &[u8], mut each: impl FnMut(usize, u32)) {
        let mut range = self.0.as_slice();
        for (depth, byte) in text.iter().enumerate() {
            let byte_at = |id: u32| vocabulary.raw(id).get(depth);
            let start = range.partition_point(|&id| byte_at(id) < Some(byte));
            let end = range.partition_point(|&id| byte_at(id) <= Some(byte));
            range = range.get(start..end).unwrap_or_default();
            let Some(&first) = range.first() else { return };
            if vocabulary.raw(first).len() == depth + 1 {
                each(depth + 1, first);
            }
        }
    }
}
