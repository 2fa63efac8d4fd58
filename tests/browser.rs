//! The browser's client (`sdk/js`): its own tests by node, and pages in a real Chromium against the real program, on one machine and on
//! Kafka and Cassandra.
//!
//! Packages come from npm at fixed versions (`sdk/js/package-lock.json`), once, into a cache outside of the tree. Without node, npm,
//! network or Chromium a test says that it did not run; with `CI=true` that is a failure.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test stops at the first fault")]

mod place;
mod support;

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use place::{Place, wherever_it_runs};
use tempfile::TempDir;

/// The browser's tests take a minute on a quiet machine.
const LONGEST: Duration = Duration::from_secs(600);

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("sdk/js")
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() { Ok(()) } else { Err(format!("{command:?}: {}", support::text(&output))) }
}

/// The packages that building and testing need, installed; or why they are not.
fn packages() -> Result<PathBuf, String> {
    static PACKAGES: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    PACKAGES.get_or_init(install).clone()
}

fn install() -> Result<PathBuf, String> {
    // Other versions are another directory.
    let lock = std::fs::read(source().join("package-lock.json")).unwrap();
    let digest = lock.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    let cache =
        std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")));
    let cache = cache.ok_or("neither XDG_CACHE_HOME nor HOME is set")?.join("tallymark");
    let place = cache.join(format!("npm-{digest:016x}"));
    if !place.exists() {
        std::fs::create_dir_all(&cache).map_err(|error| error.to_string())?;
        let fresh = TempDir::new_in(&cache).map_err(|error| error.to_string())?;
        for file in ["package.json", "package-lock.json"] {
            std::fs::copy(source().join(file), fresh.path().join(file)).unwrap();
        }
        run(Command::new("npm").args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]).current_dir(fresh.path()))?;
        // Another run may have been faster: then its packages are as good.
        if std::fs::rename(fresh.path(), &place).is_ok() {
            let _ = fresh.keep();
        }
    }
    Ok(place.join("node_modules"))
}

/// Whether what is needed is here; if not, that is said, past the test harness.
fn had<T>(what: Result<T, String>) -> Option<T> {
    match what {
        Ok(what) => Some(what),
        Err(why) if std::env::var("CI").is_ok_and(|ci| ci == "true") => panic!("the browser's client cannot be tested: {why}"),
        Err(why) => {
            let thread = std::thread::current();
            let line = format!("{} did not run: {why}\n", thread.name().unwrap_or("a test"));
            std::io::stderr().write_all(line.as_bytes()).unwrap();
            None
        }
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}

/// A fresh build of the package, in a place of its own.
fn built() -> Option<TempDir> {
    let packages = had(packages())?;
    let place = tempfile::tempdir().unwrap();
    for folder in ["src", "test"] {
        copy(&source().join(folder), &place.path().join(folder));
    }
    for file in ["package.json", "tsconfig.json"] {
        std::fs::copy(source().join(file), place.path().join(file)).unwrap();
    }
    std::os::unix::fs::symlink(packages, place.path().join("node_modules")).unwrap();
    // Strict types are a part of the build.
    run(Command::new("npm").args(["run", "--silent", "build"]).current_dir(place.path())).unwrap();
    Some(place)
}

fn chromium() -> Result<PathBuf, String> {
    let named = std::env::var_os("CHROMIUM").map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = || {
        let names = ["chromium", "chromium-browser", "google-chrome"];
        std::env::split_paths(&path).flat_map(|dir| names.map(|name| dir.join(name))).find(|program| program.is_file())
    };
    named
        .or_else(found)
        .ok_or_else(|| "there is no Chromium; install it with: sudo apt-get install -y chromium (or set CHROMIUM to its path)".to_owned())
}

#[test]
fn the_script_that_is_served_is_what_its_source_builds() {
    let Some(place) = built() else { return };
    let [fresh, kept] = [place.path(), &source()].map(|at| std::fs::read(at.join("dist/t.js")).unwrap());
    assert!(fresh == kept, "sdk/js/dist/t.js is not what sdk/js/src builds; build it anew with: cd sdk/js && npm ci && npm run build");
}

#[test]
fn the_parts_of_the_package_do_what_they_say() {
    let Some(place) = built() else { return };
    run(Command::new("npm").arg("test").current_dir(place.path())).unwrap();
}

wherever_it_runs! { what_pages_in_a_real_browser_send_is_counted_exactly }

/// One of the tests in the browser has the collector killed: it makes this file, and finds it gone when the collector is back.
const KILL: &str = "kill-the-collector";

fn what_pages_in_a_real_browser_send_is_counted_exactly(place: &Place) {
    let Some(chromium) = had(chromium()) else { return };
    let Some(package) = built() else { return };
    // Browsers take all of a machine.
    static TURN: Mutex<()> = Mutex::new(());
    let _one_at_a_time = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let mut server = place.start(&["--flush-interval", "50ms"]);
    let [report, errors, kill] = ["report", "errors", KILL].map(|name| place.dir().join(name));
    let mut tests = Command::new("node")
        .args(["--test", "test/browser.test.mjs"])
        .env("TALLYMARK_URL", server.url(""))
        .env("KILL_COLLECTOR", &kill)
        .env("CHROMIUM", chromium)
        .current_dir(package.path())
        .stdin(Stdio::null())
        .stdout(File::create(&report).unwrap())
        .stderr(File::create(&errors).unwrap())
        .spawn()
        .unwrap();
    let begun = Instant::now();
    let said = || [&report, &errors].map(|path| std::fs::read_to_string(path).unwrap()).concat();
    let status = loop {
        if kill.exists() {
            server.kill();
            server.restart();
            std::fs::remove_file(&kill).unwrap();
        }
        match tests.try_wait().unwrap() {
            Some(status) => break status,
            None if begun.elapsed() < LONGEST => std::thread::sleep(Duration::from_millis(50)),
            None => {
                tests.kill().unwrap();
                tests.wait().unwrap();
                panic!("the browser's tests did not end in {LONGEST:?}: {}", said());
            }
        }
    };
    assert!(status.success(), "{}", said());
    println!("{}", said());
}
