//! Finding the log in a directory, or making one there; and refusing what is not whole.
//!
//! ```text
//! DIR/lock         held while the log is open
//! DIR/database/    fjall: keyspaces `records` and `metadata`
//! DIR/synced-end   how far each source was acknowledged
//! ```

use std::collections::hash_map::RandomState;
use std::fs::{self, File, TryLockError};
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::num::NonZeroU32;
use std::panic::catch_unwind;
use std::path::Path;

use fjall::{Database, KeyspaceCreateOptions, KvSeparationOptions, PersistMode};
use schemas::codec::CodecError;
use schemas::{LogId, Millis, Offset, Source};

use super::retention::{Start, start_key};
use super::synced_end::{Noted, SyncedEnd};
use super::{ACCEPT_TRUNCATION_FLAG, Extent, LogOptions, Storage, cause, torn_tail, value};
use crate::log::LogError;

/// The least that the database takes; it bounds what a restart has to replay.
const JOURNALS_BYTES: u64 = 64 << 20;
const IDENTITY_KEY: &str = "identity";
const IDENTITY_FORMAT: u8 = 1;

/// A log that was found whole.
pub(super) struct Opened {
    pub(super) id: LogId,
    pub(super) storage: Storage,
    pub(super) extents: Vec<Extent>,
    pub(super) append_time: Millis,
    pub(super) synced_end: SyncedEnd,
    pub(super) lock: DirLock,
}

/// The lock on the directory.
pub(super) struct DirLock(File);

impl Drop for DirLock {
    /// Closing the file is not enough: a process that is being forked just now holds a copy of it for a moment.
    fn drop(&mut self) {
        let _ = self.0.unlock();
    }
}

pub(super) fn open(options: &LogOptions) -> Result<Opened, LogError> {
    let dir = Directory { path: &options.dir };
    if options.existing && !dir.path.exists() {
        return Err(dir.refuse("there is no such directory".into()));
    }
    dir.make().map_err(|error| dir.refuse(format!("the directory cannot be made: {error}")))?;
    let lock = dir.lock()?;
    let (mut synced_end, noted) =
        SyncedEnd::open(&dir.path.join("synced-end")).map_err(|error| dir.refuse(format!("synced-end cannot be used: {error}")))?;
    let noted = dir.acknowledged(noted, options)?;
    let storage = dir.open_database(options, &noted)?;
    let (id, sources) = dir.identity(&storage, options)?;
    let (extents, append_time) = dir.extents(&storage, sources)?;
    dir.check_whole(&extents, &noted)?;
    let ends: Vec<Offset> = extents.iter().map(Extent::end).collect();
    synced_end
        .note(&ends)
        .and_then(|()| synced_end.sync())
        .map_err(|error| dir.refuse(format!("synced-end cannot be written: {error}")))?;
    Ok(Opened { id, storage, extents, append_time, synced_end, lock })
}

/// The log's directory: what all refusals name.
struct Directory<'a> {
    path: &'a Path,
}

impl Directory<'_> {
    fn refuse(&self, detail: String) -> LogError {
        LogError::Open { path: self.path.display().to_string(), detail }
    }

    /// Makes the directory and those above it, so that they survive a power cut.
    fn make(&self) -> io::Result<()> {
        let absent: Vec<&Path> = self.path.ancestors().take_while(|path| !path.as_os_str().is_empty() && !path.exists()).collect();
        fs::create_dir_all(self.path)?;
        for parent in absent.into_iter().filter_map(Path::parent).filter(|parent| !parent.as_os_str().is_empty()) {
            File::open(parent)?.sync_all()?;
        }
        Ok(())
    }

    fn lock(&self) -> Result<DirLock, LogError> {
        let file = File::options().write(true).create(true).truncate(false).open(self.path.join("lock"));
        let file =
            file.map_err(|error| self.refuse(format!("the directory cannot be written: {error}; check its owner and permissions")))?;
        match file.try_lock() {
            Ok(()) => Ok(DirLock(file)),
            Err(TryLockError::WouldBlock) => {
                Err(self.refuse("another tallymark is running on this directory; stop it first, or use another data directory".into()))
            }
            Err(TryLockError::Error(error)) => Err(self.refuse(format!("the directory cannot be locked: {error}"))),
        }
    }

    /// The ends that the side file vouches for.
    fn acknowledged(&self, noted: Noted, options: &LogOptions) -> Result<Vec<Offset>, LogError> {
        match noted {
            Noted::Ends(ends) if !options.accept_truncation => Ok(ends),
            Noted::Damaged if !options.accept_truncation => Err(self.refuse(format!(
                "synced-end is damaged, so it is not known whether the log still ends where it did; restore the directory from a backup, \
                 or start with {ACCEPT_TRUNCATION_FLAG} to go on with what is there"
            ))),
            Noted::Ends(_) | Noted::Damaged | Noted::Nothing => Ok(Vec::new()),
        }
    }

    fn open_database(&self, options: &LogOptions, noted: &[Offset]) -> Result<Storage, LogError> {
        let path = self.path.join("database");
        // The database writes its version marker last when it is made: without it there never was a record in it.
        if !path.join("version").exists() {
            self.check_whole(&[], noted)?;
            match fs::remove_dir_all(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(self.refuse(format!("a database that was never finished cannot be removed: {error}")));
                }
                _ => {}
            }
        }
        match self.storage(&path, options) {
            Err(fjall::Error::JournalRecovery(fjall::JournalRecoveryError::ChecksumMismatch)) => {
                self.cut_torn_tail(&path)?;
                self.storage(&path, options)
            }
            opened => opened,
        }
        .map_err(|error| match error {
            fjall::Error::Locked => self.refuse("another program has its database open".into()),
            error => self.refuse(format!("its database cannot be opened: {}{}", cause(&error), way_out(&error))),
        })
    }

    fn storage(&self, path: &Path, options: &LogOptions) -> fjall::Result<Storage> {
        // Some damage makes the database panic where an error would do.
        catch_unwind(|| storage(path, options)).unwrap_or(Err(fjall::Error::Unrecoverable))
    }

    fn cut_torn_tail(&self, database: &Path) -> Result<(), LogError> {
        let cut = torn_tail::cut(database).map_err(|error| self.refuse(format!("its journal cannot be read: {error}")))?;
        if let Some(bytes) = cut {
            tracing::warn!(dir = %self.path.display(), bytes, "cut off a batch that was torn before it was acknowledged");
        }
        Ok(())
    }

    /// The log's name and how many sources it has, which may be what is asked for.
    fn identity(&self, storage: &Storage, options: &LogOptions) -> Result<(LogId, NonZeroU32), LogError> {
        let sources = options.sources;
        let stored = storage.metadata.get(IDENTITY_KEY).map_err(|error| self.refuse(cause(&error)))?;
        let Some(stored) = stored else {
            if storage.records.first_key_value().is_some() {
                return Err(self.refuse("its identity is missing; restore the directory from a backup".into()));
            }
            if options.existing {
                return Err(self.refuse("there is no log in this directory".into()));
            }
            let id = new_id();
            self.write_identity(storage, &id, sources).map_err(|error| self.refuse(cause(&error)))?;
            return Ok((id, sources));
        };
        let (id, stored_sources) = decode_identity(&stored).map_err(|error| self.refuse(error.to_string()))?;
        if let Some(stored_sources) = NonZeroU32::new(stored_sources).filter(|_| options.existing) {
            return Ok((id, stored_sources));
        }
        if stored_sources != sources.get() {
            return Err(self.refuse(format!(
                "the log has {stored_sources} sources and {sources} were asked for; their number is fixed when a log is made: \
                 start with {stored_sources}, or with another data directory"
            )));
        }
        Ok((id, sources))
    }

    fn write_identity(&self, storage: &Storage, id: &LogId, sources: NonZeroU32) -> fjall::Result<()> {
        let value = [&[IDENTITY_FORMAT], sources.get().to_be_bytes().as_slice(), id.0.as_bytes()].concat();
        storage.metadata.insert(IDENTITY_KEY, value)?;
        storage.database.persist(PersistMode::SyncAll)
    }

    /// Where each source lies, and the newest append time of all.
    fn extents(&self, storage: &Storage, sources: NonZeroU32) -> Result<(Vec<Extent>, Millis), LogError> {
        let mut newest = Millis::NEVER;
        let mut extents = Vec::new();
        for source in (0..sources.get()).map(Source) {
            let stored = storage.metadata.get(start_key(source)).map_err(|error| self.refuse(cause(&error)))?;
            let start = stored.map(|bytes| Start::decode(&bytes)).transpose().map_err(|error| self.refuse(error.to_string()))?;
            let start = start.unwrap_or(Start { offset: Offset(0), append_time: Millis::NEVER });
            let last = self.last(storage, source)?.filter(|(offset, _)| *offset >= start.offset);
            let end = last.map_or(start.offset, |(offset, _)| offset.next());
            newest = newest.max(start.append_time).max(last.map_or(Millis::NEVER, |(_, time)| time));
            extents.push(Extent::new(start.offset, end));
        }
        Ok((extents, newest))
    }

    /// The offset and append time of a source's last record.
    fn last(&self, storage: &Storage, source: Source) -> Result<Option<(Offset, Millis)>, LogError> {
        let all = value::key(source, Offset(0))..=value::key(source, Offset(u64::MAX));
        let Some(found) = storage.records.range(all).next_back() else { return Ok(None) };
        let (key, bytes) = found
            .into_inner()
            .map_err(|error| self.refuse(format!("the last record of source {source} cannot be read: {}", cause(&error))))?;
        let offset = value::offset_of(&key).ok_or_else(|| self.refuse(format!("source {source} holds a key that is none")))?;
        match value::decode(source, offset, &bytes) {
            Ok(record) => Ok(Some((offset, record.append_time))),
            Err(detail) => Err(LogError::Corrupt { source_id: source, offset, detail }),
        }
    }

    /// Refuses a log that ends before what it has acknowledged.
    fn check_whole(&self, extents: &[Extent], noted: &[Offset]) -> Result<(), LogError> {
        let ends = extents.iter().map(Extent::end).chain(std::iter::repeat(Offset(0)));
        for ((source, acknowledged), end) in (0u32..).zip(noted).zip(ends) {
            if end < *acknowledged {
                return Err(LogError::Truncated(format!(
                    "the log in {} has lost records: source {source} ends at offset {end}, but all below {acknowledged} were acknowledged. \
                     Its files were damaged or replaced. Restore the directory from a backup, or start with {ACCEPT_TRUNCATION_FLAG} to \
                     go on without them",
                    self.path.display()
                )));
            }
        }
        Ok(())
    }
}

fn storage(path: &Path, options: &LogOptions) -> fjall::Result<Storage> {
    let builder = Database::builder(path).cache_size(options.cache_bytes).max_journaling_size(JOURNALS_BYTES).worker_threads(1);
    let database = builder.open()?;
    let records = database.keyspace("records", || records_options(options.memtable_bytes))?;
    let metadata = database.keyspace("metadata", || KeyspaceCreateOptions::default().max_memtable_size(1 << 20))?;
    Ok(Storage { database, records, metadata })
}

/// Values of 1 KiB and more lie in blob files of their own, so that compaction rewrites keys and not payloads.
fn records_options(memtable_bytes: u64) -> KeyspaceCreateOptions {
    KeyspaceCreateOptions::default()
        .max_memtable_size(memtable_bytes)
        .expect_point_read_hits(true)
        .with_kv_separation(Some(KvSeparationOptions::default()))
}

fn way_out(error: &fjall::Error) -> &'static str {
    match error {
        fjall::Error::Io(_) => "",
        _ => "; it is damaged or of another version: restore the directory from a backup",
    }
}

/// 128 bits that no other log has, from the keys that the standard library draws for its hash tables.
fn new_id() -> LogId {
    let draw = || {
        let mut hasher = RandomState::new().build_hasher();
        hasher.write_i64(Millis::now().0);
        hasher.write_u32(std::process::id());
        hasher.finish()
    };
    LogId(format!("{:016x}{:016x}", draw(), draw()).into())
}

fn decode_identity(bytes: &[u8]) -> Result<(LogId, u32), CodecError> {
    let what = "log identity";
    let length = || CodecError::Length { what, len: bytes.len() };
    let (&[format], rest) = bytes.split_first_chunk::<1>().ok_or_else(length)?;
    if format != IDENTITY_FORMAT {
        return Err(CodecError::Format { what, format });
    }
    let (sources, id) = rest.split_first_chunk::<4>().ok_or_else(length)?;
    let id = std::str::from_utf8(id).map_err(|_| CodecError::Field { what, field: "id" })?;
    Ok((LogId(id.into()), u32::from_be_bytes(*sources)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_128_bits_and_differ() {
        let (a, b) = (new_id(), new_id());
        assert_eq!(a.0.len(), 32);
        assert_ne!(a, b);
        assert_ne!(a.0[..16], a.0[16..]);
    }
}
