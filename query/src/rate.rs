//! How many requests one client may send each second, and the headers that tell it.
//!
//! `RateLimit-Policy: "default";q=5000;w=1` and `RateLimit: "default";r=4999;t=1` are those of draft-ietf-httpapi-ratelimit-headers-11.
//! A client is an IPv4 address, or the 64 bits of an IPv6 address that name its network. Who has been silent for a second is forgotten
//! every now and then; while there are very many clients, neighbours share a quota, so that memory stays bounded.
//!
//! It stands before every answer, also before those that are given again, so it must cost little: the last test here measures it.

use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use axum::extract::{ConnectInfo, Request};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use bytes::BytesMut;
use governor::clock::DefaultClock;
use governor::middleware::StateInformationMiddleware;
use governor::state::keyed::DashMapStateStore;
use governor::{Quota, RateLimiter};
use ingest::Problem;

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const LIMIT: HeaderName = HeaderName::from_static("ratelimit");

/// Clients that have been silent are forgotten so often, in seconds.
const SWEEP_S: u64 = 5;
/// From so many clients on, neighbours share a quota.
const CROWD: usize = 65_536;

/// The requests of each client.
pub(crate) struct Rate {
    clients: RateLimiter<u64, DashMapStateStore<u64>, DefaultClock, StateInformationMiddleware>,
    quota: NonZeroU32,
    policy: HeaderValue,
    begun: Instant,
    next_sweep_s: AtomicU64,
    crowded: AtomicBool,
}

impl Rate {
    /// So many requests each second of each client, which may come all at once; none for 0: there is no limit.
    pub(crate) fn new(per_second: u32) -> Option<Arc<Self>> {
        let quota = NonZeroU32::new(per_second)?;
        let policy = HeaderValue::from_str(&format!("\"default\";q={quota};w=1")).ok()?;
        Some(Arc::new(Self {
            clients: RateLimiter::dashmap(Quota::per_second(quota)).with_middleware(),
            quota,
            policy,
            begun: Instant::now(),
            next_sweep_s: AtomicU64::new(SWEEP_S),
            crowded: AtomicBool::new(false),
        }))
    }

    /// Counts a request: how many more may follow at once, or the refusal. A request without a client (of a test) is not counted.
    pub(crate) fn count(self: &Arc<Self>, request: &Request, now: Instant) -> Result<Option<u32>, Problem> {
        let Some(ConnectInfo(client)) = request.extensions().get::<ConnectInfo<SocketAddr>>() else { return Ok(None) };
        self.sweep_if_due(now);
        let network = network(client.ip(), self.crowded.load(Ordering::Relaxed));
        match self.clients.check_key(&network) {
            Ok(state) => Ok(Some(state.remaining_burst_capacity())),
            Err(_) => Err(self.refusal()),
        }
    }

    fn refusal(&self) -> Problem {
        let detail = format!("this client has sent more than {} requests within a second; send fewer, or ask more in one", self.quota);
        Problem::new(StatusCode::TOO_MANY_REQUESTS, "quota-exceeded", "Too many requests", detail)
            .retry_after(1)
            .with("limit", self.quota.get())
            .with("violated-policies", vec!["default"])
    }

    /// Tells the quota and what is left of it.
    pub(crate) fn tell(&self, left: u32, headers: &mut HeaderMap) {
        headers.insert(POLICY, self.policy.clone());
        let mut text = BytesMut::with_capacity(32);
        // Memory takes it, and it is what a header may be.
        if write!(text, "\"default\";r={left};t=1").is_ok()
            && let Ok(value) = HeaderValue::from_maybe_shared(text.freeze())
        {
            headers.insert(LIMIT, value);
        }
    }

    fn sweep_if_due(self: &Arc<Self>, now: Instant) {
        let at_s = now.saturating_duration_since(self.begun).as_secs();
        let due_s = self.next_sweep_s.load(Ordering::Relaxed);
        if at_s >= due_s && self.next_sweep_s.compare_exchange(due_s, at_s + SWEEP_S, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            let rate = Arc::clone(self);
            tokio::task::spawn_blocking(move || rate.sweep());
        }
    }

    fn sweep(&self) {
        self.clients.retain_recent();
        self.clients.shrink_to_fit();
        self.crowded.store(self.clients.len() >= CROWD, Ordering::Relaxed);
    }
}

/// What counts as one client. In a crowd that is 65,536 addresses, or a provider's whole network.
fn network(address: IpAddr, crowded: bool) -> u64 {
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
    use axum::body::Body;

    use super::*;

    fn request(client: &str) -> Request {
        let client: IpAddr = client.parse().unwrap();
        let mut request = Request::new(Body::empty());
        request.extensions_mut().insert(ConnectInfo(SocketAddr::from((client, 1_234))));
        request
    }

    fn rate(per_second: u32) -> Arc<Rate> {
        Rate::new(per_second).unwrap()
    }

    #[test]
    fn each_client_has_its_own_quota_and_is_told_what_is_left() {
        let rate = rate(3);
        let now = Instant::now();
        let left: Vec<Option<u32>> = (0..3).map(|_| rate.count(&request("10.0.0.1"), now).unwrap()).collect();
        assert_eq!(left, [Some(2), Some(1), Some(0)]);
        let refused = rate.count(&request("::ffff:10.0.0.1"), now).unwrap_err();
        assert_eq!((refused.status(), refused.kind()), (StatusCode::TOO_MANY_REQUESTS, "quota-exceeded"));
        assert_eq!(rate.count(&request("10.0.0.2"), now), Ok(Some(2)));
        assert_eq!(rate.count(&Request::new(Body::empty()), now), Ok(None));
        let mut headers = HeaderMap::new();
        rate.tell(2, &mut headers);
        assert_eq!(headers[POLICY], "\"default\";q=3;w=1");
        assert_eq!(headers[LIMIT], "\"default\";r=2;t=1");
    }

    #[test]
    fn nothing_is_limited_by_0() {
        assert!(Rate::new(0).is_none());
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
        let rate = rate(1_000_000);
        for client in 0..u32::try_from(CROWD).unwrap() {
            rate.clients.check_key(&u64::from(client)).unwrap();
        }
        rate.crowded.store(rate.clients.len() >= CROWD, Ordering::Relaxed);
        assert!(rate.crowded.load(Ordering::Relaxed));
        // Each of them has its whole quota again a microsecond later, so none is worth remembering.
        std::thread::sleep(std::time::Duration::from_millis(1));
        rate.sweep();
        assert_eq!((rate.clients.len(), rate.crowded.load(Ordering::Relaxed)), (0, false));
    }

    /// `cargo test --release -p tallymark-query --lib -- --ignored --nocapture counting_a_request_costs`
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
