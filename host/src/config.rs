//! What the commands need, made from what was typed and from the environment.
//!
//! Pure functions: the two foreign variables that wafer honours, PORT and MODEL_PATH, come in as an
//! [`Environment`], so that the tables below can be tested. The filesystem is asked one question:
//! whether the first argument of `wafer run` exists.

#[cfg(feature = "compiler")]
mod bake;
mod setup;

use anyhow::{Context, bail};
use std::ffi::OsString;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::cli;
#[cfg(feature = "compiler")]
use crate::native::Native;
use crate::runtime::bindings::generator::Options;

#[cfg(feature = "compiler")]
pub(crate) use bake::{Bake, Target, World};
pub(crate) use setup::Setup;

const DEFAULT_PORT: u16 = 8080;

/// Variables that clap does not read: they are other tools' names, or decide about something that is
/// not a flag's value.
#[derive(Debug, Default)]
pub(crate) struct Environment {
    /// PORT changes the port, not the address: wafer listens on the loopback interface unless told
    /// otherwise.
    pub(crate) port: Option<String>,
    /// WAFER_MODEL or MODEL_PATH: the model when none is named.
    pub(crate) model: Option<OsString>,
    /// WAFER_LISTEN, for the health check that runs beside a server.
    pub(crate) listen: Option<String>,
}

impl Environment {
    /// The variables of this process; empty ones count as absent.
    pub(crate) fn of_process() -> Self {
        let text = |name| std::env::var(name).ok().filter(|v| !v.is_empty());
        let path = |name| std::env::var_os(name).filter(|v| !v.is_empty());
        Environment {
            port: text("PORT"),
            model: path("WAFER_MODEL").or_else(|| path("MODEL_PATH")),
            listen: text("WAFER_LISTEN"),
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

    /// Where a server with the same environment is reached from this machine.
    fn server(&self) -> anyhow::Result<SocketAddr> {
        let Some(text) = &self.listen else {
            return self.loopback();
        };
        let mut address: SocketAddr = text
            .parse()
            .with_context(|| format!("WAFER_LISTEN is {text:?}, but must be an address and a port"))?;
        match address {
            SocketAddr::V4(v4) if v4.ip().is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
            SocketAddr::V6(v6) if v6.ip().is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
            _ => {}
        }
        Ok(address)
    }

    fn model(&self) -> Model {
        match &self.model {
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
    /// None is as many as the engine serves well.
    pub(crate) max_concurrency: Option<NonZeroUsize>,
    pub(crate) request_timeout: Duration,
    pub(crate) drain: Duration,
    #[cfg(feature = "compiler")]
    pub(crate) compute: Compute,
    pub(crate) setup: Setup,
    pub(crate) code: Code,
    /// Bytes of linear memory per instance.
    pub(crate) instance_memory: u64,
}

/// Where code comes from that was compiled before.
#[derive(Clone, Debug)]
pub(crate) struct Code {
    /// Whether compiled code is loaded from outside the cache.
    pub(crate) trust: bool,
    /// Bytes that the cache may have.
    #[cfg(feature = "compiler")]
    pub(crate) cache_size: u64,
}

impl From<cli::Code> for Code {
    fn from(typed: cli::Code) -> Self {
        Code {
            trust: typed.trust,
            #[cfg(feature = "compiler")]
            cache_size: typed.cache_size.as_u64(),
        }
    }
}

impl Serve {
    /// Joins flags, environment and defaults.
    pub(crate) fn new(typed: cli::Serve, environment: &Environment) -> anyhow::Result<Self> {
        Ok(Serve {
            model: match typed.model {
                Some(path) => Model::Path(path),
                None => environment.model(),
            },
            listen: match typed.listen {
                Some(address) => address,
                None => environment.loopback()?,
            },
            max_concurrency: typed.max_concurrency,
            request_timeout: Duration::from_secs(typed.request_timeout),
            drain: Duration::from_secs(typed.drain_seconds),
            #[cfg(feature = "compiler")]
            compute: typed.compute.into(),
            setup: typed.setup.into(),
            code: typed.code.into(),
            instance_memory: typed.instance.instance_memory.as_u64(),
        })
    }
}

/// Where the model's maths is done, and how.
#[cfg(feature = "compiler")]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Compute {
    /// None is the native engine where it knows the model.
    pub(crate) engine: Option<cli::Engine>,
    pub(crate) native: Native,
}

#[cfg(feature = "compiler")]
impl From<cli::Compute> for Compute {
    fn from(typed: cli::Compute) -> Self {
        let (threads, kv_memory) = (typed.threads.unwrap_or_else(cores), typed.kv_memory.as_u64());
        Compute { engine: typed.engine, native: Native { threads, kv_memory } }
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
    #[cfg(feature = "compiler")]
    pub(crate) compute: Compute,
    pub(crate) setup: Setup,
    pub(crate) code: Code,
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
            options: Options { digest_logits: typed.digest, ..options(typed.sampling) },
            #[cfg(feature = "compiler")]
            compute: typed.compute.into(),
            setup: typed.weights.into(),
            code: typed.code.into(),
            instance_memory: typed.instance.instance_memory.as_u64(),
            verbose,
        })
    }
}

/// `wafer bench`.
#[cfg(feature = "compiler")]
#[derive(Debug)]
pub(crate) struct Bench {
    pub(crate) model: Model,
    pub(crate) engine: cli::Measured,
    pub(crate) native: Native,
    /// Tokens of the prompt.
    pub(crate) prefill: NonZeroUsize,
    /// Tokens to generate after the first.
    pub(crate) decode: NonZeroUsize,
    pub(crate) rounds: NonZeroUsize,
    /// Whether starts and single requests are measured instead of speed.
    pub(crate) cold: bool,
    pub(crate) json: bool,
    pub(crate) code: Code,
    /// Bytes of linear memory.
    pub(crate) instance_memory: u64,
}

#[cfg(feature = "compiler")]
impl Bench {
    /// Joins flags, environment and defaults.
    pub(crate) fn new(typed: cli::Bench, environment: &Environment) -> Self {
        let threads = match typed.engine {
            cli::Measured::Native | cli::Measured::Direct => typed.threads.unwrap_or_else(cores),
            cli::Measured::Wasm => NonZeroUsize::MIN,
        };
        Bench {
            model: typed.model.map_or_else(|| environment.model(), Model::Path),
            engine: typed.engine,
            native: Native { threads, kv_memory: u64::MAX },
            prefill: typed.prefill,
            decode: typed.decode,
            rounds: typed.rounds,
            cold: typed.cold,
            json: typed.json,
            code: typed.code.into(),
            instance_memory: typed.instance.instance_memory.as_u64(),
        }
    }
}

/// Cores that this process may use.
pub(crate) fn cores() -> NonZeroUsize {
    std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}

/// `wafer health`.
pub(crate) fn health_url(typed: cli::Health, environment: &Environment) -> anyhow::Result<String> {
    match typed.url {
        Some(url) => Ok(url),
        None => Ok(format!("http://{}", environment.server()?)),
    }
}

/// Whether a lone argument is a model; anything else is a prompt.
fn names_a_model(argument: &str) -> bool {
    let path = Path::new(argument);
    path.extension().is_some_and(|e| e == "gguf" || e == "wasm" || e == "cwasm") || path.exists()
}

/// The component's record of the same names.
pub(crate) fn options(typed: cli::Sampling) -> Options {
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
        digest_logits: false,
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

    /// Model and prompt of `wafer run ARGUMENTS` with WAFER_MODEL set as given.
    fn run(arguments: &[&str], model: Option<&str>) -> (Model, Option<String>) {
        let Command::Run(typed) = typed(&[&["run"], arguments].concat()) else {
            unreachable!("the subcommand is run");
        };
        let environment = Environment { model: model.map(OsString::from), ..Environment::default() };
        let run = Run::new(typed, &environment, false).expect("valid");
        (run.model, run.prompt)
    }

    /// Address of `wafer serve ARGUMENTS` with PORT set as given.
    fn listen(arguments: &[&str], port: Option<&str>) -> anyhow::Result<String> {
        let Command::Serve(typed) = typed(&[&["serve"], arguments].concat()) else {
            unreachable!("the subcommand is serve");
        };
        let environment = Environment { port: port.map(str::to_owned), ..Environment::default() };
        Ok(Serve::new(typed, &environment)?.listen.to_string())
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

    #[test]
    fn health_is_asked_where_the_server_listens() {
        for (url, port, listen, expected) in [
            (None, None, None, "http://127.0.0.1:8080"),
            (None, Some("9"), None, "http://127.0.0.1:9"),
            (None, Some("9"), Some("0.0.0.0:7"), "http://127.0.0.1:7"),
            (None, None, Some("[::]:7"), "http://[::1]:7"),
            (None, None, Some("10.0.0.1:7"), "http://10.0.0.1:7"),
            (Some("http://a"), Some("9"), None, "http://a"),
        ] {
            let typed = cli::Health { url: url.map(str::to_owned) };
            let text = |value: Option<&str>| value.map(str::to_owned);
            let environment = Environment { port: text(port), listen: text(listen), model: None };
            assert_eq!(health_url(typed, &environment).expect("valid"), expected);
        }
    }
}
