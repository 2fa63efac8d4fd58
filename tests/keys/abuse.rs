//! How one gets past a door: a test each, after the OWASP lists (broken authentication, broken function level authorization, injection by
//! headers and paths, resource consumption).

use serde_json::Value;

use crate::scene::{Scene, event, id, status_of};
use crate::support::{Server, tallymark};

/// What everybody gets.
const OPEN: [&str; 7] = ["/livez", "/readyz", "/t.js", "/openapi.json", "/docs", "/docs/style.css", "/problems/{kind}"];

#[test]
fn no_operation_is_done_without_a_key_but_the_open_ones() {
    let scene = Scene::new();
    let document: Value = scene.ask("GET", "/openapi.json", None).send().unwrap().json().unwrap();
    let mut asked = 0;
    for (path, operations) in document["paths"].as_object().unwrap() {
        for method in ["get", "put", "post", "delete", "patch", "options", "head"] {
            if method == "options" && path == "/v1/events" {
                // A preflight bears no key and does nothing.
                continue;
            }
            let filled = path.replace("{content}", "9f86d081884c7d659a2feaa0c55ad015").replace(['{', '}'], "");
            let status = scene.status(&method.to_uppercase(), &filled, None);
            let expected = if OPEN.contains(&path.as_str()) { status != 401 && status != 403 } else { status == 401 };
            assert!(expected, "{method} {path}: {status}");
            asked += usize::from(operations.get(method).is_some());
        }
    }
    assert!(asked > 30, "{asked}");
    assert_eq!(scene.events(), 0);
}

#[test]
fn the_document_says_which_scopes_open_what() {
    let scene = Scene::new();
    let document: Value = scene.ask("GET", "/openapi.json", None).send().unwrap().json().unwrap();
    let schemes = &document["components"]["securitySchemes"];
    assert_eq!((&schemes["key"]["type"], &schemes["key"]["scheme"]), (&"http".into(), &"bearer".into()), "{schemes}");
    assert_eq!((&schemes["public_key"]["in"], &schemes["public_key"]["name"]), (&"query".into(), &"key".into()), "{schemes}");
    let keys = [("admin", &scene.admin), ("import", &scene.import), ("write", &scene.write), ("read", &scene.read)];
    for (path, operations) in document["paths"].as_object().unwrap() {
        let filled = path.replace("{content}", "9f86d081884c7d659a2feaa0c55ad015").replace(['{', '}'], "");
        for (method, operation) in operations.as_object().unwrap() {
            let ways = operation["security"].as_array().unwrap_or_else(|| panic!("{method} {path} says nothing of keys"));
            assert_eq!(ways.is_empty(), OPEN.contains(&path.as_str()), "{method} {path}: {ways:?}");
            let names = |scope: &str| ways.iter().any(|way| way["key"][0] == scope);
            for (scope, key) in keys {
                // Who may do everything may do this, and an import is a way of sending.
                let may = ways.is_empty() || scope == "admin" || names(scope) || scope == "import" && names("write");
                let status = scene.status(&method.to_uppercase(), &filled, Some(key));
                assert_eq!(status != 403 && status != 401, may, "{method} {path} with {scope}: {status}, {ways:?}");
            }
        }
    }
    let sends = &document["paths"]["/v1/events"]["post"]["security"];
    assert_eq!(sends, &serde_json::json!([{"key": ["write"]}, {"public_key": ["write"]}]));
    let page = scene.ask("GET", "/docs", None).send().unwrap().text().unwrap();
    assert!(page.contains("Key: <code>write</code>, in the address (<code>?key=</code>) if it is public"), "{page}");
    assert!(page.contains("Key: <code>read</code> or <code>import</code>") && page.contains("Key: none"));
}

#[test]
fn the_right_id_with_a_wrong_secret_is_nobody_and_is_not_told_that_the_id_exists() {
    let scene = Scene::new();
    let other = "ab".repeat(32);
    let known = format!("{}{other}", &scene.admin[..20]);
    let unknown = format!("tm_0123456789abcdef_{other}");
    let swapped = format!("{}{}", &scene.read[..20], &scene.admin[20..]);
    let refusal = |key: &str| {
        let response = scene.ask("GET", "/v1/keys", Some(key)).send().unwrap();
        let challenge = response.headers()["www-authenticate"].to_str().unwrap().to_owned();
        let status = response.status().as_u16();
        (status, challenge, response.json::<Value>().unwrap()["detail"].clone())
    };
    assert_eq!(refusal(&known), refusal(&unknown));
    assert_eq!(refusal(&swapped), refusal(&unknown));
    assert_eq!(refusal(&unknown).0, 401);
    for n in 1..scene.admin.len() {
        let cut = &scene.admin[..n];
        assert_eq!(scene.status("GET", "/v1/keys", Some(cut)), 401, "{cut}");
    }
}

#[test]
fn a_key_does_nothing_that_its_scopes_are_not_for() {
    let scene = Scene::new();
    let video = serde_json::json!({"title": "t"});
    let put = |key: &str| scene.ask("PUT", "/v1/videos/v", Some(key)).json(&video).send().unwrap().status().as_u16();
    let past = |key: &str| scene.send(Some(key), "/v1/events?historical=true").status().as_u16();
    let keys = |method: &str, path: &str, key: &str| scene.status(method, path, Some(key));
    // (sends, sends of any age, asks, names, sees keys)
    for (key, may) in [
        (&scene.write, [202, 403, 403, 403, 403]),
        (&scene.import, [202, 202, 403, 200, 403]),
        (&scene.read, [403, 403, 200, 403, 403]),
        (&scene.public, [202, 403, 403, 403, 403]),
        (&scene.admin, [202, 202, 200, 200, 200]),
    ] {
        let sends = scene.send(Some(key), "/v1/events").status().as_u16();
        assert_eq!([sends, past(key), keys("GET", "/v1/site", key), put(key), keys("GET", "/v1/keys", key)], may, "{key}");
        if may[4] == 403 {
            assert_eq!(keys("DELETE", &format!("/v1/keys/{}", id(&scene.admin)), key), 403);
            let created =
                scene.ask("POST", "/v1/keys", Some(key)).json(&serde_json::json!({"name": "n", "scopes": ["admin"]})).send().unwrap();
            assert_eq!(created.status(), 403);
        }
    }
    let lacking = scene.ask("GET", "/v1/keys", Some(&scene.read)).send().unwrap();
    assert!(lacking.headers()["www-authenticate"].to_str().unwrap().contains("scope=\"admin\""));
    let body: Value = lacking.json().unwrap();
    assert_eq!((&body["type"], &body["scope"]), (&"/problems/scope-lacking".into(), &"admin".into()));
    assert_eq!(scene.status("GET", "/v1/keys", Some(&scene.admin)), 200, "it is still there");
}

#[test]
fn no_shared_cache_keeps_what_was_asked_with_a_key() {
    let scene = Scene::new();
    let kept =
        |key: Option<&str>, path: &str| scene.ask("GET", path, key).send().unwrap().headers()["cache-control"].to_str().unwrap().to_owned();
    // Twice: the second answer is the one that is held.
    for _ in 0..2 {
        assert_eq!(kept(Some(&scene.read), "/v1/site/views"), "private, max-age=1");
    }
    assert!(kept(None, "/openapi.json").starts_with("public"));
}

#[test]
fn a_key_in_an_address_is_taken_of_public_keys_that_send_events_alone() {
    let scene = Scene::new();
    let in_query = |path: &str, key: &str| format!("{path}?key={key}");
    assert_eq!(scene.send(None, &in_query("/v1/events", &scene.public)).status(), 202);
    for key in [&scene.write, &scene.import, &scene.admin] {
        let refusal = scene.send(None, &in_query("/v1/events", key));
        assert_eq!(refusal.status(), 401);
        assert!(refusal.text().unwrap().contains("revoke it"));
    }
    for (method, path) in
        [("GET", "/v1/site"), ("GET", "/v1/keys"), ("GET", "/metrics"), ("GET", "/v1/events"), ("POST", "/v1/query"), ("GET", "/v1/none")]
    {
        for key in [&scene.public, &scene.read, &scene.admin] {
            assert_eq!(scene.status(method, &in_query(path, key), None), 401, "{method} {path}");
        }
    }
    let twice = format!("/v1/events?key={0}&key={0}", scene.public);
    assert_eq!(scene.send(None, &twice).status(), 401);
    assert_eq!(scene.send(Some(&scene.public), &in_query("/v1/events", &scene.public)).status(), 401, "in both places");
    assert_eq!(scene.events(), 1);
}

#[test]
fn two_authorizations_are_none() {
    let scene = Scene::new();
    for (first, second) in [(&scene.admin, &scene.admin), (&scene.read, &scene.admin), (&scene.admin, &scene.read)] {
        let request = format!(
            "GET /v1/keys HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {first}\r\nAUTHORIZATION: Bearer {second}\r\nconnection: close\r\n\r\n"
        );
        let answer = scene.raw(request.as_bytes());
        assert!(status_of(&answer) == 401 && answer.contains("given twice"), "{answer}");
        let joined = format!("Bearer {first}, Bearer {second}");
        assert_eq!(scene.ask("GET", "/v1/keys", None).header("authorization", joined).send().unwrap().status(), 401);
    }
    for value in [format!("Basic {}", scene.admin), scene.admin.clone(), format!("Bearer  {}", scene.admin), "Bearer".to_owned()] {
        assert_eq!(scene.ask("GET", "/v1/keys", None).header("authorization", value).send().unwrap().status(), 401);
    }
}

#[test]
fn what_a_request_says_of_where_it_comes_from_opens_nothing() {
    let scene = Scene::new();
    let spoofed = [
        "x-forwarded-for",
        "x-real-ip",
        "forwarded",
        "x-client-ip",
        "true-client-ip",
        "x-forwarded-host",
        "x-original-url",
        "x-rewrite-url",
    ];
    for name in spoofed {
        for value in ["127.0.0.1", "localhost", "for=127.0.0.1", "/livez", "/v1/keys"] {
            let none = scene.ask("GET", "/v1/keys", None).header(name, value).send().unwrap();
            let read = scene.ask("GET", "/v1/keys", Some(&scene.read)).header(name, value).send().unwrap();
            let open = scene.ask("GET", "/livez", None).header(name, value).send().unwrap().text().unwrap();
            assert_eq!((none.status().as_u16(), read.status().as_u16(), &*open), (401, 403, "ok\n"), "{name}: {value}");
        }
    }
}

#[test]
fn the_first_key_is_not_made_through_a_proxy_or_by_a_page() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    let body = serde_json::json!({"name": "n", "scopes": ["admin"]});
    for (name, value) in
        [("x-forwarded-for", "203.0.113.9"), ("forwarded", "for=203.0.113.9"), ("via", "1.1 p"), ("origin", "http://evil.example")]
    {
        let response = server.http.post(server.url("/v1/keys")).header(name, value).json(&body).send().unwrap();
        assert_eq!(response.status(), 401, "{name}");
    }
    assert_eq!(server.json("/v1/keys")["keys"].as_array().unwrap().len(), 0);
    assert_eq!(server.http.post(server.url("/v1/keys")).json(&body).send().unwrap().status(), 201);
}

#[test]
fn methods_are_overridden_by_no_header() {
    let scene = Scene::new();
    let own = format!("/v1/keys/{}", id(&scene.write));
    for name in ["x-http-method-override", "x-http-method", "x-method-override", "_method"] {
        for (method, path, key, status) in [
            ("GET", own.as_str(), &scene.read, 403),
            ("GET", own.as_str(), &scene.admin, 405),
            ("POST", "/v1/events", &scene.read, 403),
            ("GET", "/v1/videos/v", &scene.write, 403),
        ] {
            for wanted in ["DELETE", "GET", "PUT", "POST"] {
                let response = scene.ask(method, path, Some(key)).header(name, wanted).json(&event()).send().unwrap();
                assert_eq!(response.status(), status, "{name}: {wanted} in {method} {path}");
            }
        }
    }
    assert_eq!(scene.send(Some(&scene.write), "/v1/events").status(), 202, "nobody revoked it");
    assert_eq!(scene.send(Some(&scene.write), "/v1/events?_method=DELETE").status(), 400);
}

#[test]
fn no_way_of_writing_a_path_leads_past_its_scope() {
    let scene = Scene::new();
    let targets = [
        "//v1/keys",
        "/v1//keys",
        "/v1/%6beys",
        "/v1/%6Beys",
        "/%76%31/keys",
        "/v1/keys/",
        "/v1/keys/.",
        "/v1/./keys",
        "/v1/../v1/keys",
        "/livez/../v1/keys",
        "/livez/..%2fv1/keys",
        "/docs/../v1/keys",
        "/docs/%2e%2e/v1/keys",
        "/problems/..%2f..%2fv1%2fkeys",
        "/V1/KEYS",
        "/v1/Keys",
        "/v1/keys;a=b",
        "/v1/keys%00",
        "/v1/keys%20",
        "/v1/keys%3f",
        "/v1/keys\\",
        "/v1\\keys",
        "/livez?/v1/keys",
        "/livez#/v1/keys",
        "/livez%0d%0aauthorization:%20x",
        "http://127.0.0.1/v1/keys",
        "http://user@x/v1/keys",
        "/v1/videos/..%2fkeys",
        "/v1/events/../keys",
        "*",
        "/v1/keys?",
        "/v1/keys",
    ];
    for target in targets {
        for key in [None, Some(&*scene.read), Some(&*scene.public)] {
            let answer = scene.raw_get(target, key);
            let status = status_of(&answer);
            let is_of_livez = target.starts_with("/livez?") || target.starts_with("/livez#");
            let is_of_problems = target.starts_with("/problems/");
            assert!(!answer.contains(id(&scene.admin)) && !answer.contains("created_at"), "{target}: {answer}");
            assert!(status >= 400 || is_of_livez, "{target}: {answer}");
            if key.is_none() && !is_of_livez && !is_of_problems {
                assert!(status == 401 || status == 400, "{target}: {answer}");
            }
        }
    }
    assert!(scene.raw_get("/v1/keys", Some(&scene.admin)).contains(id(&scene.admin)), "the right one does");
}

#[test]
fn heads_and_bodies_that_are_too_large_are_refused_before_they_cost_anything() {
    let scene = Scene::new();
    let with = |bytes: usize| scene.ask("GET", "/v1/keys", None).header("authorization", format!("Bearer {}", "a".repeat(bytes))).send();
    assert_eq!(with(10_000).unwrap().status(), 401);
    assert_eq!(with(20_000).unwrap().status(), 431);
    assert!(with(200_000).map_or(true, |response| response.status() == 431));
    assert_eq!(scene.status("GET", &format!("/v1/keys?{}", "a".repeat(9_000)), None), 414);
    // Without a key nothing of a body is read: it is answered while most of it is still to come.
    for key in [None, Some(&scene.read)] {
        let key = key.map_or(String::new(), |key| format!("authorization: Bearer {key}\r\n"));
        let head = format!("POST /v1/events HTTP/1.1\r\nhost: x\r\n{key}connection: close\r\ncontent-length: 1000000000\r\n\r\n[");
        assert!([401, 403].contains(&status_of(&scene.raw(head.as_bytes()))));
    }
    let body = serde_json::json!({"name": "n", "scopes": ["write"], "origins": vec!["https://a.example"; 4_000]}).to_string();
    assert!(body.len() > 64 * 1024);
    assert_eq!(scene.ask("POST", "/v1/keys", Some(&scene.admin)).body(body).send().unwrap().status(), 413);
    for body in
        ["", "{", "[]", "null", "{\"name\":1}", "{\"name\":\"n\",\"scopes\":[\"write\"],\"admin\":true}", "{\"name\":\"n\",\"scopes\":[]}"]
    {
        let response = scene.ask("POST", "/v1/keys", Some(&scene.admin)).body(body).send().unwrap();
        assert_eq!(response.status(), 400, "{body}");
    }
    assert_eq!(scene.status("GET", "/v1/keys?all=true", Some(&scene.admin)), 400);
}

#[test]
fn ids_that_are_none_are_not_found_and_nothing_else_happens() {
    let scene = Scene::new();
    for odd in ["..", "%2e%2e", "0", "0123456789ABCDEF", "%00", "*", "0123456789abcdef", "%F0%9F%8E%AC", "'%20OR%201=1"] {
        let status = scene.status("DELETE", &format!("/v1/keys/{odd}"), Some(&scene.admin));
        assert!([404, 405].contains(&status), "{odd}: {status}");
    }
    let url = scene.server.url("");
    let refused = tallymark(&["keys", "create", "a\u{1b}b", "--scope", "read", "--url", &url, "--key", &scene.admin]).output().unwrap();
    assert!(!refused.status.success(), "a name has no control characters");
}
