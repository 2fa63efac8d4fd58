//! The API as its users see it: `/openapi.json`, from the descriptions beside the handlers.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
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
    ("Lists", "Those that were viewed most, those that rise, and all videos of a day."),
    ("Operation", "How the system is doing, and what its operators and tools need."),
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
    let shown = Shown { json: json(document).into() };
    Router::from(routes()).method_not_allowed_fallback(crate::method_not_allowed).with_state(Arc::new(shown))
}

fn routes() -> OpenApiRouter<Arc<Shown>> {
    OpenApiRouter::new().routes(routes!(openapi_json))
}

/// What is served, made once.
struct Shown {
    json: Bytes,
}

/// This API as an OpenAPI 3.1 document.
#[utoipa::path(
    get,
    path = "/openapi.json",
    operation_id = "openapi",
    tag = "Operation",
    responses((status = 200, description = "The document.", body = Object, content_type = "application/json"))
)]
async fn openapi_json(State(shown): State<Arc<Shown>>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], shown.json.clone()).into_response()
}
