//! The words of Tallymark: what an event, a record, a cell and a checkpoint are, and how each is written as bytes.
//!
//! Nothing here does I/O, reads a clock or keeps state. Read in this order:
//!
//! | module | holds |
//! |---|---|
//! | [`time`] | [`Millis`], [`Stamp`]: instants, and the RFC 3339 parser |
//! | [`bucket`] | [`Minute`], [`Tier`], [`Bucket`]: aligned intervals of event time |
//! | [`position`] | [`Source`], [`Offset`]: where in the log |
//! | [`id`] | [`VideoId`], [`SpaceId`]: validated ids; the 128-bit hash of an event id |
//! | [`event`] | [`Event`]: one click, borrowed from the bytes it came in; [`Reason`]: why one is refused |
//! | [`json`] | events as JSON and NDJSON |
//! | [`view_batch`] | events by columns, many in one record |
//! | [`partition`] | which source an event goes to |
//! | [`record`] | [`Record`]: what the log holds at one offset |
//! | [`correction`] | adjustments and repairs, records that change counts on purpose |
//! | [`adjustment`] | [`AdjustmentEntry`]: adjustments that people ask for, as the journal keeps them |
//! | [`cell`] | [`CellKey`], [`Row`]: what is counted, and the stored form of a count |
//! | [`checkpoint`] | [`Checkpoint`], [`FoldSettings`], [`Tally`]: how far a source has been folded |
//! | [`dead_letter`] | [`DeadLetter`]: a refused event with its reason |
//! | [`key`] | [`KeyRecord`], [`Token`]: who may do what |
//! | [`retry`] | [`Claim`]: refused events that are to be counted after all |
//! | [`codec`] | the byte reader and writer under the stored forms |

pub mod adjustment;
pub mod bucket;
pub mod cell;
pub mod checkpoint;
pub mod codec;
pub mod correction;
pub mod dead_letter;
pub mod event;
pub mod id;
pub mod json;
pub mod key;
pub mod partition;
pub mod position;
pub mod record;
pub mod retry;
pub mod time;
pub mod view_batch;

pub use adjustment::{AdjustmentEntry, AdjustmentPart, PartEnd};
pub use bucket::{Bucket, Minute, Tier};
pub use cell::{CellKey, Counts, Dimension, Entity, Mark, Row, StoredRow};
pub use checkpoint::{Checkpoint, FoldSettings, LogId, Tally};
pub use codec::CodecError;
pub use dead_letter::{DeadLetter, LetterId, Stage};
pub use event::{Event, Kind, Reason, Rejection};
pub use id::{EventHash, SpaceId, VideoId};
pub use key::{KeyId, KeyRecord, NewKey, Scope, Token};
pub use position::{Offset, Source};
pub use record::{NewRecord, Record, RecordKind};
pub use retry::Claim;
pub use time::{Millis, Stamp};
pub use view_batch::ViewBatch;
