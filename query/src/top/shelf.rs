//! Lists that have been made, and the making of each once, however many ask.
//!
//! A list that took `t` to make is given out as it is for [`FRESH`] or 10 `t`, so that no list takes more than a tenth of one core. After
//! that it is still given out while a new one is made behind it, until it is older than [`OLDEST`] or 20 `t`: then the new one is waited
//! for. `as_of` in the answer says how old it is. If the store does not answer, the last list is given out as stale.
//!
//! Making goes on when whoever asked has gone: the next one finds the list.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use ingest::Problem;
use moka::sync::Cache;
use schemas::{Dimension, Millis};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::ask::{Hours, ListKey};
use super::base::Base;
use super::list::{List, make};
use crate::error::QueryError;
use crate::params::Metric;
use crate::service::QueryService;

/// For so long a list is given out as it is, at least.
const FRESH: Duration = Duration::from_secs(2);
/// For so long a list is given out while a new one is made, at least.
const OLDEST: Duration = Duration::from_secs(5);
/// After a failure the store is left alone for so long, as far as an older list will do.
const REST: Duration = Duration::from_secs(1);
/// So many different lists are made at once; others wait.
const MAKERS: usize = 2;
/// So many different lists wait at most.
const FLIGHTS: usize = 64;
/// How long a new list is waited for when there is an old one.
const PATIENCE_WITH_OLD: Duration = Duration::from_secs(3);

/// What to do with a list of some age.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Serve {
    AsItIs,
    AndMakeAnother,
    Another,
}

impl Serve {
    fn of(age: Duration, took: Duration) -> Self {
        match age {
            _ if age < FRESH.max(took * 10) => Self::AsItIs,
            _ if age < OLDEST.max(took * 20) => Self::AndMakeAnother,
            _ => Self::Another,
        }
    }
}

/// A list, and for how long it has been out of date if the store could not be asked.
pub(crate) struct Served {
    pub(crate) list: Arc<List>,
    pub(crate) stale: Option<Duration>,
}

type Made = Result<Arc<List>, QueryError>;
type Flight = Shared<BoxFuture<'static, Made>>;
/// Bases are the same for every order and length.
type BaseKey = (Dimension, Hours, Metric);

/// The lists of a service.
pub(crate) struct Shelf {
    lists: Cache<ListKey, Arc<List>>,
    bases: Cache<BaseKey, Arc<Base>>,
    most_base_bytes: usize,
    flights: Mutex<HashMap<ListKey, Flight>>,
    failed: Mutex<Option<Instant>>,
    makers: Semaphore,
}

impl Shelf {
    /// A shelf of so many bytes.
    pub(crate) fn new(bytes: u64) -> Self {
        let for_lists = bytes / 8;
        let weight = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
        Self {
            lists: Cache::builder().max_capacity(for_lists).weigher(move |_, list: &Arc<List>| weight(list.bytes())).build(),
            bases: Cache::builder().max_capacity(bytes - for_lists).weigher(move |_, base: &Arc<Base>| weight(base.bytes())).build(),
            // One must not push out all others.
            most_base_bytes: usize::try_from(bytes / 2).unwrap_or(usize::MAX),
            flights: Mutex::default(),
            failed: Mutex::default(),
            makers: Semaphore::new(MAKERS),
        }
    }

    fn flights(&self) -> MutexGuard<'_, HashMap<ListKey, Flight>> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long ago a list could not be made, if that is the last that was tried.
    fn failed_ago(&self) -> Option<Duration> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).map(|at| at.elapsed())
    }

    fn note(&self, failed: bool) {
        *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = failed.then(Instant::now);
    }
}

impl QueryService {
    /// A list, from the shelf or new.
    pub(crate) async fn list(self: &Arc<Self>, key: ListKey, now: Millis) -> Result<Served, QueryError> {
        let Some(list) = self.tops.lists.get(&key) else {
            let patience = self.limits.timeout * 4 / 5;
            let list = timeout(patience, self.fly(key, now)).await.map_err(|_| still_being_made(patience))??;
            return Ok(Served { list, stale: None });
        };
        let age = list.begun.elapsed();
        match Serve::of(age, list.took) {
            Serve::AsItIs => return Ok(Served { list, stale: None }),
            Serve::AndMakeAnother => {
                drop(self.fly(key, now));
                return Ok(Served { list, stale: None });
            }
            Serve::Another if self.tops.failed_ago().is_some_and(|ago| ago < REST) => return Ok(Served { list, stale: Some(age) }),
            Serve::Another => {}
        }
        match timeout(PATIENCE_WITH_OLD.min(self.limits.timeout / 2), self.fly(key, now)).await {
            Ok(Ok(list)) => Ok(Served { list, stale: None }),
            Ok(Err(QueryError::Store(_))) | Err(_) => {
                let stale = Some(list.begun.elapsed());
                Ok(Served { list, stale })
            }
            Ok(Err(error)) => Err(error),
        }
    }

    /// The making of a list that is under way, or else a new one. It goes on by itself.
    fn fly(self: &Arc<Self>, key: ListKey, now: Millis) -> Flight {
        let mut flights = self.tops.flights();
        if let Some(flight) = flights.get(&key) {
            return flight.clone();
        }
        if flights.len() >= FLIGHTS {
            let problem = Problem::unavailable(2, format!("{FLIGHTS} other lists are being made; try again in a moment"));
            return futures_util::future::ready(Err(problem.into())).boxed().shared();
        }
        let task = tokio::spawn(Arc::clone(self).make_and_keep(key, now));
        let flight = async move { task.await.unwrap_or(Err(QueryError::Broken)) }.boxed().shared();
        flights.insert(key, flight.clone());
        flight
    }

    async fn make_and_keep(self: Arc<Self>, key: ListKey, now: Millis) -> Made {
        // Also when it panics: the next one who asks begins anew.
        let _landing = Landing { shelf: &self.tops, key };
        let _turn = self.tops.makers.acquire().await.map_err(|_| QueryError::Broken)?;
        let base_key = (key.dimension, key.hours, key.metric);
        let made = make(self.reader(), key, self.tops.bases.get(&base_key), self.tops.most_base_bytes, now).await;
        self.tops.note(matches!(made, Err(QueryError::Store(_))));
        let (list, base) = made.inspect_err(|error| tracing::warn!(%error, "a list could not be made"))?;
        self.metrics.listed(list.took.as_secs_f64());
        match base {
            Some(base) => self.tops.bases.insert(base_key, Arc::new(base)),
            None => self.tops.bases.invalidate(&base_key),
        }
        let list = Arc::new(list);
        self.tops.lists.insert(key, Arc::clone(&list));
        Ok(list)
    }
}

/// Takes a flight off the table when it ends.
struct Landing<'a> {
    shelf: &'a Shelf,
    key: ListKey,
}

impl Drop for Landing<'_> {
    fn drop(&mut self) {
        self.shelf.flights().remove(&self.key);
    }
}

fn still_being_made(waited: Duration) -> Problem {
    let seconds = waited.as_secs();
    Problem::unavailable(
        5,
        format!("this list is long and is being made for the first time; it was not ready after {seconds} s, ask again"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_took_long_to_make_is_given_out_for_longer() {
        let ms = Duration::from_millis;
        for (age, took, serve) in [
            (0, 0, Serve::AsItIs),
            (1_999, 50, Serve::AsItIs),
            (2_000, 50, Serve::AndMakeAnother),
            (4_999, 50, Serve::AndMakeAnother),
            (5_000, 50, Serve::Another),
            (9_999, 1_000, Serve::AsItIs),
            (19_999, 1_000, Serve::AndMakeAnother),
            (20_000, 1_000, Serve::Another),
        ] {
            assert_eq!(Serve::of(ms(age), ms(took)), serve, "{age} {took}");
        }
    }
}
