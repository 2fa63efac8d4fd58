//! The memory that all bodies may hold together, and how much of it one caller may.
//!
//! ```text
//! grow ──> its key's part? ──> its address's part? ──> the whole? ──> Share, given back on drop
//! ```
//!
//! Nobody waits. A key, or an address without one, holds at most half, and an address within a key a quarter, so that whoever floods
//! is refused alone, also where one public key is everybody's; each may hold one body of the longest kind in any case.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::CollectError;
use crate::caller::Caller;
use crate::rate::network;

/// The bytes that all bodies may hold together.
#[derive(Clone, Debug)]
pub(super) struct Budget {
    bytes: Arc<Semaphore>,
    size: u32,
    /// What one caller may hold at least.
    one_body: usize,
    held: Arc<Mutex<HashMap<Holder, usize>>>,
    in_flight_bytes: Gauge,
}

/// One of those that hold no more than a part.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Holder {
    Key(Arc<str>),
    Network(u64),
}

impl Budget {
    /// A budget of `size` bytes for bodies of up to `one_body`.
    pub(super) fn new(size: u32, one_body: usize, in_flight_bytes: Gauge) -> Self {
        let permits = usize::try_from(size).unwrap_or(Semaphore::MAX_PERMITS).min(Semaphore::MAX_PERMITS);
        Self { bytes: Arc::new(Semaphore::new(permits)), size, one_body, held: Arc::default(), in_flight_bytes }
    }

    /// An empty share for a caller.
    pub(super) fn share(&self, caller: &Caller) -> Share {
        let part = |of: u32| usize::try_from(self.size / of).unwrap_or(usize::MAX).max(self.one_body);
        let key = caller.key.as_ref().map(|key| (Holder::Key(Arc::clone(&key.id)), part(2)));
        let network = caller.address.map(|address| (Holder::Network(network(address, false)), part(if key.is_some() { 4 } else { 2 })));
        Share { budget: self.clone(), holders: [key, network], permit: None, bytes: 0 }
    }

    /// Resolves when no body holds a share.
    pub(super) async fn all_free(&self) {
        // Only fails if the semaphore is closed, which nobody does.
        let _all = self.bytes.acquire_many(self.size).await;
    }

    fn held(&self) -> MutexGuard<'_, HashMap<Holder, usize>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one body holds of the budget; given back on drop.
#[derive(Debug)]
pub(super) struct Share {
    budget: Budget,
    holders: [Option<(Holder, usize)>; 2],
    permit: Option<OwnedSemaphorePermit>,
    bytes: usize,
}

impl Share {
    /// How many bytes it is.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes `bytes` more, at once or not at all.
    ///
    /// # Errors
    /// If its caller holds as much as one may, or all together do.
    pub(super) fn grow(&mut self, bytes: usize) -> Result<(), CollectError> {
        if bytes == 0 {
            return Ok(());
        }
        let count = u32::try_from(bytes).map_err(|_| CollectError::Full)?;
        let mut held = self.budget.held();
        for (holder, most) in self.holders.iter().flatten() {
            if held.get(holder).copied().unwrap_or(0).saturating_add(bytes) > *most {
                return Err(CollectError::Share { limit_bytes: *most });
            }
        }
        let permit = Arc::clone(&self.budget.bytes).try_acquire_many_owned(count).map_err(|_| CollectError::Full)?;
        for (holder, _) in self.holders.iter().flatten() {
            *held.entry(holder.clone()).or_default() += bytes;
        }
        drop(held);
        match &mut self.permit {
            Some(all) => all.merge(permit),
            none @ None => *none = Some(permit),
        }
        self.bytes += bytes;
        self.budget.in_flight_bytes.inc_by(count.into());
        Ok(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if self.bytes == 0 {
            return;
        }
        let mut held = self.budget.held();
        for (holder, _) in self.holders.iter_mut().filter_map(Option::take) {
            if let Entry::Occupied(mut of_holder) = held.entry(holder) {
                *of_holder.get_mut() = of_holder.get().saturating_sub(self.bytes);
                if *of_holder.get() == 0 {
                    of_holder.remove();
                }
            }
        }
        self.budget.in_flight_bytes.dec_by(i64::try_from(self.bytes).unwrap_or(i64::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::CallerKey;

    fn caller(key: Option<&str>, address: &str) -> Caller {
        let key = key.map(|id| CallerKey { id: id.into(), may_import: false, events_per_second: None });
        Caller { key, address: address.parse().ok() }
    }

    fn budget() -> Budget {
        Budget::new(1_000, 100, Gauge::default())
    }

    /// How much a caller gets, ten bytes at a time.
    fn most(budget: &Budget, caller: &Caller) -> (Share, &'static str) {
        let mut share = budget.share(caller);
        loop {
            match share.grow(10) {
                Ok(()) => {}
                Err(CollectError::Share { .. }) => return (share, "share"),
                Err(_) => return (share, "full"),
            }
        }
    }

    #[test]
    fn no_caller_holds_more_than_its_part_and_others_still_have_theirs() {
        let budget = budget();
        let (flood, why) = most(&budget, &caller(None, "10.0.0.1"));
        assert_eq!((flood.bytes(), why), (500, "share"));
        assert!(matches!(budget.share(&caller(None, "::ffff:10.0.0.1")).grow(1), Err(CollectError::Share { limit_bytes: 500 })));
        let (other, why) = most(&budget, &caller(Some("k"), "10.0.0.2"));
        assert_eq!((other.bytes(), why), (250, "share"));
        let (third, why) = most(&budget, &caller(Some("k"), "10.0.0.3"));
        assert_eq!((third.bytes(), why), (250, "share"));
        drop((flood, other, third));
        assert!(budget.held().is_empty());
        assert_eq!((budget.bytes.available_permits(), budget.in_flight_bytes.get()), (1_000, 0));
    }

    #[test]
    fn a_key_has_half_wherever_it_is_used() {
        let budget = budget();
        let shares: Vec<usize> = (0..3)
            .map(|n| {
                let (share, _) = most(&budget, &caller(Some("k"), &format!("10.0.0.{n}")));
                let bytes = share.bytes();
                std::mem::forget(share);
                bytes
            })
            .collect();
        assert_eq!(shares, [250, 250, 0]);
        assert_eq!(most(&budget, &caller(Some("other"), "10.0.0.9")).0.bytes(), 250);
    }

    #[test]
    fn one_body_is_never_too_much_for_a_part_and_nobody_unknown_has_a_part() {
        let budget = Budget::new(1_000, 900, Gauge::default());
        assert_eq!(most(&budget, &caller(Some("k"), "10.0.0.1")).0.bytes(), 900);
        let (unknown, why) = most(&budget, &Caller::default());
        assert_eq!((unknown.bytes(), why), (1_000, "full"));
    }
}
