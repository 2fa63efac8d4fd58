//! Kafka: one broker shared by a test process, or several that each can be killed, stopped, paused and cut off.
//!
//! Every node is broker and controller. Clients come by the listener that a node advertises (its own address or a proxy's); brokers and the
//! tools of this file use another, so that a proxy's faults are between clients and brokers only.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::jars;
use crate::java;
use crate::place::{Place, Scratch, random};
use crate::process::Process;
use crate::proxy::Proxy;

/// How long a broker may take until it serves.
const PATIENCE: Duration = Duration::from_secs(120);

const CLIENTS: usize = 0;
const CONTROLLER: usize = 1;
const BROKERS: usize = 2;

/// What a cluster is started with.
#[derive(Debug, Clone)]
pub struct KafkaPlan {
    /// Brokers, 1 to 99.
    pub nodes: u8,
    /// Whether clients come through a [`Proxy`] before each.
    pub proxies: bool,
    /// Further lines of `server.properties`; they come last and win.
    pub properties: Vec<(String, String)>,
}

/// Brokers that run; all end when this is dropped or the process ends.
#[derive(Debug)]
pub struct KafkaCluster {
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

impl KafkaCluster {
    /// `nodes` brokers: with three or more, replication 3 and `min.insync.replicas` 2, else both 1.
    ///
    /// # Panics
    /// When they do not start, with the reason.
    #[must_use]
    pub fn start(nodes: u8) -> Self {
        Self::with(&KafkaPlan { nodes, proxies: false, properties: Vec::new() })
    }

    /// The same, with a [`Proxy`] before each that clients are told to use.
    ///
    /// # Panics
    /// When they do not start, with the reason.
    #[must_use]
    pub fn start_behind_proxies(nodes: u8) -> Self {
        Self::with(&KafkaPlan { nodes, proxies: true, properties: Vec::new() })
    }

    /// A cluster of a plan.
    ///
    /// # Panics
    /// When it does not start, with the reason.
    #[must_use]
    pub fn with(plan: &KafkaPlan) -> Self {
        match Self::started(plan) {
            Ok(cluster) => cluster,
            Err(reason) => panic!("Kafka for tests: {reason}"),
        }
    }

    fn started(plan: &KafkaPlan) -> Result<Self, String> {
        java::java()?;
        let jars = jars::fetched(&jars::KAFKA)?;
        let place = Place::find(plan.nodes, 3)?;
        let scratch = Scratch::new("kafka")?;
        let addresses = |number: u8| (format!("{}:{}", place.host(number), place.port(CLIENTS)), proxy_address(&place, number));
        let proxies = (1..=plan.nodes).filter(|_| plan.proxies).map(|number| {
            let (target, address) = addresses(number);
            Proxy::at(&address, &target).map_err(|error| format!("a proxy at {address}: {error}"))
        });
        let proxies = proxies.collect::<Result<_, _>>()?;
        let nodes = (1..=plan.nodes).map(|number| Mutex::new(Node { number, server: None, starts: 0 })).collect();
        let cluster = Self { nodes, place, proxies, jars, scratch };
        cluster.prepare(plan)?;
        for node in 0..cluster.len() {
            cluster.start_node(node)?;
        }
        for node in 0..cluster.len() {
            cluster.ready(node)?;
        }
        Ok(cluster)
    }

    /// Directories, settings and, as the storage tool makes them, identities. The tool runs once: the others' differ by their ids alone.
    fn prepare(&self, plan: &KafkaPlan) -> Result<(), String> {
        let write = |path: PathBuf, text: &[u8]| fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()));
        let cluster = identity();
        for number in 1..=plan.nodes {
            let home = self.home(number);
            fs::create_dir_all(home.join("data")).map_err(|error| format!("{}: {error}", home.display()))?;
            write(home.join("server.properties"), self.properties(plan, number).as_bytes())?;
        }
        let settings = self.home(1).join("server.properties").display().to_string();
        self.run("kafka.tools.StorageTool", &["format", "-t", &cluster, "-c", &settings])?;
        let features = self.home(1).join("data/bootstrap.checkpoint");
        for number in 2..=plan.nodes {
            let data = self.home(number).join("data");
            let meta = format!("version=1\ncluster.id={cluster}\nnode.id={number}\ndirectory.id={}\n", identity());
            write(data.join("meta.properties"), meta.as_bytes())?;
            fs::copy(&features, data.join("bootstrap.checkpoint")).map_err(|error| format!("{}: {error}", features.display()))?;
        }
        Ok(())
    }

    fn properties(&self, plan: &KafkaPlan, number: u8) -> String {
        let (host, port) = (self.place.host(number), |of| self.place.port(of));
        let [clients, controller, brokers] = [CLIENTS, CONTROLLER, BROKERS].map(port);
        let seen = if plan.proxies { proxy_address(&self.place, number) } else { format!("{host}:{clients}") };
        let voters: Vec<String> = (1..=plan.nodes).map(|node| format!("{node}@{}:{controller}", self.place.host(node))).collect();
        let (copies, insync) = if plan.nodes >= 3 { (3, 2) } else { (1, 1) };
        let mut text = format!(
            "process.roles=broker,controller\n\
             node.id={number}\n\
             controller.quorum.voters={}\n\
             listeners=CLIENTS://{host}:{clients},BROKERS://{host}:{brokers},CONTROLLER://{host}:{controller}\n\
             advertised.listeners=CLIENTS://{seen},BROKERS://{host}:{brokers}\n\
             listener.security.protocol.map=CLIENTS:PLAINTEXT,BROKERS:PLAINTEXT,CONTROLLER:PLAINTEXT\n\
             controller.listener.names=CONTROLLER\n\
             inter.broker.listener.name=BROKERS\n\
             log.dirs={}\n\
             default.replication.factor={copies}\n\
             min.insync.replicas={insync}\n\
             offsets.topic.replication.factor={copies}\n\
             transaction.state.log.replication.factor={copies}\n\
             transaction.state.log.min.isr={insync}\n",
            voters.join(","),
            self.home(number).join("data").display(),
        );
        text.push_str(include_str!("../settings/server.properties"));
        text.extend(plan.properties.iter().map(|(name, value)| format!("{name}={value}\n")));
        text
    }

    fn home(&self, number: u8) -> PathBuf {
        self.scratch.path().join(format!("node-{number}"))
    }

    /// How many brokers it has, also those that are down.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a cluster without brokers does not exist")]
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Where clients begin: `host:port` of all, with commas between.
    #[must_use]
    pub fn bootstrap(&self) -> String {
        let address = |number| format!("{}:{}", self.place.host(number), self.place.port(CLIENTS));
        let own = self.numbers().map(address);
        if self.proxies.is_empty() {
            own.collect::<Vec<_>>().join(",")
        } else {
            self.numbers().map(|number| proxy_address(&self.place, number)).collect::<Vec<_>>().join(",")
        }
    }

    /// Where the tools begin: never through a proxy.
    #[must_use]
    pub fn direct(&self) -> String {
        self.numbers().map(|number| format!("{}:{}", self.place.host(number), self.place.port(BROKERS))).collect::<Vec<_>>().join(",")
    }

    fn numbers(&self) -> impl Iterator<Item = u8> + '_ {
        (1..).take(self.len())
    }

    /// The proxy before a broker (from 0).
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

    /// SIGKILL to a broker (from 0).
    pub fn kill(&self, node: usize) {
        if let Some(server) = self.node(node).server.take() {
            server.kill();
        }
    }

    /// SIGTERM to a broker, and the wait for its end.
    pub fn stop(&self, node: usize) {
        if let Some(server) = self.node(node).server.take() {
            server.stop();
        }
    }

    /// Starts a broker that is down, with the data that it had. See [`wait_ready`](Self::wait_ready).
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn restart(&self, node: usize) {
        self.start_node(node).unwrap_or_else(|reason| panic!("broker {node}: {reason}"));
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

    /// The process of a broker, while it runs.
    #[must_use]
    pub fn pid(&self, node: usize) -> Option<u32> {
        self.node(node).server.as_ref().map(Process::pid)
    }

    /// Waits until a broker has joined the cluster and answers.
    ///
    /// # Panics
    /// When it ends instead or takes too long, with the end of its log.
    pub fn wait_ready(&self, node: usize) {
        self.ready(node).unwrap_or_else(|reason| panic!("broker {node}: {reason}"));
    }

    /// Waits until every partition has all its replicas in sync: then any one broker may go.
    ///
    /// # Panics
    /// When that takes too long.
    pub fn wait_in_sync(&self) {
        let begun = Instant::now();
        loop {
            let behind = self.tool("org.apache.kafka.tools.TopicCommand", &["--describe", "--under-replicated-partitions"]);
            match behind {
                Ok(none) if none.trim().is_empty() => return,
                other => assert!(begun.elapsed() < PATIENCE, "partitions are still not in sync: {other:?}"),
            }
        }
    }

    /// Runs one of Kafka's tools, such as `org.apache.kafka.tools.TopicCommand`, `org.apache.kafka.tools.ConfigCommand` (`kafka.admin.ConfigCommand`)
    /// or `org.apache.kafka.tools.consumer.group.ConsumerGroupCommand`, against this cluster: what it printed. Takes about a second.
    ///
    /// # Errors
    /// What it printed, when it failed.
    pub fn tool(&self, class: &str, args: &[&str]) -> Result<String, String> {
        let direct = self.direct();
        let all: Vec<&str> = ["--bootstrap-server", &direct].into_iter().chain(args.iter().copied()).collect();
        self.run(class, &all)
    }

    fn run(&self, class: &str, args: &[&str]) -> Result<String, String> {
        java::tool(&self.jars, &["-Dorg.slf4j.simpleLogger.defaultLogLevel=error".into()], class, args)
    }

    fn node(&self, node: usize) -> MutexGuard<'_, Node> {
        self.nodes.get(node).expect("a broker's number, from 0").lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn start_node(&self, node: usize) -> Result<(), String> {
        let mut node = self.node(node);
        if node.server.is_some() {
            return Ok(());
        }
        node.starts += 1;
        let home = self.home(node.number);
        let args =
            ["-Xms96m", "-Xmx384m", "-Dorg.slf4j.simpleLogger.showDateTime=true", "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS"];
        let args = args.map(str::to_owned);
        let settings = home.join("server.properties").display().to_string();
        let log = home.join(format!("start-{}.log", node.starts));
        node.server = Some(java::server(&self.jars, &args, "kafka.Kafka", &[settings], &log)?);
        Ok(())
    }

    fn ready(&self, node: usize) -> Result<(), String> {
        let begun = Instant::now();
        loop {
            {
                let mut node = self.node(node);
                let number = node.number;
                let server = node.server.as_mut().ok_or("it is not running")?;
                if server.said().contains("Kafka Server started") && self.answers(number) {
                    return Ok(());
                }
                if let Some(status) = server.ended() {
                    return Err(format!("it ended ({status}); {}", server.tail()));
                }
                if begun.elapsed() > PATIENCE {
                    return Err(format!("it was not ready after {PATIENCE:?}; {}", server.tail()));
                }
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn answers(&self, number: u8) -> bool {
        let address = format!("{}:{}", self.place.host(number), self.place.port(CLIENTS));
        address.parse::<SocketAddr>().is_ok_and(|address| TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok())
    }
}

/// A proxy stands at an address of its own in the same block.
fn proxy_address(place: &Place, number: u8) -> String {
    format!("{}:{}", place.host(100 + number), place.port(CLIENTS))
}

/// An id as Kafka writes them: 16 bytes in URL-safe base 64. The last character carries two bits only; one without a dash at the start.
fn identity() -> String {
    const DIGITS: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    let mut text: String =
        (0..21).filter_map(|_| DIGITS.get(usize::try_from(random() % 62).unwrap_or(0))).map(|digit| char::from(*digit)).collect();
    text.push('Q');
    text
}
