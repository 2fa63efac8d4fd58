//! Problems in the OpenAPI document: the schema of a problem, and which kinds an operation can answer with.
//!
//! ```
//! ingest::answers_with!(pub(crate) Refusals = [ingest::problem::responses::ANY, &["body-too-large"]]);
//! ```
//! and then `responses((status = 200, ...), Refusals)` in `#[utoipa::path]`.

use std::collections::BTreeMap;

use utoipa::ToSchema;
use utoipa::openapi::schema::{AllOfBuilder, ObjectBuilder, Ref, Type};
use utoipa::openapi::{ContentBuilder, HeaderBuilder, RefOr, Response, ResponseBuilder};

use super::kinds::{self, Kind};

/// Why a request was not answered (RFC 9457). Kinds have members of their own beside these: `parameter` names the parameter that
/// cannot be used, `limit` the limit that was passed.
#[derive(ToSchema)]
#[schema(as = Problem, example = json!({
    "type": "/problems/bad-parameter",
    "title": "A parameter cannot be used",
    "status": 400,
    "detail": "step \"2h\" is none of 1m, 5m, 15m, 1h, 1d, 1w, 1mo, 1y, all",
    "parameter": "step"
}))]
#[expect(dead_code, reason = "it describes what Problem writes")]
struct ProblemBody {
    /// The kind: stable, for programs. It leads to a page that explains it.
    #[schema(format = "uri-reference")]
    r#type: String,
    /// The kind, for people.
    title: String,
    /// The HTTP status.
    #[schema(minimum = 400, maximum = 599)]
    status: u16,
    /// What is wrong with this request, where, and what to do.
    detail: String,
    /// The name of the request, as in the header `x-request-id`: the log of the server has it too.
    request_id: Option<String>,
}

/// The kinds that any operation can answer with.
pub const ANY: &[&str] = &["key-needed", "scope-lacking", "target-too-long", "headers-too-long", "internal", "unavailable"];

/// Names a set of kinds for `responses(...)`.
#[macro_export]
macro_rules! answers_with {
    ($(#[$doc:meta])* $visible:vis $name:ident = [$($kinds:expr),+ $(,)?]) => {
        $(#[$doc])*
        $visible struct $name;

        impl utoipa::IntoResponses for $name {
            fn responses() -> std::collections::BTreeMap<String, utoipa::openapi::RefOr<utoipa::openapi::Response>> {
                let kinds: &[&[&str]] = &[$($kinds),+];
                $crate::problem::responses::responses(&kinds.concat())
            }
        }
    };
}

/// The responses of some kinds, by status. A kind that is not in the table is left out; a test sees to it that there is none.
pub fn responses(names: &[&str]) -> BTreeMap<String, RefOr<Response>> {
    let mut by_status: BTreeMap<u16, Vec<&Kind>> = BTreeMap::new();
    for kind in names.iter().filter_map(|name| kinds::find(name)) {
        by_status.entry(kind.status).or_default().push(kind);
    }
    by_status.into_iter().map(|(status, kinds)| (status.to_string(), response(status, &kinds).into())).collect()
}

fn response(status: u16, kinds: &[&Kind]) -> Response {
    let told: Vec<String> = kinds.iter().map(|kind| format!("`{}`: {}.", kind.name, kind.title)).collect();
    let types = kinds.iter().map(|kind| format!("/problems/{}", kind.name));
    let one_of = ObjectBuilder::new()
        .schema_type(Type::Object)
        .property("type", ObjectBuilder::new().schema_type(Type::String).enum_values(Some(types)));
    let schema = AllOfBuilder::new().item(Ref::from_schema_name("Problem")).item(one_of);
    let response = ResponseBuilder::new()
        .description(told.join(" "))
        .content("application/problem+json", ContentBuilder::new().schema(Some(schema)).build());
    match status {
        429 | 503 => response.header(
            "Retry-After",
            seconds_header("After how many seconds to send the request again. Left out where only an operator can help."),
        ),
        _ => response,
    }
    .build()
}

fn seconds_header(says: &str) -> utoipa::openapi::Header {
    HeaderBuilder::new().schema(Some(ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(0)))).description(Some(says)).build()
}

/// The schemas that the responses refer to.
pub fn components() -> utoipa::openapi::Components {
    let mut schemas = Vec::new();
    schemas.push((ProblemBody::name().into_owned(), <ProblemBody as utoipa::PartialSchema>::schema()));
    ProblemBody::schemas(&mut schemas);
    utoipa::openapi::ComponentsBuilder::new().schemas_from_iter(schemas).build()
}
