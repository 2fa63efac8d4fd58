//! The cache of the query service over Cassandra: the sums of random events at any moment of a flush, and what it answers when no node does.

use std::sync::Arc;
use std::time::{Duration, Instant};

use aggregator::cassandra::{CassandraOptions, CassandraStore, MigratePlan, migrate};
use schemas::{FoldSettings, LogId};
use test_servers::CassandraCluster;

use crate::dice::Dice;
use crate::world::{self, Act, DAY_MS, World};

async fn store(cluster: &CassandraCluster, keyspace: &str) -> Arc<CassandraStore> {
    let plan = MigratePlan { replication: 1, log_id: LogId("log".into()), settings: FoldSettings::default(), fill_lists: false };
    let options = CassandraOptions { nodes: cluster.contacts(), keyspace: keyspace.to_owned(), ..CassandraOptions::default() };
    migrate(&options, &plan).await.unwrap();
    Arc::new(CassandraStore::open(options, plan.log_id, &plan.settings).await.unwrap())
}

/// What the embedded store's test of the same events draws, about as often.
fn act(dice: &mut Dice) -> Act {
    let (source, video) = (dice.below(2), dice.below(2));
    match dice.below(31) {
        0..6 => {
            let before_ms = (0..=dice.below(5)).map(|_| before_ms(dice)).collect();
            Act::Events { source, video, before_ms, twice: dice.percent(50), historical: false }
        }
        6 => {
            let before_ms = (0..=dice.below(3)).map(|_| dice.between(0, 500 * DAY_MS - 1)).collect();
            Act::Events { source, video, before_ms, twice: false, historical: true }
        }
        7..11 => Act::Wait(if dice.percent(50) { dice.between(1, 1_500) } else { dice.between(1_000, 180_000) }),
        11..19 => Act::Work { source, steps: 1 + dice.below(7) },
        19..21 => Act::Settle,
        _ => {
            let end = if dice.percent(50) { dice.between(-60, 10) } else { dice.between(-40_000, 90) };
            let length = if dice.percent(50) { dice.between(1, 200) } else { dice.pick(&[1_440, 60_000, 1_200_000]) };
            let (step, zone) = (dice.below(9), dice.below(chrono_tz::TZ_VARIANTS.len()));
            let minutes = |number: i64| i32::try_from(number).unwrap();
            Act::Ask { entity: dice.below(4), end: minutes(end), length: minutes(length), step, zone }
        }
    }
}

/// How long before now an event happened: mostly just now.
fn before_ms(dice: &mut Dice) -> i64 {
    match dice.below(11) {
        0..6 => dice.between(-50_000, 120_000),
        6..9 => dice.between(0, 3 * 3_600_000),
        _ => dice.between(0, 6 * DAY_MS),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sums_are_those_of_the_counted_events_and_go_on_with_their_age_when_no_node_answers() {
    if test_servers::skipped() {
        return;
    }
    let cluster = tokio::task::spawn_blocking(|| CassandraCluster::start_behind_proxies(1)).await.unwrap();
    for case in 0..4 {
        let mut dice = Dice::new(case);
        let acts: Vec<Act> = (0..80).map(|_| act(&mut dice)).collect();
        World::new(store(&cluster, &format!("events{case}")).await).run(&acts).await;
    }
    goes_on(&cluster).await;
}

async fn goes_on(cluster: &CassandraCluster) {
    let mut world = World::new(store(cluster, "away").await);
    world.run(&[world::some_views()]).await;
    let all = world.total().await.unwrap();
    assert!(all.0 > 0 && all.1.is_none());
    cluster.proxy(0).refuse(true);
    cluster.proxy(0).sever();
    world.wait(1_000);
    let cut = Instant::now();
    let (views, stale) = world.total().await.unwrap();
    assert_eq!(views, all.0);
    assert!(stale.is_some_and(|age| age >= Duration::from_secs(1)), "{stale:?}");
    assert!(cut.elapsed() < Duration::from_secs(5), "{:?}", cut.elapsed());
    world.wait(1_000);
    let asked = Instant::now();
    assert!(world.never_asked().await.is_err());
    assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
    cluster.proxy(0).heal();
    while world.total().await.unwrap().1.is_some() {
        assert!(cut.elapsed() < Duration::from_secs(60));
        tokio::time::sleep(Duration::from_millis(50)).await;
        world.wait(200);
    }
    assert_eq!(world.total().await.unwrap(), all);
}
