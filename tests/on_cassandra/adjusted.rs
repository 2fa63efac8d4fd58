//! Adjustments on real Kafka and Cassandra: two people through two servers at once, one of which is killed on the way.

use std::process::Stdio;

use schemas::Millis;
use serde_json::{Value, json};

use crate::support::{Server, await_some, output, tallymark, text};

const MINUTE_MS: i64 = 60_000;
const MINUTES: i64 = 2_500;

fn all_time(server: &Server, entity: &str) -> i64 {
    let response = server.get(&format!("/v1/{entity}"));
    if response.status() == 404 { 0 } else { response.json::<Value>().unwrap()["views"]["all_time"].as_i64().unwrap() }
}

#[test]
fn counts_are_taken_away_and_put_back_exactly_through_two_servers_of_which_one_is_killed() {
    if test_servers::skipped() {
        return;
    }
    let settings = [
        ("--kafka-brokers", test_servers::kafka().bootstrap()),
        ("--kafka-topic", "adjusted".to_owned()),
        ("--cassandra-nodes", test_servers::cassandra().contact()),
        ("--cassandra-keyspace", "adjusted".to_owned()),
        ("--replication", "1".to_owned()),
        ("--sources", "2".to_owned()),
        ("--spread", "2".to_owned()),
        ("--flush-interval", "200ms".to_owned()),
    ];
    let settings: Vec<String> = settings.into_iter().flat_map(|(key, value)| [key.to_owned(), value]).collect();
    let args = |command: &'static str| std::iter::once(command).chain(settings.iter().map(String::as_str)).collect::<Vec<_>>();
    let migrated = output(&args("migrate"));
    assert!(migrated.status.success(), "{}", text(&migrated));
    let start = |role: &'static str| {
        let server = Server::of(&args(role));
        server.await_ready();
        server
    };
    let (collect, _aggregate, mut first, second) = (start("collect"), start("aggregate"), start("query"), start("query"));
    let then = (Millis::now().0 - 4 * 1_440 * MINUTE_MS).div_euclid(MINUTE_MS) * MINUTE_MS;
    let event =
        |video: &str, n: i64| json!({"event_id": format!("{video}-{n}"), "video_id": video, "space_id": "s", "ts": then + n * MINUTE_MS});
    for from in (0..MINUTES).step_by(500) {
        collect.post(&(from..from + 500).flat_map(|n| [event("v", n), event("w", n)]).collect::<Vec<_>>());
    }
    await_some("all is counted", || (all_time(&second, "site") == 2 * MINUTES).then_some(()));
    await_some("minutes are closed", || {
        let status = second.json("/v1/status");
        let sources = status["sources"].as_array().unwrap().clone();
        sources.iter().all(|source| source.pointer("/checkpoint/closed").is_some_and(Value::is_string)).then_some(())
    });
    let ask = |server: &Server, args: &[&str]| {
        let url = server.url("");
        let all = [&["adjust"], args, &["--reason", "taken down", "--publish", "--url", &url]].concat();
        tallymark(&all).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    // Two people, one of whom deletes while the other takes a few away; and the first server dies.
    let at = Millis(then).to_rfc3339();
    let delete = ask(&first, &["delete", "v", "--space", "s", "--id", "all"]);
    let remove = ask(&second, &["remove", "w", "--minute", &at, "--gross", "1", "--space", "s", "--id", "one"]);
    await_some("some are taken away", || (second.sources("/checkpoint/adjustments").iter().sum::<u64>() > 1).then_some(()));
    first.kill();
    first.restart();
    for asked in [delete, remove] {
        let output = asked.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
    }
    for server in [&first, &second] {
        await_some("both servers say so", || {
            let totals = ["videos/v", "videos/w", "spaces/s", "site"].map(|entity| all_time(server, entity));
            (totals == [0, MINUTES - 1, MINUTES - 1, MINUTES - 1]).then_some(())
        });
    }
    let (start, end) = (Millis(then).to_rfc3339(), Millis(then + MINUTES * MINUTE_MS).to_rfc3339());
    assert_eq!(second.views("videos/v", &start, &end, "1m"), []);
    // The same again is the same, also through the other server; and below zero is refused.
    let again = ask(&second, &["delete", "v", "--space", "s", "--id", "all"]).wait_with_output().unwrap();
    assert!(again.status.success() && text(&again).starts_with("Done."), "{}", text(&again));
    let refused = ask(&first, &["remove", "w", "--minute", &at, "--gross", "1", "--space", "s", "--id", "two"]).wait_with_output().unwrap();
    assert!(!refused.status.success() && text(&refused).contains("below zero"), "{}", text(&refused));
    // And back, asked for at both at once.
    let undone = [&first, &second].map(|server| {
        tallymark(&["adjust", "undo", "all", "--publish", "--url", &server.url("")])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    });
    for undo in undone {
        let output = undo.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
    }
    await_some("all is back", || {
        let totals = ["videos/v", "videos/w", "spaces/s"].map(|entity| all_time(&second, entity));
        (totals == [MINUTES, MINUTES - 1, 2 * MINUTES - 1]).then_some(())
    });
    let views: i64 = second.views("videos/v", &start, &end, "1m").iter().map(|(_, views)| views).sum();
    assert_eq!(views, MINUTES);
    let list = first.json("/v1/adjustments");
    let states: Vec<&Value> = list["adjustments"].as_array().unwrap().iter().map(|one| &one["state"]).collect();
    assert_eq!(states, ["taken"; 3]);
}
