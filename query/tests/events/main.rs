//! Events as they are, late and early and twice, folded by real owners into the embedded store, and asked for through the cache at any moment
//! of a flush: every plan of tiers gives the sum of the counted events, and no count falls.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "a test fails by panicking")]

mod world;

use std::sync::Arc;

use aggregator::EmbeddedStore;
use aggregator::embedded::StoreOptions;
use proptest::prelude::*;
use schemas::LogId;

use world::{World, act};

/// A directory in memory where there is one: these tests ask what is read, not what outlives a crash.
fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn every_answer_is_the_sum_of_the_counted_events_and_never_falls(acts in prop::collection::vec(act(), 1..120)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let dir = scratch();
        let store = EmbeddedStore::open(StoreOptions::new(dir.path(), LogId("log".into()))).unwrap();
        runtime.block_on(World::new(Arc::new(store)).run(&acts));
    }
}
