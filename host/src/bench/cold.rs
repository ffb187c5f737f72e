//! `wafer bench --cold`: what a request costs beside its generation, and what a server needs to start.
//!
//! A server is started as a process of its own, as a user would, and asked over HTTP. The reference is the same
//! generation in an instance that lives on: one token from a prompt of one token. What is above that is the
//! price of a fresh instance and of HTTP. Memory is read while requests run.

use anyhow::{Context, bail};
use bytes::Bytes;
use bytesize::ByteSize;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde_json::json;
use std::ffi::OsString;
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use super::median;
use crate::cli::{Engine, Sampling};
use crate::config::{self, Bench, Compute, Model, Setup};
use crate::load::{Loaded, Wanted, load};
use crate::runtime::Guest;
use crate::runtime::bindings::generator::Prompt;

/// Requests, and generations in the reference; of either the median is printed.
const REQUESTS: usize = 200;
/// Requests that run at once when memory is read.
const CROWD: usize = 8;
/// Every model has this token.
const TOKEN: u32 = 0;
/// Tokens of a generation that has to last while memory is read.
const LONG: u32 = 64;

/// What is printed; the names are a contract with scripts.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    model: String,
    /// From the start of the process.
    listening_seconds: f64,
    first_token_seconds: f64,
    /// A request for one token, from sending it to the end of the answer.
    request_seconds: f64,
    /// The same generation in an instance that lives on.
    generation_seconds: f64,
    /// What a request costs above that: the median of the differences.
    overhead_seconds: f64,
    /// While one request runs, and several; absent where the system does not say.
    memory: Option<Memory>,
    memory_of_crowd: Option<Memory>,
    crowd: usize,
}

/// A process' share of the physical memory, bytes. Weights are pages of a file, whoever maps them.
#[derive(Debug, Serialize)]
struct Memory {
    anonymous_bytes: u64,
    file_bytes: u64,
}

impl Report {
    pub(super) fn to_text(&self) -> String {
        let milliseconds = |seconds: f64| format!("{:.2} ms", seconds * 1e3);
        let memory = |memory: &Option<Memory>| match memory {
            Some(Memory { anonymous_bytes, file_bytes }) => {
                format!("{} anonymous, {} of files", ByteSize(*anonymous_bytes), ByteSize(*file_bytes))
            }
            None => "-".to_owned(),
        };
        [
            ("model", self.model.clone()),
            ("listening", milliseconds(self.listening_seconds)),
            ("first token", milliseconds(self.first_token_seconds)),
            ("request", format!("{} (median of {REQUESTS})", milliseconds(self.request_seconds))),
            ("generation", format!("{} in an instance that lives on", milliseconds(self.generation_seconds))),
            ("overhead", milliseconds(self.overhead_seconds)),
            ("memory", memory(&self.memory)),
            ("of 8 at once", memory(&self.memory_of_crowd)),
        ]
        .map(|(name, value)| format!("{name:<13}{value}"))
        .join("\n")
    }
}

/// Measures.
pub(super) async fn cold(config: &Bench) -> anyhow::Result<Report> {
    // A model that was not baked before is baked here, not while the server is timed.
    let Loaded { mut guest, model, .. } = load(Wanted {
        model: config.model.clone(),
        setup: Setup::default(),
        // What is measured is the model in the component's memory.
        compute: Compute { engine: Some(Engine::Wasm), native: config.native },
        code: config.code.clone(),
        memory: config.instance_memory,
        instances: None,
    })
    .await?;
    let started = Instant::now();
    let mut server = Server::start(config).await?;
    let listening_seconds = started.elapsed().as_secs_f64();
    let mut connection = server.connect().await?;
    one_token(&mut connection).await?;
    let first_token_seconds = started.elapsed().as_secs_f64();
    let (mut requests, mut generations, mut overheads) = (Vec::new(), Vec::new(), Vec::new());
    // In turn, so that other work on the machine weighs on both alike.
    for _ in 0..REQUESTS {
        let generation = reference(&mut guest).await?;
        let started = Instant::now();
        one_token(&mut connection).await?;
        let request = started.elapsed().as_secs_f64();
        generations.push(generation);
        requests.push(request);
        overheads.push(request - generation);
    }
    // It shares the weights with the server, which would count for half of them.
    drop(guest);
    let memory = server.memory_with(1).await?;
    let memory_of_crowd = server.memory_with(CROWD).await?;
    server.process.kill().await.context("cannot stop the server")?;
    Ok(Report {
        model: model.id,
        listening_seconds,
        first_token_seconds,
        request_seconds: median(requests).unwrap_or_default(),
        generation_seconds: median(generations).unwrap_or_default(),
        overhead_seconds: median(overheads).unwrap_or_default(),
        memory,
        memory_of_crowd,
        crowd: CROWD,
    })
}

/// Seconds that the generation takes alone.
async fn reference(guest: &mut Guest) -> anyhow::Result<f64> {
    let options =
        config::options(Sampling { max_tokens: Some(1), temperature: Some(0.0), ..Sampling::default() });
    let started = Instant::now();
    let generation = guest.start(&Prompt::Tokens(vec![TOKEN]), &options).await?;
    while guest.next(generation).await?.is_some() {}
    guest.end(generation).await?;
    Ok(started.elapsed().as_secs_f64())
}

/// Asks for one token and reads the whole answer.
async fn one_token(connection: &mut SendRequest<Full<Bytes>>) -> anyhow::Result<()> {
    let body = json!({"prompt": [TOKEN], "max_tokens": 1, "temperature": 0});
    ask(connection, &body).await?.collect().await.context("the answer broke off")?;
    Ok(())
}

async fn ask(
    connection: &mut SendRequest<Full<Bytes>>,
    body: &serde_json::Value,
) -> anyhow::Result<Incoming> {
    let request = Request::post("/v1/completions").header(header::HOST, "bench");
    connection.ready().await.context("the server closed the connection")?;
    let response = connection.send_request(request.body(Full::from(body.to_string()))?).await?;
    match response.status() {
        StatusCode::OK => Ok(response.into_body()),
        status => bail!("the server answered {status}"),
    }
}

/// A server of its own; killed when dropped.
struct Server {
    process: Child,
    address: String,
}

impl Server {
    /// Starts this program again and waits until it listens.
    async fn start(config: &Bench) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("cannot find this program")?;
        let mut arguments: Vec<OsString> =
            ["serve", "--engine", "wasm", "--listen", "127.0.0.1:0", "--log-format", "human"]
                .map(OsString::from)
                .to_vec();
        arguments.extend([OsString::from("--max-concurrency"), CROWD.to_string().into()]);
        if config.code.trust {
            arguments.push("--trust".into());
        }
        let mut command = Command::new(program);
        match &config.model {
            Model::Path(path) => arguments.push(path.into()),
            // No variable may name another.
            Model::Demo => {
                command.env_remove("WAFER_MODEL").env_remove("MODEL_PATH");
            }
        }
        command.args(arguments).stderr(Stdio::piped()).kill_on_drop(true);
        let mut process = command.spawn().context("cannot start a server")?;
        let stderr = process.stderr.take().context("a server without stderr")?;
        let mut lines = BufReader::new(stderr).lines();
        while let Some(line) = lines.next_line().await? {
            if let Some((_, address)) = line.split_once("listening on http://") {
                let address = address.to_owned();
                // Its pipe must not fill up.
                tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
                return Ok(Server { process, address });
            }
        }
        bail!("the server ended before it listened")
    }

    async fn connect(&self) -> anyhow::Result<SendRequest<Full<Bytes>>> {
        let stream = TcpStream::connect(&self.address).await.context("cannot connect to the server")?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // It ends with its sender; an error of it is an error of the request as well.
        tokio::spawn(connection);
        Ok(sender)
    }

    /// The server's memory while `count` generations run.
    async fn memory_with(&mut self, count: usize) -> anyhow::Result<Option<Memory>> {
        let body = json!({"prompt": [TOKEN], "max_tokens": LONG, "temperature": 0, "stream": true});
        let mut running = Vec::new();
        for _ in 0..count {
            let mut connection = self.connect().await?;
            let answer = ask(&mut connection, &body).await?;
            running.push((connection, answer));
        }
        for (_, answer) in &mut running {
            answer.frame().await.context("the answer broke off")??;
        }
        let memory = self.process.id().and_then(memory_of);
        for (_, answer) in running {
            answer.collect().await.context("the answer broke off")?;
        }
        // The last instance may still be on its way out.
        tokio::time::sleep(Duration::from_millis(10)).await;
        Ok(memory)
    }
}

/// From Linux's account of a process' mappings.
fn memory_of(process: u32) -> Option<Memory> {
    let text = std::fs::read_to_string(format!("/proc/{process}/smaps_rollup")).ok()?;
    Some(Memory { anonymous_bytes: field(&text, "Pss_Anon:")?, file_bytes: field(&text, "Pss_File:")? })
}

/// Bytes of a line like `Pss_Anon:   1234 kB`.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kibibytes| kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_in_bytes() {
        let text = "00400000-7ffe [rollup]\nPss:       5 kB\nPss_Anon:     12 kB\nPss_File: x kB\n";
        for (name, expected) in [("Pss_Anon:", Some(12288)), ("Pss_File:", None), ("Pss_Shmem:", None)] {
            assert_eq!(field(text, name), expected, "{name}");
        }
    }
}
