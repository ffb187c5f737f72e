//! `wafer`: serve, run and inspect language models inside WebAssembly components.
//!
//! This file is the table of contents: the command line is parsed (`cli`), joined with the environment
//! (`config`), and one function per command does the work. Exit codes: 0 done, 1 failed, 2 usage.
//! Data goes to stdout, everything else to stderr.

mod answer;
#[cfg(feature = "compiler")]
mod bake;
#[cfg(feature = "compiler")]
mod bench;
mod body;
#[cfg(feature = "compiler")]
mod cache;
mod chat;
mod cli;
mod config;
#[cfg(feature = "compiler")]
mod embedded;
mod facts;
mod health;
mod inspect;
mod load;
mod logs;
#[cfg(feature = "compiler")]
mod model;
#[cfg(feature = "compiler")]
mod native;
mod nn;
mod output;
mod report;
mod run;
mod runtime;
mod serve;
mod signals;
mod trap;

use clap::Parser;
use std::io::ErrorKind;
use std::process::ExitCode;

use cli::{Cli, Command};
use config::Environment;

fn main() -> ExitCode {
    let Cli { logging, command } = Cli::parse();
    let environment = Environment::of_process();
    if let Err(error) = logs::start(logging.log_format, &log_filter(&logging, &command)) {
        cli::usage_error(format!("{error:#}"));
    }
    let result = match command {
        Command::Serve(typed) => {
            serve::serve(used(config::Serve::new(typed, &environment)), logging.log_format)
        }
        Command::Run(typed) => run::run(used(config::Run::new(typed, &environment, logging.verbose))),
        Command::Health(typed) => health::health(&used(config::health_url(typed, &environment))),
        #[cfg(feature = "compiler")]
        Command::Bake(typed) => bake::bake(config::Bake::new(typed, &environment)),
        #[cfg(feature = "compiler")]
        Command::Bench(typed) => bench::bench(&config::Bench::new(typed, &environment)),
        #[cfg(feature = "compiler")]
        Command::Cache(cli::Cache::Ls { json }) => cache::list(json),
        #[cfg(feature = "compiler")]
        Command::Cache(cli::Cache::Clear) => cache::clear(),
        Command::Inspect(typed) => inspect::inspect(&typed.file, typed.json),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read our output has seen enough, as in `wafer run … | head`.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            let backtraces = logging.verbose || std::env::var_os("RUST_BACKTRACE").is_some_and(|v| v != "0");
            eprintln!("{}", report::text(&error, backtraces));
            ExitCode::FAILURE
        }
    }
}

/// The configuration, or the end of the process as for any other wrong argument.
fn used<T>(config: anyhow::Result<T>) -> T {
    config.unwrap_or_else(|error| cli::usage_error(format!("{error:#}")))
}

/// A server tells what it does; the other commands only what goes wrong.
fn log_filter(logging: &cli::Logging, command: &Command) -> String {
    let chosen = logging.log_level.clone();
    chosen.or_else(|| std::env::var("RUST_LOG").ok().filter(|v| !v.is_empty())).unwrap_or_else(|| {
        let level = match command {
            Command::Serve(_) => "info",
            _ => "warn",
        };
        level.to_owned()
    })
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
}
