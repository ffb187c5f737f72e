//! What the end-to-end tests share: the built binary, servers of it, and the test data.
//!
//! Tests drive what a user gets: `target/release/wafer`, over its command line and over real HTTP. `make build`
//! makes it; without it every test fails and says so.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long a test waits for something that should happen at once; only a broken build ever takes it.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// A command that runs the built binary, free of the caller's settings.
///
/// # Panics
/// If the binary has not been built.
pub fn wafer() -> Command {
    let mut command = Command::new(built("wafer", "make build"));
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("WAFER_")
            || ["PORT", "MODEL_PATH", "RUST_LOG", "RUST_BACKTRACE"].contains(&&*name)
        {
            command.env_remove(&*name);
        }
    }
    command.stdin(Stdio::null());
    command
}

/// The path of a program that `how` builds.
///
/// # Panics
/// If it has not been built.
pub fn built(program: &str, how: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let binary = target.join("release").join(program);
    assert!(binary.is_file(), "{} is missing: run `{how}` first", binary.display());
    binary
}

/// Runs the binary to its end.
///
/// # Panics
/// If it cannot be started.
pub fn run(arguments: &[&str]) -> Output {
    wafer().args(arguments).output().expect("the binary starts")
}

/// The path of a file of the shared test data. Without that folder a test is 'ignored': this says so and
/// returns `None`; on CI it fails instead.
///
/// # Panics
/// On CI, if the folder is missing.
pub fn testdata(name: &str) -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/testdata");
    if root.is_dir() {
        return Some(root.join(name));
    }
    assert!(std::env::var_os("CI").is_none(), "the shared test data is missing: {}", root.display());
    eprintln!("ignored: {name} is not there");
    None
}

/// The results of llama.cpp for a model file: prompts, their ids, 64 greedy tokens.
pub fn greedy_reference(model: &str) -> Option<Vec<Value>> {
    let path = testdata(&format!("reference/llamacpp/{model}.json"))?;
    let text = std::fs::read_to_string(path).expect("the reference can be read");
    let mut reference: Value = serde_json::from_str(&text).expect("the reference is JSON");
    Some(reference["greedy"].as_array_mut().map(std::mem::take).expect("a list of prompts"))
}

/// Token ids of a JSON array.
pub fn ids(value: &Value) -> Vec<u64> {
    value.as_array().expect("an array of ids").iter().map(|id| id.as_u64().expect("an id")).collect()
}

/// Whether a program of others, `version` or newer, is there, and whatever `with` stands for. If not, the test is
/// 'ignored': this says so and what to do.
pub fn installed(program: &str, version: u32, with: bool, how: &str) -> bool {
    let output = Command::new(program).arg("--version").output();
    let found = output.ok().filter(|output| output.status.success()).and_then(|output| {
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let number = text.trim_start_matches(|c: char| !c.is_ascii_digit());
        number.split('.').next()?.parse::<u32>().ok()
    });
    let found = with && found.is_some_and(|found| found >= version);
    if !found {
        eprintln!("ignored: no {program} {version} or newer: {how}");
    }
    found
}

/// Sends a request to the server at `url` and returns status and body.
///
/// # Panics
/// If there is no answer.
pub fn text(url: &str, method: &str, path: &str, body: Option<&[u8]>) -> (u16, String) {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(PATIENCE))
        .allow_non_standard_methods(true)
        .build()
        .into();
    let request = ureq::http::Request::builder().method(method).uri(format!("{url}{path}"));
    let request = request.body(body.unwrap_or_default()).expect("a request");
    let mut response = agent.run(request).unwrap_or_else(|error| panic!("{method} {path}: {error}"));
    let status = response.status().as_u16();
    (status, response.body_mut().read_to_string().expect("a text"))
}

/// Posts JSON to the server at `url` and expects 200 and JSON.
///
/// # Panics
/// If the answer is another.
pub fn post(url: &str, path: &str, body: &Value) -> Value {
    let (status, text) = text(url, "POST", path, Some(body.to_string().as_bytes()));
    assert_eq!(status, 200, "POST {path} {body}: {text}");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("POST {path}: {error}: {text}"))
}

/// A running `wafer serve` on a free port. Dropping it kills it.
pub struct Server {
    process: Child,
    /// `http://127.0.0.1:PORT`.
    pub url: String,
    /// Behind a lock so that threads may share a server; only its owner reads.
    log: Mutex<Receiver<String>>,
    seen: Vec<String>,
}

impl Server {
    /// Starts `wafer serve --listen 127.0.0.1:0 arguments…` and waits until it listens.
    ///
    /// # Panics
    /// If it ends instead.
    pub fn start(arguments: &[&str]) -> Self {
        Self::start_in(wafer(), arguments)
    }

    /// As [`start`](Self::start), with a command of [`wafer`] that has an environment of its own.
    ///
    /// # Panics
    /// If it ends instead.
    pub fn start_in(mut wafer: Command, arguments: &[&str]) -> Self {
        wafer.args(["serve", "--listen", "127.0.0.1:0"]).args(arguments);
        Self::started(wafer, "listening on ")
    }

    /// Starts any server and waits until it says `sign` and its URL, at the end of a line.
    ///
    /// # Panics
    /// If it ends instead.
    pub fn started(mut command: Command, sign: &str) -> Self {
        let mut process =
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the server starts");
        let (sender, log) = channel();
        let stdout = process.stdout.take().map(|pipe| Box::new(pipe) as Box<dyn Read + Send>);
        let stderr = process.stderr.take().map(|pipe| Box::new(pipe) as Box<dyn Read + Send>);
        for pipe in stdout.into_iter().chain(stderr) {
            let sender = sender.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                    if sender.send(line).is_err() {
                        break;
                    }
                }
            });
        }
        drop(sender);
        let mut server = Self { process, url: String::new(), log: Mutex::new(log), seen: Vec::new() };
        let line = server.wait_for(sign);
        server.url = line.rsplit(' ').next().expect("a URL").to_owned();
        server
    }

    /// The first line of the log, from the start on, that contains `text`; waits for it.
    ///
    /// # Panics
    /// If the log ends, or nothing comes for [`PATIENCE`].
    pub fn wait_for(&mut self, text: &str) -> String {
        if let Some(line) = self.seen.iter().find(|line| line.contains(text)) {
            return line.clone();
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.log().recv_timeout(left) {
                Ok(line) => {
                    let found = line.contains(text);
                    self.seen.push(line.clone());
                    if found {
                        return line;
                    }
                }
                Err(_) => panic!("no {text:?} in the log:\n{}", self.seen.join("\n")),
            }
        }
    }

    fn log(&mut self) -> &mut Receiver<String> {
        self.log.get_mut().unwrap_or_else(PoisonError::into_inner)
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> &str {
        self.url.trim_start_matches("http://")
    }

    /// Sends a body (a GET without one) and returns status and JSON.
    ///
    /// # Panics
    /// If there is no answer, or it is not JSON.
    pub fn request(&self, method: &str, path: &str, body: Option<&[u8]>) -> (u16, Value) {
        let (status, text) = self.text(method, path, body);
        let value =
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{method} {path}: {error}: {text}"));
        (status, value)
    }

    /// As [`request`](Self::request), the body as it is.
    ///
    /// # Panics
    /// If there is no answer.
    pub fn text(&self, method: &str, path: &str, body: Option<&[u8]>) -> (u16, String) {
        text(&self.url, method, path, body)
    }

    /// Posts JSON and expects 200.
    ///
    /// # Panics
    /// If the status is another.
    pub fn post(&self, path: &str, body: &Value) -> Value {
        post(&self.url, path, body)
    }

    /// Asks the server to stop and waits for its end.
    ///
    /// # Panics
    /// If it does not end within [`PATIENCE`].
    pub fn stop(mut self, signal: &str) -> ExitStatus {
        let pid = self.process.id().to_string();
        let status = Command::new("kill").args([signal, &pid]).status().expect("kill starts");
        assert!(status.success(), "kill {signal} {pid}");
        // The log ends with the process.
        while self.log().recv_timeout(PATIENCE).is_ok() {}
        self.process.wait().expect("the process can be waited for")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
