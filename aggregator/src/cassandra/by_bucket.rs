//! Hour and day cells once more, the cells of one bucket side by side: what lists of the most viewed are made of.

use std::sync::Arc;

use schemas::{Bucket, CellKey, Dimension, Source};

use super::Inner;
use super::cells::ROWS_PER_BATCH;
use super::row::{self, RollupRow, Stored};
use crate::store::{BucketPage, BucketRow, StoreError, is_kept_by_bucket};

/// The cells of one source in one bucket lie together.
const fn partition(key: &CellKey) -> (Dimension, Bucket, Source) {
    (key.entity.dimension, key.bucket, key.source)
}

/// A cell as it was read.
struct StoredCell {
    id: Arc<str>,
    stored: Stored,
}

impl From<RollupRow> for StoredCell {
    /// The entity stands where a rollup cell has its tier, which is known here.
    fn from(row: RollupRow) -> Self {
        Self { id: row.0.as_str().into(), stored: row.into() }
    }
}

/// Those of `cells` that are kept by bucket, in parts that each lie in one partition.
pub(super) fn parts<'a, T>(cells: impl Iterator<Item = &'a T>, key: impl Fn(&T) -> &CellKey) -> Vec<Vec<&'a T>> {
    let mut again: Vec<_> = cells.filter(|cell| is_kept_by_bucket(key(cell))).map(|cell| (partition(key(cell)), cell)).collect();
    again.sort_by_key(|(partition, _)| *partition);
    let partitions = again.chunk_by(|a, b| a.0 == b.0).flat_map(|partition| partition.chunks(ROWS_PER_BATCH));
    partitions.map(|part| part.iter().map(|(_, cell)| *cell).collect()).collect()
}

impl Inner {
    pub(super) async fn read_bucket(&self, page: &BucketPage) -> Result<Vec<BucketRow>, StoreError> {
        let limit = i32::try_from(page.limit).unwrap_or(i32::MAX);
        if limit == 0 {
            return Ok(Vec::new());
        }
        let BucketPage { dimension, bucket, source, after, .. } = page;
        // Before every id there is the empty one.
        let after = after.as_deref().unwrap_or_default();
        let values = (row::dimension(*dimension), row::tier(bucket.tier), bucket.start.0, row::source(*source)?, after, limit);
        let what = format!("{dimension:?} cells of {:?} {} of source {source}", bucket.tier, bucket.start);
        let read = |()| self.rows::<RollupRow, StoredCell>(&self.statements.page_bucket, values, &what);
        let decode = |StoredCell { id, stored }| Ok(BucketRow { id, stored: stored.decode(bucket.tier, &what)? });
        self.reads.run([()], read).await?.into_iter().flatten().map(decode).collect()
    }
}
