//! Cassandra: one node shared by a test process, or several that each can be killed, stopped, paused and cut off.
//!
//! Nodes have the same ports at different addresses. Every node is a seed and has its token from the start, so that all start at once and any
//! can start again whichever others are down. Behind proxies, a node tells clients the proxy's address as its own.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::jars;
use crate::java;
use crate::place::{Place, Scratch};
use crate::process::Process;
use crate::proxy::Proxy;

/// How long a node may take until it serves.
const PATIENCE: Duration = Duration::from_secs(180);

const NATIVE: usize = 0;
const STORAGE: usize = 1;
/// The first of the management ports: these are all at 127.0.0.1, one for a node.
const MANAGEMENT: usize = 2;

/// What a cluster is started with.
#[derive(Debug, Clone)]
pub struct CassandraPlan {
    /// Nodes, 1 to 99.
    pub nodes: u8,
    /// Whether clients come through a [`Proxy`] before each.
    pub proxies: bool,
    /// Whether clients must log in (`cassandra`, `cassandra`) and have permissions.
    pub passwords: bool,
    /// Further lines of `cassandra.yaml`.
    pub yaml: String,
}

/// Nodes that run; all end when this is dropped or the process ends.
#[derive(Debug)]
pub struct CassandraCluster {
    nodes: Vec<Mutex<Node>>,
    place: Place,
    proxies: Vec<Proxy>,
    jars: PathBuf,
    scratch: Scratch,
}

#[derive(Debug)]
struct Node {
    number: u8,
    server: Option<Process>,
    starts: u32,
}

impl CassandraCluster {
    /// `nodes` nodes; anybody may log in.
    ///
    /// # Panics
    /// When they do not start, with the reason.
    #[must_use]
    pub fn start(nodes: u8) -> Self {
        Self::with(&CassandraPlan { nodes, proxies: false, passwords: false, yaml: String::new() })
    }

    /// The same, with a [`Proxy`] before each that clients are told to use.
    ///
    /// # Panics
    /// When they do not start, with the reason.
    #[must_use]
    pub fn start_behind_proxies(nodes: u8) -> Self {
        Self::with(&CassandraPlan { nodes, proxies: true, passwords: false, yaml: String::new() })
    }

    /// A cluster of a plan.
    ///
    /// # Panics
    /// When it does not start, with the reason.
    #[must_use]
    pub fn with(plan: &CassandraPlan) -> Self {
        match Self::started(plan) {
            Ok(cluster) => cluster,
            Err(reason) => panic!("Cassandra for tests: {reason}"),
        }
    }

    fn started(plan: &CassandraPlan) -> Result<Self, String> {
        java::java()?;
        let jars = jars::fetched(&jars::CASSANDRA)?;
        let place = Place::find(plan.nodes, MANAGEMENT + usize::from(plan.nodes))?;
        let scratch = Scratch::new("cassandra")?;
        let proxies = (1..=plan.nodes).filter(|_| plan.proxies).map(|number| {
            let (address, target) = (proxy_address(&place, number), format!("{}:{}", place.host(number), place.port(NATIVE)));
            Proxy::at(&address, &target).map_err(|error| format!("a proxy at {address}: {error}"))
        });
        let proxies = proxies.collect::<Result<_, _>>()?;
        let nodes = (1..=plan.nodes).map(|number| Mutex::new(Node { number, server: None, starts: 0 })).collect();
        let cluster = Self { nodes, place, proxies, jars, scratch };
        let write = |path: PathBuf, text: &str| fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()));
        write(cluster.scratch.path().join("jvm.options"), include_str!("../settings/cassandra-jvm.options"))?;
        write(cluster.scratch.path().join("logback.xml"), include_str!("../settings/logback.xml"))?;
        for number in 1..=plan.nodes {
            let home = cluster.home(number);
            fs::create_dir_all(&home).map_err(|error| format!("{}: {error}", home.display()))?;
            write(home.join("cassandra.yaml"), &cluster.yaml(plan, number))?;
        }
        for node in 0..cluster.len() {
            cluster.start_node(node)?;
        }
        for node in 0..cluster.len() {
            cluster.ready(node)?;
        }
        Ok(cluster)
    }

    fn yaml(&self, plan: &CassandraPlan, number: u8) -> String {
        let (host, data) = (self.place.host(number), self.home(number).join("data"));
        let data = data.display();
        let seeds: Vec<String> = (1..=plan.nodes).map(|node| format!("{}:{}", self.place.host(node), self.place.port(STORAGE))).collect();
        // The ring in equal parts.
        let token = i128::from(i64::MIN) + (i128::from(u64::MAX) / i128::from(plan.nodes)) * i128::from(number - 1);
        let mut yaml = format!(
            "seed_provider:\n  - class_name: org.apache.cassandra.locator.SimpleSeedProvider\n    parameters: [{{seeds: \"{}\"}}]\n\
             initial_token: \"{token}\"\n\
             listen_address: {host}\n\
             rpc_address: {host}\n\
             storage_port: {}\n\
             native_transport_port: {}\n\
             data_file_directories: [{data}/data]\n\
             commitlog_directory: {data}/commitlog\n\
             saved_caches_directory: {data}/saved_caches\n\
             hints_directory: {data}/hints\n\
             cdc_raw_directory: {data}/cdc_raw\n",
            seeds.join(","),
            self.place.port(STORAGE),
            self.place.port(NATIVE),
        );
        if plan.proxies {
            yaml.push_str(&format!("broadcast_rpc_address: {}\n", self.place.host(100 + number)));
        }
        if plan.passwords {
            yaml.push_str("authenticator: PasswordAuthenticator\nauthorizer: CassandraAuthorizer\n");
        }
        yaml.push_str(include_str!("../settings/cassandra.yaml"));
        yaml.push_str(&plan.yaml);
        yaml
    }

    fn home(&self, number: u8) -> PathBuf {
        self.scratch.path().join(format!("node-{number}"))
    }

    /// How many nodes it has, also those that are down.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a cluster without nodes does not exist")]
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Where clients begin: `host:port` of the first node.
    #[must_use]
    pub fn contact(&self) -> String {
        self.address(1)
    }

    /// `host:port` of every node.
    #[must_use]
    pub fn contacts(&self) -> Vec<String> {
        (1..).take(self.len()).map(|number| self.address(number)).collect()
    }

    fn address(&self, number: u8) -> String {
        let host = if self.proxies.is_empty() { number } else { 100 + number };
        format!("{}:{}", self.place.host(host), self.place.port(NATIVE))
    }

    /// The proxy before a node (from 0).
    ///
    /// # Panics
    /// When the cluster was started without proxies.
    #[must_use]
    pub fn proxy(&self, node: usize) -> &Proxy {
        self.proxies.get(node).expect("the cluster was started without proxies")
    }

    /// All proxies; none when it was started without.
    #[must_use]
    pub fn proxies(&self) -> &[Proxy] {
        &self.proxies
    }

    /// SIGKILL to a node (from 0).
    pub fn kill(&self, node: usize) {
        if let Some(server) = self.node(node).server.take() {
            server.kill();
        }
    }

    /// SIGTERM to a node, and the wait for its end.
    pub fn stop(&self, node: usize) {
        if let Some(server) = self.node(node).server.take() {
            server.stop();
        }
    }

    /// Starts a node that is down, with the data that it had. See [`wait_ready`](Self::wait_ready).
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn restart(&self, node: usize) {
        self.start_node(node).unwrap_or_else(|reason| panic!("node {node}: {reason}"));
    }

    /// SIGSTOP: its connections stay open and nothing answers.
    pub fn pause(&self, node: usize) {
        self.signal(node, "STOP");
    }

    /// SIGCONT.
    pub fn resume(&self, node: usize) {
        self.signal(node, "CONT");
    }

    fn signal(&self, node: usize, name: &str) {
        if let Some(server) = &self.node(node).server {
            server.signal(name);
        }
    }

    /// The process of a node, while it runs.
    #[must_use]
    pub fn pid(&self, node: usize) -> Option<u32> {
        self.node(node).server.as_ref().map(Process::pid)
    }

    /// Waits until a node answers clients.
    ///
    /// # Panics
    /// When it ends instead or takes too long, with the end of its log.
    pub fn wait_ready(&self, node: usize) {
        self.ready(node).unwrap_or_else(|reason| panic!("node {node}: {reason}"));
    }

    /// Runs `nodetool` against a node (from 0): what it printed. Takes about a second.
    ///
    /// # Errors
    /// What it printed, when it failed.
    pub fn nodetool(&self, node: usize, args: &[&str]) -> Result<String, String> {
        let settings = [format!("@{}", self.scratch.path().join("jvm.options").display())];
        let port = self.place.port(MANAGEMENT + node).to_string();
        let all: Vec<&str> = ["-h", "127.0.0.1", "-p", &port].into_iter().chain(args.iter().copied()).collect();
        java::tool(&self.jars, &settings, "org.apache.cassandra.tools.NodeTool", &all)
    }

    fn node(&self, node: usize) -> MutexGuard<'_, Node> {
        self.nodes.get(node).expect("a node's number, from 0").lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn start_node(&self, index: usize) -> Result<(), String> {
        let mut node = self.node(index);
        if node.server.is_some() {
            return Ok(());
        }
        node.starts += 1;
        let home = self.home(node.number);
        let args = self.args(index, &home)?;
        let log = home.join(format!("start-{}.log", node.starts));
        node.server = Some(java::server(&self.jars, &args, "org.apache.cassandra.service.CassandraDaemon", &[], &log)?);
        Ok(())
    }

    fn args(&self, index: usize, home: &std::path::Path) -> Result<Vec<String>, String> {
        let ring_delay_ms = if self.len() > 1 { 1000 } else { 100 };
        let shared = self.scratch.path();
        Ok(vec![
            format!("@{}", shared.join("jvm.options").display()),
            format!("-javaagent:{}", self.agent()?.display()),
            "-Xms192m".into(),
            "-Xmx512m".into(),
            "-Xmn96m".into(),
            "-XX:MaxDirectMemorySize=192m".into(),
            "-XX:+ExitOnOutOfMemoryError".into(),
            format!("-Djava.io.tmpdir={}", home.display()),
            format!("-Dcassandra.config=file://{}", home.join("cassandra.yaml").display()),
            format!("-Dcassandra.storagedir={}", home.join("data").display()),
            format!("-Dlogback.configurationFile={}", shared.join("logback.xml").display()),
            format!("-Dcassandra.jmx.local.port={}", self.place.port(MANAGEMENT + index)),
            "-Dcassandra.skip_wait_for_gossip_to_settle=0".into(),
            format!("-Dcassandra.ring_delay_ms={ring_delay_ms}"),
            "-Dcassandra.superuser_setup_delay_ms=0".into(),
            "-Dcassandra-foreground=yes".into(),
        ])
    }

    /// The jar that measures objects; Cassandra does not start without it as an agent.
    fn agent(&self) -> Result<PathBuf, String> {
        let jars = fs::read_dir(&self.jars).map_err(|error| format!("{}: {error}", self.jars.display()))?;
        let mut paths = jars.filter_map(|jar| jar.ok().map(|jar| jar.path()));
        let is_agent = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("jamm-"));
        paths.find(is_agent).ok_or_else(|| format!("{} holds no jamm jar; remove it, it is fetched again", self.jars.display()))
    }

    fn ready(&self, node: usize) -> Result<(), String> {
        let begun = Instant::now();
        loop {
            {
                let mut node = self.node(node);
                let number = node.number;
                let server = node.server.as_mut().ok_or("it is not running")?;
                if self.answers(number) {
                    return Ok(());
                }
                if let Some(status) = server.ended() {
                    return Err(format!("it ended ({status}); {}", server.tail()));
                }
                if begun.elapsed() > PATIENCE {
                    return Err(format!("it was not ready after {PATIENCE:?}; {}", server.tail()));
                }
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Whether it answers the protocol's OPTIONS with SUPPORTED, not through a proxy.
    fn answers(&self, number: u8) -> bool {
        const OPTIONS: [u8; 9] = [4, 0, 0, 0, 5, 0, 0, 0, 0];
        let ask = || -> Option<bool> {
            let address: SocketAddr = format!("{}:{}", self.place.host(number), self.place.port(NATIVE)).parse().ok()?;
            let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok()?;
            stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
            stream.write_all(&OPTIONS).ok()?;
            let mut header = [0; 9];
            stream.read_exact(&mut header).ok()?;
            Some(matches!(header, [0x84, _, _, _, 6, ..]))
        };
        ask().unwrap_or(false)
    }
}

/// A proxy stands at an address of its own, at the node's port: clients take the port of all nodes to be the same.
fn proxy_address(place: &Place, number: u8) -> String {
    format!("{}:{}", place.host(100 + number), place.port(NATIVE))
}
