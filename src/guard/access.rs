//! What a request needs, by its method and the route that it was matched to. Pure.
//!
//! Routes, not paths: what will serve the request decides, so that no way of writing a path leads past a key. What is not in the table
//! needs the most: a route that somebody adds and forgets here asks for `read` if it is read, and for `admin` if not.

use axum::http::Method;
use schemas::Scope;

/// What a request needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// Nothing: it tells nothing of anybody.
    Open,
    /// Any key: there is no such path, and who has no key is not told so.
    AnyKey,
    /// A key with one of these scopes; the first is the one that is named when it lacks.
    OneOf(&'static [Scope]),
}

/// Where events come in.
pub(super) const EVENTS: &str = "/v1/events";

/// Whoever has no key gets these.
const OPEN: [&str; 7] = ["/livez", "/readyz", "/t.js", "/openapi.json", "/docs", "/docs/style.css", "/problems/{kind}"];

/// What a request needs.
pub(super) fn needed(method: &Method, route: Option<&str>) -> Access {
    use Scope::{Admin, Import, Read, Write};
    let Some(route) = route else { return Access::AnyKey };
    if OPEN.contains(&route) {
        return Access::Open;
    }
    let is_read = matches!(*method, Method::GET | Method::HEAD);
    let scopes: &[Scope] = match route {
        _ if is_of_keys(route) => &[Admin],
        EVENTS if *method == Method::POST => &[Write],
        _ if is_below(route, "/v1/imports") => &[Import],
        // An importer asks how far it is counted.
        "/v1/status" if is_read => &[Read, Import],
        _ if is_read => &[Read],
        "/v1/query" if *method == Method::POST => &[Read],
        "/v1/videos" | "/v1/videos/{id}" | "/v1/spaces/{id}" if *method == Method::PUT => &[Import],
        _ => &[Admin],
    };
    Access::OneOf(scopes)
}

/// Whether keys are seen or changed there.
pub(super) fn is_of_keys(route: &str) -> bool {
    is_below(route, "/v1/keys")
}

fn is_below(route: &str, top: &str) -> bool {
    route.strip_prefix(top).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_needs_the_scope_that_it_is_for() {
        use Scope::{Admin, Import, Read, Write};
        let one_of = Access::OneOf;
        for (method, route, access) in [
            ("POST", "/v1/events", one_of(&[Write])),
            ("GET", "/v1/events/{event_id}", one_of(&[Read])),
            ("GET", "/v1/imports/{content}", one_of(&[Import])),
            ("PUT", "/v1/imports/{content}", one_of(&[Import])),
            ("PUT", "/v1/videos/{id}", one_of(&[Import])),
            ("PUT", "/v1/videos", one_of(&[Import])),
            ("PUT", "/v1/spaces/{id}", one_of(&[Import])),
            ("GET", "/v1/videos/{id}", one_of(&[Read])),
            ("HEAD", "/v1/videos/{id}/views", one_of(&[Read])),
            ("POST", "/v1/query", one_of(&[Read])),
            ("GET", "/v1/status", one_of(&[Read, Import])),
            ("GET", "/v1/records", one_of(&[Read])),
            ("GET", "/metrics", one_of(&[Read])),
            ("GET", "/v1/keys", one_of(&[Admin])),
            ("POST", "/v1/keys", one_of(&[Admin])),
            ("DELETE", "/v1/keys/{id}", one_of(&[Admin])),
            ("GET", "/v1/rejected", one_of(&[Read])),
            ("POST", "/v1/rejected/retry", one_of(&[Admin])),
            ("GET", "/v1/adjustments", one_of(&[Read])),
            ("POST", "/v1/adjustments", one_of(&[Admin])),
            ("POST", "/v1/adjustments/{id}/undo", one_of(&[Admin])),
            // Methods that a route does not take, and routes that nobody knows yet.
            ("PUT", "/v1/events", one_of(&[Admin])),
            ("DELETE", "/v1/status", one_of(&[Admin])),
            ("POST", "/v1/videos/{id}", one_of(&[Admin])),
            ("TRACE", "/v1/query", one_of(&[Admin])),
            ("POST", "/v2/new", one_of(&[Admin])),
            ("GET", "/v2/new", one_of(&[Read])),
            ("GET", "/v1/keysmith", one_of(&[Read])),
            ("GET", "/livez", Access::Open),
            ("GET", "/problems/{kind}", Access::Open),
            ("POST", "/docs", Access::Open),
        ] {
            assert_eq!(needed(&method.parse().unwrap(), Some(route)), access, "{method} {route}");
        }
        assert_eq!(needed(&Method::GET, None), Access::AnyKey);
    }
}
