//! What the commands need, made from what was typed and from the environment.
//!
//! Pure functions: the two foreign variables that wafer honours, PORT and MODEL_PATH, come in as an
//! [`Environment`], so that the tables below can be tested. The filesystem is asked one question:
//! whether the first argument of `wafer run` exists.

use anyhow::{Context, bail};
use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::cli;
use crate::runtime::bindings::generator::Options;

const DEFAULT_PORT: u16 = 8080;

/// Variables that other tools set; wafer's own are read by clap.
#[derive(Debug, Default)]
pub(crate) struct Environment {
    /// Changes the port, not the address: wafer listens on the loopback interface unless told otherwise.
    pub(crate) port: Option<String>,
    /// The model when none is named.
    pub(crate) model_path: Option<OsString>,
}

impl Environment {
    /// The variables of this process; empty ones count as absent.
    pub(crate) fn of_process() -> Self {
        Environment {
            port: std::env::var("PORT").ok().filter(|v| !v.is_empty()),
            model_path: std::env::var_os("MODEL_PATH").filter(|v| !v.is_empty()),
        }
    }

    fn loopback(&self) -> anyhow::Result<SocketAddr> {
        let port = match &self.port {
            None => DEFAULT_PORT,
            Some(text) => text
                .parse()
                .with_context(|| format!("PORT is {text:?}, but must be a number from 0 to 65535"))?,
        };
        Ok((Ipv4Addr::LOCALHOST, port).into())
    }

    fn model(&self) -> Model {
        match &self.model_path {
            Some(path) => Model::Path(path.into()),
            None => Model::Demo,
        }
    }
}

/// Where the model comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Model {
    /// The one in the binary.
    Demo,
    /// A file, or a directory with one .gguf in it.
    Path(PathBuf),
}

/// `wafer serve`.
#[derive(Debug)]
pub(crate) struct Serve {
    pub(crate) model: Model,
    pub(crate) listen: SocketAddr,
    pub(crate) max_concurrency: NonZeroUsize,
    pub(crate) request_timeout: Duration,
    pub(crate) drain: Duration,
    /// Bytes of linear memory per instance.
    pub(crate) instance_memory: u64,
}

impl Serve {
    /// Joins flags, environment and defaults.
    pub(crate) fn new(typed: cli::Serve, environment: &Environment) -> anyhow::Result<Self> {
        let cores = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        Ok(Serve {
            model: match typed.model {
                Some(path) => Model::Path(path),
                None => environment.model(),
            },
            listen: match typed.listen {
                Some(address) => address,
                None => environment.loopback()?,
            },
            max_concurrency: typed.max_concurrency.unwrap_or(cores),
            request_timeout: Duration::from_secs(typed.request_timeout),
            drain: Duration::from_secs(typed.drain_seconds),
            instance_memory: typed.instance.instance_memory.as_u64(),
        })
    }
}

/// `wafer run`.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) model: Model,
    /// Text to continue; none is a chat.
    pub(crate) prompt: Option<String>,
    /// The chat's system message.
    pub(crate) system: Option<String>,
    pub(crate) options: Options,
    /// Bytes of linear memory.
    pub(crate) instance_memory: u64,
    /// Statistics on stderr.
    pub(crate) verbose: bool,
}

impl Run {
    /// Joins flags, environment and defaults, and tells a model from a prompt.
    pub(crate) fn new(typed: cli::Run, environment: &Environment, verbose: bool) -> anyhow::Result<Self> {
        let (model, prompt) = match (typed.model, typed.prompt) {
            (Some(model), Some(prompt)) => (Model::Path(model.into()), Some(prompt)),
            (Some(only), _) if names_a_model(&only) => (Model::Path(only.into()), None),
            (prompt, _) => (environment.model(), prompt),
        };
        if prompt.is_some() && typed.system.is_some() {
            bail!("--system belongs to a chat and cannot be used with a PROMPT");
        }
        Ok(Run {
            model,
            prompt,
            system: typed.system,
            options: options(typed.sampling),
            instance_memory: typed.instance.instance_memory.as_u64(),
            verbose,
        })
    }
}

/// `wafer health`.
pub(crate) fn health_url(typed: cli::Health, environment: &Environment) -> anyhow::Result<String> {
    match typed.url {
        Some(url) => Ok(url),
        None => Ok(format!("http://{}", environment.loopback()?)),
    }
}

/// Whether a lone argument is a model; anything else is a prompt.
fn names_a_model(argument: &str) -> bool {
    let path = Path::new(argument);
    path.extension().is_some_and(|e| e == "gguf") || path.exists()
}

/// The component's record of the same names.
fn options(typed: cli::Sampling) -> Options {
    Options {
        max_tokens: typed.max_tokens,
        temperature: typed.temperature,
        top_k: typed.top_k,
        top_p: typed.top_p,
        min_p: typed.min_p,
        repetition_penalty: typed.repetition_penalty,
        presence_penalty: typed.presence_penalty,
        frequency_penalty: typed.frequency_penalty,
        logit_bias: Vec::new(),
        seed: typed.seed,
        stop: typed.stop,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};
    use clap::Parser;

    fn typed(arguments: &[&str]) -> Command {
        Cli::try_parse_from([&["wafer"], arguments].concat()).expect("the arguments are valid").command
    }

    fn environment(port: Option<&str>, model_path: Option<&str>) -> Environment {
        Environment { port: port.map(str::to_owned), model_path: model_path.map(OsString::from) }
    }

    /// Model and prompt of `wafer run ARGUMENTS` with MODEL_PATH set as given.
    fn run(arguments: &[&str], model_path: Option<&str>) -> (Model, Option<String>) {
        let Command::Run(typed) = typed(&[&["run"], arguments].concat()) else {
            unreachable!("the subcommand is run");
        };
        let run = Run::new(typed, &environment(None, model_path), false).expect("valid");
        (run.model, run.prompt)
    }

    /// Address of `wafer serve ARGUMENTS` with PORT set as given.
    fn listen(arguments: &[&str], port: Option<&str>) -> anyhow::Result<String> {
        let Command::Serve(typed) = typed(&[&["serve"], arguments].concat()) else {
            unreachable!("the subcommand is serve");
        };
        Ok(Serve::new(typed, &environment(port, None))?.listen.to_string())
    }

    #[test]
    fn a_model_is_told_from_a_prompt() {
        let path = |p: &str| Model::Path(p.into());
        let text = |t: &str| Some(t.to_owned());
        let existing = env!("CARGO_MANIFEST_DIR");
        for (arguments, model_path, expected) in [
            (vec![], None, (Model::Demo, None)),
            (vec![], Some("m.gguf"), (path("m.gguf"), None)),
            (vec!["Once upon"], None, (Model::Demo, text("Once upon"))),
            (vec!["Once upon"], Some("m.gguf"), (path("m.gguf"), text("Once upon"))),
            (vec!["missing.gguf"], None, (path("missing.gguf"), None)),
            (vec![existing], Some("m.gguf"), (path(existing), None)),
            (vec!["a", "b"], None, (path("a"), text("b"))),
            (vec!["a", ""], None, (path("a"), text(""))),
        ] {
            assert_eq!(run(&arguments, model_path), expected, "{arguments:?}");
        }
    }

    #[test]
    fn a_system_message_needs_a_chat() {
        let Command::Run(typed) = typed(&["run", "prompt", "--system", "be kind"]) else {
            unreachable!("the subcommand is run");
        };
        assert!(Run::new(typed, &Environment::default(), false).is_err());
    }

    #[test]
    fn port_changes_the_port_only() {
        for (arguments, port, expected) in [
            (vec![], None, "127.0.0.1:8080"),
            (vec![], Some("9000"), "127.0.0.1:9000"),
            (vec!["--listen", "0.0.0.0:1"], Some("9000"), "0.0.0.0:1"),
        ] {
            let found = listen(&arguments, port).expect("valid");
            assert_eq!(found, expected, "{arguments:?} {port:?}");
        }
        for port in ["", "http", "65536", "-1"] {
            assert!(listen(&[], Some(port)).is_err(), "{port:?}");
        }
    }
}
