//! Requests that mean two things: one to whoever stands before the server, another to the server. Each is answered as one request or
//! refused, and what is hidden in it is never done by the key of the outer one.

use crate::scene::{Scene, answers, status_of};

/// What is hidden: by the key of the outer request it would be answered with all keys.
const HIDDEN: &str = "GET /v1/keys HTTP/1.1\r\nhost: x\r\n\r\n";

#[test]
fn a_length_beside_chunks_hides_no_request() {
    let scene = Scene::new();
    let key = &scene.admin;
    let hidden = HIDDEN.len() + 5;
    for framing in [
        format!("content-length: {hidden}\r\ntransfer-encoding: chunked\r\n"),
        format!("transfer-encoding: chunked\r\ncontent-length: {hidden}\r\n"),
        format!("content-length: {hidden}\r\nTransfer-Encoding: Chunked\r\n"),
        format!("content-length: {hidden}\r\ntransfer-encoding: gzip, chunked\r\n"),
        format!("content-length: {hidden}\r\ntransfer-encoding: chunked\r\ntransfer-encoding: identity\r\n"),
        format!("content-length: {hidden}\r\ntransfer-encoding: xchunked\r\n"),
        format!("content-length: {hidden}\r\ntransfer-encoding : chunked\r\n"),
        format!("content-length: {hidden}\r\n transfer-encoding: chunked\r\n"),
        "transfer-encoding: identity\r\n".to_owned(),
        "content-length: +5\r\n".to_owned(),
        "content-length: -1\r\n".to_owned(),
        "content-length: 5, 6\r\n".to_owned(),
        "content-length: 0x5\r\n".to_owned(),
    ] {
        let request = format!("POST /v1/query HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n{framing}\r\n0\r\n\r\n{HIDDEN}");
        let answer = scene.raw(request.as_bytes());
        assert!(answers(&answer) == 1 && status_of(&answer) == 400, "{framing}: {answer}");
        assert!(!answer.contains("created_at"), "{framing}: {answer}");
    }
}

#[test]
fn two_lengths_are_refused_unless_they_are_one() {
    let scene = Scene::new();
    let key = &scene.read;
    let request = |lengths: &str| {
        let head = format!("POST /v1/query HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\nconnection: close\r\n{lengths}\r\n{{}}");
        scene.raw(format!("{head}{HIDDEN}").as_bytes())
    };
    for lengths in
        ["content-length: 2\r\ncontent-length: 40\r\n", "content-length: 40\r\ncontent-length: 2\r\n", "content-length: 2,40\r\n"]
    {
        let answer = request(lengths);
        assert!(answers(&answer) == 1 && status_of(&answer) == 400, "{lengths}: {answer}");
    }
    let answer = request("content-length: 2\r\ncontent-length: 2\r\n");
    assert!(answers(&answer) == 1 && answer.contains("/problems/"), "{answer}");
}

#[test]
fn headers_go_over_one_line_and_hold_no_line_breaks() {
    let scene = Scene::new();
    let key = &scene.admin;
    for head in [
        format!("GET /v1/keys HTTP/1.1\r\nhost: x\r\nauthorization: Bearer\r\n {key}\r\n\r\n"),
        format!("GET /v1/keys HTTP/1.1\r\nhost: x\r\nx-a: b\r\n\tauthorization: Bearer {key}\r\n\r\n"),
        format!("GET /v1/keys HTTP/1.1\r\nhost: x\r\nx-a: b\rauthorization: Bearer {key}\r\n\r\n"),
        format!("GET /v1/keys HTTP/1.1\r\nhost: x\r\nauthorization : Bearer {key}\r\n\r\n"),
        format!("GET /v1/keys HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\0\r\n\r\n"),
        format!("GET /v1/keys HTTP/9.9\r\nhost: x\r\nauthorization: Bearer {key}\r\n\r\n"),
        format!("GET /v1/keys\r\nauthorization: Bearer {key}\r\n\r\n"),
    ] {
        let answer = scene.raw(head.as_bytes());
        assert!(!answer.contains("created_at"), "{head}: {answer}");
        assert!(answer.is_empty() || [400, 401, 505].contains(&status_of(&answer)), "{head}: {answer}");
    }
}

#[test]
fn each_request_of_a_connection_shows_its_own_key() {
    let scene = Scene::new();
    let first = format!("GET /v1/site HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\r\n", scene.admin);
    let second = "GET /v1/keys HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let answer = scene.raw(format!("{first}{second}").as_bytes());
    assert_eq!((answers(&answer), answer.matches("HTTP/1.1 401").count()), (2, 1), "{answer}");
    // What is left of a body that nobody read is no request.
    let body = HIDDEN.replace("host: x", &format!("host: x\r\nauthorization: Bearer {}", scene.admin));
    let outer = format!("POST /v1/events HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let answer = scene.raw(format!("{outer}{second}").as_bytes());
    assert!(!answer.contains("created_at") && status_of(&answer) == 401, "{answer}");
}
