//! Who may pass: each request shows a key with the scope that its route needs, as soon as there is one key.
//!
//! ```text
//! method, route ──> Access ─┐
//! Authorization ──> Presented ──> admit ──> 401, 403, 503
//!                      Ring ─┘         └──> CallerKey among the request's extensions, and those of its answer
//! ```
//!
//! What a refusal says is what the caller knows already: of a key whose secret is wrong, not even that there is one.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::body::{Body, HttpBody};
use axum::extract::{ConnectInfo, MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use ingest::{CallerKey, Problem};
use schemas::key::Ended;
use schemas::{KeyRecord, Millis, Scope};

use super::access::{Access, EVENTS, is_of_keys, needed};
use super::metrics::Refusals;
use super::presented::{Presented, pairs};
use crate::keys::{Keys, Known, Ring, Unknown};

/// The middleware.
pub(crate) async fn admit(State((keys, refusals)): State<(Keys, Refusals)>, mut request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().cloned();
    let mut response = match asked(&request).admitted(&keys.known(), Millis::now()) {
        Err(refusal) => {
            refusals.count(refusal.reason());
            refusal.into_response()
        }
        Ok(None) => next.run(request).await,
        Ok(Some(caller)) => {
            request.extensions_mut().insert(caller.clone());
            let id = caller.id.clone();
            let mut response = next.run(request).await;
            response.extensions_mut().insert(caller);
            for_who_has_a_key(response.headers_mut());
            while_it_holds(response, keys, id)
        }
    };
    // For the line that tells of it.
    if let Some(route) = route {
        response.extensions_mut().insert(route);
    }
    response
}

/// What was asked with a key is for who has one: a cache that others use too must not keep it.
fn for_who_has_a_key(headers: &mut HeaderMap) {
    let Some(value) = headers.get_mut(header::CACHE_CONTROL) else { return };
    if let Some(rest) = value.to_str().ok().and_then(|text| text.strip_prefix("public"))
        && let Ok(private) = HeaderValue::from_str(&format!("private{rest}"))
    {
        *value = private;
    }
}

/// A stream may go on for hours: it ends with the key that it was opened with.
fn while_it_holds(response: Response, keys: Keys, id: Arc<str>) -> Response {
    if response.body().size_hint().exact().is_some() {
        return response;
    }
    response.map(|body| {
        let ended = Box::pin(async move { keys.ended(&id).await });
        Body::from_stream(body.into_data_stream().take_until(ended))
    })
}

fn asked(request: &Request) -> Asked<'_> {
    Asked {
        method: request.method(),
        route: request.extensions().get::<MatchedPath>().map(MatchedPath::as_str),
        uri: request.uri(),
        headers: request.headers(),
        peer: request.extensions().get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(peer)| peer.ip()),
    }
}

/// What is looked at of a request.
struct Asked<'a> {
    method: &'a Method,
    route: Option<&'a str>,
    uri: &'a Uri,
    headers: &'a HeaderMap,
    peer: Option<IpAddr>,
}

impl Asked<'_> {
    /// Who asks, if a key is needed and it is a good one.
    fn admitted(&self, known: &Known, now: Millis) -> Result<Option<CallerKey>, Refusal> {
        let access = needed(self.method, self.route);
        let scopes = match access {
            Access::Open => return Ok(None),
            Access::AnyKey => &[][..],
            Access::OneOf(scopes) => scopes,
        };
        let ring = match known {
            Known::Nothing(why) => return Err(Refusal::NotKnown(why.to_string())),
            Known::Ring(ring) => ring,
        };
        if !ring.is_needed() {
            return self.without_keys().map(|()| None);
        }
        let sends = self.is_sending();
        let key = find(ring, Presented::of(self.headers, self.uri, sends), scopes, now)?;
        if let Some(scope) = scopes.first().filter(|_| !scopes.iter().any(|scope| key.allows(*scope))) {
            return Err(Refusal::Lacks(*scope));
        }
        if sends {
            self.may_send(key)?;
        }
        let events_per_second = key.events_per_second;
        Ok(Some(CallerKey { id: key.id.shared(), may_import: key.allows(Scope::Import), events_per_second }))
    }

    fn is_sending(&self) -> bool {
        *self.method == Method::POST && self.route == Some(EVENTS)
    }

    /// Nothing asks for keys yet. The first one is made on the machine itself, by a program: neither from elsewhere, nor through a proxy,
    /// nor by a page in somebody's browser there.
    fn without_keys(&self) -> Result<(), Refusal> {
        let is_here = self.peer.is_some_and(|peer| peer.to_canonical().is_loopback());
        let foreign = [header::ORIGIN, header::FORWARDED, header::VIA].iter().any(|name| self.headers.contains_key(name));
        let forwarded = self.headers.keys().any(|name| name.as_str().starts_with("x-forwarded-") || name.as_str() == "x-real-ip");
        if self.route.is_some_and(is_of_keys) && (!is_here || foreign || forwarded) { Err(Refusal::FirstElsewhere) } else { Ok(()) }
    }

    /// What holds for events beside the scope: a page may use a key only if it is listed, and what is of any age needs a scope of its own.
    fn may_send(&self, key: &KeyRecord) -> Result<(), Refusal> {
        for origin in self.headers.get_all(header::ORIGIN) {
            if !origin.to_str().is_ok_and(|origin| key.lists_origin(origin)) {
                return Err(Refusal::Origin);
            }
        }
        let is_historical = pairs(self.uri).iter().any(|(name, value)| name == "historical" && value != "false");
        if is_historical && !key.allows(Scope::Import) { Err(Refusal::Lacks(Scope::Import)) } else { Ok(()) }
    }
}

/// The key that is shown.
fn find<'a>(ring: &'a Ring, shown: Presented, scopes: &[Scope], now: Millis) -> Result<&'a KeyRecord, Refusal> {
    let (token, is_in_query) = match shown {
        Presented::Nothing => return Err(Refusal::None(scopes.first().copied())),
        Presented::Bad(why) => return Err(Refusal::Malformed(why)),
        Presented::Header(token) => (token, false),
        Presented::Query(token) => (token, true),
    };
    let key = ring.find(&token, now).map_err(|unknown| match unknown {
        Unknown::Nobody => Refusal::Unknown,
        Unknown::Ended(ended) => Refusal::Ended(ended),
    })?;
    if is_in_query && !key.public { Err(Refusal::InAddress) } else { Ok(key) }
}

/// Why a request does not pass.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Refusal {
    /// It shows no key.
    None(Option<Scope>),
    /// What it shows is no key, and what is wrong with it.
    Malformed(&'static str),
    /// There is no such key, or it has another secret.
    Unknown,
    /// The key has ended.
    Ended(Ended),
    /// The key is secret, and was shown to everybody who sees the address.
    InAddress,
    /// The key may not do this.
    Lacks(Scope),
    /// The page may not use the key.
    Origin,
    /// The first key is made elsewhere.
    FirstElsewhere,
    /// No key is known yet.
    NotKnown(String),
}

impl Refusal {
    /// A word for metrics.
    const fn reason(&self) -> &'static str {
        match self {
            Self::None(_) => "missing",
            Self::Malformed(_) => "malformed",
            Self::Unknown => "unknown",
            Self::Ended(Ended::Revoked(_)) => "revoked",
            Self::Ended(Ended::Expired(_)) => "expired",
            Self::InAddress => "in_address",
            Self::Lacks(_) => "scope",
            Self::Origin => "origin",
            Self::FirstElsewhere => "first_key",
            Self::NotKnown(_) => "not_known_yet",
        }
    }

    /// What the header `WWW-Authenticate` says of it (RFC 6750, section 3).
    fn challenge(&self) -> Option<String> {
        const REALM: &str = "Bearer realm=\"tallymark\"";
        match self {
            Self::None(_) | Self::FirstElsewhere => Some(REALM.to_owned()),
            Self::Malformed(_) | Self::Unknown | Self::Ended(_) | Self::InAddress => Some(format!("{REALM}, error=\"invalid_token\"")),
            Self::Lacks(scope) => Some(format!("{REALM}, error=\"insufficient_scope\", scope=\"{}\"", scope.as_str())),
            Self::Origin | Self::NotKnown(_) => None,
        }
    }

    fn problem(self) -> Problem {
        let needed = |detail: String| Problem::new(StatusCode::UNAUTHORIZED, "key-needed", "A key is needed", detail);
        match self {
            Self::None(scope) => {
                let scope = scope.map_or(String::new(), |scope| format!(" with scope {}", scope.as_str()));
                needed(format!("send a key{scope} as Authorization: Bearer tm_...; who runs this server makes one with tallymark keys create"))
            }
            Self::Malformed(why) => needed(why.to_owned()),
            Self::Unknown => needed("there is no such key; ask who runs this server for one".to_owned()),
            Self::Ended(Ended::Revoked(at)) => needed(format!("this key was revoked at {}; ask for another", at.to_rfc3339())),
            Self::Ended(Ended::Expired(at)) => needed(format!("this key expired at {}; ask for another", at.to_rfc3339())),
            Self::InAddress => needed(
                "this key is secret and stands in an address, where logs and histories keep it: revoke it, and send the next one as Authorization: Bearer tm_...".to_owned(),
            ),
            Self::FirstElsewhere => needed(
                "the first key is made on the machine itself: tallymark keys create NAME --scope admin, to an address of loopback or with --direct".to_owned(),
            ),
            Self::Lacks(scope) => {
                let scope = scope.as_str();
                let detail = format!("this key lacks the scope {scope}; use one that has it");
                Problem::new(StatusCode::FORBIDDEN, "scope-lacking", "The key does not allow this", detail).with("scope", scope)
            }
            Self::Origin => {
                let detail = "the page that sent this (its header Origin) is not among the origins of the key; make a key that lists it: tallymark keys create NAME --public --scope write --origin https://...";
                Problem::new(StatusCode::FORBIDDEN, "origin-refused", "The key is not for this page", detail)
            }
            Self::NotKnown(why) => Problem::unavailable(1, format!("which keys there are is not known yet: {why}")),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let challenge = self.challenge().and_then(|text| HeaderValue::try_from(text).ok());
        let mut response = self.problem().into_response();
        if let Some(challenge) = challenge {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        }
        // What was refused once may be allowed as soon as there is another key.
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }
}

#[cfg(test)]
#[path = "keys_tests.rs"]
mod tests;
