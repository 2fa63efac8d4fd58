//! How events come in: the log they are kept in, and the HTTP collector that puts them there.
//!
//! ```text
//! POST /v1/events ──> collect ──> EventLog::append ──> durable ──> 202
//!                                 EventLog::read ──> the aggregator's folds
//! ```
//!
//! | module | holds |
//! |---|---|
//! | [`log`] | [`EventLog`]: the seam to the log |
//! | [`membership`] | [`Membership`]: which sources this process folds |
//! | [`embedded`] | [`EmbeddedLog`]: the log on this machine's disk |
//! | `kafka` | `KafkaLog`: the log on Kafka, for many machines (feature `kafka`) |
//! | [`conformance`] | what every log must do, as one suite over any implementation |
//! | [`caller`] | [`ClientAddress`], [`CallerKey`]: who sent a request |
//! | [`rate`] | how much of one caller is taken each second |
//! | [`collect`] | the collector: `POST /v1/events` with a verdict for each event |
//! | [`spool`] | [`Spool`]: a place on disk for events while the log is away |
//! | [`problem`] | [`Problem`]: the one form of an HTTP error |

pub mod caller;
pub mod collect;
pub mod conformance;
pub mod embedded;
#[cfg(feature = "kafka")]
pub mod kafka;
pub mod log;
pub mod membership;
pub mod problem;
pub mod rate;
pub mod spool;

pub use caller::{CallerKey, ClientAddress};
pub use embedded::{EmbeddedLog, LogOptions};
pub use log::{Appended, Ends, EventLog, LogError, RUN_BYTES, RUN_RECORDS, ReadLimit};
pub use membership::{Assignment, Membership};
pub use problem::Problem;
pub use spool::{Spool, SpoolOptions};
