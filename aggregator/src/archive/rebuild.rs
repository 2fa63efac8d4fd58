//! Rows back into records: what the fold makes of one is what it made of the record that was archived. Pure.
//!
//! A record comes back in the form that it had; its bytes are the archive's own, because of an event the archive keeps what it says and
//! not how that was written. A batch that holds an event which was refused comes back as lines, where each keeps its place.

use schemas::view_batch::{ViewBatch, Whole, Writer};
use schemas::{Event, Millis, Offset, Reason, Record, RecordKind};

use super::piece::rejects_whole_record;
use super::view::View;

/// Puts one record after the other together.
#[derive(Default)]
pub(super) struct Rebuild {
    head: Option<Head>,
    /// Lines, or a whole payload.
    payload: Vec<u8>,
    batch: Writer,
    /// So many rows have come.
    rows: u32,
}

struct Head {
    offset: Offset,
    append_time: Millis,
    kind: RecordKind,
    historical: bool,
}

impl Rebuild {
    /// The record that is being put together.
    pub(super) fn offset(&self) -> Option<Offset> {
        self.head.as_ref().map(|head| head.offset)
    }

    /// Adds a row: the first of a record, or the next. `false` if one is missing before it.
    pub(super) fn push(&mut self, view: &View, at: usize) -> bool {
        if self.head.is_none() {
            self.payload.clear();
            self.rows = 0;
            let head =
                Head { offset: view.offset(at), append_time: view.append_time(at), kind: view.kind(at), historical: view.historical(at) };
            self.head = Some(head);
        }
        let is_next = view.index(at) == self.rows;
        self.rows = self.rows.saturating_add(1);
        match (view.event(at), view.raw(at)) {
            (Some((event, others)), _) => self.push_event(&event, others.as_deref()),
            (None, Some(raw)) => match view.reason(at) {
                Some(reason) if !Reason::named(reason).is_some_and(rejects_whole_record) => {
                    self.use_lines();
                    self.push_line(raw);
                }
                _ => self.payload.extend_from_slice(raw),
            },
            (None, None) => {}
        }
        is_next
    }

    fn kind(&self) -> Option<RecordKind> {
        self.head.as_ref().map(|head| head.kind)
    }

    fn push_event(&mut self, event: &Event<'_>, others: Option<&str>) {
        if self.kind() == Some(RecordKind::ViewBatch) {
            if self.batch.push(event, others).is_ok() {
                return;
            }
            // A batch of somebody who writes larger ones.
            self.use_lines();
        }
        let line = Whole { event: event.clone(), others }.to_json();
        self.push_line(&line);
    }

    fn push_line(&mut self, line: &[u8]) {
        if !self.payload.is_empty() {
            self.payload.push(b'\n');
        }
        self.payload.extend_from_slice(line);
    }

    /// A batch goes on as lines.
    fn use_lines(&mut self) {
        let Some(head) = self.head.as_mut().filter(|head| head.kind == RecordKind::ViewBatch) else { return };
        head.kind = RecordKind::Ndjson;
        if self.batch.is_empty() {
            return;
        }
        let written = self.batch.finish();
        if let Ok(batch) = ViewBatch::read(&written) {
            batch.wholes().for_each(|whole| self.push_line(&whole.to_json()));
        }
    }

    /// The record, if there is one; the next one begins.
    pub(super) fn finish(&mut self) -> Option<Record<'_>> {
        let Head { offset, append_time, kind, historical } = self.head.take()?;
        if !self.batch.is_empty() {
            self.payload = self.batch.finish();
        }
        Some(Record { offset, append_time, kind, historical, payload: &self.payload })
    }
}
