//! Rows become request bodies, on a thread of their own: parsed, checked and written by columns while others are sent.

use std::collections::{BTreeMap, HashSet};

use bytes::Bytes;
use schemas::EventHash;
use schemas::view_batch::Writer;
use tokio::sync::mpsc;

use super::ImportError;
use super::rows::{Row, Rows};

/// Events of consecutive rows, as one request's body.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    /// The rows up to this number, from the batch before, are in this one.
    pub(crate) last_row: u64,
    /// A columnar batch; empty if none of the rows is to be sent.
    pub(crate) body: Bytes,
    /// The line of the file of each event in the body.
    pub(crate) lines: Vec<u64>,
    /// Rows that cannot be used.
    pub(crate) unusable: Unusable,
    /// Events that are left out because the log holds them from before an interruption.
    pub(crate) already: u64,
}

/// How many rows cannot be used, by reason, with the first of each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Unusable(BTreeMap<String, Cases>);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Cases {
    count: u64,
    /// Line number and detail of the first few.
    first: Vec<(u64, String)>,
}

/// How many rows of each reason are shown.
const SHOWN: usize = 5;

impl Unusable {
    /// Counts one.
    pub(crate) fn add(&mut self, reason: &str, line: u64, detail: &str) {
        if !self.0.contains_key(reason) {
            self.0.insert(reason.to_owned(), Cases::default());
        }
        if let Some(cases) = self.0.get_mut(reason) {
            cases.count += 1;
            if cases.first.len() < SHOWN {
                cases.first.push((line, detail.to_owned()));
            }
        }
    }

    /// Counts some that are not shown.
    pub(crate) fn add_many(&mut self, reason: &str, count: u64) {
        if count > 0 {
            self.0.entry(reason.to_owned()).or_default().count += count;
        }
    }

    /// Adds those of later rows.
    pub(crate) fn merge(&mut self, other: Self) {
        for (reason, cases) in other.0 {
            let mine = self.0.entry(reason).or_default();
            mine.count += cases.count;
            mine.first.extend(cases.first);
            mine.first.sort();
            mine.first.truncate(SHOWN);
        }
    }

    /// All of them.
    pub(crate) fn total(&self) -> u64 {
        self.0.values().map(|cases| cases.count).sum()
    }

    /// Lines for people, two spaces in.
    pub(crate) fn describe(&self) -> Vec<String> {
        let mut out = Vec::new();
        for (reason, cases) in &self.0 {
            out.push(format!("  {reason:<16} {}", cases.count));
            out.extend(cases.first.iter().map(|(line, detail)| format!("    line {line}: {detail}")));
            let more = cases.count - cases.first.len() as u64;
            if more > 0 {
                out.push(format!("    and {more} more"));
            }
        }
        out
    }
}

/// How large batches are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BatchSize {
    pub(crate) events: usize,
    pub(crate) bytes: usize,
    /// So that a barrier bounds how many rows are uncertain, however many of them are unusable.
    pub(crate) rows: u64,
}

/// Where to begin, and what not to send again.
#[derive(Clone, Debug, Default)]
pub(crate) struct Start {
    /// Rows up to this number are done.
    pub(crate) after_row: u64,
    /// Events that the log holds from before an interruption, by the hash of their id.
    pub(crate) already: HashSet<EventHash>,
}

/// Reads all rows into `out`, until they end, cannot be read, or nobody takes them any more.
pub(crate) fn produce(mut rows: Rows, start: &Start, size: BatchSize, out: &mpsc::Sender<Result<Batch, ImportError>>) {
    let mut builder = Builder::new(size, start.after_row);
    loop {
        match rows.next() {
            Ok(Some(row)) if row.row <= start.after_row => continue,
            Ok(Some(row)) => builder.add(row, &start.already),
            Ok(None) => break,
            Err(error) => {
                // What was read before is still good; whoever takes these may have gone, which ends the import as well.
                let _ = out.blocking_send(Ok(builder.finish())).and_then(|()| out.blocking_send(Err(error)));
                return;
            }
        }
        if builder.is_full() && out.blocking_send(Ok(builder.finish())).is_err() {
            return;
        }
    }
    let last = builder.finish();
    let _ = out.blocking_send(Ok(last));
}

struct Builder {
    size: BatchSize,
    first_row: u64,
    events: Writer,
    batch: Batch,
}

impl Builder {
    fn new(size: BatchSize, after_row: u64) -> Self {
        let batch = Batch { last_row: after_row, ..Batch::default() };
        Self { size, first_row: after_row, events: Writer::new(), batch }
    }

    fn add(&mut self, row: Row<'_>, already: &HashSet<EventHash>) {
        self.batch.last_row = row.row;
        match row.event {
            Err(rejection) => self.batch.unusable.add(rejection.reason.as_str(), row.line, &rejection.detail),
            Ok(event) if !already.is_empty() && already.contains(&EventHash::of(&event.event_id)) => self.batch.already += 1,
            Ok(event) => match self.events.push(&event, None) {
                Ok(()) => self.batch.lines.push(row.line),
                // Cannot be, by the size of batches; then the row is at least told of.
                Err(full) => self.batch.unusable.add("event_too_large", row.line, &full.to_string()),
            },
        }
    }

    fn is_full(&self) -> bool {
        self.batch.lines.len() >= self.size.events
            || self.events.bytes() >= self.size.bytes
            || self.batch.last_row - self.first_row >= self.size.rows
    }

    fn finish(&mut self) -> Batch {
        let body = self.events.finish();
        self.first_row = self.batch.last_row;
        let next = Batch { last_row: self.batch.last_row, ..Batch::default() };
        Batch { body: body.into(), ..std::mem::replace(&mut self.batch, next) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::import::file::ContentFile;
    use crate::import::mapping::Mapping;
    use crate::import::rows::TsUnit;

    fn batches(text: &str, start: &Start, events: usize) -> Vec<(u64, usize, u64, u64)> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("f"), text).unwrap();
        let file = ContentFile::hash(&dir.path().join("f")).unwrap();
        let rows = Rows::open(&file, &Mapping::default(), TsUnit::Ms, std::sync::Arc::default()).unwrap();
        let (sender, mut receiver) = mpsc::channel(100);
        produce(rows, start, BatchSize { events, bytes: 1 << 20, rows: 1_000 }, &sender);
        drop(sender);
        let mut all = Vec::new();
        while let Some(batch) = receiver.blocking_recv() {
            let batch = batch.unwrap();
            assert_eq!(schemas::ViewBatch::read(&batch.body).unwrap().len(), batch.lines.len());
            assert_eq!(batch.body.is_empty(), batch.lines.is_empty());
            all.push((batch.last_row, batch.lines.len(), batch.unusable.total(), batch.already));
        }
        all
    }

    #[test]
    fn what_is_sent_is_what_was_read_however_large_and_far_apart() {
        let id = |row: u64| format!("{row:0>128}");
        let rows: Vec<(String, i64)> =
            (0..5_000).map(|row| (id(row), 1_431_857_103_000 - i64::try_from(row).unwrap() * 86_400_000)).collect();
        let line = |(id, ts): &(String, i64)| format!("{id},{id},{id},{id},{}", schemas::Millis(*ts));
        let text = format!("event_id,video_id,space_id,viewer_id,ts\n{}\n", rows.iter().map(line).collect::<Vec<_>>().join("\n"));
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("f"), text).unwrap();
        let file = ContentFile::hash(&dir.path().join("f")).unwrap();
        let read = Rows::open(&file, &Mapping::default(), TsUnit::Ms, std::sync::Arc::default()).unwrap();
        let (sender, mut receiver) = mpsc::channel(100);
        produce(read, &Start::default(), BatchSize { events: 10_000, bytes: super::super::BATCH_BYTES, rows: 100_000 }, &sender);
        drop(sender);
        let (mut sent, mut bodies) = (Vec::new(), 0);
        while let Some(batch) = receiver.blocking_recv() {
            let batch = batch.unwrap();
            assert_eq!(batch.unusable.total(), 0);
            assert!(batch.body.len() <= schemas::view_batch::MAX_BYTES);
            bodies += 1;
            sent.extend(schemas::ViewBatch::read(&batch.body).unwrap().events().map(|whole| {
                let event = whole.unwrap().event;
                (event.event_id.into_owned(), event.ts.0)
            }));
        }
        assert_eq!(sent, rows);
        assert!(bodies > 2, "they are cut by their size");
    }

    const TEXT: &str = "event_id,video_id,ts\na,v,1431857103000\nb,v,1431857103000\nc,v,x\nd,v,1431857103000\ne,v,1431857103000\n";

    #[test]
    fn batches_hold_consecutive_rows_and_count_the_unusable() {
        assert_eq!(batches(TEXT, &Start::default(), 2), [(2, 2, 0, 0), (5, 2, 1, 0), (5, 0, 0, 0)]);
        assert_eq!(batches(TEXT, &Start::default(), 100), [(5, 4, 1, 0)]);
    }

    #[test]
    fn a_resumed_import_leaves_out_what_is_done_and_what_the_log_holds() {
        let already = ["b", "d"].map(EventHash::of).into();
        assert_eq!(batches(TEXT, &Start { after_row: 1, already }, 100), [(5, 1, 1, 2)]);
    }

    #[test]
    fn the_first_five_of_each_reason_are_shown() {
        let mut unusable = Unusable::default();
        (1..=4).for_each(|line| unusable.add("bad_ts", line * 10, "x"));
        let mut later = Unusable::default();
        (5..=9).for_each(|line| later.add("bad_ts", line * 10, "x"));
        later.add("bad_id", 1, "y");
        unusable.merge(later);
        let shown = unusable.describe().join("\n");
        assert_eq!(unusable.total(), 10);
        assert!(shown.contains("line 50: x\n    and 4 more") && !shown.contains("line 60") && shown.contains("line 1: y"), "{shown}");
    }
}
