//! `Idempotency-Key`: the same request sent again is given the answer of the first, without appending again
//! (draft-ietf-httpapi-idempotency-key-header-07).
//!
//! ```text
//! key, body ──> begin ──> New: a Turn ──> appended ──> keep: the answer, for 10 minutes
//!                 │                └──> dropped without: forgotten, may be tried again
//!                 ├──> Answered: that answer
//!                 └──> 409 the first is being worked on · 422 the key came with another body
//! ```
//!
//! A key belongs to its caller: the API key, or else the address. Only answers that say that events are durable are kept, so a
//! request that failed may always be tried again. All this is in the memory of one instance, bounded in bytes, the longest unused
//! dropped first: it spares a retry its second append and gives it the first answer, verdicts included. What makes a retry exact, on
//! any instance and after a restart, is the `event_id` of its events.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;

use super::error::CollectError;
use crate::caller::Caller;
use crate::rate::network;

/// For so long an answer is given again.
pub const KEPT_FOR: Duration = Duration::from_secs(600);
/// So many bytes of answers are kept, with what it takes to find them.
const KEPT_BYTES: u64 = 16 << 20;
/// What an answer takes beside its bytes and its key.
const OVERHEAD_BYTES: usize = 256;

/// Whose key it is, and the key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Name {
    owner: Owner,
    key: Arc<str>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Owner {
    Key(Arc<str>),
    Network(u64),
    Unknown,
}

/// What a request is, but for what differs from attempt to attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fingerprint(u128);

impl Fingerprint {
    /// Of the decoded body and what its request asks for. A caller that makes two bodies collide only misleads itself.
    pub(super) fn of(historical: bool, body: &[u8]) -> Self {
        Self(xxhash_rust::xxh3::xxh3_128_with_seed(body, historical.into()))
    }
}

#[derive(Clone, Debug)]
struct Kept {
    fingerprint: Fingerprint,
    answer: Bytes,
}

/// The answers that are kept, and the requests that are being worked on.
pub(super) struct Answers {
    kept: Cache<Name, Kept>,
    /// No more than requests have a share of the memory for bodies.
    working: Mutex<HashMap<Name, Fingerprint>>,
}

/// How a request with a key goes on.
pub(super) enum Begun {
    /// It is the first of its key.
    New(Turn),
    /// It was answered before.
    Answered(Bytes),
}

impl Answers {
    pub(super) fn new() -> Self {
        let weigh = |name: &Name, kept: &Kept| u32::try_from(name.key.len() + kept.answer.len() + OVERHEAD_BYTES).unwrap_or(u32::MAX);
        let kept = Cache::builder().max_capacity(KEPT_BYTES).weigher(weigh).time_to_live(KEPT_FOR);
        Self { kept: kept.eviction_policy(EvictionPolicy::lru()).build(), working: Mutex::default() }
    }

    /// Begins the work on a request whose body is complete.
    ///
    /// # Errors
    /// If the first one of its key is being worked on, or had another body.
    pub(super) fn begin(self: &Arc<Self>, caller: &Caller, key: &str, fingerprint: Fingerprint) -> Result<Begun, CollectError> {
        let owner = match (&caller.key, caller.address) {
            (Some(key), _) => Owner::Key(Arc::clone(&key.id)),
            (None, Some(address)) => Owner::Network(network(address, false)),
            (None, None) => Owner::Unknown,
        };
        let name = Name { owner, key: key.into() };
        // Under the lock, so that between working and kept there is no gap.
        let mut working = self.working();
        if let Some(first) = working.get(&name) {
            return Err(if *first == fingerprint { CollectError::InProgress } else { CollectError::KeyReused });
        }
        match self.kept.get(&name) {
            Some(kept) if kept.fingerprint == fingerprint => Ok(Begun::Answered(kept.answer)),
            Some(_) => Err(CollectError::KeyReused),
            None => {
                working.insert(name.clone(), fingerprint);
                Ok(Begun::New(Turn { answers: Arc::clone(self), name, fingerprint }))
            }
        }
    }

    fn working(&self) -> MutexGuard<'_, HashMap<Name, Fingerprint>> {
        self.working.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The work on the first request of a key; dropped without an answer to keep, the key is free again.
pub(super) struct Turn {
    answers: Arc<Answers>,
    name: Name,
    fingerprint: Fingerprint,
}

impl Turn {
    /// Keeps the answer to be given again.
    pub(super) fn keep(self, answer: Bytes) {
        self.answers.kept.insert(self.name.clone(), Kept { fingerprint: self.fingerprint, answer });
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.answers.working().remove(&self.name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::CallerKey;

    fn caller(key: &str) -> Caller {
        Caller { key: Some(CallerKey { id: key.into(), may_import: false, events_per_second: None }), address: None }
    }

    fn body(text: &str) -> Fingerprint {
        Fingerprint::of(false, text.as_bytes())
    }

    fn turn(answers: &Arc<Answers>, key: &str, text: &str) -> Turn {
        match answers.begin(&caller("k"), key, body(text)) {
            Ok(Begun::New(turn)) => turn,
            Ok(Begun::Answered(answer)) => panic!("{answer:?}"),
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn an_answer_is_given_again_to_its_caller_for_the_same_body_alone() {
        let answers = Arc::new(Answers::new());
        turn(&answers, "a", "x").keep(Bytes::from_static(b"first"));
        assert!(matches!(answers.begin(&caller("k"), "a", body("x")), Ok(Begun::Answered(answer)) if answer == "first"));
        assert!(matches!(answers.begin(&caller("k"), "a", body("y")), Err(CollectError::KeyReused)));
        assert!(matches!(answers.begin(&caller("k"), "a", Fingerprint::of(true, b"x")), Err(CollectError::KeyReused)));
        assert!(matches!(answers.begin(&caller("other"), "a", body("y")), Ok(Begun::New(_))));
        assert!(matches!(answers.begin(&Caller::default(), "a", body("y")), Ok(Begun::New(_))));
    }

    #[test]
    fn while_the_first_is_worked_on_others_wait_and_what_failed_may_be_tried_again() {
        let answers = Arc::new(Answers::new());
        let first = turn(&answers, "a", "x");
        assert!(matches!(answers.begin(&caller("k"), "a", body("x")), Err(CollectError::InProgress)));
        assert!(matches!(answers.begin(&caller("k"), "a", body("y")), Err(CollectError::KeyReused)));
        drop(first);
        turn(&answers, "a", "y").keep(Bytes::new());
        assert!(answers.working().is_empty());
    }

    #[test]
    fn what_is_kept_is_bounded_in_bytes_and_the_latest_is_there() {
        let answers = Arc::new(Answers::new());
        let large = Bytes::from(vec![b'x'; 1 << 20]);
        for n in 0..100 {
            turn(&answers, &n.to_string(), "x").keep(large.clone());
            answers.kept.run_pending_tasks();
        }
        assert!(answers.kept.weighted_size() <= KEPT_BYTES);
        assert!(matches!(answers.begin(&caller("k"), "99", body("x")), Ok(Begun::Answered(_))));
        assert!(matches!(answers.begin(&caller("k"), "0", body("x")), Ok(Begun::New(_))));
    }
}
