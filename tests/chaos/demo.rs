//! `tallymark demo --verify` while brokers and the process that takes its events in die and come back: it finds every count exact.

use std::process::{Child, Stdio};

use test_servers::Scratch;

use crate::program::{Program, client};
use crate::report::Report;
use crate::scene::alone;
use crate::stage::{clusters, mend, migrated, settings};
use crate::support::{await_some, signal, tallymark};

/// Views a second.
const RATE: u32 = 1_000;

/// The demo, and what it says.
struct Demo {
    child: Child,
    said: std::path::PathBuf,
}

impl Demo {
    /// It sends until it is interrupted.
    fn start(server: &Program, directory: &Scratch) -> Self {
        let said = directory.path().join("demo.log");
        let (out, spool, url) = (std::fs::File::create(&said).unwrap(), directory.path().join("demo-spool"), server.url(""));
        let rate = RATE.to_string();
        let shape = ["--rate", &rate, "--duration", "1h", "--day", "30s", "--duplicates", "5", "--late", "10"];
        let ends = ["--spool", spool.to_str().unwrap(), "--patience", "120s", "--verify", "--url", &url];
        let mut command = tallymark(&[&["demo"][..], &shape, &ends].concat());
        let child = command.stdout(out.try_clone().unwrap()).stderr(Stdio::from(out)).spawn().unwrap();
        Self { child, said }
    }

    /// Ends it: it must have found every count exact.
    fn exact(mut self) -> String {
        signal(&self.child, "INT");
        let status = await_some("the demo ends", || self.child.try_wait().unwrap());
        let said = std::fs::read_to_string(&self.said).unwrap();
        // As after any Ctrl-C, if all is well.
        assert_eq!(status.code(), Some(130), "{said}");
        assert!(said.contains("Exact: ") && said.contains(" 0 rejected, 0 lost."), "{said}");
        said
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A number among its metrics; none while it does not answer.
fn metric(server: &Program, name: &str) -> Option<f64> {
    let text = client(5).get(server.url("/metrics")).send().ok()?.text().ok()?;
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?.parse().ok()
}

#[test]
fn the_demo_counts_exactly_what_it_sent_though_brokers_and_its_collector_are_killed() {
    alone(|| {
        let (kafka, _) = clusters();
        migrated("demo");
        let directory = Scratch::new("chaos").unwrap();
        let data = directory.path().join("data").display().to_string();
        let own = ["--data", &data, "--spool-size", "64MiB"].map(str::to_owned);
        let mut server = Program::new(directory.path(), "demo-run", "run", &[settings("demo"), own.to_vec()].concat());
        server.start_ready();
        let demo = Demo::start(&server, &directory);
        let accepted = |server: &Program, events: f64| {
            await_some("events are accepted", || {
                metric(server, "tallymark_collect_events_accepted_total").filter(|accepted| *accepted >= events)
            })
        };

        // One of three: others lead.
        accepted(&server, 2_000.0);
        kafka.kill(0);
        let before = accepted(&server, 0.0);
        accepted(&server, before + 2_000.0);
        // Two of three: nothing is acknowledged by them, and the collector spools.
        kafka.kill(1);
        await_some("the collector spools", || metric(&server, "tallymark_collect_events_spooled_total").filter(|spooled| *spooled > 500.0));
        // What it has spooled is on disk.
        server.kill();
        (0..2).for_each(|broker| kafka.restart(broker));
        (0..2).for_each(|broker| kafka.wait_ready(broker));
        server.start_ready();
        // In the middle of draining, perhaps, and of taking in what the demo has kept.
        accepted(&server, 1_000.0);
        server.kill();
        server.start_ready();
        accepted(&server, 1_000.0);
        let said = demo.exact();
        Report::say(
            said.lines().filter(|line| line.starts_with("Sent ") || line.starts_with("Exact")).collect::<Vec<_>>().join(" ").trim(),
        );
        server.stop();
        mend();
    });
}
