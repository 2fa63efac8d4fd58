//! What is measured runs in a process of its own: this program again, with the task as JSON. So its CPU time and memory are its own,
//! and every run begins alike.
//!
//! ```text
//! tallymark-bench ──task──> tallymark-bench child TASK ──(standard output)──> outcome
//! ```

use std::io::Read;
use std::process::{Command, Stdio};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::events::Shape;
use crate::{aggregate, bare, bare_http, decode, rows};

/// What a child may be asked to do.
#[derive(Serialize, Deserialize)]
pub(crate) enum Task {
    /// Fold a topic with the real parts: [`aggregate::Outcome`].
    Aggregate(aggregate::Plan),
    /// Read a topic and look at nothing: records per CPU-second.
    Bare(bare::Plan),
    /// Write rows to a bare database: rows per CPU-second.
    Rows(rows::Plan),
    /// Decode events from memory: events per CPU-second.
    Decode(Shape),
    /// Answer every request with this body, until it is killed; says its address first.
    Http(String),
    /// Decode every event that is posted and keep nothing, until it is killed; says its address first.
    Parse,
}

/// The word before a task.
pub(crate) const WORD: &str = "child";

impl Task {
    /// Has a child do it.
    pub(crate) fn run<T: DeserializeOwned>(&self) -> T {
        self.start().outcome()
    }

    /// Has a child begin.
    pub(crate) fn start(&self) -> Child {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.arg(WORD).arg(serde_json::to_string(self).unwrap()).stdin(Stdio::null()).stdout(Stdio::piped());
        Child(Some(command.spawn().unwrap()))
    }

    /// Does it: the child's side.
    pub(crate) fn perform(text: &str) {
        let outcome = match serde_json::from_str(text).unwrap() {
            Self::Aggregate(plan) => serde_json::to_string(&aggregate::run(&plan)),
            Self::Bare(plan) => serde_json::to_string(&bare::run(&plan)),
            Self::Rows(plan) => serde_json::to_string(&rows::run(&plan)),
            Self::Http(body) => bare_http::serve(body),
            Self::Parse => bare_http::parse(),
            Self::Decode(shape) => serde_json::to_string(&decode::run(&shape)),
        };
        println!("{}", outcome.unwrap());
        // What is left (connections, threads) needs no orderly end.
        std::process::exit(0);
    }
}

/// A child at work; killed if it is not waited for.
pub(crate) struct Child(Option<std::process::Child>);

impl Child {
    /// The next line that it says.
    pub(crate) fn line(&mut self) -> String {
        let stdout = self.0.as_mut().unwrap().stdout.as_mut().unwrap();
        let mut line = String::new();
        // A byte at a time: what comes after the line is left for others.
        while !line.ends_with('\n') {
            let mut byte = [0];
            stdout.read_exact(&mut byte).unwrap();
            line.push(char::from(byte[0]));
        }
        line.trim_end().to_owned()
    }

    pub(crate) fn pid(&self) -> String {
        self.0.as_ref().unwrap().id().to_string()
    }

    /// Waits for what came of it.
    pub(crate) fn outcome<T: DeserializeOwned>(mut self) -> T {
        let output = self.0.take().unwrap().wait_with_output().unwrap();
        assert!(output.status.success(), "a child failed: {}", output.status);
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
