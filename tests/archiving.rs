//! The archive as its user meets it: kept by the server, through a kill, checked and rewritten by commands.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test stops at the first fault")]

mod support;

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use support::{Server, await_some, output, tallymark, text};
use test_servers::S3Server;

fn event(n: u64) -> Value {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
    json!({"event_id": format!("e{n}"), "video_id": format!("v{}", n % 7), "viewer_id": format!("viewer-{}", n % 3),
        "space_id": "s", "ts": u64::try_from(now).unwrap(), "player": {"zoom": 1.5}})
}

/// Sends events, a few at a time, until so many rows have been archived by this process.
fn send_until(server: &Server, sent: &mut u64, rows: f64) {
    await_some("events are archived", || {
        server.post(&(*sent..*sent + 20).map(event).collect::<Vec<_>>());
        *sent += 20;
        std::thread::sleep(Duration::from_millis(100));
        (server.metric("tallymark_archive_rows_total") >= rows).then_some(())
    });
}

fn archive(data: &Path, args: &[&str]) -> (Option<i32>, String) {
    let place = data.join("archive");
    let settings = ["--data", data.to_str().unwrap(), "--archive", place.to_str().unwrap()];
    let output = output(&[&["archive"], args, &settings].concat());
    (output.status.code(), text(&output))
}

#[test]
fn an_archive_that_a_server_keeps_is_the_log_also_after_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let place = format!("file://{}", dir.path().join("archive").display());
    let mut server = Server::start(dir.path(), &["--archive", &place, "--archive-every", "1s"]);
    let mut sent = 0;
    send_until(&server, &mut sent, 100.0);
    server.kill();
    server.restart();
    send_until(&server, &mut sent, 100.0);
    assert_eq!(server.metric("tallymark_archive_failures_total"), 0.0);
    assert!(server.stop().success());

    let (code, said) = archive(dir.path(), &["verify"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("Yes: the archive is the log."), "{said}");
    let (_, said) = archive(dir.path(), &["status", "--json"]);
    let status: Value = serde_json::from_str(&said).unwrap();
    let rows: u64 = status["sources"].as_array().unwrap().iter().map(|source| source["rows"].as_u64().unwrap()).sum();
    assert!(rows >= 200 && rows <= sent + 100, "{rows} rows of {sent} events and some ticks");

    let (code, said) = archive(dir.path(), &["forget-viewer", "viewer-1"]);
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = archive(dir.path(), &["verify", "--json"]);
    assert_eq!(code, Some(0), "{said}");
    let found: Value = serde_json::from_str(&said).unwrap();
    let forgotten: u64 = found["sources"].as_array().unwrap().iter().map(|source| source["found"]["forgotten"].as_u64().unwrap()).sum();
    assert!(forgotten > 50, "{said}");
    // The server goes on with it.
    server.restart();
    send_until(&server, &mut sent, 40.0);
    assert!(server.stop().success());
    let (code, said) = archive(dir.path(), &["verify"]);
    assert_eq!(code, Some(0), "{said}");
}

#[cfg(all(feature = "kafka", feature = "cassandra"))]
#[test]
fn on_kafka_and_cassandra_two_archivers_of_which_one_is_killed_keep_one_archive() {
    if test_servers::skipped() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let settings = [
        ("--kafka-brokers", test_servers::kafka().bootstrap()),
        ("--kafka-topic", "archived".to_owned()),
        ("--cassandra-nodes", test_servers::cassandra().contact()),
        ("--cassandra-keyspace", "archived".to_owned()),
        ("--replication", "1".to_owned()),
        ("--sources", "2".to_owned()),
        ("--archive", dir.path().display().to_string()),
        ("--archive-every", "1s".to_owned()),
    ];
    let settings: Vec<String> = settings.into_iter().flat_map(|(key, value)| [key.to_owned(), value]).collect();
    let args = |command: &[&'static str]| command.iter().copied().chain(settings.iter().map(String::as_str)).collect::<Vec<_>>();
    let migrated = output(&args(&["migrate"]));
    assert!(migrated.status.success(), "{}", text(&migrated));
    let start = |role: &'static str| {
        let server = Server::of(&args(&[role]));
        server.await_ready();
        server
    };
    let (collect, mut first, mut second) = (start("collect"), start("archive"), start("archive"));
    let mut sent = 0;
    let mut send = |enough: &dyn Fn() -> bool| {
        await_some("events are archived", || {
            collect.post(&(sent..sent + 20).map(event).collect::<Vec<_>>());
            sent += 20;
            std::thread::sleep(Duration::from_millis(100));
            enough().then_some(())
        });
    };
    let rows = |server: &Server| server.metric("tallymark_archive_rows_total");
    send(&|| rows(&first) + rows(&second) >= 100.0);
    first.kill();
    let before = rows(&second);
    send(&|| rows(&second) >= before + 100.0);
    assert!(second.stop().success());
    let verified = output(&args(&["archive", "verify"]));
    assert!(verified.status.success() && text(&verified).contains("Yes: the archive is the log."), "{}", text(&verified));
    let forgot = output(&args(&["archive", "forget-viewer", "viewer-1"]));
    assert!(forgot.status.success(), "{}", text(&forgot));
    let verified = output(&args(&["archive", "verify", "--json"]));
    let found: Value = serde_json::from_str(&String::from_utf8_lossy(&verified.stdout)).unwrap();
    let forgotten: u64 = found["sources"].as_array().unwrap().iter().map(|source| source["found"]["forgotten"].as_u64().unwrap()).sum();
    assert!(found["sound"] == json!(true) && forgotten > 20, "{found}");
}

#[test]
fn a_bucket_holds_an_archive_as_a_directory_does() {
    if test_servers::skipped() {
        return;
    }
    let s3 = S3Server::start();
    let dir = tempfile::tempdir().unwrap();
    let settings = dir.path().join("t.toml");
    let place = format!("s3://{}/tally/mark", S3Server::BUCKET);
    let keys = format!("archive = {place:?}\narchive_endpoint = {:?}\narchive_every = \"1s\"\n", s3.endpoint());
    std::fs::write(&settings, keys).unwrap();
    let settings = settings.to_str().unwrap();
    let mut command = tallymark(&["run", "--data", dir.path().to_str().unwrap(), "--config", settings, "--listen", "127.0.0.1:0"]);
    let mut server = Server::by(command.envs(S3Server::environment()));
    let mut sent = 0;
    send_until(&server, &mut sent, 100.0);
    assert!(server.stop().success());
    let command = |args: &[&str]| {
        let all = [&["archive"], args, &["--data", dir.path().to_str().unwrap(), "--config", settings]].concat();
        let output = tallymark(&all).envs(S3Server::environment()).output().unwrap();
        (output.status.code(), text(&output))
    };
    for args in [vec!["verify"], vec!["forget-viewer", "viewer-2"], vec!["verify"]] {
        let (code, said) = command(&args);
        assert_eq!(code, Some(0), "{args:?}: {said}");
    }
    assert!(s3.objects().join("tally/mark/tallymark-archive.json").is_file());
    // A wrong key is said, and no secret.
    let all = ["archive", "verify", "--data", dir.path().to_str().unwrap(), "--config", settings];
    let refused = tallymark(&all).envs([("AWS_ACCESS_KEY_ID", "somebody"), ("AWS_SECRET_ACCESS_KEY", "hunter2")]).output().unwrap();
    assert!(!refused.status.success() && !text(&refused).contains("hunter2"), "{}", text(&refused));
}

#[test]
fn a_place_that_is_none_or_anothers_is_refused_with_the_way_out() {
    let dir = tempfile::tempdir().unwrap();
    let said = |args: &[&str]| text(&output(args));
    let data = dir.path().to_str().unwrap();
    let refused = said(&["archive", "status", "--data", data]);
    assert!(refused.contains("name its place with --archive"), "{refused}");
    let refused = said(&["run", "--data", data, "--archive", "ftp://x"]);
    assert!(refused.contains("s3://BUCKET/PREFIX"), "{refused}");
    let place = dir.path().join("archive");
    std::fs::create_dir_all(&place).unwrap();
    std::fs::write(place.join("tallymark-archive.json"), r#"{"log":"another"}"#).unwrap();
    let refused = said(&["run", "--data", data, "--listen", "127.0.0.1:0", "--archive", place.to_str().unwrap()]);
    assert!(refused.contains("holds the archive of log another") && refused.contains("a place of its own"), "{refused}");
}
