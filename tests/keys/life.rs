//! Making, listing and revoking keys; commands with keys; beyond loopback.

use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::scene::{Scene, event, id, made, refused};
use crate::support::{Server, await_some, launch, output, tallymark, text};

fn run(args: &[&str]) -> String {
    let output = output(args);
    assert!(output.status.success(), "{}", text(&output));
    text(&output)
}

#[test]
fn a_key_is_shown_once_and_nothing_of_its_secret_is_kept() {
    let scene = Scene::new();
    let url = scene.server.url("");
    let listed = run(&["keys", "list", "--url", &url, "--key", &scene.admin]);
    let shown: Value = scene.ask("GET", "/v1/keys", Some(&scene.admin)).send().unwrap().json().unwrap();
    assert_eq!(shown["keys"].as_array().unwrap().len(), 5, "{shown}");
    for key in [&scene.admin, &scene.write, &scene.import, &scene.read, &scene.public] {
        let secret = key.rsplit('_').next().unwrap();
        assert!(listed.contains(id(key)) && !listed.contains(secret) && !shown.to_string().contains(secret), "{listed}");
    }
    let public = shown["keys"].as_array().unwrap().iter().find(|key| key["public"] == true).unwrap();
    assert_eq!((&public["origins"], &public["scopes"]), (&json!(["https://www.example.com"]), &json!(["write"])));
    assert!(shown["keys"][0].get("hash").is_none());
    // Not in the files either.
    let mut files = vec![scene.dir.path().to_owned()];
    let mut bytes = Vec::new();
    while let Some(path) = files.pop() {
        if path.is_dir() {
            files.extend(std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        } else {
            bytes.extend(std::fs::read(path).unwrap());
        }
    }
    let holds = |text: &str| bytes.windows(text.len()).any(|part| part == text.as_bytes());
    assert!(holds(id(&scene.write)), "the store is where it was looked for");
    assert!(!holds(scene.write.rsplit('_').next().unwrap()));
}

#[test]
fn the_first_key_needs_admin_and_then_every_request_a_key() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    let url = server.url("");
    assert_eq!(server.get("/v1/status").status(), 200);
    let said = refused(&["keys", "create", "a", "--scope", "write", "--url", &url]);
    assert!(said.contains("the first key has the scope admin"), "{said}");
    assert!(run(&["keys", "list", "--url", &url]).contains("everything is open"));
    let admin = made(&["me", "--scope", "admin", "--url", &url]);
    assert_eq!(server.get("/v1/status").status(), 401, "also on loopback, at once");
    assert_eq!(server.http.get(server.url("/v1/status")).bearer_auth(&admin).send().unwrap().status(), 200);
    let said = refused(&["keys", "create", "b", "--scope", "write", "--url", &url]);
    assert!(said.contains("send a key with scope admin"), "{said}");
    for (args, says) in [
        (["--scope", "wrote", "--expires", "1d"], "there is no scope \"wrote\""),
        (["--scope", "write", "--origin", "https://a.example/"], "leave out what comes behind"),
        (["--scope", "read", "--public", "--json"], "its only scope is write"),
    ] {
        let said = refused(&[&["keys", "create", "b", "--url", &url, "--key", &admin], &args[..]].concat());
        assert!(said.contains(says), "{said}");
    }
}

#[test]
fn a_revoked_key_is_refused_here_at_once_and_elsewhere_within_seconds() {
    let mut scene = Scene::new();
    let url = scene.server.url("");
    assert_eq!(scene.send(Some(&scene.write), "/v1/events").status(), 202);
    let said = run(&["keys", "revoke", id(&scene.write), "--url", &url, "--key", &scene.admin]);
    assert!(said.contains("is revoked since"), "{said}");
    let refusal = scene.send(Some(&scene.write), "/v1/events");
    assert_eq!(refusal.status(), 401);
    assert!(refusal.text().unwrap().contains("was revoked"));
    // Twice is once; a whole key stands for its id; one that there is not is said.
    run(&["keys", "revoke", &scene.write, "--url", &url, "--key", &scene.admin]);
    let said = refused(&["keys", "revoke", "0123456789abcdef", "--url", &url, "--key", &scene.admin]);
    assert!(said.contains("no key has this id"), "{said}");
    // It stays so after a restart.
    assert!(scene.server.stop().success());
    scene.server.restart();
    assert_eq!(scene.send(Some(&scene.write), "/v1/events").status(), 401);
    assert_eq!(scene.send(Some(&scene.import), "/v1/events").status(), 202);
}

#[test]
fn whoever_is_refused_is_counted_by_the_reason() {
    let scene = Scene::new();
    run(&["keys", "revoke", id(&scene.import), "--url", &scene.server.url(""), "--key", &scene.admin]);
    let unknown = format!("tm_0123456789abcdef_{}", "ab".repeat(32));
    for (key, times) in [(None, 3), (Some("tm_1_2"), 2), (Some(&*unknown), 4), (Some(&*scene.import), 1), (Some(&*scene.write), 2)] {
        for _ in 0..times {
            assert!([401, 403].contains(&scene.status("GET", "/v1/status", key)));
        }
    }
    assert_eq!(scene.send(None, &format!("/v1/events?key={}", scene.write)).status(), 401);
    let elsewhere = scene.ask("POST", "/v1/events", Some(&scene.public)).header("origin", "https://evil.example").json(&event());
    assert_eq!(elsewhere.send().unwrap().status(), 403);
    let metrics = scene.ask("GET", "/metrics", Some(&scene.read)).send().unwrap().text().unwrap();
    for (reason, times) in
        [("missing", 3), ("malformed", 2), ("unknown", 4), ("revoked", 1), ("scope", 2), ("in_address", 1), ("origin", 1)]
    {
        let line = format!("tallymark_keys_refused_total{{reason=\"{reason}\"}} {times}\n");
        assert!(metrics.contains(&line), "{line}{metrics}");
    }
}

#[test]
fn a_stream_ends_with_the_key_that_it_was_opened_with() {
    let scene = Scene::new();
    let url = scene.server.url("");
    assert_eq!(scene.send(Some(&scene.write), "/v1/events").status(), 202);
    let mut following = tallymark(&["tap", "--follow", "--from", "start", "--url", &url, "--key", &scene.read]);
    let mut following = following.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let lines = crate::support::lines_of(&mut following);
    lines.recv_timeout(crate::support::PATIENCE).unwrap();
    run(&["keys", "revoke", id(&scene.read), "--url", &url, "--key", &scene.admin]);
    await_some("the stream ends", || following.try_wait().unwrap());
}

#[test]
fn a_key_expires_by_itself() {
    let scene = Scene::new();
    let url = scene.server.url("");
    let short = made(&["short", "--scope", "read", "--expires", "2s", "--url", &url, "--key", &scene.admin]);
    assert_eq!(scene.status("GET", "/v1/status", Some(&short)), 200);
    let refusal = await_some("it expires", || {
        Some(scene.ask("GET", "/v1/status", Some(&short)).send().unwrap()).filter(|response| response.status() == 401)
    });
    assert!(refusal.text().unwrap().contains("expired"));
}

#[test]
fn whoever_lost_the_admin_key_makes_another_on_the_store_itself() {
    let mut scene = Scene::new();
    let (url, data) = (scene.server.url(""), scene.dir.path().join("data"));
    let data = data.to_str().unwrap();
    run(&["keys", "revoke", id(&scene.admin), "--url", &url, "--key", &scene.admin]);
    assert!(refused(&["keys", "list", "--url", &url, "--key", &scene.admin]).contains("was revoked"));
    let said = refused(&["keys", "create", "again", "--scope", "admin", "--direct", "--data", data]);
    assert!(said.contains("another tallymark"), "{said}");
    assert!(scene.server.stop().success());
    let again = made(&["again", "--scope", "admin", "--direct", "--data", data]);
    assert!(run(&["keys", "list", "--direct", "--data", data]).contains(id(&again)));
    let said = refused(&["keys", "list", "--data", data]);
    assert!(said.contains("--direct"), "{said}");
    scene.server.restart();
    assert_eq!(scene.status("GET", "/v1/keys", Some(&again)), 200);
    assert_eq!(scene.status("GET", "/v1/keys", Some(&scene.admin)), 401);
}

#[test]
fn commands_show_their_key() {
    let scene = Scene::new();
    let url = scene.server.url("");
    let file = scene.dir.path().join("views.csv");
    std::fs::write(&file, "event_id,video_id,ts\na,v,2020-01-01T00:00:00Z\nb,v,2020-01-01T00:00:01Z\n").unwrap();
    let file = file.to_str().unwrap();
    let import = |key: &str| output(&["import", file, "--to", &url, "--historical", "--patience", "5s", "--key", key]);
    let said = text(&import(&scene.write));
    assert!(said.contains("scope import") || said.contains("scope read"), "{said}");
    let done = import(&scene.import);
    assert!(done.status.success(), "the scope import is enough: {}", text(&done));
    for command in [vec!["status"], vec!["tap", "--limit", "1"], vec!["top"]] {
        let run = |key: Option<&str>| {
            let mut command = tallymark(&[&command[..], &["--url", &url]].concat());
            key.map(|key| command.env("TALLYMARK_KEY", key));
            command.output().unwrap()
        };
        assert!(text(&run(None)).contains("send a key"), "{command:?}: {}", text(&run(None)));
        assert!(run(Some(&scene.read)).status.success(), "{command:?}: {}", text(&run(Some(&scene.read))));
        assert!(text(&run(Some("tm_1_2"))).contains("does not have the form"), "{command:?}");
    }
    // A server takes the variable for none of its settings.
    let checked = tallymark(&["config", "check"]).env("TALLYMARK_KEY", &scene.read).env("TALLYMARK_CA", "/x").output().unwrap();
    assert!(checked.status.success() && !text(&checked).contains(&scene.read), "{}", text(&checked));
    let help = tallymark(&["status", "--help"]).env("TALLYMARK_KEY", &scene.read).output().unwrap();
    assert!(!text(&help).contains(&scene.read), "{}", text(&help));
}

#[test]
fn no_secret_is_ever_in_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let (data, log) = (dir.path().join("data"), dir.path().join("stderr"));
    let admin = made(&["me", "--scope", "admin", "--direct", "--data", data.to_str().unwrap()]);
    let args = ["run", "--data", data.to_str().unwrap(), "--listen", "127.0.0.1:0", "--log-level", "trace", "--access-log"];
    let mut command = tallymark(&args);
    command.stderr(File::create(&log).unwrap());
    let (mut child, address) = launch(command);
    let http = reqwest::blocking::Client::builder().no_proxy().build().unwrap();
    let url = |path: &str| format!("http://{address}{path}");
    let body = json!({"name": "pages", "scopes": ["write"], "public": true});
    let public: Value = http.post(url("/v1/keys")).bearer_auth(&admin).json(&body).send().unwrap().json().unwrap();
    let public = public["token"].as_str().unwrap().to_owned();
    let wrong = format!("{}{}", &admin[..20], "ab".repeat(32));
    for (path, key) in [("/v1/keys", &admin), ("/v1/status", &public), ("/v1/keys", &wrong), ("/v1/none", &admin)] {
        http.get(url(path)).bearer_auth(key).send().unwrap();
    }
    for path in [format!("/v1/events?key={public}"), format!("/v1/events?key={admin}"), format!("/v1/events?key={wrong}")] {
        http.post(url(&path)).json(&event()).send().unwrap();
        http.get(url(&path)).send().unwrap();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let said = std::fs::read_to_string(&log).unwrap();
    for key in [&admin, &public, &wrong] {
        let secret = key.rsplit('_').next().unwrap();
        assert!(!said.contains(secret) && !said.contains(&secret[..16]), "{said}");
    }
    assert!(said.contains(id(&admin)) && said.contains("a key was made"), "but who it was is there: {said}");
}

/// Starts a server that other machines could reach.
fn exposed(data: &Path, more: &[&str]) -> std::process::Command {
    let mut command = tallymark(&["run", "--data", data.to_str().unwrap(), "--listen", "0.0.0.0:0", "--log-level", "error"]);
    command.args(more);
    command
}

#[test]
fn beyond_loopback_one_needs_a_key_and_without_keys_nothing_opens() {
    let dir = tempfile::tempdir().unwrap();
    let said = text(&exposed(dir.path(), &[]).output().unwrap());
    assert!(said.contains("there is no key yet") && said.contains("--direct") && said.contains("--insecure"), "{said}");
    let admin = made(&["me", "--scope", "admin", "--direct", "--data", dir.path().to_str().unwrap()]);
    let http = reqwest::blocking::Client::builder().no_proxy().build().unwrap();
    for is_revoked in [false, true] {
        let (mut child, address) = launch(exposed(dir.path(), &[]));
        let url = format!("http://127.0.0.1:{}", address.rsplit(':').next().unwrap());
        let status = |key: Option<&str>| {
            let request = http.get(format!("{url}/v1/status"));
            key.map_or(request.try_clone().unwrap(), |key| request.bearer_auth(key)).send().unwrap().status().as_u16()
        };
        assert_eq!((status(None), status(Some(&admin))), (401, if is_revoked { 401 } else { 200 }));
        if !is_revoked {
            run(&["keys", "revoke", id(&admin), "--url", &url, "--key", &admin]);
            assert_eq!((status(None), status(Some(&admin))), (401, 401), "all are revoked, and nothing is open");
        }
        let said = refused(&["keys", "create", "me", "--scope", "admin", "--url", &url]);
        assert!(said.contains("send a key"), "{said}");
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

#[test]
fn insecure_is_open_until_there_is_a_key() {
    let dir = tempfile::tempdir().unwrap();
    let (mut child, address) = launch(exposed(dir.path(), &["--insecure"]));
    let url = format!("http://127.0.0.1:{}", address.rsplit(':').next().unwrap());
    let status = || reqwest::blocking::get(format!("{url}/v1/status")).unwrap().status().as_u16();
    let begun = Instant::now();
    assert_eq!(status(), 200);
    made(&["me", "--scope", "admin", "--url", &url]);
    assert_eq!(status(), 401);
    assert!(begun.elapsed() < Duration::from_secs(60));
    child.kill().unwrap();
    child.wait().unwrap();
}
