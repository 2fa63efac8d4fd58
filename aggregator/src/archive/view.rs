//! A batch of an archive's rows with its columns at hand.

use arrow::array::{
    Array, AsArray, BinaryArray, BooleanArray, Int32Array, Int64Array, StringArray, TimestampMillisecondArray, UInt64Array,
};
use arrow::datatypes::{Int32Type, Int64Type, TimestampMillisecondType, UInt64Type};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use schemas::{Event, Kind, Millis, Offset, RecordKind};

use super::added::Added;
use super::columns::SCHEMA;
use super::rows::kind_named;

/// The columns of a batch. Rows are counted from 0; each method takes a row that is there.
pub(super) struct View {
    len: usize,
    offset: Int64Array,
    index: Int32Array,
    append_time: TimestampMillisecondArray,
    record: StringArray,
    historical: BooleanArray,
    event_id: StringArray,
    video_id: StringArray,
    space_id: StringArray,
    viewer_id: StringArray,
    ts: TimestampMillisecondArray,
    kind: StringArray,
    watch_ms: UInt64Array,
    client_ip: StringArray,
    user_agent: StringArray,
    received_at: Int64Array,
    extra: StringArray,
    reason: StringArray,
    raw: BinaryArray,
}

impl View {
    /// Of a batch with the archive's columns.
    pub(super) fn of(batch: &RecordBatch) -> Result<Self, ArrowError> {
        let other = || ArrowError::SchemaError("a file of an archive has other columns; was it written by a newer tallymark?".to_owned());
        if batch.schema().fields() != SCHEMA.fields() {
            return Err(other());
        }
        let column = |name| batch.column_by_name(name).ok_or_else(other);
        let text = |name| column(name)?.as_string_opt::<i32>().cloned().ok_or_else(other);
        let instant = |name| column(name)?.as_primitive_opt::<TimestampMillisecondType>().cloned().ok_or_else(other);
        Ok(Self {
            len: batch.num_rows(),
            offset: column("offset")?.as_primitive_opt::<Int64Type>().cloned().ok_or_else(other)?,
            index: column("index")?.as_primitive_opt::<Int32Type>().cloned().ok_or_else(other)?,
            append_time: instant("append_time")?,
            record: text("record")?,
            historical: column("historical")?.as_boolean_opt().cloned().ok_or_else(other)?,
            event_id: text("event_id")?,
            video_id: text("video_id")?,
            space_id: text("space_id")?,
            viewer_id: text("viewer_id")?,
            ts: instant("ts")?,
            kind: text("kind")?,
            watch_ms: column("watch_ms")?.as_primitive_opt::<UInt64Type>().cloned().ok_or_else(other)?,
            client_ip: text("client_ip")?,
            user_agent: text("user_agent")?,
            received_at: column("received_at")?.as_primitive_opt::<Int64Type>().cloned().ok_or_else(other)?,
            extra: text("extra")?,
            reason: text("reason")?,
            raw: column("raw")?.as_binary_opt::<i32>().cloned().ok_or_else(other)?,
        })
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }

    pub(super) fn offset(&self, at: usize) -> Offset {
        Offset(self.offset.value(at).cast_unsigned())
    }

    pub(super) fn index(&self, at: usize) -> u32 {
        self.index.value(at).cast_unsigned()
    }

    pub(super) fn append_time(&self, at: usize) -> Millis {
        Millis(self.append_time.value(at))
    }

    pub(super) fn kind(&self, at: usize) -> RecordKind {
        kind_named(self.record.value(at)).unwrap_or(RecordKind::Unknown(0))
    }

    pub(super) fn historical(&self, at: usize) -> bool {
        self.historical.value(at)
    }

    pub(super) fn viewer_id(&self, at: usize) -> Option<&str> {
        text(&self.viewer_id, at)
    }

    pub(super) fn reason(&self, at: usize) -> Option<&str> {
        text(&self.reason, at)
    }

    pub(super) fn raw(&self, at: usize) -> Option<&[u8]> {
        self.raw.is_valid(at).then(|| self.raw.value(at))
    }

    /// The event of a row, and its other members; `None` for a row of raw bytes.
    pub(super) fn event(&self, at: usize) -> Option<(Event<'_>, Option<String>)> {
        if self.raw.is_valid(at) {
            return None;
        }
        let event = Event {
            event_id: self.event_id.value(at).into(),
            video_id: self.video_id.value(at).into(),
            space_id: text(&self.space_id, at).map(Into::into),
            viewer_id: text(&self.viewer_id, at).map(Into::into),
            ts: Millis(self.ts.value(at)),
            watch_ms: self.watch_ms.is_valid(at).then(|| self.watch_ms.value(at)),
            kind: if self.kind.value(at) == "engaged" { Kind::Engaged } else { Kind::View },
        };
        Some((event, self.others(at)))
    }

    fn others(&self, at: usize) -> Option<String> {
        if self.extra.is_null(at) && self.client_ip.is_null(at) && self.user_agent.is_null(at) && self.received_at.is_null(at) {
            return None;
        }
        let owned = |column| text(column, at).map(str::to_owned);
        Added {
            client_ip: owned(&self.client_ip),
            user_agent: owned(&self.user_agent),
            received_at: self.received_at.is_valid(at).then(|| self.received_at.value(at)),
            extra: text(&self.extra, at).map(Into::into),
        }
        .joined()
    }
}

fn text(column: &StringArray, at: usize) -> Option<&str> {
    column.is_valid(at).then(|| column.value(at))
}
