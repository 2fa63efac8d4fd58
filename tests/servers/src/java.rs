//! Java: where it is, and how servers and tools are run by it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use crate::process::Process;

/// The oldest Java that runs both servers.
const OLDEST: u32 = 17;

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

/// Starts a server.
///
/// # Errors
/// Why it could not be started.
pub(crate) fn server(jars: &Path, args: &[String], class: &str, last: &[String], log: &Path) -> Result<Process, String> {
    let own = |args: &[String]| args.iter().map(OsString::from).collect::<Vec<_>>();
    let mut command: Vec<OsString> = QUICK.map(OsString::from).into();
    command.extend(own(args));
    command.extend(["-cp".into(), jars.join("*").into(), class.into()]);
    command.extend(own(last));
    Process::start(java()?.as_os_str(), &command, log)
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
