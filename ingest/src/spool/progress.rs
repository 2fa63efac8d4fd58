//! How far the spool has been drained, in a side file that is replaced as a whole.
//!
//! Before a batch is appended to the log, its range and where the log's source ended are noted as *in flight*. Whoever finds such a
//! note (after a crash, or an append whose fate is not known) looks in the log from there on for what has arrived, and appends the rest.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use schemas::{LogId, Millis, Offset, Source};
use serde::{Deserialize, Serialize};

use crate::LogError;

const FILE: &str = "drained.json";

/// Of each source.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Drained {
    /// Records of the spool below this are in the log.
    pub(super) next: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) in_flight: Option<InFlight>,
}

/// A batch that may have arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct InFlight {
    /// It ends before this offset of the spool; it begins at [`Drained::next`].
    pub(super) end: u64,
    /// Where the log's source ended before it was appended.
    pub(super) log_end: u64,
    /// When that was, by this machine's clock, in ms.
    pub(super) at_ms: i64,
}

/// The side file, and what it says.
pub(super) struct Progress {
    path: PathBuf,
    file: Contents,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Contents {
    /// What is spooled is for this log.
    log: LogId,
    sources: BTreeMap<u32, Drained>,
}

impl Progress {
    /// Of a spool for `log`.
    pub(super) fn open(dir: &Path, log: &LogId) -> Result<Self, LogError> {
        let path = dir.join(FILE);
        let file: Contents = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| refuse(&path, &error))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Contents { log: log.clone(), sources: BTreeMap::new() },
            Err(error) => return Err(refuse(&path, &error)),
        };
        if file.log != *log {
            let stored = &file.log;
            let detail = format!("what is spooled here is for log {stored}, not for {log}; drain it there, or choose another directory");
            return Err(refuse(&path, &detail));
        }
        let progress = Self { path, file };
        // From the first moment on it says whose it is.
        progress.write(&progress.file).map_err(|error| refuse(&progress.path, &error))?;
        Ok(progress)
    }

    pub(super) fn of(&self, source: Source) -> Drained {
        self.file.sources.get(&source.0).cloned().unwrap_or_default()
    }

    /// Notes it durably.
    pub(super) fn note(&mut self, source: Source, drained: Drained) -> Result<(), LogError> {
        let mut file = self.file.clone();
        file.sources.insert(source.0, drained);
        self.write(&file).map_err(|error| LogError::Failed(format!("{}: {error}", self.path.display())))?;
        self.file = file;
        Ok(())
    }

    fn write(&self, contents: &Contents) -> std::io::Result<()> {
        let new = self.path.with_extension("new");
        let mut file = File::create(&new)?;
        file.write_all(&serde_json::to_vec(contents)?)?;
        file.sync_all()?;
        fs::rename(&new, &self.path)?;
        let dir = self.path.parent().unwrap_or(Path::new("."));
        File::open(dir)?.sync_all()
    }
}

impl InFlight {
    pub(super) const fn log_end(&self) -> Offset {
        Offset(self.log_end)
    }

    /// No record of it was appended later than this: a broker's clock is at most an hour ahead of ours, else folds stop.
    pub(super) fn last_possible(&self) -> Millis {
        const HOUR_MS: i64 = 3_600_000;
        Millis(self.at_ms).plus(2 * HOUR_MS)
    }
}

fn refuse(path: &Path, detail: &dyn std::fmt::Display) -> LogError {
    LogError::Open { path: path.display().to_string(), detail: detail.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_noted_is_there_after_a_restart_and_of_each_source_apart() {
        let (dir, log) = (tempfile::tempdir().unwrap(), LogId("a".into()));
        let mut progress = Progress::open(dir.path(), &log).unwrap();
        assert_eq!(progress.of(Source(1)), Drained::default());
        let in_flight = InFlight { end: 9, log_end: 4, at_ms: 7 };
        progress.note(Source(1), Drained { next: 5, in_flight: Some(in_flight) }).unwrap();
        progress.note(Source(0), Drained { next: 2, in_flight: None }).unwrap();
        let again = Progress::open(dir.path(), &log).unwrap();
        assert_eq!((again.of(Source(1)).next, again.of(Source(1)).in_flight), (5, Some(in_flight)));
        assert_eq!(again.of(Source(0)), Drained { next: 2, in_flight: None });
    }

    #[test]
    fn a_damaged_file_is_named_and_not_taken_for_an_empty_one() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE), "{\"0\":{\"next\":").unwrap();
        let error = Progress::open(dir.path(), &LogId("a".into())).err().unwrap().to_string();
        assert!(error.contains(FILE), "{error}");
    }

    #[test]
    fn what_is_for_one_log_does_not_go_to_another() {
        let dir = tempfile::tempdir().unwrap();
        drop(Progress::open(dir.path(), &LogId("a".into())).unwrap());
        let error = Progress::open(dir.path(), &LogId("b".into())).err().unwrap().to_string();
        assert!(error.contains("log a, not for b"), "{error}");
    }
}
