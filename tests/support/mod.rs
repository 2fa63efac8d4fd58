//! What the tests of the whole program share: the real binary on a free port, and questions to it over HTTP.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use reqwest::blocking::{Client, Response};
use serde_json::Value;

/// How long anything may take that is awaited.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// The program with these arguments, free of this process's own settings.
pub(crate) fn tallymark(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tallymark"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("TALLYMARK_") {
            command.env_remove(name);
        }
    }
    command.args(args).stdin(Stdio::null());
    command
}

/// Runs the program to its end.
pub(crate) fn output(args: &[&str]) -> Output {
    tallymark(args).output().unwrap()
}

/// What it printed, both streams.
pub(crate) fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Waits until `done` gives something; asks every few milliseconds.
pub(crate) fn await_some<T>(what: &str, mut done: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(value) = done() {
            return value;
        }
        assert!(begun.elapsed() < PATIENCE, "waited {PATIENCE:?} in vain until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A running server.
pub(crate) struct Server {
    child: Child,
    /// The role and its settings.
    args: Vec<String>,
    address: String,
    pub(crate) http: Client,
}

impl Server {
    /// Starts everything in one process, on a free port, and waits until it is ready.
    pub(crate) fn start(data: &Path, args: &[&str]) -> Self {
        let server = Self::of(&[&["run", "--data", data.to_str().unwrap()], args].concat());
        server.await_ready();
        server
    }

    /// Starts a role with its settings on a free port.
    pub(crate) fn of(args: &[&str]) -> Self {
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        let (child, address) = launch(command(&args, "127.0.0.1:0"));
        let http = Client::builder().timeout(PATIENCE).no_proxy().build().unwrap();
        Self { child, args, address, http }
    }

    /// Starts a server by a command of its own, and waits until it is ready.
    pub(crate) fn by(command: &mut Command) -> Self {
        let (child, address) = launch(std::mem::replace(command, Command::new("true")));
        let http = Client::builder().timeout(PATIENCE).no_proxy().build().unwrap();
        let server = Self { child, args: Vec::new(), address, http };
        server.await_ready();
        server
    }

    /// Starts it again, at the address that it had.
    pub(crate) fn restart(&mut self) {
        let (child, address) = launch(command(&self.args, &self.address));
        assert_eq!(address, self.address);
        self.child = child;
        self.await_ready();
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM, and how it ended.
    pub(crate) fn stop(&mut self) -> ExitStatus {
        self.stop_by("TERM")
    }

    /// A signal by its name, and how it ended.
    pub(crate) fn stop_by(&mut self, name: &str) -> ExitStatus {
        signal(&self.child, name);
        self.child.wait().unwrap()
    }

    /// Waits until it ends by itself; what it said on stderr is in the test's output.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        await_some("the server ends", || self.child.try_wait().unwrap())
    }

    /// Of its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// `127.0.0.1:port`.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) fn get(&self, path: &str) -> Response {
        self.http.get(self.url(path)).send().unwrap()
    }

    /// A successful answer as JSON.
    pub(crate) fn json(&self, path: &str) -> Value {
        let response = self.get(path);
        let status = response.status();
        let text = response.text().unwrap();
        assert!(status.is_success(), "GET {path}: {status} {text}");
        serde_json::from_str(&text).unwrap()
    }

    /// A metric without labels, or the first of its name.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let text = self.get("/metrics").text().unwrap();
        let line = text.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{'])));
        line.unwrap_or_else(|| panic!("{name} in {text}")).rsplit(' ').next().unwrap().parse().unwrap()
    }

    /// Posts events, one JSON object a line, all of which must be taken.
    pub(crate) fn post(&self, events: &[Value]) {
        let body: String = events.iter().map(|event| format!("{event}\n")).collect();
        let response = self.http.post(self.url("/v1/events")).header("content-type", "application/x-ndjson").body(body).send().unwrap();
        assert_eq!(response.status(), 202, "{}", response.text().unwrap());
    }

    /// Waits until everything that is in the log now is in the answers; the status then.
    pub(crate) fn counted(&self) -> Value {
        let ends: Vec<u64> = self.sources("/end");
        await_some("all is counted", || {
            let status = self.json("/v1/status");
            let next = |source: &Value| source.pointer("/checkpoint/next_offset").and_then(Value::as_u64).unwrap_or(0);
            status["sources"].as_array().unwrap().iter().zip(&ends).all(|(source, end)| next(source) >= *end).then_some(status)
        })
    }

    /// A number of every source's status.
    pub(crate) fn sources(&self, path: &str) -> Vec<u64> {
        let status = self.json("/v1/status");
        status["sources"].as_array().unwrap().iter().map(|source| source.pointer(path).and_then(Value::as_u64).unwrap_or(0)).collect()
    }

    /// The counts of an entity that are not zero, as (start of the point, views).
    pub(crate) fn views(&self, entity: &str, start: &str, end: &str, step: &str) -> Vec<(String, i64)> {
        let answer = self.json(&format!("/v1/{entity}/views?start={start}&end={end}&step={step}"));
        let points: Vec<(String, i64)> = answer["points"]
            .as_array()
            .unwrap()
            .iter()
            .map(|point| (point["start"].as_str().unwrap().to_owned(), point["views"].as_i64().unwrap()))
            .filter(|(_, views)| *views != 0)
            .collect();
        assert_eq!(answer["total"].as_i64().unwrap(), points.iter().map(|(_, views)| views).sum::<i64>());
        points
    }

    /// Waits until it says that it is ready.
    pub(crate) fn await_ready(&self) {
        await_some("the server is ready", || self.http.get(self.url("/readyz")).send().ok().filter(|response| response.status() == 200));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(args: &[String], listen: &str) -> Command {
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let mut command = tallymark(&args);
    command.args(["--listen", listen, "--log-level", "warn"]);
    command
}

/// Starts a server and reads from its first line where it listens.
pub(crate) fn launch(mut command: Command) -> (Child, String) {
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let mut first = String::new();
    lines.read_line(&mut first).unwrap();
    let address = first.split_once("://").and_then(|(_, rest)| rest.split_once(',')).map(|(address, _)| address.to_owned());
    // Reads the rest, so that the pipe never fills.
    std::thread::spawn(move || lines.read_to_end(&mut Vec::new()));
    match address {
        Some(address) => (child, address),
        None => panic!("the server did not start: {first:?}, {:?}", child.wait()),
    }
}

/// Sends a signal by its name.
pub(crate) fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill").args([format!("-{name}"), child.id().to_string()]).status().unwrap();
    assert!(sent.success());
}

/// The lines that a child writes to its stdout, as they come.
pub(crate) fn lines_of(child: &mut Child) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    let stdout = BufReader::new(child.stdout.take().unwrap());
    std::thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
    receiver
}

/// Numbers that look random and are the same for a seed (SplitMix64, Steele, Lea and Flood 2014).
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.roll() % n
    }
}
