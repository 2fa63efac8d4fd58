//! A disk that fills up, a log whose tail was damaged: named, non-zero, and nothing that was acknowledged is lost.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test stops at the first fault")]

mod support;

use std::process::{Command, Stdio};

use serde_json::json;
use support::{Dice, Server, launch, text};

fn now_ms() -> u64 {
    u64::try_from(std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

/// A server whose files cannot grow beyond `kib`: writes then fail as they do on a full disk.
fn on_a_small_disk(data: &std::path::Path, kib: u64) -> Command {
    let mut command = Command::new("bash");
    // XFSZ ignored: the write fails with an error instead of ending the process.
    let script = format!("trap '' XFSZ; ulimit -f {kib}; exec \"$0\" \"$@\"");
    command.args(["-c", &script, env!("CARGO_BIN_EXE_tallymark"), "run", "--listen", "127.0.0.1:0", "--data", data.to_str().unwrap()]);
    command.stderr(Stdio::piped());
    command
}

#[test]
fn a_full_disk_ends_the_server_with_the_reason_and_loses_nothing_that_was_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    // Made without the limit, because its first files have their full size at once.
    assert!(Server::start(&data, &[]).stop().success());
    let (child, address) = launch(on_a_small_disk(&data, 4 * 1024));
    let http = reqwest::blocking::Client::builder().no_proxy().build().unwrap();
    let (mut acknowledged, mut sent) = (0, 0);
    // Large events that do not compress, so that the disk is full soon.
    let mut dice = Dice(1);
    let unavailable = loop {
        let body: String = (0..100)
            .map(|_| {
                sent += 1;
                let padding: String = (0..120).map(|_| format!("{:016x}", dice.roll())).collect();
                format!("{}\n", json!({"event_id": format!("e{sent}"), "video_id": "v", "ts": now_ms(), "padding": padding}))
            })
            .collect();
        match http.post(format!("http://{address}/v1/events")).header("content-type", "application/x-ndjson").body(body).send() {
            Ok(answer) if answer.status() == 202 => acknowledged += 100,
            Ok(answer) => break answer.status().as_u16(),
            // It ended before it could answer.
            Err(_) => break 503,
        }
        assert!(sent < 100_000, "the disk was never full");
    };
    assert_eq!(unavailable, 503);
    let ended = child.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(1), "{}", text(&ended));
    assert!(text(&ended).contains("failed while running") && text(&ended).contains("too large"), "{}", text(&ended));

    // With room again, everything acknowledged is counted; what was refused may or may not be.
    let server = Server::start(&data, &[]);
    let status = server.counted();
    let counted = status["totals"]["tally"]["counted"].as_u64().unwrap();
    assert!((acknowledged..=sent).contains(&counted), "{acknowledged} acknowledged, {counted} counted of {sent}");
    assert_eq!(server.json("/v1/videos/v")["views"]["all_time"].as_u64().unwrap(), counted);
}

#[test]
fn a_data_directory_that_lost_its_log_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path(), &[]);
    server.post(&[json!({"event_id": "a", "video_id": "v", "ts": now_ms()})]);
    server.counted();
    assert!(server.stop().success());
    std::fs::remove_dir_all(dir.path().join("log")).unwrap();
    let output = support::output(&["run", "--data", dir.path().to_str().unwrap(), "--listen", "127.0.0.1:0"]);
    let said = text(&output);
    assert!(output.status.code() == Some(1) && said.contains("belongs to log"), "{said}");
}
