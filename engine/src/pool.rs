//! Threads for one forward pass at a time.
//!
//! [`Pool::run`] hands out numbered tasks; whoever is free takes the next, the caller included. Workers spin
//! for a few microseconds after a job, as the next one usually follows at once, then sleep: an idle pool uses
//! no processor. The caller waits only for tasks that were taken, so a worker whose processor is busy with
//! something else delays nothing that it has not begun.
//!
//! In WebAssembly there is one thread, and `run` is a loop.

use std::marker::PhantomData;

/// A slice that several tasks write to, each to its own elements.
pub(crate) struct Shared<'a, T> {
    start: *mut T,
    length: usize,
    slice: PhantomData<&'a mut [T]>,
}

// SAFETY: it hands out access only through the unsafe `slice`, whose callers keep their ranges apart.
#[allow(unsafe_code, reason = "a buffer shared by tasks that write disjoint ranges")]
unsafe impl<T: Send> Sync for Shared<'_, T> {}

impl<'a, T> Shared<'a, T> {
    pub(crate) fn new(slice: &'a mut [T]) -> Self {
        Self { start: slice.as_mut_ptr(), length: slice.len(), slice: PhantomData }
    }

    /// The elements `start..start + length`.
    ///
    /// # Safety
    /// No two slices that live at the same time may overlap.
    ///
    /// # Panics
    /// If the range is outside the slice.
    #[allow(unsafe_code, reason = "the point of this type")]
    #[allow(clippy::mut_from_ref, reason = "disjointness is the caller's promise")]
    pub(crate) unsafe fn slice(&self, start: usize, length: usize) -> &mut [T] {
        assert!(
            start <= self.length && length <= self.length - start,
            "{start} + {length} of {}",
            self.length
        );
        // SAFETY: in bounds of the borrowed slice; the caller promises that no other reference overlaps.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(start), length) }
    }
}

#[cfg(not(target_family = "wasm"))]
pub use threads::Pool;

#[cfg(target_family = "wasm")]
pub use single::Pool;

#[cfg(target_family = "wasm")]
mod single {
    /// One thread: the caller's.
    #[derive(Debug)]
    pub struct Pool;

    impl Pool {
        /// A pool of one thread, whatever is asked for.
        pub fn new(_threads: usize) -> Self {
            Self
        }

        /// Number of threads.
        pub fn threads(&self) -> usize {
            1
        }

        /// Runs `task(0)` to `task(count - 1)`.
        #[inline]
        pub fn run(&self, count: usize, task: &(dyn Fn(usize) + Sync)) {
            (0..count).for_each(task);
        }
    }
}

#[cfg(not(target_family = "wasm"))]
mod threads;
