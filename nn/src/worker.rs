//! The thread that a model is computed in.
//!
//! It takes what was asked for from a channel, lets the scheduler compute a batch, and looks into the channel
//! again. Whoever got a token needs a moment to choose the next one and to ask for more; the next batch waits that
//! moment, so that one batch does not become two that take turns.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::engine::Engine;
use crate::prefix::Tenant;
use crate::scheduler::{Id, Reply, Scheduler, Stats, Step};

/// The part of a pass, one in so many, that the next one waits for those who took part in it.
const GRACE: u32 = 4;
/// And how long at most.
const LONGEST_GRACE: Duration = Duration::from_millis(3);
/// How often it is looked whether a sequence that waits for memory can have some that is not used.
const LOOK: Duration = Duration::from_millis(100);

/// What a worker is asked.
pub(crate) enum Command {
    Open { id: Id, tenant: Tenant },
    Submit { id: Id, step: Step, reply: Reply },
    Close { id: Id },
    Stats(oneshot::Sender<Stats>),
}

/// Works until nobody is left who could ask for anything.
pub(crate) fn work<E: Engine>(mut scheduler: Scheduler<E>, commands: &Receiver<Command>) {
    let mut is_busy = false;
    loop {
        if !is_busy {
            let command = if scheduler.someone_waits() {
                let until = scheduler
                    .deadline()
                    .map_or(LOOK, |deadline| deadline.saturating_duration_since(Instant::now()).min(LOOK));
                match commands.recv_timeout(until) {
                    Ok(command) => Some(command),
                    Err(RecvTimeoutError::Timeout) => None,
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            } else {
                let Ok(command) = commands.recv() else { return };
                Some(command)
            };
            command.into_iter().for_each(|command| obey(&mut scheduler, command));
        }
        commands.try_iter().for_each(|command| obey(&mut scheduler, command));
        let started = Instant::now();
        is_busy = scheduler.pass(started);
        let grace = (started.elapsed() / GRACE).min(LONGEST_GRACE);
        let end = Instant::now() + grace;
        while is_busy && scheduler.away() > 0 {
            match commands.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(command) => obey(&mut scheduler, command),
                Err(_) => break,
            }
        }
    }
}

fn obey<E: Engine>(scheduler: &mut Scheduler<E>, command: Command) {
    let now = Instant::now();
    match command {
        Command::Open { id, tenant } => scheduler.open(id, tenant, now),
        Command::Submit { id, step, reply } => scheduler.submit(id, step, now, reply),
        Command::Close { id } => scheduler.close(id),
        // Who asked may be gone.
        Command::Stats(answer) => drop(answer.send(scheduler.stats())),
    }
}
