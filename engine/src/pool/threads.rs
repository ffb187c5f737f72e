//! The native pool: a counter that tasks are drawn from, and workers that sleep between jobs.
//!
//! A worker that loses its processor in the middle of a task holds up everybody for the milliseconds that
//! somebody else runs there. Where that takes a good part of the time the pool gives up a worker, which leaves
//! a processor to the other process, and tries again after a while, less often the more often it fails.
#![allow(unsafe_code, reason = "a job borrows the caller's closure while other threads run it")]

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How long a worker looks for the next job before it sleeps: longer than the serial work between two
/// products of a decode step, shorter than anything a person notices in a process list.
const SPIN: Duration = Duration::from_micros(100);

/// How long jobs are watched before it is decided whether a worker is more of a hindrance than a help.
const WATCH: Duration = Duration::from_millis(20);

/// The part of that time, one in so many, that may be lost to waiting for workers.
const LOSS: u32 = 4;

/// How long the pool does without a worker: doubled whenever one is given up, from the least to the most.
const PATIENCE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

type Task<'a> = &'a (dyn Fn(usize) + Sync);

/// A fixed number of threads that run numbered tasks.
pub struct Pool {
    state: Arc<State>,
    workers: Vec<JoinHandle<()>>,
    /// Held for the length of a job: one job at a time.
    turn: Mutex<Pace>,
}

/// Decides on the number of active workers.
struct Pace {
    /// Since when jobs are watched, or the pool does with fewer workers.
    since: Instant,
    /// Time lost to waiting since then.
    lost: Duration,
    /// How long to do with fewer workers.
    patience: Duration,
}

struct State {
    /// Job number in the upper half, next task in the lower: drawing a task proves that the job still runs.
    next: AtomicU64,
    /// Tasks not finished.
    left: AtomicUsize,
    job: Mutex<Job>,
    wake: Condvar,
    sleepers: AtomicUsize,
    /// Workers of a lower index may draw tasks; the others rest.
    active: AtomicUsize,
    rest: Condvar,
    stop: AtomicBool,
    panicked: AtomicBool,
}

/// What is being run. The pointer is valid while tasks of job `number` can be drawn or are unfinished.
#[derive(Clone, Copy)]
struct Job {
    number: u32,
    count: usize,
    task: Option<*const (dyn Fn(usize) + Sync)>,
}

// SAFETY: the pointer is to a `Sync` closure, used only while the caller waits in `run`.
unsafe impl Send for Job {}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pool({} threads)", self.threads())
    }
}

impl Pool {
    /// A pool of `threads` threads, the caller of [`run`](Self::run) being one of them; at least 1.
    pub fn new(threads: usize) -> Self {
        let state = Arc::new(State {
            next: AtomicU64::new(u64::from(u32::MAX)),
            left: AtomicUsize::new(0),
            job: Mutex::new(Job { number: 0, count: 0, task: None }),
            wake: Condvar::new(),
            sleepers: AtomicUsize::new(0),
            active: AtomicUsize::new(0),
            rest: Condvar::new(),
            stop: AtomicBool::new(false),
            panicked: AtomicBool::new(false),
        });
        let workers: Vec<_> = (1..threads)
            .map_while(|number| {
                let state = Arc::clone(&state);
                let thread = thread::Builder::new().name(format!("wafer-{number}"));
                thread.spawn(move || state.work(number - 1)).ok()
            })
            .collect();
        state.activate(workers.len());
        Self {
            state,
            workers,
            turn: Mutex::new(Pace { since: Instant::now(), lost: Duration::ZERO, patience: PATIENCE.0 }),
        }
    }

    /// Number of threads, the caller's included.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Runs `task(0)` to `task(count - 1)`, each once, on whatever threads are free; returns when all are done.
    ///
    /// # Panics
    /// If a task panics.
    pub fn run(&self, count: usize, task: Task<'_>) {
        if self.workers.is_empty() || count < 2 {
            return (0..count).for_each(task);
        }
        let mut pace = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let state = &*self.state;
        if state.active.load(Ordering::Relaxed) == 0 {
            (0..count).for_each(task);
            return self.adjust(&mut pace, Duration::ZERO, Duration::ZERO);
        }
        state.left.store(count, Ordering::Relaxed);
        let begin = Instant::now();
        let job = {
            let mut job = state.job.lock().unwrap_or_else(PoisonError::into_inner);
            // SAFETY: only the lifetime changes. This function returns after the last task has finished, and
            // `draw` gives no task of a job that is over, so nobody calls the closure later.
            let task = unsafe { std::mem::transmute::<Task<'_>, Task<'static>>(task) };
            *job = Job { number: job.number.wrapping_add(1), count, task: Some(task) };
            state.next.store(u64::from(job.number) << 32, Ordering::Release);
            *job
        };
        if state.sleepers.load(Ordering::SeqCst) > 0 {
            state.wake.notify_all();
        }
        state.drain(job);
        let drained = Instant::now();
        let mut spins = 0_u32;
        while state.left.load(Ordering::Acquire) > 0 {
            // A worker that lost its processor in the middle of a task may need this one to go on.
            spins += 1;
            if spins < 4096 { std::hint::spin_loop() } else { thread::yield_now() }
        }
        self.adjust(&mut pace, drained - begin, drained.elapsed());
        drop(pace);
        assert!(!state.panicked.swap(false, Ordering::Relaxed), "a task of the pool panicked");
    }

    /// Takes the job that now ends into account: how long the caller worked on it, and then waited.
    fn adjust(&self, pace: &mut Pace, worked: Duration, waited: Duration) {
        // Up to a task's time everybody waits at the end; a task is at most what the caller worked.
        pace.lost += waited.saturating_sub(worked);
        let now = Instant::now();
        let (active, watched) = (self.state.active.load(Ordering::Relaxed), now - pace.since);
        let all = active == self.workers.len();
        if watched >= WATCH && pace.lost > watched / LOSS {
            self.state.activate(active.saturating_sub(1));
            pace.patience = (pace.patience * 2).min(PATIENCE.1);
        } else if !all && watched >= pace.patience {
            self.state.activate(active + 1);
        } else if all && watched >= PATIENCE.1 {
            pace.patience = PATIENCE.0;
        } else if !all || watched < WATCH {
            return;
        }
        (pace.since, pace.lost) = (now, Duration::ZERO);
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.state.stop.store(true, Ordering::Relaxed);
        drop(self.state.job.lock().unwrap_or_else(PoisonError::into_inner));
        self.state.wake.notify_all();
        self.state.rest.notify_all();
        for worker in self.workers.drain(..) {
            // A worker catches its tasks' panics, so there is nothing to report.
            let _ = worker.join();
        }
    }
}

impl State {
    /// Runs tasks of `job` until none is left to draw.
    fn drain(&self, job: Job) {
        let Some(task) = job.task else { return };
        while let Some(index) = self.draw(job.number, job.count) {
            // SAFETY: `draw` gave out a task, and until that is finished the caller waits in `run`, which keeps
            // the closure alive.
            let task = unsafe { &*task };
            if std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| task(index))).is_err() {
                self.panicked.store(true, Ordering::Relaxed);
            }
            self.left.fetch_sub(1, Ordering::Release);
        }
    }

    /// The next task of job `number`; none if all are taken or another job has begun.
    fn draw(&self, number: u32, count: usize) -> Option<usize> {
        let mut seen = self.next.load(Ordering::Acquire);
        loop {
            let index = (seen & u64::from(u32::MAX)) as usize;
            if (seen >> 32) as u32 != number || index >= count {
                return None;
            }
            match self.next.compare_exchange_weak(seen, seen + 1, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Some(index),
                Err(other) => seen = other,
            }
        }
    }

    /// Lets the first `count` workers draw tasks.
    fn activate(&self, count: usize) {
        // A worker that is about to rest looks at the number under this lock, so no wake-up is lost.
        let _job = self.job.lock().unwrap_or_else(PoisonError::into_inner);
        if self.active.swap(count, Ordering::Relaxed) < count {
            self.rest.notify_all();
        }
    }

    fn may_work(&self, worker: usize) -> bool {
        worker < self.active.load(Ordering::Relaxed)
    }

    /// A worker's life.
    fn work(&self, worker: usize) {
        let mut last = 0;
        while let Some(job) = self.wait(worker, last) {
            last = job.number;
            self.drain(job);
        }
    }

    /// Waits for a job other than `last`: spins a moment, then sleeps. None at the pool's end.
    fn wait(&self, worker: usize, last: u32) -> Option<Job> {
        let begin = Instant::now();
        'spin: while self.may_work(worker) && begin.elapsed() < SPIN {
            for _ in 0..64 {
                if (self.next.load(Ordering::Acquire) >> 32) as u32 != last
                    || self.stop.load(Ordering::Relaxed)
                {
                    break 'spin;
                }
                std::hint::spin_loop();
            }
        }
        let mut job = self.job.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if self.stop.load(Ordering::Relaxed) {
                return None;
            }
            if !self.may_work(worker) {
                job = self.rest.wait(job).unwrap_or_else(PoisonError::into_inner);
            } else if job.number == last {
                self.sleepers.fetch_add(1, Ordering::SeqCst);
                job = self.wake.wait(job).unwrap_or_else(PoisonError::into_inner);
                self.sleepers.fetch_sub(1, Ordering::SeqCst);
            } else {
                return Some(*job);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_runs_once() {
        for threads in [1, 2, 3, 8] {
            let pool = Pool::new(threads);
            for count in [0, 1, 2, 7, 1000] {
                let runs: Vec<AtomicUsize> = (0..count).map(|_| AtomicUsize::new(0)).collect();
                pool.run(count, &|task| {
                    runs[task].fetch_add(1, Ordering::Relaxed);
                });
                assert!(
                    runs.iter().all(|r| r.load(Ordering::Relaxed) == 1),
                    "{threads} threads, {count} tasks"
                );
            }
        }
    }

    #[test]
    fn callers_take_turns() {
        let pool = Pool::new(3);
        let total = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        pool.run(5, &|_| {
                            total.fetch_add(1, Ordering::Relaxed);
                        });
                    }
                });
            }
        });
        assert_eq!(total.into_inner(), 4 * 500 * 5);
    }

    #[test]
    fn a_stalled_worker_is_given_up_and_taken_back() {
        let pool = Pool::new(2);
        let mut pace = pool.turn.lock().expect("no job has panicked");
        // Milliseconds since the last decision, worked and waited in a job; workers after it.
        for (since, worked, waited, expected) in [
            (30, 1, 1, 1),  // no loss
            (30, 2, 6, 1),  // a little
            (10, 1, 9, 1),  // much, but not watched for long
            (30, 1, 20, 0), // much
            (10, 0, 0, 0),  // too early to try again
            (50, 0, 0, 1),  // now
            (30, 1, 20, 0), // it still does not go well
            (50, 0, 0, 0),  // so it takes longer
            (90, 0, 0, 1),
            (2000, 1, 1, 1), // all well for a long time
            (30, 1, 20, 0),
            (50, 0, 0, 1), // forgiven
        ] {
            let past = Duration::from_millis(since);
            pace.since = Instant::now().checked_sub(past).expect("the clock runs long enough");
            pace.lost = Duration::ZERO;
            pool.adjust(&mut pace, Duration::from_millis(worked), Duration::from_millis(waited));
            let active = pool.state.active.load(Ordering::Relaxed);
            assert_eq!(active, expected, "{since} {worked} {waited}");
        }
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_lives_on() {
        let pool = Pool::new(2);
        let run = || pool.run(10, &|task| assert!(task != 7, "task 7"));
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_err());
        pool.run(10, &|_| {});
    }
}
