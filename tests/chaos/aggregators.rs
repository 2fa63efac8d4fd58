//! Aggregators die, sleep through their session, come and go.

use std::time::{Duration, Instant};

use crate::program::Program;
use crate::scene::{Bounds, under_load};
use crate::stage::{RECOVERY, SESSION, either};

/// A dead aggregator's sources are others' after the session timeout; acknowledgements and answers do not need it.
const SETTLED: Duration = SESSION.saturating_add(RECOVERY);
/// Who dies while the group divides the sources anew is missed by it for two timeouts: Kafka lets a member that waits for its share live on.
const BOUNDS: Bounds =
    Bounds { fresh: SETTLED.saturating_add(SESSION), silence_of_log: Duration::from_secs(3), silence_of_answers: Duration::from_secs(3) };

#[test]
fn an_aggregator_that_is_killed_at_any_moment_costs_no_count_and_little_time() {
    under_load("kill -9 of one or all aggregators", BOUNDS, |scene| {
        for kill in 1..=either(5, 50) {
            // Every third time all of them, every second time when the sources are shared out.
            let (all, settled) = (kill % 3 == 0, kill % 2 == 1);
            if settled {
                scene.await_shared();
            }
            scene.go_on_up_to(Duration::from_millis(2_500));
            let one = usize::try_from(scene.dice.below(2)).unwrap();
            let struck = Instant::now();
            let hit = |number: usize| all || number == one;
            scene.aggregators.iter_mut().enumerate().filter(|(number, _)| hit(*number)).for_each(|(_, aggregator)| aggregator.kill());
            if all {
                scene.aggregators.iter_mut().for_each(Program::start);
            }
            let fresh = scene.struck(struck);
            assert!(!settled || fresh <= SETTLED, "kill {kill}: a fresh answer took {fresh:?}, allowed are {SETTLED:?}");
            scene.aggregators.iter_mut().for_each(Program::start);
        }
        scene.aggregators.iter_mut().for_each(Program::await_ready);
    });
}

#[test]
fn an_aggregator_that_sleeps_longer_than_its_session_and_goes_on_writing_changes_nothing() {
    under_load("SIGSTOP of an aggregator beyond its session, then SIGCONT", BOUNDS, |scene| {
        for round in 0..either(1, 6) {
            let sleeper = round % 2;
            scene.await_shared();
            scene.go_on_up_to(Duration::from_millis(1_500));
            let struck = Instant::now();
            scene.aggregators[sleeper].signal("STOP");
            let fresh = scene.struck(struck);
            assert!(fresh <= SETTLED, "a fresh answer took {fresh:?}, allowed are {SETTLED:?}");
            scene.go_on((SESSION + Duration::from_secs(2)).saturating_sub(struck.elapsed()));
            // Now it still believes that the sources are its own, and writes.
            let woken = Instant::now();
            scene.aggregators[sleeper].signal("CONT");
            scene.struck(woken);
            scene.aggregators[sleeper].await_ready();
        }
    });
}

#[test]
fn aggregators_that_come_and_go_share_the_sources_and_leave_no_gap() {
    // Whoever leaves says so, and nobody waits for a session to end; but the next owner has to read back before it goes on.
    let bounds = Bounds { fresh: SETTLED, ..BOUNDS };
    under_load("aggregators added and removed", bounds, |scene| {
        for round in 0..either(1, 5) {
            let (mut third, mut fourth) =
                (scene.program(&format!("aggregate-3-{round}"), "aggregate"), scene.program(&format!("aggregate-4-{round}"), "aggregate"));
            let struck = Instant::now();
            third.start_ready();
            fourth.start_ready();
            scene.struck(struck);
            scene.await_shared_by(&scene.aggregators.iter().chain([&third, &fourth]).collect::<Vec<_>>());
            let struck = Instant::now();
            scene.aggregators[0].stop();
            scene.struck(struck);
            let struck = Instant::now();
            third.stop();
            scene.struck(struck);
            scene.aggregators[0].start_ready();
            let struck = Instant::now();
            fourth.stop();
            scene.struck(struck);
        }
    });
}
