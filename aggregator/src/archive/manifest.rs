//! What is committed: the files of each source's archive, and how far they reach. Only what a manifest names can be seen.
//!
//! A manifest changes as a whole or not at all, and only from the version that was read: of two who change it at once, one is told
//! to look again. So each offset of `[complete_from, end)` but those in `gaps` is in exactly one file of each day that it has rows of.

use schemas::{Millis, Offset, Source};
use serde::{Deserialize, Serialize};

use super::day::day_name;

/// A file: rows of one source whose records lie in `[from, to)`, of events of one day.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArchiveFile {
    /// Days since 1970.
    pub day: i32,
    /// No row is of an earlier record.
    pub from: Offset,
    /// No row is of this record or a later one.
    pub to: Offset,
    /// The XXH3-64 hash of its bytes, 16 hexadecimal digits: what is written anew has a new name.
    pub hash: String,
    /// How many rows it has.
    pub rows: u64,
    /// How many of them are events that could be decoded.
    pub events: u64,
    /// Its size.
    pub bytes: u64,
    /// The least and the largest event time; none without events.
    pub ts: Option<(Millis, Millis)>,
    /// The least and the largest append time.
    pub append_time: (Millis, Millis),
}

impl ArchiveFile {
    /// Its place below the archive's root.
    pub fn path(&self, source: Source) -> String {
        format!("day={}/source={source}/{:020}-{:020}-{}.parquet", day_name(self.day), self.from.0, self.to.0, self.hash)
    }
}

/// A file that no manifest names any more. Readers that began earlier may still have it open for a while.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Garbage {
    /// Where it lies.
    pub path: String,
    /// When it was replaced.
    pub since: Millis,
}

/// Somebody whose events are to name nobody.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Forgetting {
    /// The id in the events.
    pub viewer_id: String,
    /// In events that the log took up to then.
    pub until: Millis,
    /// The last file that was looked through, by day and where it begins.
    #[serde(default)]
    pub scanned: Option<(i32, Offset)>,
    /// Whether no file that was there names them any more; records up to then may still be on their way.
    #[serde(default)]
    pub is_done: bool,
}

/// How far a source is archived, and what is still to be done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArchiveHead {
    /// Grows by one with each change; 0 before the first.
    pub version: u64,
    /// From here on nothing is missing but the gaps: retention takes old days away.
    pub complete_from: Offset,
    /// What comes next: all records below are archived.
    pub end: Offset,
    /// The log clock of the records below `end`; `None` without records.
    pub clock: Option<Millis>,
    /// Offsets that the log had lost before they were archived, as `[from, to)`.
    #[serde(default)]
    pub gaps: Vec<(Offset, Offset)>,
    /// Replaced files that still lie there.
    #[serde(default)]
    pub garbage: Vec<Garbage>,
    /// Who is to be forgotten.
    #[serde(default)]
    pub forgetting: Vec<Forgetting>,
}

/// A source's archive.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// How far it reaches.
    pub head: ArchiveHead,
    /// By day, then offset.
    pub files: Vec<ArchiveFile>,
}

/// A change of a manifest, whole or not at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchiveChange {
    /// The head from now on; its version is one more than that of the manifest that is to be changed.
    pub head: ArchiveHead,
    /// Files from now on.
    pub added: Vec<ArchiveFile>,
    /// No files any more.
    pub removed: Vec<ArchiveFile>,
}

impl Manifest {
    /// The manifest after a change, if the change is of this one.
    pub fn changed(mut self, change: &ArchiveChange) -> Option<Self> {
        if self.head.version.checked_add(1)? != change.head.version {
            return None;
        }
        self.head = change.head.clone();
        self.files.retain(|file| !change.removed.contains(file));
        self.files.extend(change.added.iter().cloned());
        self.files.sort();
        Some(self)
    }

    /// A change of this manifest that replaces files; those that go are kept for a while.
    pub(super) fn replacing(&self, source: Source, removed: Vec<ArchiveFile>, added: Vec<ArchiveFile>, now: Millis) -> ArchiveChange {
        let mut head = self.next_head();
        head.garbage.extend(removed.iter().map(|file| Garbage { path: file.path(source), since: now }));
        ArchiveChange { head, added, removed }
    }

    /// The head of the next version, else as it is.
    pub(super) fn next_head(&self) -> ArchiveHead {
        ArchiveHead { version: self.head.version.saturating_add(1), ..self.head.clone() }
    }

    /// How much it holds: files, rows, bytes.
    pub fn totals(&self) -> (u64, u64, u64) {
        self.files.iter().fold((0, 0, 0), |(files, rows, bytes), file| (files + 1, rows + file.rows, bytes + file.bytes))
    }
}
