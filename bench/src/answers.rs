//! The query service of the real binary: what is held beside a bare handler, what is not held, and one question asked at once by many.
//!
//! - `cached_vs_bare`: requests a second for a time range that changes (30 days by day, until now), over those of a bare axum handler that
//!   returns the same bytes; the same clients ask both in turn. `cached_vs_bare_cpu` compares requests for each CPU-second of the server.
//! - `cached_p99`: how long such a request takes at half of that rate.
//! - `miss_*_p99`: how long the first question about each of many videos takes, from one client after the other.
//! - `hot_videos_memory`: what a process grows by when it holds the counts that dashboards ask for of 100,000 videos (the example `cache_rate`).
//! - `coalesced_reads`: how often the store is read when 1,000 clients ask at once what nobody has asked before.

use std::io::Write;
use std::path::Path;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use schemas::Millis;

use crate::child::Task;
use crate::events::Random;
use crate::lab::{Lab, Missing};
use crate::load::asking;
use crate::report::target_dir;
use crate::server::{Server, on_cluster, request};
use crate::usage::cpu_seconds;

const DAY_S: i64 = 86_400;
const DAYS: i64 = 30;
/// Clients of one machine are one client: benchmarks ask without a limit.
const UNLIMITED: [&str; 2] = ["--rate-limit", "0"];

/// Views of some videos: one on each of 30 days, and so many in the last 24 hours.
struct Past {
    videos: u64,
    minutes: u64,
}

impl Past {
    const fn events(&self) -> u64 {
        self.videos * (DAYS as u64 + self.minutes)
    }

    fn write(&self, path: &Path) {
        let now_s = Millis::now().0 / 1_000;
        let mut random = Random::new(7);
        let mut file = std::io::BufWriter::new(std::fs::File::create(path).unwrap());
        let mut number = 0;
        for video in 0..self.videos {
            let days = (0..DAYS).map(|day| now_s - day * DAY_S - 60);
            let minutes = (0..self.minutes).map(|_| now_s - 60 - (random.next() % (DAY_S as u64 - 120)) as i64);
            for at in days.chain(minutes.collect::<Vec<_>>()) {
                number += 1;
                writeln!(file, r#"{{"event_id":"past{number}","video_id":"past{video}","ts":{}}}"#, at * 1_000).unwrap();
            }
        }
        file.flush().unwrap();
    }

    /// A server that has counted them.
    fn counted(&self, args: &[String]) -> Server {
        let dir = tempfile::tempdir_in(target_dir()).unwrap();
        let file = dir.path().join("past.ndjson");
        self.write(&file);
        let server = Server::with(args);
        server.import(&file);
        server.await_counts(DAYS + 1, self.events());
        server
    }
}

/// Until now: the answer changes as long as it is asked for.
fn since(video: u64, seconds: i64, step: &str) -> String {
    format!("/v1/videos/past{video}/views?start={}&step={step}", Millis::now().0 / 1_000 - seconds)
}

fn by_day(video: u64) -> String {
    since(video, DAYS * DAY_S, "1d")
}

fn by_minute(video: u64) -> String {
    since(video, DAY_S, "1m")
}

fn unlimited() -> Vec<String> {
    UNLIMITED.map(str::to_owned).to_vec()
}

pub(crate) const CACHED: &[&str] = &["cached_vs_bare", "cached_vs_bare_cpu", "cached_answers", "cached_p99", "coalesced_reads"];

/// Answers that are held.
pub(crate) fn cached(lab: &mut Lab) -> Result<(), Missing> {
    let server = Past { videos: 100, minutes: 100 }.counted(&unlimited());
    let path = by_day(7);
    let (status, body) = request(&mut server.connect(), "GET", &path, "", b"");
    assert_eq!(status, 200);
    let mut bare = Task::Http(String::from_utf8(body).unwrap()).start();
    let bare_address = bare.line();
    let clients = asking(&path);
    let lasting = Duration::from_secs(if lab.options.quick { 1 } else { 4 });
    lab.rounds("answers that are held", |run| {
        let measured = |address: &str, pid: &str| {
            let cpu = cpu_seconds(pid);
            let (answers, seconds) = clients.flood(address, lasting);
            (answers / seconds, answers / (cpu_seconds(pid) - cpu))
        };
        let (ours, ours_cpu) = measured(&server.address, &server.pid());
        let (theirs, theirs_cpu) = measured(&bare_address, &bare.pid());
        let times = clients.paced(&server.address, ours / 2.0, lasting);
        vec![
            ("cached_vs_bare", ours / theirs),
            ("cached_vs_bare_cpu", ours_cpu / theirs_cpu),
            ("cached_answers", ours_cpu),
            ("cached_p99", times[times.len() * 99 / 100]),
            ("coalesced_reads", coalesced(&server, run)),
        ]
    });
    Ok(())
}

/// How often the store is read for one question that many ask at the same moment.
fn coalesced(server: &Server, run: usize) -> f64 {
    const CLIENTS: usize = 1_000;
    // A day of hours that is over: one piece. Of a video that nobody has asked for.
    let start = (Millis::now().0 / 1_000).div_euclid(DAY_S) * DAY_S - 3 * DAY_S;
    let path = format!("/v1/videos/past{}/views?start={start}&end={}&step=1h&tz=UTC", 50 + run, start + 23 * 3_600);
    let reads = server.metric("tallymark_query_store_reads_total");
    let together = Barrier::new(CLIENTS);
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                let mut connection = server.connect();
                together.wait();
                let (status, body) = request(&mut connection, "GET", &path, "", b"");
                assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
            });
        }
    });
    server.metric("tallymark_query_store_reads_total") - reads
}

pub(crate) const MEMORY: &[&str] = &["hot_videos_memory"];

/// The memory of what is held.
pub(crate) fn memory(lab: &mut Lab) -> Result<(), Missing> {
    let videos = if lab.options.quick { "10000" } else { "100000" };
    let program = target_dir().join("release/examples/cache_rate");
    let output = std::process::Command::new(&program).args(["memory", videos]).output();
    let output = output.map_err(|error| Missing(format!("{}: {error}; `make bench` builds it", program.display())))?;
    let said = String::from_utf8(output.stdout).unwrap();
    let mib = said.lines().find_map(|line| line.strip_prefix("hot_videos_memory ")?.split(' ').next()?.parse().ok());
    lab.report.note(MEMORY[0], mib.unwrap_or_else(|| panic!("it said {said:?}")));
    eprintln!("  {}", said.trim());
    Ok(())
}

const MISSES: [&str; 4] = ["miss_embedded_30d_p99", "miss_embedded_24h_p99", "miss_cassandra_30d_p99", "miss_cassandra_24h_p99"];

pub(crate) const EMBEDDED: &[&str] = &[MISSES[0], MISSES[1]];

/// Answers that are not held, of the embedded store.
pub(crate) fn embedded(lab: &mut Lab) -> Result<(), Missing> {
    let past = Past { videos: 500, minutes: if lab.options.quick { 50 } else { 480 } };
    lab.some_rounds("answers that are not held", lab.options.runs.min(3), |_| misses(&past, &unlimited(), [MISSES[0], MISSES[1]]));
    Ok(())
}

pub(crate) const CASSANDRA: &[&str] = &[MISSES[2], MISSES[3]];

/// Answers that are not held, of Cassandra.
pub(crate) fn cassandra(lab: &mut Lab) -> Result<(), Missing> {
    let past = Past { videos: 200, minutes: if lab.options.quick { 50 } else { 240 } };
    let (brokers, node) = (lab.kafka()?.bootstrap(), lab.cassandra()?.contact());
    lab.some_rounds("answers that are not held, of Cassandra", lab.options.runs.min(2), |run| {
        let place = on_cluster(&brokers, &node, &format!("answers_{run}"));
        misses(&past, &[place, unlimited()].concat(), [MISSES[2], MISSES[3]])
    });
    Ok(())
}

/// The first question of each kind about each video.
fn misses(past: &Past, args: &[String], names: [&'static str; 2]) -> Vec<(&'static str, f64)> {
    let server = past.counted(args);
    let mut connection = server.connect();
    let questions: [fn(u64) -> String; 2] = [by_day, by_minute];
    let figure = |(name, path): (&'static str, fn(u64) -> String)| {
        let mut times: Vec<f64> = (0..past.videos)
            .map(|video| {
                let asked = Instant::now();
                let (status, body) = request(&mut connection, "GET", &path(video), "", b"");
                assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
                asked.elapsed().as_secs_f64() * 1e3
            })
            .collect();
        times.sort_by(f64::total_cmp);
        (name, times[times.len() * 99 / 100])
    };
    names.into_iter().zip(questions).map(figure).collect()
}
