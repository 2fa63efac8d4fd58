//! Who the client is: the address of the connection, or what trusted proxies say of it in `X-Forwarded-For`.
//!
//! ```text
//! X-Forwarded-For: anything a client says, 203.0.113.7, 10.0.0.5      connection from 10.0.0.4
//!                                          ^^^^^^^^^^^ the client     trusted: 10.0.0.0/8
//! ```
//!
//! Each proxy adds at the right whom it was connected to by. So it is read from the right, past trusted proxies only: the first
//! address that is none is the client's, and whatever stands left of it was said by the client and means nothing. A connection that
//! does not come from a trusted proxy is the client itself.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::http::{HeaderMap, HeaderName};
use ipnet::IpNet;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The networks whose word is taken.
pub(crate) type Proxies = Arc<[IpNet]>;

/// The client of a request that came from `peer`.
pub(super) fn client(peer: IpAddr, headers: &HeaderMap, proxies: &[IpNet]) -> IpAddr {
    let trusted = |address: IpAddr| proxies.iter().any(|network| network.contains(&address));
    let mut client = peer.to_canonical();
    // Later lines were added later; a value that is no text ends what can be believed.
    let lines: Vec<Option<&str>> = headers.get_all(FORWARDED_FOR).iter().map(|value| value.to_str().ok()).collect();
    let mut said = lines.iter().rev().flat_map(|line| line.unwrap_or("?").rsplit(','));
    while trusted(client) {
        match said.next().and_then(address) {
            Some(before) => client = before,
            None => break,
        }
    }
    client
}

/// An address as proxies write it: bare, or with a port.
fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let with_port = || text.parse::<SocketAddr>().map(|address| address.ip());
    bare.parse::<IpAddr>().or_else(|_| with_port()).ok().map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(peer: &str, lines: &[&[u8]]) -> String {
        let proxies: Vec<IpNet> = ["10.0.0.0/8", "fd00::/8", "127.0.0.1/32"].iter().map(|text| text.parse().unwrap()).collect();
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(FORWARDED_FOR, axum::http::HeaderValue::from_bytes(line).unwrap());
        }
        client(peer.parse().unwrap(), &headers, &proxies).to_string()
    }

    #[test]
    fn the_client_is_the_first_from_the_right_that_is_no_trusted_proxy() {
        for (peer, lines, client) in [
            ("203.0.113.9", &[][..], "203.0.113.9"),
            // Who is not trusted says nothing of others.
            ("203.0.113.9", &[&b"10.0.0.1"[..]][..], "203.0.113.9"),
            ("10.0.0.4", &[b"203.0.113.7"], "203.0.113.7"),
            ("::ffff:10.0.0.4", &[b"203.0.113.7"], "203.0.113.7"),
            ("10.0.0.4", &[b"1.1.1.1, 203.0.113.7, 10.0.0.5"], "203.0.113.7"),
            ("10.0.0.4", &[b"1.1.1.1, 203.0.113.7", b"10.0.0.5"], "203.0.113.7"),
            ("10.0.0.4", &[b"1.1.1.1", b" 203.0.113.7:5543 ,10.0.0.5:80"], "203.0.113.7"),
            ("fd00::1", &[b"[2001:db8::7]:443"], "2001:db8::7"),
            ("fd00::1", &[b"[2001:db8::7]"], "2001:db8::7"),
            ("127.0.0.1", &[b"::ffff:203.0.113.7"], "203.0.113.7"),
            // All of them are ours.
            ("10.0.0.4", &[b"10.0.0.6, 10.0.0.5"], "10.0.0.6"),
            // What is no address ends it at the last that was believed.
            ("10.0.0.4", &[b"203.0.113.7, unknown, 10.0.0.5"], "10.0.0.5"),
            ("10.0.0.4", &[b"203.0.113.7,"], "10.0.0.4"),
            ("10.0.0.4", &[b"203.0.113.7", b"\xff"], "10.0.0.4"),
            ("10.0.0.4", &[b"'; drop table"], "10.0.0.4"),
        ] {
            assert_eq!(found(peer, lines), client, "{peer} {lines:?}");
        }
    }
}
