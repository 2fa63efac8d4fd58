//! `tallymark import`: every form of file, and every interruption, counted once.
//!
//! The servers here run with deduplication off wherever an interruption is concerned: nothing but the importer's own
//! accounting keeps an event from being counted twice.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test stops at the first fault")]

mod support;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Output, Stdio};

use flate2::Compression;
use flate2::write::GzEncoder;
use support::{Dice, Server, await_some, output, signal, tallymark, text};

/// 2026-01-02T03:04:05Z in ms.
const BASE_MS: u64 = 1_767_323_045_000;
const RANGE: (&str, &str) = ("2026-01-01T00:00:00Z", "2026-01-05T00:00:00Z");

/// Rows of (video, ts) and how often each video occurs.
fn rows(n: u64) -> (Vec<(String, u64)>, BTreeMap<String, i64>) {
    let mut dice = Dice(7);
    let rows: Vec<_> = (0..n).map(|_| (format!("v{}", dice.below(5)), BASE_MS + dice.below(86_400_000))).collect();
    let mut counts = BTreeMap::new();
    rows.iter().for_each(|(video, _)| *counts.entry(video.clone()).or_default() += 1);
    (rows, counts)
}

fn csv(rows: &[(String, u64)]) -> String {
    let mut text = "item_id,ts_ms\n".to_owned();
    rows.iter().for_each(|(video, ts)| text.push_str(&format!("{video},{ts}\n")));
    text
}

fn ndjson(rows: &[(String, u64)]) -> String {
    rows.iter().map(|(video, ts)| format!("{{\"item_id\":\"{video}\",\"ts_ms\":{ts}}}\n")).collect()
}

fn gzip(text: &str) -> Vec<u8> {
    let mut gz = GzEncoder::new(Vec::new(), Compression::fast());
    gz.write_all(text.as_bytes()).unwrap();
    gz.finish().unwrap()
}

const MAP: &str = "video_id=item_id,ts=ts_ms";

fn import(server: &Server, file: &Path, more: &[&str]) -> Output {
    let url = server.url("");
    output(&[&["import", file.to_str().unwrap(), "--to", &url, "--map", MAP, "--historical"], more].concat())
}

fn begin_import(server: &Server, file: &Path, more: &[&str]) -> Child {
    let url = server.url("");
    let args = [&["import", file.to_str().unwrap(), "--to", &url, "--map", MAP, "--historical", "--batch", "100"], more].concat();
    tallymark(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn finish(child: Child) -> Output {
    child.wait_with_output().unwrap()
}

/// Waits until the log has grown by so many records over all sources.
fn await_records(server: &Server, n: u64) {
    await_some("the import is under way", || (server.sources("/end").iter().sum::<u64>() >= n).then_some(()));
}

/// Waits until the answers hold these counts, so many times: what an import changes in days that were asked for before shows within seconds.
fn assert_counts(server: &Server, counts: &BTreeMap<String, i64>, times: i64) {
    server.counted();
    let (start, end) = RANGE;
    let total = |entity: &str, step: &str| server.views(entity, start, end, step).iter().map(|(_, views)| views).sum::<i64>();
    let holds = |entity: &str, step: &str, count: i64| {
        await_some(&format!("{entity} has {count} views"), || {
            let total = total(entity, step);
            assert!(total <= count, "{entity} has {total} views, and {count} were counted");
            (total == count).then_some(())
        });
    };
    counts.iter().for_each(|(video, count)| holds(&format!("videos/{video}"), "1d", count * times));
    holds("site", "1h", counts.values().sum::<i64>() * times);
}

fn file(dir: &Path, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

#[test]
fn every_form_of_file_is_counted_once_and_known_by_its_content() {
    let dir = tempfile::tempdir().unwrap();
    let (rows, counts) = rows(500);
    let forms = [
        file(dir.path(), "a.csv", csv(&rows)),
        file(dir.path(), "b.csv.gz", gzip(&csv(&rows))),
        file(dir.path(), "c.ndjson", ndjson(&rows)),
        // The name does not matter, the first bytes do.
        file(dir.path(), "d.dat", gzip(&ndjson(&rows))),
    ];
    let server = Server::start(&dir.path().join("data"), &[]);
    for (times, form) in (1..).zip(&forms) {
        let output = import(&server, form, &["--batch", "70"]);
        let said = text(&output);
        assert!(output.status.success(), "{said}");
        for says in ["complete, 500 rows", "accepted         500", "counted          500", "duplicate        0", "unusable rows    0"] {
            assert!(said.contains(says), "{says:?} in {said}");
        }
        assert_counts(&server, &counts, times);
    }
    let renamed = file(dir.path(), "renamed.csv", csv(&rows));
    let output = import(&server, &renamed, &[]);
    let said = text(&output);
    assert!(output.status.code() == Some(1) && said.contains("a.csv") && said.contains("--again"), "{said}");
    assert_counts(&server, &counts, 4);
}

#[test]
fn a_file_can_be_counted_again_on_purpose_and_not_in_another_way_by_accident() {
    let dir = tempfile::tempdir().unwrap();
    let (rows, counts) = rows(300);
    let csv = file(dir.path(), "a.csv", csv(&rows));
    let server = Server::start(&dir.path().join("data"), &["--dedup-minutes", "0"]);
    assert!(import(&server, &csv, &[]).status.success());
    let url = server.url("");
    let other =
        output(&["import", csv.to_str().unwrap(), "--to", &url, "--map", "video_id=item_id,ts=ts_ms,viewer_id=item_id", "--historical"]);
    let said = text(&other);
    assert!(other.status.code() == Some(1) && said.contains("viewer_id=item_id") && said.contains("in another way"), "{said}");
    assert_counts(&server, &counts, 1);
    assert!(import(&server, &csv, &["--again"]).status.success());
    assert_counts(&server, &counts, 2);
    assert!(text(&import(&server, &csv, &[])).contains("completely"));
}

#[test]
fn rows_that_cannot_be_used_are_shown_with_their_lines_and_the_rest_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let mut body = "event_id,item_id,ts_ms\n".to_owned();
    for n in 0..20 {
        body.push_str(&format!("e{n},v,{BASE_MS}\n"));
    }
    for n in 0..7 {
        body.push_str(&format!("bad{n},v,soon\n"));
    }
    body.push_str(&format!(",v,{BASE_MS}\nshort,v\n\"a\nb\",v,{BASE_MS}\ne0,v,{BASE_MS}\n"));
    let path = file(dir.path(), "a.csv", &body);
    let server = Server::start(&dir.path().join("data"), &[]);
    let output = import(&server, &path, &[]);
    let said = text(&output);
    assert!(output.status.success(), "{said}");
    for says in [
        "accepted         21",
        "counted          20",
        "duplicate        1",
        "unusable rows    10",
        "bad_ts           7",
        "line 22: ts \"soon\"",
        "line 26:",
        "and 2 more",
        "bad_id           2",
        "line 29: event_id is empty",
        "line 31: event_id holds a control character",
        "line 30: the row has 2 columns; ts is in column 3",
    ] {
        assert!(said.contains(says), "{says:?} in {said}");
    }
    assert!(!said.contains("line 27:"), "five of a kind are enough: {said}");
    assert_counts(&server, &[("v".to_owned(), 20)].into(), 1);
}

#[test]
fn what_the_log_clock_refuses_is_reported_by_reason() {
    let dir = tempfile::tempdir().unwrap();
    let (rows, _) = rows(10);
    let path = file(dir.path(), "a.csv", csv(&rows));
    let server = Server::start(&dir.path().join("data"), &["--max-lateness", "1h"]);
    let output = output(&["import", path.to_str().unwrap(), "--to", &server.url(""), "--map", MAP]);
    let said = text(&output);
    assert!(said.contains("rejected         10") && said.contains("too_old        10") && said.contains("--historical --again"), "{said}");
}

#[test]
fn a_dry_run_and_a_wrong_mapping_send_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (rows, _) = rows(10);
    let path = file(dir.path(), "a.csv", csv(&rows));
    let path = path.to_str().unwrap();
    // No server is there.
    let dry = output(&["import", path, "--to", "http://127.0.0.1:1", "--map", MAP, "--dry-run"]);
    assert!(dry.status.success() && text(&dry).contains("usable           10"), "{}", text(&dry));
    let wrong = output(&["import", path, "--to", "http://127.0.0.1:1", "--map", "video_id=item,ts=ts_ms"]);
    assert!(
        !wrong.status.success() && text(&wrong).contains("did you mean \"item_id\"?") && text(&wrong).contains("item_id, ts_ms"),
        "{}",
        text(&wrong)
    );
    let down = output(&["import", path, "--to", "http://127.0.0.1:1", "--map", MAP]);
    assert!(!down.status.success() && text(&down).contains("tallymark run"), "{}", text(&down));
}

const MANY: u64 = 30_000;

#[test]
fn ctrl_c_keeps_what_was_sent_and_the_same_command_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let (rows, counts) = rows(MANY);
    let path = file(dir.path(), "a.csv", csv(&rows));
    let server = Server::start(&dir.path().join("data"), &["--dedup-minutes", "0"]);
    let child = begin_import(&server, &path, &[]);
    await_records(&server, 40);
    signal(&child, "INT");
    let stopped = finish(child);
    assert_eq!(stopped.status.code(), Some(130), "{}", text(&stopped));
    assert!(text(&stopped).contains("stopped after row") && text(&stopped).contains("same command"), "{}", text(&stopped));
    let resumed = import(&server, &path, &[]);
    assert!(resumed.status.success() && text(&resumed).contains("going on after row"), "{}", text(&resumed));
    assert_counts(&server, &counts, 1);
    assert!(text(&import(&server, &path, &[])).contains("completely"));
}

#[test]
fn a_killed_import_goes_on_without_counting_twice_although_nothing_is_deduplicated() {
    let dir = tempfile::tempdir().unwrap();
    let (rows, counts) = rows(MANY);
    let path = file(dir.path(), "a.csv", csv(&rows));
    let mut server = Server::start(&dir.path().join("data"), &["--dedup-minutes", "0"]);
    let mut already = 0;
    for records in [30, 100, 200] {
        let mut child = begin_import(&server, &path, &[]);
        await_records(&server, records);
        child.kill().unwrap();
        child.wait().unwrap();
        // A stop settles whatever the killed importer still had in flight.
        assert!(server.stop().success());
        server.restart();
        already += 1;
    }
    let resumed = import(&server, &path, &[]);
    let said = text(&resumed);
    assert!(resumed.status.success() && said.contains("already there"), "{already} interruptions: {said}");
    assert_counts(&server, &counts, 1);
}

#[test]
fn a_server_that_is_killed_and_restarted_in_the_middle_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let (rows, counts) = rows(MANY);
    let path = file(dir.path(), "a.csv", csv(&rows));
    let mut server = Server::start(&dir.path().join("data"), &["--dedup-minutes", "0"]);
    let child = begin_import(&server, &path, &[]);
    for records in [40, 120, 240] {
        await_records(&server, records);
        server.kill();
        server.restart();
    }
    let done = finish(child);
    assert!(done.status.success(), "{}", text(&done));
    assert_counts(&server, &counts, 1);
}

#[test]
fn an_import_gives_up_when_its_patience_ends_and_says_how_to_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let (rows, counts) = rows(MANY);
    let path = file(dir.path(), "a.csv", csv(&rows));
    let mut server = Server::start(&dir.path().join("data"), &["--dedup-minutes", "0"]);
    let child = begin_import(&server, &path, &["--patience", "200ms"]);
    await_records(&server, 40);
    server.kill();
    let gone = finish(child);
    assert!(gone.status.code() == Some(1) && text(&gone).contains("run the same command again"), "{}", text(&gone));
    server.restart();
    assert!(import(&server, &path, &[]).status.success());
    assert_counts(&server, &counts, 1);
}
