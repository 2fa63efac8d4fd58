//! What is asked of real Cassandra through the query service: counts from the cache, lists and reports, keys, refused events, and what
//! goes on when no node answers.

#![cfg(feature = "cassandra")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "a test fails by panicking")]

#[cfg(feature = "kafka")]
mod adjusted;
mod cached;
#[path = "../simulation/dice.rs"]
#[allow(
    dead_code,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "the simulation's, which needs more of it"
)]
mod dice;
#[path = "../../query/tests/folded/mod.rs"]
mod folded;
#[cfg(feature = "kafka")]
mod keys;
#[cfg(feature = "kafka")]
#[path = "../place/mod.rs"]
mod place;
#[cfg(feature = "kafka")]
mod rejected;
#[cfg(feature = "kafka")]
#[path = "../keys/scene.rs"]
#[allow(dead_code, reason = "that of the tests of keys, which need more of it")]
mod scene;
#[cfg(feature = "kafka")]
#[path = "../support/mod.rs"]
mod support;
mod top;
#[path = "../../query/tests/events/world.rs"]
mod world;
