//! Connections that are slow, swallow bytes, are refused or cut, between every pair.

use std::time::{Duration, Instant};

use test_servers::Proxy;

use crate::scene::{Bounds, Scene, under_load};
use crate::stage::{clusters, either};

const FRESH: Duration = Duration::from_secs(30);
const BOUNDS: Bounds = Bounds { fresh: FRESH, silence_of_log: FRESH, silence_of_answers: FRESH };

/// Slow, then a black hole, then cut, and each time it must go on.
fn trouble(scene: &mut Scene, proxies: &[&Proxy]) {
    let hole = either(Duration::from_secs(2), Duration::from_secs(12));
    proxies.iter().for_each(|proxy| proxy.delay(Duration::from_millis(40)));
    scene.go_on(either(Duration::from_secs(1), Duration::from_secs(5)));
    proxies.iter().for_each(|proxy| proxy.drop_bytes(true));
    scene.go_on(hole);
    proxies.iter().for_each(|proxy| proxy.heal());
    let healed = Instant::now();
    scene.struck(healed);
    for _ in 0..either(2, 5) {
        scene.go_on_up_to(Duration::from_millis(600));
        proxies.iter().for_each(|proxy| proxy.sever());
    }
    proxies.iter().for_each(|proxy| proxy.refuse(true));
    proxies.iter().for_each(|proxy| proxy.sever());
    scene.go_on(either(Duration::from_secs(1), Duration::from_secs(5)));
    proxies.iter().for_each(|proxy| proxy.heal());
    let healed = Instant::now();
    scene.struck(healed);
}

#[test]
fn bad_connections_between_producers_and_collectors_lose_and_double_nothing() {
    under_load("bad connections: producers and collectors", BOUNDS, |scene| {
        let doors = std::mem::take(&mut scene.doors);
        trouble(scene, &doors.iter().collect::<Vec<_>>());
        scene.doors = doors;
    });
}

#[test]
fn bad_connections_to_the_brokers_lose_and_double_nothing() {
    under_load("bad connections: all processes and brokers, one and then all", BOUNDS, |scene| {
        let (kafka, _) = clusters();
        trouble(scene, &[kafka.proxy(1)]);
        trouble(scene, &kafka.proxies().iter().collect::<Vec<_>>());
    });
}

#[test]
fn bad_connections_to_the_nodes_lose_and_double_nothing() {
    under_load("bad connections: aggregators, queries and nodes, one and then all", BOUNDS, |scene| {
        let (_, cassandra) = clusters();
        trouble(scene, &[cassandra.proxy(1)]);
        trouble(scene, &cassandra.proxies().iter().collect::<Vec<_>>());
    });
}
