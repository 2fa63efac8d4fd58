//! The servers start, answer, and never outlive their test.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test stops at the first fault")]

use std::io::{BufRead as _, BufReader};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use test_servers::{CassandraCluster, KafkaCluster, Scratch};

const TOPICS: &str = "org.apache.kafka.tools.TopicCommand";

fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < Duration::from_secs(60), "waited a minute in vain until {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn runs(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // A zombie has ended; whoever should wait for it is not our concern.
    stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
}

#[test]
fn the_shared_broker_takes_topics() {
    if test_servers::skipped() {
        return;
    }
    let kafka = test_servers::kafka();
    kafka.tool(TOPICS, &["--create", "--topic", "claims", "--partitions", "3"]).unwrap();
    let described = kafka.tool(TOPICS, &["--describe", "--topic", "claims"]).unwrap();
    assert!(described.contains("PartitionCount: 3") && described.contains("ReplicationFactor: 1"), "{described}");
    assert!(kafka.tool(TOPICS, &["--describe", "--topic", "another"]).unwrap_err().contains("does not exist"));
}

#[test]
fn the_shared_node_is_up() {
    if test_servers::skipped() {
        return;
    }
    let cassandra = test_servers::cassandra();
    assert!(TcpStream::connect(cassandra.contact()).is_ok());
    let status = cassandra.nodetool(0, &["status"]).unwrap();
    assert_eq!(status.lines().filter(|line| line.starts_with("UN")).count(), 1, "{status}");
}

#[test]
fn three_brokers_bear_the_death_of_one_and_take_it_back() {
    if test_servers::skipped() {
        return;
    }
    let kafka = KafkaCluster::start_behind_proxies(3);
    kafka.tool(TOPICS, &["--create", "--topic", "claims", "--partitions", "3"]).unwrap();
    assert!(kafka.tool(TOPICS, &["--describe", "--topic", "claims"]).unwrap().contains("ReplicationFactor: 3"));
    kafka.kill(0);
    assert!(kafka.pid(0).is_none());
    eventually("the two lead everything", || {
        let described = kafka.tool(TOPICS, &["--describe", "--topic", "claims"]).unwrap();
        !described.contains("Leader: 1") && !described.contains("Leader: none")
    });
    kafka.restart(0);
    kafka.wait_ready(0);
    kafka.wait_in_sync();
    kafka.stop(2);
    kafka.restart(2);
    kafka.wait_ready(2);
    // Clients are told the proxies' addresses.
    let before = kafka.proxy(0).carried() + kafka.proxy(1).carried() + kafka.proxy(2).carried();
    assert_eq!(before, 0, "brokers and tools go around the proxies");
}

#[test]
fn three_nodes_bear_the_death_of_one_and_take_it_back() {
    if test_servers::skipped() {
        return;
    }
    let cassandra = CassandraCluster::start_behind_proxies(3);
    let up = |node| {
        let status = cassandra.nodetool(node, &["status"]).unwrap_or_default();
        status.lines().filter(|line| line.starts_with("UN")).count()
    };
    eventually("all see all", || up(0) == 3 && up(2) == 3);
    cassandra.kill(1);
    eventually("its death is known", || up(0) == 2);
    cassandra.restart(1);
    cassandra.wait_ready(1);
    eventually("it is back", || up(0) == 3);
    assert_eq!(cassandra.contacts().len(), 3);
    assert!(TcpStream::connect(&cassandra.contacts()[2]).is_ok());
}

/// Run by the next test in a process of its own, which is then killed.
#[test]
#[ignore = "a part of the next test"]
fn holds_servers_until_it_is_killed() {
    let (kafka, cassandra) = (KafkaCluster::start(1), CassandraCluster::start(1));
    println!("\npids {} {}", kafka.pid(0).unwrap(), cassandra.pid(0).unwrap());
    std::thread::sleep(Duration::from_secs(600));
}

#[test]
fn a_test_process_that_is_killed_leaves_no_server_and_no_files() {
    if test_servers::skipped() {
        return;
    }
    let temporary = tempfile::tempdir().unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--ignored", "--exact", "holds_servers_until_it_is_killed", "--nocapture"]).env("TMPDIR", temporary.path());
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = lines.find_map(|line| line.unwrap().strip_prefix("pids ").map(str::to_owned)).expect("the child starts its servers");
    let pids: Vec<u32> = line.split(' ').map(|pid| pid.parse().unwrap()).collect();
    assert!(pids.iter().all(|pid| runs(*pid)) && files(temporary.path()) > 0);
    child.kill().unwrap();
    child.wait().unwrap();
    eventually("the servers have ended", || !pids.iter().any(|pid| runs(*pid)));
    eventually("their files are gone", || files(temporary.path()) == 0);
}

fn files(directory: &Path) -> usize {
    std::fs::read_dir(directory).unwrap().count()
}

#[test]
fn a_directory_goes_with_its_owner_unless_it_is_kept() {
    let path = |scratch: &Scratch| scratch.path().to_owned();
    let (gone, kept) = (Scratch::new("claim").unwrap(), Scratch::new("claim").unwrap());
    let gone_path = path(&gone);
    assert!(gone_path.is_dir());
    drop(gone);
    assert!(!gone_path.exists());
    let kept_path = kept.keep();
    assert!(kept_path.is_dir());
    std::fs::remove_dir(kept_path).unwrap();
}

#[test]
fn without_java_the_failure_says_how_to_get_it() {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "the_shared_broker_takes_topics"]).env("PATH", "/nonexistent").env_remove("JAVA_HOME");
    let output = command.env_remove(test_servers::WITHOUT).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(!output.status.success() && said.contains("Java is missing") && said.contains("apt-get install"), "{said}");
}

#[test]
fn without_servers_a_test_passes_and_says_its_name() {
    let mut command = Command::new(std::env::current_exe().unwrap());
    let output = command.args(["--exact", "the_shared_broker_takes_topics"]).env(test_servers::WITHOUT, "1").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && said.contains("the_shared_broker_takes_topics did not run"), "{said}");
}
