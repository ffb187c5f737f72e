//! How many answers an instance computes at once.
//!
//! Spin counts a request as answered when its response has begun, so it hands an instance more streams than the 16
//! requests that it is said to. Their sequences share 4 GiB of memory, and a pass with all of them would take long: the
//! rest waits here, in the order of arrival.

use std::cell::Cell;
use std::time::Duration;

use spin_sdk::time::sleep;

/// Answers that are computed at once.
const PLACES: u64 = 16;
/// How often those that wait look whether a place is free.
const GLANCE: Duration = Duration::from_millis(10);

thread_local! {
    /// Places that were asked for.
    static ASKED: Cell<u64> = const { Cell::new(0) };
    /// Places that were given back, or are not wanted any more.
    static DONE: Cell<u64> = const { Cell::new(0) };
}

/// A place, or the wish for one. Dropping it gives it to the next.
pub(crate) struct Place {
    number: u64,
}

impl Place {
    /// Waits for a place.
    pub(crate) async fn take() -> Self {
        let place = Self { number: ASKED.replace(ASKED.get() + 1) };
        while place.number >= DONE.get() + PLACES {
            sleep(GLANCE).await;
        }
        place
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        DONE.set(DONE.get() + 1);
    }
}
