//! Decides what the next forward pass computes: the steps of all sequences in one batch.
//!
//! Every sequence has a log of its tokens and a cache of the first of them; a step that was asked for is computed
//! when the cache has reached the log's end. From that everything follows: a prompt is computed in parts, a
//! sequence that has lost its cache (memory was short) computes it anew, one whose prefix somebody else has
//! computed starts further on. None of it changes a bit of the result, as the rows of a batch do not depend on each
//! other.
//!
//! A pass takes every running sequence along, and as much of the prompts as those can bear (`pace`), the least
//! recently served first. Memory is counted in pages. A new sequence waits, in the order of arrival, until there is
//! room for all that it has; one that runs and finds no room for its next page takes it from unused prefixes first, then
//! from a sequence that nobody waits for, then from the youngest.
//!
//! Nothing here waits or has threads; time comes in as an argument.

mod memory;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use crate::engine::{Cache, Engine, Part, Shape};
use crate::error::{Error, Result};
use crate::output::{Output, Rows};
use crate::pace::Pace;
use crate::prefix::{Path, Tenant, Tree};

/// Tokens of a step that is not a prompt: one, or a draft to be verified.
const FEW: usize = 16;
/// Prompt tokens in a pass that nobody else waits for.
const CHUNK: usize = 256;
/// Logits of so many positions can be had at once.
pub(crate) const MOST_OUTPUTS: usize = 64;

/// Bounds of a scheduler.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of KV cache, prefixes that are kept included.
    pub kv_bytes: u64,
    /// How long a new sequence waits for memory.
    pub patience: Duration,
    /// New sequences that wait for memory at once.
    pub queue: usize,
}

/// What a sequence asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Tokens to append, at least one.
    pub tokens: Vec<u32>,
    /// Where to: the sequence is cut to this length first.
    pub position: usize,
    /// How many of the last tokens want logits.
    pub outputs: usize,
    /// Whether only the best logits are wanted, and how many.
    pub top: Option<usize>,
}

/// Names a sequence.
pub(crate) type Id = u64;

/// Gets the result of a step.
pub(crate) type Reply = Box<dyn FnOnce(Result<Output>) + Send>;

/// What there is to know about a scheduler.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Sequences that hold memory.
    pub running: usize,
    /// Sequences that wait for some.
    pub waiting: usize,
    /// Pages of KV cache in use, of prefixes that are kept included.
    pub pages: usize,
    /// Pages of prefixes.
    pub prefix_pages: usize,
    /// Pages that there may be.
    pub most_pages: usize,
    /// Forward passes so far.
    pub passes: u64,
    /// Tokens computed so far.
    pub tokens: u64,
    /// Prompt tokens that were found in the prefix cache so far.
    pub cached_tokens: u64,
    /// How often a sequence lost its cache to another so far.
    pub preemptions: u64,
}

/// All sequences of a model.
pub(crate) struct Scheduler<E: Engine> {
    engine: E,
    shape: Shape,
    limits: Limits,
    most_pages: usize,
    tree: Tree<<E::Cache as Cache>::Page>,
    sequences: BTreeMap<Id, Sequence<E::Cache>>,
    /// Sequences with a step and without a cache, in the order in which they get one.
    waiting: VecDeque<Id>,
    pace: Pace,
    stats: Stats,
    /// Who was answered in the last pass and has not come back yet.
    away: BTreeSet<Id>,
}

/// A sequence.
struct Sequence<C> {
    tenant: Tenant,
    log: Vec<u32>,
    /// Its cache and its place in the tree; absent while it waits.
    held: Option<Held<C>>,
    step: Option<Pending>,
    /// Whether it had a cache before: it is not refused any more.
    started: bool,
    /// The pass that last computed something of it.
    served: u64,
    /// Since when nobody waits for it.
    idle: Instant,
}

/// What a running sequence holds.
struct Held<C> {
    cache: C,
    path: Path,
    /// Pages that are its own: those beyond the path's.
    own: usize,
}

/// A step that was asked for.
struct Pending {
    outputs: usize,
    top: Option<usize>,
    cached: usize,
    since: Instant,
    reply: Reply,
}

impl<E: Engine> Scheduler<E> {
    /// # Errors
    /// [`Error::Invalid`] if the memory cannot hold a single sequence of the model's length.
    pub(crate) fn new(engine: E, limits: Limits) -> Result<Self> {
        let shape = engine.shape();
        let most_pages =
            usize::try_from(limits.kv_bytes / shape.page_bytes.max(1) as u64).unwrap_or(usize::MAX);
        let needed = shape.context.div_ceil(shape.page);
        if most_pages < needed {
            let bytes = needed as u64 * shape.page_bytes as u64;
            return Err(Error::Invalid(format!(
                "the KV cache may have {} bytes, a sequence of {} tokens needs {bytes}",
                limits.kv_bytes, shape.context
            )));
        }
        Ok(Self {
            engine,
            shape,
            limits,
            most_pages,
            tree: Tree::new(shape.page),
            sequences: BTreeMap::new(),
            waiting: VecDeque::new(),
            pace: Pace::new(CHUNK),
            stats: Stats { most_pages, ..Stats::default() },
            away: BTreeSet::new(),
        })
    }

    pub(crate) fn shape(&self) -> Shape {
        self.shape
    }

    pub(crate) fn stats(&self) -> Stats {
        let running = self.sequences.values().filter(|sequence| sequence.held.is_some()).count();
        let (waiting, prefix_pages) = (self.waiting.len(), self.tree.pages());
        Stats { running, waiting, pages: self.pages(), prefix_pages, ..self.stats }
    }

    /// A new sequence, empty. Ids rise.
    pub(crate) fn open(&mut self, id: Id, tenant: Tenant, now: Instant) {
        let (log, held, step) = (Vec::new(), None, None);
        self.sequences.insert(id, Sequence { tenant, log, held, step, started: false, served: 0, idle: now });
    }

    /// Ends a sequence. Its pages are kept as a prefix for others while there is room.
    pub(crate) fn close(&mut self, id: Id) {
        self.away.remove(&id);
        self.waiting.retain(|waiting| *waiting != id);
        if let Some(Sequence { log, held: Some(held), .. }) = self.sequences.remove(&id) {
            self.let_go(held, &log);
        }
    }

    /// Asks for a step. What is wrong with it is replied at once.
    pub(crate) fn submit(&mut self, id: Id, step: Step, now: Instant, reply: Reply) {
        let checked = self.check(id, &step);
        let Some(sequence) = self.sequences.get_mut(&id).filter(|_| checked.is_ok()) else {
            return reply(Err(checked
                .err()
                .unwrap_or_else(|| Error::Failed("there is no such sequence".into()))));
        };
        self.away.remove(&id);
        sequence.log.truncate(step.position);
        sequence.log.extend_from_slice(&step.tokens);
        let Step { outputs, top, position, .. } = step;
        let pending = Pending { outputs, top, cached: 0, since: now, reply };
        sequence.step = Some(pending);
        match &mut sequence.held {
            Some(held) => held.truncate(&mut self.tree, self.shape.page, position),
            // It lost its cache, so it goes before those who have had nothing yet.
            None if sequence.started => self.waiting.push_front(id),
            None => self.waiting.push_back(id),
        }
    }

    /// How many were answered in the last pass and may soon come back, so that they could share the next one.
    pub(crate) fn away(&self) -> usize {
        self.away.len()
    }

    /// Whether somebody waits for memory.
    pub(crate) fn someone_waits(&self) -> bool {
        !self.waiting.is_empty()
    }

    fn check(&self, id: Id, step: &Step) -> Result<()> {
        let Step { tokens, position, outputs, .. } = step;
        let invalid = |text: String| Err(Error::Invalid(text));
        let Some(sequence) = self.sequences.get(&id) else {
            return invalid("there is no such sequence".to_owned());
        };
        if sequence.step.is_some() {
            return invalid("the sequence is being computed already".to_owned());
        }
        if *position > sequence.log.len() {
            return invalid(format!(
                "position is {position}, the sequence has {} tokens",
                sequence.log.len()
            ));
        }
        if tokens.is_empty() {
            return invalid("tokens is empty".to_owned());
        }
        if *outputs > tokens.len().min(MOST_OUTPUTS) {
            let limit = tokens.len().min(MOST_OUTPUTS);
            return invalid(format!(
                "outputs is {outputs}, the limit is {limit} for {} tokens",
                tokens.len()
            ));
        }
        if step.top == Some(0) {
            return invalid("top_k is 0, it must be at least 1".to_owned());
        }
        let Shape { vocabulary, context, .. } = self.shape;
        if let Some(token) = tokens.iter().find(|&&token| token as usize >= vocabulary) {
            return invalid(format!("tokens has {token}, the vocabulary has {vocabulary} tokens"));
        }
        // Computed without overflow: both are lengths of what is in memory.
        if position + tokens.len() > context {
            return invalid(format!("{} tokens, the model's context is {context}", position + tokens.len()));
        }
        if sequence.held.is_none() && !sequence.started && self.waiting.len() >= self.limits.queue {
            return Err(Error::Busy(format!("{} requests wait for memory already", self.waiting.len())));
        }
        Ok(())
    }

    /// When a waiting sequence will have waited too long, if one waits.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let new =
            self.waiting.iter().filter_map(|id| self.sequences.get(id)).filter(|sequence| !sequence.started);
        let first = new.filter_map(|sequence| Some(sequence.step.as_ref()?.since)).min()?;
        Some(first + self.limits.patience)
    }

    /// Refuses what has waited for too long.
    pub(crate) fn expire(&mut self, now: Instant) {
        let patience = self.limits.patience;
        let mut late = Vec::new();
        for id in &self.waiting {
            if let Some(sequence) = self.sequences.get_mut(id).filter(|sequence| !sequence.started) {
                late.extend(sequence.step.take_if(|step| now >= step.since + patience));
            }
        }
        self.waiting.retain(|id| self.sequences.get(id).is_some_and(|sequence| sequence.step.is_some()));
        for step in late {
            let text = format!("no memory for the request within {} s", patience.as_secs());
            (step.reply)(Err(Error::Busy(text)));
        }
    }

    /// Computes one batch and replies to those whose step is done. False if there was nothing to compute.
    pub(crate) fn pass(&mut self, now: Instant) -> bool {
        self.away.clear();
        self.admit(now);
        self.expire(now);
        let mut chosen = self.choose();
        self.make_room(&mut chosen);
        let computed = !chosen.is_empty() && self.compute(&chosen);
        self.reply(now);
        computed
    }

    /// Who takes part in the next pass, and with how many tokens.
    fn choose(&self) -> Vec<(Id, usize)> {
        let mut pending: Vec<(u64, Id, usize, usize)> = self
            .sequences
            .iter()
            .filter_map(|(id, sequence)| {
                let (held, step) = (sequence.held.as_ref()?, sequence.step.as_ref()?);
                let rest = sequence.log.len() - held.cache.position();
                (rest > 0).then_some((sequence.served, *id, rest, step.outputs))
            })
            .collect();
        pending.sort_unstable();
        let others = pending.iter().any(|(_, _, rest, _)| *rest <= FEW);
        let mut room = self.pace.prompt_tokens(others);
        let mut chosen = Vec::new();
        for (_, id, rest, outputs) in pending {
            let count = match rest {
                ..=FEW => rest,
                _ => part(rest, outputs, room),
            };
            if rest > FEW {
                room = room.saturating_sub(count);
            }
            if count > 0 {
                chosen.push((id, count));
            }
        }
        chosen
    }

    /// Runs the engine; false if it failed, which all who took part are told.
    fn compute(&mut self, chosen: &[(Id, usize)]) -> bool {
        let Self { engine, sequences, stats, .. } = self;
        stats.passes += 1;
        let mut parts: Vec<Part<'_, E::Cache>> = Vec::with_capacity(chosen.len());
        let mut wants = Vec::with_capacity(chosen.len());
        let (mut prompts, mut running) = (0, 0);
        // In the order of ids, as the map gives them out.
        let counts: BTreeMap<Id, usize> = chosen.iter().copied().collect();
        for (id, sequence) in sequences.iter_mut() {
            let (Some(&count), Some(held), Some(step)) = (counts.get(id), &mut sequence.held, &sequence.step)
            else {
                continue;
            };
            let start = held.cache.position();
            let rest = sequence.log.len() - start;
            let outputs = if count == rest { step.outputs } else { 0 };
            *if rest > FEW { &mut prompts } else { &mut running } += count;
            sequence.served = stats.passes;
            wants.push((*id, outputs, step.top));
            parts.push(Part { cache: &mut held.cache, tokens: &sequence.log[start..start + count], outputs });
        }
        stats.tokens += (prompts + running) as u64;
        let started = Instant::now();
        let computed = engine.forward(&mut parts);
        drop(parts);
        let vocabulary = self.shape.vocabulary;
        let mut rows: Vec<(Id, Result<Rows>)> = Vec::new();
        match computed {
            Ok(mut logits) => {
                self.pace.record(prompts, running, started.elapsed());
                for (id, outputs, top) in wants.iter().filter(|(_, outputs, _)| *outputs > 0) {
                    let (own, others) = logits.split_at((outputs * vocabulary).min(logits.len()));
                    rows.push((*id, Ok(Rows::of(own, vocabulary, *top))));
                    logits = others;
                }
            }
            Err(error) => rows.extend(wants.iter().map(|(id, ..)| (*id, Err(error.clone())))),
        }
        for (id, ..) in wants {
            self.publish(id);
        }
        for (id, rows) in rows {
            self.answer(id, rows);
        }
        true
    }

    /// Replies to all whose step asked for no logits and is computed.
    fn reply(&mut self, now: Instant) {
        let is_done = |sequence: &Sequence<E::Cache>| {
            let computed =
                sequence.held.as_ref().is_some_and(|held| held.cache.position() == sequence.log.len());
            computed && sequence.step.is_some()
        };
        let done: Vec<Id> =
            self.sequences.iter().filter(|(_, sequence)| is_done(sequence)).map(|(id, _)| *id).collect();
        for id in done {
            self.answer(id, Ok(Rows::Logits(Vec::new())));
        }
        for sequence in self.sequences.values_mut().filter(|sequence| sequence.step.is_some()) {
            sequence.idle = now;
        }
    }

    fn answer(&mut self, id: Id, rows: Result<Rows>) {
        if let Some(step) = self.sequences.get_mut(&id).and_then(|sequence| sequence.step.take()) {
            self.away.insert(id);
            (step.reply)(rows.map(|rows| Output { rows, cached: step.cached }));
        }
    }
}

/// How many of the `rest` tokens of a prompt are computed where there is room for `room`. The last `outputs` belong
/// together.
fn part(rest: usize, outputs: usize, room: usize) -> usize {
    if rest <= room {
        return rest;
    }
    let before_last = rest - outputs.min(rest);
    match room.min(before_last) {
        0 if room > 0 => rest,
        count => count,
    }
}
