//! The real binary as a running server, and a plain client of it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::report::target_dir;

/// A running `tallymark run` with data of its own.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: String,
    _data: tempfile::TempDir,
}

impl Server {
    /// On its embedded log and store.
    pub(crate) fn start() -> Self {
        Self::with(&[])
    }

    /// With further arguments.
    pub(crate) fn with(args: &[String]) -> Self {
        Self::playing("run", args)
    }

    /// In a role.
    pub(crate) fn playing(role: &str, args: &[String]) -> Self {
        let data = tempfile::tempdir_in(target_dir()).unwrap();
        let mut child = Command::new(binary())
            .args([role, "--listen", "127.0.0.1:0", "--data"])
            .arg(data.path())
            .args(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("build the program first: cargo build --release");
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let address =
            lines.by_ref().map(Result::unwrap).find_map(|line| Some(line.split_once("http://")?.1.split([',', ' ']).next()?.to_owned()));
        std::thread::spawn(move || lines.for_each(drop));
        let server = Self { child, address: address.expect("it prints its address"), _data: data };
        while request(&mut server.connect(), "GET", "/readyz", "", b"").0 != 200 {
            std::thread::sleep(Duration::from_millis(20));
        }
        server
    }

    pub(crate) fn pid(&self) -> String {
        self.child.id().to_string()
    }

    pub(crate) fn connect(&self) -> TcpStream {
        connect(&self.address)
    }

    pub(crate) fn import(&self, file: &Path) {
        let url = format!("http://{}", self.address);
        let done = Command::new(binary())
            .args(["import", "--historical"])
            .arg(file)
            .args(["--to", &url])
            .stderr(Stdio::null())
            .stdout(Stdio::null())
            .status();
        assert!(done.unwrap().success());
    }

    /// Waits until the answers hold so many views of the last days.
    pub(crate) fn await_counts(&self, days: i64, events: u64) {
        let mut connection = self.connect();
        let now = schemas::Millis::now().0 / 1_000;
        let path = format!("/v1/site/views?start={}&end={}&step=all", now - days * 86_400, now + 3_600);
        loop {
            let (_, answer) = request(&mut connection, "GET", &path, "", b"");
            if serde_json::from_slice::<Value>(&answer).unwrap()["total"].as_u64() == Some(events) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The value of a metric without labels.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let (_, body) = request(&mut self.connect(), "GET", "/metrics", "", b"");
        let body = String::from_utf8(body).unwrap();
        let value = body.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("there is no metric {name}")).parse().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The arguments of those that work on a topic and a keyspace of their own, both made here.
pub(crate) fn on_cluster(brokers: &str, node: &str, name: &str) -> Vec<String> {
    let place = [
        ("--kafka-brokers", brokers),
        ("--kafka-topic", name),
        ("--kafka-group", name),
        ("--cassandra-nodes", node),
        ("--cassandra-keyspace", name),
        ("--replication", "1"),
    ];
    let place: Vec<String> = place.into_iter().flat_map(|(key, value)| [key.to_owned(), value.to_owned()]).collect();
    let migrated = Command::new(binary()).arg("migrate").args(&place).output().unwrap();
    assert!(migrated.status.success(), "{}", String::from_utf8_lossy(&migrated.stderr));
    place
}

/// The program, built beside this one.
fn binary() -> PathBuf {
    target_dir().join("release").join("tallymark")
}

/// A connection that sends what it is given at once.
pub(crate) fn connect(address: &str) -> TcpStream {
    let connection = TcpStream::connect(address).unwrap();
    connection.set_nodelay(true).unwrap();
    connection
}

/// One HTTP/1.1 request over a connection that stays open: the status and the body.
pub(crate) fn request(connection: &mut TcpStream, method: &str, path: &str, content_type: &str, body: &[u8]) -> (u16, Vec<u8>) {
    let kind = if content_type.is_empty() { String::new() } else { format!("Content-Type: {content_type}\r\n") };
    let head = format!("{method} {path} HTTP/1.1\r\nHost: bench\r\n{kind}Content-Length: {}\r\n\r\n", body.len());
    connection.write_all(&[head.as_bytes(), body].concat()).unwrap();
    let mut reader = BufReader::new(connection);
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    let status = line.split(' ').nth(1).unwrap().parse().unwrap();
    let mut length = 0;
    loop {
        line.clear();
        reader.read_line(&mut line).unwrap();
        if line.trim().is_empty() {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    (status, body)
}
