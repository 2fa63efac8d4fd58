//! How much of one caller is taken each second, and the headers that tell it.
//!
//! ```text
//! used      each second as much as the quota drains away
//! ──┬─────────────┬───────────────> debt
//!   0           quota             what comes is taken while there is room for one, however much it is: then it is waited off
//! ```
//!
//! [`Buckets`] is the rule: pure but for its table, time is an argument. A request that holds many events is taken whole as long as
//! one would be, and its caller then waits until all of it has drained away; so the rate holds for batches of any size (GCRA, the
//! leaky bucket as a meter of ITU-T I.371, with debt). Who owes nothing is forgotten, so memory is bounded by who came lately; while
//! there are very many, neighbours share a quota.
//!
//! [`Rate`] limits requests by client: `RateLimit-Policy: "default";q=5000;w=1` and `RateLimit: "default";r=4999;t=1` are those of
//! draft-ietf-httpapi-ratelimit-headers-11. A client is an IPv4 address, or the 64 bits of an IPv6 address that name its network.
//! It stands before every answer, also before those that are given again, so it must cost little: the last test here measures it.

use std::collections::HashMap;
use std::fmt::Write;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use bytes::BytesMut;

use crate::Problem;
use crate::caller::Caller;

/// The header that names the quotas.
pub(crate) const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
/// The header that says what is left of them.
pub(crate) const LIMIT: HeaderName = HeaderName::from_static("ratelimit");

/// Callers that owe nothing are forgotten so often.
const SWEEP: Duration = Duration::from_secs(5);
/// From so many callers on, neighbours share a quota.
const CROWD: usize = 65_536;
/// So many parts has the table, each behind a lock of its own: more than threads that ask at once.
const SHARDS: usize = 64;
const SECOND_NS: u64 = 1_000_000_000;

/// How much each caller has used of its quota.
#[derive(Debug)]
pub(crate) struct Buckets {
    shards: Vec<Mutex<Shard>>,
    begun: Instant,
    len: AtomicUsize,
}

#[derive(Debug, Default)]
struct Shard {
    /// By caller: when all that it has used will have drained away, in ns since the beginning.
    drained_ns: HashMap<u64, u64>,
    swept_ns: u64,
}

impl Buckets {
    pub(crate) fn new(begun: Instant) -> Self {
        Self { shards: (0..SHARDS).map(|_| Mutex::default()).collect(), begun, len: AtomicUsize::new(0) }
    }

    /// The caller that an address is, here.
    pub(crate) fn client(&self, address: IpAddr) -> u64 {
        network(address, self.len.load(Ordering::Relaxed) >= CROWD)
    }

    /// Takes `count` of what `who` may have each second, if there is room for one: how much may follow at once. 0 only looks.
    ///
    /// # Errors
    /// After how long there is room.
    pub(crate) fn take(&self, who: u64, per_second: NonZeroU32, count: u64, now: Instant) -> Result<u64, Duration> {
        let now_ns = u64::try_from(now.saturating_duration_since(self.begun).as_nanos()).unwrap_or(u64::MAX);
        let quota = u64::from(per_second.get());
        let Some(shard) = self.shards.get(usize::try_from(who % SHARDS as u64).unwrap_or(0)) else { return Ok(quota) };
        let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
        shard.sweep_if_due(now_ns, &self.len);
        let used_ns = shard.drained_ns.get(&who).map_or(0, |drained_ns| drained_ns.saturating_sub(now_ns));
        let needed_ns = used_ns.saturating_add(SECOND_NS / quota);
        if needed_ns > SECOND_NS {
            return Err(Duration::from_nanos(needed_ns - SECOND_NS));
        }
        let used_ns = used_ns.saturating_add(count.saturating_mul(SECOND_NS) / quota);
        if count > 0 && shard.drained_ns.insert(who, now_ns.saturating_add(used_ns)).is_none() {
            self.len.fetch_add(1, Ordering::Relaxed);
        }
        Ok(left(used_ns, quota))
    }

    /// How much `who` may take at once.
    pub(crate) fn left(&self, who: u64, per_second: NonZeroU32, now: Instant) -> u64 {
        self.take(who, per_second, 0, now).unwrap_or(0)
    }
}

fn left(used_ns: u64, quota: u64) -> u64 {
    let left = u128::from(SECOND_NS.saturating_sub(used_ns)) * u128::from(quota) / u128::from(SECOND_NS);
    u64::try_from(left).unwrap_or(quota)
}

impl Shard {
    fn sweep_if_due(&mut self, now_ns: u64, len: &AtomicUsize) {
        if u128::from(now_ns.saturating_sub(self.swept_ns)) < SWEEP.as_nanos() {
            return;
        }
        self.swept_ns = now_ns;
        let before = self.drained_ns.len();
        self.drained_ns.retain(|_, drained_ns| *drained_ns > now_ns);
        self.drained_ns.shrink_to(before / 2);
        len.fetch_sub(before - self.drained_ns.len(), Ordering::Relaxed);
    }
}

/// After how many whole seconds to come back.
pub(crate) fn retry_after_s(wait: Duration) -> u32 {
    u32::try_from(wait.as_millis().div_ceil(1_000)).unwrap_or(u32::MAX).max(1)
}

/// The requests of each client.
pub struct Rate {
    clients: Buckets,
    quota: NonZeroU32,
    policy: HeaderValue,
}

impl Rate {
    /// So many requests each second of each client, which may come all at once; none for 0: there is no limit.
    pub fn new(per_second: u32) -> Option<Arc<Self>> {
        let quota = NonZeroU32::new(per_second)?;
        let policy = HeaderValue::from_str(&format!("\"default\";q={quota};w=1")).ok()?;
        Some(Arc::new(Self { clients: Buckets::new(Instant::now()), quota, policy }))
    }

    /// Counts a request: how many more may follow at once. A request without a client (of a test) is not counted.
    ///
    /// # Errors
    /// The refusal, if it was one too many.
    pub fn count(&self, request: &Request, now: Instant) -> Result<Option<u64>, Problem> {
        let Some(address) = Caller::address_of(request.extensions()) else { return Ok(None) };
        match self.clients.take(self.clients.client(address), self.quota, 1, now) {
            Ok(left) => Ok(Some(left)),
            Err(wait) => Err(self.refusal(wait)),
        }
    }

    fn refusal(&self, wait: Duration) -> Problem {
        let detail = format!("this client has sent more than {} requests within a second; send fewer, or ask more in one", self.quota);
        Problem::new(StatusCode::TOO_MANY_REQUESTS, "quota-exceeded", "Too much at once", detail)
            .retry_after(retry_after_s(wait))
            .with("limit", self.quota.get())
            .with("violated-policies", vec!["default"])
    }

    /// Tells the quota and what is left of it.
    pub fn tell(&self, left: u64, headers: &mut HeaderMap) {
        headers.insert(POLICY, self.policy.clone());
        let mut text = BytesMut::with_capacity(32);
        // Memory takes it, and it is what a header may be.
        if write!(text, "\"default\";r={left};t=1").is_ok()
            && let Ok(value) = HeaderValue::from_maybe_shared(text.freeze())
        {
            headers.insert(LIMIT, value);
        }
    }
}

/// What counts as one client. In a crowd that is 65,536 addresses, or a provider's whole network.
pub(crate) fn network(address: IpAddr, crowded: bool) -> u64 {
    match address.to_canonical() {
        IpAddr::V4(address) => u64::from(if crowded { address.to_bits() & 0xffff_0000 } else { address.to_bits() }),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments().map(u64::from);
            (a << 48) | (b << 32) | if crowded { 0 } else { (c << 16) | d }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ClientAddress;
    use axum::body::Body;
    use axum::extract::ConnectInfo;
    use std::net::SocketAddr;

    fn request(peer: &str) -> Request {
        let peer: IpAddr = peer.parse().unwrap();
        let mut request = Request::new(Body::empty());
        request.extensions_mut().insert(ConnectInfo(SocketAddr::from((peer, 1_234))));
        request
    }

    fn rate(per_second: u32) -> Arc<Rate> {
        Rate::new(per_second).unwrap()
    }

    fn quota(per_second: u32) -> NonZeroU32 {
        NonZeroU32::new(per_second).unwrap()
    }

    #[test]
    fn each_client_has_its_own_quota_and_is_told_what_is_left() {
        let rate = rate(3);
        let now = Instant::now();
        let left: Vec<Option<u64>> = (0..3).map(|_| rate.count(&request("10.0.0.1"), now).unwrap()).collect();
        assert_eq!(left, [Some(2), Some(1), Some(0)]);
        let refused = rate.count(&request("::ffff:10.0.0.1"), now).unwrap_err();
        assert_eq!((refused.status(), refused.kind()), (StatusCode::TOO_MANY_REQUESTS, "quota-exceeded"));
        assert_eq!(rate.count(&request("10.0.0.2"), now), Ok(Some(2)));
        assert_eq!(rate.count(&Request::new(Body::empty()), now), Ok(None));
        assert_eq!(rate.count(&request("10.0.0.1"), now + Duration::from_millis(334)), Ok(Some(0)));
        let mut headers = HeaderMap::new();
        rate.tell(2, &mut headers);
        assert_eq!(headers[POLICY], "\"default\";q=3;w=1");
        assert_eq!(headers[LIMIT], "\"default\";r=2;t=1");
    }

    #[test]
    fn who_comes_through_a_proxy_is_counted_by_its_own_address() {
        let (rate, now) = (rate(1), Instant::now());
        let through = |client: &str| {
            let mut request = request("10.0.0.1");
            request.extensions_mut().insert(ClientAddress(client.parse().unwrap()));
            request
        };
        assert!(rate.count(&through("203.0.113.1"), now).is_ok() && rate.count(&through("203.0.113.2"), now).is_ok());
        assert!(rate.count(&through("203.0.113.1"), now).is_err());
    }

    #[test]
    fn nothing_is_limited_by_0() {
        assert!(Rate::new(0).is_none());
    }

    #[test]
    fn a_batch_larger_than_the_quota_is_taken_and_waited_off() {
        let begun = Instant::now();
        let (buckets, at) = (Buckets::new(begun), |ms| begun + Duration::from_millis(ms));
        assert_eq!(buckets.take(1, quota(100), 350, at(0)), Ok(0));
        for (ms, wait_ms) in [(0, 2_510), (2_000, 510), (2_500, 10)] {
            assert_eq!(buckets.take(1, quota(100), 1, at(ms)), Err(Duration::from_millis(wait_ms)), "{ms}");
        }
        assert_eq!(buckets.take(1, quota(100), 1, at(2_510)), Ok(0));
        assert_eq!(buckets.left(1, quota(100), at(10_000)), 100);
        assert_eq!([1, 999, 1_000, 1_001].map(|ms| retry_after_s(Duration::from_millis(ms))), [1, 1, 1, 2]);
    }

    #[test]
    fn over_a_long_time_a_caller_gets_its_quota_and_one_burst_and_no_more() {
        let begun = Instant::now();
        for (per_second, batch) in [(7, 1), (1_000, 30), (3, 100), (1_000_000, 50_000)] {
            let buckets = Buckets::new(begun);
            let mut taken = 0;
            for ms in (0..100_000).step_by(10) {
                if buckets.take(9, quota(per_second), batch, begun + Duration::from_millis(ms)).is_ok() {
                    taken += batch;
                }
            }
            let fair = u64::from(per_second) * 100;
            assert!((fair..=fair + u64::from(per_second) + batch).contains(&taken), "{per_second}/s by {batch}: {taken}");
        }
    }

    #[test]
    fn one_network_of_ipv6_is_one_client() {
        let of = |text: &str, crowded| network(text.parse().unwrap(), crowded);
        assert_eq!(of("2001:db8:1:2::1", false), of("2001:db8:1:2:ffff::9", false));
        assert_ne!(of("2001:db8:1:2::1", false), of("2001:db8:1:3::1", false));
        assert_eq!(of("2001:db8:1:2::1", true), of("2001:db8:7:8::1", true));
        assert_ne!(of("10.1.2.3", false), of("10.1.2.4", false));
        assert_eq!(of("10.1.2.3", true), of("10.1.9.9", true));
    }

    #[test]
    fn clients_in_a_crowd_share_quotas_until_they_are_gone() {
        let begun = Instant::now();
        let buckets = Buckets::new(begun);
        for client in 0..CROWD as u64 {
            buckets.take(client, quota(10), 1, begun).unwrap();
        }
        let address = |text: &str| buckets.client(text.parse().unwrap());
        assert_eq!(address("10.1.2.3"), address("10.1.9.9"));
        let later = begun + SWEEP;
        for shard in 0..SHARDS as u64 {
            buckets.left(shard, quota(10), later);
        }
        assert_eq!(buckets.len.load(Ordering::Relaxed), 0);
        assert_ne!(address("10.1.2.3"), address("10.1.9.9"));
    }

    /// `cargo test --release -p tallymark-ingest --lib -- --ignored --nocapture counting_a_request_costs`
    #[test]
    #[ignore = "a measurement, not a claim that holds on every machine"]
    fn counting_a_request_costs() {
        let (rate, request, mut headers) = (rate(u32::MAX), request("10.0.0.1"), HeaderMap::new());
        let (begun, times) = (Instant::now(), 2_000_000_u32);
        for _ in 0..times {
            let left = rate.count(&request, Instant::now()).unwrap().unwrap();
            rate.tell(left, &mut headers);
        }
        println!("{:?} for each request", begun.elapsed() / times);
    }
}
