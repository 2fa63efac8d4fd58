//! A server with keys of every kind, and requests as they are, byte by byte.

use std::io::{Read, Write};
use std::net::TcpStream;

use reqwest::Method;
use reqwest::blocking::{RequestBuilder, Response};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{PATIENCE, Server, output, tallymark, text};

/// The page that the public key lists.
pub(crate) const PAGE: &str = "https://www.example.com";

/// A server that asks for keys.
pub(crate) struct Scene {
    pub(crate) server: Server,
    pub(crate) admin: String,
    pub(crate) write: String,
    pub(crate) import: String,
    pub(crate) read: String,
    pub(crate) public: String,
    pub(crate) dir: TempDir,
}

impl Scene {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let server = Server::start(&dir.path().join("data"), &[]);
        let url = server.url("");
        let admin = made(&["me", "--scope", "admin", "--url", &url]);
        let scoped = |scope: &str| made(&[scope, "--scope", scope, "--url", &url, "--key", &admin]);
        let (write, import, read) = (scoped("write"), scoped("import"), scoped("read"));
        let public = made(&["pages", "--public", "--scope", "write", "--origin", PAGE, "--url", &url, "--key", &admin]);
        Self { server, admin, write, import, read, public, dir }
    }

    pub(crate) fn ask(&self, method: &str, path: &str, key: Option<&str>) -> RequestBuilder {
        let request = self.server.http.request(method.parse::<Method>().unwrap(), self.server.url(path));
        match key {
            Some(key) => request.bearer_auth(key),
            None => request,
        }
    }

    /// The status of a request without a body.
    pub(crate) fn status(&self, method: &str, path: &str, key: Option<&str>) -> u16 {
        self.ask(method, path, key).send().unwrap().status().as_u16()
    }

    /// Sends one event.
    pub(crate) fn send(&self, key: Option<&str>, path: &str) -> Response {
        self.ask("POST", path, key).json(&event()).send().unwrap()
    }

    /// How many events are in the log.
    pub(crate) fn events(&self) -> usize {
        let response = self.ask("GET", "/v1/records", Some(&self.admin)).send().unwrap();
        assert_eq!(response.status(), 200);
        response.text().unwrap().lines().filter(|line| line.contains("event_id")).count()
    }

    /// Bytes as they are, and everything that is answered until the connection ends.
    pub(crate) fn raw(&self, bytes: &[u8]) -> String {
        raw(self.server.address(), bytes)
    }

    /// A request without a body that says itself how its path is written.
    pub(crate) fn raw_get(&self, target: &str, key: Option<&str>) -> String {
        let key = key.map_or(String::new(), |key| format!("authorization: Bearer {key}\r\n"));
        self.raw(format!("GET {target} HTTP/1.1\r\nhost: x\r\n{key}connection: close\r\n\r\n").as_bytes())
    }
}

pub(crate) fn event() -> Value {
    json!({"event_id": format!("e{:?}", std::time::Instant::now()).replace(|c: char| !c.is_ascii_alphanumeric(), ""),
        "video_id": "v", "ts": schemas::Millis::now().to_rfc3339()})
}

pub(crate) fn raw(address: &str, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // Whoever has heard enough closes; then the answer counts.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

/// The status of a raw answer.
pub(crate) fn status_of(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("no answer: {answer:?}"))
}

/// How many answers there are.
pub(crate) fn answers(raw: &str) -> usize {
    raw.matches("HTTP/1.1 ").count()
}

/// A key that the command makes.
pub(crate) fn made(args: &[&str]) -> String {
    let output = tallymark(&["keys", "create"]).args(args).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let key = String::from_utf8(output.stdout).unwrap();
    assert_eq!(key.trim_end().lines().count(), 1, "the key alone: {key}");
    key.trim_end().to_owned()
}

/// What a command said that was refused.
pub(crate) fn refused(args: &[&str]) -> String {
    let output = output(args);
    assert!(!output.status.success(), "{}", text(&output));
    text(&output)
}

/// The public part of a key.
pub(crate) fn id(key: &str) -> &str {
    key.split('_').nth(1).unwrap()
}
