//! The deterministic simulation: the real owner and fold, the real store, and everything around them that can go wrong.
//!
//! A seed decides all of a run: the rules and limits, what producers send, when owners start, go on and die, which
//! messages are late, lost, half done or done twice, and what a reader asks meanwhile. Each seed is run twice and must
//! leave the same trace.
//!
//! | module | holds |
//! |---|---|
//! | [`world`] | one run: what happens next |
//! | [`seat`] | owners and their messages, as a worker handles them, with faults |
//! | [`log`], [`disk`], [`reader`] | the log; the store with the judgement of every write; the reader of counts |
//! | [`workload`], [`json`] | what producers send, as bytes and as what they mean |
//! | [`meaning`], [`auditor`], [`calendar`] | the recount by definition, which shares no code with the fold |
//! | [`judge`] | the quiet end: what must hold then |
//!
//! What the simulation has been seen to catch, each broken alone in the program (or, where it says so, in the test's reader):
//!
//! * recovery: the rewind without the deduplication window, or without `max_skew` (also without the check of `warm_from`);
//!   warm-up that rebuilds nothing, makes cells dirty, or is forgotten by the next checkpoint; a restart that forgets the stamp
//! * clock: the append time instead of the log clock; a historical event in the future; closing after a record's own events
//! * ids: a duplicate that does not refresh its last-seen minute; ids of rejected events that are remembered
//! * cells: no skip of changes below the loaded version; closed cells that are not loaded; eviction of cells in flight, of
//!   dirty cells, or of none; a change of an expired bucket; `through` of another moment than the change's
//! * corrections: adjustments without their count; a mark that does not collect what comes since; a set under any mark
//! * flush: the checkpoint before the rows; a failed write taken as done; parked changes left behind; minutes before rollups
//!   (also seen by the reader alone); dead letters not awaited; a checkpoint of another position; a drained owner that leaves
//!   its flush behind; no bound on what waits; no retry of a failed load; a deadline that forgets the flush
//! * announcements: before the rows, after the checkpoint, or only of changes that a cell takes; a year's repair said to be of one day
//! * store and queries: a lower stamp that wins; rows by bucket that are not those of the rollups; `through` ignored by the test's reader or by the query planner
//!
//! `make sim SEED=n` repeats one seed and tells what happens; `make soak SEEDS=n` runs more of them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "a simulation stops at the first thing that is not as it must be"
)]

mod auditor;
mod calendar;
mod cover;
mod dice;
mod disk;
mod json;
mod judge;
mod log;
mod meaning;
mod reader;
mod seat;
mod trace;
mod workload;
mod world;

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;

use aggregator::EmbeddedStore;
use aggregator::embedded::StoreOptions;
use schemas::{LogId, Source};

use cover::Cover;
use disk::Disk;
use world::World;

/// Runs that share a store, each with sources of its own: opening one for each run would be slow.
const RUNS_PER_STORE: u64 = 16;

/// What must have occurred in any hundred seeds, or the workload has become too tame.
const CASES: &[&str] = &[
    "adjustment taken",
    "answer to the dead",
    "append time goes back",
    "bad_correction",
    "bad_id",
    "bad_json",
    "bad_ts",
    "change skipped by TTL",
    "checkpoint of an owner that lags behind",
    "crash in the middle of a flush",
    "crash while recovering",
    "crash with changes that are not stored",
    "duplicate at the window's edge",
    "duplicate only by its last copy",
    "evicted cell comes back",
    "failed load",
    "historical event in the future",
    "in_future",
    "late change announced",
    "late event or adjustment",
    "late write that no longer matters",
    "loaded row is ahead of its owner",
    "minute closed",
    "minute_open",
    "missing_field",
    "owner hands over",
    "owner overtaken by retention",
    "partial write",
    "pause by backpressure",
    "query answered",
    "range queried",
    "repair over later changes",
    "repeated or late write",
    "same id just beyond the window",
    "set without its mark",
    "stale_adjustment",
    "start from an overtaken checkpoint",
    "store outage",
    "tick",
    "too_old",
    "ts_in_seconds",
    "two owners at once",
    "unknown_kind",
    "unknown_record",
    "warm-up rebuilds a minute of before the watermark",
    "warm-up rebuilds an open minute",
    "write reported as failed",
    "wrong_type",
];

fn open_store(dir: &Path) -> EmbeddedStore {
    let log_id = LogId("simulation".into());
    EmbeddedStore::open(StoreOptions::new(dir, log_id)).expect("a store in a new directory")
}

/// One run of a seed, with the two sources `first` and `first + 1` after `others` of the same log. Returns the hash of all that happened.
fn run(seed: u64, store: &EmbeddedStore, first: u32, others: u32, verbose: bool, cover: &mut Cover) -> u64 {
    let source = first + others;
    let mut world = World::new(seed, Disk::new(store, Source(source)), verbose);
    world.is_alone = others == 0;
    world.run();
    world.settle();
    world.judge(Disk::new(store, Source(source + 1)), i64::from(others) + 2);
    cover.merge(&world.cover);
    cover.merge(&world.auditor.cover);
    cover.add("steps traced", world.trace.lines);
    cover.add("records", world.log.end());
    cover.add("events", world.auditor.last().tally.read);
    world.trace.hash()
}

/// Runs each seed twice.
fn run_seeds(seeds: Range<u64>, verbose: bool) -> Cover {
    // Memory, where there is such a directory: every write is synced.
    let memory = Path::new("/dev/shm");
    let dir = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    let dir = dir.expect("a temporary directory");
    let mut cover = Cover::default();
    let mut store = None;
    for (run_nr, seed) in (0u64..).zip(seeds) {
        if run_nr.is_multiple_of(RUNS_PER_STORE) {
            store = Some(open_store(&dir.path().join(run_nr.to_string())));
        }
        let store = store.as_ref().expect("a store was opened");
        let first = u32::try_from(run_nr % RUNS_PER_STORE).unwrap() * 4;
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let once = run(seed, store, first, 0, verbose, &mut cover);
            let again = run(seed, store, first, 2, false, &mut Cover::default());
            assert_eq!(once, again, "two runs of one seed differ");
        }));
        if let Err(why) = outcome {
            eprintln!("seed {seed} failed; to repeat it:\n    make sim SEED={seed}");
            resume_unwind(why);
        }
    }
    cover
}

fn hold(seeds: Range<u64>) {
    let cover = run_seeds(seeds, false);
    let missing = cover.missing(CASES);
    assert!(missing.is_empty(), "the workload never brought about {missing:?}; it did:\n{}", cover.report());
}

#[test]
fn the_invariants_hold_in_seeds_0_to_127() {
    hold(0..128);
}

#[test]
fn the_invariants_hold_in_seeds_128_to_255() {
    hold(128..256);
}

#[test]
fn the_invariants_hold_in_seeds_256_to_383() {
    hold(256..384);
}

#[test]
fn the_invariants_hold_in_seeds_384_to_511() {
    hold(384..512);
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

/// `make sim SEED=n`: tells everything that happens.
#[test]
fn one_seed() {
    match number("SEED") {
        Some(seed) => eprintln!("{}seed {seed} holds", run_seeds(seed..seed + 1, true).report()),
        None => eprintln!("SEED is not set: make sim SEED=n"),
    }
}

/// `make soak SEEDS=n`: as many seeds, from `FIRST_SEED` or 1,000 on.
#[test]
fn soak() {
    let Some(seeds) = number("SEEDS") else { return eprintln!("SEEDS is not set: make soak SEEDS=n") };
    let first = number("FIRST_SEED").unwrap_or(1_000);
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|n| scope.spawn(move || run_seeds(first + seeds * n / threads..first + seeds * (n + 1) / threads, false)))
            .collect();
        let mut cover = Cover::default();
        workers.into_iter().for_each(|worker| cover.merge(&worker.join().expect("every seed holds")));
        eprintln!("{}{seeds} seeds from {first} hold", cover.report());
    });
}
