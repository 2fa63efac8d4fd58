//! Keys of processes that share a keyspace: a collector that cannot read them lets nobody in, and a revocation reaches everybody.

use std::time::{Duration, Instant};

use test_servers::Proxy;

use crate::place::Place;
use crate::scene::{event, id, made};
use crate::support::{Server, await_some, output, text};

/// How a collector answers an event that is sent with this key.
fn sent(collect: &Server, key: Option<&str>) -> u16 {
    let request = collect.http.post(collect.url("/v1/events")).json(&event());
    key.map_or(request.try_clone().unwrap(), |key| request.bearer_auth(key)).send().unwrap().status().as_u16()
}

/// How a server answers a question that is asked with this key.
fn asked(server: &Server, key: &str) -> u16 {
    server.http.get(server.url("/v1/status")).bearer_auth(key).send().unwrap().status().as_u16()
}

/// The scopes admin, write and read.
fn keys(server: &Server) -> [String; 3] {
    let url = server.url("");
    let admin = made(&["me", "--scope", "admin", "--url", &url]);
    let [write, read] = ["write", "read"].map(|scope| made(&[scope, "--scope", scope, "--url", &url, "--key", &admin]));
    [admin, write, read]
}

fn revoke(key: &str, server: &Server, admin: &str) {
    let revoked = output(&["keys", "revoke", id(key), "--url", &server.url(""), "--key", admin]);
    assert!(revoked.status.success(), "{}", text(&revoked));
}

#[test]
fn a_collector_that_cannot_read_the_keys_lets_nobody_in_and_is_ready_when_it_can() {
    if test_servers::skipped() {
        return;
    }
    let place = Place::cluster(&[]);
    let query = place.role("query", &[]);
    let [admin, write, read] = keys(&query);
    let node = test_servers::cassandra().contact();
    // Clients take the port of all nodes to be the same: whom they find through the proxy they look for at its port.
    let cassandra = Proxy::at(&format!("127.0.0.1:{}", node.rsplit(':').next().unwrap()), &node).unwrap();
    let settings = place.by("--cassandra-nodes", &cassandra.address());
    let args: Vec<&str> = std::iter::once("collect").chain(settings.iter().map(String::as_str)).collect();
    // Nobody is at the address of Cassandra, or somebody who says nothing.
    let faults: [fn(&Proxy, bool); 2] = [Proxy::refuse, Proxy::drop_bytes];
    for away in faults {
        away(&cassandra, true);
        let collect = Server::of(&args);
        assert_eq!([None, Some(&*write), Some(&*admin), Some(&*read)].map(|key| sent(&collect, key)), [503; 4]);
        assert_eq!((collect.get("/livez").status(), asked(&collect, &admin)), (200.try_into().unwrap(), 503));
        let ready = collect.get("/readyz");
        assert_eq!(ready.status(), 503);
        let why = ready.text().unwrap();
        assert!(why.contains("which keys there are is not known yet"), "{why}");

        away(&cassandra, false);
        collect.await_ready();
        assert_eq!([None, Some(&*write), Some(&*admin), Some(&*read)].map(|key| sent(&collect, key)), [401, 202, 202, 403]);
    }
}

#[test]
fn a_key_that_is_revoked_through_one_server_is_soon_refused_by_all() {
    if test_servers::skipped() {
        return;
    }
    let place = Place::cluster(&[]);
    let [first, second] = ["query", "query"].map(|role| place.role(role, &[]));
    let collect = place.role("collect", &[]);
    assert_eq!(sent(&collect, None), 202, "there is no key yet");
    let [admin, write, read] = keys(&first);
    await_some("the collector asks for keys", || (sent(&collect, None) == 401).then_some(()));
    await_some("all know them", || (sent(&collect, Some(&write)) == 202 && asked(&second, &read) == 200).then_some(()));

    revoke(&read, &first, &admin);
    revoke(&write, &first, &admin);
    let acknowledged = Instant::now();
    assert_eq!(asked(&first, &read), 401, "here it is refused at once");
    let others = await_some("the others refuse them", || {
        (sent(&collect, Some(&write)) == 401 && asked(&second, &read) == 401).then(|| acknowledged.elapsed())
    });
    // Promised are 5 s, which follow from how often a process reads the keys (src/keys/watch.rs checks that when it is compiled). Here a
    // machine that is busy with other tests may be slower.
    assert!(others < Duration::from_secs(30), "{others:?}");
    println!("refused by the others {others:?} after the revocation was acknowledged");
    assert_eq!((sent(&collect, Some(&admin)), asked(&second, &admin)), (202, 200));
}
