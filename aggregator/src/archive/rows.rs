//! Pieces of records into columns, and columns into one Parquet file. Pure.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryBuilder, BooleanBuilder, Int32Builder, Int64Builder, StringBuilder, TimestampMillisecondBuilder, UInt64Builder,
};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use parquet::arrow::ArrowWriter;
use schemas::{Event, Kind, Millis, Record, RecordKind, Source};
use xxhash_rust::xxh3::xxh3_64;

use super::added::Added;
use super::columns::{SCHEMA, properties};
use super::error::ArchiveError;
use super::piece::Piece;

/// The name of a record's kind in its column.
pub(super) fn kind_name(kind: RecordKind) -> String {
    match kind {
        RecordKind::Json => "json".to_owned(),
        RecordKind::Ndjson => "ndjson".to_owned(),
        RecordKind::ViewBatch => "view_batch".to_owned(),
        RecordKind::Tick => "tick".to_owned(),
        RecordKind::Adjustment => "adjustment".to_owned(),
        RecordKind::Mark => "mark".to_owned(),
        RecordKind::Set => "set".to_owned(),
        RecordKind::Unknown(code) => format!("unknown_{code}"),
    }
}

/// The kind with a name.
pub(super) fn kind_named(name: &str) -> Option<RecordKind> {
    Some(match name {
        "json" => RecordKind::Json,
        "ndjson" => RecordKind::Ndjson,
        "view_batch" => RecordKind::ViewBatch,
        "tick" => RecordKind::Tick,
        "adjustment" => RecordKind::Adjustment,
        "mark" => RecordKind::Mark,
        "set" => RecordKind::Set,
        other => RecordKind::Unknown(other.strip_prefix("unknown_")?.parse().ok()?),
    })
}

/// The name of an event's kind in its column.
pub(super) const fn event_kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::View => "view",
        Kind::Engaged => "engaged",
    }
}

/// The rows of one day while they are gathered.
#[derive(Default)]
pub(super) struct Rows {
    len: u64,
    events: u64,
    ts: Option<(Millis, Millis)>,
    append_time: Option<(Millis, Millis)>,
    source: Int32Builder,
    offset: Int64Builder,
    index: Int32Builder,
    appended: TimestampMillisecondBuilder,
    record: StringBuilder,
    historical: BooleanBuilder,
    event_id: StringBuilder,
    video_id: StringBuilder,
    space_id: StringBuilder,
    viewer_id: StringBuilder,
    viewed: TimestampMillisecondBuilder,
    kind: StringBuilder,
    watch_ms: UInt64Builder,
    client_ip: StringBuilder,
    user_agent: StringBuilder,
    received_at: Int64Builder,
    extra: StringBuilder,
    reason: StringBuilder,
    raw: BinaryBuilder,
}

/// What a file says of itself beside its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) rows: u64,
    pub(super) events: u64,
    pub(super) ts: Option<(Millis, Millis)>,
    pub(super) append_time: (Millis, Millis),
}

impl Extent {
    /// Of both together.
    pub(super) fn and(self, other: Self) -> Self {
        let ts = [self.ts, other.ts].into_iter().flatten().reduce(widest);
        Self {
            rows: self.rows + other.rows,
            events: self.events + other.events,
            ts,
            append_time: widest(self.append_time, other.append_time),
        }
    }
}

fn widest(a: (Millis, Millis), b: (Millis, Millis)) -> (Millis, Millis) {
    (a.0.min(b.0), a.1.max(b.1))
}

impl Rows {
    /// Adds a row: piece `index` of a record.
    pub(super) fn push(&mut self, source: Source, record: &Record<'_>, index: u32, piece: &Piece<'_>) {
        self.len += 1;
        let at = record.append_time;
        self.append_time = Some(self.append_time.map_or((at, at), |range| widest(range, (at, at))));
        self.source.append_value(source.0.cast_signed());
        self.offset.append_value(record.offset.0.cast_signed());
        self.index.append_value(index.cast_signed());
        self.appended.append_value(at.0);
        self.record.append_value(kind_name(record.kind));
        self.historical.append_value(record.historical);
        match piece {
            Piece::Event(event, others) => self.push_event(event, others.as_deref()),
            Piece::Rejected(reason, raw) => self.push_raw(Some(reason.as_str()), raw),
            Piece::Payload(payload) => self.push_raw(None, payload),
        }
    }

    fn push_event(&mut self, event: &Event<'_>, others: Option<&str>) {
        self.events += 1;
        self.ts = Some(self.ts.map_or((event.ts, event.ts), |range| widest(range, (event.ts, event.ts))));
        let Added { client_ip, user_agent, received_at, extra } = Added::split(others);
        self.event_id.append_value(&event.event_id);
        self.video_id.append_value(&event.video_id);
        self.space_id.append_option(event.space_id.as_deref());
        self.viewer_id.append_option(event.viewer_id.as_deref());
        self.viewed.append_value(event.ts.0);
        self.kind.append_value(event_kind_name(event.kind));
        self.watch_ms.append_option(event.watch_ms);
        self.client_ip.append_option(client_ip);
        self.user_agent.append_option(user_agent);
        self.received_at.append_option(received_at);
        self.extra.append_option(extra.as_deref());
        self.reason.append_null();
        self.raw.append_null();
    }

    fn push_raw(&mut self, reason: Option<&str>, raw: &[u8]) {
        let texts = [&mut self.event_id, &mut self.video_id, &mut self.space_id, &mut self.viewer_id, &mut self.kind];
        texts.into_iter().for_each(StringBuilder::append_null);
        let added = [&mut self.client_ip, &mut self.user_agent, &mut self.extra];
        added.into_iter().for_each(StringBuilder::append_null);
        self.viewed.append_null();
        self.watch_ms.append_null();
        self.received_at.append_null();
        self.reason.append_option(reason);
        self.raw.append_value(raw);
    }

    /// The rows as a batch, and what is said of them. There must be at least one.
    pub(super) fn finish(mut self) -> Result<(RecordBatch, Extent), ArrowError> {
        let instants = |mut builder: TimestampMillisecondBuilder| builder.finish().with_timezone("UTC");
        let columns: Vec<ArrayRef> = vec![
            Arc::new(self.source.finish()),
            Arc::new(self.offset.finish()),
            Arc::new(self.index.finish()),
            Arc::new(instants(self.appended)),
            Arc::new(self.record.finish()),
            Arc::new(self.historical.finish()),
            Arc::new(self.event_id.finish()),
            Arc::new(self.video_id.finish()),
            Arc::new(self.space_id.finish()),
            Arc::new(self.viewer_id.finish()),
            Arc::new(instants(self.viewed)),
            Arc::new(self.kind.finish()),
            Arc::new(self.watch_ms.finish()),
            Arc::new(self.client_ip.finish()),
            Arc::new(self.user_agent.finish()),
            Arc::new(self.received_at.finish()),
            Arc::new(self.extra.finish()),
            Arc::new(self.reason.finish()),
            Arc::new(self.raw.finish()),
        ];
        let append_time = self.append_time.unwrap_or((Millis(0), Millis(0)));
        let extent = Extent { rows: self.len, events: self.events, ts: self.ts, append_time };
        Ok((RecordBatch::try_new(Arc::clone(&SCHEMA), columns)?, extent))
    }
}

/// Writes batches, in order, as a file; the same rows are the same bytes. Also the hash that it is named by.
pub(super) fn write_file(batches: impl IntoIterator<Item = Result<RecordBatch, ArchiveError>>) -> Result<(Vec<u8>, String), ArchiveError> {
    let mut writer = ArrowWriter::try_new(Vec::new(), Arc::clone(&SCHEMA), Some(properties()))?;
    for batch in batches {
        writer.write(&batch?)?;
    }
    let bytes = writer.into_inner()?;
    let hash = file_hash(&bytes);
    Ok((bytes, hash))
}

/// The hash that a file is named by.
pub(super) fn file_hash(bytes: &[u8]) -> String {
    format!("{:016x}", xxh3_64(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_name_of_its_own() {
        for code in 0..=u8::MAX {
            let kind = RecordKind::from_code(code);
            assert_eq!(kind_named(&kind_name(kind)), Some(kind));
        }
        assert_eq!(kind_named("unknown_256"), None);
    }
}
