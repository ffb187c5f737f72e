//! The scheduler's memory: who has pages, who gets some, and who has to give them back.

use std::time::{Duration, Instant};

use super::{Held, Id, Scheduler, Sequence};
use crate::engine::{Cache, Engine};
use crate::prefix::{Found, Tree};

/// A sequence that nobody waits for keeps its memory so long while others wait for some: a client that reads
/// slowly must not hold up the others.
const IDLE: Duration = Duration::from_secs(1);

impl<E: Engine> Scheduler<E> {
    /// Pages in use: those of the tree, and each sequence's own.
    pub(super) fn pages(&self) -> usize {
        let own = self.sequences.values().filter_map(|sequence| sequence.held.as_ref());
        self.tree.pages() + own.map(|held| held.own).sum::<usize>()
    }

    /// Gives those who wait their memory, in their order, until it is used up.
    pub(super) fn admit(&mut self, now: Instant) {
        while let Some(&id) = self.waiting.front() {
            if !self.admitted(id, now) {
                return;
            }
            self.waiting.pop_front();
        }
    }

    fn admitted(&mut self, id: Id, now: Instant) -> bool {
        let Some(Sequence { log, tenant, step: Some(step), .. }) = self.sequences.get(&id) else {
            return true;
        };
        // The last tokens are computed in any case, as their logits are wanted.
        let wanted = log.len() - step.outputs;
        let all = log.len().div_ceil(self.shape.page);
        let Found { path, pages, part } = self.tree.find(*tenant, &log[..wanted]);
        let own = all - pages.len();
        while self.pages() + own > self.most_pages {
            let is_idle = |sequence: &Sequence<E::Cache>| {
                sequence.step.is_none() && now.saturating_duration_since(sequence.idle) >= IDLE
            };
            if !self.tree.evict() && !self.preempt(id, is_idle) {
                self.tree.release(path, None);
                return false;
            }
        }
        let mut cache = self.engine.cache();
        pages.into_iter().for_each(|page| cache.attach(page, self.shape.page));
        if let Some((page, count)) = part {
            cache.attach(page, count);
        }
        let cached = cache.position();
        if let Some(Sequence { step: Some(step), held, started, .. }) = self.sequences.get_mut(&id) {
            *held = Some(Held { cache, path, own });
            if !std::mem::replace(started, true) {
                step.cached = cached;
                self.stats.cached_tokens += cached as u64;
            }
        }
        true
    }

    /// Sees that there are pages for all of `chosen`; who cannot have any is not chosen any more.
    pub(super) fn make_room(&mut self, chosen: &mut Vec<(Id, usize)>) {
        let mut index = 0;
        while let Some(&(id, count)) = chosen.get(index) {
            index += 1;
            let Some(Sequence { held: Some(held), .. }) = self.sequences.get(&id) else { continue };
            let end = (held.cache.position() + count).div_ceil(self.shape.page);
            let own = end - held.path.pages();
            let more = own.saturating_sub(held.own);
            while self.pages() + more > self.most_pages {
                let taken = self.tree.evict()
                    || self.preempt(id, |sequence| sequence.step.is_none())
                    || self.preempt(id, |_| true);
                if !taken {
                    break;
                }
            }
            if let Some(Sequence { held: Some(held), .. }) = self.sequences.get_mut(&id) {
                held.own += more;
            }
        }
        chosen.retain(|(id, _)| self.sequences.get(id).is_some_and(|sequence| sequence.held.is_some()));
    }

    /// Takes the cache of the youngest sequence that may lose it and is not `but`. What it has in the tree stays there
    /// while it can; its tokens are computed anew when there is room.
    fn preempt(&mut self, but: Id, may: impl Fn(&Sequence<E::Cache>) -> bool) -> bool {
        let candidate = |(id, sequence): &(&Id, &mut Sequence<E::Cache>)| {
            **id != but && sequence.held.is_some() && may(sequence)
        };
        let Some((&id, sequence)) = self.sequences.iter_mut().rev().find(candidate) else { return false };
        let Some(held) = sequence.held.take() else { return false };
        if sequence.step.is_some() {
            // Before those who have had nothing yet.
            self.waiting.push_front(id);
        }
        self.tree.release(held.path, None);
        self.stats.preemptions += 1;
        true
    }

    /// Puts a sequence's full pages where others can find them.
    pub(super) fn publish(&mut self, id: Id) {
        let page = self.shape.page;
        let Some(Sequence { log, held: Some(held), .. }) = self.sequences.get_mut(&id) else { return };
        while (held.path.pages() + 1) * page <= held.cache.position() {
            let index = held.path.pages();
            let Some(shared) = held.cache.share(index) else { return };
            let block = &log[index * page..(index + 1) * page];
            if let Some(known) = self.tree.grow(&mut held.path, block, shared) {
                held.cache.replace(index, known);
            }
            held.own = held.own.saturating_sub(1);
        }
    }

    /// Ends a sequence's hold; what it computed is kept as a prefix.
    pub(super) fn let_go(&mut self, held: Held<E::Cache>, log: &[u32]) {
        let full = held.path.pages();
        let rest = &log[full * self.shape.page..held.cache.position()];
        let tail = held.cache.share(full).filter(|_| !rest.is_empty()).map(|page| (rest, page));
        self.tree.release(held.path, tail);
    }
}

impl<C: Cache> Held<C> {
    /// Cuts the cache to its first `position` tokens.
    pub(super) fn truncate(&mut self, tree: &mut Tree<C::Page>, page: usize, position: usize) {
        self.cache.truncate(position);
        let full = (self.cache.position() / page).min(self.path.pages());
        tree.retreat(&mut self.path, full);
        self.own = self.cache.position().div_ceil(page) - self.path.pages();
    }
}
