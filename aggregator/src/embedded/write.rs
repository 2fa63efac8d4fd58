//! Writing rows: in batches that each become durable whole, and only then visible.
//!
//! A call is taken in parts of its rows. A part is encoded into memory that the database shares, and sorted by key.
//! A stored row is read only where it might be as new as the row to write: the stamp is not above the highest that any row of its source
//! had before the call, or an earlier part of the call may have written the same cell.

use std::collections::HashMap;
use std::fmt::Display;
use std::ops::Range;

use fjall::{Keyspace, OwnedWriteBatch, PersistMode, Slice, UserKey, UserValue};
use foldhash::fast::FixedState;
use schemas::{CellKey, Source, Stamp, StoredRow};
use xxhash_rust::xxh3::xxh3_64;

use super::by_bucket::{self, BY_BUCKET_KEY};
use super::highest::{self, Highest, Raise};
use super::journal::{self, BATCH_KEY};
use super::open::{Inner, Writer};
use super::table::Table;
use crate::store::{StoreError, is_kept_by_bucket};

/// So many rows become durable at once. It bounds the memory of one batch; a larger set takes several.
pub(super) const BATCH_ROWS: usize = 20_000;
/// The bytes of a stored row that has no mark, as most have none.
const ROW_BYTES: usize = 50;

/// A value to write: where, under which key, what.
type Change<'a> = (&'a Keyspace, UserKey, UserValue);

impl Inner {
    pub(super) fn write_rows(&self, rows: &[(CellKey, StoredRow)]) -> Result<(), StoreError> {
        let mut writer = self.writer()?;
        let mut before = Before::new(rows.len());
        for cells in rows.chunks(BATCH_ROWS) {
            let part = Part::encode(cells);
            let kept = self.kept(&part, &mut before, &writer.highest)?;
            if kept.is_empty() {
                continue;
            }
            let raised = raised(&kept);
            let (values, places) = values(&kept);
            let (keys, values) = (Slice::from(part.keys), Slice::from(values));
            let again = self.by_bucket(&kept, &places, &values);
            let change = |(row, value): (EncodedRow<'_>, _)| (self.table(row.table), keys.slice(row.key), values.slice(value));
            self.commit(&mut writer, kept.into_iter().zip(places).map(change).chain(again), &raised)?;
        }
        Ok(())
    }

    /// The rows of a part that replace what is stored.
    fn kept<'a>(&self, part: &Part<'a>, before: &mut Before, highest: &Highest) -> Result<Vec<EncodedRow<'a>>, StoreError> {
        let mut kept = Vec::with_capacity(part.rows.len());
        for cell in part.rows.chunk_by(|a, b| part.is_one_cell(a, b)) {
            let Some(first) = cell.first() else { continue };
            let encoded = part.key(first);
            let (key, _) = first.cell;
            let stored = if before.is_new(first, encoded, highest) { None } else { self.read_row(key, encoded)? };
            let mut best: Option<&EncodedRow<'a>> = None;
            for row in cell {
                let (old, new) = (best.map(|best| &best.cell.1).or(stored.as_ref()), &row.cell.1);
                if self.supersedes(key, old.map(|old| (old.stamp, old)), (new.stamp, new)) {
                    best = Some(row);
                }
            }
            kept.extend(best.cloned());
        }
        Ok(kept)
    }

    /// The rows among `kept` that are kept by bucket too, under their other keys.
    fn by_bucket<'a>(&'a self, kept: &[EncodedRow<'_>], places: &[Range<usize>], values: &Slice) -> Vec<Change<'a>> {
        let again: Vec<_> = kept.iter().zip(places).filter(|(row, _)| is_kept_by_bucket(&row.cell.0)).collect();
        let (keys, at) = by_bucket::keys(again.iter().map(|(row, _)| &row.cell.0));
        let change = |(key, (_, value)): (_, (_, &Range<usize>))| (&self.views_by_bucket, keys.slice(key), values.slice(value.clone()));
        at.into_iter().zip(again).map(change).collect()
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
        let changes = changes.into_iter();
        let batch = OwnedWriteBatch::with_capacity(self.db.clone(), changes.size_hint().0.saturating_add(raised.len()).saturating_add(3));
        let mut batch = batch.durability(Some(PersistMode::SyncData));
        batch.insert(&self.meta, BATCH_KEY, number.to_be_bytes());
        self.put_highest(&mut batch, number, raised);
        if writer.by_bucket_is_whole {
            batch.insert(&self.meta, BY_BUCKET_KEY, number.to_be_bytes());
        }
        changes.for_each(|(keyspace, key, value)| batch.insert(keyspace, key, value));
        batch.commit().map_err(|error| failed(&error))?;
        writer.next_batch = number.saturating_add(1);
        raised.iter().for_each(|raise| highest::raise(&mut writer.highest, *raise));
        journal::note(&self.dir, journal, number);
        Ok(())
    }
}

/// The highest stamps of rows, by table and source.
fn raised(rows: &[EncodedRow<'_>]) -> Vec<Raise> {
    let mut raised = Highest::default();
    for EncodedRow { table, cell: (key, stored), .. } in rows {
        highest::raise(&mut raised, ((*table, key.source), stored.stamp));
    }
    raised.into_iter().collect()
}

/// The encoded values of rows, and where each is.
fn values(rows: &[EncodedRow<'_>]) -> (Vec<u8>, Vec<Range<usize>>) {
    let mut values = Vec::with_capacity(rows.len() * ROW_BYTES);
    let place = |row: &EncodedRow<'_>| {
        let start = values.len();
        row.cell.1.encode_into(&mut values);
        start..values.len()
    };
    let places = rows.iter().map(place).collect();
    (values, places)
}

/// A row of a part, and where its key is.
#[derive(Clone)]
struct EncodedRow<'a> {
    table: Table,
    /// Eight bytes of the key, from the first in which keys of the part differ: most comparisons end with them.
    head: u64,
    key: Range<usize>,
    cell: &'a (CellKey, StoredRow),
}

/// Rows that become durable together, by table, key and stamp.
struct Part<'a> {
    keys: Vec<u8>,
    rows: Vec<EncodedRow<'a>>,
}

impl<'a> Part<'a> {
    fn encode(cells: &'a [(CellKey, StoredRow)]) -> Self {
        let most = cells.iter().map(|(key, _)| key.entity.id.len() + 11).sum();
        let mut keys = Vec::with_capacity(most);
        let encode = |cell: &'a (CellKey, StoredRow)| {
            let start = keys.len();
            cell.0.encode_into(&mut keys);
            EncodedRow { table: Table::of(cell.0.bucket.tier), head: 0, key: start..keys.len(), cell }
        };
        let rows = cells.iter().map(encode).collect();
        let mut part = Self { keys, rows };
        part.sort();
        part
    }

    fn sort(&mut self) {
        let Self { keys, rows } = self;
        let key = |row: &EncodedRow<'a>| keys.get(row.key.clone()).unwrap_or_default();
        let first = rows.first().map(&key).unwrap_or_default();
        let shared = rows.iter().fold(first.len(), |shared, row| {
            let alike = |(a, b): &(&u8, &u8)| a == b;
            first.iter().take(shared).zip(key(row)).take_while(alike).count()
        });
        for row in rows.iter_mut() {
            let mut head = [0; 8];
            head.iter_mut().zip(key(row).iter().skip(shared)).for_each(|(to, byte)| *to = *byte);
            row.head = u64::from_be_bytes(head);
        }
        rows.sort_unstable_by(|a, b| {
            let heads = (a.table, a.head).cmp(&(b.table, b.head));
            heads.then_with(|| key(a).cmp(key(b))).then_with(|| a.cell.1.stamp.cmp(&b.cell.1.stamp))
        });
    }

    fn key(&self, row: &EncodedRow<'_>) -> &[u8] {
        self.keys.get(row.key.clone()).unwrap_or_default()
    }

    fn is_one_cell(&self, a: &EncodedRow<'_>, b: &EncodedRow<'_>) -> bool {
        a.head == b.head && a.table == b.table && self.key(a) == self.key(b)
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
        let (key, stored) = row.cell;
        let place = (row.table, key.source);
        let highest = self.highest.entry(place).or_insert_with(|| highest.get(&place).copied());
        // Each cell is noted, also one that is looked at anyway: a later part may hold it again.
        let is_first = self.written.insert(encoded);
        is_first && highest.is_none_or(|highest| highest < stored.stamp)
    }
}

/// Cells that a call has written, as a filter that may take one for another.
struct Written(Vec<u64>);

impl Written {
    fn new(rows: usize) -> Self {
        // In one part no cell comes twice. Else 32 bits for each row: one in 32 at most is taken for another.
        Self(if rows <= BATCH_ROWS { Vec::new() } else { vec![0; rows.div_ceil(2)] })
    }

    /// Notes a cell. Whether neither it nor one that looks like it was noted before.
    fn insert(&mut self, encoded: &[u8]) -> bool {
        if self.0.is_empty() {
            return true;
        }
        let hash = xxh3_64(encoded);
        let at = (u128::from(hash) * self.0.len() as u128) >> 64;
        let Some(word) = usize::try_from(at).ok().and_then(|at| self.0.get_mut(at)) else { return false };
        let bit = 1 << (hash % 64);
        let is_new = *word & bit == 0;
        *word |= bit;
        is_new
    }
}
