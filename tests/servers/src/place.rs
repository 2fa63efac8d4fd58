//! Where servers live: loopback addresses and ports that no other test process uses, and a directory that goes with the process.
//!
//! Linux answers at every address of 127.0.0.0/8. Each set of servers takes a random block 127.x.y.*, so that nodes of a cluster have the
//! same ports at different addresses, as the servers expect, and test processes that run side by side do not meet. Ports are below the range
//! that the kernel gives to outgoing connections.

use std::hash::{BuildHasher as _, RandomState};
use std::io::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use std::os::unix::process::CommandExt as _;

/// Addresses and ports for a set of servers.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    block: [u8; 2],
    ports: Vec<u16>,
}

impl Place {
    /// A block of which `addresses` addresses have `ports` free ports, the same on each.
    pub(crate) fn find(addresses: u8, ports: usize) -> Result<Self, String> {
        for _ in 0..100 {
            let [x, y, a, b, ..] = random().to_le_bytes();
            // Below 128 are addresses that people and other programs use.
            let block = [128 | x, y];
            let first = 15_000 + u16::from_le_bytes([a, b]) % 15_000;
            let place = Self { block, ports: (first..).take(ports).collect() };
            let free = |host: u8| place.ports.iter().all(|port| TcpListener::bind((place.host(host).as_str(), *port)).is_ok());
            // 127.0.0.1 too: some servers listen there besides, and one at 0.0.0.0 would be in the way.
            let common = place.ports.iter().all(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
            if common && (1..=addresses).all(free) {
                return Ok(place);
            }
        }
        Err("no free loopback addresses were found (127.128.0.0 to 127.255.255.255, ports 15000 to 30000)".into())
    }

    /// `127.x.y.number`.
    pub(crate) fn host(&self, number: u8) -> String {
        let [x, y] = self.block;
        format!("127.{x}.{y}.{number}")
    }

    /// The port of that number, from 0.
    pub(crate) fn port(&self, number: usize) -> u16 {
        self.ports.get(number).copied().unwrap_or_default()
    }
}

/// Another number each time, without a dependency for it.
pub(crate) fn random() -> u64 {
    RandomState::new().hash_one(std::process::id())
}

/// A temporary directory that is removed when this is dropped, and also when the process ends without dropping it.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    /// Waits for the end of its pipe, then removes the directory (twice: the servers die at the same moment).
    sweeper: Child,
}

impl Scratch {
    /// One whose name begins with `tallymark-NAME`.
    ///
    /// # Errors
    /// Why it cannot be made.
    pub fn new(name: &str) -> Result<Self, String> {
        const SCRIPT: &str = "read -r word && test \"$word\" = keep && exit; rm -rf \"$0\"; test -d \"$0\" && sleep 1 && rm -rf \"$0\"";
        let failed = |error: std::io::Error| format!("a temporary directory for {name}: {error}");
        let path = tempfile::Builder::new().prefix(&format!("tallymark-{name}-")).tempdir().map_err(failed)?.keep();
        let mut command = Command::new("sh");
        command.args(["-c", SCRIPT]).arg(&path).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        Ok(Self { sweeper: command.spawn().map_err(failed)?, path })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Lets it stay, for whoever looks for the cause of a failure.
    #[must_use]
    pub fn keep(mut self) -> PathBuf {
        if let Some(pipe) = &mut self.sweeper.stdin {
            // A directory too few is no reason to fail.
            drop(pipe.write_all(b"keep\n"));
        }
        self.path.clone()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        self.sweeper.stdin = None;
        drop(self.sweeper.wait());
    }
}
