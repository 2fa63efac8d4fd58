//! Topics that grow while they are folded.
//!
//! - `replay_rate`: a topic is filled as fast as one producer can while the aggregator folds it, and then folded once more from its
//!   start by an aggregator that knows nothing of it: events per CPU-second of the second, over that of the first.
//! - `checkpoint_tax`: 100,000 events a second over 10,000 videos, for a minute and a little, folded into embedded stores by two
//!   aggregators at the same time: CPU time of the one that flushes and checkpoints each second, over that of the one that does so
//!   once a minute.

use std::time::{Duration, Instant};

use crate::aggregate::{Outcome, Plan, Store};
use crate::child::{Child, Task};
use crate::encode::Form;
use crate::events::{Generator, Shape};
use crate::lab::{Lab, Missing};
use crate::report::target_dir;
use crate::topic::{Sender, Topic};

/// How long an aggregator may take to be given its sources, before the traffic begins.
const SETTLE: Duration = Duration::from_secs(3);
/// How many times a second a paced producer sends.
const BEATS: u64 = 100;

pub(crate) const REPLAY: &[&str] = &["replay_rate"];

/// Live, and once more from the start.
pub(crate) fn replay(lab: &mut Lab) -> Result<(), Missing> {
    let (events, runs) = (lab.options.events / 2, lab.options.runs.min(3));
    let mut topics = (0..=runs).map(|_| Ok(Topic::live(lab.kafka()?, 2))).collect::<Result<Vec<_>, _>>()?.into_iter();
    lab.some_rounds("live and replay", runs, |_| {
        let mut topic = topics.next().unwrap();
        topic.expected.events = events;
        let task = Task::Aggregate(Plan::of(&topic, Store::Discard));
        let live = settled([task.start()]);
        send(&topic, &Shape::traffic(events), None);
        let [live] = live.map(Child::outcome::<Outcome>);
        let replay: Outcome = task.run();
        vec![("replay_rate", replay.events_per_cpu_second() / live.events_per_cpu_second())]
    });
    Ok(())
}

pub(crate) const TAX: &[&str] = &["checkpoint_tax"];

/// Flushing each second beside flushing each minute.
pub(crate) fn tax(lab: &mut Lab) -> Result<(), Missing> {
    let (rate, seconds) = if lab.options.quick { (10_000, 5) } else { (100_000, 63) };
    // Each run takes more than a minute, and both sides see the same moments of the machine.
    let runs = lab.options.runs.min(3);
    for run in 1..=runs {
        eprintln!("flushing each second and each minute: run {run} of {runs}");
        let mut topic = Topic::live(lab.kafka()?, 2);
        topic.expected.events = rate * seconds;
        let shape = Shape { videos: 10_000, ..Shape::traffic(topic.expected.events) };
        let dir = tempfile::tempdir_in(target_dir()).unwrap();
        let task = |flush_ms: u64| {
            let store = Store::Embedded(dir.path().join(flush_ms.to_string()));
            Task::Aggregate(Plan { flush_ms, live: true, ..Plan::of(&topic, store) }).start()
        };
        let both = settled([task(1_000), task(60_000)]);
        send(&topic, &shape, Some(rate));
        let [second, minute] = both.map(Child::outcome::<Outcome>);
        lab.report.note("checkpoint_tax", second.cpu_s / minute.cpu_s);
    }
    Ok(())
}

/// Waits until these have their sources.
fn settled<const N: usize>(children: [Child; N]) -> [Child; N] {
    std::thread::sleep(SETTLE);
    children
}

/// Sends all events of a shape as they happen now: as fast as they go, or so many a second.
fn send(topic: &Topic, shape: &Shape, rate: Option<u64>) {
    let mut sender = Sender::new(topic, Form::Json);
    let mut generator = Generator::new(shape);
    let began = Instant::now();
    for n in 0..shape.events {
        if let Some(per_beat) = rate.map(|rate| rate / BEATS).filter(|per_beat| n % per_beat == 0) {
            let due = Duration::from_secs(n / per_beat) / BEATS as u32;
            std::thread::sleep(due.saturating_sub(began.elapsed()));
        }
        let now = schemas::Millis::now().0;
        sender.send(generator.at(now), None);
    }
    sender.finish(None);
}
