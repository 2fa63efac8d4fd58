//! Writing and reading cells: one request for each partition (or part of a large one), as many at once as the cluster bears.

use std::collections::HashMap;

use schemas::{Bucket, CellKey, Entity, Millis, Minute, StoredRow, Tier};
use scylla::client::session::Session;
use scylla::deserialize::row::DeserializeRow;
use scylla::response::PagingState;
use scylla::serialize::row::SerializeRow;
use scylla::statement::batch::{Batch, BatchStatement, BatchType};
use scylla::statement::prepared::PreparedStatement;

use super::error::Failure;
use super::row::{self, MinuteRow, RollupRow, Stored, day_of};
use super::{Inner, by_bucket, ttl};
use crate::store::{Slice, SliceRow, StoreError};

/// So many rows of one partition go in one mutation: about 25 KB, far below what servers refuse.
pub(super) const ROWS_PER_BATCH: usize = 100;
/// So many cells of one partition are asked for at once; ScyllaDB takes up to 100.
const KEYS_PER_READ: usize = 64;
/// A slice of minutes asks one partition for each day: ten years are the most.
const MOST_DAYS: i32 = 3_660;

/// What is written or asked for together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Partition<'a> {
    Rollups(&'a Entity),
    Minutes(&'a Entity, i32),
}

impl<'a> Partition<'a> {
    fn of(key: &'a CellKey) -> Self {
        match key.bucket.tier {
            Tier::Minute => Self::Minutes(&key.entity, day_of(key.bucket.start)),
            Tier::Hour | Tier::Day | Tier::Year => Self::Rollups(&key.entity),
        }
    }

    const fn table(self) -> Table {
        match self {
            Self::Minutes(..) => Table::Minutes,
            Self::Rollups(_) => Table::Rollups,
        }
    }
}

type Cell<'a> = &'a (CellKey, StoredRow);

/// Where rows are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Table {
    Minutes,
    Rollups,
    ByBucket,
}

/// The rows to write, in parts that each lie in one partition. Of several rows of one cell the highest stamp stays.
fn batches(rows: &[(CellKey, StoredRow)]) -> Vec<(Partition<'_>, Vec<Cell<'_>>)> {
    let mut sorted: Vec<_> = rows.iter().map(|cell| (Partition::of(&cell.0), cell)).collect();
    sorted.sort_unstable_by_key(|(partition, (key, stored))| (*partition, key.bucket, key.source, stored.stamp));
    let cells = sorted.chunk_by(|(_, a), (_, b)| a.0 == b.0).filter_map(<[_]>::last).copied().collect::<Vec<_>>();
    let partitions = cells.chunk_by(|a, b| a.0 == b.0).flat_map(|partition| partition.chunks(ROWS_PER_BATCH));
    partitions.filter_map(|part| part.first().map(|(partition, _)| (*partition, part.iter().map(|(_, cell)| *cell).collect()))).collect()
}

/// The mutations that write rows: those of their cells, and those of the hour and day cells once more by bucket.
fn mutations(rows: &[(CellKey, StoredRow)]) -> Vec<(Table, Vec<Cell<'_>>)> {
    let batches = batches(rows);
    let again = by_bucket::parts(batches.iter().flat_map(|(_, cells)| cells.iter().copied()), |(key, _)| key);
    let again = again.into_iter().map(|cells| (Table::ByBucket, cells));
    batches.into_iter().map(|(partition, cells)| (partition.table(), cells)).chain(again).collect()
}

/// The keys to read, in parts that each lie in one partition, each key with its place in the call.
fn questions(keys: &[CellKey]) -> Vec<(Partition<'_>, Vec<(usize, &CellKey)>)> {
    let mut sorted: Vec<_> = keys.iter().enumerate().map(|(n, key)| (Partition::of(key), n, key)).collect();
    sorted.sort_unstable_by_key(|(partition, n, key)| (*partition, key.bucket, key.source, *n));
    let parts = sorted.chunk_by(|a, b| a.0 == b.0).flat_map(|partition| partition.chunks(KEYS_PER_READ));
    parts.filter_map(|part| part.first().map(|first| (first.0, part.iter().map(|(_, n, key)| (*n, *key)).collect()))).collect()
}

impl Inner {
    pub(super) async fn write_rows(&self, rows: &[(CellKey, StoredRow)]) -> Result<(), StoreError> {
        let now = Millis::now();
        self.writes.run(mutations(rows), |(table, cells)| self.write_batch(table, cells, now)).await.map(drop)
    }

    /// Writes rows of one partition: one mutation, each row under its own timestamp and with its own time to live.
    async fn write_batch(&self, table: Table, cells: Vec<Cell<'_>>, now: Millis) -> Result<(), Failure> {
        let ttl = |key: &CellKey| ttl::seconds(&self.settings, key.bucket.tier, now);
        let refused = |error| Failure { error, overload: false };
        let statements = &self.statements;
        match table {
            Table::Minutes => {
                let values = cells.iter().map(|(key, stored)| row::minute_values(key, stored, ttl(key))).collect::<Result<Vec<_>, _>>();
                send(&self.session, &statements.write_minute, values.map_err(refused)?).await
            }
            Table::Rollups | Table::ByBucket => {
                let values = cells.iter().map(|(key, stored)| row::rollup_values(key, stored, ttl(key))).collect::<Result<Vec<_>, _>>();
                let statement = if table == Table::Rollups { &statements.write_rollup } else { &statements.write_by_bucket };
                send(&self.session, statement, values.map_err(refused)?).await
            }
        }
    }

    pub(super) async fn read_cells(&self, keys: &[CellKey]) -> Result<Vec<Option<StoredRow>>, StoreError> {
        let found = self.reads.run(questions(keys), |(partition, keys)| self.read_part(partition, keys)).await?;
        let mut answers = vec![None; keys.len()];
        for (n, stored) in found.into_iter().flatten() {
            if let Some(answer) = answers.get_mut(n) {
                *answer = Some(stored);
            }
        }
        Ok(answers)
    }

    async fn read_part(&self, partition: Partition<'_>, keys: Vec<(usize, &CellKey)>) -> Result<Vec<(usize, StoredRow)>, Failure> {
        let refused = |error| Failure { error, overload: false };
        let mut cells = Vec::with_capacity(keys.len());
        for (_, key) in &keys {
            cells.push((row::tier(key.bucket.tier), key.bucket.start.0, row::source(key.source).map_err(refused)?));
        }
        let (statements, what) = (&self.statements, format!("{partition:?}"));
        let rows = match partition {
            Partition::Minutes(entity, day) => {
                let cells: Vec<_> = cells.into_iter().map(|(_, start, source)| (start, source)).collect();
                self.rows::<MinuteRow, Stored>(&statements.read_minutes, (row::dimension(entity.dimension), &*entity.id, day, cells), &what)
                    .await?
            }
            Partition::Rollups(entity) => {
                self.rows::<RollupRow, Stored>(&statements.read_rollups, (row::dimension(entity.dimension), &*entity.id, cells), &what)
                    .await?
            }
        };
        let mut found = HashMap::with_capacity(rows.len());
        for stored in rows {
            let tier = stored.tier(&what).map_err(refused)?;
            let cell = (Bucket { tier, start: Minute(stored.start) }, stored.source(&what).map_err(refused)?);
            found.insert(cell, stored.decode(tier, &what).map_err(refused)?);
        }
        Ok(keys.into_iter().filter_map(|(n, key)| Some((n, *found.get(&(key.bucket, key.source))?))).collect())
    }

    pub(super) async fn read_slice(&self, slice: &Slice) -> Result<Vec<SliceRow>, StoreError> {
        if slice.start >= slice.end {
            return Ok(Vec::new());
        }
        let Slice { entity, tier, start, end } = slice;
        let (dimension, id) = (row::dimension(entity.dimension), &*entity.id);
        let what = format!("{tier:?} cells of {entity}");
        let statements = &self.statements;
        let rows = if *tier == Tier::Minute {
            let (first, last) = (day_of(*start), day_of(end.plus(-1)));
            if last.saturating_sub(first) >= MOST_DAYS {
                let detail = format!("{what}: minutes of more than {MOST_DAYS} days are asked for at once; ask for hours, or for less");
                return Err(StoreError::Failed(detail));
            }
            let read = |day| self.rows::<MinuteRow, Stored>(&statements.slice_minutes, (dimension, id, day, start.0, end.0), &what);
            self.reads.run(first..=last, read).await?
        } else {
            let read =
                |()| self.rows::<RollupRow, Stored>(&statements.slice_rollups, (dimension, id, row::tier(*tier), start.0, end.0), &what);
            self.reads.run([()], read).await?
        };
        let decode = |row: Stored| Ok(SliceRow { start: Minute(row.start), source: row.source(&what)?, stored: row.decode(*tier, &what)? });
        rows.into_iter().flatten().map(decode).collect()
    }

    /// All rows of an answer, page by page.
    pub(super) async fn rows<R, T>(&self, statement: &PreparedStatement, values: impl SerializeRow, what: &str) -> Result<Vec<T>, Failure>
    where
        R: for<'f> DeserializeRow<'f, 'f> + Into<T>,
    {
        let (mut rows, mut state) = (Vec::new(), PagingState::start());
        loop {
            let (page, next) = self.session.execute_single_page(statement, &values, state).await?;
            let page = page.into_rows_result().map_err(|error| Failure::damaged(&what, &error))?;
            for row in page.rows::<R>().map_err(|error| Failure::damaged(&what, &error))? {
                rows.push(row.map_err(|error| Failure::damaged(&what, &error))?.into());
            }
            match next.into_paging_control_flow() {
                std::ops::ControlFlow::Break(()) => return Ok(rows),
                std::ops::ControlFlow::Continue(next) => state = next,
            }
        }
    }
}

/// Writes rows of one partition by a statement.
pub(super) async fn send(session: &Session, statement: &PreparedStatement, values: Vec<impl SerializeRow>) -> Result<(), Failure> {
    if let [one] = &*values {
        session.execute_unpaged(statement, one).await?;
        return Ok(());
    }
    // Unlogged: all of it lies in one partition, where a batch is one mutation anyway.
    let statements = values.iter().map(|_| BatchStatement::PreparedStatement(statement.clone())).collect();
    let mut batch = Batch::new_with_statements(BatchType::Unlogged, statements);
    batch.set_is_idempotent(true);
    session.batch(&batch, values).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use schemas::Dimension;

    use super::*;
    use crate::conformance::{hour, minute, row};

    #[test]
    fn rows_of_one_partition_go_together_and_of_one_cell_the_highest_stamp() {
        let video = |minute_: i32, stamp| (minute("v", minute_, 0), row(stamp, stamp));
        let rows = [video(1, 5), (hour("v", 0, 0), row(1, 1)), video(1, 7), video(2_000, 1), video(1, 6), (hour("v", 90, 0), row(2, 2))];
        let found: Vec<Vec<_>> = batches(&rows).iter().map(|(_, cells)| cells.iter().map(|(_, row)| row.stamp.0).collect()).collect();
        assert_eq!(found, [vec![1, 2], vec![7], vec![1]]);
    }

    #[test]
    fn large_partitions_are_cut_and_nothing_is_lost() {
        let rows: Vec<_> = (0..1_440).map(|n| (minute("v", n, 0), row(1, 1))).collect();
        let sizes: Vec<_> = batches(&rows).iter().map(|(_, cells)| cells.len()).collect();
        assert_eq!((sizes.iter().sum::<usize>(), sizes.iter().max()), (1_440, Some(&ROWS_PER_BATCH)));
        let keys: Vec<_> = rows.into_iter().map(|(key, _)| key).rev().collect();
        let asked = questions(&keys);
        assert!(asked.iter().all(|(_, keys)| keys.len() <= KEYS_PER_READ));
        let mut places: Vec<_> = asked.iter().flat_map(|(_, keys)| keys.iter().map(|(n, _)| *n)).collect();
        places.sort_unstable();
        assert_eq!(places, (0..1_440).collect::<Vec<_>>());
    }

    #[test]
    fn entities_of_other_dimensions_are_other_partitions() {
        let space = CellKey { entity: Entity::new(Dimension::Space, "v"), ..minute("v", 0, 0) };
        assert_eq!(batches(&[(minute("v", 0, 0), row(1, 1)), (space, row(1, 1))]).len(), 2);
    }
}
