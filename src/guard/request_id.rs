//! The name of a request, by which people find it in the logs of all that it went through.
//!
//! A client (or the proxy before us) names it in `x-request-id`; a name that is too long or holds more than visible ASCII is not taken.
//! A name made here is 16 digits that each process draws at its start, and a number that counts up.

use std::fmt::Write;
use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::http::HeaderValue;
use bytes::BytesMut;

/// The longest name that is taken, in bytes.
const MAX_BYTES: usize = 128;

/// Drawn from what the standard library keys its hash maps with, which the system gives.
static PROCESS: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one(std::process::id()));
static COUNT: AtomicU64 = AtomicU64::new(0);

/// A request's name: visible ASCII.
pub(super) struct RequestId(HeaderValue);

impl RequestId {
    /// The name that was given, if it can be one, or else a new one.
    pub(super) fn of(given: Option<&HeaderValue>) -> Self {
        let sane = |value: &&HeaderValue| (1..=MAX_BYTES).contains(&value.len()) && value.as_bytes().iter().all(u8::is_ascii_graphic);
        Self(given.filter(sane).cloned().unwrap_or_else(new))
    }

    pub(super) fn as_str(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }

    /// As a header.
    pub(super) fn value(&self) -> HeaderValue {
        self.0.clone()
    }
}

fn new() -> HeaderValue {
    let mut text = BytesMut::with_capacity(40);
    // Memory takes it, and digits may be in a header.
    let written = write!(text, "{:016x}-{:08x}", *PROCESS, COUNT.fetch_add(1, Ordering::Relaxed));
    debug_assert!(written.is_ok());
    HeaderValue::from_maybe_shared(text.freeze()).unwrap_or(HeaderValue::from_static("none"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(given: &[u8]) -> String {
        RequestId::of(Some(&HeaderValue::from_bytes(given).unwrap())).as_str().to_owned()
    }

    #[test]
    fn a_sane_name_is_kept_and_any_other_is_replaced_by_one_that_is_new() {
        for sane in ["a", "01HV-3", "{x}:y/z=+", &"n".repeat(MAX_BYTES)] {
            assert_eq!(of(sane.as_bytes()), sane);
        }
        let made: Vec<String> =
            [&b""[..], b"two words", b"tab\there", b"caf\xc3\xa9", &[b'n'; MAX_BYTES + 1]].into_iter().map(of).collect();
        for (n, name) in made.iter().enumerate() {
            assert!(name.len() == 25 && !made.iter().take(n).any(|before| before == name), "{made:?}");
        }
        assert_ne!(RequestId::of(None).as_str(), RequestId::of(None).as_str());
    }
}
