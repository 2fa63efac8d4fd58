//! A TCP proxy before a server, with the faults that networks have.
//!
//! ```text
//! client ──> Proxy::address() ──[delay, black hole, cut, refusal]──> server
//! ```
//! Two threads carry each connection's bytes, one for a direction. A connection that lost bytes in a black hole is cut when the fault ends:
//! TCP never goes on after a hole in its stream.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// The proxy; dropped, it closes its connections and its port.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    target: String,
    delay_us: AtomicU64,
    hole: AtomicBool,
    refusing: AtomicBool,
    closed: AtomicBool,
    connections: Mutex<Vec<Arc<Connection>>>,
    carried: AtomicU64,
}

#[derive(Debug)]
struct Connection {
    client: TcpStream,
    server: Option<TcpStream>,
    lost: AtomicBool,
    over: AtomicBool,
}

impl Proxy {
    /// Before `target` (`host:port`), at a free port of 127.0.0.1.
    ///
    /// # Errors
    /// When it cannot listen.
    pub fn before(target: &str) -> io::Result<Self> {
        Self::at("127.0.0.1:0", target)
    }

    /// Before `target`, at this address.
    ///
    /// # Errors
    /// When it cannot listen there.
    pub fn at(address: &str, target: &str) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            target: target.to_owned(),
            delay_us: AtomicU64::new(0),
            hole: AtomicBool::new(false),
            refusing: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            connections: Mutex::default(),
            carried: AtomicU64::new(0),
        });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || accept(&accepting, address, Some(listener)));
        Ok(Self { address, shared })
    }

    /// Where clients connect, `host:port`.
    #[must_use]
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// How many bytes have gone through, both ways together.
    #[must_use]
    pub fn carried(&self) -> u64 {
        self.shared.carried.load(Ordering::SeqCst)
    }

    /// How many connections are open.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.open().iter().filter(|connection| !connection.over.load(Ordering::SeqCst)).count()
    }

    /// Each piece of bytes waits so long, in each direction.
    pub fn delay(&self, delay: Duration) {
        self.shared.delay_us.store(u64::try_from(delay.as_micros()).unwrap_or(u64::MAX), Ordering::SeqCst);
    }

    /// A black hole: connections stay open, also new ones, and bytes go nowhere. Its end cuts those that lost some.
    pub fn drop_bytes(&self, on: bool) {
        self.shared.hole.store(on, Ordering::SeqCst);
        if !on {
            self.shared.cut(|connection| connection.lost.load(Ordering::SeqCst) || connection.server.is_none());
        }
    }

    /// Cuts all connections now; new ones are taken.
    pub fn sever(&self) {
        self.shared.cut(|_| true);
    }

    /// Refuses new connections (the port is closed) and leaves those that are open.
    pub fn refuse(&self, on: bool) {
        self.shared.refusing.store(on, Ordering::SeqCst);
        self.wake();
        // What follows must find the port as it was told to be.
        while TcpStream::connect(self.address).is_ok() == on {
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// No more faults.
    pub fn heal(&self) {
        self.delay(Duration::ZERO);
        if self.shared.refusing.load(Ordering::SeqCst) {
            self.refuse(false);
        }
        self.drop_bytes(false);
    }

    /// The accepting thread looks at its orders after each connection.
    fn wake(&self) {
        drop(TcpStream::connect(self.address));
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::SeqCst);
        self.wake();
        self.sever();
    }
}

impl Shared {
    fn open(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Connection>>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cut(&self, which: impl Fn(&Connection) -> bool) {
        let connections: Vec<_> = self.open().iter().filter(|connection| which(connection)).cloned().collect();
        for connection in connections {
            connection.end();
        }
    }
}

impl Connection {
    fn end(&self) {
        self.over.store(true, Ordering::SeqCst);
        // One that the other side has closed is closed.
        drop(self.client.shutdown(Shutdown::Both));
        if let Some(server) = &self.server {
            drop(server.shutdown(Shutdown::Both));
        }
    }
}

/// Takes connections until the proxy is dropped; without a listener while they are refused.
fn accept(shared: &Arc<Shared>, address: SocketAddr, mut listener: Option<TcpListener>) {
    while !shared.closed.load(Ordering::SeqCst) {
        if shared.refusing.load(Ordering::SeqCst) {
            listener = None;
            thread::sleep(Duration::from_millis(2));
            continue;
        }
        let Some(listening) = &listener else {
            listener = TcpListener::bind(address).ok();
            continue;
        };
        let Ok((client, _)) = listening.accept() else { continue };
        if !shared.refusing.load(Ordering::SeqCst) && !shared.closed.load(Ordering::SeqCst) {
            let shared = Arc::clone(shared);
            thread::spawn(move || carry(&shared, client));
        }
    }
}

/// One connection, until both directions have ended.
fn carry(shared: &Arc<Shared>, client: TcpStream) {
    // In a black hole the server hears nothing of it.
    let server = if shared.hole.load(Ordering::SeqCst) { None } else { TcpStream::connect(&shared.target).ok() };
    if server.is_none() && !shared.hole.load(Ordering::SeqCst) {
        return;
    }
    for stream in std::iter::once(&client).chain(&server) {
        drop(stream.set_nodelay(true));
    }
    let connection = Arc::new(Connection { client, server, lost: AtomicBool::new(false), over: AtomicBool::new(false) });
    {
        let mut open = shared.open();
        open.retain(|connection| !connection.over.load(Ordering::SeqCst));
        open.push(Arc::clone(&connection));
    }
    let back = connection.server.as_ref().and_then(|server| {
        let (from, to) = (server.try_clone().ok()?, connection.client.try_clone().ok()?);
        let (shared, connection) = (Arc::clone(shared), Arc::clone(&connection));
        Some(thread::spawn(move || pump(&shared, &connection, from, Some(to))))
    });
    if let Ok(from) = connection.client.try_clone() {
        let to = connection.server.as_ref().and_then(|server| server.try_clone().ok());
        pump(shared, &connection, from, to);
    }
    if let Some(back) = back {
        drop(back.join());
    }
    connection.end();
}

/// One direction. The end of one side is told to the other, as it is: half a connection may stay open.
fn pump(shared: &Shared, connection: &Connection, mut from: TcpStream, mut to: Option<TcpStream>) {
    let mut bytes = vec![0; 64 * 1024];
    loop {
        let read = match from.read(&mut bytes) {
            Ok(read) if read > 0 => bytes.get(..read).unwrap_or_default(),
            Ok(_) => break,
            Err(_) => return connection.end(),
        };
        let delay = shared.delay_us.load(Ordering::SeqCst);
        if delay > 0 {
            thread::sleep(Duration::from_micros(delay));
        }
        if shared.hole.load(Ordering::SeqCst) || connection.lost.load(Ordering::SeqCst) {
            connection.lost.store(true, Ordering::SeqCst);
            continue;
        }
        let Some(to) = &mut to else { return connection.end() };
        // Counted first: who has the answer to these bytes finds them counted.
        shared.carried.fetch_add(u64::try_from(read.len()).unwrap_or(0), Ordering::SeqCst);
        if to.write_all(read).is_err() {
            return connection.end();
        }
    }
    if let Some(to) = to {
        drop(to.shutdown(Shutdown::Write));
    }
}
