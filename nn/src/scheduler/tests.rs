//! The scheduler on a scripted engine, whose logits tell from which tokens they were computed and whose pages are
//! counted while they live.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::sync::{Arc, Mutex};

use proptest::prelude::*;

use super::*;

const PAGE: usize = 4;
const CONTEXT: usize = 1024;
const VOCABULARY: usize = 5;

/// A page: the tokens up to its end, which is all that its contents can depend on.
#[derive(Debug)]
struct Contents {
    tokens: Vec<u32>,
    alive: Arc<AtomicUsize>,
}

impl Contents {
    fn new(tokens: Vec<u32>, alive: &Arc<AtomicUsize>) -> Arc<Self> {
        alive.fetch_add(1, Ordering::Relaxed);
        Arc::new(Self { tokens, alive: alive.clone() })
    }
}

impl Drop for Contents {
    fn drop(&mut self) {
        self.alive.fetch_sub(1, Ordering::Relaxed);
    }
}

#[derive(Debug)]
struct Script {
    pages: Vec<Arc<Contents>>,
    position: usize,
}

impl Script {
    /// What was computed, as the last page tells it.
    fn tokens(&self) -> Vec<u32> {
        self.pages.last().map_or(Vec::new(), |page| page.tokens[..self.position].to_vec())
    }
}

impl Cache for Script {
    type Page = Arc<Contents>;

    fn position(&self) -> usize {
        self.position
    }

    fn truncate(&mut self, position: usize) {
        self.position = self.position.min(position);
        self.pages.truncate(self.position.div_ceil(PAGE));
    }

    fn share(&self, index: usize) -> Option<Self::Page> {
        self.pages.get(index).cloned()
    }

    fn attach(&mut self, page: Self::Page, count: usize) {
        assert!(self.position.is_multiple_of(PAGE) && self.position == self.pages.len() * PAGE);
        assert_eq!(page.tokens[..self.position], self.tokens()[..], "the page follows on these tokens");
        self.pages.push(page);
        self.position += count;
    }

    fn replace(&mut self, index: usize, page: Self::Page) {
        assert_eq!(page.tokens[..(index + 1) * PAGE], self.pages[index].tokens[..(index + 1) * PAGE]);
        self.pages[index] = page;
    }
}

/// Computes, and fails when it is told to.
#[derive(Debug, Default)]
struct Scripted {
    alive: Arc<AtomicUsize>,
    logits: Vec<f32>,
    broken: Rc<RefCell<bool>>,
}

/// The logits after these tokens.
fn logits(tokens: &[u32]) -> [f32; VOCABULARY] {
    let mut hash = 17_u32;
    tokens.iter().for_each(|token| hash = (hash ^ token).wrapping_mul(16_777_619).rotate_left(7));
    std::array::from_fn(|index| (hash.wrapping_mul(index as u32 * 2 + 1) >> 8) as f32)
}

impl Engine for Scripted {
    type Cache = Script;

    fn shape(&self) -> Shape {
        Shape { vocabulary: VOCABULARY, context: CONTEXT, page: PAGE, page_bytes: 1 }
    }

    fn cache(&self) -> Script {
        Script { pages: Vec::new(), position: 0 }
    }

    fn forward(&mut self, batch: &mut [Part<'_, Script>]) -> Result<&[f32]> {
        if *self.broken.borrow() {
            return Err(Error::Failed("broken".to_owned()));
        }
        self.logits.clear();
        for part in batch {
            let mut tokens = part.cache.tokens();
            tokens.extend_from_slice(part.tokens);
            for outputs in (0..part.outputs).rev() {
                self.logits.extend(logits(&tokens[..tokens.len() - outputs]));
            }
            // The page that is not full is written to, so it must be the sequence's own from now on.
            part.cache.pages.truncate(part.cache.position / PAGE);
            for page in part.cache.pages.len()..tokens.len().div_ceil(PAGE) {
                let end = ((page + 1) * PAGE).min(tokens.len());
                part.cache.pages.push(Contents::new(tokens[..end].to_vec(), &self.alive));
            }
            part.cache.position = tokens.len();
        }
        Ok(&self.logits)
    }
}

/// A scheduler and what its clients know.
struct Bench {
    scheduler: Scheduler<Scripted>,
    alive: Arc<AtomicUsize>,
    broken: Rc<RefCell<bool>>,
    logs: HashMap<Id, Vec<u32>>,
    waiting: HashMap<Id, (usize, Receiver<Result<Output>>)>,
    /// How many cached tokens the last answers told of.
    cached: HashMap<Id, usize>,
    now: Instant,
}

impl Bench {
    fn new(pages: u64, queue: usize) -> Self {
        let engine = Scripted::default();
        let (alive, broken) = (engine.alive.clone(), engine.broken.clone());
        let limits = Limits { kv_bytes: pages, patience: Duration::from_secs(10), queue };
        let scheduler = Scheduler::new(engine, limits).expect("there is memory");
        let (logs, waiting, cached) = (HashMap::new(), HashMap::new(), HashMap::new());
        Self { scheduler, alive, broken, logs, waiting, cached, now: Instant::now() }
    }

    fn open(&mut self, id: Id, tenant: Tenant) {
        self.scheduler.open(id, tenant, self.now);
        self.logs.insert(id, Vec::new());
    }

    fn submit(&mut self, id: Id, tokens: &[u32], position: usize, outputs: usize) {
        let (answer, result) = channel();
        let answer = Mutex::new(answer);
        let step = Step { tokens: tokens.to_vec(), position, outputs, top: None };
        let reply = Box::new(move |result| {
            let _ = answer.lock().expect("nobody panicked").send(result);
        });
        self.scheduler.submit(id, step, self.now, reply);
        let log = self.logs.get_mut(&id).expect("it is open");
        log.truncate(position);
        log.extend_from_slice(tokens);
        self.waiting.insert(id, (outputs, result));
    }

    /// Appends tokens and asks for the logits of the last.
    fn append(&mut self, id: Id, tokens: &[u32]) {
        self.submit(id, tokens, self.logs[&id].len(), 1);
    }

    fn close(&mut self, id: Id) {
        self.scheduler.close(id);
        self.waiting.remove(&id);
        self.logs.remove(&id);
    }

    /// One pass; who was answered. Every answer is checked.
    fn pass(&mut self) -> Vec<Id> {
        self.scheduler.pass(self.now);
        let stats = self.scheduler.stats();
        assert!(stats.pages <= stats.most_pages, "{stats:?}");
        assert!(self.alive.load(Ordering::Relaxed) <= stats.pages, "every page is accounted for: {stats:?}");
        let mut answered = Vec::new();
        for (&id, (outputs, result)) in &self.waiting {
            let output = match result.try_recv() {
                Err(TryRecvError::Empty) => continue,
                found => found.expect("an answer").expect("no error"),
            };
            let log = &self.logs[&id];
            let expected: Vec<f32> =
                (0..*outputs).rev().flat_map(|back| logits(&log[..log.len() - back])).collect();
            assert_eq!(output.rows, Rows::Logits(expected), "sequence {id}: {log:?}");
            self.cached.insert(id, output.cached);
            answered.push(id);
        }
        self.waiting.retain(|id, _| !answered.contains(id));
        answered
    }

    /// Passes until `id` is answered; how many of its tokens were cached, and the number of passes.
    fn until(&mut self, id: Id) -> (usize, usize) {
        for passes in 0..10_000 {
            if !self.waiting.contains_key(&id) {
                return (self.cached[&id], passes);
            }
            self.pass();
        }
        panic!("sequence {id} starves");
    }

    fn refused(&mut self, id: Id) -> Error {
        let (_, result) = self.waiting.remove(&id).expect("it was submitted");
        result.try_recv().expect("an answer").expect_err("an error")
    }
}

fn prompt(length: usize, seed: u32) -> Vec<u32> {
    (0..length as u32).map(|index| (index * 7 + seed) % VOCABULARY as u32).collect()
}

#[test]
fn running_sequences_take_part_in_every_pass_beside_a_long_prompt() {
    let mut bench = Bench::new(10_000, 100);
    for id in 0..8 {
        bench.open(id, 0);
        bench.append(id, &[id as u32 % 5]);
    }
    bench.open(8, 0);
    bench.append(8, &prompt(1000, 3));
    let mut passes = 0;
    while bench.waiting.contains_key(&8) {
        let answered = bench.pass();
        passes += 1;
        for id in 0..8 {
            assert!(answered.contains(&id), "{id} waits in pass {passes}");
            bench.append(id, &[passes as u32 % 5]);
        }
    }
    assert!(passes > 4, "the prompt comes in parts, {passes} passes");
}

#[test]
fn prompts_take_turns() {
    let mut bench = Bench::new(10_000, 100);
    for id in 0..3 {
        bench.open(id, id);
        bench.append(id, &prompt(600, 1));
    }
    // 256 tokens a pass: whoever was served the longest ago comes next, so all three end close to each other.
    let passes: Vec<usize> = (0..3).map(|id| bench.until(id).1).collect();
    assert_eq!(passes.iter().sum::<usize>(), 8, "{passes:?}");
    assert!(passes[0] >= 6, "{passes:?}");
}

#[test]
fn prefixes_are_shared_within_a_tenant() {
    let mut bench = Bench::new(10_000, 100);
    let tokens = prompt(42, 0);
    for (id, tenant, cached) in [(0, 0, 0), (1, 0, 41), (2, 1, 0), (3, 0, 41)] {
        bench.open(id, tenant);
        bench.append(id, &tokens);
        assert_eq!(bench.until(id).0, cached, "sequence {id}");
        if id == 0 {
            // The page that is not full is shared when its sequence has ended.
            bench.close(id);
        }
    }
    // From a sequence that still runs, whole pages; and the next turn of a conversation.
    let longer = [&tokens[..], &prompt(9, 2)].concat();
    bench.open(4, 1);
    bench.append(4, &longer);
    assert_eq!(bench.until(4).0, 40);
    bench.open(5, 0);
    bench.append(5, &longer);
    assert_eq!(bench.until(5).0, 42);
}

#[test]
fn a_sequence_can_go_back() {
    let mut bench = Bench::new(10_000, 100);
    bench.open(0, 0);
    bench.append(0, &prompt(30, 0));
    bench.until(0);
    // A draft of which some is refused, to within a page that others may share by now.
    for (position, length, outputs) in [(30, 5, 5), (32, 3, 3), (17, 2, 1), (0, 9, 1), (9, 1, 0)] {
        bench.submit(0, &prompt(length, 4), position, outputs);
        bench.until(0);
    }
}

#[test]
fn who_finds_no_memory_waits_and_is_served_in_order() {
    let mut bench = Bench::new(CONTEXT as u64 / PAGE as u64, 100);
    for id in 0..4 {
        bench.open(id, id);
        bench.append(id, &prompt(400, id as u32));
    }
    bench.until(1);
    assert_eq!(bench.scheduler.stats().waiting, 2);
    bench.close(1);
    assert!(bench.until(2).1 < 10);
    assert!(bench.waiting.contains_key(&3));
    bench.close(0);
    bench.until(3);
}

#[test]
fn a_long_sequence_takes_memory_from_the_youngest_which_goes_on_later() {
    let mut bench = Bench::new(CONTEXT as u64 / PAGE as u64, 100);
    for id in 0..3 {
        bench.open(id, id);
        bench.append(id, &prompt(300, id as u32));
        bench.until(id);
    }
    for _ in 0..60 {
        bench.append(0, &prompt(10, 1));
        if !bench.waiting.contains_key(&2) {
            bench.append(2, &[1]);
        }
        bench.until(0);
    }
    assert!(bench.scheduler.stats().preemptions > 0);
    bench.close(0);
    bench.until(2);
    bench.append(1, &[2]);
    bench.until(1);
}

#[test]
fn one_that_nobody_waits_for_does_not_hold_up_others() {
    let mut bench = Bench::new(CONTEXT as u64 / PAGE as u64, 100);
    bench.open(0, 0);
    bench.append(0, &prompt(900, 0));
    bench.until(0);
    bench.open(1, 1);
    bench.append(1, &prompt(900, 1));
    assert!(bench.pass().is_empty());
    bench.now += Duration::from_secs(2);
    bench.until(1);
    bench.close(1);
    bench.append(0, &[1]);
    bench.until(0);
}

#[test]
fn what_makes_no_sense_is_refused_and_changes_nothing() {
    let mut bench = Bench::new(CONTEXT as u64 / PAGE as u64, 1);
    bench.open(0, 0);
    bench.append(0, &[1, 2, 3]);
    bench.until(0);
    for (tokens, position, outputs, message) in [
        (&[][..], 3, 0, "tokens is empty"),
        (&[1][..], 4, 1, "position is 4, the sequence has 3 tokens"),
        (&[1][..], 3, 2, "outputs is 2, the limit is 1 for 1 tokens"),
        (&[0; 100][..], 3, 65, "outputs is 65, the limit is 64 for 100 tokens"),
        (&[1, 5][..], 3, 1, "tokens has 5, the vocabulary has 5 tokens"),
        (&[0; 1022][..], 3, 1, "1025 tokens, the model's context is 1024"),
    ] {
        let log = bench.logs[&0].clone();
        bench.submit(0, tokens, position, outputs);
        assert_eq!(bench.refused(0), Error::Invalid(message.to_owned()));
        bench.logs.insert(0, log);
    }
    bench.append(0, &[4]);
    bench.until(0);
}

#[test]
fn who_waits_too_long_or_behind_too_many_is_told() {
    let mut bench = Bench::new(CONTEXT as u64 / PAGE as u64, 1);
    for id in 0..3 {
        bench.open(id, id);
    }
    bench.append(0, &prompt(900, 0));
    bench.until(0);
    bench.append(0, &[1]);
    bench.append(1, &prompt(900, 0));
    bench.append(2, &prompt(900, 0));
    assert_eq!(bench.refused(2), Error::Busy("1 requests wait for memory already".to_owned()));
    assert!(bench.scheduler.deadline().is_some_and(|deadline| deadline > bench.now));
    // Somebody waits for sequence 0 all the time, so it keeps its memory.
    for _ in 0..10 {
        bench.now += Duration::from_secs(1);
        bench.scheduler.expire(bench.now);
    }
    assert_eq!(bench.refused(1), Error::Busy("no memory for the request within 10 s".to_owned()));
    assert_eq!(bench.scheduler.deadline(), None);
}

#[test]
fn an_engine_that_fails_tells_all_who_took_part() {
    let mut bench = Bench::new(1000, 10);
    for id in 0..2 {
        bench.open(id, 0);
        bench.append(id, &[1, 2]);
    }
    *bench.broken.borrow_mut() = true;
    bench.scheduler.pass(bench.now);
    for id in 0..2 {
        assert_eq!(bench.refused(id), Error::Failed("broken".to_owned()));
    }
}

#[test]
fn a_cache_that_holds_no_sequence_is_refused() {
    let limits = Limits { kv_bytes: 255, patience: Duration::ZERO, queue: 0 };
    let error = Scheduler::new(Scripted::default(), limits).err();
    let message = "the KV cache may have 255 bytes, a sequence of 1024 tokens needs 256";
    assert_eq!(error, Some(Error::Invalid(message.to_owned())));
}

/// What a client may do.
#[derive(Debug, Clone)]
enum Act {
    Open(Tenant),
    /// To one of the sequences: how far back, how many tokens, what tokens, how many outputs.
    Submit(usize, usize, usize, u32, usize),
    Close(usize),
    Pass,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        1 => (0..2_u64).prop_map(Act::Open),
        6 => (any::<usize>(), 0..20_usize, 1..300_usize, 0..3_u32, 0..3_usize)
            .prop_map(|(which, back, length, seed, outputs)| Act::Submit(which, back, length, seed, outputs)),
        1 => any::<usize>().prop_map(Act::Close),
        8 => Just(Act::Pass),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    #[test]
    fn every_answer_is_that_of_the_sequence_alone(acts in prop::collection::vec(act(), 1..120), spare in 0..200_u64) {
        let mut bench = Bench::new(CONTEXT as u64 / PAGE as u64 + spare, 1000);
        let mut open: Vec<Id> = Vec::new();
        for (id, act) in (0..).zip(acts) {
            match act {
                Act::Open(tenant) => {
                    bench.open(id, tenant);
                    open.push(id);
                }
                Act::Submit(which, back, length, seed, outputs) if !open.is_empty() => {
                    let id = open[which % open.len()];
                    let position = bench.logs[&id].len().saturating_sub(back);
                    if !bench.waiting.contains_key(&id) && position + length <= CONTEXT {
                        bench.submit(id, &prompt(length, seed), position, outputs.min(length));
                    }
                }
                Act::Close(which) if !open.is_empty() => {
                    let id = open.swap_remove(which % open.len());
                    bench.close(id);
                }
                _ => drop(bench.pass()),
            }
            // Time goes by, so that sequences nobody waits for can be told from others.
            bench.now += Duration::from_millis(300);
        }
        // Nobody starves: those who wait are served, if those who do not want anything are patient or gone.
        for _ in 0..2000 {
            bench.now += Duration::from_millis(1);
            bench.pass();
            let done: Vec<Id> = open.iter().copied().filter(|id| !bench.waiting.contains_key(id)).collect();
            done.into_iter().for_each(|id| bench.close(id));
            open.retain(|id| bench.logs.contains_key(id));
        }
        prop_assert!(bench.waiting.is_empty(), "{:?} wait", bench.waiting.keys());
        let stats = bench.scheduler.stats();
        prop_assert_eq!((stats.running, stats.waiting, stats.pages), (0, 0, stats.prefix_pages));
        prop_assert_eq!(bench.alive.load(Ordering::Relaxed), stats.prefix_pages);
    }
}
