//! Who sent a request, as far as what stands before the routes has found out and put among the request's extensions.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;

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
