//! Taking turns: many generations advance at once in one thread, and share their forward passes.
//!
//! A task asks for its next step and lets the others run, so that they can ask too. The first that comes back
//! computes what was asked for, for all of them; the others find their step done. There is no leader to
//! elect or to lose: a task that waits for its client, or is gone, just is not part of the pass.

use crate::api::{Stream, Whole};
use crate::generate::Generation;

/// A response that advances by steps.
pub trait Steps<'m> {
    /// The generation that its next step works at; none between two of them.
    fn generation(&mut self) -> Option<&mut Generation<'m>>;
}

impl<'m> Steps<'m> for Whole<'m> {
    fn generation(&mut self) -> Option<&mut Generation<'m>> {
        Whole::generation(self)
    }
}

impl<'m> Steps<'m> for Stream<'m> {
    fn generation(&mut self) -> Option<&mut Generation<'m>> {
        Stream::generation(self)
    }
}

/// Waits until the next step is computed. `others` lets other tasks run and returns when all that are ready have; it
/// is also where a host gets its thread back.
pub async fn turn<'m>(steps: &mut impl Steps<'m>, others: impl AsyncFn()) {
    let Some(generation) = steps.generation() else { return };
    generation.announce();
    while !generation.is_computed() {
        others().await;
        if !generation.is_computed() {
            generation.pass();
        }
    }
}
