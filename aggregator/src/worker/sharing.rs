//! Follows the assignment of this process: hands each source that comes to a worker, and tells it of each that goes.
//!
//! ```text
//! Membership::assigned ──> changes ──> Take, Give ──> workers ──(let go)──> Membership::release
//! ```

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ingest::{Assignment, Membership};
use schemas::Source;

use super::act::Message;
use super::seat::SeatId;
use super::{SourceState, WATCH};

/// How long a source that goes may take to store what it has. The next owner reads again whatever was not stored.
const GIVE_WITHIN: Duration = Duration::from_secs(4);

/// Which worker folds which source.
pub(super) struct Sharing {
    pub(super) membership: Arc<dyn Membership>,
    pub(super) inboxes: Vec<Sender<Message>>,
    pub(super) states: Arc<Mutex<BTreeMap<Source, SourceState>>>,
    pub(super) stop: Arc<AtomicBool>,
    /// The worker of each source that was assigned, also of one that is being let go.
    seated: BTreeMap<Source, usize>,
    assigned: Assignment,
    term: u64,
}

impl Sharing {
    pub(super) fn new(
        membership: Arc<dyn Membership>,
        inboxes: Vec<Sender<Message>>,
        states: Arc<Mutex<BTreeMap<Source, SourceState>>>,
        stop: Arc<AtomicBool>,
    ) -> Self {
        Self { membership, inboxes, states, stop, seated: BTreeMap::new(), assigned: Assignment::default(), term: 0 }
    }

    /// Follows until it is told to stop.
    pub(super) fn run(mut self) {
        while !self.stop.load(Ordering::Relaxed) {
            let next = self.membership.assigned(self.assigned.generation, WATCH);
            if next.generation != self.assigned.generation {
                self.change(next);
            }
        }
    }

    fn change(&mut self, next: Assignment) {
        let gone: Vec<Source> = self.assigned.sources.difference(&next.sources).copied().collect();
        let come: Vec<Source> = next.sources.difference(&self.assigned.sources).copied().collect();
        tracing::info!(folds = next.sources.len(), came = come.len(), went = gone.len(), "the sources of this process have changed");
        self.assigned = next;
        for source in gone {
            if let Some(worker) = self.seated.get(&source) {
                self.tell(*worker, Message::Give(source, Instant::now() + GIVE_WITHIN));
            }
        }
        self.forget_what_was_let_go();
        for source in come {
            let worker = place(source, &self.seated, self.inboxes.len());
            self.seated.insert(source, worker);
            self.term += 1;
            let mut states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
            states.entry(source).or_insert(SourceState::Starting);
            drop(states);
            self.tell(worker, Message::Take(SeatId { source, term: self.term }));
        }
    }

    /// A source whose worker shows no state of it any more can go to any worker when it comes back.
    fn forget_what_was_let_go(&mut self) {
        let states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        self.seated.retain(|source, _| self.assigned.sources.contains(source) || states.contains_key(source));
    }

    fn tell(&self, worker: usize, message: Message) {
        if let Some(inbox) = self.inboxes.get(worker) {
            // A worker that has ended folds nothing any more.
            let _ = inbox.send(message);
        }
    }
}

/// The worker for a source: the one that still has it, or else the one with the fewest.
fn place(source: Source, seated: &BTreeMap<Source, usize>, workers: usize) -> usize {
    let load = |worker: usize| seated.values().filter(|has| **has == worker).count();
    seated.get(&source).copied().or_else(|| (0..workers).min_by_key(|worker| load(*worker))).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_spread_evenly_and_one_that_is_still_seated_stays() {
        let mut seated = BTreeMap::new();
        for source in 0..8 {
            let worker = place(Source(source), &seated, 3);
            seated.insert(Source(source), worker);
        }
        let loads: Vec<usize> = (0..3).map(|worker| seated.values().filter(|has| **has == worker).count()).collect();
        assert_eq!(loads, [3, 3, 2]);
        assert_eq!(place(Source(4), &seated, 3), seated[&Source(4)]);
        seated.retain(|_, worker| *worker != 1);
        assert_eq!(place(Source(99), &seated, 3), 1);
    }
}
