//! The API as its users see it: `/openapi.json` for programs, `/docs` and `/problems/{kind}` for people; all from the descriptions
//! beside the handlers and the table of problems, and made once.
//!
//! ```text
//! #[utoipa::path] ──> OpenApi ──> document ──┬── JSON ──────────────> /openapi.json
//! problem::kinds ──────────────────┬─────────┴── page (operation, schema) ──> /docs
//!                                  └────────────────────────────────────────> /problems/{kind}
//! ```

mod html;
mod operation;
mod page;
mod schema;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use ingest::problem::kinds;
use ingest::{Problem, answers_with};
use utoipa::openapi::tag::TagBuilder;
use utoipa::openapi::{Components, InfoBuilder, LicenseBuilder, OpenApi, OpenApiBuilder};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The groups of operations, in the order in which they are read.
const TAGS: &[(&str, &str)] = &[
    ("Events", "What is viewed comes in as events: one for each click, in requests of one or many."),
    ("Videos", "One video: its views over time, and what is known of it."),
    ("Spaces", "All videos of a space (a channel) together."),
    ("Site", "Everything together."),
    ("Many at once", "One question about many videos, spaces and the site."),
    ("Lists", "Those that were viewed most, those that rise, and all videos of a day."),
    ("Operation", "How the system is doing, and what its operators and tools need."),
    ("Reference", "This reference."),
];

const ABOUT: &str = "Exact view counts: events in, counts over any time range out. Videos, spaces and the whole site are asked in the \
    same way. Counts are exact; `complete` says of each number whether events may still be on their way to it.";

/// The document of all `parts`, and of `/openapi.json` itself.
pub fn document(parts: impl IntoIterator<Item = OpenApi>) -> OpenApi {
    let license = LicenseBuilder::new().name("Apache-2.0").identifier(Some("Apache-2.0")).build();
    let info = InfoBuilder::new().title("Tallymark").version("1").description(Some(ABOUT)).license(Some(license)).build();
    let tags = TAGS.iter().map(|(name, says)| TagBuilder::new().name(*name).description(Some(*says)).build());
    let mut document = OpenApiBuilder::new().info(info).tags(Some(tags)).components(Some(Components::new())).build();
    for part in parts.into_iter().chain([routes().into_openapi()]) {
        document.merge(part);
    }
    document.merge(OpenApiBuilder::new().components(Some(ingest::problem::responses::components())).build());
    document
}

/// A document as JSON, for people too.
pub fn json(document: &OpenApi) -> String {
    // Strings, numbers and lists always have a JSON form.
    let json = document.to_pretty_json();
    debug_assert!(json.is_ok());
    json.unwrap_or_default() + "\n"
}

/// The routes that show a document.
pub fn router(document: &OpenApi) -> Router {
    let json = json(document);
    let value = serde_json::from_str(&json).unwrap_or_default();
    let shown = Shown { page: page::reference(&value).into(), json: json.into() };
    Router::from(routes()).method_not_allowed_fallback(crate::method_not_allowed).with_state(Arc::new(shown))
}

fn routes() -> OpenApiRouter<Arc<Shown>> {
    OpenApiRouter::new().routes(routes!(openapi_json)).routes(routes!(reference)).routes(routes!(style)).routes(routes!(problem))
}

/// What is served, made once.
struct Shown {
    json: Bytes,
    page: Bytes,
}

/// A page loads its style sheet from here and nothing from anywhere else; it has no scripts, forms or frames.
const POLICY: &str = "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

fn html(page: impl Into<Body>) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "public, max-age=60"),
    ];
    (headers, page.into()).into_response()
}

/// This API as an OpenAPI 3.1 document.
#[utoipa::path(
    get,
    path = "/openapi.json",
    operation_id = "openapi",
    tag = "Reference",
    responses((status = 200, description = "The document.", body = Object, content_type = "application/json"))
)]
async fn openapi_json(State(shown): State<Arc<Shown>>) -> Response {
    ([(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "public, max-age=60")], shown.json.clone()).into_response()
}

/// This API as a page for people.
#[utoipa::path(
    get,
    path = "/docs",
    operation_id = "docs",
    tag = "Reference",
    responses((status = 200, description = "The page.", body = String, content_type = "text/html"))
)]
async fn reference(State(shown): State<Arc<Shown>>) -> Response {
    html(shown.page.clone())
}

/// The style sheet of the pages.
#[utoipa::path(
    get,
    path = "/docs/style.css",
    operation_id = "docs_style",
    tag = "Reference",
    responses((status = 200, description = "The style sheet.", body = String, content_type = "text/css"))
)]
async fn style() -> Response {
    let headers = [(header::CONTENT_TYPE, "text/css; charset=utf-8"), (header::CACHE_CONTROL, "public, max-age=60")];
    (headers, include_str!("style.css")).into_response()
}

answers_with!(
    /// How an explanation is refused.
    NoSuchKind = [&["unknown-problem"]]
);

/// What a kind of problem means.
///
/// Where the `type` of a problem leads: what has happened, and what to do.
#[utoipa::path(
    get,
    path = "/problems/{kind}",
    operation_id = "problem",
    tag = "Reference",
    params(("kind" = String, Path, description = "The kind's name.", example = "bad-parameter")),
    responses((status = 200, description = "The page.", body = String, content_type = "text/html"), NoSuchKind)
)]
async fn problem(name: Result<Path<String>, PathRejection>) -> Result<Response, Problem> {
    let kind = name.ok().and_then(|Path(name)| kinds::find(&name));
    let none = || {
        Problem::new(StatusCode::NOT_FOUND, "unknown-problem", "There is no such kind of problem", "all kinds are listed at /docs#problems")
    };
    kind.map(|kind| html(page::problem(kind))).ok_or_else(none)
}
