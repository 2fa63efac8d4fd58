//! A tallymark process with one role: started, killed, paused, asked.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use reqwest::blocking::Client;
use test_servers::Process;

use crate::support::await_some;

/// One process and how to start it again: at the same address, with the same arguments.
pub(crate) struct Program {
    name: String,
    args: Vec<String>,
    address: String,
    directory: PathBuf,
    starts: u32,
    process: Option<Process>,
}

impl Program {
    /// A process of `role` that is not started yet; its logs go to `directory`.
    pub(crate) fn new(directory: &Path, name: &str, role: &str, settings: &[String]) -> Self {
        let address = test_servers::free_address();
        let own = [role, "--listen", &address, "--kafka-client-id", name].map(str::to_owned);
        let args = own.into_iter().chain(settings.iter().cloned()).collect();
        Self { name: name.to_owned(), args, address, directory: directory.to_owned(), starts: 0, process: None }
    }

    /// Another argument for all starts from now on.
    pub(crate) fn add(&mut self, arg: &str) {
        self.args.push(arg.to_owned());
    }

    /// Its name in `tallymark status`.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// `host:port`.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Starts it, if it does not run; it may not be ready for a while.
    pub(crate) fn start(&mut self) {
        if self.process.is_some() {
            return;
        }
        self.starts += 1;
        let log = self.directory.join(format!("{}-{}.log", self.name, self.starts));
        // Free of this process's own settings.
        let ours = std::env::vars_os().map(|(name, _)| name).filter(|name| name.to_string_lossy().starts_with("TALLYMARK_"));
        let without = ours.flat_map(|name| [OsString::from("-u"), name]);
        let program = std::iter::once(OsString::from(env!("CARGO_BIN_EXE_tallymark")));
        let command: Vec<OsString> = without.chain(program).chain(self.args.iter().map(OsString::from)).collect();
        self.process = Some(Process::start(OsStr::new("env"), &command, &log).unwrap());
    }

    /// Starts it and waits until it is ready.
    pub(crate) fn start_ready(&mut self) {
        self.start();
        self.await_ready();
    }

    /// Waits until it says that it is ready.
    pub(crate) fn await_ready(&mut self) {
        let (http, url) = (client(5), self.url("/readyz"));
        await_some(&format!("{} is ready", self.name), || {
            let process = self.process.as_mut().unwrap();
            assert!(process.ended().is_none(), "{} ended; {}", self.name, process.tail());
            http.get(&url).send().ok().filter(|answer| answer.status() == 200)
        });
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        self.process.take().unwrap().kill();
    }

    /// SIGTERM; it must end well.
    pub(crate) fn stop(&mut self) {
        let process = self.process.take().unwrap();
        let log = self.directory.join(format!("{}-{}.log", self.name, self.starts));
        let ended = process.stop();
        assert!(ended.is_some_and(|status| status.success()), "{}: {ended:?}; see {}:\n{}", self.name, log.display(), read(&log));
    }

    pub(crate) fn signal(&self, name: &str) {
        self.process.as_ref().unwrap().signal(name);
    }

    /// How it ended, if it has, and all that it said.
    pub(crate) fn ended(&mut self) -> Option<(ExitStatus, String)> {
        let process = self.process.as_mut()?;
        let status = process.ended()?;
        let said = process.said();
        self.process = None;
        Some((status, said))
    }

    /// Its memory (resident set) in MiB; 0 if it does not run.
    pub(crate) fn memory_mib(&self) -> u64 {
        let Some(process) = &self.process else { return 0 };
        let status = std::fs::read_to_string(format!("/proc/{}/status", process.pid())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) / 1024
    }
}

/// An HTTP client that gives up after so many seconds.
pub(crate) fn client(seconds: u64) -> Client {
    Client::builder().timeout(Duration::from_secs(seconds)).no_proxy().build().unwrap()
}

fn read(log: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(log).unwrap_or_default()).into_owned()
}
