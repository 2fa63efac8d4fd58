//! The README's tour does what it says: every command is run, and every output it shows is compared (`...` stands for anything).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test stops at the first fault")]

mod support;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use support::Server;

/// A command and what it prints.
#[derive(Debug, Default, PartialEq)]
struct Step {
    command: String,
    output: String,
}

/// The steps of all ```console blocks: `$ ` begins a command, `> ` goes on with it, anything else is its output.
fn steps(readme: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut in_console = false;
    for line in readme.lines() {
        if line.starts_with("```") {
            in_console = line == "```console";
        } else if in_console {
            if let Some(command) = line.strip_prefix("$ ") {
                steps.push(Step { command: command.to_owned(), output: String::new() });
            } else if let Some(more) = line.strip_prefix("> ") {
                let step = steps.last_mut().unwrap();
                step.command = format!("{}\n{more}", step.command);
            } else {
                let step = steps.last_mut().unwrap();
                step.output = format!("{}{line}\n", step.output);
            }
        }
    }
    steps
}

/// Whether `actual` is `expected`, where `...` is any text.
fn matches(expected: &str, actual: &str) -> bool {
    let mut parts = expected.trim_end().split("...").collect::<Vec<_>>();
    let first = parts.remove(0);
    let Some(mut rest) = actual.trim_end().strip_prefix(first) else { return false };
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

#[test]
fn expected_output_may_leave_out_what_differs() {
    assert!(matches("a...b...c\n", "a1b2c\n") && matches("a", "a\n") && matches("a...", "ab"));
    assert!(!matches("a...b", "ac") && !matches("a", "ab") && !matches("x...b...c", "xcb"));
}

/// Whether a command may be repeated until the counts are there.
fn only_asks(command: &str) -> bool {
    !(command.contains("-d ") || command.contains("--data-binary") || command.contains("import") || command.contains('>'))
}

#[test]
fn every_line_of_the_tour_prints_what_the_readme_shows() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = std::fs::read_to_string(root.join("README.md")).unwrap();
    let steps = steps(&readme);
    assert!(steps.len() >= 10, "the tour has {} steps", steps.len());
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("data"), &[]);
    for step in steps {
        let command = step
            .command
            .replace("target/release/tallymark", env!("CARGO_BIN_EXE_tallymark"))
            .replace("http://127.0.0.1:8080", &server.url(""));
        let begun = Instant::now();
        loop {
            let output =
                Command::new("bash").args(["-c", &command]).current_dir(dir.path()).env("TALLYMARK_URL", server.url("")).output().unwrap();
            let printed = String::from_utf8(output.stdout).unwrap();
            if output.status.success() && matches(&step.output, &printed) {
                break;
            }
            let again = only_asks(&step.command) && begun.elapsed() < Duration::from_secs(20);
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert!(again, "{}\nshould print\n{}\nbut printed\n{printed}\n{stderr}", step.command, step.output);
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

#[test]
fn the_two_commands_are_what_the_makefile_does() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (target, does) in [("run", "run --release"), ("test", "test --workspace")] {
        let output = Command::new("make")
            .args(["-n", target])
            .current_dir(root)
            .output()
            .expect("make is missing; install it with: sudo apt-get install -y make");
        assert!(support::text(&output).contains(does), "{}", support::text(&output));
    }
}
