//! Browsers: which pages may send events, and what they are told.

use reqwest::blocking::Response;

use crate::scene::{PAGE, Scene, event, made};

fn preflight(scene: &Scene, path: &str, origin: &str) -> Response {
    let request = scene.ask("OPTIONS", path, None).header("origin", origin).header("access-control-request-method", "POST");
    request.header("access-control-request-headers", "authorization,content-type,idempotency-key,tallymark-sent-at").send().unwrap()
}

fn header(response: &Response, name: &str) -> String {
    let values = response.headers().get_all(name).iter().map(|value| value.to_str().unwrap());
    values.collect::<Vec<_>>().join(",").to_lowercase()
}

#[test]
fn a_listed_page_is_let_through_by_the_browser_and_no_other() {
    let scene = Scene::new();
    let answer = preflight(&scene, "/v1/events", PAGE);
    assert_eq!((answer.status().as_u16(), &*header(&answer, "access-control-allow-origin")), (200, PAGE));
    assert_eq!(header(&answer, "access-control-allow-methods"), "post");
    let allowed = header(&answer, "access-control-allow-headers");
    for name in ["authorization", "content-type", "content-encoding", "idempotency-key", "tallymark-sent-at"] {
        assert!(allowed.contains(name), "{allowed}");
    }
    assert_eq!(header(&answer, "access-control-max-age"), "600");
    assert_eq!(header(&answer, "access-control-allow-credentials"), "", "there are no cookies");
    assert!(header(&answer, "vary").contains("origin"));
    for other in [
        "null",
        "https://evil.example",
        "https://www.example.com.evil.example",
        "http://www.example.com",
        "https://www.example.com:8443",
        "https://WWW.example.com",
        "",
    ] {
        let answer = preflight(&scene, "/v1/events", other);
        assert_eq!(header(&answer, "access-control-allow-origin"), "", "{other}");
        assert!(header(&answer, "vary").contains("origin"), "a cache keeps them apart");
    }
    for path in ["/v1/keys", "/v1/site", "/v1/query", "/livez", "/none"] {
        assert_eq!(header(&preflight(&scene, path, PAGE), "access-control-allow-origin"), "", "{path}");
    }
}

#[test]
fn the_request_itself_is_refused_from_a_page_that_its_key_does_not_list() {
    let scene = Scene::new();
    let url = scene.server.url("");
    let send = |key: &str, origin: &str| scene.ask("POST", "/v1/events", Some(key)).header("origin", origin).json(&event()).send().unwrap();
    let good = send(&scene.public, PAGE);
    assert_eq!((good.status().as_u16(), &*header(&good, "access-control-allow-origin")), (202, PAGE));
    let exposed = header(&good, "access-control-expose-headers");
    for name in ["ratelimit", "ratelimit-policy", "retry-after", "x-request-id"] {
        assert!(exposed.split(',').any(|exposed| exposed.trim() == name), "{exposed}");
    }
    for origin in [
        "null",
        "https://evil.example",
        "https://www.example.com.evil.example",
        "https://evil-www.example.com",
        "https://www.example.com:443",
        "HTTPS://WWW.EXAMPLE.COM",
        "https://www.example.com/",
    ] {
        let bad = send(&scene.public, origin);
        assert_eq!((bad.status().as_u16(), &*header(&bad, "access-control-allow-origin")), (403, ""), "{origin}");
        assert!(bad.text().unwrap().contains("/problems/origin-refused"));
    }
    // Of another key, and of a secret one.
    let other = made(&["b", "--public", "--scope", "write", "--origin", "https://other.example", "--url", &url, "--key", &scene.admin]);
    assert_eq!(send(&other, PAGE).status(), 403);
    assert_eq!(send(&scene.write, PAGE).status(), 403);
    // A beacon: no preflight, no header, the key in the address.
    let beacon = |origin: &str| {
        let request = scene.ask("POST", &format!("/v1/events?key={}", scene.public), None).header("origin", origin);
        request.header("content-type", "application/json").body(event().to_string()).send().unwrap().status().as_u16()
    };
    assert_eq!((beacon(PAGE), beacon("https://evil.example")), (202, 403));
    assert_eq!(scene.events(), 2);
}

#[test]
fn every_page_is_said_aloud_and_is_no_sandbox() {
    let scene = Scene::new();
    let url = scene.server.url("");
    let send = |key: &str, origin: &str| {
        scene.ask("POST", "/v1/events", Some(key)).header("origin", origin).json(&event()).send().unwrap().status()
    };
    let none = made(&["none", "--public", "--scope", "write", "--url", &url, "--key", &scene.admin]);
    assert_eq!(send(&none, "https://any.example"), 403, "no list is no page");
    let any = made(&["any", "--public", "--scope", "write", "--origin", "*", "--url", &url, "--key", &scene.admin]);
    assert_eq!((send(&any, "https://any.example").as_u16(), send(&any, "null").as_u16()), (202, 403));
    assert_eq!(header(&preflight(&scene, "/v1/events", "https://any.example"), "access-control-allow-origin"), "https://any.example");
    assert_eq!(header(&preflight(&scene, "/v1/events", "null"), "access-control-allow-origin"), "");
}

#[test]
fn a_page_can_read_why_it_was_refused_and_a_revoked_key_speaks_for_none() {
    let scene = Scene::new();
    let refused = scene.ask("POST", "/v1/events", None).header("origin", PAGE).json(&event()).send().unwrap();
    assert_eq!((refused.status().as_u16(), &*header(&refused, "access-control-allow-origin")), (401, PAGE));
    let id = crate::scene::id(&scene.public);
    assert_eq!(scene.status("DELETE", &format!("/v1/keys/{id}"), Some(&scene.admin)), 200);
    assert_eq!(header(&preflight(&scene, "/v1/events", PAGE), "access-control-allow-origin"), "");
}
