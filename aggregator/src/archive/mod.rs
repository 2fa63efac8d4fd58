//! The archive: the raw log as Parquet files, by event day, that any tool reads and that a replay counts from again.
//!
//! ```text
//! EventLog ──> piece ──> rows ──> Parquet file ──> Shelf (a directory, S3)
//!                                    └──> manifest: what is committed ──> CountStore
//! Shelf ──> Reader ──> records, as the fold made of them ──> replay
//! ```
//!
//! A file lies at `day=YYYY-MM-DD/source=N/FROM-TO-HASH.parquet`; its rows are those of one source's records in `[FROM, TO)` whose
//! events are of that day. All of a record is kept, one row for each event; what is no event (ticks, corrections, what cannot be
//! decoded) has its raw bytes and lies in the day of its append time. Invariants: a file's name and content are a function of the log,
//! the range and who was forgotten; only what a manifest names can be seen; each archived offset is read back exactly once, in order,
//! and a fold of what is read back comes to the same cells as one of the log.
//!
//! | module | holds |
//! |---|---|
//! | [`piece`] | what a record says, event by event. Pure |
//! | [`day`] | which day a row belongs to. Pure |
//! | `added` | what the collector put on an event, in columns. Pure |
//! | [`columns`] | the columns, and how each is written |
//! | `rows`, `view` | rows into a file, and a file's rows at hand |
//! | [`draft`] | one range while it is gathered, and where it ends. Pure |
//! | `rebuild` | rows back into records. Pure |
//! | [`manifest`] | what is committed. Pure |
//! | [`forget`] | leaving a viewer out. Pure |
//! | `choose` | what to make one, and what to let go. Pure |
//! | [`shelf`] | where files lie: a directory or a bucket |
//! | [`reader`] | a source's records in order, from the files of all days |
//! | [`archiver`] | [`Archive`]: acts |
//! | [`verify`] | whether the archive is the log |
//! | [`metrics`] | what it shows to Prometheus |
//! | [`error`] | [`ArchiveError`] |

mod added;
pub mod archiver;
mod choose;
pub mod columns;
pub mod day;
pub mod draft;
pub mod error;
pub mod forget;
pub mod manifest;
pub mod metrics;
pub mod piece;
pub mod reader;
mod rebuild;
mod rows;
pub mod shelf;
pub mod verify;
mod view;

pub use archiver::{Archive, ArchiveOptions, Step};
pub use draft::{Draft, RangeBounds};
pub use error::ArchiveError;
pub use manifest::{ArchiveChange, ArchiveFile, ArchiveHead, Manifest};
pub use metrics::ArchiveMetrics;
pub use reader::Reader;
pub use shelf::{BucketOptions, Shelf};
