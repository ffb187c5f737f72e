//! The chat of `wafer run`: lines in, answers out, the history kept.
//!
//! With a terminal there is line editing; without one every line of stdin is a turn, so that a chat
//! can be scripted. The history is handed to the component as it is; the component knows how the model
//! wants it written.

use anyhow::Context;
use rustyline::config::Behavior;
use rustyline::error::ReadlineError;
use rustyline::{Config, DefaultEditor};
use std::io::{IsTerminal, stdin};
use tokio::io::{AsyncBufReadExt, BufReader, Lines, Stdin};

use crate::run::Speaker;
use crate::runtime::bindings::generator::{Message, Prompt};
use crate::signals;
use crate::trap::Trap;

/// Starts the conversation over.
const CLEAR: &str = "/clear";

/// Chats until stdin ends.
pub(crate) async fn chat(mut speaker: Speaker, model: &str, system: Option<String>) -> anyhow::Result<()> {
    let mut input = Input::open(model)?;
    let beginning: Vec<Message> = system.map(|text| message("system", text)).into_iter().collect();
    let mut history = beginning.clone();
    while let Some(line) = input.line().await? {
        match line.trim() {
            "" => continue,
            CLEAR => {
                history.clone_from(&beginning);
                continue;
            }
            _ => history.push(message("user", line)),
        }
        match speaker.say(&Prompt::Chat(history.clone())).await {
            Ok(answer) => history.push(message("assistant", answer)),
            // A guest that trapped cannot go on; one that refused can, after the turn is taken back.
            Err(error) if input.is_terminal() && !error.is::<Trap>() => {
                history.pop();
                eprintln!("error: {error:#}\nhint: {CLEAR} starts the conversation over");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn message(role: &str, content: String) -> Message {
    Message { role: role.to_owned(), content }
}

/// Where the user's lines come from.
enum Input {
    Terminal(DefaultEditor),
    Pipe(Lines<BufReader<Stdin>>),
}

impl Input {
    fn open(model: &str) -> anyhow::Result<Self> {
        if !stdin().is_terminal() {
            return Ok(Input::Pipe(BufReader::new(tokio::io::stdin()).lines()));
        }
        eprintln!("{model}: Ctrl-C stops an answer, {CLEAR} starts over, Ctrl-D leaves");
        // The terminal itself, not stdout: that is for the answers.
        let config = Config::builder().behavior(Behavior::PreferTerm).build();
        let editor = DefaultEditor::with_config(config).context("cannot use the terminal")?;
        Ok(Input::Terminal(editor))
    }

    fn is_terminal(&self) -> bool {
        matches!(self, Input::Terminal(_))
    }

    /// The next line; none at the end of input.
    async fn line(&mut self) -> anyhow::Result<Option<String>> {
        match self {
            Input::Terminal(editor) => tokio::task::block_in_place(|| edit(editor)),
            Input::Pipe(lines) => {
                // Ctrl-C has a listener since the first answer, so it has to be heard here as well.
                let mut interrupts = signals::interrupts()?;
                tokio::select! {
                    line = lines.next_line() => line.context("cannot read stdin"),
                    _ = interrupts.recv() => Ok(None),
                }
            }
        }
    }
}

/// Reads a line from the terminal; Ctrl-C empties it.
fn edit(editor: &mut DefaultEditor) -> anyhow::Result<Option<String>> {
    loop {
        match editor.readline("> ") {
            Ok(line) => {
                editor.add_history_entry(line.as_str()).context("cannot keep the line for the arrow keys")?;
                return Ok(Some(line));
            }
            Err(ReadlineError::Interrupted) => {}
            Err(ReadlineError::Eof) => return Ok(None),
            Err(error) => return Err(error).context("cannot read from the terminal"),
        }
    }
}
