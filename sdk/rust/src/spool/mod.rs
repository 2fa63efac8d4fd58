//! Batches on disk that the server has not acknowledged: they survive a crash and are sent in order.
//!
//! ```text
//! DIR/lock                      held by the one process that uses it
//! DIR/0000000000000001.batches  a segment: records, appended (record)
//! DIR/0000000000000001.sent     what became of them (ledger)
//! ```
//!
//! - A batch is in the spool when [`Spool::append`] returns: by default its bytes are on the disk (fsync) by then; with
//!   [`Durability::Process`] they are with the operating system, which is enough to survive `kill -9`, but not a power cut.
//! - A segment is deleted when all its records were answered, never before.
//! - Before a record is sent, the ledger says so (as durably as the record). After a crash it is known which records may have been
//!   taken: they are *in doubt*, kept apart and sent first.
//! - Nothing is appended to a segment of an earlier process, so a torn tail never has good records behind it.
//!
//! Memory: about 40 bytes a record. Reading and writing block, for one batch at a time; the client's own thread does it.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::batch::Batch;

mod ledger;
mod open;
mod read;
mod record;

use ledger::{ENTRY, Step};
use record::MAGIC;

/// What a batch in the spool survives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Durability {
    /// A power cut: every batch is written through to the disk (fsync).
    #[default]
    PowerCut,
    /// The end of the process, also by `kill -9`; the operating system writes it to the disk when it likes.
    Process,
}

/// Why the spool did not do it.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SpoolError {
    /// It has as many bytes as it may.
    #[error("the spool is full")]
    Full,
    /// Another client has it.
    #[error("the spool {0} is in use by another client or process; give each its own directory")]
    InUse(PathBuf),
    /// The file system said no.
    #[error("the spool's {path} cannot be {verb}: {error}")]
    Io {
        /// What it was about.
        path: PathBuf,
        /// What was tried.
        verb: &'static str,
        /// Why not.
        error: io::Error,
    },
}

/// Where a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    segment: u64,
    at: u64,
    len: u32,
    pub(crate) events: u32,
    pub(crate) doubt_since_ms: Option<u64>,
}

/// Records that are sent as one request.
#[derive(Debug, Default)]
pub(crate) struct Parcel {
    pub(crate) slots: Vec<Slot>,
    pub(crate) batch: Batch,
    /// Records that are damaged: nothing of them can be sent.
    pub(crate) damaged: Vec<Slot>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Segment {
    /// Of both files.
    bytes: u64,
    /// Records that are not done.
    open_records: u64,
    /// Whether something in it is damaged: it is kept, under another name.
    damaged: bool,
}

#[derive(Debug)]
struct Active {
    id: u64,
    file: File,
    len: u64,
}

/// The spool.
#[derive(Debug)]
pub(crate) struct Spool {
    dir: PathBuf,
    _lock: File,
    max_bytes: u64,
    durability: Durability,
    segments: BTreeMap<u64, Segment>,
    active: Option<Active>,
    next_id: u64,
    fresh: VecDeque<Slot>,
    doubtful: VecDeque<Slot>,
    /// On disk and not done, whether being sent or not.
    events: u64,
}

/// What an earlier process left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) events: u64,
    pub(crate) damaged_bytes: u64,
}

impl Spool {
    /// Whether nothing waits in it (something may be under way).
    pub(crate) fn is_idle(&self) -> bool {
        self.fresh.is_empty() && self.doubtful.is_empty()
    }

    /// Events on disk that are not done.
    pub(crate) const fn events(&self) -> u64 {
        self.events
    }

    /// Adds a batch.
    ///
    /// # Errors
    /// [`SpoolError::Full`], or what the file system said; the batch is not in then.
    pub(crate) fn append(&mut self, batch: &Batch) -> Result<(), SpoolError> {
        let Some(record) = record::encode(batch) else { return Err(SpoolError::Full) };
        let size = length(&record);
        if self.bytes() + size + length(MAGIC) > self.max_bytes {
            return Err(SpoolError::Full);
        }
        if self.active.as_ref().is_none_or(|active| active.len >= self.segment_bytes()) {
            self.rotate()?;
        }
        let Some(active) = &mut self.active else { return Err(SpoolError::Full) };
        let (id, at, path) = (active.id, active.len, segment_path(&self.dir, active.id));
        let durable = self.durability == Durability::PowerCut;
        let written = active.file.write_all(&record).and_then(|()| if durable { active.file.sync_data() } else { Ok(()) });
        if let Err(error) = written {
            // What was written of it must not stand before the next; a new segment is safe whatever happened.
            let _ = active.file.set_len(at);
            self.active = None;
            return Err(SpoolError::Io { path, verb: "written", error });
        }
        active.len += size;
        let segment = self.segments.entry(id).or_default();
        segment.bytes += size;
        segment.open_records += 1;
        let slot = Slot {
            segment: id,
            at,
            len: u32::try_from(batch.body.len()).unwrap_or(u32::MAX),
            events: batch.events,
            doubt_since_ms: batch.doubt_since_ms,
        };
        self.events += u64::from(batch.events);
        self.queue_of(slot).push_back(slot);
        Ok(())
    }

    /// Notes that records are about to be sent.
    ///
    /// # Errors
    /// If it cannot be noted; then they must not be sent.
    pub(crate) fn sending(&mut self, slots: &[Slot], now_ms: u64) -> Result<(), SpoolError> {
        self.note(Step::Sending, slots, now_ms, self.durability == Durability::PowerCut)
    }

    /// Gives records back that are to be sent again.
    pub(crate) fn put_back(&mut self, slots: &[Slot], doubt_since_ms: Option<u64>, now_ms: u64) {
        if doubt_since_ms.is_none() {
            // If it fails they pass for in doubt after a crash, which is the safe side.
            let _ = self.note(Step::Returned, slots, now_ms, false);
        }
        for slot in slots {
            let slot = Slot { doubt_since_ms: earliest(slot.doubt_since_ms, doubt_since_ms), ..*slot };
            self.queue_of(slot).push_back(slot);
        }
        for queue in [&mut self.fresh, &mut self.doubtful] {
            queue.make_contiguous().sort_unstable_by_key(|slot| (slot.segment, slot.at));
        }
    }

    /// Records were answered for good. Segments without others are deleted.
    ///
    /// # Errors
    /// If that cannot be noted: they will be sent again after a restart, as in doubt.
    pub(crate) fn done(&mut self, slots: &[Slot], now_ms: u64) -> Result<(), SpoolError> {
        // Power may go before this is on disk: then they are in doubt, which is on disk.
        let noted = self.note(Step::Done, slots, now_ms, false);
        for slot in slots {
            self.events = self.events.saturating_sub(u64::from(slot.events));
            let segment = self.segments.entry(slot.segment).or_default();
            segment.open_records = segment.open_records.saturating_sub(1);
        }
        self.sweep(false);
        noted
    }

    /// Deletes what is empty, also the segment that is written to.
    pub(crate) fn close(&mut self) {
        self.sweep(true);
    }

    fn sweep(&mut self, also_active: bool) {
        let worn = self.segment_bytes() / 2;
        if self.active.as_ref().is_some_and(|active| also_active || active.len >= worn) {
            let is_empty = |active: &Active| self.segments.get(&active.id).is_none_or(|segment| segment.open_records == 0);
            if self.active.as_ref().is_some_and(is_empty) {
                self.active = None;
            }
        }
        let active = self.active.as_ref().map(|active| active.id);
        let dir = &self.dir;
        self.segments.retain(|id, segment| {
            let keep = segment.open_records > 0 || Some(*id) == active;
            // What cannot be deleted now is found, with its ledger, by the next process.
            keep || remove(dir, *id, segment.damaged).is_err_and(|error| error.kind() != io::ErrorKind::NotFound)
        });
    }

    fn note(&mut self, step: Step, slots: &[Slot], now_ms: u64, durable: bool) -> Result<(), SpoolError> {
        for together in slots.chunk_by(|a, b| a.segment == b.segment) {
            let Some(first) = together.first() else { continue };
            let path = ledger_path(&self.dir, first.segment);
            let entries: Vec<u8> = together.iter().flat_map(|slot| ledger::entry(step, slot.at, now_ms)).collect();
            let written = OpenOptions::new().create(true).append(true).open(&path).and_then(|mut file| {
                // What a failed write left of an entry would shift all others.
                let torn = file.metadata()?.len() % (length(&[0; ENTRY]));
                if torn > 0 {
                    file.set_len(file.metadata()?.len() - torn)?;
                }
                file.write_all(&entries)?;
                if durable { file.sync_data() } else { Ok(()) }
            });
            written.map_err(|error| SpoolError::Io { path, verb: "written", error })?;
            self.segments.entry(first.segment).or_default().bytes += length(&entries);
        }
        Ok(())
    }

    fn rotate(&mut self) -> Result<(), SpoolError> {
        let id = self.next_id;
        let path = segment_path(&self.dir, id);
        let made = OpenOptions::new().create_new(true).append(true).open(&path).and_then(|mut file| {
            file.write_all(MAGIC)?;
            if self.durability == Durability::PowerCut {
                file.sync_data()?;
                sync_directory(&self.dir);
            }
            Ok(file)
        });
        self.next_id += 1;
        let file = made.map_err(|error| SpoolError::Io { path, verb: "made", error })?;
        let len = length(MAGIC);
        self.active = Some(Active { id, file, len });
        self.segments.insert(id, Segment { bytes: len, ..Segment::default() });
        self.sweep(false);
        Ok(())
    }

    fn queue_of(&mut self, slot: Slot) -> &mut VecDeque<Slot> {
        if slot.doubt_since_ms.is_some() { &mut self.doubtful } else { &mut self.fresh }
    }

    fn bytes(&self) -> u64 {
        self.segments.values().map(|segment| segment.bytes).sum()
    }

    /// Many enough that done ones make room soon.
    fn segment_bytes(&self) -> u64 {
        (self.max_bytes / 16).clamp(64 * 1024, 16 * 1024 * 1024)
    }
}

/// The earlier of two times, either of which may be missing.
pub(crate) fn earliest(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    a.into_iter().chain(b).min()
}

fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

fn segment_path(dir: &Path, id: u64) -> PathBuf {
    dir.join(format!("{id:016}.batches"))
}

fn ledger_path(dir: &Path, id: u64) -> PathBuf {
    dir.join(format!("{id:016}.sent"))
}

/// The segment first: a ledger without one is nothing, a segment without its ledger would be sent again.
fn remove(dir: &Path, id: u64, damaged: bool) -> io::Result<()> {
    let path = segment_path(dir, id);
    if damaged {
        fs::rename(&path, path.with_extension("damaged"))?
    } else {
        fs::remove_file(&path)?
    }
    fs::remove_file(ledger_path(dir, id))
}

/// So that a file's name survives a power cut; where directories cannot be synced, nothing more can be done.
fn sync_directory(dir: &Path) {
    let _ = File::open(dir).and_then(|dir| dir.sync_all());
}

#[cfg(test)]
mod tests;
