//! Steps of several sequences, computed in one forward pass.
//!
//! A sequence announces its next step; a pass takes every single token that waits, and as much of the waiting
//! prompts as may hold those up. The engine's rows do not depend on each other, so each sequence gets the bits
//! that it would get alone. Who calls for a pass, and when, is decided outside: nothing here waits.

use std::cell::{RefCell, RefMut};
use std::rc::{Rc, Weak};

use wafer_engine::{Batch, Model, Session, Workspace};

use crate::generate::CHUNK;

/// Prompt tokens in a pass that other sequences wait for with their next token: a quarter of a chunk, so that a long
/// prompt does not make the others stutter.
const PROMPT_BESIDE_OTHERS: usize = 32;

/// The announced steps of a model's sequences, in the order of their announcement.
#[derive(Debug, Default)]
pub(super) struct Queue(RefCell<Vec<Weak<RefCell<Slot>>>>);

/// A sequence, where passes can reach it.
#[derive(Debug)]
pub(super) struct Slot {
    session: Session,
    step: Option<Step>,
}

/// A step that was announced.
#[derive(Debug)]
struct Step {
    /// The sequence's length before it.
    start: usize,
    tokens: Vec<u32>,
    /// How many of the last tokens want logits: one at most.
    outputs: usize,
    /// Tokens computed.
    done: usize,
    /// Of the last token, once that is computed.
    logits: Vec<f32>,
    /// False once passes are through with it, or cannot compute it.
    waiting: bool,
}

impl Queue {
    /// Remembers a sequence's next step.
    pub(super) fn announce(&self, slot: &Rc<RefCell<Slot>>, tokens: &[u32], outputs: usize) {
        // A step with more outputs could not be cut anywhere; no generation has one.
        if outputs > 1 || tokens.is_empty() {
            return;
        }
        let mut announced = slot.borrow_mut();
        if announced.step.as_ref().is_some_and(|step| step.is(tokens, outputs)) {
            return;
        }
        announced.retract();
        let start = announced.session.position();
        let (tokens, logits) = (tokens.to_vec(), Vec::new());
        announced.step = Some(Step { start, tokens, outputs, done: 0, logits, waiting: true });
        let mut queue = self.0.borrow_mut();
        let slot = Rc::downgrade(slot);
        queue.retain(|other| other.strong_count() > 0 && !other.ptr_eq(&slot));
        queue.push(slot);
    }

    /// Computes every token that is a whole step, and parts of longer steps.
    pub(super) fn pass(&self, model: &Model, workspace: &mut Workspace) {
        let slots: Vec<Rc<RefCell<Slot>>> = self.0.borrow().iter().filter_map(Weak::upgrade).collect();
        let mut slots: Vec<RefMut<'_, Slot>> = slots.iter().map(|slot| slot.borrow_mut()).collect();
        slots.retain(|slot| !slot.is_computed());
        let someone_waits = slots.iter().any(|slot| slot.rest() == 1);
        let mut room = if someone_waits { PROMPT_BESIDE_OTHERS } else { CHUNK };
        let mut chosen = Vec::new();
        for slot in &mut slots {
            let count = if slot.rest() == 1 { 1 } else { slot.rest().min(room) };
            if count > 0 {
                room -= if slot.rest() == 1 { 0 } else { count };
                chosen.push((slot, count));
            }
        }
        if chosen.is_empty() {
            return;
        }
        let mut batch: Vec<Batch<'_>> =
            chosen.iter_mut().filter_map(|(slot, count)| slot.part(*count)).collect();
        let computed = model.forward(workspace, &mut batch);
        let mut logits = computed.as_ref().ok().map(|logits| logits.chunks_exact(model.config().vocabulary));
        for (slot, count) in &mut chosen {
            slot.advance(*count, logits.as_mut());
        }
        drop(slots);
        self.0.borrow_mut().retain(|slot| slot.upgrade().is_some_and(|slot| !slot.borrow().is_computed()));
    }
}

impl Step {
    fn is(&self, tokens: &[u32], outputs: usize) -> bool {
        self.tokens == tokens && self.outputs == outputs
    }
}

impl Slot {
    pub(super) fn new(session: Session) -> Rc<RefCell<Self>> {
        Rc::new(RefCell::new(Self { session, step: None }))
    }

    /// Tokens of the sequence, without those of a step that was not taken yet.
    pub(super) fn position(&self) -> usize {
        self.step.as_ref().map_or(self.session.position(), |step| step.start)
    }

    pub(super) fn truncate(&mut self, position: usize) {
        self.retract();
        self.session.truncate(position);
    }

    pub(super) fn session(&mut self) -> &mut Session {
        &mut self.session
    }

    /// Takes a step: what is computed of it goes to `logits`, the rest of its tokens is returned.
    pub(super) fn take<'t>(&mut self, tokens: &'t [u32], outputs: usize, logits: &mut Vec<f32>) -> &'t [u32] {
        match self.step.take_if(|step| step.is(tokens, outputs)) {
            Some(step) => {
                *logits = step.logits;
                &tokens[step.done..]
            }
            None => {
                self.retract();
                tokens
            }
        }
    }

    pub(super) fn is_computed(&self) -> bool {
        self.step.as_ref().is_none_or(|step| !step.waiting)
    }

    /// Forgets an announced step, as far as it was computed.
    fn retract(&mut self) {
        if let Some(step) = self.step.take() {
            self.session.truncate(step.start);
        }
    }

    /// Tokens of the step that are not computed.
    fn rest(&self) -> usize {
        self.step.as_ref().map_or(0, |step| step.tokens.len() - step.done)
    }

    /// The next `count` tokens of the step.
    fn part(&mut self, count: usize) -> Option<Batch<'_>> {
        let step = self.step.as_ref()?;
        let end = step.done + count;
        let outputs = if end == step.tokens.len() { step.outputs } else { 0 };
        Some(Batch { session: &mut self.session, tokens: &step.tokens[step.done..end], outputs })
    }

    /// Notes that `count` tokens were computed, or that the pass failed. `logits` are those of the pass that nobody has
    /// taken yet.
    fn advance<'l>(&mut self, count: usize, logits: Option<&mut impl Iterator<Item = &'l [f32]>>) {
        let Some(step) = &mut self.step else { return };
        let Some(logits) = logits else {
            step.waiting = false;
            return;
        };
        step.done += count;
        if step.done == step.tokens.len() {
            step.waiting = false;
            if step.outputs > 0 {
                step.logits = logits.next().unwrap_or_default().to_vec();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::path::Path;

    use wafer_engine::Gguf;

    use crate::backend::local::Local;
    use crate::backend::{Backend, Sequence};
    use crate::generate::CHUNK;

    fn demo() -> Local {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/demo.gguf");
        let file = File::open(path).expect("the demo model is there");
        let mut gguf = Gguf::open(file).expect("it is a GGUF file");
        Local::load(&mut gguf, None).expect("it is a model")
    }

    fn prompt(length: u32) -> Vec<u32> {
        (0..length).map(|token| 5 + token % 200).collect()
    }

    /// The logits after `tokens`, of a sequence that is alone.
    fn alone(model: &Local, tokens: &[u32]) -> Vec<f32> {
        model.start(tokens).expect("a sequence").forward(tokens, 1).expect("logits").to_vec()
    }

    #[test]
    fn steps_share_a_pass_and_keep_their_bits() {
        let model = demo();
        let prompts = [prompt(1), prompt(7), prompt(CHUNK as u32)];
        let mut sequences: Vec<_> = prompts.iter().map(|prompt| model.start(prompt).expect("one")).collect();
        for (sequence, prompt) in sequences.iter_mut().zip(&prompts) {
            sequence.announce(prompt, 1);
            assert!(!sequence.is_computed());
        }
        // One token, seven, and what is left of the room for prompts beside others; then the rest.
        let mut passes = Vec::new();
        while sequences.iter().any(|sequence| !sequence.is_computed()) {
            model.pass();
            passes.push(sequences.iter().filter(|sequence| sequence.is_computed()).count());
        }
        assert_eq!(passes, [2, 3]);
        for (sequence, prompt) in sequences.iter_mut().zip(&prompts) {
            assert_eq!(sequence.position(), 0, "the step is not taken yet");
            assert!(sequence.forward(prompt, 1).expect("logits") == alone(&model, prompt));
            assert_eq!(sequence.position(), prompt.len());
        }
        // All are at a single token now: one pass.
        for sequence in &mut sequences {
            sequence.announce(&[9], 1);
        }
        model.pass();
        for (sequence, prompt) in sequences.iter_mut().zip(&prompts) {
            assert!(sequence.is_computed());
            let tokens = [&prompt[..], &[9]].concat();
            assert!(sequence.forward(&[9], 1).expect("logits") == alone(&model, &tokens));
        }
    }

    /// What `change` does to a sequence whose step of 100 tokens is computed in part must not show later.
    fn check(change: impl Fn(&mut dyn Sequence)) {
        let model = demo();
        let mut one = model.start(&prompt(1)).expect("a sequence");
        let mut other = model.start(&prompt(100)).expect("a sequence");
        one.announce(&prompt(1), 1);
        other.announce(&prompt(100), 1);
        model.pass();
        assert!(one.is_computed() && !other.is_computed());
        change(other.as_mut());
        let tokens = prompt(60);
        assert!(other.forward(&tokens, 1).expect("logits") == alone(&model, &tokens));
        drop((one, other));
        model.pass();
    }

    #[test]
    fn an_announcement_binds_nobody() {
        check(|_| ());
        check(|sequence| sequence.truncate(0));
        check(|sequence| sequence.announce(&prompt(60), 1));
        check(|sequence| sequence.announce(&prompt(60), 60));
        // What cannot be computed is reported by the step itself, and leaves the others alone.
        check(|sequence| sequence.announce(&[u32::MAX], 1));
    }

    #[test]
    fn a_step_that_was_computed_in_part_is_finished() {
        let model = demo();
        let (short, long) = (prompt(1), prompt(100));
        let mut one = model.start(&short).expect("a sequence");
        let mut other = model.start(&long).expect("a sequence");
        one.announce(&short, 1);
        other.announce(&long, 1);
        model.pass();
        assert!(other.forward(&long, 1).expect("logits") == alone(&model, &long));
        // A sequence that is gone is nobody's concern.
        drop(one);
        other.announce(&[9], 1);
        model.pass();
        assert!(other.is_computed());
    }

    #[test]
    fn a_pass_that_fails_is_left_to_the_steps() {
        let model = demo();
        let mut good = model.start(&prompt(3)).expect("a sequence");
        let mut bad = model.start(&prompt(3)).expect("a sequence");
        good.announce(&prompt(3), 1);
        bad.announce(&[u32::MAX], 1);
        model.pass();
        assert!(good.is_computed() && bad.is_computed());
        assert!(bad.forward(&[u32::MAX], 1).is_err());
        assert!(good.forward(&prompt(3), 1).expect("logits") == alone(&model, &prompt(3)));
    }
}
