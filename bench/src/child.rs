//! What is measured runs in a process of its own: this program again, with the task as JSON. So its CPU time and memory are its own,
//! and every run begins alike.
//!
//! ```text
//! tallymark-bench ──task──> tallymark-bench child TASK ──(standard output)──> outcome
//! ```

use std::process::{Command, Stdio};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::events::Shape;
use crate::{aggregate, bare, decode, rows};

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
