//! Refused events are found, shown, and counted after all: each exactly once, by however many, however often, and after any crash. And what
//! became of an event is said.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "a test fails by panicking")]

mod scene;

use std::collections::HashMap;

use axum::http::Method;
use schemas::partition::positive_murmur2;
use schemas::retry::{Claimed, Note};
use schemas::{Claim, LetterId, Millis, Offset, RecordKind, Source, correction};
use serde_json::{Value, json};

use scene::{DAY_MS, Scene, event, now};

/// Events that are too old, each of a video `v0` to `v9`.
fn old_events(ids: std::ops::Range<u32>) -> Vec<Value> {
    let ts = now() - 8 * DAY_MS;
    ids.map(|id| event(&format!("e{id}"), &format!("v{}", id % 10), ts + i64::from(id) * 1_000)).collect()
}

fn names(list: &Value) -> Vec<String> {
    list["letters"].as_array().unwrap().iter().map(|letter| letter["letter"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_are_listed_newest_first_filtered_and_page_by_page() {
    let scene = Scene::start().await;
    for id in 0..7 {
        scene.append(0, &old_events(id..id + 1)).await;
    }
    scene.append(1, &[json!({"event_id": "x", "video_id": "", "ts": now()}), event("good", "v", now())]).await;
    scene.append_raw(1, RecordKind::Json, b"\xff\x00").await;
    scene.counted().await;
    let all = scene.get("/v1/rejected").await;
    assert_eq!((names(&all).len(), &all["more"], &all["cursor"], &all["looked_at"]), (9, &json!(false), &Value::Null, &json!(9)));
    let old = scene.get("/v1/rejected?reason=too_old&stage=classify&source=0").await;
    assert_eq!(names(&old), (1..8).rev().map(|offset| format!("0/{offset}/0")).collect::<Vec<_>>());
    let first = &old["letters"][0];
    assert_eq!(
        (&first["event_id"], &first["video_id"], &first["state"], &first["historical"]),
        (&json!("e6"), &json!("v6"), &json!("open"), &json!(false))
    );

    let (mut paged, mut uri) = (Vec::new(), "/v1/rejected?reason=too_old&limit=3".to_owned());
    loop {
        let page = scene.get(&uri).await;
        assert!(names(&page).len() <= 3);
        paged.extend(names(&page));
        let Some(cursor) = page["cursor"].as_u64() else { break };
        uri = format!("/v1/rejected?reason=too_old&limit=3&cursor={cursor}");
    }
    assert_eq!(paged, names(&old));
    let later = now() / 1_000 + 60;
    assert_eq!(names(&scene.get(&format!("/v1/rejected?start={later}")).await), [""; 0]);
    assert_eq!(names(&scene.get(&format!("/v1/rejected?end={later}")).await).len(), 9);

    let mut tables = Vec::new();
    let mut uri = "/v1/rejected?format=csv&limit=4".to_owned();
    loop {
        let (headers, body) = scene.bytes(&uri).await;
        assert!(headers["content-type"].to_str().unwrap().starts_with("text/csv") && headers["vary"] == "accept");
        let mut rows = csv::Reader::from_reader(&*body);
        let columns: Vec<String> = rows.headers().unwrap().iter().map(str::to_owned).collect();
        tables.extend(
            rows.records().map(|row| columns.iter().cloned().zip(row.unwrap().iter().map(str::to_owned)).collect::<HashMap<_, _>>()),
        );
        let Some(cursor) = headers.get("tallymark-cursor") else { break };
        uri = format!("/v1/rejected?format=csv&limit=4&cursor={}", cursor.to_str().unwrap());
    }
    assert_eq!(tables.iter().map(|row| row["letter"].clone()).collect::<Vec<_>>(), names(&all));
    for (row, letter) in tables.iter().zip(all["letters"].as_array().unwrap()) {
        for (name, cell) in row {
            let said = &letter[name];
            let said = said.as_str().map_or_else(|| if said.is_null() { String::new() } else { said.to_string() }, str::to_owned);
            match &**name {
                "rejected_at" => assert_eq!(Millis::parse_rfc3339(cell), Millis::parse_rfc3339(&said)),
                _ => assert_eq!(*cell, said, "{name}"),
            }
        }
    }

    let binary = scene.get("/v1/rejected/1/2/0").await;
    assert_eq!((&binary["hex"], &binary["reason"], &binary["event_id"]), (&json!("ff00"), &json!("bad_json"), &Value::Null));
    let at = first["at"].as_u64().unwrap();
    for uri in [format!("/v1/rejected/0/7/0?at={at}"), "/v1/rejected/0/7/0".to_owned(), "/v1/rejected/0/7/0?at=0".to_owned()] {
        assert!(scene.get(&uri).await["text"].as_str().unwrap().contains("\"e6\""), "{uri}");
    }
    for (uri, status, kind) in [
        ("/v1/rejected/0/7/1", 404, "unknown-letter"),
        ("/v1/rejected/9/6/0", 404, "unknown-letter"),
        ("/v1/rejected/0/99/0?at=99", 404, "unknown-letter"),
        ("/v1/rejected/0/x/0", 400, "bad-parameter"),
        ("/v1/rejected/0/7/4294967296", 404, "unknown-letter"),
        ("/v1/rejected?reason=old", 400, "bad-parameter"),
        ("/v1/rejected?limit=1001", 400, "bad-parameter"),
        ("/v1/rejected?raeson=too_old", 400, "unknown-parameter"),
    ] {
        let (got, body) = scene.send(0, Method::GET, uri, None).await;
        assert_eq!((got.as_u16(), body["type"].as_str().unwrap()), (status, &*format!("/problems/{kind}")), "{uri}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_that_several_retry_at_once_and_again_are_counted_exactly_once() {
    let scene = Scene::start().await;
    // Some events were sent twice, and so refused twice: there are letters of 900 ids.
    scene.append(0, &old_events(0..600)).await;
    scene.append(0, &old_events(500..620)).await;
    scene.append(1, &old_events(620..900)).await;
    scene.counted().await;
    let would = scene.retry(0, json!({"reason": "too_old"})).await;
    assert_eq!(
        (&would["dry_run"], &would["matched"], &would["counted"], &would["still_rejected"]["too_old"]),
        (&json!(true), &json!(1000), &json!(0), &json!(1000))
    );
    let would = scene.retry(0, json!({"reason": "too_old", "historical": true})).await;
    assert_eq!((&would["matched"], &would["counted"], &would["duplicate"]), (&json!(1000), &json!(900), &json!(100)));
    assert_eq!(scene.tally().await, [0, 0, 1000], "a dry run does nothing");

    let ask = || json!({"reason": "too_old", "historical": true, "limit": 350});
    tokio::join!(scene.retry_all(0, ask()), scene.retry_all(1, ask()), scene.retry_all(0, ask()), scene.retry_all(1, ask()));
    scene.counted().await;
    for video in 0..10 {
        assert_eq!(scene.views(&format!("v{video}")).await, 90);
    }
    // For ever: not by the deduplication window, which knows nothing of them.
    let again = scene.retry(1, json!({"historical": true, "dry_run": false})).await;
    assert_eq!((&again["counted"], &again["already_counted"], &again["unfinished"]), (&json!(0), &json!(900), &json!(0)));
    assert_eq!((&again["duplicate"], &again["unknown"]), (&json!(100), &json!(0)));
    let letter = scene.get("/v1/rejected/1/1/7").await;
    assert_eq!((&letter["state"], letter["counted_by"].is_u64()), (&json!("counted"), true));
    let status = scene.get("/v1/status").await;
    assert_eq!(status["totals"]["tally"]["rejected"], 1000, "what was refused stays refused in the account of events");
}

/// What a retry that died left behind, at each step that it can die at.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_retry_that_died_left_behind_is_finished_by_the_next_and_not_done_twice() {
    let scene = Scene::start().await;
    for id in 0..4 {
        scene.append(0, &old_events(id..id + 1)).await;
    }
    scene.counted().await;
    let claim = |name: &str, id: u32, from: u64| {
        let event = old_events(id..id + 1).remove(0).to_string();
        let letter = LetterId { source: Source(0), offset: Offset(u64::from(id) + 1), index: 0 };
        let claimed = Claimed::of(letter, &schemas::json::decode(event.as_bytes()).unwrap(), None);
        Claim { id: name.into(), source: Source(0), from: Offset(from), letters: vec![claimed] }
    };
    // One died before its adjustment, one after it, and one whose adjustment was refused.
    for (name, id) in [("before", 0), ("after", 1), ("refused", 2)] {
        scene.note(Note::Claim(claim(name, id, 5)).encode()).await;
    }
    for (name, id, after) in [("after", 1, 0), ("refused", 2, 7)] {
        let adjustment = claim(name, id, 5).adjustment(after);
        scene.append_raw(0, RecordKind::Adjustment, &correction::encode(&adjustment)).await;
    }
    scene.counted().await;
    assert_eq!([scene.views("v1").await, scene.tally().await[2]], [1, 4]);
    let states = async || {
        scene.get("/v1/rejected?reason=too_old").await["letters"]
            .as_array()
            .unwrap()
            .iter()
            .map(|letter| letter["state"].clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(states().await, ["open", "claimed", "claimed", "claimed"]);

    scene.retry_all(1, json!({"historical": true})).await;
    scene.counted().await;
    assert_eq!(states().await, ["counted"; 4]);
    for video in ["v0", "v1", "v2", "v3"] {
        assert_eq!(scene.views(video).await, 1, "{video}");
    }
    // And one who wakes only now, with what was right when it fell asleep.
    scene.append_raw(0, RecordKind::Adjustment, &correction::encode(&claim("before", 0, 5).adjustment(1))).await;
    scene.counted().await;
    assert_eq!(scene.views("v0").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_counts_when_it_is_mended_and_its_original_stays() {
    let scene = Scene::start().await;
    scene.append(0, &[json!({"event_id": "e", "video_id": "", "ts": now() - 120_000, "player": "x"})]).await;
    // A later record closes the minute.
    scene.append(0, &[event("other", "w", now())]).await;
    scene.counted().await;
    let still = scene.retry(0, json!({"letters": ["0/1/0"], "dry_run": false})).await;
    assert_eq!(
        (&still["counted"], &still["still_rejected"], &still["examples"][0]["letter"]),
        (&json!(0), &json!({"bad_id": 1}), &json!("0/1/0"))
    );
    let mended = scene.retry(0, json!({"letters": ["0/1/0"], "set": {"video_id": "mended"}, "dry_run": false})).await;
    assert_eq!(mended["counted"], 1, "{mended}");
    assert_eq!(scene.views("mended").await, 1);
    let letter = scene.get("/v1/rejected/0/1/0").await;
    assert_eq!((&letter["state"], &letter["video_id"]), (&json!("counted"), &json!("")));
    for (body, words) in [
        (json!({"letters": ["0/1/0", "0/2/0"], "set": {"video_id": "x"}}), "it mends one letter"),
        (json!({"set": {"video_id": "x"}}), "it mends one letter"),
        (json!({"letters": ["0/1/0"], "reason": "too_old"}), "not both"),
        (json!({"letters": []}), "1 to 100"),
        (json!({"letters": ["0/0"]}), "letters[0]"),
        (json!({"limit": 0}), "1 to 1000"),
        (json!({"cursor": "x"}), "cursor"),
        (json!({"reasons": "too_old"}), "unknown field"),
        (json!({"reason": "old"}), "too_old"),
    ] {
        let (status, problem) = scene.send(0, Method::POST, "/v1/rejected/retry", Some(body.clone())).await;
        assert!(status == 400 && problem["detail"].as_str().unwrap().contains(words), "{body}: {problem}");
    }
    assert_eq!(scene.send(0, Method::POST, "/v1/rejected/retry", Some(json!({"letters": ["0/5/0"]}))).await.0, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_aggregator_a_retry_says_what_is_unfinished_and_loses_nothing() {
    let mut scene = Scene::start().await;
    scene.append(0, &old_events(0..3)).await;
    scene.counted().await;
    scene.stop_folding().await;
    let answer = scene.retry(0, json!({"historical": true, "dry_run": false})).await;
    assert_eq!((&answer["counted"], &answer["unfinished"]), (&json!(0), &json!(3)));
    let answer = scene.retry(1, json!({"historical": true})).await;
    assert_eq!((&answer["counted"], &answer["unfinished"]), (&json!(0), &json!(3)));
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_said_of_an_event_whether_it_was_counted_and_why_not() {
    let mut scene = Scene::start().await;
    // One whose events go to source 0.
    let video = (0..).map(|n| format!("v{n}")).find(|video| positive_murmur2(video.as_bytes()).is_multiple_of(2)).unwrap();
    scene.append(0, &[event("e", "v", now()), event("f", &video, now()), event("e", "v", now())]).await;
    scene.append(0, &[event("e", "v", now() - 9 * DAY_MS), json!({"event_id": "bad", "video_id": "v", "ts": "soon"})]).await;
    scene.append(1, &[event("e", "w", now())]).await;
    scene.counted().await;
    let said = scene.get("/v1/events/e").await;
    let told = said["occurrences"].as_array().unwrap();
    let states: Vec<&str> = told.iter().map(|one| one["state"].as_str().unwrap()).collect();
    assert_eq!(
        (states, &said["state"], &said["found"]),
        (vec!["counted", "duplicate", "rejected", "counted"], &json!("counted"), &json!(4))
    );
    assert_eq!(told[1]["duplicate_of"], json!({"source": 0, "offset": 1, "index": 0}));
    let refused = &told[2]["refused"];
    assert_eq!((&refused["reason"], &refused["letter"], &refused["letter_state"]), (&json!("too_old"), &json!("0/2/0"), &json!("open")));
    assert_eq!(scene.get("/v1/rejected/0/2/0").await["event_id"], "e", "the letter that it names is there");
    assert_eq!(said["searched"]["sources"], 2);
    assert_eq!(scene.get("/v1/events/bad?within=1m").await["state"], "rejected");
    let of_video = scene.get(&format!("/v1/events/f?video_id={video}")).await;
    assert_eq!(of_video["searched"]["sources"], 1);

    scene.retry_all(0, json!({"letters": ["0/2/0"], "historical": true})).await;
    assert_eq!(scene.get("/v1/events/e").await["occurrences"][2]["state"], "counted");

    scene.stop_folding().await;
    scene.append(1, &[event("late", "w", now())]).await;
    assert_eq!(scene.get("/v1/events/late").await["state"], "pending");
    let (status, problem) = scene.send(0, Method::GET, "/v1/events/none?within=2h", None).await;
    assert_eq!((status.as_u16(), &problem["type"], &problem["complete"]), (404, &json!("/problems/unknown-event"), &json!(true)));
    assert!(problem["since"].is_string() && problem["detail"].as_str().unwrap().contains("2 sources"), "{problem}");
    for uri in ["/v1/events/e?within=25h", "/v1/events/e?within=soon", "/v1/events/e?video_id=", "/v1/events/e?video=v"] {
        assert_eq!(scene.send(0, Method::GET, uri, None).await.0, 400, "{uri}");
    }
}
