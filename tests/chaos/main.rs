//! Faults on a real set of three brokers and three nodes, under a load of 5,000 events a second whose totals are known.
//!
//! After each fault every cell that the API shows, zeros too, must equal both what the producers noted and an independent recount of the topic.
//!
//! | module | holds |
//! |---|---|
//! | `aggregators`, `servers`, `network`, `topics` | the faults, one test each |
//! | `demo` | the demo as a producer that knows its totals, through killed brokers and collectors |
//! | `stage`, `scene` | the clusters; the processes on them, and how a fault is played |
//! | `load`, `notes` | producers, and what they noted |
//! | `probe`, `gap` | how fresh answers are, and whether something stood still |
//! | `recount`, `verdict`, `report` | counting again, comparing, saying what it cost |
//! | `program`, `small` | a process of the program, and one of each role |
//!
//! `cargo test --test chaos` runs the short form, `CHAOS=long cargo test --test chaos -- --nocapture` the long one. `SEED=n` chooses when
//! things happen.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
    reason = "a test stops at the first fault"
)]

mod aggregators;
mod columns;
mod demo;
mod gap;
mod load;
mod network;
mod notes;
mod probe;
mod program;
mod recount;
mod report;
mod scene;
mod servers;
mod small;
mod stage;
#[path = "../support/mod.rs"]
mod support;
mod topics;
mod verdict;
