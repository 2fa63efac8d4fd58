//! The highest stamp that any stored row of a source has, by table: a row with a higher one is newer than whatever is stored of its cell,
//! and may be written without a look.
//!
//! It stands in the meta table, and each batch that raises it says so itself. A program that did not know of it wrote batches without it:
//! so each batch also notes its own number as the last up to which all is said, and where that is not the number of the last batch,
//! the rows are asked once.
//!
//! Rows that expire leave it as it was: too high a stamp costs a look, and never a row.

use std::collections::HashMap;

use fjall::OwnedWriteBatch;
use foldhash::fast::FixedState;
use schemas::{Source, Stamp};

use super::open::Inner;
use super::table::{Table, damaged};
use crate::store::StoreError;

/// The row of the meta table that holds the number of the last batch that kept the highest stamps, as a big-endian `u64`.
pub(super) const NOTED_KEY: &[u8] = b"noted";
/// Begins the rows of the meta table that hold them: then the table and the source; the value is a big-endian `i64`.
const PREFIX: &[u8] = b"highest";

/// By table and source.
pub(super) type Highest = HashMap<(Table, Source), Stamp, FixedState>;

/// A source's stamp in a table, to be raised.
pub(super) type Raise = ((Table, Source), Stamp);

/// Raises one, if it is lower.
pub(super) fn raise(highest: &mut Highest, (place, stamp): Raise) {
    highest.entry(place).and_modify(|known| *known = stamp.max(*known)).or_insert(stamp);
}

impl Inner {
    /// Reads what is noted, or learns it from the rows and notes it.
    pub(super) fn learn_highest(&self) -> Result<(), StoreError> {
        let mut writer = self.writer()?;
        let noted = self.get(&self.meta, NOTED_KEY, &"the note of the highest stamps")?;
        if noted.is_some_and(|noted| *noted == writer.next_batch.saturating_sub(1).to_be_bytes()) {
            writer.highest = self.noted_highest()?;
            return Ok(());
        }
        tracing::info!("another version wrote this store last; every row is read once for the highest stamp of its source");
        let mut highest = Highest::default();
        for table in [Table::Rollup, Table::ByMinute] {
            for cell in self.scan(table) {
                let (key, stored) = cell?;
                raise(&mut highest, ((table, key.source), stored.stamp));
            }
        }
        let raised: Vec<Raise> = highest.into_iter().collect();
        self.commit(&mut writer, [], &raised)
    }

    fn noted_highest(&self) -> Result<Highest, StoreError> {
        let what = "the highest stamp of a source";
        let read = |entry: fjall::Guard| {
            let (key, value) = entry.into_inner().map_err(|error| self.fault(&what, &error))?;
            decode(&key, &value).ok_or_else(|| damaged(&what, &format!("{:?} {:?}", &*key, &*value)))
        };
        self.meta.prefix(PREFIX).map(read).collect()
    }

    /// Notes in a batch what it raises, and that it does.
    pub(super) fn put_highest(&self, batch: &mut OwnedWriteBatch, number: u64, raised: &[Raise]) {
        batch.insert(&self.meta, NOTED_KEY, number.to_be_bytes());
        for ((table, source), stamp) in raised {
            let key = [PREFIX, &[code(*table)], &source.0.to_be_bytes()].concat();
            batch.insert(&self.meta, key, stamp.0.to_be_bytes());
        }
    }
}

const fn code(table: Table) -> u8 {
    match table {
        Table::Rollup => 0,
        Table::ByMinute => 1,
    }
}

fn decode(key: &[u8], value: &[u8]) -> Option<Raise> {
    let (table, source) = key.strip_prefix(PREFIX)?.split_first()?;
    let table = [Table::Rollup, Table::ByMinute].into_iter().find(|known| code(*known) == *table)?;
    let source = Source(u32::from_be_bytes(source.try_into().ok()?));
    Some(((table, source), Stamp(i64::from_be_bytes(value.try_into().ok()?))))
}
