//! From which pages browsers may use a key: origins (RFC 6454), compared as browsers write them, whole.
//!
//! A browser writes scheme, host and port in one form: lower case, no default port, no path. What is written otherwise is no origin of
//! a browser and never matches; here nothing is folded, cut or completed, so that nothing that only looks alike is taken.

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The longest origin: a host has 253 bytes at most.
const MAX_BYTES: usize = 300;

/// One entry of a key's list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum AllowedOrigin {
    /// Every page of the web, written `*`. Never `null`, which is what sandboxed frames and local files are.
    Any,
    /// This one, such as `https://www.example.com` or `http://localhost:3000`.
    Exact(Box<str>),
}

/// Why a text is no origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BadOrigin {
    /// Sandboxed frames, local files.
    #[error("is null: that is every sandboxed frame and local file; no key lists it")]
    Null,
    /// Anything but http and https.
    #[error("does not begin with https:// or http://")]
    Scheme,
    /// A path, a user, a query.
    #[error("is more than scheme, host and port: leave out what comes behind, also a slash at the end")]
    More,
    /// Capitals.
    #[error("has capitals: browsers write origins in lower case")]
    Capitals,
    /// No host, or one that browsers do not write.
    #[error(
        "has no host as browsers write it: letters a-z, digits, hyphens and dots (others as punycode), or an address; there are no patterns, list each origin"
    )]
    Host,
    /// No port, or one that browsers leave out.
    #[error("has a port that browsers do not write: a number from 1 to 65535, and left out if it is 443 of https or 80 of http")]
    Port,
    /// Too long.
    #[error("has more than {MAX_BYTES} bytes")]
    TooLong,
}

impl AllowedOrigin {
    /// Reads an entry.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, BadOrigin> {
        if text == "*" {
            return Ok(Self::Any);
        }
        check(text).map(|()| Self::Exact(text.into()))
    }

    /// Whether a header `Origin` says that the page is of this entry.
    pub fn matches(&self, origin: &str) -> bool {
        match self {
            Self::Any => check(origin).is_ok(),
            Self::Exact(own) => **own == *origin,
        }
    }

    /// As text.
    pub const fn as_str(&self) -> &str {
        match self {
            Self::Any => "*",
            Self::Exact(text) => text,
        }
    }
}

/// Whether a browser would write it so.
fn check(text: &str) -> Result<(), BadOrigin> {
    if text == "null" {
        return Err(BadOrigin::Null);
    }
    if text.len() > MAX_BYTES {
        return Err(BadOrigin::TooLong);
    }
    if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err(BadOrigin::Capitals);
    }
    let (rest, default_port) = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
        (Some(rest), _) => (rest, "443"),
        (None, Some(rest)) => (rest, "80"),
        (None, None) => return Err(BadOrigin::Scheme),
    };
    if rest.contains(['/', '?', '#', '@', '\\', ',', ' ']) {
        return Err(BadOrigin::More);
    }
    let (host, port) = match rest.rfind(']') {
        Some(end) => rest.split_at_checked(end + 1).ok_or(BadOrigin::Host)?,
        None => rest.find(':').and_then(|at| rest.split_at_checked(at)).unwrap_or((rest, "")),
    };
    if !is_host(host) {
        return Err(BadOrigin::Host);
    }
    let written = |port: &str| !port.starts_with('0') && port != default_port && port.bytes().all(|b| b.is_ascii_digit());
    match port.strip_prefix(':') {
        None if port.is_empty() => Ok(()),
        Some(port) if written(port) && port.parse::<u16>().is_ok_and(|port| port > 0) => Ok(()),
        _ => Err(BadOrigin::Port),
    }
}

fn is_host(host: &str) -> bool {
    if let Some(address) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        // One address has one form.
        return address.parse::<std::net::Ipv6Addr>().is_ok_and(|parsed| parsed.to_string() == address);
    }
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'-' | b'_');
    !host.is_empty() && host.bytes().all(plain) && !host.starts_with(['.', '-']) && !host.contains("..")
}

impl fmt::Display for AllowedOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl TryFrom<String> for AllowedOrigin {
    type Error = BadOrigin;
    fn try_from(text: String) -> Result<Self, BadOrigin> {
        Self::parse(&text)
    }
}

impl From<AllowedOrigin> for String {
    fn from(origin: AllowedOrigin) -> Self {
        origin.as_str().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_matches_itself_and_nothing_that_looks_alike() {
        let own = AllowedOrigin::parse("https://www.example.com").unwrap();
        assert!(own.matches("https://www.example.com"));
        for other in [
            "null",
            "",
            "*",
            "http://www.example.com",
            "https://example.com",
            "https://www.example.com.evil.com",
            "https://evilwww.example.com",
            "https://www.example.com:443",
            "https://www.example.com:8443",
            "https://www.example.com/",
            "https://www.example.com.",
            "HTTPS://WWW.EXAMPLE.COM",
            "https://www.Example.com",
            "https://www.example.com@evil.com",
            "https://www.example.com, https://evil.com",
            "https://www.example.co",
            " https://www.example.com",
            "https://www\u{ff0e}example.com",
        ] {
            assert!(!own.matches(other), "{other:?}");
        }
    }

    #[test]
    fn every_page_is_no_sandbox_and_no_nonsense() {
        let any = AllowedOrigin::parse("*").unwrap();
        assert!(any.matches("https://a.b") && any.matches("http://localhost:3000") && any.matches("http://[::1]:8080"));
        for never in ["null", "", "*", "file://", "https://", "https://a b", "chrome-extension://abc", "https://a/"] {
            assert!(!any.matches(never), "{never:?}");
        }
    }

    #[test]
    fn what_no_browser_writes_is_refused_with_what_is_wrong() {
        for good in
            ["https://a", "http://localhost:3000", "http://127.0.0.1:1", "https://xn--bcher-kva.example", "http://[::1]", "http://a:443"]
        {
            assert_eq!(AllowedOrigin::parse(good).map(String::from), Ok(good.to_owned()));
        }
        for (bad, why) in [
            ("null", BadOrigin::Null),
            ("", BadOrigin::Scheme),
            ("example.com", BadOrigin::Scheme),
            ("ftp://example.com", BadOrigin::Scheme),
            ("https://", BadOrigin::Host),
            ("https://:443", BadOrigin::Host),
            ("https://*.example.com", BadOrigin::Host),
            ("https://b\u{fc}cher.example", BadOrigin::Host),
            ("https://a..b", BadOrigin::Host),
            ("http://[::0001]", BadOrigin::Host),
            ("http://[::1", BadOrigin::Host),
            ("https://Example.com", BadOrigin::Capitals),
            ("https://example.com/", BadOrigin::More),
            ("https://u@example.com", BadOrigin::More),
            ("https://example.com:443", BadOrigin::Port),
            ("http://example.com:80", BadOrigin::Port),
            ("https://example.com:", BadOrigin::Port),
            ("https://example.com:0", BadOrigin::Port),
            ("https://example.com:0443", BadOrigin::Port),
            ("https://example.com:65536", BadOrigin::Port),
            ("https://example.com:+1", BadOrigin::Port),
        ] {
            assert_eq!(AllowedOrigin::parse(bad), Err(why), "{bad}");
        }
        assert_eq!(AllowedOrigin::parse(&format!("https://{}", "a".repeat(300))), Err(BadOrigin::TooLong));
    }
}
