//! The set that faults happen to: the program's processes on three brokers and three nodes, a load, a probe and a recount.
//!
//! Both clusters start once for all tests of this binary. The scene (a topic, a keyspace and the processes) is shared by the faults that leave
//! it whole, one after the other; a fault that fails takes it along, and the next one gets a new scene.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use test_servers::{Proxy, Scratch};

use crate::load::{Door, Load};
use crate::notes::Notes;
use crate::probe::Probe;
use crate::program::Program;
use crate::recount::Recount;
use crate::report::Report;
use crate::stage::{SOURCES, clusters, mend, migrated, seed, settings};
use crate::support::{Dice, await_some};
use crate::verdict::{compare, entities, get};

/// Events a second that are acknowledged at least, on average.
const RATE: f64 = 5_000.0;

/// A topic, a keyspace, and processes that serve them.
pub(crate) struct Scene {
    pub(crate) name: String,
    pub(crate) dice: Dice,
    pub(crate) collectors: Vec<Program>,
    pub(crate) aggregators: Vec<Program>,
    pub(crate) query: Program,
    /// Between producers and collectors.
    pub(crate) doors: Vec<Proxy>,
    pub(crate) door: Door,
    pub(crate) notes: Notes,
    load: Load,
    pub(crate) probe: Probe,
    recount: Recount,
    /// From a fault to the first fresh answer, the slowest.
    slowest: Duration,
    strikes: u32,
    /// When the present fault's test began, and what had been acknowledged before.
    begun: Instant,
    before: u64,
    pub(crate) directory: Scratch,
}

/// Runs a fault on the shared scene under load, then compares every cell and reports.
pub(crate) fn under_load(name: &str, bounds: Bounds, fault: impl FnOnce(&mut Scene)) {
    if test_servers::skipped() {
        return;
    }
    let mut shared = turn();
    let scene = shared.get_or_insert_with(Scene::new);
    scene.play(name, &bounds, fault);
}

/// Runs what needs the clusters but not the scene, while that is quiet.
pub(crate) fn alone(fault: impl FnOnce()) {
    if test_servers::skipped() {
        return;
    }
    let turn = turn();
    fault();
    drop(turn);
}

/// One fault after the other, on whole servers.
fn turn() -> MutexGuard<'static, Option<Scene>> {
    static SHARED: Mutex<Option<Scene>> = Mutex::new(None);
    SHARED.lock().unwrap_or_else(|failed| {
        SHARED.clear_poison();
        // The fault before has failed: nothing of it shall fail this one.
        let mut shared = failed.into_inner();
        if let Some(scene) = shared.take() {
            Report::say(&format!("the logs of the scene that failed are kept in {}", scene.keep().display()));
        }
        mend();
        shared
    })
}

/// What a fault may cost.
pub(crate) struct Bounds {
    /// From the fault to the first fresh answer.
    pub(crate) fresh: Duration,
    /// Without any acknowledgement.
    pub(crate) silence_of_log: Duration,
    /// Without any answer.
    pub(crate) silence_of_answers: Duration,
}

impl Scene {
    fn new() -> Self {
        static NUMBER: Mutex<u32> = Mutex::new(0);
        let number = {
            let mut number = NUMBER.lock().unwrap();
            *number += 1;
            *number
        };
        let (name, seed) = (format!("views{number}"), seed());
        let (kafka, _) = clusters();
        migrated(&name);
        let directory = Scratch::new("chaos").unwrap();
        let settings = settings(&name);
        let program = |name: &str, role| Program::new(directory.path(), name, role, &settings);
        let mut collectors = vec![program("collect-1", "collect"), program("collect-2", "collect")];
        let mut aggregators = vec![program("aggregate-1", "aggregate"), program("aggregate-2", "aggregate")];
        let mut query = program("query-1", "query");
        collectors.iter_mut().chain(&mut aggregators).chain([&mut query]).for_each(Program::start);
        collectors.iter_mut().chain(&mut aggregators).chain([&mut query]).for_each(Program::await_ready);
        let doors: Vec<Proxy> = collectors.iter().map(|collector| Proxy::before(collector.address()).unwrap()).collect();
        let door = Door::new(&doors.iter().map(Proxy::address).collect::<Vec<_>>());
        let notes = Notes::default();
        Report::say(&format!("scene {name}, seed {seed} (SEED={seed} repeats it)"));
        Self {
            dice: Dice(seed),
            load: Load::new(&name, seed, &door, &notes),
            probe: Probe::new(&name, SOURCES, &door, query.address(), &notes),
            recount: Recount::new(&kafka.direct(), &name),
            name,
            collectors,
            aggregators,
            query,
            doors,
            door,
            notes,
            slowest: Duration::ZERO,
            strikes: 0,
            begun: Instant::now(),
            before: 0,
            directory,
        }
    }

    fn play(&mut self, name: &str, bounds: &Bounds, fault: impl FnOnce(&mut Self)) {
        let begun = Instant::now();
        let before = self.notes.totals();
        (self.begun, self.before) = (begun, before.1);
        (self.slowest, self.strikes) = (Duration::ZERO, 0);
        self.door.gap.begin();
        self.load.run();
        self.probe.run();
        self.await_fresh();
        fault(self);
        let (log, answers) = (self.door.gap.longest(), self.probe.longest_silence());
        self.load.pause();
        self.probe.pause();
        let loaded = begun.elapsed();
        self.recount.read();
        self.await_counted();
        let difference = compare(self.query.address(), &entities(&self.probe.videos), &self.notes.cells(), &self.recount.cells);
        let (sent, acknowledged) = self.notes.totals();
        let report = Report {
            fault: name.to_owned(),
            strikes: self.strikes,
            sent: sent - before.0,
            acknowledged: acknowledged - before.1,
            per_second: (acknowledged - before.1) as f64 / loaded.as_secs_f64(),
            counted: difference.counted,
            expected: i64::try_from(sent).unwrap(),
            lost: difference.lost,
            doubled: difference.doubled,
            fresh: self.slowest,
            log,
            answers,
            took: begun.elapsed(),
        };
        report.print();
        assert!(difference.named.is_empty(), "{name}: cells differ:\n{}", difference.named.join("\n"));
        assert_eq!((sent, sent), (acknowledged, u64::try_from(difference.counted).unwrap()), "{name}: sent and acknowledged, counted");
        assert!(self.slowest <= bounds.fresh, "{name}: a fresh answer took {:?}, allowed are {:?}", self.slowest, bounds.fresh);
        assert!(log <= bounds.silence_of_log, "{name}: nothing was acknowledged for {log:?}, allowed are {:?}", bounds.silence_of_log);
        assert!(
            answers <= bounds.silence_of_answers,
            "{name}: nothing was answered for {answers:?}, allowed are {:?}",
            bounds.silence_of_answers
        );
        self.probe.complain();
    }

    /// From `struck` on answers may be old; waits until one is fresh: how long that took.
    pub(crate) fn struck(&mut self, struck: Instant) -> Duration {
        let fresh = self.probe.fresh_after(struck);
        self.slowest = self.slowest.max(fresh);
        self.strikes += 1;
        fresh
    }

    /// Waits until answers are fresh; no fault is blamed for it.
    pub(crate) fn await_fresh(&self) {
        self.probe.fresh_after(Instant::now());
    }

    /// Waits until what was due during an outage is sent, too: the load holds on average.
    pub(crate) fn await_caught_up(&self) {
        await_some("the producers have caught up", || {
            let acknowledged = self.notes.totals().1 - self.before;
            (acknowledged as f64 >= RATE * self.begun.elapsed().as_secs_f64()).then_some(())
        });
    }

    /// Goes on under load for so long.
    pub(crate) fn go_on(&self, time: Duration) {
        std::thread::sleep(time);
        self.probe.complain();
    }

    /// Some time that the dice choose, up to so long.
    pub(crate) fn go_on_up_to(&mut self, time: Duration) {
        let ms = self.dice.below(u64::try_from(time.as_millis()).unwrap());
        self.go_on(Duration::from_millis(ms));
    }

    /// Waits until every record that the recount has read is counted.
    fn await_counted(&self) {
        let mut last = serde_json::Value::Null;
        let begun = Instant::now();
        await_some("all is counted", || {
            last = get(self.query.address(), "/v1/status");
            let next = |source: i32| last.pointer(&format!("/sources/{source}/checkpoint/next_offset")).and_then(serde_json::Value::as_i64);
            assert!(begun.elapsed() < Duration::from_secs(90), "not all is counted: the topic ends at {:?}; {last:#}", self.recount.next());
            self.recount.next().iter().all(|(source, end)| *end == 0 || next(*source).is_some_and(|next| next >= *end)).then_some(())
        });
    }

    /// A new process of a role in this scene.
    pub(crate) fn program(&self, name: &str, role: &str) -> Program {
        Program::new(self.directory.path(), name, role, &settings(&self.name))
    }

    /// Who folds what, by name.
    pub(crate) fn owners(&self) -> Vec<Option<String>> {
        let status = get(self.query.address(), "/v1/status");
        let sources = status["sources"].as_array().unwrap();
        sources.iter().map(|source| source["owner"].as_str().map(str::to_owned)).collect()
    }

    /// Waits until each aggregator folds something.
    pub(crate) fn await_shared(&self) {
        self.await_shared_by(&self.aggregators.iter().collect::<Vec<_>>());
    }

    /// Waits until each of these folds something.
    pub(crate) fn await_shared_by(&self, aggregators: &[&Program]) {
        let mut owners = Vec::new();
        let begun = Instant::now();
        await_some("every aggregator has its share", || {
            owners = self.owners();
            assert!(begun.elapsed() < Duration::from_secs(60), "the sources are not shared by all: {owners:?}");
            let has = |program: &&Program| owners.iter().flatten().any(|owner| owner.contains(program.name()));
            (aggregators.iter().all(has) && owners.iter().all(Option::is_some)).then_some(())
        });
    }

    /// Ends, but for the logs of its processes.
    fn keep(self) -> PathBuf {
        self.directory.keep()
    }
}
