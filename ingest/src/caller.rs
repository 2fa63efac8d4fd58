//! Who sent a request, as far as what stands before the routes has found out and put among the request's extensions.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::Arc;

use axum::extract::ConnectInfo;
use axum::http::Extensions;

/// The address of the client itself: of the connection, or what a trusted proxy says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClientAddress(pub IpAddr);

/// The key that a request was sent with. Without it nothing asked for one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallerKey {
    /// Its public name, never its secret.
    pub id: Arc<str>,
    /// Whether events may be older than `max_lateness` (scope `import`).
    pub may_import: bool,
    /// How many events it may send each second, if it has a limit of its own.
    pub events_per_second: Option<NonZeroU32>,
}

/// Who sent a request, as far as limits are concerned.
#[derive(Clone, Debug, Default)]
pub(crate) struct Caller {
    /// The key, if one was asked for.
    pub(crate) key: Option<CallerKey>,
    /// The client's address; without it (in a test) nothing is limited by address.
    pub(crate) address: Option<IpAddr>,
}

impl Caller {
    /// The sender of the request with these extensions.
    pub(crate) fn of(extensions: &Extensions) -> Self {
        Self { key: extensions.get::<CallerKey>().cloned(), address: Self::address_of(extensions) }
    }

    /// Its address: the client's own, or else the connection's.
    pub(crate) fn address_of(extensions: &Extensions) -> Option<IpAddr> {
        let connection = || extensions.get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(peer)| peer.ip());
        extensions.get::<ClientAddress>().map(|ClientAddress(address)| *address).or_else(connection)
    }
}
