//! Brokers and nodes die: one of three, all nodes, everything.

use std::time::{Duration, Instant};

use crate::program::Program;
use crate::report::Report;
use crate::scene::{Bounds, under_load};
use crate::stage::{clusters, either, long};

/// Another broker leads, another replica answers: a few seconds.
const ONE_OF_THREE: Bounds =
    Bounds { fresh: Duration::from_secs(20), silence_of_log: Duration::from_secs(12), silence_of_answers: Duration::from_secs(6) };
/// What an outage of everything may cost after everything is back.
const BACK: Duration = Duration::from_secs(75);
/// By how much an aggregator's memory may grow while it cannot store anything.
const GROWTH_MIB: u64 = 256;

#[test]
fn a_broker_that_is_killed_stops_neither_acknowledgements_nor_counts() {
    under_load("kill -9 of one broker of three", ONE_OF_THREE, |scene| {
        let (kafka, _) = clusters();
        for _ in 0..either(1, 6) {
            scene.go_on_up_to(Duration::from_secs(1));
            let broker = usize::try_from(scene.dice.below(3)).unwrap();
            let struck = Instant::now();
            kafka.kill(broker);
            scene.struck(struck);
            scene.go_on(Duration::from_secs(2));
            kafka.restart(broker);
            kafka.wait_ready(broker);
            kafka.wait_in_sync();
            scene.await_fresh();
        }
    });
}

#[test]
fn a_node_that_is_killed_stops_neither_counts_nor_answers() {
    under_load("kill -9 of one Cassandra node of three", ONE_OF_THREE, |scene| {
        let (_, cassandra) = clusters();
        for _ in 0..either(1, 6) {
            scene.go_on_up_to(Duration::from_secs(1));
            let node = usize::try_from(scene.dice.below(3)).unwrap();
            let struck = Instant::now();
            cassandra.kill(node);
            scene.struck(struck);
            scene.go_on(Duration::from_secs(2));
            cassandra.restart(node);
            cassandra.wait_ready(node);
            scene.await_fresh();
        }
    });
}

#[test]
fn without_any_node_events_are_acknowledged_memory_is_bounded_and_afterwards_all_is_counted() {
    // To these come the 20 s or so that the nodes take to start.
    let outage = either(Duration::from_secs(5), Duration::from_secs(60));
    let bounds = Bounds { fresh: outage + BACK, silence_of_log: Duration::from_secs(3), silence_of_answers: outage + BACK };
    under_load("all Cassandra nodes down", bounds, |scene| {
        let (_, cassandra) = clusters();
        let before: u64 = scene.aggregators.iter().map(Program::memory_mib).max().unwrap_or(0);
        let struck = Instant::now();
        (0..3).for_each(|node| cassandra.kill(node));
        let mut most = before;
        while struck.elapsed() < outage {
            scene.go_on(Duration::from_millis(500));
            most = most.max(scene.aggregators.iter().map(Program::memory_mib).max().unwrap_or(0));
        }
        (0..3).for_each(|node| cassandra.restart(node));
        (0..3).for_each(|node| cassandra.wait_ready(node));
        let back = struck.elapsed();
        assert!(back >= Duration::from_secs(15), "the nodes were away for {back:?} only");
        scene.struck(struck);
        most = most.max(scene.aggregators.iter().map(Program::memory_mib).max().unwrap_or(0));
        Report::say(&format!(
            "the nodes answered again after {:.0} s; an aggregator had {before} MiB before and {most} MiB at most",
            back.as_secs_f64()
        ));
        assert!(most <= before + GROWTH_MIB, "an aggregator grew from {before} MiB to {most} MiB");
        scene.aggregators.iter_mut().for_each(Program::await_ready);
    });
}

#[test]
fn a_restart_of_everything_loses_nothing() {
    let long_time = Duration::from_secs(120);
    let bounds = Bounds { fresh: long_time, silence_of_log: long_time, silence_of_answers: long_time };
    under_load("a restart of everything", bounds, |scene| {
        let (kafka, cassandra) = clusters();
        let struck = Instant::now();
        scene.collectors.iter_mut().chain(&mut scene.aggregators).chain([&mut scene.query]).for_each(Program::kill);
        for node in 0..3 {
            kafka.kill(node);
            cassandra.kill(node);
        }
        for node in 0..3 {
            kafka.restart(node);
            cassandra.restart(node);
        }
        for node in 0..3 {
            kafka.wait_ready(node);
            cassandra.wait_ready(node);
        }
        scene.collectors.iter_mut().chain(&mut scene.aggregators).chain([&mut scene.query]).for_each(Program::start);
        scene.collectors.iter_mut().chain(&mut scene.aggregators).chain([&mut scene.query]).for_each(Program::await_ready);
        scene.struck(struck);
        kafka.wait_in_sync();
        if long() {
            scene.await_caught_up();
        }
    });
}
