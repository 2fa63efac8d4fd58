//! A real log behind a gate: appends to some sources wait until they are let through, and all may be told that it is away.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use ingest::{Appended, Ends, EventLog, LogError, Membership, ReadLimit};
use schemas::{LogId, Millis, NewRecord, Offset, Record, Source};
use tokio::sync::watch;

#[derive(Clone)]
pub(crate) struct Gated(Arc<Gate>);

struct Gate {
    held: Mutex<Vec<Source>>,
    open: watch::Sender<bool>,
    waiting: AtomicUsize,
    away: AtomicBool,
}

impl Gated {
    pub(crate) fn new() -> Self {
        let open = watch::Sender::new(false);
        Self(Arc::new(Gate { held: Mutex::default(), open, waiting: AtomicUsize::new(0), away: AtomicBool::new(false) }))
    }

    pub(crate) fn around(&self, log: Arc<dyn EventLog>) -> Arc<dyn EventLog> {
        Arc::new(Behind { gate: Arc::clone(&self.0), log })
    }

    /// Appends to this source wait from now on.
    pub(crate) fn hold(&self, source: Source) {
        self.0.held.lock().unwrap().push(source);
    }

    /// All go through, for good.
    pub(crate) fn release(&self) {
        self.0.open.send_replace(true);
    }

    pub(crate) fn away(&self, away: bool) {
        self.0.away.store(away, Ordering::SeqCst);
    }

    pub(crate) async fn until_waiting(&self, count: usize) {
        while self.0.waiting.load(Ordering::SeqCst) < count {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

struct Behind {
    gate: Arc<Gate>,
    log: Arc<dyn EventLog>,
}

impl EventLog for Behind {
    fn id(&self) -> LogId {
        self.log.id()
    }

    fn sources(&self) -> NonZeroU32 {
        self.log.sources()
    }

    fn append(&self, source: Source, records: Vec<NewRecord>) -> BoxFuture<'_, Result<Appended, LogError>> {
        async move {
            if self.gate.away.load(Ordering::SeqCst) {
                return Err(LogError::Unavailable("it is away".into()));
            }
            let held = self.gate.held.lock().unwrap().contains(&source);
            if held {
                self.gate.waiting.fetch_add(1, Ordering::SeqCst);
                self.gate.open.subscribe().wait_for(|open| *open).await.unwrap();
            }
            self.log.append(source, records).await
        }
        .boxed()
    }

    fn read(
        &self,
        source: Source,
        from: Offset,
        limit: ReadLimit,
        each: &mut dyn FnMut(Record<'_>) -> ControlFlow<()>,
    ) -> Result<Offset, LogError> {
        self.log.read(source, from, limit, each)
    }

    fn wait(&self, seen: u64, timeout: Duration) -> u64 {
        self.log.wait(seen, timeout)
    }

    fn first_at_or_after(&self, source: Source, at: Millis) -> Result<Offset, LogError> {
        self.log.first_at_or_after(source, at)
    }

    fn ends(&self, source: Source) -> Result<Ends, LogError> {
        self.log.ends(source)
    }

    fn join(&self) -> Result<Arc<dyn Membership>, LogError> {
        self.log.join()
    }

    fn owners(&self) -> Result<BTreeMap<Source, String>, LogError> {
        self.log.owners()
    }

    fn failure(&self) -> Option<String> {
        self.log.failure()
    }

    fn on_failure(&self) -> BoxFuture<'static, String> {
        self.log.on_failure()
    }

    fn close(&self) {
        self.log.close();
    }
}
