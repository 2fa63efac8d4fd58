//! Many processes on real Kafka and Cassandra: what they count together is what one process counts alone.

#![cfg(all(feature = "kafka", feature = "cassandra"))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test stops at the first fault")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use support::{Dice, Server, await_some, output, tallymark, text};
use test_servers::{KafkaCluster, KafkaPlan};

const SOURCES: usize = 4;
const DAY_MS: u64 = 86_400_000;
/// A hand-over that was announced.
const WITHIN_SECONDS: Duration = Duration::from_secs(10);
/// One that was not: the session timeout below, and 5 s.
const AFTER_SESSION: Duration = Duration::from_secs(6 + 5);

fn now_ms() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

/// A topic, a group and a keyspace of their own on servers that others use too.
struct Place {
    name: String,
    settings: Vec<String>,
}

impl Place {
    /// Not made yet: `migrate` does that.
    fn new(name: &str, kafka: &KafkaCluster) -> Self {
        let topic = format!("many.{name}");
        let settings = [
            ("--kafka-brokers", kafka.bootstrap()),
            ("--kafka-topic", topic.clone()),
            ("--kafka-group", format!("group-{name}")),
            ("--kafka-properties", "session.timeout.ms=6000,heartbeat.interval.ms=500".to_owned()),
            ("--cassandra-nodes", test_servers::cassandra().contact()),
            ("--cassandra-keyspace", format!("many_{name}")),
            ("--replication", "1".to_owned()),
            ("--sources", SOURCES.to_string()),
            ("--flush-interval", "200ms".to_owned()),
            ("--grace", "1s".to_owned()),
        ];
        Self { name: topic, settings: settings.into_iter().flat_map(|(key, value)| [key.to_owned(), value]).collect() }
    }

    /// The arguments of a command with these settings.
    fn args<'a>(&'a self, command: &'a [&'a str]) -> Vec<&'a str> {
        command.iter().copied().chain(self.settings.iter().map(String::as_str)).collect()
    }

    /// Runs `migrate`, which must succeed; what it said.
    fn migrate(&self) -> String {
        let output = output(&self.args(&["migrate"]));
        assert!(output.status.success(), "{}", text(&output));
        text(&output)
    }

    /// Starts a role under a name of its own and waits until it is ready.
    fn start(&self, role: &str, name: &str) -> Server {
        let server = Server::of(&self.args(&[role, "--kafka-client-id", name]));
        server.await_ready();
        server
    }
}

/// Who folds each source, as the answers' process knows it.
fn owners(query: &Server) -> Vec<Option<String>> {
    let status = query.json("/v1/status");
    status["sources"].as_array().unwrap().iter().map(|source| source["owner"].as_str().map(str::to_owned)).collect()
}

/// Waits until every source is folded by one of these, and by each of them at least one.
fn await_owners(query: &Server, names: &[&str]) {
    let wanted: BTreeSet<&str> = names.iter().copied().collect();
    let mut last = Vec::new();
    await_some("the sources are shared", || {
        last = owners(query);
        let have: BTreeSet<&str> = last.iter().map(|owner| owner.as_deref().unwrap_or("nobody")).collect();
        (last.len() == SOURCES && have == wanted).then_some(())
    });
}

/// Events sent to several servers alike, and what they must add up to.
struct Feed {
    dice: Dice,
    sent: u64,
    /// Views by entity path and minute, in Unix ms.
    views: BTreeMap<(String, u64), i64>,
    counted: u64,
}

impl Feed {
    fn new() -> Self {
        Self { dice: Dice(4), sent: 0, views: BTreeMap::new(), counted: 0 }
    }

    /// Mostly events of the last hours, some of days ago; every tenth twice; one that is refused.
    fn events(&mut self, count: u64) -> Vec<Value> {
        let mut events = Vec::new();
        for n in 0..count {
            let ago_ms = if n % 7 == 0 { self.dice.below(5 * DAY_MS) } else { self.dice.below(3 * 3_600_000) };
            let (ts, video) = (now_ms() - ago_ms, self.dice.below(20));
            self.sent += 1;
            let event = json!({"event_id": format!("e{}", self.sent), "video_id": format!("v{video}"), "space_id": format!("s{}", video % 3), "ts": ts});
            if n % 10 == 0 {
                events.push(event.clone());
            }
            events.push(event);
            self.note(video, ts);
        }
        events.push(json!({"event_id": format!("old{}", self.sent), "video_id": "v0", "ts": now_ms() - 30 * DAY_MS}));
        events
    }

    fn note(&mut self, video: u64, ts: u64) {
        self.counted += 1;
        for entity in [format!("videos/v{video}"), format!("spaces/s{}", video % 3), "site".to_owned()] {
            *self.views.entry((entity, ts - ts % 60_000)).or_default() += 1;
        }
    }

    fn entities(&self) -> BTreeSet<String> {
        self.views.keys().map(|(entity, _)| entity.clone()).collect()
    }
}

/// Waits until a server has counted all that was sent, and compares every minute of every entity.
fn assert_exact(query: &Server, feed: &Feed) {
    await_some("all is counted", || {
        (query.json("/v1/status")["totals"]["tally"]["counted"].as_u64().unwrap() >= feed.counted).then_some(())
    });
    let status = query.json("/v1/status");
    assert_eq!(status["totals"]["tally"]["counted"].as_u64().unwrap(), feed.counted, "{status:#}");
    let today = now_ms() / DAY_MS;
    for entity in feed.entities() {
        let mut got = BTreeMap::new();
        for day in today - 6..=today {
            for (start, views) in query.views(&entity, &(day * 86_400).to_string(), &((day + 1) * 86_400).to_string(), "1m") {
                got.insert(start, views);
            }
        }
        let wanted = feed.views.iter().filter(|((of, _), _)| *of == entity);
        let wanted: BTreeMap<String, i64> =
            wanted.map(|((_, at), views)| (schemas::Millis(i64::try_from(*at).unwrap()).to_rfc3339(), *views)).collect();
        assert_eq!(got, wanted, "{entity}");
    }
}

/// The same questions have the same answers, but for what is not closed in both yet.
fn assert_alike(many: &Server, one: &Server, feed: &Feed) {
    let day = now_ms() / DAY_MS * 86_400;
    let (start, end) = (day - 6 * 86_400, day + 86_400);
    for entity in feed.entities() {
        for (step, zone) in [("1h", "UTC"), ("1d", "Asia/Kolkata"), ("all", "UTC")] {
            let path = format!("/v1/{entity}/views?start={start}&end={end}&step={step}&tz={zone}");
            let views = |answer: &Value| -> Vec<(Value, Value)> {
                answer["points"].as_array().unwrap().iter().map(|point| (point["start"].clone(), point["views"].clone())).collect()
            };
            let (many, one) = (many.json(&path), one.json(&path));
            assert_eq!((&many["total"], views(&many)), (&one["total"], views(&one)), "{path}");
        }
    }
}

/// A metric's values summed over its series with this label.
fn metric(server: &Server, name: &str, label: &str) -> f64 {
    let metrics = server.get("/metrics").text().unwrap();
    let lines = metrics.lines().filter(|line| line.starts_with(&format!("{name}{{")) && line.contains(label));
    lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
}

/// Hands sources over and waits until others have them all; how long that took.
fn until_all_have(query: &Server, name: &str, at_most: Duration) {
    let begun = Instant::now();
    await_owners(query, &[name]);
    let took = begun.elapsed();
    eprintln!("all sources are with {name} after {took:?}");
    assert!(took < at_most, "it took {took:?}");
}

#[test]
fn many_processes_count_what_one_counts_also_when_they_come_and_go() {
    if test_servers::skipped() {
        return;
    }
    let place = Place::new("shared", test_servers::kafka());
    let first = place.migrate();
    assert!(first.contains("many.shared") && first.contains("many.shared.rejected") && first.contains("many_shared"), "{first}");
    let second = place.migrate();
    assert!(second.contains("Ready") && !second.contains(": made"), "{second}");

    let dir = tempfile::tempdir().unwrap();
    let one = Server::start(dir.path(), &["--flush-interval", "200ms", "--grace", "1s"]);
    let (mut first, mut second) = (place.start("aggregate", "agg-1"), place.start("aggregate", "agg-2"));
    let (collector, query) = (place.start("collect", "coll-1"), place.start("query", "query-1"));
    await_owners(&query, &["agg-1", "agg-2"]);
    let mut feed = Feed::new();
    let send = |feed: &mut Feed, count| {
        let events = feed.events(count);
        collector.post(&events);
        one.post(&events);
    };

    send(&mut feed, 2_000);
    assert_exact(&query, &feed);
    assert_exact(&one, &feed);
    // Both have a part of the partitions, and of the events.
    for aggregator in [&first, &second] {
        let (running, events) = (metric(aggregator, "tallymark_source_running", ""), metric(aggregator, "tallymark_events_total", ""));
        eprintln!("an aggregator folds {running} sources and has read {events} events");
        assert!(running == 2.0 && events > 100.0, "{running} {events}");
        // What alerts are made of is there for each source.
        for name in ["tallymark_lag_records", "tallymark_lag_seconds", "tallymark_checkpoint_age_seconds", "tallymark_freshness_seconds"] {
            let shown = aggregator.get("/metrics").text().unwrap();
            assert_eq!(shown.lines().filter(|line| line.starts_with(&format!("{name}{{"))).count(), 2, "{name} in {shown}");
        }
    }
    let read = metric(&first, "tallymark_events_total", "") + metric(&second, "tallymark_events_total", "");
    assert_eq!(read, query.json("/v1/status")["totals"]["tally"]["events"].as_f64().unwrap());
    let shown = query.get("/metrics").text().unwrap();
    assert_eq!(shown.lines().filter(|line| line.starts_with("tallymark_checkpoint_age_seconds{")).count(), SOURCES, "{shown}");

    // One is asked to go, another is killed; each time the rest is with the one that stays.
    send(&mut feed, 500);
    let begun = Instant::now();
    assert!(first.stop().success());
    until_all_have(&query, "agg-2", WITHIN_SECONDS.saturating_sub(begun.elapsed()));
    send(&mut feed, 500);
    assert_exact(&query, &feed);
    let third = place.start("aggregate", "agg-3");
    await_owners(&query, &["agg-2", "agg-3"]);
    send(&mut feed, 500);
    second.kill();
    until_all_have(&query, "agg-3", AFTER_SESSION);
    send(&mut feed, 500);
    assert_exact(&query, &feed);
    assert_exact(&one, &feed);
    assert_alike(&query, &one, &feed);

    // It says so itself, and every role does what it is for and no more.
    let url = query.url("");
    let said = await_some("it is up to date", || Some(output(&["status", "--url", &url])).filter(|output| output.status.success()));
    assert!(text(&said).contains("agg-3") && text(&said).lines().last().unwrap().starts_with("Yes:"), "{}", text(&said));
    assert_eq!(
        (collector.get("/v1/status").status(), third.get("/v1/site/views").status()),
        (404.try_into().unwrap(), 404.try_into().unwrap())
    );
    assert_eq!(query.http.post(query.url("/v1/events")).body("{}").send().unwrap().status(), 404);
    let asked = output(&["status", "--url", &collector.url("")]);
    assert!(asked.status.code() == Some(2) && text(&asked).contains("tallymark query"), "{}", text(&asked));
    for mut server in [third, collector, query] {
        assert!(server.stop().success());
    }
}

#[test]
fn events_of_any_producer_count_and_everything_runs_in_one_process_too() {
    if test_servers::skipped() {
        return;
    }
    let place = Place::new("alone", test_servers::kafka());
    let early = output(&place.args(&["run", "--listen", "127.0.0.1:0"]));
    assert!(early.status.code() == Some(1) && text(&early).contains("tallymark migrate"), "{}", text(&early));
    place.migrate();
    let mut server = place.start("run", "all-in-one");
    let mut feed = Feed::new();
    server.post(&feed.events(1_000));
    assert_exact(&server, &feed);
    if Command::new("kcat").arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
        eprintln!("kcat is not installed (sudo apt-get install -y kcat): that its records count did not run");
    } else {
        for _ in 0..10 {
            let events = feed.events(20);
            kcat(&place, &events);
        }
        kcat(&place, &[json!("no event at all")]);
        assert_exact(&server, &feed);
        let tally = await_some("what is no event is rejected", || {
            let status = server.json("/v1/status");
            let reasons = &status["totals"]["tally"]["rejected_by_reason"];
            reasons.as_object().unwrap().keys().any(|reason| reason != "too_old").then(|| status["totals"]["tally"].clone())
        });
        assert_eq!(tally["rejected"].as_u64().unwrap(), 1 + 10 + 1, "{tally}");
    }
    assert!(server.stop().success());
    server.restart();
    assert_exact(&server, &feed);
    let mut nowhere = Place { name: place.name.clone(), settings: place.settings.clone() };
    let nodes = nowhere.settings.iter().position(|setting| setting == "--cassandra-nodes").unwrap();
    nowhere.settings[nodes + 1] = "127.0.0.1:1".to_owned();
    let refused = output(&nowhere.args(&["query", "--listen", "127.0.0.1:0"]));
    assert!(refused.status.code() == Some(1) && text(&refused).contains("--cassandra-nodes host:port"), "{}", text(&refused));
    // Other rules than the counts were made by are refused.
    let other = output(&place.args(&["run", "--listen", "127.0.0.1:0", "--dedup-minutes", "3"]));
    assert!(other.status.code() == Some(1) && text(&other).contains("dedup_minutes"), "{}", text(&other));
}

/// Writes records as another producer does: bare JSON, keyed, to partitions of its own choice.
fn kcat(place: &Place, events: &[Value]) {
    let brokers = &place.settings[1];
    let mut command = Command::new("kcat");
    command.args(["-P", "-b", brokers, "-t", &place.name, "-K", "\t"]).stdin(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut lines = child.stdin.take().unwrap();
    for event in events {
        writeln!(lines, "{}\t{event}", event["video_id"].as_str().unwrap_or("none")).unwrap();
    }
    drop(lines);
    assert!(child.wait().unwrap().success());
}

#[test]
fn readiness_and_status_tell_the_truth_when_kafka_does_not_answer() {
    if test_servers::skipped() {
        return;
    }
    let kafka = KafkaCluster::start(1);
    let place = Place::new("cut", &kafka);
    place.migrate();
    let (aggregator, collector, query) = (place.start("aggregate", "agg"), place.start("collect", "coll"), place.start("query", "query"));
    await_owners(&query, &["agg"]);
    let mut feed = Feed::new();
    collector.post(&feed.events(200));
    assert_exact(&query, &feed);

    kafka.pause(0);
    for server in [&aggregator, &collector] {
        await_some("it is not ready", || Some(server.get("/readyz")).filter(|answer| answer.status() == 503));
        assert_eq!(server.get("/livez").status(), 200);
    }
    let ready = await_some("the log's trouble is a note", || {
        let ready = query.json("/readyz");
        ready.get("notes").is_some().then_some(ready)
    });
    assert_eq!(ready["ready"], true, "counts need no log");
    let status = query.json("/v1/status");
    assert!(!status["troubles"].as_array().unwrap().is_empty() && status["sources"][0]["end"].is_null(), "{status:#}");
    assert_eq!(status["totals"]["tally"]["counted"].as_u64().unwrap(), feed.counted);
    let said = tallymark(&["status", "--url", &query.url("")]).output().unwrap();
    assert!(said.status.code() == Some(1) && text(&said).lines().last().unwrap().starts_with("No:"), "{}", text(&said));

    kafka.resume(0);
    for server in [&aggregator, &collector] {
        server.await_ready();
    }
    collector.post(&feed.events(200));
    assert_exact(&query, &feed);
}

#[test]
fn a_process_that_may_not_write_is_told_at_its_start_which_right_it_lacks() {
    if test_servers::skipped() {
        return;
    }
    let property = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let authorizer = property("authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer");
    let properties = vec![authorizer, property("allow.everyone.if.no.acl.found", "true")];
    let kafka = KafkaCluster::with(&KafkaPlan { nodes: 1, proxies: false, properties });
    let place = Place::new("rights", &kafka);
    place.migrate();
    let grant = |operation: &str| {
        let args = ["--add", "--allow-principal", "User:*", "--operation", operation, "--topic", &place.name];
        kafka.tool("org.apache.kafka.tools.AclCommand", &args).unwrap();
    };
    ["Read", "Describe", "DescribeConfigs"].into_iter().for_each(grant);
    for role in ["collect", "aggregate", "run"] {
        let refused = output(&place.args(&[role, "--listen", "127.0.0.1:0"]));
        let said = text(&refused);
        assert!(refused.status.code() == Some(1) && said.contains("--operation Write") && said.contains(&place.name), "{role}: {said}");
    }
    // It needs no such right.
    place.start("query", "reader");
    grant("Write");
    place.start("collect", "writer").post(&Feed::new().events(1));
}
