//! Reading a source back: its records in offset order, merged from the files of all days.
//!
//! A file is opened when the reading comes to its range and let go at its end, so a stretch of an archive takes the memory of the files
//! whose ranges lie over one offset: one for each day that came at the same time.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::ops::ControlFlow;

use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use schemas::{Offset, Record, Source};

use super::error::ArchiveError;
use super::manifest::{ArchiveFile, Manifest};
use super::rebuild::Rebuild;
use super::shelf::Shelf;
use super::view::View;

/// So many rows are decoded at once.
const BATCH_ROWS: usize = 8_192;

/// The batches of a file's rows.
pub(super) fn batches(path: &str, content: Bytes) -> Result<ParquetRecordBatchReader, ArchiveError> {
    let damaged = |error: parquet::errors::ParquetError| ArchiveError::Damaged { path: path.to_owned(), detail: error.to_string() };
    ParquetRecordBatchReaderBuilder::try_new(content).and_then(|reader| reader.with_batch_size(BATCH_ROWS).build()).map_err(damaged)
}

/// A file that is being read.
struct Cursor {
    path: String,
    batches: ParquetRecordBatchReader,
    view: View,
    at: usize,
}

impl Cursor {
    /// The first row at or after `from`; `None` if the file has none.
    fn open(path: String, content: Bytes, from: Offset) -> Result<Option<Self>, ArchiveError> {
        let mut batches = batches(&path, content)?;
        while let Some(view) = next_view(&path, &mut batches)? {
            if view.offset(view.len().saturating_sub(1)) >= from {
                let at = (0..view.len()).find(|at| view.offset(*at) >= from).unwrap_or_default();
                return Ok(Some(Self { path, batches, view, at }));
            }
        }
        Ok(None)
    }

    fn key(&self) -> (Offset, u32) {
        (self.view.offset(self.at), self.view.index(self.at))
    }

    /// Goes to the next row; `false` at the end.
    fn step(&mut self) -> Result<bool, ArchiveError> {
        self.at += 1;
        if self.at < self.view.len() {
            return Ok(true);
        }
        let Some(view) = next_view(&self.path, &mut self.batches)? else { return Ok(false) };
        (self.view, self.at) = (view, 0);
        Ok(true)
    }
}

/// The next batch that has rows.
fn next_view(path: &str, batches: &mut ParquetRecordBatchReader) -> Result<Option<View>, ArchiveError> {
    let damaged = |error: arrow::error::ArrowError| ArchiveError::Damaged { path: path.to_owned(), detail: error.to_string() };
    let next = batches.find(|batch| !batch.as_ref().is_ok_and(|batch: &RecordBatch| batch.num_rows() == 0));
    next.map(|batch| batch.and_then(|batch| View::of(&batch))).transpose().map_err(damaged)
}

/// Records of a source from one offset to another.
pub struct Reader {
    shelf: Shelf,
    source: Source,
    /// Not opened yet, by where they begin.
    files: VecDeque<ArchiveFile>,
    cursors: Vec<Option<Cursor>>,
    /// The next row of each cursor, and its place among them; the least comes first.
    heads: BinaryHeap<Reverse<(Offset, u32, usize)>>,
    from: Offset,
    to: Offset,
    rebuild: Rebuild,
}

impl Reader {
    /// Reads `[from, to)` of what a manifest names.
    ///
    /// # Errors
    /// [`ArchiveError::Missing`] if some of it is not there.
    pub fn new(shelf: Shelf, source: Source, manifest: &Manifest, from: Offset, to: Offset) -> Result<Self, ArchiveError> {
        let head = &manifest.head;
        let gap = head.gaps.iter().copied().find(|gap| gap.0 < to && from < gap.1);
        if from < to && (from < head.complete_from || to > head.end || gap.is_some()) {
            let asked = if from < head.complete_from { from } else { gap.map_or(head.end, |(lost, _)| lost.max(from)) };
            return Err(ArchiveError::Missing { source_id: source, asked, from: head.complete_from, end: head.end, gap });
        }
        let mut files: Vec<_> = manifest.files.iter().filter(|file| file.from < to && from < file.to).cloned().collect();
        files.sort_by_key(|file| (file.from, file.day));
        let (cursors, heads) = (Vec::new(), BinaryHeap::new());
        Ok(Self { shelf, source, files: files.into(), cursors, heads, from, to, rebuild: Rebuild::default() })
    }

    /// Lends the next records in order, at most so many, until `each` breaks; `false` when there are no more.
    ///
    /// # Errors
    /// If a file cannot be had or is damaged.
    pub async fn lend(
        &mut self,
        records: usize,
        each: &mut (dyn FnMut(Record<'_>) -> ControlFlow<()> + Send),
    ) -> Result<bool, ArchiveError> {
        let mut left = records;
        loop {
            self.open_due().await?;
            let until = self.files.front().map_or(self.to, |file| file.from.min(self.to));
            let is_last = self.files.is_empty();
            match self.lend_until(until, &mut left, each)? {
                ControlFlow::Break(()) => return Ok(true),
                ControlFlow::Continue(()) if is_last => break,
                ControlFlow::Continue(()) => {}
            }
        }
        if let Some(record) = self.rebuild.finish() {
            let _ = each(record);
        }
        Ok(false)
    }

    /// Opens the files whose ranges begin at or before the next row, or the next ones if none is open.
    async fn open_due(&mut self) -> Result<(), ArchiveError> {
        loop {
            let next = self.heads.peek().map(|Reverse((offset, ..))| *offset);
            if self.files.front().is_none_or(|file| next.is_some_and(|next| next < file.from)) {
                return Ok(());
            }
            let Some(file) = self.files.pop_front() else { return Ok(()) };
            let path = file.path(self.source);
            let content = self.shelf.get(&path).await?;
            if let Some(cursor) = Cursor::open(path, content, self.from)? {
                let (offset, index) = cursor.key();
                let place = self.cursors.iter().position(Option::is_none).unwrap_or(self.cursors.len());
                match self.cursors.get_mut(place) {
                    Some(slot) => *slot = Some(cursor),
                    None => self.cursors.push(Some(cursor)),
                }
                self.heads.push(Reverse((offset, index, place)));
            }
        }
    }

    /// Lends what lies before an offset, out of open files. Breaks when enough is lent.
    fn lend_until(
        &mut self,
        until: Offset,
        left: &mut usize,
        each: &mut (dyn FnMut(Record<'_>) -> ControlFlow<()> + Send),
    ) -> Result<ControlFlow<()>, ArchiveError> {
        while let Some(Reverse((offset, _, place))) = self.heads.peek().copied() {
            if offset >= until {
                break;
            }
            if self.rebuild.offset().is_some_and(|before| before != offset) {
                if *left == 0 {
                    return Ok(ControlFlow::Break(()));
                }
                *left -= 1;
                if self.rebuild.finish().is_some_and(|record| each(record).is_break()) {
                    return Ok(ControlFlow::Break(()));
                }
            }
            self.heads.pop();
            let Some(cursor) = self.cursors.get_mut(place).and_then(Option::as_mut) else { continue };
            if !self.rebuild.push(&cursor.view, cursor.at) {
                let detail = format!("a row of offset {offset} is missing before index {}", cursor.view.index(cursor.at));
                return Err(ArchiveError::Damaged { path: cursor.path.clone(), detail });
            }
            if cursor.step()? {
                let (offset, index) = cursor.key();
                self.heads.push(Reverse((offset, index, place)));
            } else if let Some(slot) = self.cursors.get_mut(place) {
                *slot = None;
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}
