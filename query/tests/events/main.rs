//! Events as they are, late and early and twice, folded by real owners into the embedded store, and asked for through the cache at any moment
//! of a flush: every plan of tiers gives the sum of the counted events, and no count falls.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "a test fails by panicking")]

mod world;

use std::sync::Arc;

use aggregator::EmbeddedStore;
use aggregator::embedded::StoreOptions;
use proptest::prelude::*;
use schemas::LogId;

use world::{Act, DAY_MS, World};

/// A directory in memory where there is one: these tests ask what is read, not what outlives a crash.
fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// A number of days before now: mostly none.
fn before_ms() -> impl Strategy<Value = i64> {
    prop_oneof![6 => -50_000..120_000i64, 3 => 0..3 * 3_600_000i64, 2 => 0..6 * DAY_MS]
}

fn act() -> impl Strategy<Value = Act> {
    let source = 0..2usize;
    let events = (source.clone(), 0..2usize, prop::collection::vec(before_ms(), 1..6), any::<bool>());
    let history = (source.clone(), 0..2usize, prop::collection::vec(0..500 * DAY_MS, 1..4));
    prop_oneof![
        6 => events.prop_map(|(source, video, before_ms, twice)| Act::Events { source, video, before_ms, twice, historical: false }),
        1 => history.prop_map(|(source, video, before_ms)| Act::Events { source, video, before_ms, twice: false, historical: true }),
        4 => prop_oneof![1..1_500i64, 1_000..180_000i64].prop_map(Act::Wait),
        8 => (source, 1..8usize).prop_map(|(source, steps)| Act::Work { source, steps }),
        2 => Just(Act::Settle),
        10 => (0..4usize, prop_oneof![-60..10i32, -40_000..90i32], prop_oneof![1..200i32, 1..60_000i32, Just(1_200_000)], 0..9usize, 0..chrono_tz::TZ_VARIANTS.len())
            .prop_map(|(entity, end, length, step, zone)| Act::Ask { entity, end, length, step, zone }),
    ]
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
