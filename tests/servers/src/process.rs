//! A process that never outlives the test that started it.
//!
//! A shell leaves a watcher behind and then becomes the program. The watcher reads from a pipe that only the test process holds; when that
//! ends in whatever way, also by SIGKILL, the pipe does, and the watcher kills the program. Both are in a process group of their own, whose
//! number cannot be given to another process while the watcher lives, so it never kills a stranger.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How long a process that was asked to stop may take before it is killed.
const STOP: Duration = Duration::from_secs(60);

/// A running process; killed when this is dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts one; what it prints, on both streams, goes to the file `log`.
    ///
    /// # Errors
    /// Why it could not be started. That the program is missing shows in its log and its end.
    pub fn start(program: &OsStr, args: &[OsString], log: &Path) -> Result<Self, String> {
        const SCRIPT: &str = "exec 3<&0; (cat <&3 >/dev/null; kill -KILL $$) & exec \"$@\" 3<&- </dev/null";
        let failed = |error: std::io::Error| format!("starting {}, log {}: {error}", program.display(), log.display());
        let out = File::create(log).map_err(failed)?;
        let mut command = Command::new("sh");
        command.args(["-c", SCRIPT, "sh"]).arg(program).args(args);
        command.stdin(Stdio::piped()).stdout(out.try_clone().map_err(failed)?).stderr(out).process_group(0);
        Ok(Self { child: command.spawn().map_err(failed)?, log: log.to_owned() })
    }

    /// Its number.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Everything that it has printed.
    #[must_use]
    pub fn said(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// The end of what it printed, for a message.
    #[must_use]
    pub fn tail(&self) -> String {
        let said = self.said();
        let lines: Vec<&str> = said.lines().collect();
        let from = lines.len().saturating_sub(60);
        format!("the end of {}:\n{}", self.log.display(), lines.get(from..).unwrap_or_default().join("\n"))
    }

    /// A signal by its name.
    pub fn signal(&self, name: &str) {
        signal(name, &self.pid().to_string());
    }

    /// Ends it at once.
    pub fn kill(mut self) {
        self.end_group();
    }

    /// SIGTERM, and the wait for its end: how it ended. None when that took too long and SIGKILL ended it.
    pub fn stop(mut self) -> Option<ExitStatus> {
        self.signal("TERM");
        let asked = Instant::now();
        let mut ended = self.ended();
        while ended.is_none() && asked.elapsed() < STOP {
            std::thread::sleep(Duration::from_millis(10));
            ended = self.ended();
        }
        self.end_group();
        ended
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

impl Drop for Process {
    fn drop(&mut self) {
        self.end_group();
    }
}

/// A signal to a process or, with a minus, a group. A shell sends it: doing that ourselves needs unsafe code.
fn signal(name: &str, to: &str) {
    let sent = Command::new("sh").args(["-c", "kill -s \"$0\" -- \"$1\"", name, to]).stderr(Stdio::null()).status();
    assert!(sent.is_ok(), "sh cannot be run: {sent:?}");
}
