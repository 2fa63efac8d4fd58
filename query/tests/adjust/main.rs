//! Counts are taken away and added by people: exactly, in every tier and list, once, never below zero; and undone.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "a test fails by panicking")]

#[path = "../rejected/scene.rs"]
#[allow(dead_code, reason = "another test needs the rest of it")]
mod scene;

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::Method;
use query::QueryService;
use schemas::adjustment::VideoChanges;
use schemas::{
    AdjustmentEntry, AdjustmentPart, Counts, FoldSettings, Millis, Minute, NewRecord, Offset, PartEnd, RecordKind, Source, correction,
};
use serde_json::{Value, json};

use scene::{DAY_MS, Scene, now};

const HOUR_MS: i64 = 3_600_000;
const MINUTE_MS: i64 = 60_000;

fn at(ms: i64) -> String {
    Millis(ms).to_rfc3339()
}

/// Views of a video in a space, appended to a source, whatever their age.
async fn views(scene: &Scene, source: u32, video: &str, times: impl IntoIterator<Item = i64>) {
    for (n, ts) in times.into_iter().enumerate().collect::<Vec<_>>().chunks(1_000).enumerate() {
        let event = |(i, ts): &(usize, i64)| {
            let id = format!("{source}-{video}-{n}-{i}-{ts}");
            format!("{}\n", json!({"event_id": id, "video_id": video, "space_id": "s", "ts": ts}))
        };
        let payload: String = ts.iter().map(event).collect();
        let record = NewRecord { historical: true, ..NewRecord::new(RecordKind::Ndjson, payload) };
        scene.backends.log.append(Source(source), vec![record]).await.unwrap();
    }
}

async fn post(scene: &Scene, service: usize, body: &Value) -> (u16, Value) {
    let (status, answer) = scene.send(service, Method::POST, "/v1/adjustments", Some(body.clone())).await;
    (status.as_u16(), answer)
}

/// Asks until it has ended.
async fn done(scene: &Scene, service: usize, body: &Value) -> Value {
    let begun = Instant::now();
    loop {
        assert!(begun.elapsed() < Duration::from_secs(50), "it never ended: {body}");
        let (status, answer) = post(scene, service, body).await;
        match status {
            200 => return answer,
            202 => {}
            _ => panic!("{body}: {answer}"),
        }
    }
}

fn adjust(id: &str, changes: Value) -> Value {
    json!({"id": id, "reason": "bots", "dry_run": false, "changes": changes})
}

fn minute(video: &str, ms: i64, gross: i64) -> Value {
    json!([{"video": video, "space": "s", "minute": at(ms), "gross": gross}])
}

/// Everything that can be asked of counts, of the days around a time.
async fn answers(scene: &Scene, ms: i64) -> Vec<Value> {
    let day = |days: i64| at((ms + days * DAY_MS).div_euclid(DAY_MS) * DAY_MS);
    let mut answers = Vec::new();
    for entity in ["videos/v", "videos/w", "spaces/s", "site"] {
        for step in ["1m", "1h", "1d", "1y", "all"] {
            let answer = scene.get(&format!("/v1/{entity}/views?start={}&end={}&step={step}", day(-1), day(1))).await;
            answers.push(json!([
                answer["total"],
                answer["points"].as_array().unwrap().iter().map(|point| point["views"].clone()).collect::<Value>()
            ]));
        }
    }
    answers
}

/// The lists of a day, as soon as they are what they should be: a list that was made is given out for some seconds.
async fn await_lists(scene: &Scene, ms: i64, expected: Value) {
    let day = |days: i64| at((ms + days * DAY_MS).div_euclid(DAY_MS) * DAY_MS);
    for _ in 0..500 {
        let mut lists = Vec::new();
        for list in ["videos", "spaces"] {
            let list = scene.get(&format!("/v1/top/{list}?start={}&end={}", day(0), day(1))).await;
            lists.push(list["entries"].as_array().unwrap().iter().map(|one| json!([one["id"], one["views"]])).collect::<Value>());
        }
        if json!(lists) == expected {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the lists never became {expected}");
}

/// All views of a video; of one that nothing is known of there are none.
async fn all_time(scene: &Scene, video: &str) -> i64 {
    let (status, body) = scene.send(0, Method::GET, &format!("/v1/videos/{video}"), None).await;
    if status == 404 { 0 } else { body["views"]["all_time"].as_i64().unwrap() }
}

fn total(answer: &Value) -> i64 {
    answer["total"].as_i64().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removal_shows_in_every_tier_and_list_and_undoing_it_brings_every_answer_back() {
    let scene = Scene::start().await;
    let then = (now() - 2 * DAY_MS).div_euclid(DAY_MS) * DAY_MS + 12 * HOUR_MS;
    views(&scene, 0, "v", [then, then, then]).await;
    views(&scene, 1, "v", [then, then + 1, then + 2, then + HOUR_MS]).await;
    views(&scene, 0, "w", [then; 5]).await;
    scene.counted().await;
    let before = answers(&scene, then).await;

    let removal = adjust("a", minute("v", then, -5));
    let mut tried = removal.clone();
    tried["dry_run"] = json!(true);
    let (status, would) = post(&scene, 0, &tried).await;
    assert_eq!(
        (status, &would["dry_run"], &would["total"]["gross"], &would["state"]),
        (200, &json!(true), &json!(-5), &json!("planned")),
        "{would}"
    );
    assert_eq!((answers(&scene, then).await, scene.get("/v1/adjustments").await["adjustments"].clone()), (before.clone(), json!([])));

    let answer = done(&scene, 0, &removal).await;
    assert_eq!((&answer["state"], &answer["changes"]), (&json!("taken"), &json!(2)), "it takes from both sources: {answer}");
    let after = answers(&scene, then).await;
    for (entity, left) in [(0, 2), (1, 5), (2, 7), (3, 7)] {
        for step in 0..5 {
            assert_eq!(after[entity * 5 + step][0], left, "entity {entity}, step {step}: {after:?}");
            let points: i64 = after[entity * 5 + step][1].as_array().unwrap().iter().map(|views| views.as_i64().unwrap()).sum();
            assert_eq!(points, left);
        }
    }
    await_lists(&scene, then, json!([[["w", 5], ["v", 2]], [["s", 7]]])).await;
    // The same again is the same, from wherever it comes.
    assert_eq!(done(&scene, 1, &removal).await["parts"], answer["parts"]);
    assert_eq!(answers(&scene, then).await, after);

    let (status, refused) = post(&scene, 0, &adjust("b", minute("v", then, -2))).await;
    assert_eq!((status, &refused["type"]), (409, &json!("/problems/below-zero")), "{refused}");
    let lacking = &refused["lacking"][0];
    assert_eq!((&lacking["wanted"], &lacking["holds"], &lacking["least"]["entity"]), (&json!(2), &json!(1), &json!("video v")));
    assert_eq!(scene.send(0, Method::GET, "/v1/adjustments/b", None).await.0, 404, "what is refused is nowhere");

    let undo = async |service: usize, dry_run: bool| {
        let body = Some(json!({"dry_run": dry_run}));
        scene.send(service, Method::POST, "/v1/adjustments/a/undo", body).await.1
    };
    assert_eq!(undo(0, true).await["total"]["gross"], 5);
    assert_eq!(answers(&scene, then).await, after, "a trial does nothing");
    let (one, other) = tokio::join!(undo(0, false), undo(1, false));
    assert_eq!((&one["id"], &one["undoes"], &other["id"]), (&json!("undo:a"), &json!("a"), &json!("undo:a")));
    undo(1, false).await;
    assert_eq!(answers(&scene, then).await, before);
    await_lists(&scene, then, json!([[["v", 7], ["w", 5]], [["s", 12]]])).await;
    let list = scene.get("/v1/adjustments").await;
    let shown = |n: usize, name: &str| list["adjustments"][n][name].clone();
    assert_eq!([shown(0, "id"), shown(1, "id"), shown(1, "undone_by")], [json!("undo:a"), json!("a"), json!("undo:a")]);
    assert_eq!(scene.get("/v1/adjustments?limit=1").await["adjustments"][0]["id"], "undo:a");
    let cursor = scene.get("/v1/adjustments?limit=1").await["cursor"].as_str().unwrap().replace(':', "%3A");
    assert_eq!(scene.get(&format!("/v1/adjustments?cursor={cursor}")).await["adjustments"][0]["id"], "a");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_authors_at_once_each_lands_and_none_takes_what_another_has_taken() {
    let scene = Scene::start().await;
    let then = (now() - DAY_MS).div_euclid(MINUTE_MS) * MINUTE_MS;
    views(&scene, 0, "v", (0..10).map(|n| then + n)).await;
    scene.counted().await;
    let bodies: Vec<Value> = (0..6).map(|n| adjust(&format!("two-{n}"), minute("v", then, -2))).collect();
    let ask = async |n: usize| loop {
        let (status, answer) = post(&scene, n % 2, &bodies[n]).await;
        if status != 202 {
            break (status, answer["state"].as_str().unwrap_or("none").to_owned());
        }
    };
    let (a, b, c, d, e, f) = tokio::join!(ask(0), ask(1), ask(2), ask(3), ask(4), ask(5));
    let ends = [a, b, c, d, e, f];
    assert_eq!(ends.iter().filter(|end| **end == (200, "taken".to_owned())).count(), 5, "{ends:?}");
    assert!(ends.iter().any(|(status, state)| *status == 409 || state == "refused"), "{ends:?}");
    assert_eq!(all_time(&scene, "v").await, 0);

    // One id is one adjustment, however many send it at once.
    views(&scene, 1, "w", [then; 9]).await;
    scene.counted().await;
    let same = adjust("same", minute("w", then, -3));
    tokio::join!(done(&scene, 0, &same), done(&scene, 1, &same), done(&scene, 0, &same), done(&scene, 1, &same));
    assert_eq!(scene.views("w").await, 6);
    let (status, other) = post(&scene, 0, &adjust("same", minute("w", then, -4))).await;
    assert_eq!((status, &other["type"]), (409, &json!("/problems/other-adjustment")));
    assert_eq!(scene.views("w").await, 6);
}

/// What an author that died left behind, at each step that it can die at.
#[tokio::test(flavor = "multi_thread")]
async fn what_an_author_that_died_left_behind_is_finished_and_not_done_twice() {
    let scene = Scene::start().await;
    let then = (now() - DAY_MS).div_euclid(MINUTE_MS) * MINUTE_MS;
    views(&scene, 0, "v", (0..9).map(|n| then + n)).await;
    views(&scene, 1, "v", (0..9).map(|n| then + n)).await;
    scene.counted().await;
    let from = [0, 1].map(|source| scene.backends.log.ends(Source(source)).unwrap().end);
    let part = |source: u32, views: i64| {
        let minutes = vec![(Minute::of(Millis(then)), -views, -views, 0).into()];
        AdjustmentPart {
            source: Source(source),
            from: from[source as usize],
            videos: vec![VideoChanges { video: "v".into(), space: Some("s".into()), minutes }],
        }
    };
    let parts = vec![part(0, 1), part(0, 2), part(0, 7), part(1, 3)];
    let entry = AdjustmentEntry {
        id: "x".into(),
        plan: "p".into(),
        created_at: Millis(now() - HOUR_MS),
        author: None,
        reason: "bots".into(),
        note: None,
        request: "r".into(),
        undoes: None,
        parts: 4,
        changes: 4,
        first: Minute::of(Millis(then)),
        last: Minute::of(Millis(then)),
        total: Counts { gross: -13, valid: -13, engaged: 0 },
    };
    scene.backends.store.create_adjustment(entry.clone(), Arc::new(parts.clone())).await.unwrap();
    // The first was taken and that was not noted; a copy before it and one after it were refused. The last was refused, and not tried again.
    let mut taken = Offset(0);
    for (index, after) in [(0, 7), (0, 0), (0, 0), (3, 5)] {
        let part: &AdjustmentPart = &parts[index as usize];
        let payload = correction::encode(&entry.adjustment(index, part, after));
        let appended = scene.append_raw(part.source.0, RecordKind::Adjustment, &payload).await;
        if after == 0 && taken == Offset(0) {
            taken = appended.first;
        }
    }
    scene.counted().await;
    assert_eq!(scene.views("v").await, 17);
    let finishing = [0, 1].map(|n| tokio::spawn(QueryService::finish_adjustments(Arc::downgrade(&scene.services[n]))));
    let ends = tokio::time::timeout(Duration::from_secs(50), async {
        loop {
            let ends = scene.backends.store.read_adjustment_ends("p".into()).await.unwrap();
            if ends.len() == 4 {
                break ends;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let ends = ends.await.unwrap();
    finishing.iter().for_each(tokio::task::JoinHandle::abort);
    assert!(matches!(ends[&0], PartEnd::Taken { offset, .. } if offset == taken), "{ends:?}");
    assert!(matches!(ends[&1], PartEnd::Taken { .. }) && matches!(ends[&3], PartEnd::Taken { .. }), "{ends:?}");
    assert!(matches!(ends[&2], PartEnd::Refused { .. }), "seven are not there any more: {ends:?}");
    scene.counted().await;
    assert_eq!(scene.views("v").await, 17 - 2 - 3);
    assert_eq!(scene.get("/v1/adjustments/x").await["state"], "taken_in_part");
}

#[tokio::test(flavor = "multi_thread")]
async fn minutes_that_are_open_are_refused_with_when_they_will_not_be() {
    let scene = Scene::start().await;
    views(&scene, 0, "v", [now()]).await;
    scene.counted().await;
    for changes in [minute("v", now(), -1), json!([{"video": "v", "end": at(now() + HOUR_MS), "remove": "all"}])] {
        let (status, open) = post(&scene, 0, &adjust("a", changes)).await;
        assert_eq!((status, &open["type"]), (409, &json!("/problems/minute-open")));
        assert!(open["closed_through"].is_string() && open["closes_by"].is_string(), "{open}");
    }
    let (status, nothing) = post(&scene, 0, &adjust("a", json!([{"video": "v", "remove": "all"}]))).await;
    assert_eq!((status, &nothing["type"]), (409, &json!("/problems/nothing-to-adjust")), "what is open is left alone: {nothing}");
    // Added where nothing was.
    let then = now() - 3 * HOUR_MS;
    let added = done(&scene, 0, &adjust("b", json!([{"video": "new", "space": null, "minute": at(then), "gross": 3, "engaged": 1}]))).await;
    assert_eq!((&added["state"], scene.views("new").await), (&json!("taken"), 3));
    assert_eq!(scene.get("/v1/site/views?step=all&metric=engaged&start=2020-01-01T00:00:00Z").await["total"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_video_counts_nothing_in_any_tier_also_where_minutes_and_hours_have_gone() {
    let ttl = FoldSettings { minute_ttl_ms: 2 * HOUR_MS, hour_ttl_ms: 30 * HOUR_MS, max_lateness_ms: HOUR_MS, ..FoldSettings::default() };
    let scene = Scene::with(FoldSettings { sources: 2, ..ttl }).await;
    let ages = [20 * MINUTE_MS, 90 * MINUTE_MS, 5 * HOUR_MS, 29 * HOUR_MS, 60 * HOUR_MS, 400 * DAY_MS];
    for source in 0..2 {
        views(&scene, source, "v", ages.map(|age| now() - age)).await;
    }
    views(&scene, 0, "w", ages.map(|age| now() - age)).await;
    scene.counted().await;
    let days = format!("start=2020-01-01T00:00:00Z&end={}&step=1d", at(now().div_euclid(DAY_MS) * DAY_MS + DAY_MS));
    let day_total = async |entity: &str| total(&scene.get(&format!("/v1/{entity}/views?{days}")).await);
    assert_eq!((day_total("videos/v").await, day_total("site").await), (12, 18));
    let (status, torn) = post(&scene, 0, &adjust("torn", json!([{"video": "v", "start": at(now() - 5 * HOUR_MS - MINUTE_MS), "end": at(now() - 5 * HOUR_MS + MINUTE_MS), "remove": "all"}]))).await;
    let is_torn = (status, torn["type"].as_str().unwrap()) == (410, "/problems/resolution-gone");
    assert!(is_torn, "{torn}");
    let answer = done(&scene, 0, &adjust("a", json!([{"video": "v", "space": "s", "remove": "all"}]))).await;
    assert_eq!((&answer["state"], &answer["total"]["gross"]), (&json!("taken"), &json!(-12)));
    for entity in ["videos/v", "videos/w", "spaces/s", "site"] {
        let left = if entity == "videos/v" { 0 } else { 6 };
        assert_eq!(day_total(entity).await, left, "{entity}");
    }
    assert_eq!(all_time(&scene, "v").await, 0);
    for (entity, left) in [("videos/w", 6), ("spaces/s", 6), ("site", 6)] {
        assert_eq!(scene.get(&format!("/v1/{entity}")).await["views"]["all_time"], left, "{entity}");
    }
    let hours = format!(
        "start={}&end={}&step=1h",
        at((now() - 29 * HOUR_MS).div_euclid(HOUR_MS) * HOUR_MS),
        at(now().div_euclid(HOUR_MS) * HOUR_MS)
    );
    let of_hours = total(&scene.get(&format!("/v1/videos/v/views?{hours}")).await);
    assert_eq!(of_hours, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_deletion_is_many_records_and_exact() {
    const MINUTES: i64 = 4_000;
    let scene = Scene::start().await;
    let then = (now() - 5 * DAY_MS).div_euclid(MINUTE_MS) * MINUTE_MS;
    for source in 0..2 {
        views(&scene, source, "v", (0..MINUTES).map(|n| then + n * MINUTE_MS)).await;
        views(&scene, source, "w", (0..100).map(|n| then + n * MINUTE_MS)).await;
    }
    scene.counted().await;
    let removal = adjust("a", json!([{"video": "v", "space": "s", "remove": "all"}]));
    let answer = done(&scene, 0, &removal).await;
    let parts = answer["parts"].as_array().unwrap();
    assert!(parts.len() > 4 && parts.iter().all(|part| part["state"] == "taken"), "{}", parts.len());
    assert_eq!((&answer["changes"], &answer["total"]["gross"]), (&json!(2 * MINUTES), &json!(-2 * MINUTES)));
    assert_eq!(
        (all_time(&scene, "v").await, scene.views("w").await, scene.get("/v1/site").await["views"]["all_time"].as_i64()),
        (0, 200, Some(200))
    );
    let (status, many) = post(&scene, 0, &json!({"reason": "x", "changes": vec![json!({"video": "v", "remove": "all"}); 1_001]})).await;
    assert_eq!((status, &many["limit"]), (400, &json!(1_000)));
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_requests_are_refused_and_change_nothing() {
    let scene = Scene::start().await;
    for (body, words) in [
        (json!([]), "object"),
        (json!({"reason": "x", "changes": [{"video": "v", "remove": "all"}], "more": 1}), "unknown field"),
        (json!({"reason": "x", "changes": [{"video": "v", "minute": "2026-11-20T12:00:00Z", "gross": 1.5}]}), "invalid type"),
        (json!({"reason": "x", "changes": [{"video": "v\u{0}", "remove": "all"}]}), "changes[0].video"),
        (json!({"reason": "x", "changes": [{"video": "v", "minute": "9999-12-31T00:00:00Z", "gross": 1}]}), "changes[0].minute"),
        (json!({"id": "undo:undo:x", "reason": "x", "changes": [{"video": "v", "remove": "all"}]}), "undo:"),
    ] {
        let (status, problem) = post(&scene, 0, &body).await;
        assert!(status == 400 && problem["detail"].as_str().unwrap().contains(words), "{body}: {problem}");
    }
    for (method, uri, status) in [
        (Method::GET, "/v1/adjustments?limit=0", 400),
        (Method::GET, "/v1/adjustments?cursor=x", 400),
        (Method::GET, "/v1/adjustments?limt=1", 400),
        (Method::GET, "/v1/adjustments/none", 404),
        (Method::GET, "/v1/adjustments/%00", 400),
        (Method::POST, "/v1/adjustments/none/undo", 404),
    ] {
        assert_eq!(scene.send(0, method.clone(), uri, None).await.0, status, "{method} {uri}");
    }
    let long = json!({"reason": "x", "note": "n".repeat(2 << 20), "changes": [{"video": "v", "remove": "all"}]});
    assert_eq!(post(&scene, 0, &long).await.0, 413);
}
