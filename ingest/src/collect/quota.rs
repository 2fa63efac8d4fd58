//! How much of one caller is taken each second: requests and events, of a key and of an address.
//!
//! ```text
//! head ──> admit: is there room for one? a request is counted ──> body ──> events: is there room? they are counted ──> log
//! ```
//!
//! A caller who owes is refused before its body is read. Events are counted when it is known how many they are; a request with more
//! events than the quota is taken, and its caller waits until they have drained away ([`crate::rate`]), as long as that is no more
//! than [`MOST_SECONDS`]. Of what is refused no events are counted; a request whose events are too many has been one.

use std::fmt::Write;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::Instant;

use axum::http::{HeaderMap, HeaderValue};

use super::batch::Refused;
use super::error::CollectError;
use crate::caller::Caller;
use crate::rate::{Buckets, LIMIT, POLICY, retry_after_s};

/// One request may have so many seconds' worth of events.
const MOST_SECONDS: u64 = 60;

/// How much of a caller is taken each second; `None` is without a limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PerSecond {
    /// Requests.
    pub requests: Option<NonZeroU32>,
    /// Events.
    pub events: Option<NonZeroU32>,
}

/// The limits of each caller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quotas {
    /// Of a key; one that has a limit of its own goes by that.
    pub key: PerSecond,
    /// Of an IPv4 address, or of the /64 network of an IPv6 address.
    pub address: PerSecond,
}

/// What callers have used of their quotas.
#[derive(Debug)]
pub(super) struct Meters {
    quotas: Quotas,
    key_requests: Buckets,
    key_events: Buckets,
    address_requests: Buckets,
    address_events: Buckets,
}

/// A quota that holds for a caller.
#[derive(Clone, Copy)]
struct Policy<'a> {
    name: &'static str,
    what: What,
    buckets: &'a Buckets,
    who: u64,
    per_second: NonZeroU32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Requests,
    Events,
}

impl What {
    const fn name(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Events => "events",
        }
    }
}

impl Meters {
    pub(super) fn new(quotas: Quotas, begun: Instant) -> Self {
        let [key_requests, key_events, address_requests, address_events] = std::array::from_fn(|_| Buckets::new(begun));
        Self { quotas, key_requests, key_events, address_requests, address_events }
    }

    /// Counts a request whose head is there.
    ///
    /// # Errors
    /// Which quota it would pass, and when to come back.
    pub(super) fn admit(&self, caller: &Caller, now: Instant) -> Result<(), CollectError> {
        self.policies(caller).try_for_each(|policy| policy.take(0, now))?;
        self.of(What::Requests, caller).try_for_each(|policy| policy.take(1, now))
    }

    /// Counts the events of a request before they are appended.
    ///
    /// # Errors
    /// Which quota they pass, and when to come back; or that they are more than a request may ever have.
    pub(super) fn events(&self, caller: &Caller, events: u64, now: Instant) -> Result<(), CollectError> {
        for policy in self.of(What::Events, caller) {
            let most = u64::from(policy.per_second.get()) * MOST_SECONDS;
            if events > most {
                return Err(Refused::TooManyEvents { limit: usize::try_from(most).unwrap_or(usize::MAX) }.into());
            }
            policy.take(0, now)?;
        }
        self.of(What::Events, caller).try_for_each(|policy| policy.take(events, now))
    }

    /// Tells the quotas that hold for a caller, and what is left of them.
    pub(super) fn tell(&self, caller: &Caller, now: Instant, headers: &mut HeaderMap) {
        let (mut quotas, mut left) = (String::new(), String::new());
        for policy in self.policies(caller) {
            let comma = if quotas.is_empty() { "" } else { ", " };
            let Policy { name, per_second, buckets, who, .. } = policy;
            // Strings take it.
            let _ = write!(quotas, "{comma}\"{name}\";q={per_second};w=1");
            let _ = write!(left, "{comma}\"{name}\";r={};t=1", buckets.left(who, per_second, now));
        }
        if let (false, Ok(quotas), Ok(left)) = (quotas.is_empty(), HeaderValue::try_from(quotas), HeaderValue::try_from(left)) {
            headers.insert(POLICY, quotas);
            headers.insert(LIMIT, left);
        }
    }

    fn of<'a>(&'a self, what: What, caller: &'a Caller) -> impl Iterator<Item = Policy<'a>> {
        self.policies(caller).filter(move |policy| policy.what == what)
    }

    fn policies<'a>(&'a self, caller: &'a Caller) -> impl Iterator<Item = Policy<'a>> {
        let Quotas { key: of_key, address: of_address } = self.quotas;
        let key = caller.key.as_ref().map(|key| (xxhash_rust::xxh3::xxh3_64(key.id.as_bytes()), key.events_per_second.or(of_key.events)));
        let (who, events) = key.unzip();
        let by_key =
            |name, what, buckets, per_second: Option<NonZeroU32>| Some(Policy { name, what, buckets, who: who?, per_second: per_second? });
        let by_address = |name, what, buckets: &'a Buckets, per_second: Option<NonZeroU32>| {
            let who = |address: IpAddr| buckets.client(address);
            Some(Policy { name, what, buckets, who: caller.address.map(who)?, per_second: per_second? })
        };
        [
            by_key("key-requests", What::Requests, &self.key_requests, of_key.requests),
            by_key("key-events", What::Events, &self.key_events, events.flatten()),
            by_address("address-requests", What::Requests, &self.address_requests, of_address.requests),
            by_address("address-events", What::Events, &self.address_events, of_address.events),
        ]
        .into_iter()
        .flatten()
    }
}

impl Policy<'_> {
    fn take(&self, count: u64, now: Instant) -> Result<(), CollectError> {
        let taken = self.buckets.take(self.who, self.per_second, count, now);
        taken.map(|_| ()).map_err(|wait| CollectError::Quota {
            policy: self.name,
            what: self.what.name(),
            per_second: self.per_second.get(),
            retry_after_s: retry_after_s(wait),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::CallerKey;
    use std::time::Duration;

    fn caller(key: Option<(&str, Option<u32>)>, address: &str) -> Caller {
        let key =
            key.map(|(id, events)| CallerKey { id: id.into(), may_import: false, events_per_second: events.and_then(NonZeroU32::new) });
        Caller { key, address: address.parse().ok() }
    }

    fn meters(key: (u32, u32), address: (u32, u32)) -> (Meters, Instant) {
        let per_second = |(requests, events)| PerSecond { requests: NonZeroU32::new(requests), events: NonZeroU32::new(events) };
        let begun = Instant::now();
        (Meters::new(Quotas { key: per_second(key), address: per_second(address) }, begun), begun)
    }

    fn violated(outcome: Result<(), CollectError>) -> &'static str {
        match outcome {
            Err(CollectError::Quota { policy, .. }) => policy,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn each_key_and_each_address_has_its_own_requests() {
        let (meters, now) = meters((2, 0), (3, 0));
        let a = caller(Some(("a", None)), "10.0.0.1");
        assert!((0..2).all(|_| meters.admit(&a, now).is_ok()));
        assert_eq!(violated(meters.admit(&a, now)), "key-requests");
        // The address has one left: what was refused by the key was not counted for it.
        let b = caller(Some(("b", None)), "10.0.0.1");
        assert!(meters.admit(&b, now).is_ok());
        assert_eq!(violated(meters.admit(&b, now)), "address-requests");
        assert!(meters.admit(&caller(Some(("b", None)), "10.0.0.2"), now).is_ok());
        assert!(meters.admit(&Caller::default(), now).is_ok());
        assert!(meters.admit(&a, now + Duration::from_secs(1)).is_ok());
    }

    #[test]
    fn events_are_counted_once_they_are_known_and_a_debtor_is_refused_at_the_head() {
        let (meters, now) = meters((0, 10), (0, 0));
        let a = caller(Some(("a", None)), "10.0.0.1");
        meters.admit(&a, now).unwrap();
        meters.events(&a, 30, now).unwrap();
        assert!(matches!(meters.admit(&a, now), Err(CollectError::Quota { policy: "key-events", retry_after_s: 3, .. })));
        assert!(meters.admit(&a, now + Duration::from_millis(2_200)).is_ok());
        assert!(meters.admit(&caller(Some(("b", None)), "10.0.0.1"), now).is_ok());
    }

    #[test]
    fn events_that_one_quota_refuses_are_counted_for_no_other() {
        let (meters, now) = meters((0, 100), (0, 10));
        let a = caller(Some(("a", None)), "10.0.0.1");
        meters.events(&a, 10, now).unwrap();
        assert_eq!(violated(meters.events(&a, 50, now)), "address-events");
        let mut headers = HeaderMap::new();
        meters.tell(&a, now, &mut headers);
        assert_eq!(headers[LIMIT], "\"key-events\";r=90;t=1, \"address-events\";r=0;t=1");
    }

    #[test]
    fn a_keys_own_limit_goes_before_the_common_one() {
        let (meters, now) = meters((0, 10), (0, 0));
        let own = caller(Some(("own", Some(1_000))), "10.0.0.1");
        meters.events(&own, 999, now).unwrap();
        assert!(meters.admit(&own, now).is_ok());
        let (meters, now) = self::meters((0, 0), (0, 0));
        meters.events(&caller(Some(("own", Some(1))), "10.0.0.1"), 1, now).unwrap();
        assert_eq!(violated(meters.events(&caller(Some(("own", Some(1))), "10.0.0.1"), 1, now)), "key-events");
    }

    #[test]
    fn a_request_of_more_than_a_minute_of_events_is_never_taken_and_told_so() {
        let (meters, now) = meters((0, 0), (0, 10));
        let a = caller(None, "10.0.0.1");
        let refused = meters.events(&a, 601, now);
        assert!(matches!(refused, Err(CollectError::Body(Refused::TooManyEvents { limit: 600 }))), "{refused:?}");
        assert!(meters.events(&a, 600, now).is_ok(), "nothing was counted of what was refused");
    }

    #[test]
    fn a_caller_is_told_the_quotas_that_hold_for_it() {
        let (meters, now) = meters((0, 100), (5, 0));
        let a = caller(Some(("a", None)), "10.0.0.1");
        meters.admit(&a, now).unwrap();
        meters.events(&a, 40, now).unwrap();
        let mut headers = HeaderMap::new();
        meters.tell(&a, now, &mut headers);
        assert_eq!(headers[POLICY], "\"key-events\";q=100;w=1, \"address-requests\";q=5;w=1");
        assert_eq!(headers[LIMIT], "\"key-events\";r=60;t=1, \"address-requests\";r=4;t=1");
        let mut none = HeaderMap::new();
        self::meters((0, 0), (0, 0)).0.tell(&a, now, &mut none);
        assert!(none.is_empty());
    }
}
