#![doc = include_str!("../README.md")]
//!
//! # Map of the crate
//!
//! ```text
//! application ── view ──> queue ──> batch ──┬───────────> deliver ──> POST /v1/events ──> answer
//!                                           └── spool ──────┘                               │
//!                          pace: when?     observer: what became of them  <─────────────────┘
//! ```

pub mod blocking;

mod answer;
mod batch;
mod builder;
mod client;
mod deliver;
mod driver;
mod event;
mod observer;
mod pace;
mod queue;
mod spool;
mod view;

pub use answer::Cause;
pub use builder::{BuildError, Builder};
pub use client::{Client, Ended, Stats};
pub use event::{Event, Kind};
pub use observer::{DropReason, Dropped, LateRetry, Observer, Rejected, Retrying};
pub use spool::{Durability, SpoolError};
pub use view::{Outcome, View};
