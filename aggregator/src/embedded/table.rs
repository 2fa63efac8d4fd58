//! Reading and writing rows: the higher stamp stays, and every byte read is checked.

use std::fmt::Display;
use std::io::ErrorKind;
use std::sync::atomic::Ordering;

use fjall::Keyspace;
use schemas::cell::key_range;
use schemas::{CellKey, Checkpoint, Source, Stamp, StoredRow, Tier};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::open::Inner;
use crate::store::{Slice, SliceRow, StoreError};

/// The two tables of cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// Hour, day and year cells.
    Rollup,
    /// Minute cells.
    ByMinute,
}

impl Table {
    /// The table of a tier's cells.
    pub const fn of(tier: Tier) -> Self {
        match tier {
            Tier::Minute => Self::ByMinute,
            Tier::Hour | Tier::Day | Tier::Year => Self::Rollup,
        }
    }
}

const NOTE_FORMAT: u8 = 1;
const NAME_BYTES: usize = 65_535;

impl Inner {
    pub(super) const fn table(&self, table: Table) -> &Keyspace {
        match table {
            Table::Rollup => &self.views_rollup,
            Table::ByMinute => &self.views_by_minute,
        }
    }

    pub(super) fn read_cell(&self, key: &CellKey) -> Result<Option<StoredRow>, StoreError> {
        self.read_row(key, &key.encode())
    }

    /// Reads a cell whose key is encoded already.
    pub(super) fn read_row(&self, key: &CellKey, encoded: &[u8]) -> Result<Option<StoredRow>, StoreError> {
        let stored = self.get(self.table(Table::of(key.bucket.tier)), encoded, key)?;
        stored.map(|bytes| StoredRow::decode(&bytes).map_err(|error| damaged(key, &error))).transpose()
    }

    pub(super) fn read_slice(&self, slice: &Slice) -> Result<Vec<SliceRow>, StoreError> {
        let (low, high) = key_range(&slice.entity, slice.tier, slice.start, slice.end);
        if low >= high {
            return Ok(Vec::new());
        }
        let table = Table::of(slice.tier);
        let rows = self.table(table).range(low..high).map(|entry| {
            let (key, stored) = self.cell(table, entry, &slice.entity)?;
            Ok(SliceRow { start: key.bucket.start, source: key.source, stored })
        });
        rows.collect()
    }

    pub(super) fn scan(&self, table: Table) -> impl Iterator<Item = Result<(CellKey, StoredRow), StoreError>> + '_ {
        self.table(table).iter().map(move |entry| self.cell(table, entry, &"a cell"))
    }

    fn cell(&self, table: Table, entry: fjall::Guard, what: &dyn Display) -> Result<(CellKey, StoredRow), StoreError> {
        let (key, value) = entry.into_inner().map_err(|error| self.fault(what, &error))?;
        let key = CellKey::decode(&key, table == Table::ByMinute).map_err(|error| damaged(&format!("{what} ({key:?})"), &error))?;
        let row = StoredRow::decode(&value).map_err(|error| damaged(&key, &error))?;
        Ok((key, row))
    }

    /// Whether `new` replaces `old`: its stamp is higher. Equal stamps with other content are a bug of an owner, which is counted.
    pub(super) fn supersedes<T: PartialEq>(&self, key: &dyn Display, old: Option<(Stamp, &T)>, new: (Stamp, &T)) -> bool {
        let Some(old) = old else { return true };
        if old.0 == new.0 && old.1 != new.1 {
            self.conflicts.fetch_add(1, Ordering::Relaxed);
            tracing::error!(%key, stamp = old.0.0, "two owners wrote different states for one stamp; the first is kept");
        }
        old.0 < new.0
    }

    pub(super) fn read_checkpoints(&self) -> Result<Vec<(Source, Checkpoint)>, StoreError> {
        let what = "a checkpoint";
        let read = |entry: fjall::Guard| {
            let (key, value) = entry.into_inner().map_err(|error| self.fault(&what, &error))?;
            let source = <[u8; 4]>::try_from(&*key).map_err(|_| damaged(&what, &format!("key {key:?}")))?;
            let source = Source(u32::from_be_bytes(source));
            Ok((source, decode_checkpoint(source, &value)?))
        };
        self.checkpoints.iter().map(read).collect()
    }

    pub(super) fn write_checkpoint(&self, source: Source, checkpoint: &Checkpoint) -> Result<(), StoreError> {
        let mut writer = self.writer()?;
        let key = source.0.to_be_bytes();
        let what = format!("the checkpoint of source {source}");
        let old = self.get(&self.checkpoints, &key, &what)?.map(|bytes| decode_checkpoint(source, &bytes)).transpose()?;
        if !self.supersedes(&what, old.as_ref().map(|old| (old.stamp, old)), (checkpoint.stamp, checkpoint)) {
            return Ok(());
        }
        self.commit(&mut writer, [(&self.checkpoints, key.into(), checkpoint.encode().into())], &[])?;
        self.expiry.advance(checkpoint);
        Ok(())
    }

    pub(super) fn read_note<T: DeserializeOwned>(&self, notes: &Keyspace, kind: &str, name: &str) -> Result<Option<T>, StoreError> {
        let what = format!("{kind} {name}");
        if !is_name(name) {
            return Ok(None);
        }
        let Some(bytes) = self.get(notes, name.as_bytes(), &what)? else { return Ok(None) };
        decode_note(&bytes, &what).map(Some)
    }

    pub(super) fn scan_notes<'a, T: DeserializeOwned>(
        &'a self,
        notes: &'a Keyspace,
        kind: &'a str,
    ) -> impl Iterator<Item = Result<(String, T), StoreError>> + 'a {
        notes.iter().map(move |entry| {
            let (name, bytes) = entry.into_inner().map_err(|error| self.fault(&kind, &error))?;
            let name = std::str::from_utf8(&name).map_err(|error| damaged(&kind, &error))?.to_owned();
            let note = decode_note(&bytes, &format!("{kind} {name}"))?;
            Ok((name, note))
        })
    }

    pub(super) fn write_note<T: Serialize>(&self, notes: &Keyspace, kind: &str, name: &str, note: &T) -> Result<(), StoreError> {
        if !is_name(name) {
            return Err(StoreError::Unavailable(format!("a {kind} needs a name of 1 to {NAME_BYTES} bytes")));
        }
        let bytes = encode_note(note, &format_args!("{kind} {name}"))?;
        let mut writer = self.writer()?;
        self.commit(&mut writer, [(notes, name.into(), bytes.into())], &[])
    }

    pub(super) fn get(&self, keyspace: &Keyspace, key: &[u8], what: &dyn Display) -> Result<Option<fjall::UserValue>, StoreError> {
        keyspace.get(key).map_err(|error| self.fault(what, &error))
    }

    /// What a failed read means: bytes that are wrong are damage, and a disk that does not answer is a failure.
    pub(super) fn fault(&self, what: &dyn Display, error: &fjall::Error) -> StoreError {
        let io = match error {
            fjall::Error::Io(io) | fjall::Error::Storage(fjall::LsmError::Io(io)) => io,
            fjall::Error::Poisoned => return self.failure.set(error.to_string()),
            _ => return damaged(what, error),
        };
        match io.kind() {
            ErrorKind::UnexpectedEof | ErrorKind::InvalidData | ErrorKind::NotFound => damaged(what, error),
            _ => StoreError::Unavailable(format!("{what} cannot be read: {io}")),
        }
    }

    pub(super) fn compact(&self) -> Result<(), StoreError> {
        self.failure.check()?;
        let Self {
            meta,
            views_by_minute,
            views_rollup,
            views_by_bucket,
            checkpoints,
            videos,
            spaces,
            imports,
            keys,
            archive,
            adjustments,
            ..
        } = self;
        let tables =
            [meta, views_by_minute, views_rollup, views_by_bucket, checkpoints, videos, spaces, imports, keys, archive, adjustments];
        tables
            .into_iter()
            .try_for_each(|table| {
                table.rotate_memtable_and_wait()?;
                table.major_compact()
            })
            .map_err(|error| self.fault(&"a table", &error))
    }

    pub(super) fn disk_bytes(&self) -> Result<u64, StoreError> {
        self.db.disk_space().map_err(|error| self.fault(&"the size on disk", &error))
    }
}

/// What the database takes as a key.
const fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= NAME_BYTES
}

pub(super) fn encode_note<T: Serialize>(note: &T, what: &dyn Display) -> Result<Vec<u8>, StoreError> {
    let mut bytes = vec![NOTE_FORMAT];
    serde_json::to_writer(&mut bytes, note).map_err(|error| StoreError::Unavailable(format!("{what}: {error}")))?;
    Ok(bytes)
}

pub(super) fn decode_note<T: DeserializeOwned>(bytes: &[u8], what: &str) -> Result<T, StoreError> {
    match bytes.split_first() {
        Some((&NOTE_FORMAT, json)) => serde_json::from_slice(json).map_err(|error| damaged(&what, &error)),
        Some((format, _)) => Err(damaged(&what, &format!("format {format} is not known; was it written by a newer tallymark?"))),
        None => Err(damaged(&what, &"no bytes")),
    }
}

fn decode_checkpoint(source: Source, bytes: &[u8]) -> Result<Checkpoint, StoreError> {
    Checkpoint::decode(bytes).map_err(|error| damaged(&format!("the checkpoint of source {source}"), &error))
}

pub(super) fn damaged(what: &dyn Display, error: &dyn Display) -> StoreError {
    StoreError::Corrupt(format!("{what}: {error}"))
}
