//! What a record says, event by event: the meaning that the archive keeps and a replay needs. Pure.
//!
//! A record is cut into pieces by the fold's own rules: each event that can be decoded is one, with the fields that count and what
//! else it said; each that cannot is its raw bytes with the reason; a record that is no events (a tick, a correction, a broken batch,
//! one of blank lines) is one piece, its payload. So every record has at least one piece.

use std::borrow::Cow;

use schemas::view_batch::ViewBatch;
use schemas::{Event, Reason, Record, RecordKind, json};

/// A part of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// An event and its other members, as the text of a JSON object.
    Event(Event<'a>, Option<Cow<'a, str>>),
    /// What cannot be decoded, with the reason.
    Rejected(Reason, Cow<'a, [u8]>),
    /// The payload of a record that is no events.
    Payload(&'a [u8]),
}

impl Piece<'_> {
    /// Whether it is the payload of its record, and so the only piece of it. One that rejects a whole batch or a whole record of a
    /// kind that is not known is, too.
    pub const fn is_whole_record(&self) -> bool {
        match self {
            Self::Event(..) => false,
            Self::Rejected(reason, _) => rejects_whole_record(*reason),
            Self::Payload(_) => true,
        }
    }
}

/// Whether what is rejected for this reason is a whole record.
pub const fn rejects_whole_record(reason: Reason) -> bool {
    matches!(reason, Reason::BadBatch | Reason::UnknownRecord)
}

/// Gives each piece of a record, in order.
pub fn pieces<'a>(record: &Record<'a>, mut each: impl FnMut(Piece<'a>)) {
    let payload = record.payload;
    match record.kind {
        RecordKind::Json => each(of_json(payload)),
        RecordKind::Ndjson => {
            let mut lines = json::lines(payload).peekable();
            if lines.peek().is_none() {
                each(Piece::Payload(payload));
            }
            lines.for_each(|line| each(of_json(line)));
        }
        RecordKind::ViewBatch => of_batch(payload, each),
        RecordKind::Tick | RecordKind::Adjustment | RecordKind::Mark | RecordKind::Set => each(Piece::Payload(payload)),
        RecordKind::Unknown(_) => each(Piece::Rejected(Reason::UnknownRecord, Cow::Borrowed(payload))),
    }
}

fn of_json(raw: &[u8]) -> Piece<'_> {
    match json::decode_noting(raw) {
        Ok(noted) => Piece::Event(noted.event, if noted.has_others { json::others(raw).map(Cow::Owned) } else { None }),
        Err(rejection) => Piece::Rejected(rejection.reason, Cow::Borrowed(raw)),
    }
}

fn of_batch<'a>(payload: &'a [u8], mut each: impl FnMut(Piece<'a>)) {
    let batch = match ViewBatch::read(payload) {
        Ok(batch) if !batch.is_empty() => batch,
        Ok(_) => return each(Piece::Payload(payload)),
        Err(rejection) => return each(Piece::Rejected(rejection.reason, Cow::Borrowed(payload))),
    };
    for whole in batch.wholes() {
        match whole.check() {
            Ok(()) => each(Piece::Event(whole.event, whole.others.map(Cow::Borrowed))),
            Err(rejection) => each(Piece::Rejected(rejection.reason, Cow::Owned(whole.to_json()))),
        }
    }
}
