//! Many events in one record, by columns: `tallymark.v1.ViewBatch`, a protobuf message.
//!
//! ```text
//! Event, others ──> Writer ──> payload ──> ViewBatch::read ──> entries(), views(), event_ids()   what counting needs
//!                                                        └──> wholes(), events()                every event with all its fields
//! ```
//!
//! The layout and its reasons are in `schemas/proto/tallymark/v1/view_batch.proto`: a dictionary of (video, space) pairs, and
//! for each event an index into it, an instant and an id; columns that counting does not need are passed over.
//!
//! | module | holds |
//! |---|---|
//! | `read` | [`ViewBatch`]: a payload, checked once and then walked along, borrowed |
//! | `whole` | [`Whole`]: one event of a batch with everything it says, and its JSON form |
//! | `write` | [`Writer`]: events in, a payload within bounds out |
//! | `column` | checked columns of numbers and of texts |
//! | `uuid` | canonical UUIDs as 16 bytes and as text |
//! | `wire` | fields and numbers as protobuf writes them |
//!
//! Written by hand because a generated reader copies every column; tests hold it against the `.proto` file itself.

mod column;
mod read;
mod uuid;
mod whole;
mod wire;
mod write;

#[cfg(test)]
mod conformance;
#[cfg(test)]
mod tests;

pub use read::{Entry, EventId, View, ViewBatch};
pub use whole::Whole;
pub use write::{Full, Writer};

use crate::event::{Reason, Rejection};

/// The full name of the message: the `messageType` of its content type.
pub const MESSAGE_TYPE: &str = "tallymark.v1.ViewBatch";

/// A written batch has at most so many bytes: a Kafka message (1 MB by default) takes it with room for headers.
pub const MAX_BYTES: usize = 900_000;

/// A written batch has at most so many events.
pub const MAX_EVENTS: usize = 10_000;

/// A text of the dictionary has at most so many bytes. Longer ones are no ids, and a few bytes that name a huge one many times
/// would be gigabytes of refused events.
pub const MAX_DICTIONARY_TEXT_BYTES: usize = 1_024;

/// A field of a message.
#[derive(Clone, Copy, Debug)]
struct Field {
    number: u32,
    name: &'static str,
    wire: wire::Type,
}

/// The fields, as in the `.proto` file.
mod field {
    use super::Field;
    use super::wire::Type;

    const fn column(number: u32, name: &'static str) -> Field {
        Field { number, name, wire: Type::Length }
    }

    pub(super) const VIDEOS: Field = column(1, "videos");
    pub(super) const SPACES: Field = column(2, "spaces");
    pub(super) const ENTRY_SPACE: Field = column(3, "entry_space");
    pub(super) const ENTRY: Field = column(4, "entry");
    pub(super) const BASE_TS_MS: Field = Field { number: 5, name: "base_ts_ms", wire: Type::Varint };
    pub(super) const TS_OFFSET_MS: Field = column(6, "ts_offset_ms");
    pub(super) const TS_MS: Field = column(7, "ts_ms");
    pub(super) const KIND: Field = column(8, "kind");
    pub(super) const UUIDS: Field = column(9, "uuids");
    pub(super) const TEXT_IDS: Field = column(10, "text_ids");
    pub(super) const VIEWERS: Field = column(11, "viewers");
    pub(super) const WATCHED: Field = column(12, "watched");
    pub(super) const WATCH_MS: Field = column(13, "watch_ms");
    pub(super) const OTHERS: Field = column(14, "others");

    /// All of a batch, by number from 1.
    pub(super) const OF_BATCH: [Field; 14] =
        [VIDEOS, SPACES, ENTRY_SPACE, ENTRY, BASE_TS_MS, TS_OFFSET_MS, TS_MS, KIND, UUIDS, TEXT_IDS, VIEWERS, WATCHED, WATCH_MS, OTHERS];

    pub(super) const LENGTHS: Field = column(1, "lengths");
    pub(super) const TEXT: Field = column(2, "text");

    /// All of `Texts`, by number from 1.
    pub(super) const OF_TEXTS: [Field; 2] = [LENGTHS, TEXT];
}

/// What is wrong with a batch as a whole.
#[cold]
fn bad(detail: impl Into<String>) -> Rejection {
    Rejection::new(Reason::BadBatch, detail)
}
