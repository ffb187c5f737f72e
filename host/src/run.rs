//! `wafer run`: one instance in the terminal, a completion or a chat.
//!
//! Text is printed as the component releases it, to stdout; everything else goes to stderr. What a
//! prompt or a conversation means to the model is the component's business.

use anyhow::bail;
use std::io::{self, Write};
use std::pin::pin;
use std::time::{Duration, Instant};
use tokio::signal::unix::Signal;

use crate::chat;
use crate::config::Run;
use crate::load::{Loaded, Wanted, load};
use crate::runtime::bindings::generator::{Ending, Event, Options, Prompt};
use crate::runtime::{Generation, Guest, executor};
use crate::signals;

/// Prints a completion, or chats until the user leaves.
pub(crate) fn run(config: Run) -> anyhow::Result<()> {
    executor("guest")?.block_on(async move {
        let started = Instant::now();
        let wanted = Wanted {
            model: config.model,
            setup: config.setup,
            #[cfg(feature = "compiler")]
            compute: config.compute,
            code: config.code,
            memory: config.instance_memory,
            instances: None,
        };
        let Loaded { guest, model, .. } = load(wanted).await?;
        if config.verbose {
            eprintln!(
                "{} ({}, context {}) loaded in {:.2} s",
                model.id,
                model.architecture,
                model.context_length,
                started.elapsed().as_secs_f64()
            );
        }
        let mut speaker = Speaker { guest, options: config.options, verbose: config.verbose };
        match config.prompt {
            Some(text) => speaker.say(&Prompt::Text(text)).await.map(drop),
            None => chat::chat(speaker, &model.id, config.system).await,
        }
    })
}

/// An instance whose text goes to stdout.
pub(crate) struct Speaker {
    guest: Guest,
    options: Options,
    verbose: bool,
}

impl Speaker {
    /// Prints what follows the prompt, up to its end or Ctrl-C, and one newline. Returns the text.
    pub(crate) async fn say(&mut self, prompt: &Prompt) -> anyhow::Result<String> {
        let mut interrupts = signals::interrupts()?;
        let started = Instant::now();
        let mut first = None;
        let mut text = String::new();
        let generation = self.guest.start(prompt, &self.options).await?;
        let ending = loop {
            match self.next(generation, &mut interrupts).await? {
                Some(Event::Prefill(_)) => {}
                Some(Event::Token(token)) => {
                    first.get_or_insert_with(|| started.elapsed());
                    print(&token.text)?;
                    text.push_str(&token.text);
                }
                Some(Event::Finished(ending)) => break Some(ending),
                None => break None,
            }
        };
        print("\n")?;
        self.guest.end(generation).await?;
        if let Some(digest) = ending.and_then(|ending| ending.logits_digest) {
            eprintln!("logits {digest:016x}");
        }
        if let (true, Some(ending)) = (self.verbose, ending) {
            eprintln!("{}", statistics(ending, first, started.elapsed()));
        }
        Ok(text)
    }

    /// The next event; none as well after Ctrl-C.
    ///
    /// A call is never left in its middle, because the instance could not be called again. It takes
    /// one pass of the model; a second Ctrl-C does not wait for it.
    async fn next(
        &mut self,
        generation: Generation,
        interrupts: &mut Signal,
    ) -> anyhow::Result<Option<Event>> {
        let mut next = pin!(self.guest.next(generation));
        tokio::select! {
            event = &mut next => return event,
            _ = interrupts.recv() => {}
        }
        tokio::select! {
            last = next => last.map(|_| None),
            _ = interrupts.recv() => bail!("interrupted"),
        }
    }
}

/// Writes to stdout at once.
fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

/// How much was read and written, and how fast; the speed leaves the first token out, whose time is
/// the prompt's.
fn statistics(ending: Ending, first: Option<Duration>, total: Duration) -> String {
    let usage = ending.usage;
    let first = first.unwrap_or(total);
    let writing = (total - first).as_secs_f64();
    let mut line = format!(
        "{} prompt tokens, {} new tokens, first after {:.2} s",
        usage.prompt_tokens,
        usage.completion_tokens,
        first.as_secs_f64()
    );
    if usage.completion_tokens > 1 && writing > 0.0 {
        let speed = f64::from(usage.completion_tokens - 1) / writing;
        line.push_str(&format!(", then {speed:.1} tokens/s"));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::bindings::generator::{FinishReason, Usage};

    #[test]
    fn the_speed_is_that_of_writing() {
        for (completion_tokens, first, expected) in [
            (11, Some(1), "3 prompt tokens, 11 new tokens, first after 1.00 s, then 5.0 tokens/s"),
            (1, Some(1), "3 prompt tokens, 1 new tokens, first after 1.00 s"),
            (0, None, "3 prompt tokens, 0 new tokens, first after 3.00 s"),
        ] {
            let ending = Ending {
                reason: FinishReason::Stop,
                usage: Usage { prompt_tokens: 3, completion_tokens },
                logits_digest: None,
            };
            let first = first.map(Duration::from_secs);
            let found = statistics(ending, first, Duration::from_secs(3));
            assert_eq!(found, expected);
        }
    }
}
