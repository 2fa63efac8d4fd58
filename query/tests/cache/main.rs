//! What the cache of pieces promises: one reading for all who wait, nothing older than it may be, and answers while the store is away.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "a test fails by panicking")]

mod gated;
mod scene;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use query::QueryLimits;
use query::read::ReadError;
use query::standing::Lasts;
use schemas::{Source, Tier};

use gated::Gate;
use scene::{Scene, video};

/// A complete hour and one that is not, of the day of [`scene::NOW`].
const SEALED: (&str, &str) = ("2026-05-04T08:00:00Z", "2026-05-04T10:00:00Z");
const OPEN: (&str, &str) = ("2026-05-05T11:00:00Z", "2026-05-05T12:30:00Z");

async fn scene() -> Scene {
    let scene = Scene::new(QueryLimits::default());
    scene.close("2026-05-05T12:00:00Z").await;
    scene.write(&video("v"), Tier::Hour, "2026-05-04T09:00:00Z", 4).await;
    scene.write(&video("v"), Tier::Hour, "2026-05-05T11:00:00Z", 10).await;
    scene.write(&video("v"), Tier::Minute, "2026-05-05T12:00:00Z", 1).await;
    scene
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_misses_at_once_are_one_reading() {
    let scene = Arc::new(scene().await);
    scene.store.set(Gate::ShutForSlices);
    let asked: Vec<_> = (0..1_000)
        .map(|_| {
            let scene = Arc::clone(&scene);
            tokio::spawn(async move { scene.views(&video("v"), OPEN, 0).await })
        })
        .collect();
    while scene.metrics.pieces().2 < 999 * 2 {
        tokio::task::yield_now().await;
    }
    scene.store.set(Gate::Open);
    for answer in join_all(asked).await {
        assert_eq!(answer.unwrap(), 11);
    }
    assert_eq!((scene.store.checkpoints(), scene.store.slices()), (1, 2), "a slice of hours and one of minutes");
    assert_eq!(scene.metrics.pieces(), (0, 2, 999 * 2));
}

#[tokio::test]
async fn what_is_open_lives_for_an_epoch_and_what_is_complete_until_it_is_touched() {
    let scene = scene().await;
    let v = video("v");
    assert_eq!((scene.views(&v, OPEN, 0).await, scene.views(&v, SEALED, 0).await), (11, 4));
    scene.store.slices();
    scene.write(&v, Tier::Minute, "2026-05-05T12:00:00Z", 2).await;
    scene.write(&v, Tier::Hour, "2026-05-04T09:00:00Z", 5).await;
    assert_eq!((scene.views(&v, OPEN, 199).await, scene.views(&v, SEALED, 199).await, scene.store.slices()), (11, 4, 0));
    assert_eq!((scene.views(&v, OPEN, 200).await, scene.store.slices()), (12, 2));
    assert_eq!((scene.views(&v, SEALED, 4_000).await, scene.store.slices()), (4, 0), "nobody has announced it");
    scene.announce("2026-05-04T00:00:00Z", 7).await;
    assert_eq!(scene.views(&v, SEALED, 4_999).await, 4);
    assert_eq!(
        (scene.views(&v, SEALED, 5_000).await, scene.store.slices()),
        (5, 1),
        "each second it is looked whether there is something new"
    );
    scene.announce("2026-05-03T00:00:00Z", 8).await;
    assert_eq!((scene.views(&v, SEALED, 9_000).await, scene.store.slices()), (5, 0), "another day");
    let lasts = async |range| scene.sums(&v, range, 9_000).await.unwrap().standing.lasts;
    assert_eq!((lasts(OPEN).await, lasts(SEALED).await), (Lasts::Open, Lasts::Complete));
}

#[tokio::test]
async fn questions_by_other_steps_and_ranges_share_pieces() {
    let scene = scene().await;
    let v = video("v");
    scene.views(&v, ("2026-05-04T00:00:00Z", "2026-05-04T23:00:00Z"), 0).await;
    scene.store.slices();
    assert_eq!(scene.views(&v, ("2026-05-04T09:00:00Z", "2026-05-04T17:00:00Z"), 0).await, 4);
    assert_eq!(scene.store.slices(), 0);
    assert_eq!(scene.views(&video("w"), SEALED, 0).await, 0, "another video");
    assert_eq!(scene.store.slices(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reading_that_began_before_a_change_was_noticed_is_thrown_away() {
    let scene = Arc::new(scene().await);
    scene.store.set(Gate::ShutForSlices);
    let ask = |at_ms| {
        let scene = Arc::clone(&scene);
        tokio::spawn(async move { scene.views(&video("v"), SEALED, at_ms).await })
    };
    let before = ask(0);
    while scene.store.slices() == 0 {
        tokio::task::yield_now().await;
    }
    scene.announce("2026-05-04T09:00:00Z", 7).await;
    let after = ask(1_000);
    while scene.metrics.pieces().2 == 0 {
        tokio::task::yield_now().await;
    }
    scene.store.set(Gate::Open);
    assert_eq!((before.await.unwrap(), after.await.unwrap()), (4, 4));
    assert_eq!(scene.store.slices(), 1, "who knows of the change reads again");
    assert_eq!((scene.views(&video("v"), SEALED, 1_100).await, scene.store.slices()), (4, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_away_takes_nothing_from_others() {
    let scene = Arc::new(scene().await);
    scene.store.set(Gate::ShutForSlices);
    let ask = || {
        let scene = Arc::clone(&scene);
        tokio::spawn(async move { scene.views(&video("v"), SEALED, 0).await })
    };
    let first = ask();
    while scene.metrics.pieces().1 == 0 {
        tokio::task::yield_now().await;
    }
    let second = ask();
    while scene.metrics.pieces().2 == 0 {
        tokio::task::yield_now().await;
    }
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    scene.store.set(Gate::Open);
    assert_eq!((second.await.unwrap(), scene.store.slices()), (4, 1));
}

#[tokio::test]
async fn a_failed_reading_fails_for_all_who_wait_and_is_not_kept() {
    let scene = scene().await;
    scene.sums(&video("w"), SEALED, 0).await.unwrap();
    scene.store.set(Gate::Broken);
    let v = video("v");
    let failed = join_all((0..3).map(|_| scene.sums(&v, SEALED, 100))).await;
    assert!(failed.iter().all(|answer| matches!(answer, Err(ReadError::Store(_)))), "{failed:?}");
    scene.store.set(Gate::Open);
    assert_eq!(scene.views(&v, SEALED, 100).await, 4);
}

#[tokio::test]
async fn while_the_store_is_away_what_is_held_answers_with_its_age_and_what_is_not_fails_at_once() {
    for gate in [Gate::Broken, Gate::Shut] {
        let scene = scene().await;
        let v = video("v");
        assert_eq!((scene.views(&v, OPEN, 0).await, scene.views(&v, SEALED, 0).await), (11, 4));
        scene.store.set(gate);
        let stale = |sums: query::read::Sums| (sums.counts[0].gross, sums.standing.stale.map(|age| age.as_millis()));
        assert_eq!(stale(scene.sums(&v, OPEN, 1_000).await.unwrap()), (11, Some(1_000)));
        assert_eq!(stale(scene.sums(&v, SEALED, 5_000).await.unwrap()), (4, None), "changes show within 5 s, and these are not over");
        assert_eq!(stale(scene.sums(&v, SEALED, 5_001).await.unwrap()), (4, Some(5_001)));
        let asked = std::time::Instant::now();
        let error = scene.sums(&video("w"), OPEN, 5_200).await.unwrap_err();
        assert!(matches!(error, ReadError::Store(_)), "{error}");
        assert!(asked.elapsed() < Duration::from_millis(900), "{:?}", asked.elapsed());
        scene.write(&v, Tier::Minute, "2026-05-05T12:00:00Z", 3).await;
        scene.store.set(Gate::Open);
        while scene.sums(&v, OPEN, 6_000).await.unwrap().standing.stale.is_some() {
            tokio::task::yield_now().await;
        }
        assert_eq!(scene.views(&v, OPEN, 6_000).await, 13);
    }
}

#[tokio::test]
async fn readings_under_way_end_when_the_store_is_found_away() {
    let scene = Arc::new(scene().await);
    scene.store.set(Gate::ShutForSlices);
    let waiting = tokio::spawn({
        let scene = Arc::clone(&scene);
        async move { scene.sums(&video("v"), SEALED, 0).await }
    });
    while scene.metrics.pieces().1 == 0 {
        tokio::task::yield_now().await;
    }
    scene.store.set(Gate::Shut);
    assert!(scene.sums(&video("w"), SEALED, 400).await.is_err());
    assert!(waiting.await.unwrap().is_err());
}

#[tokio::test]
async fn after_a_long_silence_and_with_other_sources_everything_is_read_anew() {
    let scene = scene().await;
    let v = video("v");
    scene.views(&v, SEALED, 0).await;
    scene.store.slices();
    assert_eq!((scene.views(&v, SEALED, 299_999).await, scene.store.slices()), (4, 0));
    assert_eq!((scene.views(&v, SEALED, 599_999).await, scene.store.slices()), (4, 1), "an announcement may have come and gone");
    let ended = scene.store.store.read_checkpoints().await.unwrap().remove(0).1;
    scene.store.store.write_checkpoint(Source(7), ended).await.unwrap();
    assert_eq!((scene.views(&v, SEALED, 600_200).await, scene.store.slices()), (4, 1));
}

#[tokio::test]
async fn it_stays_within_its_bytes() {
    let scene = Scene::new(QueryLimits { cache_bytes: 64 << 10, ..QueryLimits::default() });
    scene.close("2026-05-05T12:00:00Z").await;
    for n in 0..400 {
        scene.sums(&video(&format!("v{n}")), SEALED, 0).await.unwrap();
    }
    let all_minutes = ("2026-05-01T00:01:00Z", "2026-05-04T00:00:00Z");
    scene.sums(&video("v"), all_minutes, 0).await.unwrap();
    assert!((1..=48 << 10).contains(&scene.cache.held_bytes()), "{}", scene.cache.held_bytes());
}
