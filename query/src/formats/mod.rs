//! The forms that an answer comes in: JSON, or the same rows as CSV or as an Arrow stream.
//!
//! ```text
//! Accept, ?format ──> accept ──> Format ──┬── JSON: the body's own
//!                                         └── a Table (columns in Arrow's types) ──> render ──> CSV | Arrow IPC, batch by batch
//! ```
//!
//! An answer that can be a table says so by [`Tabular`]; `Answer::respond` does the rest. What JSON says beside the rows, such as
//! `complete_through`, is in the table's metadata: in Arrow the schema's, and for all to see a header.

mod accept;
mod render;
mod table;

pub(crate) use accept::Format;
pub(crate) use table::{Table, Tabular, count, date, flag, text, time, times};
