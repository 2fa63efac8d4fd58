//! Hour and day cells once more, the cells of one bucket side by side: what lists of the most viewed are made of.
//!
//! A row is written in the same batch as the row of the rollup table that it repeats, so the two cannot differ. A program that did not
//! know of this table wrote batches without it: each batch therefore notes its own number as the last up to which the table is whole,
//! and where that is not the number of the last batch, the rollup table is copied once. A copy that was broken off begins anew.

use std::ops::{Bound, Range};
use std::time::Instant;

use fjall::Slice;
use schemas::cell::{BUCKET_PREFIX_BYTES, bucket_prefix};
use schemas::{CellKey, StoredRow};

use super::open::{Inner, Writer};
use super::table::{Table, damaged};
use super::write::BATCH_ROWS;
use crate::store::{BucketPage, BucketRow, StoreError, is_kept_by_bucket};

/// The row of the meta table that holds the number of the last batch that kept the table whole, as a big-endian `u64`.
pub(super) const BY_BUCKET_KEY: &[u8] = b"by_bucket";

impl Inner {
    pub(super) fn read_bucket(&self, page: &BucketPage) -> Result<Vec<BucketRow>, StoreError> {
        let prefix = bucket_prefix(page.dimension, page.bucket, page.source);
        let after = page.after.as_deref().unwrap_or_default();
        let low = [&*prefix, after.as_bytes()].concat();
        // No id begins with this byte: ids are UTF-8.
        let high = [&*prefix, &[0xff]].concat();
        let range = (Bound::Excluded(low), Bound::Excluded(high));
        let read = |entry| {
            let (key, stored) = self.bucket_cell(entry)?;
            Ok(BucketRow { id: key.entity.id, stored })
        };
        self.views_by_bucket.range::<Vec<u8>, _>(range).take(page.limit).map(read).collect()
    }

    /// Every row of the table, by bucket.
    pub(super) fn scan_by_bucket(&self) -> impl Iterator<Item = Result<(CellKey, StoredRow), StoreError>> + '_ {
        self.views_by_bucket.iter().map(|entry| self.bucket_cell(entry))
    }

    fn bucket_cell(&self, entry: fjall::Guard) -> Result<(CellKey, StoredRow), StoreError> {
        let what = "a cell by bucket";
        let (key, value) = entry.into_inner().map_err(|error| self.fault(&what, &error))?;
        let key = CellKey::decode_by_bucket(&key).map_err(|error| damaged(&format!("{what} ({key:?})"), &error))?;
        let row = StoredRow::decode(&value).map_err(|error| damaged(&format!("{key} by bucket"), &error))?;
        Ok((key, row))
    }

    /// Copies the rollup rows that belong here, unless all of them are here.
    pub(super) fn fill_by_bucket(&self) -> Result<(), StoreError> {
        let mut writer = self.writer()?;
        let noted = self.get(&self.meta, BY_BUCKET_KEY, &"the note of the cells by bucket")?;
        if noted.is_some_and(|noted| *noted == writer.next_batch.saturating_sub(1).to_be_bytes()) {
            writer.by_bucket_is_whole = true;
            return Ok(());
        }
        tracing::info!("another version wrote this store last; hour and day counts are copied once for the lists of the most viewed");
        let (began, mut copied) = (Instant::now(), 0);
        let mut rows = self.scan(Table::Rollup).filter(|cell| cell.as_ref().map_or(true, |(key, _)| is_kept_by_bucket(key)));
        loop {
            let part = rows.by_ref().take(BATCH_ROWS).collect::<Result<Vec<_>, _>>()?;
            copied += part.len();
            // Noted with the last part, and not before.
            writer.by_bucket_is_whole = part.len() < BATCH_ROWS;
            self.copy(&mut writer, &part)?;
            if writer.by_bucket_is_whole {
                tracing::info!(rows = copied, seconds = began.elapsed().as_secs_f64(), "hour and day counts are copied");
                return Ok(());
            }
        }
    }

    fn copy(&self, writer: &mut Writer, part: &[(CellKey, StoredRow)]) -> Result<(), StoreError> {
        let (keys, places) = keys(part.iter().map(|(key, _)| key));
        let changes = places.into_iter().zip(part).map(|(place, (_, row))| (&self.views_by_bucket, keys.slice(place), row.encode().into()));
        self.commit(writer, changes, &[])
    }
}

/// The encoded keys of cells, and where each is.
pub(super) fn keys<'a>(cells: impl ExactSizeIterator<Item = &'a CellKey> + Clone) -> (Slice, Vec<Range<usize>>) {
    let bytes = cells.clone().map(|key| key.entity.id.len() + BUCKET_PREFIX_BYTES).sum();
    let mut keys = Vec::with_capacity(bytes);
    let place = |key: &CellKey| {
        let start = keys.len();
        key.encode_by_bucket_into(&mut keys);
        start..keys.len()
    };
    let places = cells.map(place).collect();
    (Slice::from(keys), places)
}
