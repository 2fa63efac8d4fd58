//! The API does what its OpenAPI document says: schemathesis makes requests of it, good and bad ones, against the real program.
//!
//! The tool is the real one from PyPI, with every dependency at a fixed version (`tests/schemathesis/requirements.txt`), installed
//! once beside other tools. Without python3 or network the test says that it did not run; with `CI=true` that is a failure.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test stops at the first fault")]

mod support;

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;
use support::Server;

/// It takes two minutes on a quiet machine.
const LONGEST: Duration = Duration::from_secs(900);

fn here() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/schemathesis")
}

/// The tool, installed; or why it is not.
fn installed() -> Result<PathBuf, String> {
    let requirements = here().join("requirements.txt");
    // Other versions are another directory.
    let wanted = std::fs::read_to_string(&requirements).unwrap();
    let digest = wanted.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let cache =
        std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")));
    let venv = cache.ok_or("neither XDG_CACHE_HOME nor HOME is set")?.join(format!("tallymark/schemathesis-{digest:016x}"));
    let done = venv.join("installed");
    if !done.exists() {
        run(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
        run(Command::new(venv.join("bin/pip")).args(["install", "--quiet", "--disable-pip-version-check", "-r"]).arg(&requirements))?;
        File::create(&done).map_err(|error| error.to_string())?;
    }
    Ok(venv.join("bin"))
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() { Ok(()) } else { Err(format!("{command:?}: {}", support::text(&output))) }
}

/// The tool, or `None` if it cannot be had here: then that is said, past the test harness.
fn tool() -> Option<PathBuf> {
    match installed() {
        Ok(bin) => Some(bin),
        Err(why) if std::env::var("CI").is_ok_and(|ci| ci == "true") => panic!("schemathesis cannot be had: {why}"),
        Err(why) => {
            let thread = std::thread::current();
            let line = format!("{} did not run: schemathesis cannot be had: {why}\n", thread.name().unwrap_or("a test"));
            std::io::stderr().write_all(line.as_bytes()).unwrap();
            None
        }
    }
}

/// A server that has counted something of everything that the document's examples name.
fn served(data: &Path) -> Server {
    let server = Server::start(data, &[]);
    let now = schemas::Millis::now().to_rfc3339();
    let events: Vec<_> = (0..50)
        .map(|n| json!({ "event_id": format!("e{n}"), "video_id": format!("v{}", n % 5), "space_id": "channel-7", "ts": now }))
        .collect();
    server.post(&events);
    // Some that are refused.
    let old: Vec<_> = (0..3).map(|n| json!({ "event_id": format!("old{n}"), "video_id": "v1", "ts": "2020-01-01T00:00:00Z" })).collect();
    server.post(&old);
    let put = |path: &str, body: serde_json::Value| {
        let response = server.http.put(server.url(path)).json(&body).send().unwrap();
        assert!(response.status().is_success(), "{path}: {}", response.text().unwrap());
    };
    put("/v1/videos/v1", json!({ "title": "How glass is made", "space_id": "channel-7", "space_name": "Workshops" }));
    put(
        "/v1/imports/9f86d081884c7d659a2feaa0c55ad015",
        json!({ "file": "a", "mapping": "", "events": 1, "ends": [1, 1], "complete": true }),
    );
    server.counted();
    server
}

#[test]
fn the_document_is_valid_openapi_3_1() {
    let Some(bin) = tool() else { return };
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/openapi.json");
    let check = "import schemathesis, sys; schema = schemathesis.openapi.from_path(sys.argv[1]); schema.validate(); \
                 assert schema.raw_schema['openapi'].startswith('3.1'); print(len(list(schema.get_all_operations())))";
    let output = Command::new(bin.join("python")).args(["-c", check]).arg(document).output().unwrap();
    assert!(output.status.success(), "{}", support::text(&output));
}

#[test]
fn every_operation_does_what_the_document_says() {
    let Some(bin) = tool() else { return };
    let dir = tempfile::tempdir().unwrap();
    let server = served(&dir.path().join("data"));
    // Else the first good request for a key would close the door to all others.
    let made = support::output(&["keys", "create", "tool", "--scope", "admin", "--url", &server.url("")]);
    let key = String::from_utf8(made.stdout).unwrap();
    let report = dir.path().join("report");
    let mut tool = Command::new(bin.join("schemathesis"))
        .arg("--config-file")
        .arg(here().join("schemathesis.toml"))
        .args(["run", &server.url("/openapi.json"), "--no-color"])
        .env("TOOL_KEY", key.trim())
        .env("PYTHONPATH", here())
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .current_dir(dir.path())
        .stdin(Stdio::null())
        .stdout(File::create(&report).unwrap())
        .stderr(File::create(dir.path().join("errors")).unwrap())
        .spawn()
        .unwrap();
    let begun = Instant::now();
    let status = loop {
        match tool.try_wait().unwrap() {
            Some(status) => break status,
            None if begun.elapsed() < LONGEST => std::thread::sleep(Duration::from_millis(50)),
            None => {
                tool.kill().unwrap();
                tool.wait().unwrap();
                panic!("schemathesis did not end in {LONGEST:?}: {}", std::fs::read_to_string(&report).unwrap());
            }
        }
    };
    let mut said = std::fs::read_to_string(&report).unwrap();
    said += &std::fs::read_to_string(dir.path().join("errors")).unwrap();
    assert!(status.success(), "{said}");
    println!("{said}");
}
