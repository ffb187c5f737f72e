//! Baked components: the same text, the same bytes, and a cache that survives what happens to caches.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Instant;

use serde_json::{Value, json};
use tempfile::TempDir;
use wafer_tests::{PATIENCE, Server, greedy_reference, ids, testdata, wafer};

const PROMPT: &str = "Once upon a time";

/// What the demo model makes of [`PROMPT`], greedily, in 16 tokens.
const DEMO_TEXT: &str = ", there was a little boy named Milo. Milo was very";

/// Everything that a baked component asks of its host. A longer list is a decision, not an accident.
const IMPORTS: [&str; 9] = [
    "wasi:cli/stderr@0.2.12",
    "wasi:clocks/monotonic-clock@0.2.12",
    "wasi:clocks/wall-clock@0.2.12",
    "wasi:http/types@0.2.12",
    "wasi:io/error@0.2.12",
    "wasi:io/poll@0.2.12",
    "wasi:io/streams@0.2.12",
    "wasi:random/insecure-seed@0.2.12",
    "wasi:random/random@0.2.12",
];

/// A folder for results, and a cache.
struct Place {
    folder: TempDir,
    /// Where `wafer` makes its folder.
    cache: PathBuf,
}

impl Place {
    /// With a cache that all tests share, so that they need not all compile the same component.
    fn new() -> Self {
        Self { cache: env!("CARGO_TARGET_TMPDIR").into(), ..Self::fresh() }
    }

    /// With a cache of its own, empty.
    fn fresh() -> Self {
        let folder = tempfile::tempdir().expect("a temporary directory can be made");
        Self { cache: folder.path().join("cache"), folder }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().expect("a path").to_owned()
    }

    /// A command whose cache is here.
    fn wafer(&self) -> Command {
        let mut command = wafer();
        // What is baked is the model in the component's memory.
        command.env("XDG_CACHE_HOME", &self.cache).env("WAFER_ENGINE", "wasm");
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.wafer().args(arguments).output().expect("the binary starts")
    }

    /// What a command prints, and it must succeed.
    fn text(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {error}");
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    /// The error of a command, which must fail.
    fn error(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {error}");
        error
    }

    /// Bakes `model` (the demo model if there is none) and returns the component's path.
    fn bake(&self, name: &str, model: Option<&str>, options: &[&str]) -> String {
        let output = self.path(name);
        let model: Vec<&str> = model.into_iter().collect();
        self.text(&[&["bake", "-o", &output][..], &model, options].concat());
        output
    }

    /// The greedy text of `source`, an argument of `wafer run`, and none for the demo model.
    fn story(&self, source: &[&str], tokens: &str) -> String {
        self.continued(source, PROMPT, tokens)
    }

    fn continued(&self, source: &[&str], prompt: &str, tokens: &str) -> String {
        let how = [prompt, "--temperature", "0", "--max-tokens", tokens];
        self.text(&[&["run"], source, &how].concat()).trim_end_matches('\n').to_owned()
    }

    /// What `wafer inspect` says of a component.
    fn facts(&self, component: &str) -> Value {
        serde_json::from_str(&self.text(&["inspect", component, "--json"])).expect("JSON")
    }

    fn cache(&self) -> PathBuf {
        self.cache.join("wafer")
    }

    /// The compiled code in the cache that is of something called `name`.
    fn entries(&self, name: &str) -> Vec<PathBuf> {
        let listed = self.text(&["cache", "ls", "--json"]);
        let listed: Value = serde_json::from_str(&listed).expect("JSON");
        let entries = listed["entries"].as_array().expect("a list").iter();
        let named = entries.filter(|entry| entry["name"].as_str().is_some_and(|found| found.contains(name)));
        named.map(|entry| entry["file"].as_str().expect("a path").into()).collect()
    }
}

/// Names of the files under a directory, however deep.
fn files(directory: &Path) -> Vec<PathBuf> {
    let Ok(listed) = fs::read_dir(directory) else { return Vec::new() };
    let inside = |path: PathBuf| if path.is_dir() { files(&path) } else { vec![path] };
    listed.flatten().map(|entry| entry.path()).flat_map(inside).collect()
}

/// Waits until something is so.
fn wait_for(what: &str, mut so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !so() {
        assert!(started.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::yield_now();
    }
}

/// The greedy text of a model, whatever became of it: plain, baked, compiled, run, served. `expected` has lost its
/// leading space where it is a reference's.
fn check(model: Option<&str>, prompt: &str, expected: &str, tokens: u64) {
    let place = Place::new();
    let plain: Vec<&str> = model.into_iter().collect();
    let count = tokens.to_string();
    let component = place.bake("app.wasm", model, &["--compile", "--check"]);
    let compiled = place.path("app.cwasm");
    let body = json!({"prompt": prompt, "max_tokens": tokens, "temperature": 0});
    for source in [&plain[..], &[&component], &[&compiled, "--trust"]] {
        let text = place.continued(source, prompt, &count);
        assert_eq!(text.trim_start(), expected, "run {source:?}");
        let server = Server::start_in(place.wafer(), source);
        let answer = server.post("/v1/completions", &body);
        assert_eq!(answer["choices"][0]["text"], text, "serve {source:?}");
    }
}

#[test]
fn baking_does_not_change_the_text() {
    check(None, PROMPT, DEMO_TEXT, 16);
    let Some(cases) = greedy_reference("stories260K-f32") else { return };
    let text = |key: &str| cases[0][key].as_str().expect("a text");
    for model in ["models/stories260K-f32.gguf", "hf/stories260K-hf"] {
        let Some(model) = testdata(model) else { return };
        check(model.to_str(), text("prompt"), text("output_text"), ids(&cases[0]["output_ids"]).len() as u64);
    }
}

#[test]
fn what_is_baked_is_checked_whatever_it_computes() {
    let place = Place::new();
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../component/tests/fixtures");
    for name in ["bert-mean", "distilbert-sst2", "t5-gated"] {
        let model = fixtures.join(name);
        let path = place.bake("app.wasm", model.to_str(), &["--check"]);
        assert_eq!(place.facts(&path)["model"]["id"], name);
    }
}

#[test]
fn the_same_inputs_give_the_same_bytes() {
    // One with what was compiled before, one without.
    let (one, other) = (Place::new(), Place::fresh());
    let mut models = vec![None];
    // The same file elsewhere, written at another time.
    models.extend(testdata("models/stories260K-Q8_0.gguf").map(Some));
    for model in models {
        let copy = model.as_ref().map(|model| {
            let copy = other.path(model.file_name().and_then(|name| name.to_str()).expect("a name"));
            fs::copy(model, &copy).expect("it can be copied");
            copy
        });
        let model = model.as_ref().map(|model| model.to_str().expect("a path"));
        let options = ["--defaults", "temperature=0.5", "--name", "tiny"];
        let [first, again, elsewhere] = [
            one.bake("a.wasm", model, &options),
            one.bake("b.wasm", model, &options),
            other.bake("c.wasm", copy.as_deref(), &options),
        ]
        .map(|path| fs::read(path).expect("it was written"));
        assert!(first == again && first == elsewhere, "{model:?}");
    }
}

#[test]
fn a_baked_component_is_small_and_says_what_it_is() {
    let place = Place::new();
    let mut models = vec![None];
    models.extend(testdata("models/stories260K-Q4_0.gguf").map(Some));
    for model in models {
        let model = model.as_ref().map(|model| model.to_str().expect("a path"));
        let path = place.bake("app.wasm", model, &["--defaults", "top_k=7", "--name", "tiny"]);
        let facts = place.facts(&path);
        let (size, weights) = (facts["size"].as_u64(), facts["model"]["weights_bytes"].as_u64());
        let (size, weights) = (size.expect("a size"), weights.expect("a size"));
        assert_eq!(size, fs::metadata(&path).expect("a file").len());
        assert!(size as f64 <= 1.05 * weights as f64 + 6e6, "{size} bytes for {weights} bytes of weights");
        assert_eq!(facts["model"]["id"], "tiny");
        assert_eq!(facts["model"]["architecture"], "llama");
        assert_eq!(facts["model"]["defaults"], "top_k=7");
        let mut imports: Vec<&str> =
            facts["imports"].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
        imports.sort_unstable();
        assert_eq!(imports, IMPORTS);
    }
}

#[test]
fn a_system_message_is_baked_with_its_computation() {
    let place = Place::new();
    let system = "You tell stories for children. Be kind, and use short words.";
    let baked = place.bake("app.wasm", None, &["--system", system]);
    let plain = Server::start_in(place.wafer(), &[]);
    let baked = Server::start_in(place.wafer(), &[&baked]);
    let user = json!({"role": "user", "content": "Tell me a story about a dog"});
    let with = |text: &str| json!([{"role": "system", "content": text}, user]);
    let answer = |server: &Server, messages: &Value| {
        let body = json!({"messages": messages, "max_tokens": 24, "temperature": 0});
        let answer = server.post("/v1/chat/completions", &body);
        (answer["choices"][0]["message"]["content"].clone(), answer["usage"]["total_tokens"].clone())
    };
    let expected = answer(&plain, &with(system));
    assert_ne!(expected.1, answer(&plain, &json!([user])).1, "the template has no place for it");
    assert_eq!(answer(&baked, &json!([user])), expected);
    let usage = &baked.post("/v1/chat/completions", &json!({"messages": [user], "max_tokens": 1}))["usage"];
    assert!(usage["prompt_tokens_details"]["cached_tokens"].as_u64() > Some(10), "{usage}");
    for own in [system, "You tell stories for grown-ups.", "No."] {
        assert_eq!(answer(&baked, &with(own)), answer(&plain, &with(own)), "{own:?}");
    }
}

#[test]
fn defaults_hold_until_a_request_says_otherwise() {
    let place = Place::new();
    let path = place.bake("app.wasm", None, &["--defaults", "max_tokens=5,temperature=0", "--name", "tale"]);
    let server = Server::start_in(place.wafer(), &[&path]);
    assert_eq!(server.request("GET", "/v1/models", None).1["data"][0]["id"], "tale");
    let messages = json!([{"role": "user", "content": "Tell me a story"}]);
    for (path, body, tokens) in [
        ("/v1/chat/completions", json!({"messages": messages}), 5),
        ("/v1/chat/completions", json!({"messages": messages, "max_tokens": 3}), 3),
        ("/v1/completions", json!({"prompt": PROMPT}), 5),
        ("/generate", json!({"prompt": PROMPT}), 5),
        ("/generate", json!({"prompt": PROMPT, "max_new_tokens": 7}), 7),
    ] {
        let answer = server.post(path, &body);
        assert_eq!(answer["usage"]["completion_tokens"], tokens, "{path} {body}");
    }
    let answer = server.post("/v1/completions", &json!({"prompt": PROMPT, "max_tokens": 16}));
    assert_eq!(answer["choices"][0]["text"], DEMO_TEXT);
}

#[test]
fn randomness_is_not_baked() {
    let place = Place::new();
    let path = place.bake("app.wasm", None, &[]);
    let server = Server::start_in(place.wafer(), &[&path]);
    let body = json!({"prompt": PROMPT, "max_tokens": 24, "temperature": 1.0});
    let text = || server.post("/v1/completions", &body)["choices"][0]["text"].as_str().map(str::to_owned);
    let texts: std::collections::HashSet<_> = (0..4).map(|_| text()).collect();
    assert!(texts.len() > 1, "four requests without a seed gave one text: {texts:?}");
}

#[test]
fn a_baked_guest_can_say_why_it_ends() {
    let place = Place::new();
    let path = place.bake("app.wasm", None, &[]);
    let mut server = Server::start_in(place.wafer(), &[&path, "--instance-memory", "12MiB"]);
    let body = json!({"prompt": PROMPT.repeat(500_000), "max_tokens": 1});
    let (status, _) = server.request("POST", "/v1/completions", Some(body.to_string().as_bytes()));
    assert_eq!(status, 500);
    // Rust asks for the environment on its way to stderr.
    server.wait_for("memory allocation of ");
}

/// A GGUF file of a few bytes that claims a matrix of `rows` times 4096 floats, and has room for it.
fn hollow(path: &str, rows: u64) {
    let string = |text: &str| [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat();
    let mut bytes = [&b"GGUF"[..], &3_u32.to_le_bytes(), &1_u64.to_le_bytes(), &1_u64.to_le_bytes()].concat();
    bytes.extend(string("general.architecture"));
    bytes.extend(8_u32.to_le_bytes());
    bytes.extend(string("llama"));
    bytes.extend(string("token_embd.weight"));
    bytes.extend(2_u32.to_le_bytes());
    bytes.extend([4096, rows].map(u64::to_le_bytes).concat());
    bytes.extend(0_u32.to_le_bytes());
    bytes.extend(0_u64.to_le_bytes());
    fs::write(path, bytes).expect("it can be written");
    let file = fs::File::options().write(true).open(path).expect("it is there");
    file.set_len(4096 * 4 * rows + (1 << 20)).expect("a hole costs nothing");
}

#[test]
fn what_cannot_be_baked_is_refused_with_a_reason() {
    let place = Place::new();
    let baked = place.bake("app.wasm", None, &[]);
    let out = place.path("out.wasm");
    let large = place.path("large.gguf");
    hollow(&large, 1 << 17);
    let missing = place.path("no/such/folder.wasm");
    for (arguments, expected) in [
        (&["bake", &baked, "-o", &out][..], &["the model demo baked into it", "hint: "][..]),
        (&["bake", &large, "-o", &out], &["2.0 GiB", "1.0 GiB", "--engine native"]),
        (&["bake", "-o", &out, "--defaults", "temprature=1"], &["temprature", "did you mean 'temperature'"]),
        (&["bake", "-o", &out, "--defaults", "top_p=2"], &["top_p is 2"]),
        (&["run", &baked, PROMPT, "--quantize", "q8_0"], &["was set up when it was baked"]),
        (&["bake", "-o", &out, "--compile=vax-dec-ultrix"], &["vax-dec-ultrix"]),
        (&["bake", "-o", &missing], &[&missing]),
    ] {
        let error = place.error(arguments);
        for part in expected {
            assert!(error.contains(part), "{arguments:?}: {part:?} is not in {error:?}");
        }
        assert!(!Path::new(&out).exists(), "{arguments:?}");
    }
}

#[test]
fn a_component_for_the_hosts_engine_carries_no_weights() {
    let place = Place::new();
    let path = place.bake("app.wasm", None, &["--world", "accelerated", "--check"]);
    let facts = place.facts(&path);
    assert!(facts["model"]["weights_bytes"].is_null(), "{facts}");
    let imports = facts["imports"].as_array().expect("a list");
    assert!(
        imports.iter().any(|name| name.as_str().is_some_and(|name| name.starts_with("wasi:nn/inference")))
    );
}

#[test]
fn compiled_code_is_not_loaded_from_anywhere() {
    let place = Place::new();
    place.bake("app.wasm", None, &["--compile"]);
    place.bake("other.wasm", None, &["--compile=aarch64-unknown-linux-gnu"]);
    let code = fs::read(place.path("app.cwasm")).expect("it was written");
    fs::write(place.path("cut.cwasm"), &code[..code.len() / 2]).expect("it can be written");
    fs::write(place.path("not.cwasm"), [&b"\x7fELF"[..], &[0; 100]].concat()).expect("it can be written");
    let foreign =
        if cfg!(target_arch = "aarch64") { "app.cwasm" } else { "other.aarch64-unknown-linux-gnu.cwasm" };
    for (file, trust, expected) in [
        ("app.cwasm", &[][..], "--trust"),
        ("cut.cwasm", &["--trust"], "cut.cwasm"),
        ("not.cwasm", &["--trust"], "not.cwasm"),
        (foreign, &["--trust"], "not compiled by this wafer for this processor"),
    ] {
        let path = place.path(file);
        if cfg!(target_arch = "aarch64") && file == foreign {
            continue;
        }
        let error = place.error(&[&["run", &path, PROMPT], trust].concat());
        assert!(error.contains(expected), "{file}: {error}");
    }
}

#[test]
fn an_entry_that_was_tampered_with_is_made_again() {
    let place = Place::fresh();
    assert_eq!(place.story(&[], "16"), DEMO_TEXT);
    let entry = place.entries("demo").remove(0);
    let whole = fs::read(&entry).expect("it can be read");
    let mut tampered = whole.clone();
    let middle = whole.len() / 2;
    tampered[middle] ^= 0xFF;
    for broken in [&tampered[..], &whole[..middle]] {
        fs::write(&entry, broken).expect("it can be written");
        let output = place.run(&["run", PROMPT, "--temperature", "0", "--max-tokens", "16"]);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim_end_matches('\n'), DEMO_TEXT, "{error}");
        assert!(error.contains("it changed since it was made"), "{error}");
        assert!(fs::read(&entry).expect("it can be read") == whole);
    }
}

#[test]
fn two_processes_make_one_entry() {
    let place = Place::fresh();
    let start = || -> Child {
        let arguments = ["run", PROMPT, "--temperature", "0", "--max-tokens", "16"];
        let mut command = place.wafer();
        command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts")
    };
    let running: Vec<Child> = (0..3).map(|_| start()).collect();
    for child in running {
        let output = child.wait_with_output().expect("it ends");
        let text = String::from_utf8_lossy(&output.stdout);
        assert_eq!(text.trim_end_matches('\n'), DEMO_TEXT, "{}", String::from_utf8_lossy(&output.stderr));
    }
    assert_eq!(place.entries("demo").len(), 1);
}

/// A point in a process' life, and how to see that it is reached.
type Point<'a> = (&'a str, &'a dyn Fn(&Place) -> bool);

#[test]
fn a_killed_process_leaves_nothing_broken() {
    let locked = |place: &Place| !files(&place.cache().join("locks")).is_empty();
    let unfinished = |place: &Place| {
        let named = |path: &PathBuf| path.to_string_lossy().contains("unfinished");
        files(&place.cache()).iter().any(named)
    };
    let compiled = |place: &Place| {
        let code = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "cwasm");
        files(&place.cache()).iter().any(code)
    };
    let points: [Point; 3] =
        [("a lock", &locked), ("an unfinished file", &unfinished), ("the empty component", &compiled)];
    for (point, reached) in points {
        let place = Place::fresh();
        let mut command = place.wafer();
        command.args(["run", PROMPT, "--max-tokens", "1"]).stdout(Stdio::null()).stderr(Stdio::null());
        let mut process = command.spawn().expect("it starts");
        wait_for(point, || reached(&place));
        process.kill().expect("it can be killed");
        process.wait().expect("it has ended");
        assert_eq!(place.story(&[], "16"), DEMO_TEXT, "killed at {point}");
        assert_eq!(place.entries("demo").len(), 1, "killed at {point}");
    }
}

#[test]
fn an_interrupted_bake_leaves_nothing() {
    let place = Place::fresh();
    let folder = place.folder.path().join("results");
    fs::create_dir(&folder).expect("it can be made");
    let output = folder.join("app.wasm");
    let mut command = place.wafer();
    command.args(["bake", "--compile", "-o"]).arg(&output).stderr(Stdio::piped());
    let process = command.spawn().expect("it starts");
    // It listens for signals before it makes its cache.
    wait_for("the cache", || place.cache().is_dir());
    let sent = Command::new("kill").args(["-INT", &process.id().to_string()]).status().expect("kill starts");
    assert!(sent.success());
    let ended = process.wait_with_output().expect("it ends");
    let error = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(1), "{error}");
    assert!(error.contains("SIGINT") && error.contains("nothing was written"), "{error}");
    assert_eq!(files(&folder), Vec::<PathBuf>::new());
}

#[test]
fn a_full_disk_is_said() {
    let place = Place::new();
    let folder = place.folder.path().join("results");
    fs::create_dir(&folder).expect("it can be made");
    let binary = place.wafer().get_program().to_owned();
    // A limit to the size of files fails in the same place as a full disk, and needs no disk of one's own.
    let script = "trap '' XFSZ; ulimit -f 4000; exec \"$0\" bake -o \"$1\"";
    let mut command = Command::new("sh");
    command.args(["-c", script]).arg(binary).arg(folder.join("app.wasm"));
    let output = command.env("XDG_CACHE_HOME", &place.cache).output().expect("a shell starts");
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains("cannot write") && error.contains("app.wasm"), "{error}");
    assert_eq!(files(&folder), Vec::<PathBuf>::new());
}

/// Runs a shell's `script`, whose `"$@"` is the command that prints the demo model's text, and returns what it
/// says beside the text.
fn story_from(cache: &Path, script: &str) -> String {
    let binary = wafer();
    let arguments = ["run", PROMPT, "--temperature", "0", "--max-tokens", "16", "--log-level", "info"];
    let mut command = Command::new("sh");
    command.args(["-c", script, "sh"]).arg(binary.get_program()).args(arguments);
    command.env("XDG_CACHE_HOME", cache).env("WAFER_ENGINE", "wasm");
    let output = command.output().expect("a shell starts");
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim_end_matches('\n'), DEMO_TEXT, "{error}");
    error
}

#[test]
fn without_a_cache_everything_works() {
    let error = story_from(Path::new("/dev/null"), "exec \"$@\"");
    assert!(error.contains("nothing is cached"), "{error}");
}

#[test]
fn a_cache_on_a_full_disk_is_done_without() {
    let place = Place::fresh();
    fs::create_dir(&place.cache).expect("it can be made");
    // A small disk that only this process sees.
    let small = "mount -t tmpfs -o size=2m none \"$XDG_CACHE_HOME\"";
    let mut mounting = Command::new("unshare");
    mounting.args(["-rm", "sh", "-c", small]).env("XDG_CACHE_HOME", &place.cache).stderr(Stdio::null());
    if !mounting.status().is_ok_and(|status| status.success()) {
        eprintln!("ignored: this system does not let us mount a small disk");
        return;
    }
    let script = format!("exec unshare -rm sh -c '{small} && exec \"$@\"' sh \"$@\"");
    let error = story_from(&place.cache, &script);
    assert!(error.contains("the demo model is not cached"), "{error}");
    assert!(error.contains("cannot write") && error.contains("No space left"), "{error}");
}

#[test]
fn a_cache_that_cannot_be_written_is_still_read() {
    let place = Place::fresh();
    place.story(&[], "16");
    let entry = place.entries("demo").remove(0);
    let before = fs::metadata(&entry).expect("a file").modified().expect("a time");
    let lock = |mode: u32| {
        let folders = ["", "code", "files", "locks"].map(|name| place.cache().join(name));
        for path in folders.into_iter().chain(files(&place.cache())) {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("it is ours");
        }
    };
    lock(0o500);
    // What file modes forbid, root may do unless it gives that up.
    let script = "if [ \"$(id -u)\" != 0 ]; then exec \"$@\"; fi
        exec setpriv --bounding-set=-dac_override,-dac_read_search \"$@\"";
    let error = story_from(&place.cache, script);
    assert!(!error.contains("cached"), "{error}");
    assert_eq!(fs::metadata(&entry).expect("it is there").modified().expect("a time"), before);
    lock(0o700);
}
