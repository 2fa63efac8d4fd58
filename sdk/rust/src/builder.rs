//! How a client is told what to do.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Url;
use reqwest::header::HeaderValue;
use thiserror::Error;

use crate::batch::Cut;
use crate::client::Client;
use crate::event::Event;
use crate::observer::{Log, Observer};
use crate::pace::Backoff;
use crate::spool::{Durability, SpoolError};

pub(crate) type BeforeSend = Box<dyn Fn(Event) -> Option<Event> + Send + Sync>;

/// Why no client can be made.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The address is none.
    #[error("{0:?} is not a server's address; give one such as http://127.0.0.1:8080")]
    Address(String),
    /// The key is none.
    #[error("the key cannot be sent: it has characters that no key has (keys look like tm_..._...)")]
    Key,
    /// What is to be trusted are no certificates.
    #[error("the root certificate cannot be used: {0}; give certificates in PEM, which begin with -----BEGIN CERTIFICATE-----")]
    Certificate(String),
    /// A bound is impossible.
    #[error("{name}: {detail}")]
    Setting {
        /// Which.
        name: &'static str,
        /// What it may be.
        detail: &'static str,
    },
    /// The spool cannot be used.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// The HTTP client or its thread cannot be made.
    #[error("cannot start: {0}")]
    Start(String),
}

/// Everything that can be chosen.
pub(crate) struct Settings {
    pub(crate) url: String,
    pub(crate) key: Option<String>,
    #[cfg(feature = "tls")]
    roots: Vec<Vec<u8>>,
    pub(crate) cut: Cut,
    pub(crate) queue_events: usize,
    pub(crate) queue_bytes: usize,
    pub(crate) in_flight: usize,
    pub(crate) request_timeout: Duration,
    pub(crate) backoff: Backoff,
    pub(crate) dedup_window: Duration,
    pub(crate) gzip: bool,
    pub(crate) spool: Option<PathBuf>,
    pub(crate) spool_bytes: u64,
    pub(crate) spool_first: bool,
    pub(crate) durability: Durability,
    pub(crate) before_send: Option<BeforeSend>,
    pub(crate) observer: Arc<dyn Observer>,
}

/// Makes a [`Client`]; every setting has a default that is good for most.
///
/// ```no_run
/// # fn main() -> Result<(), tallymark_client::BuildError> {
/// let client = tallymark_client::Client::builder("https://views.example.org")
///     .key("tm_app1_secret")
///     .spool("/var/lib/app/views")
///     .build()?;
/// # Ok(()) }
/// ```
#[must_use = "a builder does nothing until build()"]
pub struct Builder {
    settings: Settings,
}

impl Builder {
    pub(crate) fn new(url: String) -> Self {
        Self {
            settings: Settings {
                url,
                key: None,
                #[cfg(feature = "tls")]
                roots: Vec::new(),
                cut: Cut { events: 5_000, bytes: 1024 * 1024, linger: Duration::from_millis(200) },
                queue_events: 100_000,
                queue_bytes: 32 * 1024 * 1024,
                in_flight: 4,
                request_timeout: Duration::from_secs(30),
                backoff: Backoff { first: Duration::from_millis(200), longest: Duration::from_secs(30) },
                dedup_window: Duration::from_secs(600),
                gzip: true,
                spool: None,
                spool_bytes: 1024 * 1024 * 1024,
                spool_first: false,
                durability: Durability::PowerCut,
                before_send: None,
                observer: Arc::new(Log),
            },
        }
    }

    fn with(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(&mut self.settings);
        self
    }

    /// The key that is sent with every request (`tm_..._...`, with scope `write`). Create one with `tallymark keys create`.
    pub fn key(self, key: impl Into<String>) -> Self {
        self.with(|s| s.key = Some(key.into()))
    }

    /// Trusts what these certificates sign (PEM, one or several), beside what the system trusts: for a server whose certificate
    /// comes from an authority of your own. May be called again for more.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let client = tallymark_client::Client::builder("https://views.internal")
    ///     .add_root_certificate(std::fs::read("/etc/ssl/internal-ca.pem")?)
    ///     .build()?;
    /// # Ok(()) }
    /// ```
    #[cfg(feature = "tls")]
    pub fn add_root_certificate(self, pem: impl Into<Vec<u8>>) -> Self {
        self.with(|s| s.roots.push(pem.into()))
    }

    /// Keeps on disk what cannot be sent now. The directory is made if it is missing, and is this client's alone. What is in it is
    /// sent by the next client that opens it, after a crash, too. Without a spool, what does not fit the queue is dropped.
    pub fn spool(self, dir: impl Into<PathBuf>) -> Self {
        self.with(|s| s.spool = Some(dir.into()))
    }

    /// The most bytes that the spool takes on disk; 1 GiB, enough for about 7 million views.
    pub fn spool_max_bytes(self, bytes: u64) -> Self {
        self.with(|s| s.spool_bytes = bytes)
    }

    /// Whether every batch goes to the spool before it is sent, not only what cannot be sent. Then a crash loses nothing but what
    /// is younger than [`linger`](Self::linger); without it, also what is in the queue and under way. Off.
    pub fn spool_first(self, yes: bool) -> Self {
        self.with(|s| s.spool_first = yes)
    }

    /// What the spool survives: a power cut ([`Durability::PowerCut`], one fsync a batch), or only `kill -9`.
    pub fn durability(self, durability: Durability) -> Self {
        self.with(|s| s.durability = durability)
    }

    /// The most events (100,000) and bytes (32 MiB) that wait in memory.
    pub fn queue(self, max_events: usize, max_bytes: usize) -> Self {
        self.with(|s| (s.queue_events, s.queue_bytes) = (max_events, max_bytes))
    }

    /// The most events (5,000) and bytes (1 MiB, before compression) of one request.
    pub fn batch(self, max_events: u32, max_bytes: usize) -> Self {
        self.with(|s| (s.cut.events, s.cut.bytes) = (max_events, max_bytes))
    }

    /// How long an event waits for others, 200 ms.
    pub fn linger(self, linger: Duration) -> Self {
        self.with(|s| s.cut.linger = linger)
    }

    /// How many requests are under way at once, 4. While the server fails, one.
    pub fn in_flight(self, requests: usize) -> Self {
        self.with(|s| s.in_flight = requests)
    }

    /// How long an answer may take, 30 s.
    pub fn request_timeout(self, timeout: Duration) -> Self {
        self.with(|s| s.request_timeout = timeout)
    }

    /// The first and the longest wait after a failure, 200 ms and 30 s. The wait doubles with each failure, a random part of it is
    /// taken (full jitter), and `Retry-After` is added.
    pub fn backoff(self, first: Duration, longest: Duration) -> Self {
        self.with(|s| s.backoff = Backoff { first, longest })
    }

    /// For how long the server remembers event ids: its `dedup_minutes`, 10 minutes unless it was configured otherwise. What is sent
    /// again later than that after a try of unknown outcome is told to [`Observer::late_retry`].
    pub fn dedup_window(self, window: Duration) -> Self {
        self.with(|s| s.dedup_window = window)
    }

    /// Whether requests are compressed with gzip; on. A server that does not take it gets them as they are.
    pub fn gzip(self, yes: bool) -> Self {
        self.with(|s| s.gzip = yes)
    }

    /// Sees every event on the client's own thread before it is batched, and may change or drop it. If it panics, the event is
    /// dropped.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), tallymark_client::BuildError> {
    /// let client = tallymark_client::Client::builder("http://127.0.0.1:8080")
    ///     .before_send(|mut event| {
    ///         event.viewer_id = None;
    ///         (!event.video_id.starts_with("internal-")).then_some(event)
    ///     })
    ///     .build()?;
    /// # Ok(()) }
    /// ```
    pub fn before_send(self, hook: impl Fn(Event) -> Option<Event> + Send + Sync + 'static) -> Self {
        self.with(|s| s.before_send = Some(Box::new(hook)))
    }

    /// Who hears what becomes of events. Without one, what is lost, refused or late is logged with `tracing`.
    pub fn observer(self, observer: impl Observer) -> Self {
        self.with(|s| s.observer = Arc::new(observer))
    }

    /// Makes it, and starts its thread. Reads the spool, if there is one: about a second for each GB that an earlier process left.
    ///
    /// # Errors
    /// An address, key or bound that cannot be, a spool that is in use or cannot be read, no thread.
    pub fn build(self) -> Result<Client, BuildError> {
        let target = self.settings.target()?;
        self.settings.check()?;
        Client::start(self.settings, target)
    }
}

/// Where requests go, and with what.
pub(crate) struct Target {
    pub(crate) url: Url,
    pub(crate) authorization: Option<HeaderValue>,
    /// Trusted beside the system's.
    #[cfg(feature = "tls")]
    pub(crate) roots: Vec<reqwest::Certificate>,
}

impl Settings {
    fn target(&self) -> Result<Target, BuildError> {
        let bad = || BuildError::Address(self.url.clone());
        let mut url: Url = self.url.parse().map_err(|_| bad())?;
        if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
            return Err(bad());
        }
        if !url.path().ends_with('/') {
            url.set_path(&format!("{}/", url.path()));
        }
        let url = url.join("v1/events").map_err(|_| bad())?;
        let bearer = |key: &String| -> Result<HeaderValue, BuildError> {
            let mut value = HeaderValue::from_str(&format!("Bearer {key}")).map_err(|_| BuildError::Key)?;
            value.set_sensitive(true);
            Ok(value)
        };
        Ok(Target {
            url,
            authorization: self.key.as_ref().map(bearer).transpose()?,
            #[cfg(feature = "tls")]
            roots: self.roots()?,
        })
    }

    #[cfg(feature = "tls")]
    fn roots(&self) -> Result<Vec<reqwest::Certificate>, BuildError> {
        let mut roots = Vec::new();
        for pem in &self.roots {
            let found = reqwest::Certificate::from_pem_bundle(pem).map_err(|error| BuildError::Certificate(error.to_string()))?;
            if found.is_empty() {
                return Err(BuildError::Certificate("it holds none".to_owned()));
            }
            roots.extend(found);
        }
        Ok(roots)
    }

    fn check(&self) -> Result<(), BuildError> {
        let rules = [
            ("queue", "at least 1 event and 64 KiB", self.queue_events >= 1 && self.queue_bytes >= 64 * 1024),
            (
                "batch",
                "1 to 50,000 events, 1 byte to 8 MiB",
                (1..=50_000).contains(&self.cut.events) && (1..=8 << 20).contains(&self.cut.bytes),
            ),
            ("in_flight", "1 to 64 requests", (1..=64).contains(&self.in_flight)),
            ("linger", "at most a minute", self.cut.linger <= Duration::from_secs(60)),
            ("backoff", "at most an hour", self.backoff.longest <= Duration::from_secs(3_600)),
            ("request_timeout", "1 ms to an hour", (1..=3_600_000).contains(&self.request_timeout.as_millis())),
            ("spool_max_bytes", "at least 1 MiB", self.spool_bytes >= 1 << 20),
            ("spool_first", "only together with a spool", !self.spool_first || self.spool.is_some()),
        ];
        match rules.iter().find(|(.., holds)| !holds) {
            None => Ok(()),
            Some((name, detail, _)) => Err(BuildError::Setting { name, detail }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(builder: Builder) -> String {
        builder.settings.target().map(drop).and_then(|()| builder.settings.check()).unwrap_err().to_string()
    }

    #[test]
    fn an_address_may_have_a_path_and_needs_no_slash() {
        for (given, url) in [
            ("http://h:1", "http://h:1/v1/events"),
            ("https://h/", "https://h/v1/events"),
            ("https://h/views", "https://h/views/v1/events"),
        ] {
            assert_eq!(Builder::new(given.into()).settings.target().unwrap().url.as_str(), url);
        }
        for given in ["", "h:1", "ftp://h", "http://", "/v1/events", "file:///etc"] {
            assert!(refused(Builder::new(given.into())).contains("not a server's address"), "{given}");
        }
    }

    #[cfg(feature = "tls")]
    #[test]
    fn what_is_no_certificate_is_refused() {
        let broken = "-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n";
        for pem in ["", "nonsense", broken, "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"] {
            let said = Builder::new("https://h".into()).add_root_certificate(pem).build().unwrap_err().to_string();
            assert!(said.contains("root certificate cannot be used"), "{pem:?}: {said}");
        }
    }

    #[test]
    fn what_cannot_be_is_refused_and_named_and_no_key_is_shown() {
        let new = || Builder::new("http://h".into());
        for (builder, name) in [
            (new().queue(0, 1 << 20), "queue"),
            (new().queue(1, 0), "queue"),
            (new().batch(0, 1), "batch"),
            (new().batch(50_001, 1), "batch"),
            (new().in_flight(0), "in_flight"),
            (new().linger(Duration::MAX), "linger"),
            (new().backoff(Duration::ZERO, Duration::MAX), "backoff"),
            (new().request_timeout(Duration::ZERO), "request_timeout"),
            (new().spool("x").spool_max_bytes(0), "spool_max_bytes"),
            (new().spool_first(true), "spool_first"),
        ] {
            assert!(refused(builder).starts_with(name), "{name}");
        }
        let key = refused(new().key("tm_a_secret\n"));
        assert!(key.contains("key") && !key.contains("secret"), "{key}");
        let target = new().key("tm_a_secret").settings.target().unwrap();
        assert!(!format!("{:?}", target.authorization).contains("secret"));
    }
}
