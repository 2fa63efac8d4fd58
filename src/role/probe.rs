//! Asks log and store every now and then whether they answer, so that readiness and metrics tell the truth without waiting for them.
//!
//! ```text
//! log.ends ─────────────> word of the log   ──┐
//! store.read_checkpoints > word of the store ─┴─> /readyz, /metrics        ends, stamps ──> aggregator::metrics::Seen
//! ```
//!
//! Each is asked by a task of its own, and never twice at once: a backend that hangs costs one waiting thread.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use aggregator::CountStore;
use aggregator::metrics::Seen;
use aggregator::worker::Observer;
use ingest::{EventLog, LogError};
use schemas::Source;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

const EVERY: Duration = Duration::from_millis(1_500);
/// A backend that has not answered for so long does not answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// The last word of a backend.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Word {
    /// It has not been asked yet.
    #[default]
    None,
    /// It answers.
    Well,
    /// It does not answer, and why.
    Trouble(String),
}

impl Word {
    /// What is wrong, with the backend's name.
    pub(super) fn trouble(&self, name: &str) -> Option<String> {
        match self {
            Self::None => Some(format!("{name} has not been asked yet")),
            Self::Well => None,
            Self::Trouble(why) => Some(format!("{name} does not answer: {why}")),
        }
    }
}

/// The tasks that ask; they end with this.
pub(super) struct Probes {
    tasks: Vec<JoinHandle<()>>,
}

/// What they were told.
#[derive(Clone)]
pub(super) struct Words {
    log: watch::Receiver<Word>,
    store: Option<watch::Receiver<Word>>,
}

impl Words {
    pub(super) fn log(&self) -> Word {
        self.log.borrow().clone()
    }

    /// None if this process has no store.
    pub(super) fn store(&self) -> Option<Word> {
        Some(self.store.as_ref()?.borrow().clone())
    }
}

impl Probes {
    /// Begins to ask. The ends of the sources that `observer` shows, and all checkpoints, go to `seen`.
    pub(super) fn start(
        log: Arc<dyn EventLog>,
        store: Option<Arc<dyn CountStore>>,
        observer: Option<Observer>,
        seen: &Seen,
    ) -> (Self, Words) {
        let (log_word, log_words) = watch::channel(Word::None);
        let mut tasks = vec![tokio::spawn(ask_log_forever(log, observer, seen.clone(), log_word))];
        let store_words = store.map(|store| {
            let (word, words) = watch::channel(Word::None);
            tasks.push(tokio::spawn(ask_store_forever(store, seen.clone(), word)));
            words
        });
        (Self { tasks }, Words { log: log_words, store: store_words })
    }
}

impl Drop for Probes {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

async fn ask_log_forever(log: Arc<dyn EventLog>, observer: Option<Observer>, seen: Seen, word: watch::Sender<Word>) {
    loop {
        let owned: BTreeSet<Source> = observer.iter().flat_map(|observer| observer.states().into_keys()).collect();
        let (asked, told) = (Arc::clone(&log), seen.clone());
        let mut asking = tokio::task::spawn_blocking(move || ask_log(&*asked, &owned, &told));
        let answer = loop {
            match timeout(PATIENCE, &mut asking).await {
                Ok(answer) => break answer,
                Err(_) => told_nothing(&word),
            }
        };
        word.send_replace(match answer {
            Ok(Ok(())) => Word::Well,
            Ok(Err(error)) => Word::Trouble(error.to_string()),
            Err(error) => Word::Trouble(error.to_string()),
        });
        sleep(EVERY).await;
    }
}

/// The log answers if it tells the extent of its first source; the others are for the metrics.
fn ask_log(log: &dyn EventLog, owned: &BTreeSet<Source>, seen: &Seen) -> Result<(), LogError> {
    const FIRST: Source = Source(0);
    let first = log.ends(FIRST)?;
    for source in owned {
        let ends = if *source == FIRST { Ok(first) } else { log.ends(*source) };
        // What is not known now is known soon.
        if let Ok(ends) = ends {
            seen.log_ends_at(*source, ends.end);
        }
    }
    Ok(())
}

async fn ask_store_forever(store: Arc<dyn CountStore>, seen: Seen, word: watch::Sender<Word>) {
    loop {
        match timeout(PATIENCE, store.read_checkpoints()).await {
            Ok(Ok(checkpoints)) => {
                checkpoints.iter().for_each(|(source, checkpoint)| seen.stored_up_to(*source, checkpoint.stamp));
                word.send_replace(Word::Well);
            }
            Ok(Err(error)) => {
                word.send_replace(Word::Trouble(error.to_string()));
            }
            Err(_) => told_nothing(&word),
        }
        sleep(EVERY).await;
    }
}

fn told_nothing(word: &watch::Sender<Word>) {
    word.send_replace(Word::Trouble(format!("no answer within {} s", PATIENCE.as_secs())));
}
