//! Writing rows: in batches that each become durable whole, and only then visible.
//!
//! A call is taken in parts of its rows. A part is encoded into one piece of memory, which the database shares, and sorted by key.
//! A stored row is read only where it might be as new as the row to write: the stamp is not above the highest that any row of its source
//! had before the call, or an earlier part of the call may have written the same cell.

use std::collections::HashMap;
use std::fmt::Display;
use std::ops::Range;

use fjall::{Keyspace, PersistMode, Slice, UserKey, UserValue};
use foldhash::fast::FixedState;
use schemas::{CellKey, Source, Stamp, StoredRow};
use xxhash_rust::xxh3::xxh3_64;

use super::highest::{self, Highest, Raise};
use super::journal::{self, BATCH_KEY};
use super::open::{Inner, Writer};
use super::table::Table;
use crate::store::StoreError;

/// So many rows become durable at once. It bounds the memory of one batch; a larger set takes several.
const BATCH_ROWS: usize = 20_000;

/// A value to write: where, under which key, what.
type Change<'a> = (&'a Keyspace, UserKey, UserValue);

impl Inner {
    pub(super) fn write_rows(&self, rows: &[(CellKey, StoredRow)]) -> Result<(), StoreError> {
        let mut writer = self.writer()?;
        let mut before = Before::new(rows.len());
        for rows in rows.chunks(BATCH_ROWS) {
            let mut part = Part::encode(rows);
            let kept = self.kept(&part, &mut before, &writer.highest)?;
            let mut raised = Highest::new();
            kept.iter().for_each(|row| highest::raise(&mut raised, ((row.table, row.key.source), row.stored.stamp)));
            let raised: Vec<Raise> = raised.into_iter().collect();
            let places: Vec<_> = kept.into_iter().map(|row| (row.table, row.at, part.put(row.stored))).collect();
            let bytes = Slice::from(part.bytes);
            let changes = places.into_iter().map(|(table, key, value)| (self.table(table), bytes.slice(key), bytes.slice(value)));
            self.commit(&mut writer, changes, &raised)?;
        }
        Ok(())
    }

    /// The rows of a part that replace what is stored.
    fn kept<'a>(&self, part: &Part<'a>, before: &mut Before, highest: &Highest) -> Result<Vec<EncodedRow<'a>>, StoreError> {
        let mut kept = Vec::with_capacity(part.rows.len());
        for cell in part.rows.chunk_by(|a, b| part.cell(a) == part.cell(b)) {
            let Some(first) = cell.first() else { continue };
            let (_, encoded) = part.cell(first);
            let stored = if before.is_new(first, encoded, highest) { None } else { self.read_row(first.key, encoded)? };
            let mut best: Option<&EncodedRow<'a>> = None;
            for row in cell {
                let old = best.map(|best| best.stored).or(stored.as_ref());
                if self.supersedes(row.key, old.map(|old| (old.stamp, old)), (row.stored.stamp, row.stored)) {
                    best = Some(row);
                }
            }
            kept.extend(best.cloned());
        }
        Ok(kept)
    }

    /// Makes changes durable, all or none, and only then visible.
    pub(super) fn commit<'a>(
        &self,
        writer: &mut Writer,
        changes: impl IntoIterator<Item = Change<'a>>,
        raised: &[Raise],
    ) -> Result<(), StoreError> {
        let failed = |error: &dyn Display| self.failure.set(format!("{error}; is the disk full or broken?"));
        let number = writer.next_batch;
        let journal = journal::newest(&self.dir.join("db")).map_err(|error| failed(&error))?;
        let mut batch = self.db.batch().durability(Some(PersistMode::SyncData));
        batch.insert(&self.meta, BATCH_KEY, number.to_be_bytes());
        self.put_highest(&mut batch, number, raised);
        for (keyspace, key, value) in changes {
            batch.insert(keyspace, key, value);
        }
        batch.commit().map_err(|error| failed(&error))?;
        writer.next_batch = number.saturating_add(1);
        raised.iter().for_each(|raise| highest::raise(&mut writer.highest, *raise));
        journal::note(&self.dir, journal, number);
        Ok(())
    }
}

/// A row of a part, and where its key is.
#[derive(Clone)]
struct EncodedRow<'a> {
    table: Table,
    at: Range<usize>,
    key: &'a CellKey,
    stored: &'a StoredRow,
}

/// Rows that become durable together, by table, key and stamp.
struct Part<'a> {
    /// The keys, and then the values of those that are kept.
    bytes: Vec<u8>,
    rows: Vec<EncodedRow<'a>>,
}

impl<'a> Part<'a> {
    fn encode(cells: &'a [(CellKey, StoredRow)]) -> Self {
        let mut part = Self { bytes: Vec::with_capacity(cells.len() * 128), rows: Vec::with_capacity(cells.len()) };
        for (key, stored) in cells {
            let start = part.bytes.len();
            key.encode_into(&mut part.bytes);
            part.rows.push(EncodedRow { table: Table::of(key.bucket.tier), at: start..part.bytes.len(), key, stored });
        }
        let Self { bytes, rows } = &mut part;
        let order = |row: &EncodedRow<'a>| (row.table, bytes.get(row.at.clone()), row.stored.stamp);
        rows.sort_unstable_by(|a, b| order(a).cmp(&order(b)));
        part
    }

    fn cell(&self, row: &EncodedRow<'_>) -> (Table, &[u8]) {
        (row.table, self.bytes.get(row.at.clone()).unwrap_or_default())
    }

    fn put(&mut self, stored: &StoredRow) -> Range<usize> {
        let start = self.bytes.len();
        stored.encode_into(&mut self.bytes);
        start..self.bytes.len()
    }
}

/// What was there before a call.
struct Before {
    /// The highest stamps, as they were when the call came to their source.
    highest: HashMap<(Table, Source), Option<Stamp>, FixedState>,
    written: Written,
}

impl Before {
    fn new(rows: usize) -> Self {
        Self { highest: HashMap::default(), written: Written::new(rows) }
    }

    /// Whether a row, the lowest of its cell in a part, is above all that is stored of its cell for certain.
    fn is_new(&mut self, row: &EncodedRow<'_>, encoded: &[u8], highest: &Highest) -> bool {
        let place = (row.table, row.key.source);
        let highest = self.highest.entry(place).or_insert_with(|| highest.get(&place).copied());
        // Both are asked: a cell that is not noted as written could come again.
        let is_first = self.written.insert(encoded);
        is_first && highest.is_none_or(|highest| highest < row.stored.stamp)
    }
}

/// Cells that a call has written, as a filter that may take one for another.
struct Written(Vec<u64>);

impl Written {
    fn new(rows: usize) -> Self {
        // In one part no cell comes twice. Else 32 bits for each row: one in 32 at most is taken for another.
        Self(if rows <= BATCH_ROWS { Vec::new() } else { vec![0; rows.div_ceil(2)] })
    }

    /// Notes a cell. Whether it was not noted before, nor one that looks like it.
    fn insert(&mut self, encoded: &[u8]) -> bool {
        let hash = xxh3_64(encoded);
        let len = self.0.len() as u64;
        let word = usize::try_from((u128::from(hash) * u128::from(len)) >> 64).ok().and_then(|at| self.0.get_mut(at));
        let bit = 1 << (hash % 64);
        word.is_none_or(|word| {
            let is_new = *word & bit == 0;
            *word |= bit;
            is_new
        })
    }
}
