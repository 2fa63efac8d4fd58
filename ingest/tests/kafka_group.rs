//! Sharing the sources of a topic among processes, as members of a consumer group.
#![cfg(feature = "kafka")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "in a test a failed expectation is a panic"
)]

mod kafka_support;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ingest::kafka::{AppendTimes, KafkaLog, KafkaOptions};
use ingest::{EventLog, Membership};
use kafka_support::{blocking, fill, named, open, topic, until, with};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::topic_partition_list::{Offset as Position, TopicPartitionList};
use schemas::{Offset, Source};

const SOON: Duration = Duration::from_secs(20);
/// Set in the process that a test starts as another member.
const OTHER: &str = "TALLYMARK_TEST_MEMBER_OF";
const SESSION: &[(&str, &str)] = &[("session.timeout.ms", "2000"), ("heartbeat.interval.ms", "300")];

/// The sources of a member now.
fn held(member: &Arc<dyn Membership>) -> BTreeSet<Source> {
    member.assigned(0, Duration::ZERO).sources
}

/// Waits until each member has as many sources as told, and together they have all, each once.
async fn shared_as(members: &[&Arc<dyn Membership>], counts: &[usize], sources: u32) {
    let members: Vec<_> = members.iter().map(|member| Arc::clone(member)).collect();
    let counts = counts.to_vec();
    until("the sources are shared", SOON, move || {
        let held: Vec<_> = members.iter().map(held).collect();
        let all: BTreeSet<Source> = held.iter().flatten().copied().collect();
        // Nobody folds what it has heard to be another's: it lets go at once.
        members.iter().zip(&held).for_each(|(member, held)| {
            (0..sources).map(Source).filter(|source| !held.contains(source)).for_each(|source| member.release(source))
        });
        held.iter().map(BTreeSet::len).eq(counts.iter().copied()) && all == (0..sources).map(Source).collect()
    })
    .await;
}

async fn join(options: &KafkaOptions, name: &str) -> (Arc<KafkaLog>, Arc<dyn Membership>) {
    let log = open(&named(options, name)).await.unwrap();
    let member = log.join().unwrap();
    (log, member)
}

async fn leave(member: &Arc<dyn Membership>) {
    let member = Arc::clone(member);
    blocking(move || member.leave()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_share_the_sources_and_one_that_leaves_hands_over_at_once() {
    if test_servers::skipped() {
        return;
    }
    // So long a session that nobody could be thought dead within the test.
    let options = with(&topic(6).await, &[("session.timeout.ms", "45000")]);
    let (log, first) = join(&options, "first").await;
    let start = first.assigned(0, Duration::ZERO);
    assert_eq!((start.generation, start.sources.len()), (1, 0), "generations start at 1, with nothing");
    shared_as(&[&first], &[6], 6).await;
    let (_second_log, second) = join(&options, "second").await;
    shared_as(&[&first, &second], &[3, 3], 6).await;
    let kept = held(&first);
    let asking = Arc::clone(&log);
    let owners = blocking(move || asking.owners().unwrap()).await;
    assert_eq!(owners.len(), 6);
    assert!(owners.iter().all(|(source, name)| name == if kept.contains(source) { "first" } else { "second" }), "{owners:?}");
    let began = Instant::now();
    leave(&second).await;
    assert_eq!(held(&second).len(), 0);
    shared_as(&[&first], &[6], 6).await;
    assert!(began.elapsed() < Duration::from_secs(10), "handed over in {:?}", began.elapsed());
    leave(&first).await;
    let owners = blocking(move || log.owners().unwrap()).await;
    assert_eq!(owners.len(), 0, "{owners:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_is_handed_over_when_it_is_released_and_not_before() {
    if test_servers::skipped() {
        return;
    }
    let options = topic(2).await;
    let (_log, first) = join(&options, "first").await;
    shared_as(&[&first], &[2], 2).await;
    let (_second_log, second) = join(&options, "second").await;
    let revoking = Arc::clone(&first);
    let taken = blocking(move || {
        let mut assignment = revoking.assigned(0, Duration::ZERO);
        while assignment.sources.len() == 2 {
            assignment = revoking.assigned(assignment.generation, SOON);
        }
        (0..2).map(Source).find(|source| !assignment.sources.contains(source)).unwrap()
    })
    .await;
    // The first is still storing what it has.
    std::thread::sleep(Duration::from_millis(1_500));
    assert_eq!(held(&second).len(), 0, "the next owner waits");
    let began = Instant::now();
    first.release(taken);
    let waiting = Arc::clone(&second);
    until("the second has it", SOON, move || held(&waiting) == [taken].into()).await;
    assert!(began.elapsed() < Duration::from_secs(3), "without waiting longer: {:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_that_is_never_released_is_handed_over_after_a_few_seconds() {
    if test_servers::skipped() {
        return;
    }
    let options = topic(2).await;
    let (_log, first) = join(&options, "first").await;
    shared_as(&[&first], &[2], 2).await;
    let (_second_log, second) = join(&options, "second").await;
    until("the second has one", SOON, move || held(&second).len() == 1).await;
    assert_eq!(held(&first).len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lag_tools_see_how_far_a_source_is_counted() {
    if test_servers::skipped() {
        return;
    }
    let options = topic(2).await;
    let (log, member) = join(&options, "counting").await;
    shared_as(&[&member], &[2], 2).await;
    fill(&log, Source(1), 50).await;
    let tool: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", &options.brokers).set("group.id", &options.group).create().unwrap();
    let (tool, topic) = (Arc::new(tool), options.topic.clone());
    let committed = move || {
        let mut list = TopicPartitionList::new();
        list.add_partition_range(&topic, 0, 1);
        let list = tool.committed_offsets(list, SOON).unwrap();
        list.elements().iter().map(|element| element.offset()).collect::<Vec<_>>()
    };
    member.report(Source(1), Offset(30));
    let seen = committed.clone();
    until("30 is committed", SOON, move || seen() == [Position::Invalid, Position::Offset(30)]).await;
    // What was reported last is not lost by leaving.
    member.report(Source(0), Offset(0));
    member.report(Source(1), Offset(50));
    leave(&member).await;
    until("50 is committed", SOON, move || committed() == [Position::Offset(0), Position::Offset(50)]).await;
}

/// Another process that is a member of the group of a topic, and says what it holds.
struct OtherProcess {
    child: Child,
    lines: BufReader<std::process::ChildStdout>,
}

impl OtherProcess {
    fn start(options: &KafkaOptions) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "another_process", "--nocapture", "--ignored"]);
        command.env(OTHER, format!("{} {}", options.brokers, options.topic)).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines }
    }

    /// Reads on until it holds so many sources.
    fn wait_for(&mut self, count: usize) {
        let wanted = format!("holds {count}");
        let mut line = String::new();
        while !line.contains(&wanted) {
            line.clear();
            assert!(self.lines.read_line(&mut line).unwrap() > 0, "the other process ended");
        }
    }

    fn signal(&self, signal: &str) {
        assert!(Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap().success());
    }
}

impl Drop for OtherProcess {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Run by the tests below in a process of its own.
#[test]
#[ignore = "it is the other process of other tests"]
fn another_process() {
    let Ok(value) = std::env::var(OTHER) else { return };
    let (brokers, topic) = value.split_once(' ').unwrap();
    let [brokers, topic, group, client_id] = [brokers.to_owned(), topic.to_owned(), format!("{topic}-group"), "other".to_owned()];
    let options = KafkaOptions { brokers, topic, group, client_id, properties: Default::default(), append_times: AppendTimes::Broker };
    let log = KafkaLog::open(with(&options, SESSION)).unwrap();
    let member = log.join().unwrap();
    let mut seen = member.assigned(0, Duration::ZERO);
    loop {
        println!("holds {}", seen.sources.len());
        seen = member.assigned(seen.generation, SOON * 10);
        (0..10).map(Source).filter(|source| !seen.sources.contains(source)).for_each(|source| member.release(source));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_dies_loses_its_sources_after_the_session_timeout() {
    if test_servers::skipped() {
        return;
    }
    let options = with(&topic(4).await, SESSION);
    let (_log, first) = join(&options, "first").await;
    shared_as(&[&first], &[4], 4).await;
    let mut other = blocking({
        let options = options.clone();
        let mut other = OtherProcess::start(&options);
        let first = Arc::clone(&first);
        move || {
            release_all(&first);
            other.wait_for(2);
            other
        }
    })
    .await;
    assert_eq!(held(&first).len(), 2);
    other.signal("-KILL");
    let began = Instant::now();
    shared_as(&[&first], &[4], 4).await;
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    drop(other.child.wait());
}

/// Lets go of whatever is revoked, on a thread of its own.
fn release_all(member: &Arc<dyn Membership>) {
    let member = Arc::downgrade(member);
    std::thread::spawn(move || {
        let mut seen = 0;
        while let Some(member) = member.upgrade() {
            let assignment = member.assigned(seen, Duration::from_millis(100));
            seen = assignment.generation;
            (0..10).map(Source).filter(|source| !assignment.sources.contains(source)).for_each(|source| member.release(source));
        }
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_slept_too_long_hears_that_it_lost_its_sources_and_takes_part_again() {
    if test_servers::skipped() {
        return;
    }
    let options = with(&topic(4).await, SESSION);
    let (_log, first) = join(&options, "first").await;
    shared_as(&[&first], &[4], 4).await;
    release_all(&first);
    let mut other = OtherProcess::start(&options);
    let other = blocking(move || {
        other.wait_for(2);
        other.signal("-STOP");
        other
    })
    .await;
    shared_as(&[&first], &[4], 4).await;
    other.signal("-CONT");
    blocking(move || {
        let mut other = other;
        other.wait_for(0);
        other.wait_for(2);
    })
    .await;
    assert_eq!(held(&first).len(), 2);
}
