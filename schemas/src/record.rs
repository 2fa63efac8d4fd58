//! What the log holds at one offset.

use crate::position::Offset;
use crate::time::Millis;

/// What a record's payload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RecordKind {
    /// One event as a JSON object (`application/json`, or no content type).
    Json,
    /// Events as JSON objects, one a line (`application/x-ndjson`).
    Ndjson,
    /// Events by columns: a [`ViewBatch`](crate::view_batch::ViewBatch).
    ViewBatch,
    /// Empty: it only moves the log clock.
    Tick,
    /// An [`Adjustment`](crate::correction::Adjustment).
    Adjustment,
    /// The first record of a repair: a [`RepairMark`](crate::correction::RepairMark).
    Mark,
    /// The second record of a repair: a [`RepairSet`](crate::correction::RepairSet).
    Set,
    /// A kind that this version does not know, by its code. It moves the clock and is one rejected event.
    Unknown(u8),
}

impl RecordKind {
    /// Its code in the embedded log.
    pub const fn code(self) -> u8 {
        match self {
            Self::Json => 1,
            Self::Ndjson => 2,
            Self::ViewBatch => 3,
            Self::Tick => 16,
            Self::Adjustment => 17,
            Self::Mark => 18,
            Self::Set => 19,
            Self::Unknown(code) => code,
        }
    }

    /// The kind with a code.
    pub const fn from_code(code: u8) -> Self {
        match code {
            1 => Self::Json,
            2 => Self::Ndjson,
            3 => Self::ViewBatch,
            16 => Self::Tick,
            17 => Self::Adjustment,
            18 => Self::Mark,
            19 => Self::Set,
            other => Self::Unknown(other),
        }
    }

    /// Its content type on Kafka and in HTTP.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Ndjson => "application/x-ndjson",
            Self::ViewBatch => "application/x-protobuf; messageType=tallymark.v1.ViewBatch",
            Self::Tick => "application/x-tallymark; messageType=tick",
            Self::Adjustment => "application/x-tallymark; messageType=adjustment",
            Self::Mark => "application/x-tallymark; messageType=repair-mark",
            Self::Set => "application/x-tallymark; messageType=repair-set",
            Self::Unknown(_) => "application/octet-stream",
        }
    }
}

/// A record to append: the log gives it an offset and an append time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewRecord {
    /// What the payload is.
    pub kind: RecordKind,
    /// Whether its events are exempt from `too_old`.
    pub historical: bool,
    /// Its bytes.
    pub payload: Vec<u8>,
}

impl NewRecord {
    /// A record of events that are not historical, or of a correction.
    pub fn new(kind: RecordKind, payload: impl Into<Vec<u8>>) -> Self {
        Self { kind, historical: false, payload: payload.into() }
    }

    /// A record that only moves the log clock.
    pub fn tick() -> Self {
        Self::new(RecordKind::Tick, [])
    }
}

/// A record as read from a source, borrowed from the log's buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Its place.
    pub offset: Offset,
    /// When the log took it, by the log's (broker's) clock. It may go back along a source; the log clock does not.
    pub append_time: Millis,
    /// What the payload is.
    pub kind: RecordKind,
    /// Whether its events are exempt from `too_old`.
    pub historical: bool,
    /// Its bytes.
    pub payload: &'a [u8],
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_one_kind() {
        for code in 0..=u8::MAX {
            assert_eq!(RecordKind::from_code(code).code(), code);
        }
    }
}
