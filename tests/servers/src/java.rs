//! Java: where it is, how a server is run by it so that it never outlives its test, and its tools.
//!
//! A server is started by a shell that leaves a watcher behind and then becomes the server. The watcher reads from a pipe that only the test
//! process holds; when that ends in whatever way, also by SIGKILL, the pipe does, and the watcher kills the server. Both are in a process
//! group of their own, whose number cannot be given to another process while the watcher lives, so it never kills a stranger.

use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// The oldest Java that runs both servers.
const OLDEST: u32 = 17;

/// How long a server that was asked to stop may take before it is killed.
const STOP: Duration = Duration::from_secs(60);

/// Flags for all: quick to start, small, one thread less where two cores serve six servers.
const QUICK: [&str; 4] = ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xss512k", "-Xshare:auto"];

/// The `java` to use.
///
/// # Errors
/// That it is missing or too old, and how to get it.
pub(crate) fn java() -> Result<&'static Path, String> {
    static FOUND: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    FOUND.get_or_init(find).as_deref().map_err(Clone::clone)
}

fn find() -> Result<PathBuf, String> {
    let install = format!(
        "Java {OLDEST} or newer runs Kafka and Cassandra for the tests. Install it with: sudo apt-get install -y openjdk-17-jre-headless"
    );
    let home = std::env::var_os("JAVA_HOME").map(|home| Path::new(&home).join("bin/java")).filter(|java| java.is_file());
    let java = home.unwrap_or_else(|| PathBuf::from("java"));
    let output = Command::new(&java).arg("-version").output();
    let output = output.map_err(|error| format!("Java is missing ({}: {error}). {install}", java.display()))?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    match version(&said) {
        Some(version) if version >= OLDEST => Ok(java),
        _ => Err(format!("{} is too old or no Java; it says: {}. {install}", java.display(), said.trim())),
    }
}

/// The major version in `openjdk version "17.0.15" 2025-04-15`; before 9 it was `1.8.0`, which is 1 here and too old in any case.
fn version(said: &str) -> Option<u32> {
    said.split('"').nth(1)?.split(['.', '-', '+']).next()?.parse().ok()
}

/// Runs a tool to its end: what it printed.
///
/// # Errors
/// What it printed, when it failed.
pub(crate) fn tool(jars: &Path, settings: &[String], class: &str, args: &[&str]) -> Result<String, String> {
    let mut command = Command::new(java()?);
    command.args(QUICK).args(["-Xmx128m"]).args(settings).arg("-cp").arg(jars.join("*")).arg(class).args(args);
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("{class}: {error}"))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(said);
    }
    Err(format!("{class} {args:?}: {}\n{said}{}", output.status, String::from_utf8_lossy(&output.stderr)))
}

/// A running server.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    log: PathBuf,
}

impl Server {
    /// Starts one; what it prints goes to `log`.
    pub(crate) fn start(jars: &Path, args: &[String], class: &str, last: &[String], log: &Path) -> Result<Self, String> {
        const SCRIPT: &str = "exec 3<&0; (cat <&3 >/dev/null; kill -KILL $$) & exec \"$@\" 3<&- </dev/null";
        let failed = |error: std::io::Error| format!("starting {class}, log {}: {error}", log.display());
        let out = File::create(log).map_err(failed)?;
        let mut command = Command::new("sh");
        command.args(["-c", SCRIPT, "sh"]).arg(java()?).args(QUICK).args(args).arg("-cp").arg(jars.join("*")).arg(class).args(last);
        command.stdin(Stdio::piped()).stdout(out.try_clone().map_err(failed)?).stderr(out).process_group(0);
        Ok(Self { child: command.spawn().map_err(failed)?, log: log.to_owned() })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Everything that it has printed.
    pub(crate) fn said(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// The end of what it printed, for a message.
    pub(crate) fn tail(&self) -> String {
        let said = self.said();
        let lines: Vec<&str> = said.lines().collect();
        let from = lines.len().saturating_sub(60);
        format!("the end of {}:\n{}", self.log.display(), lines.get(from..).unwrap_or_default().join("\n"))
    }

    /// A signal by its name.
    pub(crate) fn signal(&self, name: &str) {
        signal(name, &self.pid().to_string());
    }

    /// Ends it at once.
    pub(crate) fn kill(mut self) {
        self.end_group();
    }

    /// SIGTERM, and the wait for its end; SIGKILL when that takes too long.
    pub(crate) fn stop(mut self) {
        self.signal("TERM");
        let asked = Instant::now();
        while self.ended().is_none() && asked.elapsed() < STOP {
            std::thread::sleep(Duration::from_millis(10));
        }
        self.end_group();
    }

    /// Watcher and server; the group's number is ours as long as one of them has not been waited for.
    fn end_group(&mut self) {
        if self.child.stdin.is_some() {
            signal("KILL", &format!("-{}", self.pid()));
            self.child.stdin = None;
        }
        drop(self.child.wait());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end_group();
    }
}

/// A signal to a process or, with a minus, a group. A shell sends it: doing that ourselves needs unsafe code.
fn signal(name: &str, to: &str) {
    let sent = Command::new("sh").args(["-c", "kill -s \"$0\" -- \"$1\"", name, to]).stderr(Stdio::null()).status();
    assert!(sent.is_ok(), "sh cannot be run: {sent:?}");
}
