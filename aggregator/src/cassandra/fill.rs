//! Copying hour and day cells to where they are kept by bucket: once, when a keyspace of before that table is migrated, and again when it is asked for.
//!
//! The rollup table is read whole, range by range of its tokens, and each row written with its own stamp and what is left of its time to live.
//! So it may be broken off and repeated, and what is written meanwhile stays: a stamp is higher, or it is the same row.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use schemas::{Bucket, CellKey, Dimension, Entity, Minute, StoredRow};
use scylla::DeserializeRow;
use scylla::client::session::Session;
use scylla::response::{PagingState, PagingStateResponse};
use scylla::statement::Statement;
use scylla::statement::prepared::PreparedStatement;

use super::error::{Failure, damaged};
use super::gate::Gate;
use super::limit::Limit;
use super::row::{self, COLUMNS, RollupRow, Stored};
use super::statements::prepare_write_by_bucket;
use super::{FIRST_LIMIT, MOST, by_bucket, cells};
use crate::backoff;
use crate::store::{StoreError, is_kept_by_bucket};

/// In so many ranges the table is read, and so many of them at once.
const RANGES: i64 = 256;
const RANGES_AT_ONCE: u32 = 4;
const PAGE_ROWS: i32 = 1_000;
/// How often a request is made that fails for reasons that may pass.
const ATTEMPTS: u32 = 8;
const TELL_EVERY: Duration = Duration::from_secs(5);

/// A rollup row as the scan finds it.
#[derive(DeserializeRow)]
struct Scanned {
    dimension: String,
    entity: String,
    ttl: Option<i32>,
    tier: String,
    through: Option<i64>,
    bucket: i32,
    source: i32,
    gross: Option<i64>,
    valid: Option<i64>,
    engaged: Option<i64>,
    version: Option<i64>,
    stamp: Option<i64>,
    mark: Option<i64>,
    since_gross: Option<i64>,
    since_valid: Option<i64>,
    since_engaged: Option<i64>,
    mark_stamp: Option<i64>,
}

/// A cell, and how long its row has left in seconds; 0 for ever.
type Copied = (CellKey, StoredRow, i32);

impl Scanned {
    fn decode(self) -> Result<Copied, StoreError> {
        let what = format!("a rollup row of {} {}", self.dimension, self.entity);
        let dimension =
            [Dimension::Video, Dimension::Space, Dimension::Site].into_iter().find(|known| row::dimension(*known) == self.dimension);
        let dimension = dimension.ok_or_else(|| damaged(&what, &"its dimension is not known"))?;
        if let Err(error) = schemas::id::check_id(&self.entity) {
            return Err(damaged(&what, &error));
        }
        let counts = (self.gross, self.valid, self.engaged, self.version, self.stamp);
        let rollup: RollupRow = (
            self.tier,
            self.through,
            self.bucket,
            self.source,
            counts.0,
            counts.1,
            counts.2,
            counts.3,
            counts.4,
            self.mark,
            self.since_gross,
            self.since_valid,
            self.since_engaged,
            self.mark_stamp,
        );
        let stored = Stored::from(rollup);
        let bucket = Bucket { tier: stored.tier(&what)?, start: Minute(stored.start) };
        let key = CellKey { entity: Entity::new(dimension, &self.entity), bucket, source: stored.source(&what)? };
        Ok((key, stored.decode(bucket.tier, &what)?, self.ttl.unwrap_or(0)))
    }
}

/// Copies every hour and day row of videos and spaces, and says how many there were.
pub(super) async fn fill(session: &Session, keyspace: &str) -> Result<u64, StoreError> {
    let mut scan = Statement::new(format!(
        "SELECT dimension, entity, TTL(version) AS ttl, tier, through, bucket, {COLUMNS} FROM {keyspace}.views_rollup \
         WHERE token(dimension, entity) > ? AND token(dimension, entity) <= ?"
    ));
    scan = scan.with_page_size(PAGE_ROWS);
    scan.set_is_idempotent(true);
    let scan = session.prepare(scan).await.map_err(|error| Failure::from(error).error)?;
    let write = prepare_write_by_bucket(session, keyspace).await?;
    let writes = Gate::new(Limit::new(FIRST_LIMIT, MOST));
    let told = Mutex::new(Instant::now());
    let filling = Filling { session, scan, write, writes, ranges: AtomicU64::new(0), rows: AtomicU64::new(0), told };
    Gate::new(Limit::new(RANGES_AT_ONCE, RANGES_AT_ONCE)).run(ranges(), |range| filling.range(range)).await?;
    Ok(filling.rows.into_inner())
}

/// All tokens, as `(after, up to]`. No key has the least token.
fn ranges() -> Vec<(i64, i64)> {
    let step = i64::MAX / RANGES * 2 + 2;
    let mut starts: Vec<_> = std::iter::successors(Some(i64::MIN), |start| start.checked_add(step)).collect();
    starts.push(i64::MAX);
    starts.windows(2).filter_map(|pair| Some((*pair.first()?, *pair.last()?))).collect()
}

struct Filling<'a> {
    session: &'a Session,
    scan: PreparedStatement,
    write: PreparedStatement,
    writes: Gate,
    /// How many are done.
    ranges: AtomicU64,
    rows: AtomicU64,
    told: Mutex<Instant>,
}

impl Filling<'_> {
    async fn range(&self, range: (i64, i64)) -> Result<(), Failure> {
        let refused = |error| Failure { error, overload: false };
        let mut state = PagingState::start();
        loop {
            let (rows, next) = insist(async || self.page(range, state.clone()).await).await.map_err(refused)?;
            let parts = by_bucket::parts(rows.iter(), |(key, ..)| key);
            let copied: usize = parts.iter().map(Vec::len).sum();
            insist(async || self.writes.run(parts.clone(), |part| self.write(part)).await).await.map_err(refused)?;
            self.rows.fetch_add(copied as u64, Ordering::Relaxed);
            match next.into_paging_control_flow() {
                std::ops::ControlFlow::Break(()) => break,
                std::ops::ControlFlow::Continue(next) => state = next,
            }
        }
        self.ranges.fetch_add(1, Ordering::Relaxed);
        self.tell();
        Ok(())
    }

    async fn page(&self, range: (i64, i64), state: PagingState) -> Result<(Vec<Copied>, PagingStateResponse), StoreError> {
        let (page, next) = self.session.execute_single_page(&self.scan, range, state).await.map_err(Failure::from)?;
        let damaged = |error: &dyn std::fmt::Display| damaged(&"views_rollup", error);
        let page = page.into_rows_result().map_err(|error| damaged(&error))?;
        let rows = page.rows::<Scanned>().map_err(|error| damaged(&error))?;
        let rows = rows.map(|row| row.map_err(|error| damaged(&error))?.decode());
        let kept = rows.filter(|row| row.as_ref().map_or(true, |(key, ..)| is_kept_by_bucket(key)));
        Ok((kept.collect::<Result<_, _>>()?, next))
    }

    async fn write(&self, part: Vec<&Copied>) -> Result<(), Failure> {
        let values = part.iter().map(|(key, stored, ttl)| row::rollup_values(key, stored, *ttl)).collect::<Result<Vec<_>, _>>();
        cells::send(self.session, &self.write, values.map_err(|error| Failure { error, overload: false })?).await
    }

    /// Says now and then how far it is.
    fn tell(&self) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.elapsed() >= TELL_EVERY {
            let percent = self.ranges.load(Ordering::Relaxed) * 100 / RANGES.cast_unsigned();
            tracing::info!(
                percent,
                rows = self.rows.load(Ordering::Relaxed),
                "hour and day counts are being copied for the lists of the most viewed"
            );
            *told = Instant::now();
        }
    }
}

/// Asks again for a while what may succeed later.
async fn insist<T>(ask: impl AsyncFn() -> Result<T, StoreError>) -> Result<T, StoreError> {
    let mut attempt = 1;
    loop {
        match ask().await {
            Err(StoreError::Unavailable(_)) if attempt < ATTEMPTS => tokio::time::sleep(backoff::delay(attempt, 0.5)).await,
            outcome => return outcome,
        }
        attempt += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ranges_are_all_tokens_once() {
        let ranges = ranges();
        assert_eq!(i64::try_from(ranges.len()), Ok(RANGES));
        assert_eq!((ranges.first().map(|range| range.0), ranges.last().map(|range| range.1)), (Some(i64::MIN), Some(i64::MAX)));
        assert!(ranges.windows(2).all(|pair| pair[0].1 == pair[1].0) && ranges.iter().all(|(after, to)| after < to));
    }
}
