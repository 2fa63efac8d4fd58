//! Three files of real clicks, imported and compared point by point with a recount by other means (`recount.py`).
//!
//! The files lie beside the repository, in `../shared/data`; without them these tests say so and pass.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test stops at the first fault")]

mod support;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use support::{Server, await_some, output, tallymark, text};

const MAP: &str = "video_id=item_id,viewer_id=user_id,ts=ts_ms,space_id=extra";
const DAY_S: i64 = 86_400;

/// Views by start in Unix seconds.
type Points = BTreeMap<i64, i64>;
/// Points by entity's path and step in seconds.
type Recount = BTreeMap<String, BTreeMap<i64, Points>>;

fn data(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data").join(name);
    if path.exists() {
        return Some(path);
    }
    // Not eprintln!, which a passing test keeps to itself.
    let announcement = format!("SKIPPED: {} is not there, so its counts are not compared\n", path.display());
    std::io::stderr().write_all(announcement.as_bytes()).unwrap();
    None
}

fn recount(file: &Path) -> Recount {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recount.py");
    let output = Command::new("python3").arg(script).arg(file).output();
    let output = output.expect("python3 is missing; install it with: sudo apt-get install -y python3");
    assert!(output.status.success(), "{}", text(&output));
    let mut recount = Recount::new();
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        let [kind, name, step, start, views] = line.split('\t').collect::<Vec<_>>().try_into().unwrap();
        let name: String = name.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let entity = match kind {
            "video" => format!("videos/{name}"),
            "space" => format!("spaces/{name}"),
            _ => "site".to_owned(),
        };
        let points = recount.entry(entity).or_default().entry(step.parse().unwrap()).or_default();
        points.insert(start.parse().unwrap(), views.parse().unwrap());
    }
    recount
}

/// Compares all hours and days of the whole range, and all minutes of the hours in which the entity was viewed;
/// that no other minute has views follows from the hours being zero (a point is the sum of its minutes).
fn compare(server: &Server, recount: &Recount) {
    let starts = || recount["site"][&DAY_S].keys().copied();
    let whole = (starts().min().unwrap() - DAY_S, starts().max().unwrap() + 2 * DAY_S);
    let entities: Vec<(&String, &BTreeMap<i64, Points>)> = recount.iter().collect();
    let lots: Vec<_> = entities.chunks(entities.len().div_ceil(4)).collect();
    std::thread::scope(|scope| {
        for lot in lots {
            scope.spawn(move || {
                for (entity, steps) in lot {
                    same(server, entity, "1d", DAY_S, whole, &steps[&DAY_S]);
                    same(server, entity, "1h", 3_600, whole, &steps[&3_600]);
                    for range in runs(steps[&3_600].keys().copied()) {
                        same(server, entity, "1m", 60, range, &steps[&60]);
                    }
                }
            });
        }
    });
}

/// Hours in a row as ranges.
fn runs(hours: impl Iterator<Item = i64>) -> Vec<(i64, i64)> {
    let mut runs: Vec<(i64, i64)> = Vec::new();
    for start in hours {
        match runs.last_mut() {
            Some(run) if run.1 == start => run.1 = start + 3_600,
            _ => runs.push((start, start + 3_600)),
        }
    }
    runs
}

fn same(server: &Server, entity: &str, step: &str, step_s: i64, (start, end): (i64, i64), expected: &Points) {
    let answer = server.json(&format!("/v1/{entity}/views?start={start}&end={end}&step={step}"));
    let points = answer["points"].as_array().unwrap();
    assert_eq!(i64::try_from(points.len()).unwrap(), (end - start) / step_s);
    for (point, at) in points.iter().zip((start..).step_by(usize::try_from(step_s).unwrap())) {
        assert_eq!(point["views"].as_i64().unwrap(), expected.get(&at).copied().unwrap_or_default(), "{entity} {step} {point}");
    }
}

/// Imports `name` into a server of its own, with as many kills of the server in the middle, and compares every count.
fn import_and_compare(name: &str, kills: u64) {
    let Some(file) = data(name) else { return };
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path(), &[]);
    let url = server.url("");
    let args = ["import", file.to_str().unwrap(), "--to", &url, "--historical", "--map", MAP, "--batch", "500"];
    let child = tallymark(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    for kill in 1..=kills {
        await_some("the import is under way", || (server.sources("/end").iter().sum::<u64>() >= kill * 8).then_some(()));
        server.kill();
        server.restart();
    }
    let done = child.wait_with_output().unwrap();
    assert!(done.status.success() && text(&done).contains("complete"), "{}", text(&done));
    let status = server.counted();
    let recount = recount(&file);
    let events: i64 = recount["site"][&DAY_S].values().sum();
    assert_eq!(status["totals"]["tally"]["counted"], Value::from(events), "{}", status["totals"]);
    compare(&server, &recount);
    let again = output(&args);
    assert!(again.status.code() == Some(1) && text(&again).contains("--again"), "{}", text(&again));
}

#[test]
fn apache_10k() {
    import_and_compare("apache_10k.csv.gz", 0);
}

#[test]
fn apache_10k_with_kills() {
    import_and_compare("apache_10k.csv.gz", 2);
}

#[test]
fn obd_bts_men() {
    import_and_compare("obd_bts_men.csv.gz", 0);
}

#[test]
fn obd_bts_men_with_kills() {
    import_and_compare("obd_bts_men.csv.gz", 2);
}

#[test]
fn wikiticker() {
    import_and_compare("wikiticker_20150912.csv.gz", 0);
}

#[test]
fn wikiticker_with_kills() {
    import_and_compare("wikiticker_20150912.csv.gz", 3);
}
