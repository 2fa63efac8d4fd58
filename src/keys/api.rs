//! `GET` and `POST /v1/keys`, `DELETE /v1/keys/{id}`: for whoever has a key with scope admin.

use std::num::NonZeroU32;

use aggregator::StoreError;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection};
use axum::extract::{DefaultBodyLimit, Path, RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json, Router};
use ingest::{CallerKey, Problem};
use schemas::key::AllowedOrigin;
use schemas::{KeyRecord, Millis, NewKey, Scope};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Keys, KeysError};

/// The longest body, in bytes: a hundred origins have room.
const MAX_BODY_BYTES: usize = 64 * 1024;

ingest::answers_with!(
    /// How a list of keys is refused.
    ListProblems = [ingest::problem::responses::ANY, &["unknown-parameter", "store-damaged", "store-failed"]]
);
ingest::answers_with!(
    /// How a new key is refused.
    CreateProblems = [
        ingest::problem::responses::ANY,
        &["unknown-parameter", "bad-body", "body-cut", "body-too-large", "too-many-keys", "store-damaged", "store-failed"],
    ]
);
ingest::answers_with!(
    /// How a revocation is refused.
    RevokeProblems = [ingest::problem::responses::ANY, &["unknown-parameter", "unknown-key", "store-damaged", "store-failed"]]
);

/// A key, without its secret.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub(super) struct Key {
    /// Its public name: the middle of the key itself.
    #[schema(example = "9f86d081884c7d65")]
    pub(super) id: String,
    /// What it is for.
    pub(super) name: String,
    /// What it may be used for: `write` (send events), `import` (also events of any age, imports and names), `read` (ask), `admin` (everything).
    pub(super) scopes: Vec<String>,
    /// Whether it may be seen by everybody, as in a web page.
    pub(super) public: bool,
    /// The pages from which browsers may use it: scheme, host and port each, or `*`.
    pub(super) origins: Vec<String>,
    /// How many events it may send each second, if it has a limit of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) events_per_second: Option<u32>,
    /// When it was made.
    pub(super) created_at: String,
    /// From when on it is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) expires_at: Option<String>,
    /// When it was revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) revoked_at: Option<String>,
}

impl From<&KeyRecord> for Key {
    fn from(key: &KeyRecord) -> Self {
        Self {
            id: key.id.to_string(),
            name: key.name.clone(),
            scopes: key.scopes.iter().map(|scope| scope.as_str().to_owned()).collect(),
            public: key.public,
            origins: key.origins.iter().map(ToString::to_string).collect(),
            events_per_second: key.events_per_second.map(NonZeroU32::get),
            created_at: key.created_at.to_rfc3339(),
            expires_at: key.expires_at.map(Millis::to_rfc3339),
            revoked_at: key.revoked_at.map(Millis::to_rfc3339),
        }
    }
}

/// All keys.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(super) struct KeyList {
    /// The oldest first; those that have ended are among them.
    pub(super) keys: Vec<Key>,
}

/// A key that was just made.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(super) struct CreatedKey {
    /// The key itself, with its secret: it is shown this once and kept nowhere.
    #[schema(example = "tm_9f86d081884c7d65_2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae")]
    pub(super) token: String,
    /// What is kept of it.
    pub(super) key: Key,
}

/// A key to be made.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "name": "shop, server", "scopes": ["write"], "events_per_second": 1_000 }))]
pub(super) struct KeyRequest {
    /// What it is for. At most 128 bytes.
    #[schema(min_length = 1, max_length = 128, pattern = r"^[^\u0000-\u001f\u007f-\u009f]+$")]
    pub(super) name: String,
    /// What it may be used for. The first key of all needs `admin`, and a public one has `write` alone.
    #[schema(min_items = 1, value_type = Vec<ScopeName>)]
    pub(super) scopes: Vec<String>,
    /// Whether it may be seen by everybody, as in a web page; then its only scope is `write`.
    #[serde(default)]
    pub(super) public: bool,
    /// The pages from which browsers may use it, at most 100, each as browsers write it: `https://www.example.com`. `*` is every page.
    #[serde(default)]
    #[schema(max_items = 100, value_type = Vec<OriginText>)]
    pub(super) origins: Vec<String>,
    /// How many events it may send each second; without it the limit of the settings holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 4_294_967_295u64)]
    pub(super) events_per_second: Option<u32>,
    /// From when on it is refused, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    pub(super) expires_at: Option<String>,
}

/// What a key may be used for.
#[derive(ToSchema)]
#[schema(as = Scope, rename_all = "lowercase")]
#[expect(dead_code, reason = "the shape is only described here")]
enum ScopeName {
    Write,
    Import,
    Read,
    Admin,
}

/// A page's origin as browsers write it, or `*`.
#[derive(ToSchema)]
#[schema(as = Origin, pattern = r"^(\*|https?://[a-z0-9]+(\.[a-z0-9]+)*(:[1-9][0-9]{0,3})?)$", max_length = 300)]
#[expect(dead_code, reason = "the shape is only described here")]
struct OriginText(String);

impl KeyRequest {
    /// What it asks for.
    ///
    /// # Errors
    /// The member that cannot be, and why.
    pub(super) fn read(self) -> Result<NewKey, (&'static str, String)> {
        let scope = |text: &String| {
            Scope::parse(text).ok_or_else(|| ("scopes", format!("there is no scope {text:?}; there are write, import, read and admin")))
        };
        let origin = |text: &String| AllowedOrigin::parse(text).map_err(|error| ("origins", format!("{text:?} {error}")));
        let instant = |text: String| {
            Millis::parse_rfc3339(&text).ok_or_else(|| ("expires_at", format!("{text:?} is no time such as 2027-01-31T00:00:00Z")))
        };
        let limit =
            |n| NonZeroU32::new(n).ok_or_else(|| ("events_per_second", "is at least 1; leave it out for no limit of its own".to_owned()));
        Ok(NewKey {
            scopes: self.scopes.iter().map(scope).collect::<Result<_, _>>()?,
            origins: self.origins.iter().map(origin).collect::<Result<_, _>>()?,
            events_per_second: self.events_per_second.map(limit).transpose()?,
            expires_at: self.expires_at.map(instant).transpose()?,
            public: self.public,
            name: self.name,
        })
    }
}

/// The routes.
pub(crate) fn router(keys: Keys) -> Router {
    let limited = Router::from(routes()).method_not_allowed_fallback(query::method_not_allowed);
    limited.layer(DefaultBodyLimit::max(MAX_BODY_BYTES)).with_state(keys)
}

/// What the OpenAPI document says of them.
pub(crate) fn openapi() -> OpenApi {
    routes().into_openapi()
}

fn routes() -> OpenApiRouter<Keys> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(revoke))
}

/// All keys, without their secrets.
#[utoipa::path(
    get,
    path = "/v1/keys",
    operation_id = "list_keys",
    tag = "Operation",
    responses((status = 200, description = "The keys.", body = KeyList), ListProblems)
)]
async fn list(State(keys): State<Keys>, RawQuery(query): RawQuery) -> Result<Response, Problem> {
    no_parameters(query.as_deref())?;
    let keys = keys.list().await.map_err(problem)?;
    Ok(private(StatusCode::OK, KeyList { keys: keys.iter().map(Key::from).collect() }))
}

/// Make a key.
///
/// Its secret is in the answer, and nowhere else: only a hash of it is kept. As soon as there is one key, requests need one.
/// Other processes know it within 5 seconds.
#[utoipa::path(
    post,
    path = "/v1/keys",
    operation_id = "create_key",
    tag = "Operation",
    request_body = KeyRequest,
    responses((status = 201, description = "The key.", body = CreatedKey), CreateProblems)
)]
async fn create(
    State(keys): State<Keys>,
    caller: Option<Extension<CallerKey>>,
    RawQuery(query): RawQuery,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    no_parameters(query.as_deref())?;
    let new = parse(body)?.read().map_err(|(member, detail)| bad_member(member, &format!("{member}: {detail}")))?;
    let (record, token) = keys.create(new).await.map_err(problem)?;
    tracing::info!(key = %record.id, name = record.name, by = by(caller.as_ref()), "a key was made");
    Ok(private(StatusCode::CREATED, CreatedKey { token: token.reveal(), key: Key::from(&record) }))
}

/// Revoke a key.
///
/// This process refuses it from now on, and every other within 5 seconds. It cannot be taken back; to revoke it again changes nothing.
#[utoipa::path(
    delete,
    path = "/v1/keys/{id}",
    operation_id = "revoke_key",
    tag = "Operation",
    params(("id" = String, Path, description = "Its public name.", example = "9f86d081884c7d65")),
    responses((status = 200, description = "The key, revoked.", body = Key), RevokeProblems)
)]
async fn revoke(
    State(keys): State<Keys>,
    caller: Option<Extension<CallerKey>>,
    RawQuery(query): RawQuery,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    no_parameters(query.as_deref())?;
    let id = id.map(|Path(id)| id).unwrap_or_default();
    let record = keys.revoke(&id).await.map_err(problem)?;
    tracing::info!(key = %record.id, name = record.name, by = by(caller.as_ref()), "a key was revoked");
    Ok(private(StatusCode::OK, Key::from(&record)))
}

/// Who did it, for the log.
fn by(caller: Option<&Extension<CallerKey>>) -> &str {
    caller.map_or("nobody asked for a key", |Extension(caller)| &caller.id)
}

/// An answer that nobody else should see: no cache keeps it.
fn private(status: StatusCode, body: impl Serialize) -> Response {
    (status, [(header::CACHE_CONTROL, "no-store")], Json(body)).into_response()
}

fn no_parameters(query: Option<&str>) -> Result<(), Problem> {
    match query {
        None | Some("") => Ok(()),
        Some(_) => {
            let detail = "this operation takes no parameters";
            Err(Problem::new(StatusCode::BAD_REQUEST, "unknown-parameter", "There is no such parameter", detail))
        }
    }
}

fn parse(body: Result<Bytes, BytesRejection>) -> Result<KeyRequest, Problem> {
    let body = body.map_err(|rejection| {
        if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
            let detail = format!("the body has more than {MAX_BODY_BYTES} bytes");
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body-too-large", "The body is too large", detail)
                .with("limit_bytes", MAX_BODY_BYTES)
        } else {
            Problem::new(StatusCode::BAD_REQUEST, "body-cut", "The body ended early", "the connection failed before the body was complete")
        }
    })?;
    // Serde takes a list for an object whose members stand in their order.
    if body.trim_ascii_start().first() == Some(&b'[') {
        return Err(bad_body("the body is a list; it is an object"));
    }
    serde_json::from_slice(&body).map_err(|error| bad_body(&format!("the body cannot be read: {error}")))
}

fn bad_body(detail: &str) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "bad-body", "The body cannot be used", detail)
}

fn bad_member(member: &str, detail: &str) -> Problem {
    bad_body(detail).with("member", member)
}

/// The one place where an error of keys becomes an HTTP problem.
fn problem(error: KeysError) -> Problem {
    let says = error.to_string();
    match error {
        KeysError::Bad(bad) => bad_member(bad.member(), &says),
        KeysError::TooMany => Problem::new(StatusCode::CONFLICT, "too-many-keys", "There are too many keys", says),
        KeysError::Unknown(_) => {
            Problem::new(StatusCode::NOT_FOUND, "unknown-key", "There is no such key", "no key has this id; GET /v1/keys lists all")
        }
        KeysError::Store(error) => Problem::from(query::QueryError::from(error)),
        KeysError::NoRandom(_) => Problem::from(query::QueryError::from(StoreError::Unavailable(says))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_read_or_refused_with_its_member() {
        let good = || KeyRequest { name: "n".into(), scopes: vec!["write".into(), "read".into()], ..KeyRequest::default() };
        let new = KeyRequest { expires_at: Some("2027-01-31T00:00:00Z".into()), events_per_second: Some(5), ..good() }.read().unwrap();
        assert_eq!((new.scopes.len(), new.events_per_second.map(NonZeroU32::get)), (2, Some(5)));
        assert_eq!(new.expires_at.map(Millis::to_rfc3339).as_deref(), Some("2027-01-31T00:00:00Z"));
        for (bad, member) in [
            (KeyRequest { scopes: vec!["Write".into()], ..good() }, "scopes"),
            (KeyRequest { origins: vec!["https://a/".into()], ..good() }, "origins"),
            (KeyRequest { origins: vec!["null".into()], ..good() }, "origins"),
            (KeyRequest { expires_at: Some("tomorrow".into()), ..good() }, "expires_at"),
            (KeyRequest { events_per_second: Some(0), ..good() }, "events_per_second"),
        ] {
            assert_eq!(bad.read().unwrap_err().0, member);
        }
    }

    #[test]
    fn a_key_that_is_shown_has_no_hash() {
        let new = NewKey { name: "n".into(), scopes: [Scope::Read].into(), ..NewKey::default() };
        let token = schemas::Token::from_random([9; schemas::key::token::RANDOM_BYTES]);
        let record = new.record(&token, Millis(0));
        let shown = serde_json::to_string(&Key::from(&record)).unwrap();
        assert!(!shown.contains(&record.hash.to_string()) && !shown.contains("0909090909090909090909"), "{shown}");
    }
}
