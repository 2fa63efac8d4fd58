//! `tallymark adjust` on the real program: counts are taken away and put back exactly once, whatever is killed on the way, and every answer shows
//! it within seconds.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test stops at the first fault")]

mod support;

use std::process::Stdio;

use schemas::Millis;
use serde_json::{Value, json};
use support::{Server, await_some, output, tallymark, text};

const MINUTE_MS: i64 = 60_000;
const DAY_MS: i64 = 1_440 * MINUTE_MS;

fn run(server: &Server, args: &[&str]) -> (Option<i32>, String) {
    let url = server.url("");
    let output = output(&[&["adjust"], args, &["--url", &url]].concat());
    (output.status.code(), text(&output))
}

fn event(id: String, video: &str, ts: i64) -> Value {
    json!({"event_id": id, "video_id": video, "space_id": "s", "ts": ts})
}

/// All views of a video or a space; of one that nothing is known of there are none.
fn all_time(server: &Server, entity: &str) -> i64 {
    let response = server.get(&format!("/v1/{entity}"));
    if response.status() == 404 { 0 } else { response.json::<Value>().unwrap()["views"]["all_time"].as_i64().unwrap() }
}

/// The views of all minutes.
fn minutes_of(server: &Server, entity: &str, start: &str, end: &str) -> i64 {
    server.views(entity, start, end, "1m").iter().map(|(_, views)| views).sum()
}

#[test]
fn people_take_counts_away_see_it_everywhere_and_put_them_back() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &["--flush-interval", "50ms"]);
    let then = (Millis::now().0 - DAY_MS).div_euclid(DAY_MS) * DAY_MS + 600 * MINUTE_MS;
    let at = Millis(then).to_rfc3339();
    server.post(&(0..10).map(|n| event(format!("v{n}"), "v", then + n)).collect::<Vec<_>>());
    server.post(&(0..4).map(|n| event(format!("w{n}"), "w", then + n * MINUTE_MS)).collect::<Vec<_>>());
    server.counted();
    assert!(run(&server, &["list"]).1.starts_with("Nothing was adjusted."));

    // Held answers must go: each is asked for before and after.
    let (day, next) = (Millis(then - 600 * MINUTE_MS).to_rfc3339(), Millis(then + 840 * MINUTE_MS).to_rfc3339());
    let totals = || {
        let of = |entity: &str| server.json(&format!("/v1/{entity}/views?start={day}&end={next}&step=1h"))["total"].as_i64().unwrap();
        let top = server.json(&format!("/v1/top/videos?start={day}&end={next}"));
        let top = top["entries"].as_array().unwrap().iter().map(|entry| json!([entry["id"], entry["views"]])).collect::<Value>();
        json!([of("videos/v"), of("spaces/s"), of("site"), all_time(&server, "videos/v"), all_time(&server, "spaces/s"), top])
    };
    let before = json!([10, 14, 14, 10, 14, [["v", 10], ["w", 4]]]);
    assert_eq!(totals(), before);
    let remove = ["remove", "v", "--minute", &at, "--gross", "7", "--space", "s", "--reason", "a click farm", "--id", "ticket-1"];
    let (code, told) = run(&server, &remove);
    assert!(
        code == Some(0) && told.contains("This can be done: say --publish") && told.contains("-7 gross, -7 valid, 0 engaged"),
        "{told}"
    );
    assert_eq!(totals(), before);
    let publish = [&remove[..], &["--publish"]].concat();
    let (code, told) = run(&server, &publish);
    assert!(code == Some(0) && told.starts_with("Done."), "{told}");
    let after = json!([3, 7, 7, 3, 7, [["w", 4], ["v", 3]]]);
    await_some("all answers show it", || (totals() == after).then_some(()));
    assert_eq!(run(&server, &publish).0, Some(0), "the same again is the same");
    let (code, told) = run(&server, &["remove", "v", "--minute", &at, "--gross", "4", "--space", "s", "--reason", "x", "--publish"]);
    assert!(
        code == Some(1) && told.contains("a count would fall below zero") && told.contains("4 gross are to be taken and 3 can be"),
        "{told}"
    );
    assert_eq!(totals(), after);

    let (code, told) = run(&server, &["show", "ticket-1"]);
    assert!(code == Some(0) && told.contains("state        taken") && told.contains("reason       a click farm"), "{told}");
    assert_eq!(run(&server, &["undo", "ticket-1"]).0, Some(0));
    assert_eq!(totals(), after, "without --publish nothing is done");
    for _ in 0..2 {
        assert_eq!(run(&server, &["undo", "ticket-1", "--publish"]).0, Some(0));
    }
    await_some("all answers are as before", || (totals() == before).then_some(()));
    let (code, told) = run(&server, &["delete", "v", "--space", "s", "--reason", "taken down", "--publish"]);
    assert!(code == Some(0) && told.starts_with("Done."), "{told}");
    await_some("the video has gone", || (totals() == json!([0, 4, 4, 0, 4, [["w", 4]]])).then_some(()));
    let list = run(&server, &["list", "--json"]).1;
    let list: Value = serde_json::from_str(&list).unwrap();
    let states: Vec<&str> = list["adjustments"].as_array().unwrap().iter().map(|one| one["state"].as_str().unwrap()).collect();
    assert_eq!((states, &list["adjustments"][2]["undone_by"]), (vec!["taken"; 3], &json!("undo:ticket-1")));
    let (code, told) = run(&server, &["delete", "v", "--space", "s", "--reason", "taken down", "--publish"]);
    assert!(code == Some(1) && told.contains("nothing is counted there"), "{told}");
}

#[test]
fn a_deletion_whose_server_is_killed_again_and_again_is_finished_and_exact() {
    const MINUTES: i64 = 5_000;
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path(), &["--flush-interval", "100ms", "--sources", "2", "--spread", "2"]);
    let then = (Millis::now().0 - 5 * DAY_MS).div_euclid(MINUTE_MS) * MINUTE_MS;
    for from in (0..MINUTES).step_by(1_000) {
        let minutes = from..from + 1_000;
        server.post(&minutes.clone().map(|n| event(format!("v{n}"), "v", then + n * MINUTE_MS)).collect::<Vec<_>>());
        server.post(&minutes.map(|n| event(format!("w{n}"), "w", then + n * MINUTE_MS)).collect::<Vec<_>>());
    }
    server.counted();
    let url = server.url("");
    let args = ["adjust", "delete", "v", "--space", "s", "--reason", "taken down", "--id", "all", "--publish", "--url", &url];
    let mut deletion = tallymark(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let adjustments = |server: &Server| server.sources("/checkpoint/adjustments").iter().sum::<u64>();
    for _ in 0..3 {
        let before = adjustments(&server);
        await_some("some more is taken away", || {
            let ended = deletion.try_wait().unwrap().is_some();
            (ended || adjustments(&server) > before).then_some(())
        });
        server.kill();
        server.restart();
    }
    // The one who asked dies, too: the server goes on by itself, at the latest when it starts again.
    deletion.kill().unwrap();
    deletion.wait().unwrap();
    server.kill();
    server.restart();
    let state = |server: &Server| server.json("/v1/adjustments/all")["state"].as_str().unwrap().to_owned();
    await_some("it is finished", || (state(&server) == "taken").then_some(()));
    server.counted();
    assert_eq!((all_time(&server, "videos/v"), all_time(&server, "videos/w"), all_time(&server, "spaces/s")), (0, MINUTES, MINUTES));
    assert_eq!(server.json("/v1/site")["views"]["all_time"], MINUTES);
    let (start, end) = (Millis(then).to_rfc3339(), Millis(then + MINUTES * MINUTE_MS).to_rfc3339());
    assert_eq!(server.views("videos/v", &start, &end, "1m"), []);
    assert_eq!(minutes_of(&server, "site", &start, &end), MINUTES);
    // And back, with nothing left of what a process remembers.
    assert!(server.stop().success());
    server.restart();
    let undone = output(&["adjust", "undo", "all", "--publish", "--url", &url]);
    assert!(undone.status.success(), "{}", text(&undone));
    server.counted();
    assert_eq!((all_time(&server, "videos/v"), all_time(&server, "spaces/s")), (MINUTES, 2 * MINUTES));
    assert_eq!(minutes_of(&server, "videos/v", &start, &end), MINUTES);
}
